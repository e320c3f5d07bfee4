//! What is measured: from the end of the warm-up until the time is over or enough has ended.
//!
//! Plain counting: whoever drives says when a run ended and how long parts of it took; what falls
//! into the window counts. Times go into HDR histograms of microseconds with three digits.
//!
//! The rule it keeps: what was begun in the warm-up and ends in the window counts, as does the
//! other way round not: in a steady state the two are alike.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest time that is told from longer ones: an hour.
const MICROS_MAX: u64 = 3_600_000_000;

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// Before it counts.
    pub(crate) warm_up: Duration,
    /// At most so long.
    pub(crate) duration: Duration,
    /// At most so many runs that ended.
    pub(crate) count: Option<u64>,
}

/// The window.
#[derive(Debug)]
pub(crate) struct Window {
    opens: Instant,
    closes: Instant,
    count: Option<u64>,
    runs: u64,
    /// When the last of a number of runs that was asked for ended.
    full_at: Option<Instant>,
    times: BTreeMap<&'static str, Histogram<u64>>,
}

impl Window {
    /// One that begins to warm up now.
    pub(crate) fn new(span: Span) -> Self {
        let opens = Instant::now() + span.warm_up;
        Self {
            opens,
            closes: opens + span.duration,
            count: span.count,
            runs: 0,
            full_at: None,
            times: BTreeMap::new(),
        }
    }

    /// When the warm-up ends.
    pub(crate) fn opens(&self) -> Instant {
        self.opens
    }

    /// When it closes at the latest.
    pub(crate) fn closes(&self) -> Instant {
        self.full_at.unwrap_or(self.closes)
    }

    /// Whether what happens now counts.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        now >= self.opens && !self.is_over(now)
    }

    /// Whether no more runs should begin.
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        now >= self.closes || self.full_at.is_some()
    }

    /// The runs that ended in it.
    pub(crate) fn runs(&self) -> u64 {
        self.runs
    }

    /// A run ended.
    pub(crate) fn ended(&mut self, now: Instant) {
        if !self.is_open(now) {
            return;
        }
        self.runs += 1;
        if self.count.is_some_and(|count| self.runs >= count) {
            self.full_at = Some(now);
        }
    }

    /// Part `what` of a run took so long.
    pub(crate) fn took(&mut self, now: Instant, what: &'static str, time: Duration) {
        if self.is_open(now) {
            self.record(what, time);
        }
    }

    fn record(&mut self, what: &'static str, time: Duration) {
        let times = self.times.entry(what).or_insert_with(|| {
            Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are right")
        });
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        times.saturating_record(micros.max(1));
    }

    /// How long it was open, until `now` if it still is.
    pub(crate) fn seconds(&self, now: Instant) -> f64 {
        let end = self.closes().min(now);
        end.saturating_duration_since(self.opens).as_secs_f64()
    }

    /// The times, by what they are of.
    pub(crate) fn latency(&self) -> BTreeMap<&'static str, Latency> {
        let told = |(what, times): (&&'static str, &Histogram<u64>)| (*what, Latency::of(times));
        self.times.iter().map(told).collect()
    }
}

/// How long something took, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Latency {
    /// How many there were.
    pub(crate) count: u64,
    /// The median.
    pub(crate) p50_ms: f64,
    /// Nine in ten took at most so long.
    pub(crate) p90_ms: f64,
    /// 99 in 100 took at most so long.
    pub(crate) p99_ms: f64,
    /// The longest.
    pub(crate) max_ms: f64,
}

impl Latency {
    fn of(times: &Histogram<u64>) -> Self {
        let ms = |micros: u64| Duration::from_micros(micros).as_secs_f64() * 1_000.0;
        Self {
            count: times.len(),
            p50_ms: ms(times.value_at_quantile(0.5)),
            p90_ms: ms(times.value_at_quantile(0.9)),
            p99_ms: ms(times.value_at_quantile(0.99)),
            max_ms: ms(times.max()),
        }
    }
}

/// The middle of several figures with the lowest and the highest.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    /// The middle one; of an even number the mean of both in the middle.
    pub(crate) median: f64,
    /// The lowest.
    pub(crate) min: f64,
    /// The highest.
    pub(crate) max: f64,
}

impl Spread {
    /// Of `figures`; `None` if there are none.
    pub(crate) fn of(figures: &[f64]) -> Option<Self> {
        let mut sorted = figures.to_vec();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let half = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            f64::midpoint(sorted[half - 1], sorted[half])
        } else {
            sorted[half]
        };
        Some(Self { median, min, max })
    }
}
