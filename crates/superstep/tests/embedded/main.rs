//! The facade, run embedded: what an author is promised, by subject.
//!
//! One binary, so that it links once. Threads live in memory unless a test says otherwise; what
//! the pure crates promise is tested there.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod graphs;
mod interrupts;
mod nodes;
mod sleeps;
mod states;
mod subgraphs;
mod threads;

use std::{
    future::Future,
    time::{Duration, SystemTime},
};

use superstep::{Embedded, RunnableGraph};

/// An app in memory with one graph.
async fn app(graph: impl Into<RunnableGraph>) -> Embedded {
    Embedded::memory().graph(graph).build().await.unwrap()
}

/// Fails a test that waits for what does not come.
async fn in_time<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .expect("this takes moments")
}

/// Waits until the clock of commands and questions, in milliseconds, has moved on.
async fn a_later_millisecond() {
    let millisecond = || SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    let before = millisecond();
    while millisecond() == before {
        tokio::task::yield_now().await;
    }
}
