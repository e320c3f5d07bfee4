//! When to give back the space of what has outlived its time: along with somebody's write,
//! but not with every one.
//!
//! It leaves to its owner what goes away. The rule it keeps: of many writers at one moment one
//! is told to sweep.

use std::sync::atomic::{AtomicU64, Ordering};

use superstep_protocol::UnixMillis;

/// Tells one write in a period to sweep.
#[derive(Debug)]
pub(crate) struct Sweeps {
    period_ms: u64,
    last_ms: AtomicU64,
}

impl Sweeps {
    /// The first write sweeps, then one every `period_ms`.
    pub(crate) fn every(period_ms: u64) -> Self {
        Self {
            period_ms,
            last_ms: AtomicU64::new(0),
        }
    }

    /// Whether the caller is to sweep now.
    pub(crate) fn is_due(&self, now: UnixMillis) -> bool {
        let last = self.last_ms.load(Ordering::Relaxed);
        // A clock that was set back begins a new period.
        let passed = now.0.abs_diff(last);
        passed >= self.period_ms
            && self
                .last_ms
                .compare_exchange(last, now.0, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }
}
