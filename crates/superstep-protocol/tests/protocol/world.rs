//! Several writers compete for one thread, each with a view that may be stale.
//!
//! Writers act on what they last saw, lose answers, repeat themselves, and bring results late;
//! the store steps back. After every step `invariants` are checked on what the log then says.
//!
//! Every write says which task and which round it came from, so what was applied can be traced.

mod commands;

use std::collections::BTreeMap;

use serde_json::{Value, json};
use superstep_graph::{
    ChannelChange, Delta, InterruptId, Namespace, START, Task, TaskId, TaskPath, Write,
};
use superstep_protocol::{
    Answers, Asked, Closing, CommandId, CommandRef, Dispatch, Event, Head, Migrated, Nonce,
    Obligation, Pause, Paused, Profile, Raised, Record, Refusal, Restored, Resume, RunError,
    StateUpdate, Stop, Superstep, TaskResult, ThreadId, ThreadState, Timer, UnixMillis, Updated,
    Verdict, close_with, decide, fold, obligations, rolls_back, sleep_name, timers,
};

use crate::{
    invariants::{check_applied, check_log, check_runs, check_state},
    toy_store::{Append, Appended, Store},
};

/// Someone who acts on the thread.
#[derive(Clone, Default)]
struct Writer {
    view: Option<ThreadState>,
    /// An append whose answer was lost.
    unsure: Option<Append>,
    /// What it computed before: to be brought again, late.
    done: Vec<(Dispatch, TaskId, TaskResult)>,
}

/// One step of a walk; `pick` chooses among what there is.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Act {
    /// Look at the thread.
    Look,
    /// Do what the view owes: run tasks, some of them, and close.
    Work {
        pick: u8,
        some: u8,
        draw: u64,
    },
    Command {
        kind: u8,
        pick: u8,
    },
    /// A command is delivered again.
    Redeliver {
        pick: u8,
    },
    /// An append whose answer was lost is sent again.
    Resend,
    /// A result that was computed before is brought again, and its round closed with it.
    Late {
        pick: u8,
    },
    /// The store loses its last records.
    StepBack {
        records: u8,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Step {
    pub(crate) writer: u8,
    pub(crate) act: Act,
    /// Whether the answer of an append is lost.
    pub(crate) lost: bool,
}

pub(crate) struct World {
    thread: ThreadId,
    pub(crate) store: Store,
    /// The store after each change, to step back to.
    past: Vec<Store>,
    writers: Vec<Writer>,
    commands: Vec<Event>,
    now: UnixMillis,
    nonce: u64,
    profile: Profile,
    /// Whether nodes may fail.
    pub(crate) failures: bool,
}

/// What runs after the superstep of `step`: p, w and q ask questions, n does not.
fn next_nodes(step: i64) -> &'static [&'static str] {
    match step.rem_euclid(5) {
        0 => &["n", "p"],
        1 => &["n", "q", "w"],
        2 => &["p"],
        3 => &["n"],
        _ => &[],
    }
}

impl World {
    pub(crate) fn new(writers: usize, profile: Profile) -> Self {
        Self {
            thread: "t".into(),
            store: Store::default(),
            past: vec![Store::default()],
            writers: vec![Writer::default(); writers],
            commands: Vec::new(),
            now: UnixMillis(1_000),
            nonce: 0,
            profile,
            failures: true,
        }
    }

    pub(crate) fn step(&mut self, step: Step) {
        self.now = self.now.plus_ms(10);
        let writer = usize::from(step.writer) % self.writers.len();
        match step.act {
            Act::Look => self.look(writer),
            Act::Work { pick, some, draw } => self.work(writer, pick, some, draw, step.lost),
            Act::Command { kind, pick } => {
                if let Some(event) = self.command(writer, kind, pick) {
                    self.commands.push(event.clone());
                    self.decide(writer, &event, step.lost);
                }
            }
            Act::Redeliver { pick } => {
                if let Some(at) = chosen(self.commands.len(), pick) {
                    let event = self.commands[at].clone();
                    self.decide(writer, &event, step.lost);
                }
            }
            Act::Resend => {
                if let Some(append) = self.writers[writer].unsure.take() {
                    self.append(writer, &append, step.lost);
                }
            }
            Act::Late { pick } => self.bring_late(writer, pick),
            Act::StepBack { records } => self.step_back(records),
        }
        self.check();
    }

    fn look(&mut self, writer: usize) {
        self.writers[writer].view.clone_from(&self.store.state);
    }

    /// Decides on the writer's view; on a moved head it looks and decides once more.
    fn decide(&mut self, writer: usize, event: &Event, lost: bool) {
        let command = command_of(event);
        for _ in 0..2 {
            if command.is_some_and(|id| self.store.outcomes.contains_key(id)) {
                return;
            }
            let view = self.writers[writer].view.clone();
            let event = &self.with_before(view.as_ref(), event);
            let body = match decide(&self.thread, view.as_ref(), event, self.now) {
                Verdict::Append(body) => body,
                Verdict::Refuse(refusal) => {
                    // Remembered before it is told.
                    if let Some(id) = command {
                        let kept = self.store.outcomes.entry(id.clone());
                        kept.or_insert_with(|| refusal.kind().to_owned());
                        self.past.push(self.store.clone());
                    }
                    return;
                }
                Verdict::Known(_) | Verdict::Nothing(_) | Verdict::Wait => return,
            };
            self.nonce += 1;
            let append = Append {
                after: view.as_ref().map(|view| view.head),
                record: Record {
                    head: Head {
                        version: view.as_ref().map_or(1, |view| view.head.version + 1),
                        nonce: Nonce(self.nonce),
                    },
                    time: view.map_or(self.now, |view| self.now.max(view.time)),
                    told: 0,
                    body,
                    snapshot: None,
                },
                command: command.cloned(),
            };
            if self.append(writer, &append, lost) {
                return;
            }
            self.look(writer);
            // What a worker computed was for another state: it computes again, by `work`.
            if command.is_none() {
                return;
            }
        }
    }

    /// The event with what the thread was before the run that it rolls back.
    fn with_before(&self, view: Option<&ThreadState>, event: &Event) -> Event {
        let mut event = event.clone();
        let Some((view, version)) = view.and_then(|view| Some((view, rolls_back(view, &event)?)))
        else {
            return event;
        };
        let mut state = None;
        let records = self.store.log.iter();
        for record in records.take_while(|record| record.head.version <= version) {
            state = Some(fold(&self.thread, state, record).expect("the log folds"));
        }
        let restored = match &state {
            Some(state) if !state.deleted => Restored::of(state),
            _ => Restored::nothing(version, &view.incarnation),
        };
        match &mut event {
            Event::Start(start) => start.before = Some(Box::new(restored)),
            Event::Cancel(cancel) => cancel.before = Some(Box::new(restored)),
            _ => {}
        }
        event
    }

    /// Whether the append is over for the writer, as far as it knows.
    fn append(&mut self, writer: usize, append: &Append, lost: bool) -> bool {
        let appended = self.store.append(&self.thread, append);
        if let Appended::Done = appended {
            self.past.push(self.store.clone());
        }
        if lost {
            self.writers[writer].unsure = Some(append.clone());
            return true;
        }
        match appended {
            Appended::Done => {
                self.look(writer);
                true
            }
            Appended::Decided => true,
            Appended::Moved => false,
        }
    }

    fn work(&mut self, writer: usize, pick: u8, some: u8, draw: u64, lost: bool) {
        let Some(view) = self.writers[writer].view.clone() else {
            return self.look(writer);
        };
        let owed: Vec<(Dispatch, Vec<TaskId>)> = work_of(&view);
        let Some(at) = chosen(owed.len(), pick) else {
            return self.look(writer);
        };
        let (dispatch, tasks) = owed[at].clone();
        if tasks.is_empty() {
            let asked = &view.decision.as_ref().expect("work without tasks").asked;
            let event = match asked {
                Asked::Input { .. } => Event::InputTaken {
                    dispatch,
                    superstep: if self.fails(draw, 16) {
                        Err(error("input"))
                    } else {
                        Ok(superstep(&view, &[], &[START]))
                    },
                },
                Asked::Update { .. } => Event::UpdateApplied {
                    dispatch,
                    superstep: if self.fails(draw, 4) {
                        Err("no".to_owned())
                    } else {
                        Ok(Box::new(Updated::new(
                            "n".into(),
                            superstep(&view, &[], &["p", "n"]),
                        )))
                    },
                },
                Asked::Command(_) => Event::CommandApplied {
                    dispatch,
                    superstep: if self.fails(draw, 4) {
                        Err("no".to_owned())
                    } else {
                        Ok(amended(&view))
                    },
                },
                Asked::Next => Event::NextRun {
                    dispatch,
                    refusal: None,
                },
                Asked::Move(asked) => Event::MoveMade {
                    dispatch,
                    moved: if self.fails(draw, 3) {
                        Err(Refusal::MissingNode {
                            thread: self.thread.clone(),
                            node: "n".into(),
                            from: view.graph.clone(),
                            to: asked.to.clone(),
                        })
                    } else {
                        Ok(Migrated {
                            graph: asked.to.clone(),
                            topology: None,
                            delta: Delta::default(),
                        })
                    },
                },
                Asked::Close => self.closing(&view, dispatch, BTreeMap::new(), draw),
            };
            return self.decide(writer, &event, lost);
        }
        for (at, task) in tasks.iter().enumerate() {
            if tasks.len() > 1 && some >> (at % 8) & 1 == 0 {
                continue;
            }
            let result = self.run(
                &view,
                task,
                dispatch,
                draw.rotate_left(7 * u32::try_from(at).unwrap()),
            );
            self.writers[writer]
                .done
                .push((dispatch, task.clone(), result.clone()));
            let Some(there) = self.store.put(dispatch, task, result) else {
                return self.look(writer);
            };
            self.past.push(self.store.clone());
            if there.len() >= tasks.len() {
                let event = self.closing(&view, dispatch, there, draw);
                return self.decide(writer, &event, lost);
            }
        }
    }

    fn fails(&self, draw: u64, one_in: u64) -> bool {
        self.failures && draw.is_multiple_of(one_in)
    }

    /// What a node does, with the answers that its view has.
    fn run(&self, view: &ThreadState, task: &TaskId, round: Dispatch, draw: u64) -> TaskResult {
        let state = view.task(task).expect("a task of the view");
        let answers = state.answers();
        let answered = |index: usize| answers.get(index).is_some_and(Option::is_some);
        let wanted: &[usize] = match state.task.node.as_str() {
            "p" => &[0],
            "q" | "w" => &[0, 1],
            _ => &[],
        };
        let mut missing: Vec<usize> = wanted.iter().copied().filter(|i| !answered(*i)).collect();
        if state.task.node == "q" {
            missing.truncate(1);
        }
        let writes = vec![Write::set(
            "log",
            json!({"task": task, "round": round, "answers": answers}),
        )];
        if self.fails(draw, 7) {
            let writes = draw.is_multiple_of(2).then_some(writes);
            return TaskResult::failed(error("node"), writes);
        }
        let name = sleep_name(task, 0);
        let sleeps = draw.is_multiple_of(3) && state.sleeps.is_empty();
        let tries_again = self.failures && state.attempts < 2 && draw.is_multiple_of(13);
        let slept = state.sleeps.get(&name).copied().unwrap_or(self.now);
        if tries_again || sleeps || slept > self.now {
            let until = slept.max(self.now.plus_ms(50));
            return TaskResult::Paused(Box::new(if tries_again {
                let error = error("node");
                Paused {
                    attempts: state.attempts + 1,
                    since: Some(self.now),
                    ..Paused::new(until, Pause::Retry { error })
                }
            } else {
                let until = if sleeps { until } else { slept };
                let missing = missing.first().filter(|_| draw.is_multiple_of(2));
                Paused {
                    sleeps: BTreeMap::from([(name, until)]),
                    raised: missing
                        .map(|index| asks(*index, None))
                        .into_iter()
                        .collect(),
                    ..Paused::new(until, Pause::Sleep)
                }
            }));
        }
        if missing.is_empty() {
            return TaskResult::finished(writes);
        }
        let expires_at = draw.is_multiple_of(5).then(|| self.now.plus_ms(100));
        let asked = missing.into_iter().map(|index| asks(index, expires_at));
        TaskResult::interrupted(asked.collect())
    }

    fn closing(
        &self,
        view: &ThreadState,
        dispatch: Dispatch,
        results: BTreeMap<TaskId, TaskResult>,
        draw: u64,
    ) -> Event {
        let superstep = match close_with(view, dispatch, &results) {
            Closing::Apply(_) if self.fails(draw, 11) => Some(Err(error("apply"))),
            Closing::Apply(writes) => {
                let applied: Vec<Value> = writes
                    .iter()
                    .flat_map(|(_, writes)| writes.iter())
                    .map(|write| write.value.value().clone())
                    .collect();
                Some(Ok(superstep(view, &applied, next_nodes(view.next_step()))))
            }
            Closing::Late | Closing::Incomplete(_) | Closing::Park => None,
        };
        Event::RoundEnded {
            dispatch,
            results,
            superstep,
        }
    }

    fn bring_late(&mut self, writer: usize, pick: u8) {
        let Some(at) = chosen(self.writers[writer].done.len(), pick) else {
            return;
        };
        let (round, task, result) = self.writers[writer].done[at].clone();
        if let Some(there) = self.store.put(round, &task, result.clone()) {
            // Whoever was first stays; this one may be the last that was missing.
            self.look(writer);
            let view = self.writers[writer]
                .view
                .clone()
                .expect("the round is open");
            let event = self.closing(&view, round, there, 1);
            return self.decide(writer, &event, false);
        }
        // The writer does not care and asks to close with what it has in hand.
        if let Some(view) = self.writers[writer].view.clone() {
            let event = self.closing(&view, round, BTreeMap::from([(task, result)]), 1);
            self.decide(writer, &event, false);
        }
    }

    fn step_back(&mut self, records: u8) {
        let keep = self.store.log.len().saturating_sub(usize::from(records));
        while self.past.len() > 1 && self.past.last().is_some_and(|past| past.log.len() > keep) {
            self.past.pop();
        }
        self.store = self.past.last().cloned().unwrap_or_default();
    }

    /// Someone cares for the thread until nothing is left to do: works, answers, retries.
    pub(crate) fn heal(&mut self) {
        self.failures = false;
        self.writers = vec![Writer::default()];
        for _ in 0..300 {
            self.now = self.now.plus_ms(1_000);
            self.look(0);
            let Some(view) = self.store.state.clone().filter(|state| !state.deleted) else {
                return;
            };
            let asks: Vec<InterruptId> = view.open_questions().map(|(_, q)| q.id.clone()).collect();
            let command = CommandRef {
                id: format!("heal{}", self.now.0).into(),
                sent_at: self.now,
                sender: None,
                trace: None,
                tracestate: None,
            };
            let run = format!("heal{}", self.now.0).into();
            let event = if view.has_work() {
                self.work(0, 0, 0xff, 1, false);
                self.check();
                continue;
            } else if let Some(expired) = view
                .open_questions()
                .find(|(_, q)| q.expires_at.is_some_and(|at| at <= self.now))
            {
                Event::DeadlineReached {
                    interrupt: expired.1.id.clone(),
                }
            } else if let Some((name, _)) =
                timers(&view).into_iter().find(|(_, at)| *at <= self.now)
            {
                Event::TimerDue { name }
            } else if view.spoiled.is_some() {
                // Only another checkpoint helps.
                Event::Update(Box::new(StateUpdate::new(command, json!({}), None)))
            } else if let Some(id) = asks.first() {
                let answers = Answers::ById(BTreeMap::from([(id.clone(), json!(1))]));
                Event::Resume(Box::new(Resume::new(command, run, answers)))
            } else if let Some((_, not_before)) = view.delayed().next() {
                self.now = self.now.max(not_before);
                let run = view.next_queued(self.now).expect("one is due").run.clone();
                Event::TimerDue {
                    name: Timer::Start(run).name(),
                }
            } else if view.tasks.is_empty() {
                return;
            } else {
                Event::Retry {
                    command,
                    run,
                    recursion_limit: None,
                }
            };
            let before = self.store.log.len();
            self.decide(0, &event, false);
            assert!(
                self.store.log.len() > before,
                "{event:?} leads nowhere from {view:#?}"
            );
            self.check();
        }
        panic!(
            "the thread does not come to an end: {:#?}",
            self.store.state
        );
    }

    fn check(&self) {
        check_log(&self.store.log);
        if let Some(state) = &self.store.state {
            check_state(state);
            check_applied(&self.store.log, state);
        }
    }

    /// A reader who begins at the first record comes to the same state.
    pub(crate) fn read_again(&self) {
        let mut state = None;
        for record in &self.store.log {
            state = Some(fold(&self.thread, state, record).expect("the log folds"));
        }
        assert_eq!(state, self.store.state);
        check_runs(&self.thread, &self.store.log);
    }
}

fn chosen(count: usize, pick: u8) -> Option<usize> {
    (count > 0).then(|| usize::from(pick) % count)
}

fn asks(index: usize, expires_at: Option<UnixMillis>) -> Raised {
    Raised {
        index,
        id: None,
        payload: json!(index),
        expires_at,
    }
}

fn error(what: &str) -> RunError {
    RunError {
        kind: "Error".to_owned(),
        message: format!("{what} failed"),
        node: None,
        task: None,
    }
}

fn command_of(event: &Event) -> Option<&CommandId> {
    match event {
        Event::Start(start) => Some(&start.command.id),
        Event::Resume(resume) => Some(&resume.command.id),
        Event::Update(update) => Some(&update.command.id),
        Event::Cancel(cancel) => Some(&cancel.command.id),
        Event::Retry { command, .. } | Event::Delete { command } => Some(&command.id),
        _ => None,
    }
}

pub(crate) fn work_of(state: &ThreadState) -> Vec<(Dispatch, Vec<TaskId>)> {
    obligations(state)
        .into_iter()
        .filter_map(|owed| match owed {
            Obligation::Work { dispatch, tasks } => Some((dispatch, tasks)),
            Obligation::Events { .. } => None,
        })
        .collect()
}

/// What a command makes of the checkpoint as it stands: what was there, and one task more.
fn amended(state: &ThreadState) -> Superstep {
    let lineage = state.checkpoint.lineage.clone();
    let (ns, path) = (Namespace::root(), TaskPath::Pull);
    let (node, step) = ("beside".into(), state.next_step());
    let beside = Task {
        id: Task::id_of(&lineage, &ns, step, &node, &path),
        node,
        path,
        triggers: Vec::new(),
        packet: None,
    };
    let mut tasks: Vec<Task> = state.tasks.iter().map(|task| task.task.clone()).collect();
    if !tasks.contains(&beside) {
        tasks.push(beside);
    }
    Superstep {
        delta: Delta::default(),
        tasks,
        lineage,
        output: false,
        stop: Stop::No,
    }
}

fn superstep(state: &ThreadState, applied: &[Value], next: &[&str]) -> Superstep {
    let step = state.next_step();
    let lineage = state.next_lineage(step);
    let task = |node: &str| {
        let (ns, path) = (Namespace::root(), TaskPath::Pull);
        Task {
            id: Task::id_of(&lineage, &ns, step + 1, &node.into(), &path),
            node: node.into(),
            path,
            triggers: Vec::new(),
            packet: None,
        }
    };
    let tasks = next.iter().map(|node| task(node)).collect();
    let mut delta = Delta::default();
    delta
        .channels
        .insert("log".into(), ChannelChange::Push(applied.to_vec()));
    Superstep {
        delta,
        tasks,
        lineage,
        output: true,
        stop: Stop::No,
    }
}
