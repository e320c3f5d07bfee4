//! Verdicts: what a snapshot of a worker's health says to the three probes.
//!
//! Pure: a snapshot, a moment and the bounds in, three answers out. The rule it keeps: an answer
//! that is no comes with every reason for it, in words that an operator can act on.

use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::{Doing, LookFacts, LoopFacts, Snapshot, Stage};
use crate::settings::WorkerSettings;

/// How long a draining worker may take beyond its drain before it counts as hung.
const DRAIN_SLACK: Duration = Duration::from_secs(10);

/// The bounds that health is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// How long a loop may be without a sign of progress. At least twice what a pull may wait.
    pub deaf_after: Duration,
    /// How long a drain may take.
    pub drain_timeout: Duration,
    /// How long what is held may wait for the store.
    pub store_retry: Duration,
}

impl From<&WorkerSettings> for HealthSettings {
    fn from(settings: &WorkerSettings) -> Self {
        Self {
            deaf_after: settings.deaf_after.max(settings.pull_wait * 2),
            drain_timeout: settings.drain_timeout,
            store_retry: settings.store_retry,
        }
    }
}

/// The answer to one probe: yes if there is no reason against it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Why not.
    pub reasons: Vec<String>,
}

impl Probe {
    /// Whether the answer is yes.
    pub fn is_ok(&self) -> bool {
        self.reasons.is_empty()
    }

    fn against(&mut self, reason: impl Into<String>) {
        self.reasons.push(reason.into());
    }
}

/// The answers to the three probes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Whether it has begun: servers reached, streams verified, graphs registered.
    pub startup: Probe,
    /// Whether it takes work: begun, not draining, and both servers answer. That all its slots
    /// are used is no reason against it: then it does what it is there for.
    pub readiness: Probe,
    /// Whether it makes progress, or would if there were work.
    pub liveness: Probe,
}

/// What `facts` say at `now`.
pub fn verdict(facts: &Snapshot, now: Instant, settings: &HealthSettings) -> Verdict {
    let mut verdict = Verdict::default();
    let unbegun = match facts.stage {
        Stage::Connecting => Some("the servers are not reached yet"),
        Stage::Connected => Some("the streams are not verified yet"),
        Stage::StreamsVerified => Some("the graphs are not registered yet"),
        Stage::Working | Stage::Draining => None,
    };
    if let Some(reason) = unbegun {
        // Whether it ever begins is the startup probe's affair, not that of liveness.
        verdict.startup.against(reason);
        verdict.readiness.against(reason);
        return verdict;
    }
    let is_draining = facts.stage == Stage::Draining;
    if is_draining {
        verdict.readiness.against("it drains: it takes no more");
        let over = settings.drain_timeout + DRAIN_SLACK;
        let drains = now.saturating_duration_since(facts.since);
        if drains > over {
            verdict.liveness.against(format!(
                "it has drained for {}, and should have ended after {} (drain_timeout)",
                seconds(drains),
                seconds(settings.drain_timeout)
            ));
        }
    } else {
        for (consumer, known) in &facts.loops {
            judge_loop(&mut verdict, consumer, known, facts, now, settings);
        }
        for (name, known) in &facts.looks {
            judge_look(&mut verdict, name, known, now, settings);
        }
    }
    if facts.store_failed > facts.store_answered {
        let ago = facts.store_failed.map(|at| ago(at, now));
        verdict.readiness.against(format!(
            "the store was unavailable when it was last called, {} ago",
            ago.unwrap_or_default()
        ));
    }
    verdict
}

fn judge_loop(
    verdict: &mut Verdict,
    consumer: &str,
    known: &LoopFacts,
    facts: &Snapshot,
    now: Instant,
    settings: &HealthSettings,
) {
    if let Some(failed) = known.failed.filter(|_| known.failed > known.pulled) {
        verdict.readiness.against(format!(
            "the last pull of `{consumer}` failed, {} ago",
            ago(failed, now)
        ));
    }
    let (progress, allowed, what) = match known.doing {
        Doing::Pulling => {
            let answered = known.pulled.max(Some(known.since));
            (answered, settings.deaf_after, "no pull was answered")
        }
        // What is held is kept in progress within its lease: that is the sign to wait for. A
        // command is not kept, but handed back when the store is away for too long.
        Doing::Waiting => {
            let kept = facts.kept.max(Some(known.since));
            let allowed = settings.deaf_after.max(known.ack_wait) + settings.store_retry;
            (kept, allowed, "all slots are used and nothing was kept")
        }
    };
    let silent = progress.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
    if silent > allowed {
        verdict.liveness.against(format!(
            "`{consumer}` makes no progress: {what} for {}, and {} are allowed (deaf_after)",
            seconds(silent),
            seconds(allowed)
        ));
    }
}

/// A loop that looks comes on whether or not there is anything to see, and also where the store does
/// not answer: its calls end with an error. So one that does not come on hangs.
fn judge_look(
    verdict: &mut Verdict,
    name: &str,
    known: &LookFacts,
    now: Instant,
    settings: &HealthSettings,
) {
    let silent = now.saturating_duration_since(known.came_on);
    let allowed = settings.deaf_after.max(known.every * 2) + settings.store_retry;
    if silent > allowed {
        verdict.liveness.against(format!(
            "`{name}` makes no progress: it has not come on for {}, and {} are allowed \
             (deaf_after)",
            seconds(silent),
            seconds(allowed)
        ));
    }
}

fn ago(at: Instant, now: Instant) -> String {
    seconds(now.saturating_duration_since(at))
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests;
