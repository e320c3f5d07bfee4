//! Decide: what an event calls for, given the state.
//!
//! One pure function over (state, event). The verdict is a record to append, a refusal to tell,
//! nothing (late and duplicate events are named), or to ask again soon. Each event has a file
//! of its own name. The caller appends a record only behind the head of the very state it was
//! decided on, so two verdicts on one state never both become true.

mod answer;
mod command;
mod moves;
mod queue;
mod round;
mod timer;

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use superstep_graph::{Delta, InterruptId, Lineage, NodeName, Source, Task, TaskId, Write};

use crate::{
    ids::{Dispatch, GraphId, Head, RunId, ThreadId, UnixMillis},
    queue::{Restored, Strategy},
    record::{
        Base, CommandRef, Goto, Profile, Record, RecordBody, RunError, TaskResult, Terms, Update,
    },
    refusal::Refusal,
    state::ThreadState,
};

/// How many supersteps a run may take unless its start says otherwise (LangGraph's default).
pub const RECURSION_LIMIT: u32 = 25;

/// A run that is to begin.
#[derive(Clone, Debug, PartialEq)]
pub struct Start {
    /// Who asks.
    pub command: CommandRef,
    /// The run's id.
    pub run: RunId,
    /// The graph and version that are to run it.
    pub graph: GraphId,
    /// The topology of that, as it was registered.
    pub topology: Option<String>,
    /// How a new thread decides.
    pub profile: Profile,
    /// The input; null goes on with what is left, as LangGraph's `invoke(None)`.
    pub input: Value,
    /// How many supersteps it may take.
    pub recursion_limit: u32,
    /// Values for nodes.
    pub config: Map<String, Value>,
    /// Kept with the thread.
    pub metadata: Map<String, Value>,
    /// What else it is given.
    pub terms: Terms,
    /// The checkpoint to go on from, if not the last one.
    pub at: Option<Box<Base>>,
    /// What becomes of a run that is not over.
    pub strategy: Strategy,
    /// Not before this time.
    pub not_before: Option<UnixMillis>,
    /// What the thread was before the run that it rolls back, where [`rolls_back`] asks for it.
    pub before: Option<Box<Restored>>,
}

/// A cancel.
#[derive(Clone, Debug, PartialEq)]
pub struct Cancel {
    /// Who asks.
    pub command: CommandRef,
    /// Why.
    pub reason: Option<String>,
    /// The one run to cancel, under way or in the queue; what is under way and all of the queue
    /// otherwise.
    pub run: Option<RunId>,
    /// Whether what the run under way did is undone.
    pub rollback: bool,
    /// What the thread was before that run, where [`rolls_back`] asks for it.
    pub before: Option<Box<Restored>>,
}

impl Cancel {
    /// A cancel of all that is not over; supersteps that were completed stay.
    pub fn new(command: CommandRef, reason: Option<String>) -> Self {
        Self {
            command,
            reason,
            run: None,
            rollback: false,
            before: None,
        }
    }
}

/// A run that goes on with what waits: answers, and what is changed before.
#[derive(Clone, Debug, PartialEq)]
pub struct Resume {
    /// Who asks.
    pub command: CommandRef,
    /// The run that it begins.
    pub run: RunId,
    /// The answers, if any.
    pub answers: Option<Answers>,
    /// An update of the checkpoint as it stands; null for none.
    pub update: Value,
    /// Where to go from it, beside what waits.
    pub goto: Vec<Goto>,
    /// How many supersteps the run may take; as many as the one before otherwise.
    pub recursion_limit: Option<u32>,
    /// What else it is given.
    pub terms: Terms,
    /// The checkpoint to go on from, if not the last one.
    pub at: Option<Box<Base>>,
}

impl Resume {
    /// Answers, and nothing else.
    pub fn new(command: CommandRef, run: RunId, answers: Answers) -> Self {
        Self {
            command,
            run,
            answers: Some(answers),
            update: Value::Null,
            goto: Vec::new(),
            recursion_limit: None,
            terms: Terms::default(),
            at: None,
        }
    }
}

/// An update of the state from outside.
#[derive(Clone, Debug, PartialEq)]
pub struct StateUpdate {
    /// Who asks.
    pub command: CommandRef,
    /// The update.
    pub update: Update,
    /// More updates of the same superstep.
    pub more: Vec<Update>,
    /// The place of the subgraph that is updated: nodes from the outside in.
    pub subgraph: Vec<NodeName>,
    /// The checkpoint to update, if not the last one.
    pub at: Option<Box<Base>>,
}

impl StateUpdate {
    /// One update of the last checkpoint.
    pub fn new(command: CommandRef, values: Value, as_node: Option<NodeName>) -> Self {
        Self {
            command,
            update: Update { values, as_node },
            more: Vec::new(),
            subgraph: Vec::new(),
            at: None,
        }
    }
}

/// What a resume carries.
#[derive(Clone, Debug, PartialEq)]
pub enum Answers {
    /// One value for the one open question.
    Plain(Value),
    /// Values by question.
    ById(BTreeMap<InterruptId, Value>),
}

impl Answers {
    /// Reads the `resume` of a command: an object whose keys all have the form of an interrupt
    /// id is a map of answers, anything else is one answer. With `interrupt_id` the value is
    /// for that question, whatever its form.
    pub fn of(resume: Value, interrupt_id: Option<InterruptId>) -> Self {
        match (resume, interrupt_id) {
            (value, Some(id)) => Self::ById(BTreeMap::from([(id, value)])),
            (Value::Object(map), None)
                if !map.is_empty() && map.keys().all(|key| InterruptId::is_id(key)) =>
            {
                Self::ById(
                    map.into_iter()
                        .map(|(id, value)| (id.into(), value))
                        .collect(),
                )
            }
            (value, None) => Self::Plain(value),
        }
    }
}

/// What the graph made of a superstep, an input or an update: computed by a worker of the
/// graph, for the checkpoint that follows the state.
#[derive(Clone, Debug, PartialEq)]
pub struct Superstep {
    /// What changes.
    pub delta: Delta,
    /// What that triggers.
    pub tasks: Vec<Task>,
    /// The lineage that the tasks were planned with.
    pub lineage: Lineage,
    /// Whether a channel of the graph's output was written.
    pub output: bool,
    /// Whether a breakpoint stops the run here.
    pub stop: Stop,
}

/// Whether a breakpoint stops a run after a checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stop {
    /// None does.
    #[default]
    No,
    /// One after a task that made the checkpoint.
    After,
    /// One before a task that it triggers.
    Before,
}

/// What an update made of the state.
#[derive(Clone, Debug, PartialEq)]
pub struct Updated {
    /// The node it was made as.
    pub as_node: NodeName,
    /// What it counts as: an update, a copy, or an input.
    pub source: Source,
    /// What the graph made of it.
    pub superstep: Superstep,
    /// Tasks that it was made for, which count as having written it.
    pub tasks: Vec<(TaskId, Vec<Write>)>,
}

impl Updated {
    /// An update made as `as_node`.
    pub fn new(as_node: NodeName, superstep: Superstep) -> Self {
        Self {
            as_node,
            source: Source::Update,
            superstep,
            tasks: Vec::new(),
        }
    }
}

/// Something that happened, or that someone asks for.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// A run is to begin.
    Start(Box<Start>),
    /// What waits is to go on: questions are answered, or the state is changed first.
    Resume(Box<Resume>),
    /// A thread is to be made without a run, to be updated.
    Create {
        /// Who asks.
        command: CommandRef,
        /// The graph and version it is of.
        graph: GraphId,
        /// The topology of that, as it was registered.
        topology: Option<String>,
        /// How it decides.
        profile: Profile,
        /// How many milliseconds it stays while it rests, if not for good.
        ttl_ms: Option<u64>,
    },
    /// What runs or waits is to be cancelled.
    Cancel(Box<Cancel>),
    /// A worker takes the next run of the queue.
    NextRun {
        /// The dispatch that asked for it.
        dispatch: Dispatch,
        /// Why it cannot begin, if its version of the graph cannot take the thread over.
        refusal: Option<Refusal>,
    },
    /// The state is to be updated.
    Update(Box<StateUpdate>),
    /// What failed or was cancelled is to run again.
    Retry {
        /// Who asks.
        command: CommandRef,
        /// The run that it begins.
        run: RunId,
        /// How many supersteps it may take; as many as the one before otherwise.
        recursion_limit: Option<u32>,
    },
    /// The thread is to be deleted.
    Delete {
        /// Who asks.
        command: CommandRef,
    },
    /// Tasks of a round ended.
    RoundEnded {
        /// The round.
        dispatch: Dispatch,
        /// The results that are there.
        results: BTreeMap<TaskId, TaskResult>,
        /// What the graph makes of the superstep, if `close_with` says it can be applied.
        superstep: Option<Result<Superstep, RunError>>,
    },
    /// A worker of the graph took a run's input.
    InputTaken {
        /// The dispatch that asked for it.
        dispatch: Dispatch,
        /// What the graph made of it.
        superstep: Result<Superstep, RunError>,
    },
    /// A worker of the graph applied an update.
    UpdateApplied {
        /// The dispatch that asked for it.
        dispatch: Dispatch,
        /// What it made, or why it cannot be applied.
        superstep: Result<Box<Updated>, String>,
    },
    /// A worker of the graph updated the state of a task's subgraph.
    ChildUpdated {
        /// The dispatch that asked for it.
        dispatch: Dispatch,
        /// The task.
        task: TaskId,
        /// What was done to its subgraph.
        child: Vec<Record>,
    },
    /// A worker of the graph prepared a run.
    CommandApplied {
        /// The dispatch that asked for it.
        dispatch: Dispatch,
        /// What the graph made of it, or why it cannot be applied.
        superstep: Result<Superstep, String>,
    },
    /// A timer of the thread is due, as the store's index says.
    TimerDue {
        /// Its name.
        name: String,
    },
    /// The thread is to go over to another version of its graph.
    Move(Box<AskMove>),
    /// A worker of that version said whether it takes the thread.
    MoveMade {
        /// The dispatch that asked for it.
        dispatch: Dispatch,
        /// What it makes of the thread, or why it cannot take it.
        moved: Result<Migrated, Refusal>,
    },
    /// A deadline of a question was reached.
    DeadlineReached {
        /// The question.
        interrupt: InterruptId,
    },
}

/// Why an event calls for nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// The state no longer waits for the dispatch, or the question is closed.
    Late,
    /// Tasks of the round have no result yet.
    Incomplete {
        /// Those.
        missing: Vec<TaskId>,
    },
    /// The time is not reached yet.
    NotDue,
}

/// What an event calls for.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "it lives for one call, and nearly always is a record"
)]
pub enum Verdict {
    /// This record.
    Append(RecordBody),
    /// To be told no.
    Refuse(Refusal),
    /// To be told what it was told before: this record accepted the same start.
    Known(Head),
    /// Nothing.
    Nothing(Nothing),
    /// To be asked again soon: a worker of the graph is deciding on another command.
    Wait,
}

/// Decides what `event` calls for at `now`; `state` is `None` for a thread without a log.
pub fn decide(
    thread: &ThreadId,
    state: Option<&ThreadState>,
    event: &Event,
    now: UnixMillis,
) -> Verdict {
    let live = state.filter(|state| !state.deleted);
    match (live, event) {
        (None, Event::Start(start)) => queue::start_new(start, now),
        (Some(state), Event::Start(start)) => queue::start(state, start, now),
        (
            None,
            Event::Create {
                command,
                graph,
                topology,
                profile,
                ttl_ms,
            },
        ) => Verdict::Append(RecordBody::Created {
            command: command.clone(),
            graph: graph.clone(),
            topology: topology.clone(),
            profile: *profile,
            ttl_ms: *ttl_ms,
        }),
        (Some(state), Event::Resume(resume)) => answer::resume(state, resume, now),
        (Some(state), Event::Cancel(cancel)) => queue::cancel(state, cancel),
        (Some(state), Event::NextRun { dispatch, refusal }) => {
            queue::next_run(state, *dispatch, refusal.as_ref(), now)
        }
        (Some(state), Event::Update(update)) => command::update(state, update),
        (
            Some(state),
            Event::Retry {
                command,
                run,
                recursion_limit,
            },
        ) => command::retry(state, command, run, *recursion_limit, &Terms::default()),
        (Some(_), Event::Delete { command }) => Verdict::Append(RecordBody::Deleted {
            command: command.clone(),
        }),
        (
            None,
            Event::Resume(_)
            | Event::Cancel(_)
            | Event::Update(_)
            | Event::Retry { .. }
            | Event::Delete { .. },
        ) => Verdict::Refuse(Refusal::UnknownThread {
            thread: thread.clone(),
        }),
        (
            Some(state),
            Event::RoundEnded {
                dispatch,
                results,
                superstep,
            },
        ) => round::ended(state, *dispatch, results, superstep.as_ref()),
        (
            Some(state),
            Event::InputTaken {
                dispatch,
                superstep,
            },
        ) => round::input_taken(state, *dispatch, superstep),
        (
            Some(state),
            Event::UpdateApplied {
                dispatch,
                superstep,
            },
        ) => round::update_applied(state, *dispatch, superstep),
        (
            Some(state),
            Event::CommandApplied {
                dispatch,
                superstep,
            },
        ) => round::command_applied(state, *dispatch, superstep),
        (
            Some(state),
            Event::ChildUpdated {
                dispatch,
                task,
                child,
            },
        ) => round::child_updated(state, *dispatch, task, child),
        (Some(state), Event::Move(asked)) => moves::ask(state, asked),
        (Some(state), Event::MoveMade { dispatch, moved }) => moves::made(state, *dispatch, moved),
        (Some(state), Event::DeadlineReached { interrupt }) => {
            answer::deadline(state, interrupt, now)
        }
        (Some(state), Event::TimerDue { name }) => timer::due(state, name, now),
        // The thread is there, which is all that a creation asks.
        (Some(_), Event::Create { .. })
        // The thread is gone: whatever a worker still brings is late.
        | (
            None,
            Event::RoundEnded { .. }
            | Event::InputTaken { .. }
            | Event::UpdateApplied { .. }
            | Event::ChildUpdated { .. }
            | Event::CommandApplied { .. }
            | Event::DeadlineReached { .. }
            | Event::TimerDue { .. }
            | Event::NextRun { .. }
            | Event::Move(_)
            | Event::MoveMade { .. },
        ) => Verdict::Nothing(Nothing::Late),
    }
}

pub use moves::{AskMove, Migrated};
pub use queue::rolls_back;
pub use round::{Closing, close_with};
