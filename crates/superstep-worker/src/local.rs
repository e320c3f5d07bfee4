//! The embedded mode: threads run in this process, without a queue.
//!
//! The same engine, log and rules as a worker; only the dispatches are worked on in place. A
//! thread that a crashed process left busy is taken up again by the next call that needs it.

mod options;
mod sleeping;
mod versions;
mod views;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::{Map, Value};
use superstep_checkpoint::ThreadLog;
use superstep_graph::{InterruptId, NodeName, command_input};
use superstep_protocol::{
    Answers, Base, Cancel, CommandId, CommandRef, Dispatch, Event, GraphId, Profile,
    RECURSION_LIMIT, Refusal, Resume, RunId, RunStatus, Start, StateUpdate, Strategy, ThreadId,
    Update,
};

use crate::{
    clock::SharedWorld,
    engine::{Accepted, Engine, Worked},
    error::Error,
    graphs::Graphs,
    input::InputSchema,
    poison::Charged,
    rounds::Running,
    settings::WorkerSettings,
    shown::{output, shows},
    sleep::Clock,
    stop::Stop,
    stream::{self, OutputSink, Stream, Tee},
    threads::{Thread, Threads},
    turns::{Turn, Turns},
    view::{StateView, open_interrupts},
};

use sleeping::Sleeping;

pub use options::{GoOn, RunOptions, RunOutput, UpdateOptions};

/// Threads that run in this process.
#[derive(Clone)]
pub struct Local {
    engine: Engine,
    settings: WorkerSettings,
    sink: Option<Arc<dyn OutputSink>>,
    turns: Arc<Turns>,
    inputs: Arc<BTreeMap<GraphId, InputSchema>>,
}

impl std::fmt::Debug for Local {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Local")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Local {
    /// Runs `graphs` over `log`.
    pub fn new(
        graphs: Graphs,
        log: Arc<dyn ThreadLog>,
        world: SharedWorld,
        settings: WorkerSettings,
    ) -> Self {
        let inputs = graphs
            .iter()
            .filter_map(|graph| {
                let schema = InputSchema::new(graph.input_schema()?).ok()?;
                Some((graph.id().clone(), schema))
            })
            .collect();
        let threads = Threads::new(log, world, settings.limits.clone(), settings.store_retry)
            .with_retention(settings.retention);
        Self {
            engine: Engine::new(threads, Arc::new(graphs)),
            settings,
            sink: None,
            turns: Arc::default(),
            inputs: Arc::new(inputs),
        }
    }

    /// Sends what runs tell to `sink` too: what nodes emit, and whatever else a run asked for.
    #[must_use]
    pub fn with_output(mut self, sink: Arc<dyn OutputSink>) -> Self {
        self.sink = Some(match self.sink {
            None => sink,
            Some(before) => Arc::new(Tee(vec![before, sink])),
        });
        self
    }

    /// The typed log under it.
    pub fn threads(&self) -> &Threads {
        &self.engine.threads
    }

    /// The graphs that it runs.
    pub fn graphs(&self) -> &Graphs {
        &self.engine.graphs
    }

    /// Starts a run with `input` and works until it ends or stops at a question. Null goes on
    /// with what is left, as LangGraph's `invoke(None)`.
    ///
    /// # Errors
    /// `Refused` if the thread cannot take it or the input does not fit the graph's schema; a run
    /// that fails is an output with an error.
    pub async fn invoke(
        &self,
        graph: &GraphId,
        thread: &ThreadId,
        input: Value,
        options: RunOptions,
    ) -> Result<RunOutput, Error> {
        if let Some(schema) = self.inputs.get(graph) {
            schema.check(&input).map_err(Error::Refused)?;
        }
        let command = self.command();
        let terms = options.terms(&self.settings);
        let at = self
            .base(thread, options.checkpoint.as_deref(), true)
            .await?;
        let event = Event::Start(Box::new(Start {
            run: options.run.unwrap_or_else(|| self.new_run()),
            command,
            terms,
            at,
            graph: graph.clone(),
            topology: self.topology_of(graph),
            profile: self.settings.profile,
            input,
            recursion_limit: options.recursion_limit.unwrap_or(RECURSION_LIMIT),
            config: options.config,
            metadata: options.metadata,
            strategy: Strategy::Reject,
            not_before: None,
            before: None,
        }));
        self.apply(thread, &event).await
    }

    /// Answers open questions and works until the run ends or stops again.
    ///
    /// # Errors
    /// `Refused` with its kind if the answer is not accepted.
    pub async fn resume(&self, thread: &ThreadId, answers: Answers) -> Result<RunOutput, Error> {
        let go_on = GoOn {
            answers: Some(answers),
            ..GoOn::default()
        };
        self.go_on(None, thread, go_on, RunOptions::default()).await
    }

    /// Goes on with what waits: answers questions, applies an update and goes to nodes beside
    /// what is triggered already, all in the superstep as it stands.
    ///
    /// # Errors
    /// `Refused` with its kind if it is not accepted.
    pub async fn go_on(
        &self,
        graph: Option<&GraphId>,
        thread: &ThreadId,
        go_on: GoOn,
        options: RunOptions,
    ) -> Result<RunOutput, Error> {
        if let (Profile::Langgraph, Some(graph)) = (self.settings.profile, graph) {
            let found = self.engine.threads.load(thread).await?;
            if found.is_none_or(|found| found.state.deleted) {
                return self.begin_by_command(graph, thread, go_on, options).await;
            }
        }
        // Sent now: waiting for a turn must not let it answer a question that opens meanwhile.
        let command = self.command();
        let limit = match self.settings.profile {
            Profile::Default => options.recursion_limit,
            // LangGraph knows of no run before.
            Profile::Langgraph => Some(options.recursion_limit.unwrap_or(RECURSION_LIMIT)),
        };
        let event = Event::Resume(Box::new(Resume {
            command,
            run: options.run.clone().unwrap_or_else(|| self.new_run()),
            answers: go_on.answers,
            update: go_on.update,
            goto: go_on.goto,
            recursion_limit: limit,
            terms: options.terms(&self.settings),
            at: self
                .base(thread, options.checkpoint.as_deref(), true)
                .await?,
        }));
        self.apply(thread, &event).await
    }

    /// LangGraph takes a command on a thread that is not there for its input: an answer has no
    /// question and is lost, the update and the targets are those of the start.
    async fn begin_by_command(
        &self,
        graph: &GraphId,
        thread: &ThreadId,
        go_on: GoOn,
        options: RunOptions,
    ) -> Result<RunOutput, Error> {
        let changes = !go_on.update.is_null() || !go_on.goto.is_empty();
        if go_on.answers.is_none() && !changes {
            return Err(Error::Refused(Refusal::InvalidInput {
                reason: "the command is empty; give an answer, an update or a target".to_owned(),
            }));
        }
        let input = if changes {
            command_input(
                &go_on.update,
                go_on.goto.into_iter().map(Into::into).collect(),
            )
        } else {
            Value::Object(Map::new())
        };
        self.invoke(graph, thread, input, options).await
    }

    /// The checkpoint of this id, with all that a branch from it needs.
    async fn base(
        &self,
        thread: &ThreadId,
        checkpoint: Option<&str>,
        amended: bool,
    ) -> Result<Option<Box<Base>>, Error> {
        let threads = &self.engine.threads;
        let base = threads.named_base(thread, checkpoint, amended).await?;
        base.map_err(Error::Refused)
    }

    /// Runs again what failed or was cancelled.
    ///
    /// # Errors
    /// `Refused` if nothing did.
    pub async fn retry(&self, thread: &ThreadId) -> Result<RunOutput, Error> {
        let event = Event::Retry {
            command: self.command(),
            run: self.new_run(),
            recursion_limit: None,
        };
        self.apply(thread, &event).await
    }

    /// Runs `thread` again from a checkpoint, as if that checkpoint's tasks never had run; what
    /// follows is a branch.
    ///
    /// # Errors
    /// `Refused` if there is no such thread or checkpoint.
    pub async fn retry_from(
        &self,
        thread: &ThreadId,
        checkpoint: impl Into<String>,
    ) -> Result<RunOutput, Error> {
        let found = self.engine.threads.load(thread).await?;
        let Some(found) = found.filter(|found| !found.state.deleted) else {
            return Err(Error::Refused(Refusal::UnknownThread {
                thread: thread.clone(),
            }));
        };
        let options = RunOptions {
            checkpoint: Some(checkpoint.into()),
            ..RunOptions::default()
        };
        let graph = found.state.graph.clone();
        self.invoke(&graph, thread, Value::Null, options).await
    }

    /// Gives up what waits or runs; finished supersteps stay.
    ///
    /// # Errors
    /// `Refused` if nothing does.
    pub async fn cancel(&self, thread: &ThreadId, reason: Option<String>) -> Result<(), Error> {
        let event = Event::Cancel(Box::new(Cancel::new(self.command(), reason)));
        self.accept(thread, &event, None).await?;
        self.turns.stop(thread);
        Ok(())
    }

    /// Updates the state as if `as_node` had returned `values`.
    ///
    /// # Errors
    /// `Refused` if a run is under way or the values do not fit.
    pub async fn update(
        &self,
        thread: &ThreadId,
        values: Value,
        as_node: Option<NodeName>,
    ) -> Result<StateView, Error> {
        let update = Update { values, as_node };
        self.update_with(thread, None, vec![update], UpdateOptions::default())
            .await
    }

    /// Updates the state as if each node had returned its values, all in one superstep. A thread
    /// that is not there yet is made, of `graph`.
    ///
    /// # Errors
    /// As [`update`](Self::update); also if there is no update.
    pub async fn update_with(
        &self,
        thread: &ThreadId,
        graph: Option<&GraphId>,
        mut updates: Vec<Update>,
        options: UpdateOptions,
    ) -> Result<StateView, Error> {
        if updates.is_empty() {
            let reason = "there is no update to apply; give one at least".to_owned();
            return Err(Error::Refused(Refusal::InvalidUpdate { reason }));
        }
        let place = options.subgraph.clone();
        let threads = &self.engine.threads;
        let base = threads
            .base_of_update(thread, options.checkpoint.as_deref())
            .await?;
        let event = Event::Update(Box::new(StateUpdate {
            command: self.command(),
            update: updates.remove(0),
            more: updates,
            subgraph: options.subgraph,
            at: base.map_err(Error::Refused)?,
        }));
        let turn = self.turns.take(thread).await;
        self.finish_in(&turn, thread).await?;
        self.version_first(&turn, thread, &event).await?;
        let found = self.engine.threads.load(thread).await?;
        let is_there = found.is_some_and(|found| !found.state.deleted);
        if let Some(graph) = graph.filter(|_| !is_there) {
            let create = Event::Create {
                command: self.command(),
                graph: graph.clone(),
                topology: self.topology_of(graph),
                profile: self.settings.profile,
                ttl_ms: self.settings.ended_ttl_ms(),
            };
            self.accept(thread, &create, Some(&turn)).await?;
        }
        let accepted = self.accept(thread, &event, Some(&turn)).await?;
        let (worked, declined) = self.drive(accepted, &turn, 0, Sleeping::Left).await?;
        match declined {
            Some(refusal) => Err(Error::Refused(refusal)),
            None => self.view_at(&worked, &place, false),
        }
    }

    /// Deletes the thread and all it holds. Unknown threads are refused.
    ///
    /// # Errors
    /// `Refused` if there is no such thread.
    pub async fn delete(&self, thread: &ThreadId) -> Result<(), Error> {
        let event = Event::Delete {
            command: self.command(),
        };
        self.accept(thread, &event, None).await?;
        self.turns.stop(thread);
        Ok(())
    }

    async fn apply(&self, thread: &ThreadId, event: &Event) -> Result<RunOutput, Error> {
        let turn = self.turns.take(thread).await;
        self.finish_in(&turn, thread).await?;
        self.version_first(&turn, thread, event).await?;
        let accepted = self.accept(thread, event, Some(&turn)).await?;
        if !accepted.state.is_busy() {
            let graph = self.engine.graph_of(&accepted)?;
            let stream = Stream::of(self.sink.as_ref(), &accepted.state);
            stream::nothing_left(&stream, graph.topology(), &accepted.state);
            stream.end();
        }
        let drove = self.drive(accepted, &turn, 0, Sleeping::Awaited).await?;
        let (thread, declined) = drove;
        if let Some(refusal) = declined {
            return Err(Error::Refused(refusal));
        }
        let state = &thread.state;
        let graph = self.engine.graph_of(&thread)?;
        let run = state.run.as_ref();
        let (values, conflict) = output(state, Some(graph.topology()));
        Ok(RunOutput {
            run: run.map_or_else(|| RunId::new("-"), |run| run.id.clone()),
            values,
            shows: shows(state),
            interrupts: open_interrupts(state),
            status: run.map_or(RunStatus::Interrupted, |run| run.status),
            error: run.and_then(|run| run.error.clone()).or(conflict),
        })
    }

    async fn accept(
        &self,
        thread: &ThreadId,
        event: &Event,
        turn: Option<&Turn>,
    ) -> Result<Thread, Error> {
        loop {
            match Box::pin(self.engine.accept(thread, event, None, || None)).await? {
                Accepted::Appended(done) => return Ok(told(done.0)),
                Accepted::Refused(refusal) => return Err(Error::Refused(refusal)),
                // It is this very run that goes on or is over.
                Accepted::Known(_) => {
                    if let Some(found) = self.engine.threads.load(thread).await? {
                        return Ok(told(found));
                    }
                }
                Accepted::Wait | Accepted::Nothing | Accepted::Decided(_) => {
                    // A decision of the graph is pending: it is ours to make.
                    match turn {
                        Some(turn) => self.finish_in(turn, thread).await?,
                        None => self.finish(thread).await?,
                    }
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
    }

    /// Works until the thread waits for nothing of ours. Also gives the last refusal of an
    /// update that could not be applied. Up to version `left` another process may have begun
    /// what is open.
    async fn drive(
        &self,
        mut thread: Thread,
        turn: &Turn,
        mut left: u64,
        sleeping: Sleeping,
    ) -> Result<(Thread, Option<Refusal>), Error> {
        let mut declined = None;
        let mut cancel = turn.begin();
        loop {
            thread = told(thread);
            let dispatch: Option<Dispatch> = match &thread.state.decision {
                Some(decision) => Some(decision.dispatch),
                None => thread.state.rounds.keys().next().copied(),
            };
            let Some(dispatch) = dispatch else {
                if thread.state.is_busy() {
                    if let Some(now) = self.fire(&thread).await? {
                        thread = now;
                        continue;
                    }
                    // Whoever is asked is not to wait for a sibling that sleeps.
                    let asks = thread.state.open_questions().next().is_some();
                    if sleeping == Sleeping::Awaited && !asks {
                        self.nap(&thread, &cancel).await?;
                        cancel = turn.begin();
                        let id = &thread.state.thread;
                        if let Some(now) = self.engine.threads.load(id).await? {
                            thread = now;
                            continue;
                        }
                    }
                }
                let log = self.engine.threads.log();
                let (id, head) = (thread.state.thread.clone(), thread.state.head);
                self.engine
                    .threads
                    .retrying(&id, || log.unwatch(&id, head))
                    .await?;
                return Ok((thread, declined));
            };
            if let Some(now) = self.taken_over(&thread, dispatch).await? {
                thread = now;
                continue;
            }
            let id = thread.state.thread.clone();
            let running = Running {
                attempt: 1,
                again: dispatch.version <= left,
                // Whoever runs a graph within their own program may end it as often as they like.
                attempts_max: None,
                charged: Charged::default(),
                timeout: self.settings.task_timeout,
                clock: Clock {
                    threads: self.engine.threads.clone(),
                    short_pause_max: self.settings.short_pause_max,
                },
                at_once: self.settings.tasks_at_once,
                slots: None,
                stop: Stop::of_thread(cancel.clone(), self.settings.cancel_grace),
                sink: self.sink.clone(),
                delivery: None,
            };
            thread = match Box::pin(self.engine.work(thread, dispatch, &[], &running)).await? {
                Worked::Appended(done) => {
                    self.threads().prune(&done.0, &done.1).await;
                    if let superstep_protocol::RecordBody::Declined { refusal, .. } = &done.1.body {
                        declined = Some(refusal.clone());
                    }
                    done.0
                }
                Worked::Late(Some(now)) => {
                    left = now.state.head.version;
                    *now
                }
                Worked::Late(None) | Worked::Partial | Worked::Stopped | Worked::Crowded => {
                    // Whoever stopped it has appended why; if not for this run, it goes on.
                    cancel = turn.begin();
                    match self.engine.threads.load(&id).await? {
                        Some(now) => {
                            left = now.state.head.version;
                            now
                        }
                        None => return Err(Error::Contended { thread: id }),
                    }
                }
            };
        }
    }

    fn command(&self) -> CommandRef {
        let world = self.engine.threads.world();
        CommandRef {
            id: CommandId::new(format!("local-{}{}", world.nonce(), world.nonce())),
            sent_at: world.now(),
            sender: None,
            trace: None,
            tracestate: None,
        }
    }

    /// A thread id that no other thread has.
    pub fn new_thread(&self) -> ThreadId {
        ThreadId::new(self.new_run().as_str())
    }

    /// An id for a run that nobody has named.
    pub fn new_run(&self) -> RunId {
        let world = self.engine.threads.world();
        RunId::new(uuid_v7(world.now().0, world.nonce().0, world.nonce().0))
    }

    /// How threads of this process decide.
    pub fn profile(&self) -> Profile {
        self.settings.profile
    }
}

/// Nobody listens to events of an embedded thread: they count as told.
fn told(mut thread: Thread) -> Thread {
    thread.told = thread.state.head.version;
    thread
}

/// An answer by the question's id, or for the one open question.
pub fn answers(value: Value, interrupt: Option<InterruptId>) -> Answers {
    Answers::of(value, interrupt)
}

/// A UUID of version 7 from a time and random bits.
pub(crate) fn uuid_v7(ms: u64, high: u64, low: u64) -> String {
    let bits = u128::from(ms & 0xffff_ffff_ffff) << 80
        | 0x7 << 76
        | u128::from(high & 0xfff) << 64
        | 0b10 << 62
        | u128::from(low & 0x3fff_ffff_ffff_ffff);
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
