//! Policies of a node: how often it is tried, when its result is reused, who handles its failure.
//!
//! Plain settings that belong to a graph, beside its functions. What they mean for a task is
//! `attempts`' business; where results are kept is the cache's.
//!
//! The rule they keep: nothing here is stored with a thread, so a graph may change them freely.

use std::{collections::BTreeSet, fmt, sync::Arc, time::Duration};

use serde_json::Value;
use superstep_graph::digest;

use crate::{
    cache::canonical,
    node::{Node, NodeError},
};

/// Kinds of errors that another attempt cannot mend: the graph's own mistakes.
const HOPELESS: [&str; 7] = [
    "GraphRecursionError",
    "InvalidRoute",
    "NoParentGraph",
    "PathError",
    "UnknownNode",
    "UnknownTarget",
    "UnmappedRoute",
];

/// A test of an error.
type Test = Arc<dyn Fn(&NodeError) -> bool + Send + Sync>;

/// Which errors are tried again.
#[derive(Clone, Default)]
enum Retried {
    /// All but mistakes of the graph.
    #[default]
    Any,
    /// Those of these kinds.
    Kinds(BTreeSet<String>),
    /// Those that pass.
    Passing(Test),
}

/// When a failed node is tried again, within its superstep.
///
/// The pauses grow: the first is `initial_interval`, each next one `backoff_factor` times as long,
/// none longer than `max_interval`, and each is lengthened by up to half, so that tasks that
/// failed together do not come back together. A worker keeps the task's slot for a short pause (5
/// seconds at most, unless its settings say otherwise); for a longer one the thread waits without a
/// worker, and the attempts that were made are counted in its log. One that died with its worker
/// counts too; a task is not given up for that alone.
///
/// ```
/// use std::time::Duration;
/// use superstep_worker::RetryPolicy;
///
/// let policy = RetryPolicy::new(5)
///     .initial_interval(Duration::from_millis(100))
///     .on(["Timeout", "RateLimited"]);
/// assert_eq!(policy.attempts_max(), 5);
/// ```
#[derive(Clone)]
#[must_use = "a policy does nothing until a node is given it"]
pub struct RetryPolicy {
    attempts_max: u32,
    initial_interval: Duration,
    backoff_factor: f64,
    max_interval: Duration,
    jitter: bool,
    total: Option<Duration>,
    hopeless: BTreeSet<String>,
    retried: Retried,
}

impl fmt::Debug for RetryPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryPolicy")
            .field("attempts_max", &self.attempts_max)
            .field("initial_interval", &self.initial_interval)
            .finish_non_exhaustive()
    }
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self::new(3)
    }
}

impl RetryPolicy {
    /// At most so many attempts in all, at least one; pauses from 0.5 s on, doubled each time up
    /// to 128 s. Every error counts, panics and timeouts too, but for mistakes of the graph
    /// itself, such as a path that leads to no node.
    pub fn new(attempts_max: u32) -> Self {
        Self {
            attempts_max: attempts_max.max(1),
            initial_interval: Duration::from_millis(500),
            backoff_factor: 2.0,
            max_interval: Duration::from_secs(128),
            jitter: true,
            total: None,
            hopeless: BTreeSet::new(),
            retried: Retried::Any,
        }
    }

    /// The pause before the second attempt.
    pub fn initial_interval(mut self, pause: Duration) -> Self {
        self.initial_interval = pause;
        self
    }

    /// How many times as long each next pause is; 1 at least.
    pub fn backoff_factor(mut self, factor: f64) -> Self {
        self.backoff_factor = if factor >= 1.0 { factor } else { 1.0 };
        self
    }

    /// The longest pause, before it is lengthened at random.
    pub fn max_interval(mut self, pause: Duration) -> Self {
        self.max_interval = pause;
        self
    }

    /// Pauses just as long as said.
    pub fn without_jitter(mut self) -> Self {
        self.jitter = false;
        self
    }

    /// No pauses.
    pub fn without_pauses(self) -> Self {
        self.initial_interval(Duration::ZERO).without_jitter()
    }

    /// Only errors of these kinds are tried again; see [`NodeError::kind`].
    pub fn on<K: Into<String>>(mut self, kinds: impl IntoIterator<Item = K>) -> Self {
        self.retried = Retried::Kinds(kinds.into_iter().map(Into::into).collect());
        self
    }

    /// Errors of these kinds are never tried again.
    pub fn never_on<K: Into<String>>(mut self, kinds: impl IntoIterator<Item = K>) -> Self {
        self.hopeless.extend(kinds.into_iter().map(Into::into));
        self
    }

    /// All attempts together, with the pauses between them, take no longer than this: no attempt
    /// begins after it, and one that runs then is over. It is counted from the first attempt, also
    /// if a later one is made by another worker.
    pub fn total(mut self, total: Duration) -> Self {
        self.total = Some(total);
        self
    }

    /// Only errors that pass `test` are tried again.
    pub fn when(mut self, test: impl Fn(&NodeError) -> bool + Send + Sync + 'static) -> Self {
        self.retried = Retried::Passing(Arc::new(test));
        self
    }

    /// How many attempts there are at most.
    pub fn attempts_max(&self) -> u32 {
        self.attempts_max
    }

    pub(crate) fn total_of(&self) -> Option<Duration> {
        self.total
    }

    /// The pause after so many attempts have failed, the last one by `error`; `None` if that was
    /// the last one. `seed` spreads the pauses: the same one gives the same pause.
    pub(crate) fn pause(&self, attempts: u32, error: &NodeError, seed: &str) -> Option<Duration> {
        let again = match &self.retried {
            Retried::Any => !HOPELESS.contains(&error.kind()),
            Retried::Kinds(kinds) => kinds.contains(error.kind()),
            Retried::Passing(test) => test(error),
        };
        let again = again && !self.hopeless.contains(error.kind());
        if !again || attempts >= self.attempts_max {
            return None;
        }
        let max = self.max_interval.as_secs_f64();
        let exponent = i32::try_from(attempts.saturating_sub(1)).unwrap_or(i32::MAX);
        let grown = self.initial_interval.as_secs_f64() * self.backoff_factor.powi(exponent);
        let pause = Duration::from_secs_f64(if grown < max { grown } else { max });
        Some(if self.jitter {
            pause.mul_f64(1.0 + spread(seed, attempts) / 2.0)
        } else {
            pause
        })
    }
}

/// A number from 0 to 1 that follows from the seed.
fn spread(seed: &str, attempts: u32) -> f64 {
    let digits = digest(&[seed, &attempts.to_string()]).to_string();
    let bits = digits
        .get(..4)
        .and_then(|digits| u16::from_str_radix(digits, 16).ok());
    f64::from(bits.unwrap_or_default()) / f64::from(u16::MAX)
}

/// A function of a node's input that gives the key of its results.
type Key = Arc<dyn Fn(&Value) -> String + Send + Sync>;

/// That a node's result is reused where its input is the same: the node does not run then.
///
/// ```
/// use std::time::Duration;
/// use superstep_worker::CachePolicy;
///
/// let _policy = CachePolicy::new()
///     .ttl(Duration::from_secs(3600))
///     .key(|input| input["question"].to_string());
/// ```
#[derive(Clone, Default)]
#[must_use = "a policy does nothing until a node is given it"]
pub struct CachePolicy {
    ttl: Option<Duration>,
    key: Option<Key>,
}

impl fmt::Debug for CachePolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CachePolicy")
            .field("ttl", &self.ttl)
            .finish_non_exhaustive()
    }
}

impl CachePolicy {
    /// Results are kept by the node's whole input, for as long as there is room.
    pub fn new() -> Self {
        Self::default()
    }

    /// For how long a result is kept.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Results are kept by what `key` makes of the node's input.
    pub fn key(mut self, key: impl Fn(&Value) -> String + Send + Sync + 'static) -> Self {
        self.key = Some(Arc::new(key));
        self
    }

    pub(crate) fn ttl_of(&self) -> Option<Duration> {
        self.ttl
    }

    pub(crate) fn key_of(&self, input: &Value) -> String {
        match &self.key {
            Some(key) => key(input),
            None => canonical(input),
        }
    }
}

/// What there is to say of a node beside its code.
#[derive(Clone, Default)]
pub struct Policies {
    /// When it is tried again.
    pub retry: Option<RetryPolicy>,
    /// How long one attempt may take; as long as the worker's settings say otherwise.
    pub timeout: Option<Duration>,
    /// How long an attempt may be silent: without a heartbeat, and without anything emitted.
    pub idle_timeout: Option<Duration>,
    /// When its result is reused.
    pub cache: Option<CachePolicy>,
    /// What runs in its place when it failed for good; it knows the failure from its context.
    pub on_error: Option<Arc<dyn Node>>,
}

impl fmt::Debug for Policies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policies")
            .field("retry", &self.retry)
            .field("timeout", &self.timeout)
            .field("idle_timeout", &self.idle_timeout)
            .field("cache", &self.cache)
            .field("on_error", &self.on_error.as_ref().map(|_| "a function"))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pauses(policy: &RetryPolicy, attempts: u32) -> Vec<Option<u128>> {
        let error = NodeError::new("Flaky", "it broke");
        (1..=attempts)
            .map(|made| policy.pause(made, &error, "task"))
            .map(|pause| pause.map(|pause| pause.as_millis()))
            .collect()
    }

    #[test]
    fn pauses_grow_up_to_the_longest() {
        let policy = RetryPolicy::new(5)
            .max_interval(Duration::from_millis(1500))
            .without_jitter();
        let expected = [Some(500), Some(1000), Some(1500), Some(1500), None];
        assert_eq!(pauses(&policy, 5), expected);
        let forever = RetryPolicy::new(u32::MAX).without_jitter();
        let error = NodeError::new("Flaky", "it broke");
        let pause = forever.pause(u32::MAX - 1, &error, "task");
        assert_eq!(pause, Some(Duration::from_secs(128)));
        assert_eq!(pauses(&RetryPolicy::new(0), 1), [None]);
    }

    #[test]
    fn jitter_lengthens_a_pause_by_at_most_half() {
        let policy = RetryPolicy::new(2);
        let error = NodeError::new("Flaky", "it broke");
        let pauses: Vec<Duration> = (0..50)
            .filter_map(|task| policy.pause(1, &error, &format!("task {task}")))
            .collect();
        let (low, high) = (Duration::from_millis(500), Duration::from_millis(750));
        assert!(pauses.iter().all(|pause| (low..=high).contains(pause)));
        assert!(pauses.iter().any(|pause| *pause != pauses[0]));
        assert_eq!(policy.pause(1, &error, "task 0"), Some(pauses[0]));
    }

    #[test]
    fn only_the_errors_that_a_policy_names_count() {
        let flaky = NodeError::new("Flaky", "it broke");
        let fatal = NodeError::new("Fatal", "it is gone");
        let mistake = NodeError::new("UnmappedRoute", "nowhere");
        let tries = |policy: &RetryPolicy, error| policy.pause(1, error, "t").is_some();
        let any = RetryPolicy::default();
        assert!(tries(&any, &flaky) && tries(&any, &fatal) && !tries(&any, &mistake));
        let kinds = RetryPolicy::default().on(["Flaky"]);
        assert!(tries(&kinds, &flaky) && !tries(&kinds, &fatal));
        let test = RetryPolicy::default().when(|error| error.message() == "it is gone");
        assert!(!tries(&test, &flaky) && tries(&test, &fatal));
    }
}
