//! A story: a thread's log told record by record, with the graph's part made up.
//!
//! Instead of a graph, the teller says how each node of a round ended and which nodes come
//! next. The delta of every superstep pushes the names of its nodes to the channel `log`, so
//! what was applied can be read back. Time is one second a record, nonces count up.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use superstep_graph::{
    ChannelChange, Delta, InterruptId, Namespace, START, Task, TaskId, TaskPath, Write,
};
use superstep_protocol::{
    Answers, AskMove, Base, Cancel, Closing, CommandRef, Dispatch, Event, GraphId, Head, Migrated,
    Nonce, Pause, Paused, Profile, Raised, Record, RecordBody, Refusal, Restored, Resume, RunError,
    Start, StateUpdate, Stop, Strategy, Superstep, TaskResult, Terms, ThreadId, ThreadState, Timer,
    UnixMillis, Updated, Verdict, close_with, decide, fold, rolls_back, sleep_name,
};

/// How a node ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    /// It returned.
    Done,
    /// It asks the questions with these indices.
    Asks(&'static [usize]),
    /// It failed.
    Fails,
    /// It returned and its path failed.
    PathFails,
    /// It sleeps so many milliseconds.
    Sleeps(u64),
    /// It failed, and is to be tried again after so many milliseconds.
    TriesAgain(u64),
    /// It asks its first question and sleeps so many milliseconds beside.
    AsksAndSleeps(u64),
}

#[derive(Clone)]
pub(crate) struct Story {
    pub(crate) thread: ThreadId,
    pub(crate) records: Vec<Record>,
    pub(crate) state: Option<ThreadState>,
    pub(crate) now: UnixMillis,
    pub(crate) profile: Profile,
    pub(crate) limit: u32,
    /// What the next records' nonces are made from.
    pub(crate) nonce: u64,
    /// Deadlines of questions, in milliseconds after they open.
    pub(crate) expire_ms: Option<u64>,
    /// Whether a breakpoint stops the next superstep.
    pub(crate) stop: Stop,
}

pub(crate) fn graph(name: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: "1".into(),
    }
}

/// A version of the stories' graph; they begin on 1.
pub(crate) fn version_of_g(version: &str) -> GraphId {
    GraphId {
        version: version.into(),
        ..graph("g")
    }
}

impl Story {
    pub(crate) fn new() -> Self {
        Self {
            thread: "t".into(),
            records: Vec::new(),
            state: None,
            now: UnixMillis(1_000_000),
            profile: Profile::Default,
            limit: 25,
            nonce: 0,
            expire_ms: None,
            stop: Stop::No,
        }
    }

    pub(crate) fn state(&self) -> &ThreadState {
        self.state.as_ref().unwrap()
    }

    pub(crate) fn command(&self, id: &str) -> CommandRef {
        CommandRef {
            id: id.into(),
            sent_at: self.now,
            sender: Some("ann".to_owned()),
            trace: None,
            tracestate: None,
        }
    }

    /// What the event calls for now.
    pub(crate) fn verdict(&self, event: &Event) -> Verdict {
        decide(&self.thread, self.state.as_ref(), event, self.now)
    }

    /// Appends what the event calls for.
    #[track_caller]
    pub(crate) fn happens(&mut self, event: &Event) -> &mut Self {
        match self.verdict(event) {
            Verdict::Append(body) => self.append(body),
            other => panic!("{event:?} calls for {other:?}"),
        }
    }

    /// Appends a record.
    #[track_caller]
    pub(crate) fn append(&mut self, body: RecordBody) -> &mut Self {
        self.nonce += 1;
        self.now = self.now.plus_ms(1_000);
        let head = Head {
            version: self.records.len() as u64 + 1,
            nonce: Nonce(self.nonce),
        };
        self.append_record(Record {
            head,
            time: self.now,
            told: 0,
            body,
            snapshot: None,
        })
    }

    #[track_caller]
    pub(crate) fn append_record(&mut self, record: Record) -> &mut Self {
        let state = fold(&self.thread, self.state.take(), &record).unwrap();
        self.state = Some(state);
        self.records.push(record);
        self
    }

    pub(crate) fn start_event(&self, id: &str, input: Value) -> Event {
        Event::Start(Box::new(Start {
            command: self.command(id),
            run: format!("run-{id}").into(),
            graph: graph("g"),
            topology: Some("t1".to_owned()),
            profile: self.profile,
            input,
            recursion_limit: self.limit,
            config: Map::new(),
            metadata: Map::new(),
            terms: Terms::default(),
            at: None,
            strategy: Strategy::Reject,
            not_before: None,
            before: None,
        }))
    }

    /// A start that says what becomes of a run that is not over.
    pub(crate) fn start_with(&self, id: &str, strategy: Strategy) -> Event {
        let mut event = self.start_event(id, json!({"topic": id}));
        if let Event::Start(start) = &mut event {
            start.strategy = strategy;
        }
        self.with_before(event)
    }

    /// The event with what the thread was before the run that it rolls back.
    pub(crate) fn with_before(&self, mut event: Event) -> Event {
        let Some(state) = &self.state else {
            return event;
        };
        let Some(version) = rolls_back(state, &event) else {
            return event;
        };
        let mut before = None;
        for record in self.records.iter().filter(|r| r.head.version <= version) {
            before = Some(fold(&self.thread, before, record).unwrap());
        }
        let restored = match &before {
            Some(before) if !before.deleted => Restored::of(before),
            _ => Restored::nothing(version, &state.incarnation),
        };
        match &mut event {
            Event::Start(start) => start.before = Some(Box::new(restored)),
            Event::Cancel(cancel) => cancel.before = Some(Box::new(restored)),
            _ => {}
        }
        event
    }

    /// A start that is to wait for a minute.
    pub(crate) fn start_later(&self, id: &str) -> Event {
        let mut event = self.start_with(id, Strategy::Enqueue);
        if let Event::Start(start) = &mut event {
            start.not_before = Some(self.now.plus_ms(60_000));
        }
        event
    }

    /// A worker begins the next run of the queue.
    #[track_caller]
    pub(crate) fn begin_next(&mut self) -> &mut Self {
        let dispatch = self.state().decision.as_ref().unwrap().dispatch;
        self.happens(&Event::NextRun {
            dispatch,
            refusal: None,
        })
    }

    #[track_caller]
    pub(crate) fn start(&mut self, id: &str) -> &mut Self {
        let event = self.start_event(id, json!({"topic": "x"}));
        self.happens(&event)
    }

    /// Takes the input and runs the start: the next tasks are `next`.
    #[track_caller]
    pub(crate) fn enter(&mut self, next: &[&str]) -> &mut Self {
        let event = self.input_taken();
        self.happens(&event);
        self.round(&[(START, End::Done)], next)
    }

    pub(crate) fn input_taken(&self) -> Event {
        let dispatch = self.state().decision.as_ref().unwrap().dispatch;
        let superstep = Ok(self.superstep(&[], &[START]));
        Event::InputTaken {
            dispatch,
            superstep,
        }
    }

    /// Ends the first open round: how its nodes ended, and what comes next if that completes
    /// the superstep.
    #[track_caller]
    pub(crate) fn round(&mut self, ends: &[(&str, End)], next: &[&str]) -> &mut Self {
        let dispatch = *self.state().rounds.keys().next().unwrap();
        self.round_of(dispatch, ends, next)
    }

    #[track_caller]
    pub(crate) fn round_of(
        &mut self,
        dispatch: Dispatch,
        ends: &[(&str, End)],
        next: &[&str],
    ) -> &mut Self {
        let event = self.round_ended(dispatch, ends, next);
        self.happens(&event)
    }

    pub(crate) fn round_ended(
        &self,
        dispatch: Dispatch,
        ends: &[(&str, End)],
        next: &[&str],
    ) -> Event {
        let results: BTreeMap<TaskId, TaskResult> = ends
            .iter()
            .map(|(node, end)| (self.task(node), self.result(node, *end)))
            .collect();
        let superstep = match close_with(self.state(), dispatch, &results) {
            Closing::Apply(writes) => {
                let applied: Vec<&str> = writes.iter().map(|(t, _)| t.node.as_str()).collect();
                Some(Ok(self.superstep(&applied, next)))
            }
            Closing::Late | Closing::Incomplete(_) | Closing::Park => None,
        };
        Event::RoundEnded {
            dispatch,
            results,
            superstep,
        }
    }

    pub(crate) fn result(&self, node: &str, end: End) -> TaskResult {
        let writes = vec![Write::set("log", json!([node]))];
        let error = || RunError {
            kind: "Error".to_owned(),
            message: format!("{node} failed"),
            node: Some(node.into()),
            task: Some(self.task(node)),
        };
        match end {
            End::Done => TaskResult::finished(writes),
            End::Asks(indices) => {
                TaskResult::interrupted(indices.iter().map(|index| self.raised(*index)).collect())
            }
            End::Fails => TaskResult::failed(error(), None),
            End::PathFails => TaskResult::failed(error(), Some(writes)),
            End::Sleeps(ms) => TaskResult::Paused(Box::new(self.sleeps(node, ms))),
            End::AsksAndSleeps(ms) => TaskResult::Paused(Box::new(Paused {
                raised: vec![self.raised(0)],
                ..self.sleeps(node, ms)
            })),
            End::TriesAgain(ms) => {
                let error = error();
                TaskResult::Paused(Box::new(Paused {
                    attempts: 1,
                    since: Some(self.now),
                    ..Paused::new(self.now.plus_ms(ms), Pause::Retry { error })
                }))
            }
        }
    }

    fn sleeps(&self, node: &str, ms: u64) -> Paused {
        let until = self.now.plus_ms(ms);
        let name = sleep_name(&self.task(node), 0);
        Paused {
            sleeps: BTreeMap::from([(name, until)]),
            ..Paused::new(until, Pause::Sleep)
        }
    }

    /// The timer of a node's task fires.
    pub(crate) fn timer_event(&self, node: &str) -> Event {
        let name = Timer::Task(self.task(node)).name();
        Event::TimerDue { name }
    }

    pub(crate) fn raised(&self, index: usize) -> Raised {
        Raised {
            index,
            id: None,
            payload: json!({"question": index}),
            expires_at: self.expire_ms.map(|ms| self.now.plus_ms(ms)),
        }
    }

    /// What the graph makes of the state: `applied` nodes are logged, `next` is planned.
    pub(crate) fn superstep(&self, applied: &[&str], next: &[&str]) -> Superstep {
        let state = self.state();
        let step = state.next_step();
        let lineage = state.next_lineage(step);
        let tasks = next
            .iter()
            .map(|node| Task {
                id: Task::id_of(
                    &lineage,
                    &Namespace::root(),
                    step + 1,
                    &(*node).into(),
                    &TaskPath::Pull,
                ),
                node: (*node).into(),
                path: TaskPath::Pull,
                triggers: Vec::new(),
                packet: None,
            })
            .collect();
        let mut delta = Delta::default();
        let names = applied.iter().map(|node| json!(node)).collect();
        delta
            .channels
            .insert("log".into(), ChannelChange::Push(names));
        Superstep {
            delta,
            tasks,
            lineage,
            output: true,
            stop: self.stop,
        }
    }

    /// The id of a task of the current superstep by its node.
    #[track_caller]
    pub(crate) fn task(&self, node: &str) -> TaskId {
        let state = self.state();
        let task = state.tasks.iter().find(|task| task.task.node == node);
        let task = task.unwrap_or_else(|| panic!("no task of {node}"));
        task.task.id.clone()
    }

    /// The id of a node's question.
    #[track_caller]
    pub(crate) fn question(&self, node: &str, index: usize) -> InterruptId {
        InterruptId::of(&self.task(node), index)
    }

    pub(crate) fn resume_event(&self, id: &str, answers: Answers) -> Event {
        Event::Resume(Box::new(Resume::new(
            self.command(id),
            format!("run-{id}").into(),
            answers,
        )))
    }

    /// Answers one question of a node by its id.
    #[track_caller]
    pub(crate) fn answer(&mut self, id: &str, node: &str, index: usize) -> &mut Self {
        let answers = BTreeMap::from([(self.question(node, index), json!(format!("to {node}")))]);
        let event = self.resume_event(id, Answers::ById(answers));
        self.happens(&event)
    }

    #[track_caller]
    pub(crate) fn cancel(&mut self, id: &str) -> &mut Self {
        let reason = Some("enough".to_owned());
        let event = Event::Cancel(Box::new(Cancel::new(self.command(id), reason)));
        self.happens(&event)
    }

    #[track_caller]
    pub(crate) fn retry(&mut self, id: &str) -> &mut Self {
        let event = Event::Retry {
            command: self.command(id),
            run: format!("run-{id}").into(),
            recursion_limit: None,
        };
        self.happens(&event)
    }

    #[track_caller]
    pub(crate) fn ask_update(&mut self, id: &str) -> &mut Self {
        let event = Event::Update(Box::new(StateUpdate::new(
            self.command(id),
            json!({"log": ["patched"]}),
            Some("a".into()),
        )));
        self.happens(&event)
    }

    pub(crate) fn update_applied(&self, next: &[&str]) -> Event {
        let dispatch = self.state().decision.as_ref().unwrap().dispatch;
        Event::UpdateApplied {
            dispatch,
            superstep: Ok(Box::new(Updated::new(
                "a".into(),
                self.superstep(&["update"], next),
            ))),
        }
    }

    #[track_caller]
    pub(crate) fn update(&mut self, id: &str, next: &[&str]) -> &mut Self {
        self.ask_update(id);
        let event = self.update_applied(next);
        self.happens(&event)
    }

    /// A command that updates the state, of the last checkpoint or another.
    pub(crate) fn command_event(&self, id: &str, at: Option<Base>) -> Event {
        let none = Answers::Plain(Value::Null);
        Event::Resume(Box::new(Resume {
            answers: None,
            update: json!({"log": ["patched"]}),
            at: at.map(Box::new),
            ..Resume::new(self.command(id), format!("run-{id}").into(), none)
        }))
    }

    #[track_caller]
    pub(crate) fn ask_command(&mut self, id: &str, at: Option<Base>) -> &mut Self {
        let event = self.command_event(id, at);
        self.happens(&event)
    }

    /// What a command makes of the checkpoint as it stands: a task of `node` beside what is there.
    pub(crate) fn amended(&self, node: &str) -> Superstep {
        let state = self.state();
        let (lineage, path) = (state.checkpoint.lineage.clone(), TaskPath::Pull);
        let added = Task {
            id: Task::id_of(
                &lineage,
                &Namespace::root(),
                state.next_step(),
                &node.into(),
                &path,
            ),
            node: node.into(),
            path,
            triggers: Vec::new(),
            packet: None,
        };
        let there = state.tasks.iter().map(|task| task.task.clone());
        Superstep {
            tasks: there.chain([added]).collect(),
            lineage,
            ..self.superstep(&["command"], &[])
        }
    }

    #[track_caller]
    pub(crate) fn command_applied(&mut self, node: &str) -> &mut Self {
        let dispatch = self.state().decision.as_ref().unwrap().dispatch;
        let event = Event::CommandApplied {
            dispatch,
            superstep: Ok(self.amended(node)),
        };
        self.happens(&event)
    }

    /// Another version of the graph is to take the thread over.
    pub(crate) fn move_event(&self, version: &str, command: Option<&str>) -> Event {
        Event::Move(Box::new(AskMove {
            to: version_of_g(version),
            topology: Some(format!("t{version}")),
            command: command.map(|id| self.command(id)),
            results: BTreeMap::new(),
        }))
    }

    #[track_caller]
    pub(crate) fn ask_move(&mut self, version: &str, command: Option<&str>) -> &mut Self {
        let event = self.move_event(version, command);
        self.happens(&event)
    }

    /// What a worker of `version` says: it takes the thread, or its graph has no node `a`.
    pub(crate) fn move_made(&self, version: &str, takes: bool) -> Event {
        let to = version_of_g(version);
        let state = self.state.as_ref();
        let decision = state.and_then(|state| state.decision.as_ref());
        let lost = Head {
            version: 1,
            nonce: Nonce(0xdead),
        };
        let moved = Migrated {
            graph: to.clone(),
            topology: Some(format!("t{version}")),
            delta: Delta::default(),
        };
        Event::MoveMade {
            dispatch: decision.map_or(lost, |decision| decision.dispatch),
            moved: Some(moved)
                .filter(|_| takes)
                .ok_or_else(|| Refusal::MissingNode {
                    thread: self.thread.clone(),
                    node: "a".into(),
                    from: graph("g"),
                    to,
                }),
        }
    }

    #[track_caller]
    pub(crate) fn make_move(&mut self, version: &str, takes: bool) -> &mut Self {
        let event = self.move_made(version, takes);
        self.happens(&event)
    }

    /// The last checkpoint, or the one before the first superstep, as something to go on from.
    pub(crate) fn base(&self, last: bool) -> Option<Base> {
        let state = self.state.as_ref()?;
        let mut saved = state.saved?;
        if !last {
            saved.0 = self.records[0].head;
        }
        Some(Base {
            saved,
            checkpoint: state.checkpoint.clone(),
            tasks: state.tasks.iter().map(|task| task.task.clone()).collect(),
        })
    }

    #[track_caller]
    pub(crate) fn delete(&mut self, id: &str) -> &mut Self {
        let event = Event::Delete {
            command: self.command(id),
        };
        self.happens(&event)
    }

    #[track_caller]
    pub(crate) fn deadline(&mut self, node: &str, index: usize) -> &mut Self {
        let event = Event::DeadlineReached {
            interrupt: self.question(node, index),
        };
        self.now = self.now.plus_ms(self.expire_ms.unwrap());
        self.happens(&event)
    }

    pub(crate) fn last(&self) -> &Record {
        self.records.last().unwrap()
    }

    /// What was applied so far.
    pub(crate) fn log(&self) -> Value {
        let log = self.state().checkpoint.content("log");
        log.cloned().unwrap_or(json!([]))
    }
}
