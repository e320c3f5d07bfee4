//! Panics of the graph's own code, caught and put into words.
//!
//! Nodes, paths and reducers are other people's: what they throw ends a run, never a worker.
//! What a panic means is left to whoever called that code.
//!
//! The rule it keeps: nothing of the caught code is used again.

use std::{
    any::Any,
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    task::{Context, Poll},
};

use tracing::warn;

/// Calls `code`, or says with which message it panicked.
pub(crate) fn caught<T>(code: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(code)).map_err(|panic| message_of(panic.as_ref()))
}

/// The message of a panic.
pub(crate) fn message_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "without a message".to_owned())
}

/// A future of the graph's code, whose polls and whose end may panic.
pub(crate) struct Guarded<T>(Option<Pin<Box<dyn Future<Output = T> + Send>>>);

impl<T> Guarded<T> {
    pub(crate) fn new(future: Pin<Box<dyn Future<Output = T> + Send>>) -> Self {
        Self(Some(future))
    }

    /// Polls it once; not to be called after it was ready.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, String>> {
        let future = self.0.as_mut().expect("it is dropped only with its guard");
        match caught(|| future.as_mut().poll(cx)) {
            Ok(poll) => poll.map(Ok),
            Err(message) => Poll::Ready(Err(message)),
        }
    }
}

impl<T> Drop for Guarded<T> {
    /// A node that asks or takes too long is dropped where it stands, with all that it holds.
    fn drop(&mut self) {
        let future = self.0.take();
        if let Err(message) = caught(|| drop(future)) {
            warn!(message, "a node panicked while it was dropped");
        }
    }
}
