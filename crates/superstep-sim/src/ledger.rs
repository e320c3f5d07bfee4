//! The ledger: what was seen of a world so far, for the invariants to look at.
//!
//! It keeps the fold of every record that was ever appended, by its head, so that a store that
//! steps back only makes later appends begin at an older one; what was told, and what was sent.
//! After each append, unwatch, ack, event and reply every invariant looks. What they find wrong
//! is collected: a panic would be lost in the task of a worker.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use futures_util::FutureExt;
use serde_json::Value;
use superstep_checkpoint::{Error, StoredRecord, ThreadLog, memory::MemoryLog};
use superstep_graph::{InterruptId, Source};
use superstep_protocol::{
    CommandId, Head, Record, RecordBody, RunId, ThreadId, ThreadState, UnixMillis, events, fold,
};
use superstep_queue::{CommandKind, DeliveryBody, EventMessage, Headers, header};
use superstep_wire::{Event, Reply, Work, decode, record};

use crate::{
    invariants::{self, Invariant},
    log::Store,
    plan::{Faults, lock},
};

/// What is known of a thread at one of its heads.
#[derive(Clone)]
pub(crate) struct Chain {
    pub(crate) state: ThreadState,
    /// The questions that were answered.
    pub(crate) answered: BTreeSet<InterruptId>,
    /// The commands that became records.
    pub(crate) commands: BTreeMap<CommandId, Head>,
    /// The ids of all events that its records ever made, with the version of their record.
    pub(crate) events: Vec<(u64, String)>,
    /// How many inputs entered it.
    pub(crate) inputs: usize,
    /// What became of the runs that were asked for.
    pub(crate) runs: BTreeMap<RunId, Fate>,
}

/// What became of a run that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It waits for its turn.
    Queued,
    /// It began.
    Begun,
    /// It never will.
    Ended,
}

/// What a check may not ask of a world.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lenient {
    /// The store steps back: what was told may be gone.
    pub(crate) steps_back: bool,
    /// Work that is owed may be acked: the stream may be full, or forget all it has.
    pub(crate) full: bool,
    /// The queue forgets: a command may be gone before it is decided.
    pub(crate) forgets: bool,
}

/// One record, just appended.
pub(crate) struct Step<'a> {
    pub(crate) thread: &'a ThreadId,
    /// The head that it was decided on.
    pub(crate) after: Option<Head>,
    /// What was known there.
    pub(crate) before: Option<&'a Chain>,
    pub(crate) record: &'a Record,
    /// The snapshot in it, if it carries one.
    pub(crate) snapshot: Option<&'a ThreadState>,
    pub(crate) stored: &'a StoredRecord,
    /// The state after it.
    pub(crate) state: &'a ThreadState,
}

/// One thing that can be seen of a world from outside.
pub(crate) enum Seen<'a> {
    /// A record is in the log.
    Appended(&'a Step<'a>),
    /// A record that follows a head which was never written, or cannot be folded.
    Broken(String),
    /// A thread left the watch index.
    Unwatched { thread: &'a ThreadId, head: Head },
    /// A message was handed to a worker.
    Delivered { name: &'a str, attempt: u64 },
    /// A command is about to be acked.
    CommandAcked {
        thread: &'a ThreadId,
        id: &'a CommandId,
    },
    /// Work is about to be acked.
    WorkAcked { work: &'a Work },
    /// An event is in its stream.
    Told { event: &'a Event },
    /// The sender of a command is told its outcome.
    Replied { reply: &'a Reply, said: &'a Value },
    /// A node did something to the outside world, under its idempotency key.
    Charged { key: &'a str, what: &'a Value },
    /// A node that its worker dies of was begun, for so many times by now.
    BegunDeadly { key: &'a str, times: usize },
    /// Nothing goes on any more, and this thread is there.
    ThreadRests { thread: &'a ThreadId },
    /// Nothing goes on any more, and this command was sent.
    CommandRests {
        thread: &'a ThreadId,
        id: &'a CommandId,
    },
}

/// A command as it was sent.
pub(crate) struct SentCommand {
    /// Whether it is an answer that names no question.
    pub(crate) plain: bool,
    /// When it was sent last, in true milliseconds.
    pub(crate) at_ms: u128,
}

/// What the invariants may read.
pub(crate) struct Facts {
    store: Arc<Store>,
    pub(crate) lenient: Lenient,
    chains: HashMap<(ThreadId, Head), Arc<Chain>>,
    progress: usize,
    /// Events in their stream: their kinds by id.
    pub(crate) told: BTreeMap<String, String>,
    refusals_told: BTreeSet<(ThreadId, CommandId)>,
    pub(crate) sent: BTreeMap<CommandId, SentCommand>,
    /// When a question was seen open first, in true milliseconds.
    pub(crate) opened_ms: BTreeMap<InterruptId, u128>,
    /// The keys under which nodes acted.
    pub(crate) charged: BTreeMap<String, Value>,
}

/// What all checks of one world share.
pub(crate) struct Ledger {
    faults: Arc<Faults>,
    facts: Mutex<Facts>,
    invariants: Mutex<Vec<Box<dyn Invariant>>>,
    wrong: Mutex<Vec<String>>,
}

/// The in-memory log never waits.
pub(crate) fn at_once<T>(call: impl Future<Output = Result<T, Error>>) -> T {
    call.now_or_never()
        .expect("the memory log does not wait")
        .expect("the memory log does not fail")
}

impl Facts {
    pub(crate) fn log(&self) -> &MemoryLog {
        &self.store.log
    }

    /// What is known of a thread at a head.
    pub(crate) fn chain(&self, thread: &ThreadId, head: Head) -> Option<Arc<Chain>> {
        self.chains.get(&(thread.clone(), head)).cloned()
    }

    /// What is known of a thread as it is in the store now.
    pub(crate) fn current(&self, thread: &ThreadId) -> Option<Arc<Chain>> {
        self.chain(thread, at_once(self.log().head(thread))?)
    }

    pub(crate) fn refusal_is_told(&self, thread: &ThreadId, id: &CommandId) -> bool {
        self.refusals_told.contains(&(thread.clone(), id.clone()))
    }

    /// The record as it was written, out-of-line values and all.
    pub(crate) fn read(&self, thread: &ThreadId, stored: &StoredRecord) -> Record {
        let decoded = record::decode(&stored.bytes).expect("what a worker wrote can be read");
        let ids = decoded.blob_ids();
        let bytes = at_once(self.log().blobs(thread, &ids));
        decoded
            .resolve(&ids.into_iter().zip(bytes).collect())
            .expect("the blobs are there")
    }

    /// The events of a chain that are not in their stream.
    pub(crate) fn untold<'a>(&self, chain: &'a Chain) -> Vec<&'a (u64, String)> {
        let untold = chain
            .events
            .iter()
            .filter(|(_, id)| !self.told.contains_key(id));
        untold.collect()
    }
}

impl Ledger {
    pub(crate) fn new(store: &Arc<Store>, faults: &Arc<Faults>, lenient: Lenient) -> Self {
        Self {
            faults: Arc::clone(faults),
            facts: Mutex::new(Facts {
                store: Arc::clone(store),
                lenient,
                chains: HashMap::new(),
                progress: 0,
                told: BTreeMap::new(),
                refusals_told: BTreeSet::new(),
                sent: BTreeMap::new(),
                opened_ms: BTreeMap::new(),
                charged: BTreeMap::new(),
            }),
            invariants: Mutex::new(invariants::all()),
            wrong: Mutex::default(),
        }
    }

    /// Every invariant looks at what was just seen.
    fn look(&self, facts: &Facts, seen: &Seen<'_>) {
        for invariant in &mut *lock(&self.invariants) {
            if let Err(what) = invariant.look(seen, facts) {
                let what = format!("{}: {what}", invariant.name());
                self.faults.note(format!("!! {what}"));
                lock(&self.wrong).push(what);
            }
        }
    }

    fn see(&self, seen: &Seen<'_>) {
        self.look(&lock(&self.facts), seen);
    }

    /// What was found wrong so far.
    pub(crate) fn findings(&self) -> Vec<String> {
        lock(&self.wrong).clone()
    }

    /// Fails with everything that was found wrong so far.
    #[cfg(test)]
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

    /// What is known of a thread as it is in the store.
    pub(crate) fn current(&self, thread: &ThreadId) -> Option<Arc<Chain>> {
        lock(&self.facts).current(thread)
    }

    /// What was last known of a thread at this head.
    pub(crate) fn state_at(&self, thread: &ThreadId, head: Head) -> Option<ThreadState> {
        let chain = lock(&self.facts).chain(thread, head)?;
        Some(chain.state.clone())
    }

    /// The state of a thread as it is in the store.
    pub(crate) fn state(&self, thread: &ThreadId) -> Option<ThreadState> {
        self.current(thread).map(|chain| chain.state.clone())
    }

    /// How many records brought a thread on: supersteps and runs. What waits, is asked, or tried
    /// again can end as before.
    pub(crate) fn progress(&self) -> usize {
        lock(&self.facts).progress
    }

    /// The threads that owe something.
    pub(crate) fn watched(&self) -> Vec<ThreadId> {
        let facts = lock(&self.facts);
        let watched = at_once(
            facts
                .log()
                .watched(UnixMillis(0), UnixMillis(u64::MAX), 1000),
        );
        watched.into_iter().map(|entry| entry.thread).collect()
    }

    /// A record is in the log, just now or again.
    pub(crate) fn appended(&self, thread: &ThreadId, after: Option<Head>, stored: &StoredRecord) {
        let mut facts = lock(&self.facts);
        if facts.chain(thread, stored.head).is_some() {
            return;
        }
        let before = after.map(|head| facts.chain(thread, head));
        let before = match before {
            Some(None) => {
                let what = format!("{thread}: {} follows nobody's head", stored.head);
                return self.look(&facts, &Seen::Broken(what));
            }
            before => before.flatten(),
        };
        let mut record = facts.read(thread, stored);
        let snapshot = record.snapshot.take();
        let state = match fold(thread, before.as_ref().map(|b| b.state.clone()), &record) {
            Ok(state) => state,
            Err(error) => return self.look(&facts, &Seen::Broken(error.to_string())),
        };
        self.look(
            &facts,
            &Seen::Appended(&Step {
                thread,
                after,
                before: before.as_deref(),
                record: &record,
                snapshot: snapshot.as_deref(),
                stored,
                state: &state,
            }),
        );
        let made: Vec<_> = events(&record, &state)
            .into_iter()
            .map(|event| (record.head.version, event.id))
            .collect();
        let now = self.faults.world.elapsed().as_millis();
        for (_, question) in state.open_questions() {
            facts.opened_ms.entry(question.id.clone()).or_insert(now);
        }
        let mut chain = before.as_deref().cloned().unwrap_or_else(|| Chain {
            state: state.clone(),
            answered: BTreeSet::new(),
            commands: BTreeMap::new(),
            events: Vec::new(),
            inputs: 0,
            runs: BTreeMap::new(),
        });
        chain.state = state;
        chain.events.extend(made);
        if let Some(id) = command_of(&record) {
            chain.commands.entry(id.clone()).or_insert(record.head);
        }
        for (run, fate) in fates(&record) {
            chain.runs.insert(run.clone(), fate);
        }
        match &record.body {
            // What was answered before is undone with the rest, and may be asked again.
            RecordBody::Cancelled {
                restores: Some(_), ..
            } => chain.answered.clear(),
            RecordBody::Displaced(displaced) if displaced.restores.is_some() => {
                chain.answered.clear();
            }
            RecordBody::Resumed { answers, .. } => chain.answered.extend(answers.keys().cloned()),
            RecordBody::Committed(committed) if committed.source == Source::Input => {
                chain.inputs += 1;
            }
            _ => {}
        }
        let gets_on = matches!(
            record.body,
            RecordBody::Committed(_)
                | RecordBody::Started { .. }
                | RecordBody::Enqueued(_)
                | RecordBody::Displaced(_)
        );
        facts.progress += usize::from(gets_on);
        facts
            .chains
            .insert((thread.clone(), record.head), Arc::new(chain));
    }

    /// A thread left the watch index.
    pub(crate) fn unwatched(&self, thread: &ThreadId, head: Head) {
        self.see(&Seen::Unwatched { thread, head });
    }

    /// A message is handed over again and again: whoever gets it fails, or panics.
    pub(crate) fn delivered(&self, name: &str, attempt: u64) {
        self.see(&Seen::Delivered { name, attempt });
    }

    /// The ids of the events of a kind that are in their stream.
    #[cfg(test)]
    pub(crate) fn events_of(&self, kind: &str) -> Vec<String> {
        let facts = lock(&self.facts);
        let of_kind = facts.told.iter().filter(|(_, told)| *told == kind);
        of_kind.map(|(id, _)| id.clone()).collect()
    }

    /// Events are in their stream.
    pub(crate) fn told(&self, messages: &[EventMessage]) {
        for message in messages {
            let event = decode::event(&message.body).expect("events can be read");
            let mut facts = lock(&self.facts);
            if let (Some(command), None) = (&event.command_id, &event.record) {
                let thread = ThreadId::new(event.thread_id.as_str());
                facts
                    .refusals_told
                    .insert((thread, command.as_str().into()));
            }
            facts
                .told
                .insert(event.event_id.clone(), message.kind.clone());
            self.look(&facts, &Seen::Told { event: &event });
        }
    }

    /// A command is on its way.
    pub(crate) fn sent(&self, id: &CommandId, plain: bool) {
        let at_ms = self.faults.world.elapsed().as_millis();
        let sent = SentCommand { plain, at_ms };
        lock(&self.facts).sent.insert(id.clone(), sent);
    }

    /// The sender of a command is told its outcome: always the same one.
    pub(crate) fn replied(&self, body: &[u8]) {
        let reply = decode::reply(body).expect("replies can be read");
        let said = serde_json::from_slice::<Value>(body).expect("replies are JSON");
        self.see(&Seen::Replied {
            reply: &reply,
            said: &said,
        });
    }

    /// A delivery is about to be acked: its effect must be in the store.
    pub(crate) fn acked(&self, kind: &DeliveryBody, headers: &Headers, id: &str, body: &Bytes) {
        match kind {
            DeliveryBody::Command { kind, target } => {
                let id = headers.get(header::MSG_ID).map_or(id, String::as_str);
                let id = &CommandId::from(id);
                let thread = &thread_of(*kind, target, body, id);
                self.see(&Seen::CommandAcked { thread, id });
            }
            DeliveryBody::Work { .. } => {
                let work = &decode::work(body).expect("work can be read");
                self.see(&Seen::WorkAcked { work });
            }
            DeliveryBody::Unknown { .. } => {}
        }
    }

    /// A node that kills its worker was begun, for so many times by now.
    pub(crate) fn begun_deadly(&self, key: &str, times: usize) {
        self.see(&Seen::BegunDeadly { key, times });
    }

    /// A node did something to the outside world.
    pub(crate) fn charged(&self, key: &str, what: &Value) {
        let mut facts = lock(&self.facts);
        self.look(&facts, &Seen::Charged { key, what });
        facts.charged.insert(key.to_owned(), what.clone());
    }

    /// Nothing goes on any more: what must be true of `thread` in the end.
    pub(crate) fn thread_rests(&self, thread: &ThreadId) {
        self.see(&Seen::ThreadRests { thread });
    }

    /// Nothing goes on any more: what must be true of a command that was sent.
    pub(crate) fn command_rests(&self, thread: &ThreadId, id: &CommandId) {
        self.see(&Seen::CommandRests { thread, id });
    }
}

/// What a record makes of runs that were asked for.
pub(crate) fn fates(record: &Record) -> Vec<(&RunId, Fate)> {
    match &record.body {
        RecordBody::Enqueued(queued) => vec![(&queued.run, Fate::Queued)],
        RecordBody::Displaced(displaced) => {
            let ended = displaced.queued.iter().map(|run| (run, Fate::Ended));
            ended
                .chain([(&displaced.start.run, Fate::Queued)])
                .collect()
        }
        RecordBody::Started { run, .. }
        | RecordBody::Resumed { run, .. }
        | RecordBody::Retried { run, .. } => vec![(run, Fate::Begun)],
        RecordBody::Commanded { asked, .. } => vec![(&asked.run, Fate::Begun)],
        RecordBody::Declined {
            queued: Some(run), ..
        } => vec![(run, Fate::Ended)],
        RecordBody::Cancelled { queued, .. } => {
            queued.iter().map(|run| (run, Fate::Ended)).collect()
        }
        _ => Vec::new(),
    }
}

/// The command that became a record.
pub(crate) fn command_of(record: &Record) -> Option<&CommandId> {
    match &record.body {
        RecordBody::Started { command, .. }
        | RecordBody::Resumed { command, .. }
        | RecordBody::Retried { command, .. }
        | RecordBody::UpdateAsked { command, .. }
        | RecordBody::Cancelled { command, .. }
        | RecordBody::Deleted { command, .. } => Some(&command.id),
        RecordBody::Enqueued(queued) => Some(&queued.command.id),
        RecordBody::Displaced(displaced) => Some(&displaced.start.command.id),
        RecordBody::Commanded { asked, .. } => Some(&asked.command.id),
        _ => None,
    }
}

/// The thread that a command is for. A start that names none is of no thread that is known.
pub(crate) fn thread_of(kind: CommandKind, target: &str, body: &[u8], id: &CommandId) -> ThreadId {
    if kind != CommandKind::Start {
        return ThreadId::new(target);
    }
    decode::start(body, usize::MAX)
        .ok()
        .and_then(|start| start.thread_id)
        .map_or_else(|| ThreadId::new(format!("unnamed:{id}")), ThreadId::from)
}
