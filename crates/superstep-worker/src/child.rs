//! A call of a subgraph: a graph that runs as a task of another.
//!
//! The call belongs to its task. Its progress is a log of records of its own, which lies in the
//! task's state: what earlier rounds parked is folded into the child's state, the same rules
//! decide on it, and what this round adds goes into the task's result. So a question inside is a
//! question of the task, an answer or a retry goes on inside, and finished inner tasks do not run
//! again. Ids follow from the task's own: a call that is done again asks the same questions.
//!
//! What is promised: a finished inner superstep is durable before anything is done with it. Its
//! records go into the round's progress (`progress`), so that a call which is done again after a
//! crash goes on behind them; what counts for the thread is that they come with its parent's
//! record. A task's timeout is for each inner task.

mod log;
mod look;
mod progress;
mod update;

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
};

use serde_json::Value;
use superstep_graph::{Command, InterruptId, NodeName, NodeOutput, Task, TaskId, Write};
use superstep_protocol::{
    Answers, Asked, CommandId, Event, GraphId, Pause, Paused, Profile, Raised, Record, Refusal,
    Resume, RunError, RunStatus, Start, Strategy, TaskResult, TaskState, Terms, ThreadState, Timer,
    UnixMillis,
};

use self::{log::Log, look::child_task, progress::Stored};
pub(crate) use self::{
    look::{at_place, child_of, history},
    progress::{Progress, WhyStopped},
    update::updated,
};
use crate::{
    decisions,
    graphs::{Checkpointer, RunnableGraph, Subgraph},
    node::Before,
    rounds::run_all,
    run_task::{Attempt, Stopped},
    sleep::known_ends,
    stream::{self, nodes_of},
    trace::Place,
};

/// Commands to the parent graph that tasks of a child returned, by task.
type ToParent = Arc<Mutex<BTreeMap<TaskId, Command>>>;

/// What tasks know of the subgraphs that they are in.
#[derive(Clone, Debug)]
pub(crate) struct Inside {
    /// The most tasks of a superstep.
    tasks_max: usize,
    /// Where a command to the parent graph goes; `None` in the root graph.
    parent: Option<ToParent>,
    /// Answers to questions of a call that begins anew each time it goes on.
    known: Arc<BTreeMap<InterruptId, Value>>,
    /// The ends of the sleeps that such a call has begun before.
    pub(crate) sleeps: Arc<BTreeMap<String, UnixMillis>>,
    /// Where calls store what they did; `None` if nowhere, as within one that begins anew.
    progress: Option<Progress>,
}

impl Inside {
    /// In the root graph.
    pub(crate) fn root(tasks_max: usize, progress: Option<Progress>) -> Self {
        Self {
            tasks_max,
            parent: None,
            known: Arc::default(),
            sleeps: Arc::default(),
            progress,
        }
    }

    /// Notes that a task took the offered answer: who goes on with the call does not offer it.
    pub(crate) fn offer_taken(&self) {
        if let Some(progress) = &self.progress {
            progress.offer_taken();
        }
    }

    /// Hands a command to the parent graph; gives it back if there is none.
    pub(crate) fn to_parent(&self, task: &TaskId, command: Command) -> Result<(), Command> {
        let Some(parent) = &self.parent else {
            return Err(command);
        };
        let mut commands = parent.lock().unwrap_or_else(PoisonError::into_inner);
        commands.insert(task.clone(), command);
        Ok(())
    }

    /// Whether a task handed a command to the parent graph: it has no end of its own.
    pub(crate) fn went_to_parent(&self, task: &TaskId) -> bool {
        self.parent.as_ref().is_some_and(|parent| {
            let commands = parent.lock().unwrap_or_else(PoisonError::into_inner);
            commands.contains_key(task)
        })
    }

    /// Adds the answers to a task's questions that are known from before the call began anew.
    pub(crate) fn add_known(&self, task: &TaskId, answers: &mut Vec<Option<Value>>) {
        if self.known.is_empty() {
            return;
        }
        for index in 0.. {
            let known = self.known.get(&InterruptId::of(task, index)).cloned();
            match answers.get_mut(index) {
                Some(answer @ None) => *answer = known,
                Some(Some(_)) => {}
                None if known.is_some() => answers.push(known),
                None => break,
            }
        }
    }
}

/// What a round of a call came to.
#[derive(Debug)]
pub(crate) enum Called {
    /// The child reached its end, or gave a command to its parent.
    Returned {
        /// What the node returned by that.
        output: NodeOutput,
        /// The child's state, if that outlives the call.
        keeps: Option<Box<ThreadState>>,
        /// What it did.
        child: Vec<Record>,
    },
    /// It waits.
    Waits {
        /// For these answers; for none at a breakpoint.
        raised: Vec<Raised>,
        /// What it did.
        child: Vec<Record>,
    },
    /// A task of it goes on by itself when its time comes.
    Pauses(Box<Paused>),
    /// It failed.
    Failed {
        /// Why.
        error: RunError,
        /// What it did.
        child: Vec<Record>,
    },
}

impl Called {
    /// The task's result; `route` makes it of what the node returned.
    pub(crate) fn into_result(self, route: impl FnOnce(NodeOutput) -> TaskResult) -> TaskResult {
        match self {
            Self::Waits { raised, child } => TaskResult::Interrupted {
                raised,
                took: Vec::new(),
                child,
            },
            Self::Pauses(paused) => TaskResult::Paused(paused),
            Self::Failed { error, child } => TaskResult::Failed {
                error,
                writes: None,
                took: Vec::new(),
                child,
            },
            Self::Returned {
                output,
                keeps: kept,
                child: log,
            } => {
                let mut result = route(output);
                match &mut result {
                    TaskResult::Finished { keeps, .. } => *keeps = kept,
                    // A path of the parent failed: the child is not called again for that.
                    TaskResult::Failed { child, .. } => *child = log,
                    TaskResult::Interrupted { .. } | TaskResult::Paused(_) => {}
                }
                result
            }
        }
    }
}

/// A call in one round of its task.
struct Call<'a> {
    graph: &'a RunnableGraph,
    subgraph: &'a Subgraph,
    parent: &'a ThreadState,
    task: &'a Task,
    attempt: Attempt,
    log: Log,
}

/// Calls `subgraph` as `task` of `parent`, a state of `graph`, or goes on with the call, until the
/// child ends or waits.
pub(crate) fn call<'a>(
    graph: &'a RunnableGraph,
    subgraph: &'a Subgraph,
    parent: &'a ThreadState,
    task: &'a Task,
    input: Value,
    attempt: &Attempt,
) -> Pin<Box<dyn Future<Output = Result<Called, Stopped>> + Send + 'a>> {
    let before = attempt.before.child.clone();
    let attempt = attempt_inside(subgraph, parent, task, attempt);
    Box::pin(async move {
        let progress = attempt.inside.progress.clone();
        let mut look = progress.as_ref().is_some_and(Progress::may_be_there);
        loop {
            let stored = match &progress {
                Some(progress) if look => progress.read().await?,
                _ => Vec::new(),
            };
            if stored.iter().any(|entry| entry.took_offer) {
                attempt.take_offer_away();
            }
            let mut log = Log::after(parent, &task.id, subgraph.checkpointer, &before);
            if let Ok(Err(error)) = log.as_mut().map(|log| log.add_progress(stored)) {
                log = Err(error);
            }
            let log = match log {
                Ok(log) => log,
                Err(error) => {
                    let error = error_of(task, "CorruptSubgraph", &error);
                    let child = Vec::new();
                    return Ok(Called::Failed { error, child });
                }
            };
            let mut call = Call {
                graph,
                subgraph,
                parent,
                task,
                attempt: attempt.clone(),
                log,
            };
            if let Some(ended) = call.run(&input).await? {
                return Ok(call.close(ended));
            }
            look = true;
        }
    })
}

fn attempt_inside(
    subgraph: &Subgraph,
    parent: &ThreadState,
    task: &Task,
    attempt: &Attempt,
) -> Attempt {
    let known = match (subgraph.checkpointer, parent.task(&task.id)) {
        (Checkpointer::None, Some(state)) => {
            let mut known = state.answers_by_id();
            let outer = &attempt.inside.known;
            known.extend(outer.iter().map(|(id, value)| (id.clone(), value.clone())));
            Arc::new(known)
        }
        _ => Arc::clone(&attempt.inside.known),
    };
    let sleeps = match (subgraph.checkpointer, parent.task(&task.id)) {
        (Checkpointer::None, Some(state)) => {
            Arc::new(known_ends(Some(state), &attempt.inside.sleeps))
        }
        _ => Arc::clone(&attempt.inside.sleeps),
    };
    let saves = subgraph.checkpointer != Checkpointer::None;
    let progress = match subgraph.checkpointer {
        Checkpointer::Inherit | Checkpointer::Own => {
            let outer = attempt.inside.progress.as_ref();
            outer.map(|outer| outer.of_call(&task.id, attempt.before.tries))
        }
        Checkpointer::None => None,
    };
    Attempt {
        number: 1,
        before: Before::default(),
        stream: attempt.stream.within(&task.node, saves),
        inside: Inside {
            tasks_max: attempt.inside.tasks_max,
            parent: Some(ToParent::default()),
            known,
            sleeps,
            progress,
        },
        traced: attempt
            .traced
            .as_ref()
            .map(|(traces, _)| (traces.clone(), Place::Inside)),
        ..attempt.clone()
    }
}

/// How the child's supersteps ended.
enum Ended {
    /// It has nothing left to do.
    Over,
    /// As its state says.
    Stopped,
    /// It went to its parent.
    ToParent(Command),
    /// It has no state: there was nothing to begin with.
    Nothing,
    /// It cannot go on.
    Failed(RunError),
}

impl Call<'_> {
    /// Runs the child until it ends or waits; `None` if another worker was ahead, and the call has
    /// to go on from what that one stored.
    async fn run(&mut self, input: &Value) -> Result<Option<Ended>, Stopped> {
        // With progress in this round the call has begun in it.
        if !self.log.has_progress() {
            let begun = match self.begin(input) {
                Ok(begun) => begun,
                Err(error) => return Ok(Some(Ended::Failed(error))),
            };
            if let Some(ended) = begun {
                return Ok(Some(ended));
            }
        }
        while let Some(state) = self.log.state().filter(|state| state.has_work()) {
            let was_round = state.decision.is_none();
            let event = match self.step(state).await? {
                Ok(event) => event,
                Err(command) => return Ok(Some(Ended::ToParent(command))),
            };
            let ran = nodes_of(&self.attempt.stream, state);
            match self.log.apply(&event) {
                Ok(()) => {}
                Err(refusal) => return Ok(Some(Ended::Failed(self.refused(&refusal)))),
            }
            // What no task had a part in comes out the same when it is done again.
            if was_round && self.store().await? == Stored::Taken {
                return Ok(None);
            }
            self.tell(&ran);
        }
        Ok(Some(Ended::Stopped))
    }

    /// Stores what was done since it was last stored.
    async fn store(&mut self) -> Result<Stored, Stopped> {
        let Some(progress) = &self.attempt.inside.progress else {
            return Ok(Stored::Done);
        };
        let (index, records) = self.log.next_entry();
        let stored = progress.put(index, records).await?;
        self.log.entry_is_stored();
        Ok(stored)
    }

    /// Begins the child's run: a first one, or one that goes on. Gives how it ended if there is
    /// nothing to run.
    fn begin(&mut self, input: &Value) -> Result<Option<Ended>, RunError> {
        let state = self.log.state().filter(|_| self.log.has_begun());
        let event = match state {
            Some(state) if state.is_busy() => {
                let events = self.wakes(state);
                return self.happen(&events).map(|()| None);
            }
            Some(state) => self.going_on(state),
            None if input.is_null() => return Ok(Some(Ended::Nothing)),
            None => self.starting(self.log.first_command(), input.clone()),
        };
        let goes_on = state.is_some();
        match self.log.apply(&event) {
            Ok(()) => {
                if let Some(state) = self.log.state().filter(|state| !state.is_busy()) {
                    let graph = self.subgraph.graph.topology();
                    stream::nothing_left(&self.attempt.stream, graph, state);
                }
                Ok(None)
            }
            // Every inner task is done, or waits for an answer that is not there.
            Err(Refusal::NothingToRetry { .. }) if goes_on => {
                let over = self.log.state().is_some_and(|state| state.tasks.is_empty());
                Ok(Some(if over { Ended::Over } else { Ended::Stopped }))
            }
            Err(refusal) => Err(self.refused(&refusal)),
        }
    }

    /// What a child that is under way goes on by: answers that it still waits for, and the times
    /// that have come.
    fn wakes(&self, state: &ThreadState) -> Vec<Event> {
        if state.has_work() {
            return Vec::new();
        }
        let woken = self.log.woken();
        let due = |(task, until): (&TaskState, UnixMillis)| {
            let name = Timer::Task(task.task.id.clone()).name();
            (until <= woken).then_some(Event::TimerDue { name })
        };
        // One of them wakes all that are due.
        let timer = state.paused().find_map(due);
        self.answering(state).into_iter().chain(timer).collect()
    }

    fn happen(&mut self, events: &[Event]) -> Result<(), RunError> {
        for event in events {
            let applied = self.log.apply(event);
            applied.map_err(|refusal| self.refused(&refusal))?;
        }
        Ok(())
    }

    fn starting(&self, command: CommandId, input: Value) -> Event {
        let run = self.parent.run.as_ref();
        Event::Start(Box::new(Start {
            command: self.log.command(command),
            run: self.log.run(),
            // What is kept is kept for the node, whatever graph runs there by now.
            graph: GraphId {
                name: self.task.node.as_str().into(),
                version: self.parent.graph.version.clone(),
            },
            topology: None,
            profile: self.parent.profile,
            input,
            recursion_limit: self.recursion_limit(),
            config: run.map(|run| run.config.clone()).unwrap_or_default(),
            metadata: serde_json::Map::new(),
            terms: Terms::default(),
            at: None,
            strategy: Strategy::Reject,
            not_before: None,
            before: None,
        }))
    }

    /// What makes a child go on that has begun: the answers that it still waits for, else as a
    /// retry.
    fn going_on(&self, state: &ThreadState) -> Event {
        if let Some(event) = self.answering(state) {
            return event;
        }
        let id = self.log.next_command();
        let command = self.log.command(id.clone());
        let run = self.log.run();
        match state.profile {
            Profile::Default => Event::Retry {
                command,
                run,
                recursion_limit: None,
            },
            Profile::Langgraph => self.starting(id, Value::Null),
        }
    }

    /// The answers that the child still waits for, if its parent has any.
    fn answering(&self, state: &ThreadState) -> Option<Event> {
        let task = self.parent.task(&self.task.id);
        let mut answers = task.map(TaskState::answers_by_id).unwrap_or_default();
        answers.retain(|id, _| state.open_questions().any(|(_, open)| open.id == *id));
        if answers.is_empty() {
            return None;
        }
        let command = self.log.command(self.log.next_command());
        Some(Event::Resume(Box::new(Resume {
            recursion_limit: Some(self.recursion_limit()),
            ..Resume::new(command, self.log.run(), Answers::ById(answers))
        })))
    }

    /// The parent's run has so many supersteps, and so has each call.
    fn recursion_limit(&self) -> u32 {
        let run = self.parent.run.as_ref();
        run.map_or(superstep_protocol::RECURSION_LIMIT, |run| {
            run.recursion_limit
        })
    }

    /// Works on what the child waits for; gives the command to the parent if a task returned one.
    async fn step(&self, state: &ThreadState) -> Result<Result<Event, Command>, Stopped> {
        let graph: &RunnableGraph = &self.subgraph.graph;
        let tasks_max = self.attempt.inside.tasks_max;
        if let Some(decision) = &state.decision {
            let dispatch = decision.dispatch;
            return Ok(Ok(if let Asked::Input { input } = &decision.asked {
                decisions::input_taken(graph, state, dispatch, input, tasks_max)
            } else {
                stream::round_begins(&self.attempt.stream, graph.topology(), state, dispatch);
                let results = BTreeMap::new();
                decisions::round_ended(graph, state, dispatch, &results, tasks_max)
            }));
        }
        let Some(dispatch) = state.rounds.keys().next().copied() else {
            unreachable!("a busy state has a decision or a round");
        };
        let tasks: Vec<TaskId> = state
            .round_tasks(dispatch)
            .map(|task| task.task.id.clone())
            .collect();
        stream::round_begins(&self.attempt.stream, graph.topology(), state, dispatch);
        let Some(results) = run_all(graph, state, &tasks, &self.attempt).await else {
            return Err(Stopped);
        };
        if let Some(command) = self.command_to_parent(&tasks) {
            return Ok(Err(command));
        }
        let event = decisions::round_ended(graph, state, dispatch, &results, tasks_max);
        Ok(Ok(event))
    }

    /// Tells what the last record made of the child.
    fn tell(&self, ran: &[NodeName]) {
        if let Some((record, state)) = self.log.last() {
            let graph = self.subgraph.graph.topology();
            stream::appended(&self.attempt.stream, graph, ran, record, state);
        }
    }

    /// The first of the tasks that returned a command to the parent, in plan order, has its way.
    fn command_to_parent(&self, tasks: &[TaskId]) -> Option<Command> {
        let parent = self.attempt.inside.parent.as_ref()?;
        let mut commands = parent.lock().unwrap_or_else(PoisonError::into_inner);
        tasks.iter().find_map(|task| commands.remove(task))
    }

    fn refused(&self, refusal: &Refusal) -> RunError {
        error_of(self.task, "SubgraphRefused", refusal)
    }

    /// Makes the result of what was done.
    fn close(mut self, ended: Ended) -> Called {
        let output = match ended {
            Ended::Failed(error) => return self.failed(error),
            Ended::Nothing => NodeOutput::none(),
            Ended::ToParent(command) => {
                self.log.cancel();
                NodeOutput::command(Command {
                    parent: false,
                    ..command
                })
            }
            // A run that goes on shows what was there.
            Ended::Over => self.output(true),
            Ended::Stopped => {
                let state = self.log.state().expect("a run was begun");
                let error = state.run.as_ref().and_then(|run| {
                    let failed = matches!(run.status, RunStatus::Error | RunStatus::Timeout);
                    run.error.clone().filter(|_| failed)
                });
                if let Some(error) = error {
                    let error = RunError {
                        node: Some(self.task.node.clone()),
                        task: Some(self.task.id.clone()),
                        ..error
                    };
                    return self.failed(error);
                }
                if let Some(until) = state.wakes_at() {
                    let mut paused = Paused::new(until, Pause::Inside);
                    paused.raised = raised(state);
                    // A call that begins anew knows of its sleeps from its task.
                    let tasks = state.tasks.iter();
                    let sleeps = tasks.flat_map(|task| task.sleeps.clone());
                    paused.sleeps = self
                        .attempt
                        .inside
                        .sleeps
                        .iter()
                        .map(|(name, end)| (name.clone(), *end))
                        .chain(sleeps)
                        .collect();
                    paused.child = self.log.into_new();
                    return Called::Pauses(Box::new(paused));
                }
                if state.unfinished().next().is_some() {
                    let raised = raised(state);
                    let child = self.log.into_new();
                    return Called::Waits { raised, child };
                }
                let run = state.run.as_ref();
                self.output(run.is_some_and(|run| run.shows))
            }
        };
        Called::Returned {
            output,
            keeps: self.log.kept(),
            child: self.log.into_new(),
        }
    }

    fn failed(self, error: RunError) -> Called {
        Called::Failed {
            error,
            child: self.log.into_new(),
        }
    }

    /// All of the child's output channels, changed or not, unless its run had nothing to show.
    /// What is no channel of the parent is seen by paths only.
    fn output(&self, shows: bool) -> NodeOutput {
        let Some(state) = self.log.state().filter(|_| shows) else {
            return NodeOutput::none();
        };
        let graph = self.subgraph.graph.topology();
        let channels = self.graph.topology().state_channels();
        let mut output = NodeOutput::none();
        let mut update = Vec::new();
        if let Value::Object(values) = superstep_graph::read_output(graph, &state.checkpoint) {
            for (key, value) in values {
                if channels.contains(key.as_str()) {
                    update.push(Write::set(key.as_str(), value));
                } else {
                    output.extra.insert(key, value);
                }
            }
        }
        output.commands.push(Command {
            update,
            ..Command::default()
        });
        output
    }
}

/// The child's open questions, as its parent's task asks them.
fn raised(state: &ThreadState) -> Vec<Raised> {
    let open = state.open_questions().enumerate();
    open.map(|(index, (_, question))| Raised {
        index,
        id: Some(question.id.clone()),
        payload: question.payload.clone(),
        expires_at: question.expires_at,
    })
    .collect()
}

fn error_of(task: &Task, kind: &str, why: &impl std::fmt::Display) -> RunError {
    RunError {
        kind: kind.to_owned(),
        message: format!("the subgraph of node `{}` cannot go on: {why}", task.node),
        node: Some(task.node.clone()),
        task: Some(task.id.clone()),
    }
}

/// The graph that runs as `node`, if one does.
pub(crate) fn subgraph_of<'a>(graph: &'a RunnableGraph, node: &NodeName) -> Option<&'a Subgraph> {
    match graph.node(node.as_str())? {
        crate::graphs::NodeCode::Graph(subgraph) => Some(subgraph),
        crate::graphs::NodeCode::Function(_) => None,
    }
}

#[cfg(test)]
mod tests;
