//! Streams: a run's events as they happen, and then its output.
//!
//! The run is worked on by whoever asks for its next event: nothing runs ahead of the reader, and
//! dropping the stream leaves the run where it was, as dropping any other call does.

use std::{
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use superstep_protocol::{RunId, ThreadId};
use superstep_worker::{OutputSink, StreamEvent};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::{error::Error, run::RunOutput};

type Run = Pin<Box<dyn Future<Output = Result<RunOutput, Error>> + Send>>;

/// A run that is followed: its events one by one, then its output.
///
/// ```
/// # use superstep::{Context, Embedded, Graph, NodeError, START, State};
/// # #[derive(Clone, Default, State)]
/// # struct Story { topic: String, text: String }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use serde_json::json;
/// use superstep::StreamMode;
///
/// async fn write(story: Story, ctx: Context) -> Result<StoryUpdate, NodeError> {
///     ctx.emit(json!({"writing about": story.topic}));
///     Ok(Story::update().text("Once upon a time"))
/// }
///
/// # let graph = Graph::<Story>::builder("story").node("write", write).edge(START, "write").build()?;
/// # let app = Embedded::memory().graph(graph).build().await?;
/// let modes = [StreamMode::Custom, StreamMode::Updates];
/// let mut events = app.thread("1").stream(Story::update().topic("bees"), modes);
/// let mut seen = Vec::new();
/// while let Some(event) = events.next().await {
///     seen.push(event.data);
/// }
/// assert_eq!(seen, [
///     json!({"writing about": "bees"}),
///     json!({"write": {"text": "Once upon a time"}}),
/// ]);
/// assert_eq!(events.output().await?.state::<Story>()?.topic, "bees");
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
///
/// It is a `futures` stream as well.
#[must_use = "a run is worked on by asking for its events or its output"]
pub struct RunStream {
    events: UnboundedReceiver<StreamEvent>,
    run: Option<Run>,
    output: Option<Result<RunOutput, Error>>,
}

impl fmt::Debug for RunStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunStream")
            .field("is_over", &self.run.is_none())
            .finish_non_exhaustive()
    }
}

impl RunStream {
    /// A run of this id, made by `begin` of the sink that its events go to.
    pub(crate) fn new<F>(run: RunId, begin: impl FnOnce(Arc<dyn OutputSink>) -> F) -> Self
    where
        F: Future<Output = Result<RunOutput, Error>> + Send + 'static,
    {
        let (sender, events) = unbounded_channel();
        Self {
            events,
            run: Some(Box::pin(begin(Arc::new(Follower { run, sender })))),
            output: None,
        }
    }

    /// The next event; `None` when the run is over.
    ///
    /// # Cancel safety
    /// Nothing is lost if the future is dropped; the run goes on with the next call.
    pub async fn next(&mut self) -> Option<StreamEvent> {
        std::future::poll_fn(|cx| self.poll_event(cx)).await
    }

    /// What the run came to. Events that were not asked for are passed over.
    ///
    /// # Errors
    /// As the call that is followed: `Refused` if the thread did not take it.
    ///
    /// # Panics
    /// Never: a run that is over has an output.
    pub async fn output(mut self) -> Result<RunOutput, Error> {
        while self.next().await.is_some() {}
        self.output.expect("a run that is over has an output")
    }

    fn poll_event(&mut self, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        if let Ok(event) = self.events.try_recv() {
            return Poll::Ready(Some(event));
        }
        if let Some(run) = &mut self.run
            && let Poll::Ready(output) = run.as_mut().poll(cx)
        {
            self.output = Some(output);
            self.run = None;
        }
        match self.events.try_recv() {
            Ok(event) => Poll::Ready(Some(event)),
            Err(_) if self.run.is_none() => Poll::Ready(None),
            // What the run does next wakes the reader.
            Err(_) => Poll::Pending,
        }
    }
}

impl Stream for RunStream {
    type Item = StreamEvent;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<StreamEvent>> {
        self.get_mut().poll_event(cx)
    }
}

/// Takes the events of one run.
struct Follower {
    run: RunId,
    sender: UnboundedSender<StreamEvent>,
}

impl OutputSink for Follower {
    fn emit(&self, _: &ThreadId, run: &RunId, event: StreamEvent) {
        if *run == self.run {
            // The reader is gone with the run that it works on.
            let _ = self.sender.send(event);
        }
    }
}
