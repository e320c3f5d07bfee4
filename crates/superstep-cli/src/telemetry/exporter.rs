//! Exports that fail, told once in a while.
//!
//! A collector that is away must neither stop the work nor fill the log. What cannot be exported is
//! lost; the counts say how much.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};
use tracing::warn;

/// How often a failure is told at most.
const TOLD_EVERY: Duration = Duration::from_secs(60);

/// An exporter whose failures are told.
#[derive(Debug)]
pub(super) struct Reported<E> {
    exporter: E,
    lost: Mutex<Lost>,
}

#[derive(Debug, Default)]
struct Lost {
    spans: usize,
    told: Option<Instant>,
}

impl<E> Reported<E> {
    pub(super) fn new(exporter: E) -> Self {
        Self {
            exporter,
            lost: Mutex::default(),
        }
    }

    /// So many more are lost. How many there are to tell of now, if it is time.
    fn lose(&self, spans: usize, now: Instant) -> Option<usize> {
        let mut lost = self.lost.lock().unwrap_or_else(PoisonError::into_inner);
        lost.spans += spans;
        if lost
            .told
            .is_some_and(|told| now.duration_since(told) < TOLD_EVERY)
        {
            return None;
        }
        lost.told = Some(now);
        Some(std::mem::take(&mut lost.spans))
    }
}

impl<E: SpanExporter> SpanExporter for Reported<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        if let Err(error) = &exported
            && let Some(lost) = self.lose(spans, Instant::now())
        {
            warn!(%error, lost, "spans could not be exported; told at most once a minute");
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_once_a_minute() {
        let reported = Reported::new(());
        let began = Instant::now();
        assert_eq!(reported.lose(3, began), Some(3));
        assert_eq!(reported.lose(4, began + TOLD_EVERY / 2), None);
        assert_eq!(reported.lose(5, began + TOLD_EVERY), Some(9));
    }
}
