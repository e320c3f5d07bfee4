//! Puts an append, and a delete, together as calls of their scripts.
//!
//! Only what changes is sent: a record without index changes is five arguments. The order of the
//! parts is the script's (`lua/append.lua`), and what a call means is decided there alone. The rule
//! it keeps: the bytes of a record are sent once, and as they are.

use std::time::Duration;

use redis::Cmd;
use superstep_checkpoint::{
    Append, ENDED_ROUND_TTL, OUTCOME_TTL, StoredRecord, TOMBSTONE_TTL, ThreadRow,
};
use superstep_protocol::{Dispatch, Head, ThreadId};

use crate::{
    codec::{head_field, member, record_field, row_field, status_digit},
    keys::{Keys, Shard},
    scripts,
};

/// How a question begins in the set of a thread's open things; then its id.
pub(crate) const QUESTION: char = 'q';
/// How a timer begins there; then its name.
pub(crate) const TIMER: char = 'd';
/// The score of a blob that stays, in the index of its thread's blobs, less the version of the
/// last record that refers to it: more than any time.
pub(crate) const BLOB_STAYS: u64 = 1 << 52;

/// Whether a blob of this score stays.
pub(crate) fn blob_stays(score: &str) -> bool {
    const FROM: f64 = 4_503_599_627_370_496.0;
    score.parse().is_ok_and(|score: f64| score >= FROM)
}

/// A call of the append script. `was` is the row that an earlier try met, if it was of another
/// graph: then the list that the thread leaves has to be named too.
pub(crate) fn append_call(
    keys: &Keys,
    thread: &ThreadId,
    append: &Append,
    was: Option<&ThreadRow>,
) -> Cmd {
    let mut call = Call::new(keys.shard(thread), thread);
    call.record(append.after, &append.record);
    if let Some((command, outcome)) = &append.outcome {
        call.keys.push(call.shard.outcome(thread, command));
        call.text("o").bytes(outcome).ttl(OUTCOME_TTL);
    }
    if let Some(row) = &append.index.row {
        call.row(row, was);
    }
    if let Some(watched) = append.index.watched {
        call.keys.push(call.shard.watched());
        call.text("w").text(if watched { "1" } else { "0" });
        call.text(thread.as_str());
    }
    call.rounds_opened(&append.index.rounds_opened);
    call.questions(append);
    call.timers(append);
    call.rounds_closed(&append.index.rounds_closed);
    if !append.blobs.is_empty() {
        call.keys.push(call.shard.blob_index(thread));
        call.text("b");
        for id in &append.blobs {
            call.keys.push(call.shard.blob(thread, id));
            call.text(id);
        }
    }
    call.finish(&scripts::APPEND)
}

/// What a thread has beside its records; see `lua/inventory.lua`.
#[derive(Debug)]
pub(crate) struct Inventory {
    pub(crate) row: Option<ThreadRow>,
    pub(crate) rounds: Vec<Dispatch>,
    /// Questions and timers, with their first character.
    pub(crate) open: Vec<String>,
    pub(crate) blobs: Vec<String>,
}

/// A call of the delete script.
pub(crate) fn delete_call(
    keys: &Keys,
    thread: &ThreadId,
    after: Head,
    tombstone: &StoredRecord,
    has: &Inventory,
) -> Cmd {
    let mut call = Call::new(keys.shard(thread), thread);
    let shard = call.shard;
    let list = match &has.row {
        Some(row) => shard.list(status_digit(row.status), &row.graph.name),
        // In no list: any key of the slot will do, and this one is in use.
        None => shard.watched(),
    };
    call.keys
        .extend([shard.watched(), shard.questions(), shard.due(), list]);
    call.keys.push(shard.open(thread));
    call.keys.push(shard.blob_index(thread));
    for round in &has.rounds {
        call.keys.push(shard.results(thread, *round));
        call.keys.push(shard.progress(thread, *round));
    }
    let blobs = has.blobs.iter().map(|id| shard.blob(thread, id));
    call.keys.extend(blobs);

    call.record(Some(after), tombstone)
        .ttl(TOMBSTONE_TTL)
        .text(thread.as_str());
    let of = |kind: char| {
        let open = has
            .open
            .iter()
            .filter_map(move |open| open.strip_prefix(kind));
        open.map(|id| member(id, thread)).collect::<Vec<_>>()
    };
    let (questions, timers) = (of(QUESTION), of(TIMER));
    call.number(questions.len());
    for member in questions.iter().chain(&timers) {
        call.text(member);
    }
    call.finish(&scripts::DELETE)
}

/// The field of an open round.
pub(crate) fn round_field(round: Dispatch) -> String {
    format!("r:{round}")
}

/// A call of a script on a thread, being put together.
struct Call<'a> {
    shard: &'a Shard,
    thread: &'a ThreadId,
    keys: Vec<String>,
    args: Vec<Vec<u8>>,
}

impl<'a> Call<'a> {
    fn new(shard: &'a Shard, thread: &'a ThreadId) -> Self {
        Self {
            shard,
            thread,
            keys: vec![shard.thread(thread)],
            args: Vec::with_capacity(16),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.args.push(bytes.to_vec());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    fn number(&mut self, number: usize) -> &mut Self {
        self.text(&number.to_string())
    }

    fn ttl(&mut self, ttl: Duration) -> &mut Self {
        self.text(&ttl.as_millis().to_string())
    }

    fn record(&mut self, after: Option<Head>, record: &StoredRecord) -> &mut Self {
        let after = after.map(|head| head.to_string()).unwrap_or_default();
        self.text(&after)
            .text(&record.head.to_string())
            .text(&record.head.version.to_string())
            .text(&head_field(record));
        self.args.push(record_field(record));
        self
    }

    fn row(&mut self, row: &ThreadRow, was: Option<&ThreadRow>) {
        let (shard, graph) = (self.shard, &row.graph.name);
        let (field, list_length) = row_field(row);
        self.keys.push(shard.graphs());
        for digit in ['1', '2', '3', '4'] {
            self.keys.push(shard.list(digit, graph));
        }
        self.text("l").text(&field).number(list_length);
        // Lists are newest first, then by id: with the time negated that is one order.
        self.text(&format!("-{}", row.updated_at.0));
        self.text(self.thread.as_str()).text(graph.as_str());
        match was {
            Some(was) => {
                let list = shard.list(status_digit(was.status), &was.graph.name);
                self.keys.push(list);
                let (field, list_length) = row_field(was);
                self.text(&field[..list_length]);
            }
            None => {
                self.text("");
            }
        }
    }

    fn questions(&mut self, append: &Append) {
        let (opened, closed) = (&append.index.opened, &append.index.closed);
        if opened.is_empty() && closed.is_empty() {
            return;
        }
        self.keys.push(self.shard.questions());
        self.text("z").number(closed.len());
        for id in closed {
            self.open_member(QUESTION, id.as_str());
        }
        self.number(opened.len());
        for row in opened {
            self.text(&row.opened_at.0.to_string());
            self.open_member(QUESTION, row.id.as_str());
        }
        self.keys.push(self.shard.open(self.thread));
    }

    fn timers(&mut self, append: &Append) {
        let (set, removed) = (&append.index.due_set, &append.index.due_removed);
        if set.is_empty() && removed.is_empty() {
            return;
        }
        self.keys.push(self.shard.due());
        self.text("z").number(removed.len());
        for name in removed {
            self.open_member(TIMER, name);
        }
        self.number(set.len());
        for (name, at) in set {
            self.text(&at.0.to_string());
            self.open_member(TIMER, name);
        }
        self.keys.push(self.shard.open(self.thread));
    }

    /// A question or timer as a member of its shard's index, and of its thread's set.
    fn open_member(&mut self, kind: char, id: &str) {
        self.text(&member(id, self.thread))
            .text(&format!("{kind}{id}"));
    }

    fn rounds_opened(&mut self, opened: &[Dispatch]) {
        if opened.is_empty() {
            return;
        }
        self.text("r").number(opened.len());
        for round in opened {
            self.text(&round_field(*round));
        }
    }

    fn rounds_closed(&mut self, closed: &[Dispatch]) {
        if closed.is_empty() {
            return;
        }
        self.text("e").ttl(ENDED_ROUND_TTL).number(closed.len());
        for round in closed {
            self.keys.push(self.shard.results(self.thread, *round));
            self.keys.push(self.shard.progress(self.thread, *round));
            self.text(&round_field(*round));
        }
    }

    fn finish(self, script: &redis::Script) -> Cmd {
        let mut cmd = scripts::call(script, &self.keys);
        cmd.arg(self.args);
        cmd
    }
}
