//! What the client and the server say, as what a caller should do.
//!
//! Every conversion to the port's error is here, so that one table decides what is worth a
//! retry. Nothing here carries a secret or a payload.

use std::error::Error as StdError;

use async_nats::{
    ConnectErrorKind,
    jetstream::{
        ErrorCode,
        context::{PublishError, PublishErrorKind, RequestError, RequestErrorKind},
    },
    rustls,
};
use superstep_queue::{Error, ErrorKind};

/// No room for a stream of the size asked for; not in the client's own list.
const RESERVATION_REFUSED: ErrorCode = ErrorCode::STORAGE_RESOURCES_EXCEEDED;

/// The first connection failed.
pub(crate) fn connecting(addresses: &str, error: async_nats::ConnectError) -> Error {
    if let Some(tls) = tls_cause(&error) {
        let why = tls.to_string();
        return Error::new(
            ErrorKind::Denied,
            format!(
                "the TLS handshake with NATS at {addresses} failed: {why}; check the CA file, \
                 the client certificate, and that the address is in the server's certificate"
            ),
        )
        .with_source(error);
    }
    let (kind, message) = match error.kind() {
        ConnectErrorKind::AuthorizationViolation | ConnectErrorKind::Authentication => (
            ErrorKind::Denied,
            format!(
                "NATS at {addresses} refused the credentials; check user and password, token, \
                 nkey or credentials file"
            ),
        ),
        ConnectErrorKind::ServerParse => (
            ErrorKind::Invalid,
            format!("{addresses} is no NATS address; write it as nats://host:port"),
        ),
        ConnectErrorKind::Tls => (
            ErrorKind::Denied,
            format!(
                "TLS for NATS at {addresses} could not be set up: {}; check the CA file and the \
                 client certificate and key",
                cause(&error)
            ),
        ),
        ConnectErrorKind::TimedOut => (
            ErrorKind::Unavailable,
            format!("NATS at {addresses} did not answer in time; is it running and reachable?"),
        ),
        ConnectErrorKind::Dns | ConnectErrorKind::Io | ConnectErrorKind::MaxReconnects => (
            ErrorKind::Unavailable,
            format!(
                "NATS at {addresses} cannot be reached: {}; is it running, and is the address \
                 right?",
                cause(&error)
            ),
        ),
    };
    Error::new(kind, message).with_source(error)
}

/// A publish was not acked by its stream.
pub(crate) fn publishing(subject: &str, error: PublishError) -> Error {
    let (kind, message) = match error.kind() {
        PublishErrorKind::MaxPayloadExceeded => (
            ErrorKind::TooLarge,
            format!("the message to {subject} is larger than the server takes; send less"),
        ),
        PublishErrorKind::StreamNotFound => (
            ErrorKind::Unavailable,
            format!("no stream takes {subject}; it is gone, or JetStream is not up yet"),
        ),
        PublishErrorKind::TimedOut => (
            ErrorKind::Unavailable,
            format!("the stream did not ack the publish to {subject} in time; retry"),
        ),
        PublishErrorKind::BrokenPipe | PublishErrorKind::MaxAckPending => (
            ErrorKind::Unavailable,
            format!("the publish to {subject} got no answer; retry"),
        ),
        PublishErrorKind::WrongLastMessageId
        | PublishErrorKind::WrongLastSequence
        | PublishErrorKind::Other => {
            if let Some(refusal) = refusal_in(&error) {
                return refused(&format!("the publish to {subject}"), refusal);
            }
            (
                ErrorKind::Unavailable,
                format!("the publish to {subject} failed: {}", cause(&error)),
            )
        }
    };
    Error::new(kind, message).with_source(error)
}

/// A request to the JetStream API got no answer.
pub(crate) fn requesting(what: &str, error: RequestError) -> Error {
    let why = match error.kind() {
        RequestErrorKind::TimedOut => "the server did not answer in time",
        RequestErrorKind::NoResponders => "JetStream is not up, or not enabled",
        _ => "the request failed",
    };
    Error::new(
        ErrorKind::Unavailable,
        format!("{what}: {why}; retry, or check the server"),
    )
    .with_source(error)
}

/// JetStream answered with an error.
pub(crate) fn refused(what: &str, error: &async_nats::jetstream::Error) -> Error {
    let (kind, advice) = match error.error_code() {
        ErrorCode::STREAM_STORE_FAILED if is_bound(error) => (
            ErrorKind::Full,
            "the stream is at its bound; wait until some messages are done, or raise the bound",
        ),
        RESERVATION_REFUSED
        | ErrorCode::INSUFFICIENT_RESOURCES
        | ErrorCode::ACCOUNT_RESOURCES_EXCEEDED
        | ErrorCode::MEMORY_RESOURCES_EXCEEDED
        | ErrorCode::STREAM_LIMITS
        | ErrorCode::STREAM_MAX_STREAM_BYTES_EXCEEDED
        | ErrorCode::MAXIMUM_STREAMS_LIMIT
        | ErrorCode::MAXIMUM_CONSUMERS_LIMIT => (
            ErrorKind::Full,
            "the server or account has no room left for it; give it more, or lower the bounds",
        ),
        ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM | ErrorCode::STREAM_HEADER_EXCEEDS_MAXIMUM => (
            ErrorKind::TooLarge,
            "send less, or raise the stream's limit",
        ),
        ErrorCode::JETSTREAM_NOT_ENABLED
        | ErrorCode::JETSTREAM_NOT_ENABLED_FOR_ACCOUNT
        | ErrorCode::NO_ACCOUNT => (
            ErrorKind::Denied,
            "JetStream is not enabled there; start the server with `-js` or enable it for the \
             account",
        ),
        ErrorCode::STREAM_SUBJECT_OVERLAP => (
            ErrorKind::Incompatible,
            "another stream holds some of the subjects; remove it, or use another prefix or \
             namespace",
        ),
        ErrorCode::STREAM_NAME_EXIST
        | ErrorCode::CONSUMER_NAME_EXIST
        | ErrorCode::CONSUMER_WQ_CONSUMER_NOT_UNIQUE
        | ErrorCode::CONSUMER_WQ_CONSUMER_NOT_DELIVER_ALL
        | ErrorCode::STREAM_SEALED => (
            ErrorKind::Incompatible,
            "what exists there does not fit; remove it, or use another prefix or namespace",
        ),
        _ => (ErrorKind::Unavailable, "retry, or check the server's log"),
    };
    Error::new(kind, format!("{what} was refused: {error}; {advice}"))
}

/// JetStream's own answer inside a client error.
pub(crate) fn refusal_in<'a>(
    error: &'a (dyn StdError + 'static),
) -> Option<&'a async_nats::jetstream::Error> {
    sources(error).find_map(<dyn StdError>::downcast_ref)
}

/// The store refused for a bound, and not for a fault of its own (the code is the same).
fn is_bound(error: &async_nats::jetstream::Error) -> bool {
    error.to_string().contains("maximum")
}

fn tls_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    sources(error).find_map(|source| {
        let inner = source
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        match inner {
            Some(inner) => inner.downcast_ref(),
            None => source.downcast_ref(),
        }
    })
}

/// The innermost cause, which says the most (`connection refused`).
fn cause(error: &(dyn StdError + 'static)) -> String {
    sources(error)
        .last()
        .map_or_else(String::new, ToString::to_string)
}

fn sources<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
