//! Making streams and consumers, or checking those that are there.
//!
//! Everything here can be called again at any time, by any number of workers at once. What
//! exists is compared and never altered: an operator's bound stays, a setting that breaks a
//! guarantee is an `Incompatible` error that names it.

use std::time::Duration;

use async_nats::jetstream::{
    Context, ErrorCode,
    consumer::{self, IntoConsumerConfig, pull},
    response::Response,
    stream,
};
use serde_json::json;
use superstep_queue::{Error, ErrorKind};
use tokio::time::sleep;
use tracing::info;

use crate::{
    config::{StreamRole, consumer_differences, stream_differences},
    error,
};

/// The pause before a stream that was there is made anew. NATS 2.9 tells the end of a stream
/// while it still deletes its files, and then deletes those of the next one with them.
const DELETION_PAUSE: Duration = Duration::from_millis(500);

/// Makes the stream, or checks the one that is there. `was_there` says that it is missed and
/// not new. Answers too whether this made it.
pub(crate) async fn ensure_stream(
    context: &Context,
    role: StreamRole,
    wanted: &stream::Config,
    was_there: bool,
) -> Result<(stream::Info, bool), Error> {
    let mut found = stream_info(context, &wanted.name).await?;
    if found.is_none() && was_there {
        sleep(DELETION_PAUSE).await;
        found = stream_info(context, &wanted.name).await?;
    }
    if let Some(found) = found {
        check_stream(role, wanted, &found.config)?;
        return Ok((found, false));
    }
    let what = format!("creating the stream {}", wanted.name);
    let created: Response<stream::Info> = context
        .request(format!("STREAM.CREATE.{}", wanted.name), wanted)
        .await
        .map_err(|failed| error::requesting(&what, failed))?;
    match created {
        Response::Ok(created) => {
            info!(stream = wanted.name, "created the stream");
            Ok((created, true))
        }
        // Another was faster and has other bounds.
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
            let found = stream_info(context, &wanted.name).await?;
            let found = found.ok_or_else(|| error::refused(&what, &error))?;
            check_stream(role, wanted, &found.config)?;
            Ok((found, false))
        }
        Response::Err { error } => Err(error::refused(&what, &error)),
    }
}

/// What the server says of a stream; `None` if there is none.
pub(crate) async fn stream_info(
    context: &Context,
    name: &str,
) -> Result<Option<stream::Info>, Error> {
    let what = format!("looking at the stream {name}");
    let answer: Response<stream::Info> = context
        .request(format!("STREAM.INFO.{name}"), &json!({}))
        .await
        .map_err(|failed| error::requesting(&what, failed))?;
    match answer {
        Response::Ok(info) => Ok(Some(info)),
        Response::Err { error } if error.error_code() == ErrorCode::STREAM_NOT_FOUND => Ok(None),
        Response::Err { error } => Err(error::refused(&what, &error)),
    }
}

/// Refuses a stream whose settings break a guarantee.
pub(crate) fn check_stream(
    role: StreamRole,
    wanted: &stream::Config,
    found: &stream::Config,
) -> Result<(), Error> {
    let differences = stream_differences(role, wanted, found);
    if differences.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Incompatible,
        format!(
            "the stream {} exists with settings that break a guarantee: {}; nothing was altered: \
             remove the stream or mend it, or use another prefix or namespace",
            wanted.name,
            differences.join("; ")
        ),
    ))
}

/// Makes the durable consumer, or checks the one that is there.
pub(crate) async fn ensure_consumer(
    context: &Context,
    stream: &str,
    wanted: &pull::Config,
) -> Result<consumer::Info, Error> {
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    if let Some(found) = consumer_info(context, stream, name).await? {
        check_consumer(stream, wanted, &found.config)?;
        return Ok(found);
    }
    match create_consumer(context, stream, wanted).await {
        // Another was faster, with another `ack_wait`.
        Err(failed) if failed.kind() == ErrorKind::Incompatible => {
            let found = consumer_info(context, stream, name).await?.ok_or(failed)?;
            check_consumer(stream, wanted, &found.config)?;
            Ok(found)
        }
        created => created,
    }
}

/// Makes a consumer.
pub(crate) async fn create_consumer(
    context: &Context,
    stream: &str,
    wanted: &pull::Config,
) -> Result<consumer::Info, Error> {
    let name = wanted.name.as_deref().unwrap_or_default();
    let mut subject = format!("CONSUMER.CREATE.{stream}.{name}");
    if !wanted.filter_subject.is_empty() {
        subject.push('.');
        subject.push_str(&wanted.filter_subject);
    }
    let what = format!("creating the consumer {name} of {stream}");
    let config = wanted.into_consumer_config();
    let created: Response<consumer::Info> = context
        .request(subject, &json!({"stream_name": stream, "config": config}))
        .await
        .map_err(|failed| error::requesting(&what, failed))?;
    match created {
        Response::Ok(created) => {
            info!(stream, consumer = name, "created the consumer");
            Ok(created)
        }
        Response::Err { error } => Err(error::refused(&what, &error)),
    }
}

/// What the server says of a consumer; `None` if it or its stream is not there.
pub(crate) async fn consumer_info(
    context: &Context,
    stream: &str,
    name: &str,
) -> Result<Option<consumer::Info>, Error> {
    let what = format!("looking at the consumer {name} of {stream}");
    let answer: Response<consumer::Info> = context
        .request(format!("CONSUMER.INFO.{stream}.{name}"), &json!({}))
        .await
        .map_err(|failed| error::requesting(&what, failed))?;
    match answer {
        Response::Ok(info) => Ok(Some(info)),
        Response::Err { error }
            if error.error_code() == ErrorCode::CONSUMER_NOT_FOUND
                || error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
        {
            Ok(None)
        }
        Response::Err { error } => Err(error::refused(&what, &error)),
    }
}

/// Refuses a consumer whose settings break a guarantee.
pub(crate) fn check_consumer(
    stream: &str,
    wanted: &pull::Config,
    found: &consumer::Config,
) -> Result<(), Error> {
    let differences = consumer_differences(wanted, found);
    if differences.is_empty() {
        return Ok(());
    }
    let name = wanted.durable_name.as_deref().unwrap_or_default();
    Err(Error::new(
        ErrorKind::Incompatible,
        format!(
            "the consumer {name} of the stream {stream} exists with settings that break a \
             guarantee: {}; nothing was altered: remove the consumer, it is made anew",
            differences.join("; ")
        ),
    ))
}
