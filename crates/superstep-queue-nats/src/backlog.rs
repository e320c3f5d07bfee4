//! How long the oldest work of a graph has waited for a worker.
//!
//! Two requests, and none for a second after: whoever looks after waiting threads asks once for
//! many of them. What was handed over before does not count: a worker has it, or will have it
//! once its lease is over.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use async_nats::jetstream::{ErrorCode, response::Response, stream::RawMessage};
use serde::Deserialize;
use serde_json::json;
use superstep_protocol::GraphId;
use superstep_queue::Error;
use tokio::time::Instant;

use crate::{
    config::{StreamRole, work_consumer},
    error,
    queue::Shared,
    streams::consumer_info,
};

/// How long an answer is good for.
const FRESH: Duration = Duration::from_secs(1);

/// What was found of each graph, and when.
#[derive(Debug, Default)]
pub(crate) struct Backlogs {
    found: Mutex<HashMap<GraphId, (Instant, Option<Duration>)>>,
}

#[derive(Deserialize)]
struct Found {
    message: RawMessage,
}

impl Shared {
    /// How long the oldest work of `graph` has waited that was never handed over.
    pub(crate) async fn backlog(&self, graph: &GraphId) -> Result<Option<Duration>, Error> {
        let lock = || {
            let found = self.backlogs.found.lock();
            found.unwrap_or_else(PoisonError::into_inner)
        };
        let found = lock().get(graph).copied();
        if let Some((_, waited)) = found.filter(|(at, _)| at.elapsed() < FRESH) {
            return Ok(waited);
        }
        let waited = self.oldest_waiting(graph).await?;
        let mut found = lock();
        found.retain(|_, (at, _)| at.elapsed() < FRESH);
        found.insert(graph.clone(), (Instant::now(), waited));
        Ok(waited)
    }

    async fn oldest_waiting(&self, graph: &GraphId) -> Result<Option<Duration>, Error> {
        let stream = StreamRole::Work.stream(&self.subjects);
        let wanted = work_consumer(&self.settings, &self.subjects, graph)?;
        let name = wanted.durable_name.as_deref().unwrap_or_default();
        let after = match consumer_info(&self.context, &stream, name).await? {
            Some(info) if info.num_pending == 0 => return Ok(None),
            Some(info) => info.delivered.stream_sequence,
            // Nobody works on the graph, but work may wait for whoever will.
            None => 0,
        };
        let what = format!("looking for waiting work of {graph}");
        let ask = json!({"seq": after + 1, "next_by_subj": wanted.filter_subject});
        let answer: Response<Found> = self
            .context
            .request(format!("STREAM.MSG.GET.{stream}"), &ask)
            .await
            .map_err(|failed| error::requesting(&what, failed))?;
        match answer {
            Response::Ok(found) => {
                let since = SystemTime::from(found.message.time);
                Ok(Some(since.elapsed().unwrap_or_default()))
            }
            Response::Err { error }
                if error.error_code() == ErrorCode::NO_MESSAGE_FOUND
                    || error.error_code() == ErrorCode::STREAM_NOT_FOUND =>
            {
                Ok(None)
            }
            Response::Err { error } => Err(error::refused(&what, &error)),
        }
    }
}
