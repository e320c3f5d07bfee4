//! The invariants, looked at after every append, unwatch, ack and reply.
//!
//! It keeps the fold of every record that was ever appended, by its head, so that a store that
//! steps back only makes later appends begin at an older one. What it finds wrong is collected:
//! a panic would be lost in the task of a worker.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use futures_util::FutureExt;
use serde_json::{Value, json};
use superstep_checkpoint::{
    Error, InterruptQuery, StoredRecord, ThreadLog, ThreadQuery, memory::MemoryLog,
};
use superstep_graph::{InterruptId, START, Source};
use superstep_protocol::{
    CommandId, Dispatch, Head, Obligation, Record, RecordBody, ThreadId, ThreadState, UnixMillis,
    events, fold, obligations,
};
use superstep_queue::{CommandKind, DeliveryBody, EventMessage, Headers, header};
use superstep_wire::{Outcome, decode, record};

use crate::{
    graphs::INSIDE,
    log::Store,
    plan::{Faults, lock},
};

/// How often a message may be handed over; a command that came early is, many times.
const ATTEMPTS_MAX: u64 = 150;

/// What is known of a thread at one of its heads.
struct Chain {
    state: ThreadState,
    answered: BTreeSet<InterruptId>,
    commands: BTreeMap<CommandId, Head>,
    /// The ids of all events that its records ever made, with the version of their record.
    events: Vec<(u64, String)>,
}

/// What a check may not ask of a test.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lenient {
    /// The store steps back: what was told may be gone.
    pub(crate) steps_back: bool,
    /// The work stream may be full: work that is owed is acked.
    pub(crate) full: bool,
}

/// What all checks of one test share.
pub(crate) struct Check {
    store: Arc<Store>,
    faults: Arc<Faults>,
    lenient: Lenient,
    chains: Mutex<HashMap<(ThreadId, Head), Arc<Chain>>>,
    /// Events in their stream: their kinds by id.
    told: Mutex<BTreeMap<String, String>>,
    refusals_told: Mutex<BTreeSet<(ThreadId, CommandId)>>,
    replies: Mutex<BTreeMap<(String, String), Value>>,
    wrong: Mutex<Vec<String>>,
}

/// The in-memory log never waits.
fn now<T>(call: impl Future<Output = Result<T, Error>>) -> T {
    call.now_or_never()
        .expect("the memory log does not wait")
        .unwrap()
}

impl Check {
    pub(crate) fn new(store: &Arc<Store>, faults: &Arc<Faults>, lenient: Lenient) -> Self {
        Self {
            store: Arc::clone(store),
            faults: Arc::clone(faults),
            lenient,
            chains: Mutex::default(),
            told: Mutex::default(),
            refusals_told: Mutex::default(),
            replies: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    fn log(&self) -> &MemoryLog {
        &self.store.log
    }

    pub(crate) fn wrong(&self, what: impl Into<String>) {
        let what = what.into();
        self.faults.note(&format!("!! {what}"));
        lock(&self.wrong).push(what);
    }

    /// Fails the test with everything that was found wrong so far.
    #[track_caller]
    pub(crate) fn assert_nothing_wrong(&self) {
        let wrong = lock(&self.wrong);
        assert!(
            wrong.is_empty(),
            "{}\n--- what happened ---\n{}",
            wrong.join("\n"),
            self.faults.story()
        );
    }

    fn chain(&self, thread: &ThreadId, head: Head) -> Option<Arc<Chain>> {
        lock(&self.chains).get(&(thread.clone(), head)).cloned()
    }

    /// A message is handed over again and again: whoever gets it fails, or panics.
    pub(crate) fn handed_over(&self, name: &str, attempt: u64) {
        if attempt == ATTEMPTS_MAX {
            self.wrong(format!("{name} is handed over {attempt} times"));
        }
    }

    /// The state of a thread as it is in the store.
    pub(crate) fn state(&self, thread: &ThreadId) -> Option<ThreadState> {
        self.current(thread).map(|chain| chain.state.clone())
    }

    fn current(&self, thread: &ThreadId) -> Option<Arc<Chain>> {
        let head = now(self.log().head(thread))?;
        self.chain(thread, head)
    }

    fn read(&self, thread: &ThreadId, stored: &StoredRecord) -> Record {
        let decoded = record::decode(&stored.bytes).unwrap();
        let ids = decoded.blob_ids();
        let bytes = now(self.log().blobs(thread, &ids));
        decoded
            .resolve(&ids.into_iter().zip(bytes).collect())
            .unwrap()
    }

    /// A record is in the log, just now or again.
    pub(crate) fn appended(&self, thread: &ThreadId, after: Option<Head>, stored: &StoredRecord) {
        if self.chain(thread, stored.head).is_some() {
            return;
        }
        let before = after.map(|head| self.chain(thread, head));
        let before = match before {
            Some(None) => {
                return self.wrong(format!("{thread}: {} follows nobody's head", stored.head));
            }
            before => before.flatten(),
        };
        let mut record = self.read(thread, stored);
        let snapshot = record.snapshot.take();
        let state = match fold(thread, before.as_ref().map(|b| b.state.clone()), &record) {
            Ok(state) => state,
            Err(error) => return self.wrong(error.to_string()),
        };
        if snapshot.is_some_and(|snapshot| *snapshot != state) {
            self.wrong(format!(
                "{thread}: the snapshot in {} is not the fold",
                record.head
            ));
        }
        let mut chain = match before {
            None => Chain {
                state: state.clone(),
                answered: BTreeSet::new(),
                commands: BTreeMap::new(),
                events: Vec::new(),
            },
            Some(before) => {
                self.check_step(&before, &record, &state);
                Chain {
                    state: state.clone(),
                    answered: before.answered.clone(),
                    commands: before.commands.clone(),
                    events: before.events.clone(),
                }
            }
        };
        self.note_command(thread, &mut chain, &record);
        let made = events(&record, &state);
        chain.events.extend(
            made.into_iter()
                .map(|event| (record.head.version, event.id)),
        );
        self.check_index(thread, &state);
        lock(&self.chains).insert((thread.clone(), record.head), Arc::new(chain));
    }

    /// What one record may do to the state before it.
    fn check_step(&self, before: &Chain, record: &Record, state: &ThreadState) {
        let thread = &state.thread;
        let told = lock(&self.told);
        let claimed = before.events.iter().filter(|(v, _)| *v <= record.told);
        for (version, id) in claimed {
            if !told.contains_key(id) {
                drop(told);
                return self.wrong(format!(
                    "{thread}: {} says that event {id} of v{version} was told, and it was not",
                    record.head
                ));
            }
        }
        drop(told);
        if let RecordBody::Committed(committed) = &record.body
            && committed.source == Source::Loop
        {
            let log = |state: &ThreadState| -> Vec<Value> {
                let log = state.checkpoint.values.get("log");
                log.and_then(Value::as_array).cloned().unwrap_or_default()
            };
            let written = log(state).split_off(log(&before.state).len());
            let is_inside = |entry: &Value| {
                let node = entry["node"].as_str();
                node.is_some_and(|node| node.starts_with(INSIDE))
            };
            let (inside, written): (Vec<_>, Vec<_>) = written.into_iter().partition(is_inside);
            let (calls, tasks): (Vec<_>, Vec<_>) = before
                .state
                .tasks
                .iter()
                .filter(|task| task.task.node != START)
                .partition(|task| task.task.node == "inner");
            // What was answered inside is in the log once, and is what the call was answered.
            let used: Vec<&Value> = inside
                .iter()
                .flat_map(|entry| entry["answers"].as_array().into_iter().flatten())
                .collect();
            let answered: Vec<&Value> = calls
                .iter()
                .flat_map(|task| &task.questions)
                .filter_map(|question| Some(&question.answer.as_ref()?.value))
                .collect();
            if used != answered || inside.len() != 3 * calls.len() {
                self.wrong(format!(
                    "{thread}: {} applied {} of a subgraph, which was answered {answered:?}",
                    record.head,
                    Value::from(inside.clone()),
                ));
            }
            let expected: Vec<Value> = tasks
                .into_iter()
                .map(|task| {
                    json!({
                        "node": task.task.node, "task": task.task.id, "answers": task.answers(),
                    })
                })
                .collect();
            if written != expected {
                self.wrong(format!(
                    "{thread}: {} applied {} and its tasks and answers are {}",
                    record.head,
                    Value::from(written),
                    Value::from(expected),
                ));
            }
        }
    }

    fn note_command(&self, thread: &ThreadId, chain: &mut Chain, record: &Record) {
        let (RecordBody::Started { command, .. }
        | RecordBody::Resumed { command, .. }
        | RecordBody::Retried { command, .. }
        | RecordBody::UpdateAsked { command, .. }
        | RecordBody::Cancelled { command, .. }
        | RecordBody::Deleted { command, .. }) = &record.body
        else {
            return;
        };
        if let Some(first) = chain.commands.insert(command.id.clone(), record.head) {
            let id = &command.id;
            self.wrong(format!(
                "{thread}: {id} is in {first} and again in {}",
                record.head
            ));
        }
        if let RecordBody::Resumed { answers, .. } = &record.body {
            for id in answers.keys() {
                if !chain.answered.insert(id.clone()) {
                    self.wrong(format!("{thread}: question {id} is answered twice"));
                }
            }
        }
    }

    /// The indexes say what the state says.
    fn check_index(&self, thread: &ThreadId, state: &ThreadState) {
        let query = ThreadQuery {
            status: None,
            graph: None,
            limit: 1000,
            after: None,
        };
        let rows = now(self.log().threads(&query)).rows;
        let row = rows.into_iter().find(|(id, _)| id == thread);
        let row = row.map(|(_, row)| (row.status, row.graph, row.updated_at));
        let listed = (!state.deleted).then(|| (state.status(), state.graph.clone(), state.time));
        if row != listed {
            self.wrong(format!("{thread}: is listed as {row:?} and is {listed:?}"));
        }
        let query = InterruptQuery {
            thread: Some(thread.clone()),
            limit: 1000,
            after: None,
        };
        let rows = now(self.log().interrupts(&query)).rows;
        let open: BTreeSet<_> = rows.into_iter().map(|(_, row)| row.id).collect();
        let asked: BTreeSet<_> = state.open_questions().map(|(_, q)| q.id.clone()).collect();
        if open != asked {
            self.wrong(format!(
                "{thread}: the index has {open:?} open, the state {asked:?}"
            ));
        }
        let watched = now(self
            .log()
            .watched(UnixMillis(0), UnixMillis(u64::MAX), 1000));
        let watched = watched.iter().find(|entry| entry.thread == *thread);
        let owes = !state.deleted && !obligations(state).is_empty();
        if watched.map(|entry| entry.head) != owes.then_some(state.head) {
            self.wrong(format!("{thread}: watched {watched:?}, and owes is {owes}"));
        }
    }

    /// A thread left the watch index.
    pub(crate) fn unwatched(&self, thread: &ThreadId, head: Head) {
        let Some(chain) = self.chain(thread, head) else {
            return self.wrong(format!("{thread}: unwatched by {head}, which is in no log"));
        };
        let works = obligations(&chain.state);
        if works.iter().any(|o| matches!(o, Obligation::Work { .. })) {
            self.wrong(format!("{thread}: unwatched at {head}, and owes {works:?}"));
        }
        self.check_told(thread, &chain);
    }

    fn check_told(&self, thread: &ThreadId, chain: &Chain) {
        let told = lock(&self.told);
        let untold: Vec<_> = chain
            .events
            .iter()
            .filter(|(_, id)| !told.contains_key(id))
            .collect();
        let missing = (!untold.is_empty()).then(|| format!("{thread}: never told: {untold:?}"));
        drop(told);
        if let Some(missing) = missing {
            self.wrong(missing);
        }
    }

    /// The ids of the events of a kind that are in their stream.
    pub(crate) fn events_of(&self, kind: &str) -> Vec<String> {
        let told = lock(&self.told);
        let of_kind = told.iter().filter(|(_, told)| *told == kind);
        of_kind.map(|(id, _)| id.clone()).collect()
    }

    /// Events are in their stream.
    pub(crate) fn told(&self, messages: &[EventMessage]) {
        for message in messages {
            let id = message.headers[header::MSG_ID].clone();
            let event = decode::event(&message.body).unwrap();
            if let (Some(command), None) = (&event.command_id, &event.record) {
                let thread = ThreadId::new(event.thread_id.as_str());
                lock(&self.refusals_told).insert((thread, command.as_str().into()));
            }
            lock(&self.told).insert(id, message.kind.clone());
        }
    }

    fn refusal_is_told(&self, thread: &ThreadId, id: &CommandId) -> bool {
        lock(&self.refusals_told).contains(&(thread.clone(), id.clone()))
    }

    /// The sender of a command is told its outcome: always the same one.
    pub(crate) fn replied(&self, body: &[u8]) {
        let reply = decode::reply(body).unwrap();
        if self.lenient.steps_back {
            return;
        }
        let key = (
            reply.thread_id.clone().unwrap_or_default(),
            reply.command_id.clone(),
        );
        let said = serde_json::from_slice::<Value>(body).unwrap();
        let first = lock(&self.replies)
            .entry(key)
            .or_insert_with(|| said.clone())
            .clone();
        if first != said {
            self.wrong(format!("two outcomes are told: {first}, then {said}"));
        }
    }

    /// A delivery is about to be acked: its effect must be in the store.
    pub(crate) fn acked(&self, kind: &DeliveryBody, headers: &Headers, id: &str, body: &[u8]) {
        match kind {
            DeliveryBody::Command { kind, target } => {
                let id = headers
                    .get(header::MSG_ID)
                    .map_or(id, String::as_str)
                    .into();
                let thread = thread_of(*kind, target, body, &id);
                let forgotten = self.lenient.steps_back && self.refusal_is_told(&thread, &id);
                if now(self.log().outcome(&thread, &id)).is_none() && !forgotten {
                    self.wrong(format!("{thread}: {id} is acked without an outcome"));
                }
            }
            DeliveryBody::Work { .. } if !self.lenient.full && !self.lenient.steps_back => {
                let work = decode::work(body).unwrap();
                let thread = ThreadId::new(work.thread_id);
                let dispatch: Dispatch = work.dispatch.parse().unwrap();
                let Some(chain) = self.current(&thread) else {
                    return;
                };
                let state = &chain.state;
                if state.incarnation != *work.incarnation || !state.waits_for(dispatch) {
                    return;
                }
                let results = now(self.log().results(&thread, dispatch));
                let there = |task: &String| {
                    let moved = state
                        .round_tasks(dispatch)
                        .all(|t| t.task.id.as_str() != task);
                    moved || results.contains_key(task.as_str())
                };
                if work.tasks.is_empty() || !work.tasks.iter().all(there) {
                    self.wrong(format!(
                        "{thread}: work of {dispatch} is acked and not done"
                    ));
                }
            }
            _ => {}
        }
    }

    /// Nothing goes on any more: what must be true of `thread` in the end.
    pub(crate) fn at_rest(&self, thread: &ThreadId) {
        let stored = now(self.log().history(thread, None, 10_000));
        let Some(chain) = self.current(thread) else {
            return self.wrong(format!("{thread}: has no log, or one that nobody wrote"));
        };
        let mut versions: Vec<u64> = stored.iter().map(|record| record.head.version).collect();
        versions.reverse();
        let first = versions[0];
        if !versions
            .iter()
            .copied()
            .eq(first..first + versions.len() as u64)
        {
            self.wrong(format!("{thread}: versions are not dense: {versions:?}"));
        }
        let mut state: Option<ThreadState> = None;
        for stored in stored.iter().rev() {
            let mut record = self.read(thread, stored);
            let snapshot = record.snapshot.take();
            state = match state {
                None if record.head.version > 1 => snapshot.map(|snapshot| *snapshot),
                state => match fold(thread, state, &record) {
                    Ok(state) => Some(state),
                    Err(error) => return self.wrong(error.to_string()),
                },
            };
        }
        if state.as_ref() != Some(&chain.state) {
            self.wrong(format!(
                "{thread}: its log folds to another state than was decided on"
            ));
        }
        let watched = now(self
            .log()
            .watched(UnixMillis(0), UnixMillis(u64::MAX), 1000));
        if watched.iter().any(|entry| entry.thread == *thread) {
            self.wrong(format!("{thread}: rests and is watched"));
        }
        self.check_told(thread, &chain);
    }

    /// Nothing goes on any more: what must be true of a command that was sent.
    pub(crate) fn command_at_rest(&self, thread: &ThreadId, id: &CommandId) {
        let Some(outcome) = now(self.log().outcome(thread, id)) else {
            if self.lenient.steps_back && self.refusal_is_told(thread, id) {
                // It was told and is done with; that it was is forgotten, as nothing came of it.
                return;
            }
            return self.wrong(format!("{thread}: {id} never got an outcome"));
        };
        let reply = decode::reply(&outcome).unwrap();
        let in_log = self
            .current(thread)
            .and_then(|chain| chain.commands.get(id).copied());
        let said = reply.record.as_ref().map(|record| record.parse().unwrap());
        match reply.outcome {
            Outcome::Accepted if in_log.is_none() || said != in_log => {
                self.wrong(format!(
                    "{thread}: {id} is accepted as {said:?}, in the log {in_log:?}"
                ));
            }
            Outcome::Refused if in_log.is_some() => {
                self.wrong(format!(
                    "{thread}: {id} is refused and in the log as {in_log:?}"
                ));
            }
            Outcome::Refused if !self.refusal_is_told(thread, id) => {
                self.wrong(format!("{thread}: the refusal of {id} is in no event"));
            }
            _ => {}
        }
    }
}

/// The thread that a command is for.
pub(crate) fn thread_of(kind: CommandKind, target: &str, body: &[u8], id: &CommandId) -> ThreadId {
    if kind != CommandKind::Start {
        return ThreadId::new(target);
    }
    decode::start(body, usize::MAX)
        .ok()
        .and_then(|start| start.thread_id)
        .map_or_else(|| ThreadId::new(format!("unnamed:{id}")), ThreadId::from)
}
