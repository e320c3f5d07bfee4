//! Live output: what runs tell goes out as it comes, and waits for nobody.
//!
//! The rule it keeps: it is bounded, and what does not fit or does not arrive is lost.

use std::sync::Arc;

use bytes::Bytes;
use superstep_graph::NodeName;
use superstep_protocol::{RunId, ThreadId};
use superstep_queue::Queue;
use superstep_wire::{Output, encode};
use tokio::sync::mpsc;
use tracing::debug;

use crate::stream::{OutputSink, StreamEvent};

/// How many values of live output may wait to be sent; beyond that they are dropped.
pub(super) const OUTPUT_QUEUE_MAX: usize = 1024;

/// Sends what runs tell to the queue's live output.
pub(super) struct QueueSink {
    pub(super) sender: mpsc::Sender<(ThreadId, RunId, Bytes)>,
}

impl QueueSink {
    fn send(&self, output: Output) {
        let body = Bytes::from(encode::body(&output));
        let message = (output.thread_id.into(), output.run_id.into(), body);
        if let Err(error) = self.sender.try_send(message) {
            debug!(%error, "live output was dropped");
        }
    }
}

impl OutputSink for QueueSink {
    fn emit(&self, thread: &ThreadId, run: &RunId, event: StreamEvent) {
        let path: Vec<&str> = event.path.iter().map(NodeName::as_str).collect();
        self.send(Output {
            thread_id: thread.to_string(),
            run_id: run.to_string(),
            mode: event.mode.as_str().to_owned(),
            step: i32::try_from(event.step).unwrap_or(i32::MAX),
            checkpoint_ns: path.join("|"),
            data: event.data,
        });
    }

    fn end(&self, thread: &ThreadId, run: &RunId) {
        self.send(Output {
            thread_id: thread.to_string(),
            run_id: run.to_string(),
            mode: "end".to_owned(),
            ..Output::default()
        });
    }
}

/// Sends live output on, in order.
pub(super) async fn forward(
    queue: Arc<dyn Queue>,
    mut receiver: mpsc::Receiver<(ThreadId, RunId, Bytes)>,
) {
    while let Some((thread, run, body)) = receiver.recv().await {
        if let Err(error) = queue.output(&thread, &run, body).await {
            debug!(%error, "live output was lost");
        }
    }
}
