//! Pauses and timers: what a thread waits for that is no answer but a time.
//!
//! A task that pauses has ended in its round and holds no worker and no message; the time it
//! waits for stands in the log. Timers are derived from the state alone: each has a name within
//! the thread, and the store's index of them changes with the very append that changes the state.
//!
//! The rule they keep: a timer's name says what it is about and never decides anything; what is
//! due is read from the state, so a late, early or repeated call of a timer changes nothing.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use superstep_graph::{InterruptId, TaskId};

use crate::{
    ids::{RunId, UnixMillis},
    record::{Raised, Record, RunError},
    state::{Progress, TaskState, ThreadState},
    status::ThreadStatus,
};

/// Why a task waits for a time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pause {
    /// The node sleeps.
    Sleep,
    /// The node failed, and is to be tried again.
    Retry {
        /// How it failed last.
        error: RunError,
    },
    /// A task of its subgraph waits.
    Inside,
}

/// What a task that pauses leaves for when it goes on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paused {
    /// When it is to go on.
    pub until: UnixMillis,
    /// Why it waits.
    pub why: Pause,
    /// The sleeps that it has begun, by their names, each with its end: see [`sleep_name`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sleeps: BTreeMap<String, UnixMillis>,
    /// How many attempts have failed.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub attempts: u32,
    /// When the first attempt began, if one has failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<UnixMillis>,
    /// Questions that it asks beside: whichever comes first, an answer or the time, it goes on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub raised: Vec<Raised>,
    /// Questions that took the answer that was offered to whoever asks first, by index.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub took: Vec<(usize, serde_json::Value)>,
    /// What its subgraph did in this round.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub child: Vec<Record>,
}

impl Paused {
    /// A task that waits until then, and nothing else.
    pub fn new(until: UnixMillis, why: Pause) -> Self {
        Self {
            until,
            why,
            sleeps: BTreeMap::new(),
            attempts: 0,
            since: None,
            raised: Vec::new(),
            took: Vec::new(),
            child: Vec::new(),
        }
    }
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
pub(crate) fn is_zero(count: &u32) -> bool {
    *count == 0
}

/// The name of a task's sleep: its place among the sleeps of the node, from 0. A sleep has one
/// end, however often its node runs.
pub fn sleep_name(task: &TaskId, index: usize) -> String {
    format!("{task}/{index}")
}

/// The name of the one timer that is about the thread itself.
const EXPIRE: &str = "expire";

/// What a timer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Timer {
    /// Until when a question can be answered.
    Interrupt(InterruptId),
    /// When a task goes on that pauses.
    Task(TaskId),
    /// When a run of the queue can begin.
    Start(RunId),
    /// When a thread goes away that rests.
    Expire,
}

impl Timer {
    /// The timer of this name; `None` if this version knows of no such timers.
    pub fn of_name(name: &str) -> Option<Self> {
        if name == EXPIRE {
            return Some(Self::Expire);
        }
        match name.split_once(':')? {
            ("interrupt", id) => Some(Self::Interrupt(id.into())),
            ("task", id) => Some(Self::Task(id.into())),
            ("start", id) => Some(Self::Start(id.into())),
            _ => None,
        }
    }

    /// Its name within the thread.
    pub fn name(&self) -> String {
        match self {
            Self::Interrupt(id) => format!("interrupt:{id}"),
            Self::Task(id) => format!("task:{id}"),
            Self::Start(id) => format!("start:{id}"),
            Self::Expire => EXPIRE.to_owned(),
        }
    }
}

/// The timers of a thread, by name: what the store's index holds of it.
pub fn timers(state: &ThreadState) -> BTreeMap<String, UnixMillis> {
    if state.deleted {
        return BTreeMap::new();
    }
    let deadlines = state.open_questions().filter_map(|(_, question)| {
        let at = question.expires_at?;
        Some((Timer::Interrupt(question.id.clone()).name(), at))
    });
    let pauses = state
        .paused()
        .map(|(task, until)| (Timer::Task(task.task.id.clone()).name(), until));
    let starts = state
        .delayed()
        .map(|(queued, at)| (Timer::Start(queued.run.clone()).name(), at));
    let expires = state.expires_at().map(|at| (Timer::Expire.name(), at));
    let timers = deadlines.chain(pauses).chain(starts);
    timers.chain(expires).collect()
}

impl TaskState {
    /// Until when it pauses, if it does.
    pub fn paused_until(&self) -> Option<UnixMillis> {
        match self.progress {
            Progress::Paused { until } => Some(until),
            _ => None,
        }
    }
}

impl ThreadState {
    /// The tasks that wait for a time, each with that time, in plan order.
    pub fn paused(&self) -> impl Iterator<Item = (&TaskState, UnixMillis)> {
        self.tasks
            .iter()
            .filter_map(|task| Some((task, task.paused_until()?)))
    }

    /// Whether a task of it waits for a time.
    pub fn is_paused(&self) -> bool {
        self.paused().next().is_some()
    }

    /// When it goes away, if it does: it has rested for its time, with a result or an error. One that
    /// runs, or waits for anybody or anything, stays.
    pub fn expires_at(&self) -> Option<UnixMillis> {
        let ended = matches!(self.status(), ThreadStatus::Idle | ThreadStatus::Error);
        let waits = !self.queue.is_empty() || self.open_questions().next().is_some();
        let ttl_ms = self.ttl_ms.filter(|_| ended && !waits && !self.deleted);
        ttl_ms.map(|ttl_ms| self.time.plus_ms(ttl_ms))
    }

    /// When the first of its paused tasks goes on, if one pauses.
    pub fn wakes_at(&self) -> Option<UnixMillis> {
        self.paused().map(|(_, until)| until).min()
    }
}
