//! The log of a call: the child's state, and the records that this round adds.
//!
//! In memory; `progress` stores what is new as entries, superstep by superstep, and the parent's
//! record carries it all in the end. Nonces, times and the ids of commands follow from
//! the parent's task, its run and the place in the log, never from a clock or chance, so that a
//! round that is done again makes the same records.

use superstep_graph::{TaskId, digest};
use superstep_protocol::{
    Cancel, CommandId, CommandRef, Event, FoldError, Head, Nonce, Record, RecordBody, Refusal,
    RunId, ThreadId, ThreadState, UnixMillis, Verdict, decide, fold,
};

use superstep_wire::record::ProgressEntry;

use crate::graphs::Checkpointer;

/// Whether an answer came in time was the parent's to decide.
const LONG_AGO: UnixMillis = UnixMillis(0);

/// A call's log.
#[derive(Debug)]
pub(super) struct Log {
    thread: ThreadId,
    task: TaskId,
    checkpointer: Checkpointer,
    /// Behind the run that the parent is in.
    by: Option<(CommandRef, RunId)>,
    time: UnixMillis,
    /// The time that the task was woken for.
    woken: UnixMillis,
    state: Option<ThreadState>,
    /// Whether the call has a checkpoint to go on from.
    begun: bool,
    new: Vec<Record>,
    /// How many entries this attempt has stored.
    entries: u64,
    /// How many of the new records need not be stored any more.
    stored: usize,
}

impl Log {
    /// The log of a task's call, as the parent's state has it.
    pub(super) fn of(
        parent: &ThreadState,
        task: &TaskId,
        checkpointer: Checkpointer,
    ) -> Result<Self, FoldError> {
        Self::after(parent, task, checkpointer, &[])
    }

    /// As [`of`](Self::of), with what earlier attempts added in this round.
    pub(super) fn after(
        parent: &ThreadState,
        task: &TaskId,
        checkpointer: Checkpointer,
        attempts: &[Record],
    ) -> Result<Self, FoldError> {
        let known = parent.task(task);
        let run = parent.run.as_ref();
        let mut log = Self {
            thread: parent.thread.clone(),
            task: task.clone(),
            checkpointer,
            by: run.map(|run| (run.command.clone(), run.id.clone())),
            time: parent.time,
            woken: known.and_then(|known| known.woken).unwrap_or(LONG_AGO),
            state: None,
            begun: false,
            new: Vec::new(),
            entries: 0,
            stored: 0,
        };
        if let (Checkpointer::Own, Some(known)) = (checkpointer, known) {
            log.state = parent
                .kept
                .get(&known.task.node)
                .map(|kept| (**kept).clone());
        }
        for record in known.map_or(&[][..], |known| &known.child) {
            log.take(record)?;
        }
        for record in attempts {
            log.take(record)?;
            log.new.push(record.clone());
        }
        // The attempts before have entries of their own.
        log.stored = log.new.len();
        Ok(log)
    }

    /// Adds what the round's progress has of the call.
    pub(super) fn add_progress(&mut self, entries: Vec<ProgressEntry>) -> Result<(), FoldError> {
        for entry in entries {
            for record in entry.records {
                self.take(&record)?;
                self.new.push(record);
            }
            self.entry_is_stored();
        }
        Ok(())
    }

    /// Whether the round's progress has something of the call.
    pub(super) fn has_progress(&self) -> bool {
        self.entries > 0
    }

    /// What is not stored yet, and the index of the entry that it makes.
    pub(super) fn next_entry(&self) -> (u64, Vec<Record>) {
        (self.entries, self.new[self.stored..].to_vec())
    }

    /// The next entry is stored.
    pub(super) fn entry_is_stored(&mut self) {
        self.entries += 1;
        self.stored = self.new.len();
    }

    fn take(&mut self, record: &Record) -> Result<(), FoldError> {
        self.begun |= matches!(record.body, RecordBody::Committed(_));
        self.state = Some(fold(&self.thread, self.state.take(), record)?);
        Ok(())
    }

    /// The child's state; `None` before its first record.
    pub(super) fn state(&self) -> Option<&ThreadState> {
        self.state.as_ref()
    }

    /// The last record that this round added, and the state after it.
    pub(super) fn last(&self) -> Option<(&Record, &ThreadState)> {
        self.new.last().zip(self.state.as_ref())
    }

    /// Whether this call has come as far as a checkpoint.
    pub(super) fn has_begun(&self) -> bool {
        self.begun
    }

    /// The id of the command that begins the call: all that the child asks descends from it.
    pub(super) fn first_command(&self) -> CommandId {
        CommandId::new(digest(&["call", self.task.as_str()]))
    }

    /// The id of a command that makes the call go on.
    pub(super) fn next_command(&self) -> CommandId {
        let by = self.by.as_ref().map_or("", |(by, _)| by.id.as_str());
        CommandId::new(digest(&["go on", self.task.as_str(), by]))
    }

    /// A command of the parent's sender.
    pub(super) fn command(&self, id: CommandId) -> CommandRef {
        let by = self.by.as_ref().map(|(by, _)| by);
        CommandRef {
            id,
            sent_at: by.map_or(self.time, |by| by.sent_at),
            sender: by.and_then(|by| by.sender.clone()),
            trace: by.and_then(|by| by.trace.clone()),
            tracestate: by.and_then(|by| by.tracestate.clone()),
        }
    }

    /// The time that the call's task was woken for.
    pub(super) fn woken(&self) -> UnixMillis {
        self.woken
    }

    /// The parent's run.
    pub(super) fn run(&self) -> RunId {
        let run = self.by.as_ref().map(|(_, run)| run.clone());
        run.unwrap_or_else(|| RunId::new(""))
    }

    /// Decides on an event and appends what it calls for.
    pub(super) fn apply(&mut self, event: &Event) -> Result<(), Refusal> {
        let now = match event {
            Event::TimerDue { .. } => self.woken,
            _ => LONG_AGO,
        };
        if let (Event::Start(_), Some(state)) = (event, &mut self.state) {
            // All its runs are named like that of its parent.
            state.begun.clear();
        }
        match decide(&self.thread, self.state.as_ref(), event, now) {
            Verdict::Append(body) => {
                self.append(body);
                Ok(())
            }
            Verdict::Refuse(refusal) => Err(refusal),
            Verdict::Known(_) | Verdict::Nothing(_) | Verdict::Wait => {
                unreachable!("nobody else decides on a call of a subgraph")
            }
        }
    }

    fn append(&mut self, body: RecordBody) {
        let last = self.state.as_ref().map_or(0, |state| state.head.version);
        let version = last + 1;
        let by = self.by.as_ref().map_or("", |(by, _)| by.id.as_str());
        let place = version.to_string();
        let nonce = digest(&["record", self.task.as_str(), by, &place]);
        let nonce = u64::from_str_radix(&nonce[..16], 16).expect("a digest is hex digits");
        let record = Record {
            head: Head {
                version,
                nonce: Nonce(nonce),
            },
            time: self
                .time
                .max(self.state.as_ref().map_or(self.time, |state| state.time)),
            // Nobody waits for events of a call; its parent's are told.
            told: last,
            body,
            snapshot: None,
        };
        self.take(&record)
            .expect("a decided record follows the state");
        self.new.push(record);
    }

    /// Gives up what runs or waits: the call is over.
    pub(super) fn cancel(&mut self) {
        let command = self.command(self.next_command());
        let reason = Some("it went on in its parent".to_owned());
        let event = Event::Cancel(Box::new(Cancel::new(command, reason)));
        // What does not run needs no end.
        let _ = self.apply(&event);
    }

    /// The child's state, if it outlives the call.
    pub(super) fn kept(&self) -> Option<Box<ThreadState>> {
        let state = self.state.as_ref()?;
        (self.checkpointer == Checkpointer::Own).then(|| {
            let mut kept = state.clone();
            kept.checkpoint.untracked.clear();
            kept.closed.clear();
            Box::new(kept)
        })
    }

    /// The child's state, to be looked at.
    pub(super) fn into_state(self) -> Option<ThreadState> {
        self.state
    }

    /// What this round added, as far as the task keeps it.
    pub(super) fn into_new(self) -> Vec<Record> {
        match self.checkpointer {
            Checkpointer::Inherit | Checkpointer::Own => self.new,
            Checkpointer::None => Vec::new(),
        }
    }
}
