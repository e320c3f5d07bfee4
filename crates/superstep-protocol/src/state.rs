//! The state of a thread: the fold of its records, as data.
//!
//! It is made by `fold` alone and serialized whole into snapshots. Statuses are derived here
//! from facts; nothing is stored that another field says.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use superstep_graph::{
    Checkpoint, InterruptId, Lineage, NodeName, Source, Task, TaskId, Write, digest,
};

use crate::{
    ids::{CommandId, Dispatch, GraphId, Head, RunId, ThreadId, UnixMillis},
    moves::{Move, Stays},
    queue::QueuedRun,
    record::{
        AskedCommand, Base, CommandRef, Profile, Record, RunError, Terms, Update, is_default,
    },
    status::{RunStatus, ThreadStatus},
    trace::{Origin, Segment},
};

/// How many closed questions a thread remembers, to say who answered.
pub const CLOSED_QUESTIONS_MAX: usize = 64;

/// The record that opened a question which took its answer before anyone was asked: none.
pub const NEVER_OPENED: u64 = 0;

/// The last run of a thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Its id.
    pub id: RunId,
    /// How it stands.
    pub status: RunStatus,
    /// The superstep that it may not begin any more.
    pub stop: i64,
    /// How many supersteps it was given.
    pub recursion_limit: u32,
    /// Values that nodes may read.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub config: Map<String, Value>,
    /// Why it ended in error, if it did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// The command that began it.
    pub command: CommandRef,
    /// What else it was given.
    #[serde(default, skip_serializing_if = "Terms::is_default")]
    pub terms: Terms,
    /// Whether it has anything to show: it goes on with what was there, or wrote to the output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub shows: bool,
    /// The last record before it, which a rollback goes back to.
    #[serde(default, skip_serializing_if = "is_default")]
    pub since: u64,
    /// Where its trace begins, if not here: see [`Run::origin`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Box<Origin>>,
}

/// What a dispatch asks a worker of the graph to decide before or between supersteps.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Asked {
    /// Take this input.
    Input {
        /// The input.
        input: Value,
    },
    /// Apply this update.
    Update {
        /// Who asked.
        command: CommandRef,
        /// The update.
        values: Value,
        /// The node it is made as.
        as_node: Option<NodeName>,
        /// More updates of the same superstep.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        more: Vec<Update>,
        /// The place of the subgraph that is updated: nodes from the outside in.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        subgraph: Vec<NodeName>,
    },
    /// Apply the parked writes of the superstep: every task of it is finished.
    Close,
    /// Begin a run that has to be prepared: apply this command to the checkpoint as it stands, or
    /// to a copy of an older one.
    Command(Box<AskedCommand>),
    /// Begin the next run of the queue; any worker can.
    Next,
    /// Take the thread over to another version of its graph; only workers of that can say whether
    /// they can.
    Move(Box<Move>),
}

/// A dispatch that waits for a worker of the graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Decision {
    /// The record that called for it.
    pub dispatch: Dispatch,
    /// What it asks.
    pub asked: Asked,
    /// The checkpoint that it is about, if not the last one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Box<Base>>,
}

/// An answer as it was accepted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Answer {
    /// The value.
    pub value: Value,
    /// When it was accepted.
    pub at: UnixMillis,
    /// The command that brought it.
    pub command: CommandId,
    /// Who sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<String>,
}

/// A question of a task of the current superstep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// Its id.
    pub id: InterruptId,
    /// Its place among the questions of its task.
    pub index: usize,
    /// What it asks.
    pub payload: Value,
    /// When it opened.
    pub opened_at: UnixMillis,
    /// The record that opened it.
    pub opened_by: u64,
    /// The record that asked it last, if its task asked it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asked_again: Option<u64>,
    /// Until when it can be answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<UnixMillis>,
    /// Its answer, once accepted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answer: Option<Answer>,
}

/// How far a task of the current superstep is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Progress {
    /// In no round: it waits for an answer, a retry, or another command.
    Waiting,
    /// To be run in this round.
    Open {
        /// The round.
        dispatch: Dispatch,
    },
    /// In no round: it waits for a time.
    Paused {
        /// That time.
        until: UnixMillis,
    },
    /// Done; its writes are parked until the superstep is applied.
    Finished {
        /// In order.
        writes: Vec<Write>,
        /// How the node failed, if an error handler wrote this in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handled: Option<RunError>,
        /// The state of its subgraph, if that outlives the call.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keeps: Option<Box<ThreadState>>,
    },
    /// Failed for good, until a retry.
    Failed {
        /// Why.
        error: RunError,
    },
}

/// A task of the current superstep.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskState {
    /// The task as planned.
    pub task: Task,
    /// How far it is.
    pub progress: Progress,
    /// How it failed last, if it ever did: it stays to be seen when the task runs again, and when
    /// only a path failed and the task is done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Its questions by index, the answered ones too: they are replayed when it runs again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub questions: Vec<Question>,
    /// What its subgraph did in this call, as a log of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub child: Vec<Record>,
    /// Whether a command added it to a checkpoint that was there before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub added: bool,
    /// Its sleeps by their names, each with its end: the same one however often it runs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sleeps: BTreeMap<String, UnixMillis>,
    /// How many of its attempts have failed, since a command had it run last.
    #[serde(default, skip_serializing_if = "crate::pause::is_zero")]
    pub attempts: u32,
    /// The time that it was woken for last: what was to end by then has ended, whatever clocks say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub woken: Option<UnixMillis>,
    /// When the first of those attempts began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried_since: Option<UnixMillis>,
}

impl Question {
    /// The record that asked it last.
    pub fn asked_last(&self) -> u64 {
        self.asked_again.unwrap_or(self.opened_by)
    }
}

impl TaskState {
    /// Its questions that it asked when it asked last, the answered ones too.
    pub fn asked_last(&self) -> impl Iterator<Item = &Question> {
        let last = self.questions.iter().map(Question::asked_last).max();
        let asked = self.questions.iter();
        asked.filter(move |question| Some(question.asked_last()) == last)
    }

    /// A task that was just planned.
    pub fn planned(task: Task) -> Self {
        Self {
            task,
            progress: Progress::Waiting,
            error: None,
            questions: Vec::new(),
            child: Vec::new(),
            added: false,
            sleeps: BTreeMap::new(),
            attempts: 0,
            tried_since: None,
            woken: None,
        }
    }

    /// The answers by the question's id.
    pub fn answers_by_id(&self) -> BTreeMap<InterruptId, Value> {
        self.questions
            .iter()
            .filter_map(|q| Some((q.id.clone(), q.answer.as_ref()?.value.clone())))
            .collect()
    }

    /// Its open questions, by index.
    pub fn open_questions(&self) -> impl Iterator<Item = &Question> {
        self.questions
            .iter()
            .filter(|question| question.answer.is_none())
    }

    /// The answers to its own questions by index, not to those of its subgraph; `None` where there
    /// is none yet.
    pub fn answers(&self) -> Vec<Option<Value>> {
        let is_own =
            |question: &&Question| question.id == InterruptId::of(&self.task.id, question.index);
        let mut answers = Vec::new();
        for question in self.questions.iter().filter(is_own) {
            if answers.len() <= question.index {
                answers.resize(question.index + 1, None);
            }
            answers[question.index] = question.answer.as_ref().map(|answer| answer.value.clone());
        }
        answers
    }
}

/// How a question ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Closed {
    /// It was answered.
    Answered {
        /// When.
        at: UnixMillis,
        /// By which command.
        command: CommandId,
        /// By whom.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        sender: Option<String>,
        /// A digest of the value, to tell whether another answer is the same.
        value: String,
    },
    /// It was not answered in time.
    Expired,
    /// It was given up.
    GivenUp {
        /// What ended it.
        why: String,
    },
}

/// A digest of an answer's value.
pub fn value_digest(value: &Value) -> String {
    digest(&[&value.to_string()]).to_string()
}

/// The state of a thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadState {
    /// Its id.
    pub thread: ThreadId,
    /// The last record.
    pub head: Head,
    /// When that was appended.
    pub time: UnixMillis,
    /// When the first record was appended.
    pub created_at: UnixMillis,
    /// The id of the command that created it: tells it from a deleted one of the same name.
    pub incarnation: CommandId,
    /// Its graph.
    pub graph: GraphId,
    /// The topology of that, as it was registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// The version that could not take the thread over when it was asked last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stays: Option<Box<Stays>>,
    /// How it decides.
    #[serde(default)]
    pub profile: Profile,
    /// What its starts said of it.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// The channels after the last superstep.
    pub checkpoint: Checkpoint,
    /// The record that saved the checkpoint, and when; `None` before the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<(Head, UnixMillis)>,
    /// The tasks of the current superstep, in plan order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tasks: Vec<TaskState>,
    /// What waits for a worker of the graph, if anything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    /// The open rounds, each with its run.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rounds: BTreeMap<Dispatch, RunId>,
    /// The last run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<Run>,
    /// Commands and deadlines applied since the checkpoint, in order: part of the next lineage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub applied: Vec<CommandId>,
    /// Versions of records whose events are not known to be in their stream.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub untold: BTreeSet<u64>,
    /// How the last questions ended, oldest first, bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<(InterruptId, Closed)>,
    /// Whether this is a tombstone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub deleted: bool,
    /// An answer without a question, for whoever asks first before the next checkpoint.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        with = "superstep_graph::some"
    )]
    pub offer: Option<Value>,
    /// The updates that commands made of the checkpoint since it was saved, in the `langgraph`
    /// profile: they count as made at once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commanded: Vec<Value>,
    /// Why the checkpoint cannot be read or gone on from, in the `langgraph` profile, until there
    /// is another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spoiled: Option<String>,
    /// Whether a command changed the checkpoint since it was saved.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub amended: bool,
    /// Tasks that a command took from the superstep; they do not run, and come back if another
    /// command brings them back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dropped: Vec<TaskState>,
    /// The states of subgraphs that outlive their calls, by node.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kept: BTreeMap<NodeName, Box<ThreadState>>,
    /// The runs that wait for their turn, in the order in which they were queued, bounded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub queue: Vec<QueuedRun>,
    /// The runs that began or were queued last, with the records that accepted them, oldest
    /// first, bounded: the same start again begins nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub begun: Vec<(RunId, Head)>,
    /// Spans of records, first and last, whose checkpoints a rollback took out of the history.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hidden: Vec<(u64, u64)>,
    /// How many milliseconds it stays once it rests; for good if that is not said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
    /// The last part of a run that workers were at, or are at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment: Option<Segment>,
}

impl ThreadState {
    /// How the thread stands.
    pub fn status(&self) -> ThreadStatus {
        let failed = self
            .run
            .as_ref()
            .is_some_and(|run| matches!(run.status, RunStatus::Error | RunStatus::Timeout));
        let asks = self.open_questions().next().is_some();
        if self.is_busy() || (!asks && !self.queue.is_empty()) {
            ThreadStatus::Busy
        } else if failed {
            ThreadStatus::Error
        } else if self.tasks.is_empty() {
            ThreadStatus::Idle
        } else {
            ThreadStatus::Interrupted
        }
    }

    /// Whether a run is under way: a worker is to do something for it, now or when a time comes.
    pub fn is_busy(&self) -> bool {
        !self.deleted && (self.has_work() || self.is_paused())
    }

    /// Whether a worker is to do something for it now.
    pub fn has_work(&self) -> bool {
        !self.deleted && (!self.rounds.is_empty() || self.decision.is_some())
    }

    /// Whether its run is under way: a worker is to do something for it, and not only to begin
    /// the next run of the queue.
    pub fn is_running(&self) -> bool {
        self.is_busy() && !self.begins_next()
    }

    /// Whether a worker is to begin the next run of the queue.
    pub fn begins_next(&self) -> bool {
        let asked = self.decision.as_ref().map(|decision| &decision.asked);
        matches!(asked, Some(Asked::Next))
    }

    /// Whether new runs wait for answers first: they would give the open questions up without a
    /// word, which only the `langgraph` profile does.
    pub fn holds_starts(&self) -> bool {
        self.profile == Profile::Default && self.open_questions().next().is_some()
    }

    /// The next run of the queue whose time has come at `now`, first come, first served.
    pub fn next_queued(&self, now: UnixMillis) -> Option<&QueuedRun> {
        let ready = self.queue.iter().filter(|queued| queued.ready_at() <= now);
        ready.min_by_key(|queued| queued.ready_at())
    }

    /// Runs of the queue that wait for nothing but a time.
    pub fn delayed(&self) -> impl Iterator<Item = (&QueuedRun, UnixMillis)> {
        let rests = !self.deleted && !self.is_busy() && !self.holds_starts();
        let queued = self.queue.iter().filter(move |_| rests);
        queued.filter_map(|queued| Some((queued, queued.not_before?)))
    }

    /// The record that accepted this run, if it is remembered.
    pub fn begun(&self, run: &RunId) -> Option<Head> {
        let found = self.begun.iter().rev().find(|(begun, _)| begun == run);
        found.map(|(_, record)| *record)
    }

    /// Whether a rollback took the checkpoint of this record out of the history.
    pub fn is_hidden(&self, version: u64) -> bool {
        let mut spans = self.hidden.iter();
        spans.any(|(first, last)| (*first..=*last).contains(&version))
    }

    /// A task of the current superstep.
    pub fn task(&self, id: &TaskId) -> Option<&TaskState> {
        self.tasks.iter().find(|task| task.task.id == *id)
    }

    /// The tasks of a round, in plan order.
    pub fn round_tasks(&self, dispatch: Dispatch) -> impl Iterator<Item = &TaskState> {
        self.tasks
            .iter()
            .filter(move |task| task.progress == Progress::Open { dispatch })
    }

    /// The tasks of the current superstep that are not finished, in plan order.
    pub fn unfinished(&self) -> impl Iterator<Item = &TaskState> {
        self.tasks
            .iter()
            .filter(|task| !matches!(task.progress, Progress::Finished { .. }))
    }

    /// The checkpoint that the answer to a dispatch builds on: the last one, unless a decision is
    /// about another.
    pub fn builds_on(&self, dispatch: Dispatch) -> Option<(Head, UnixMillis)> {
        let decision = self.decision.as_ref().filter(|d| d.dispatch == dispatch);
        let base = decision.and_then(|decision| decision.at.as_ref());
        base.map(|base| base.saved).or(self.saved)
    }

    /// The state that a decision is about: with the checkpoint that it names, if it is not about
    /// the last one.
    pub fn decided_on(&self, dispatch: Dispatch) -> Cow<'_, Self> {
        let decision = self.decision.as_ref().filter(|d| d.dispatch == dispatch);
        let Some(base) = decision.and_then(|decision| decision.at.as_ref()) else {
            return Cow::Borrowed(self);
        };
        let mut state = self.clone();
        state.checkpoint = base.checkpoint.clone();
        state.saved = Some(base.saved);
        state.tasks = base.tasks.iter().cloned().map(TaskState::planned).collect();
        // Of what was applied since the last checkpoint only this command counts on another one.
        state.applied.drain(..state.applied.len().saturating_sub(1));
        Cow::Owned(state)
    }

    /// The open questions, with their tasks, in plan order.
    pub fn open_questions(&self) -> impl Iterator<Item = (&TaskState, &Question)> {
        self.tasks
            .iter()
            .flat_map(|task| task.open_questions().map(move |q| (task, q)))
    }

    /// Whether the state still waits for this dispatch.
    pub fn waits_for(&self, dispatch: Dispatch) -> bool {
        self.rounds.contains_key(&dispatch)
            || self
                .decision
                .as_ref()
                .is_some_and(|decision| decision.dispatch == dispatch)
    }

    /// The run that a dispatch belongs to: its round's, else the last one.
    pub fn run_of(&self, dispatch: Dispatch) -> Option<RunId> {
        let last = || self.run.as_ref().map(|run| run.id.clone());
        self.rounds.get(&dispatch).cloned().or_else(last)
    }

    /// The lineage of the checkpoint that will follow at `step`.
    pub fn next_lineage(&self, step: i64) -> Lineage {
        self.checkpoint
            .lineage
            .next(step, self.applied.iter().map(CommandId::as_str))
    }

    /// The step of the checkpoint that will follow.
    pub fn next_step(&self) -> i64 {
        self.checkpoint.step + 1
    }

    /// As [`next_step`](Self::next_step); an update that comes before any input stands where the
    /// start would have run.
    pub fn step_of(&self, source: Source) -> i64 {
        match source {
            Source::Update => self.next_step().max(0),
            Source::Input | Source::Loop | Source::Fork => self.next_step(),
        }
    }

    /// How a closed question ended, if that is remembered.
    pub fn closed(&self, id: &InterruptId) -> Option<&Closed> {
        self.closed
            .iter()
            .rev()
            .find(|(closed, _)| closed == id)
            .map(|(_, how)| how)
    }

    /// The values of the state's channels as they are stored, without those of the graph's own
    /// routing: what a reader without the graph can see.
    pub fn visible_values(&self) -> Map<String, Value> {
        self.checkpoint
            .values
            .iter()
            .chain(&self.checkpoint.untracked)
            .filter(|(channel, _)| !is_internal(channel.as_str()))
            .map(|(channel, value)| (channel.to_string(), value.clone()))
            .collect()
    }
}

/// Whether a channel is one that a graph makes for its own routing.
pub fn is_internal(channel: &str) -> bool {
    channel.starts_with("__") || channel.starts_with("branch:to:") || channel.starts_with("join:")
}

/// The id of the checkpoint that a record saved: a UUID of version 7 that sorts by time, then
/// by version, and carries 42 bits of the nonce; see [`version_of_checkpoint`].
pub fn checkpoint_id(head: Head, time: UnixMillis) -> String {
    let ms = u128::from(time.0 & 0xffff_ffff_ffff);
    let version = u128::from(head.version & 0xffff_ffff);
    let nonce = u128::from(head.nonce.0 & 0x3ff_ffff_ffff);
    let bits = ms << 80
        | 0x7 << 76
        | (version >> 20) << 64
        | 0b10 << 62
        | (version & 0xf_ffff) << 42
        | nonce;
    let hex = format!("{bits:032x}");
    [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ]
    .join("-")
}

/// The version of the record that a checkpoint id names, and the part of the nonce that it
/// carries; `None` if it is not such an id.
pub fn version_of_checkpoint(id: &str) -> Option<(u64, u64)> {
    let parts: Vec<&str> = id.split('-').collect();
    let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
    let hex = parts.concat();
    if lengths != [8, 4, 4, 4, 12] || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let bits = u128::from_str_radix(&hex, 16).ok()?;
    let version = u64::try_from((bits >> 64 & 0xfff) << 20 | (bits >> 42 & 0xf_ffff)).ok()?;
    let nonce = u64::try_from(bits & 0x3ff_ffff_ffff).ok()?;
    (bits >> 76 & 0xf == 7 && bits >> 62 & 0b11 == 0b10).then_some((version, nonce))
}
