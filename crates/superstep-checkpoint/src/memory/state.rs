//! What the in-memory log holds, and each operation of the port on it.
//!
//! Every function is synchronous and total over one locked value; time comes in as an
//! argument. It leaves checks that need no state to the port's own `validate` functions.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    ops::Bound,
    time::Duration,
};

use bytes::Bytes;
use superstep_graph::{InterruptId, TaskId};
use superstep_protocol::{CommandId, Dispatch, GraphId, Head, Nonce, ThreadId, UnixMillis};

use crate::{
    Append, Appended, BLOB_TTL, CLAIM_LEASE_MAX, Claim, Claimed, Cursor, Due, ENDED_ROUND_TTL,
    Error, ErrorKind, IndexChange, InterruptQuery, InterruptRow, Loaded, OUTCOME_TTL, Page,
    PutProgress, PutResult, Registration, StoredRecord, Stray, TOMBSTONE_TTL, ThreadQuery,
    ThreadRow, Trimmed, Watched, page_rows,
};

/// Everything that a log holds.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) threads: BTreeMap<ThreadId, Thread>,
    pub(super) blobs: BTreeMap<(ThreadId, String), Blob>,
    outcomes: BTreeMap<(ThreadId, CommandId), Outcome>,
    claims: BTreeMap<(ThreadId, Dispatch, String), (Nonce, UnixMillis)>,
    registrations: BTreeMap<GraphId, (Bytes, UnixMillis)>,
    /// What may have outlived its time, by when; looked at again when that comes.
    expiries: BTreeMap<(UnixMillis, u64), Expiry>,
    expiries_made: u64,
    /// Entries of no thread: only what a test tampered with makes any.
    pub(super) strays: BTreeSet<Stray>,
}

/// One thread; there is none without a record.
#[derive(Clone, Debug, Default)]
pub(super) struct Thread {
    pub(super) records: BTreeMap<u64, StoredRecord>,
    pub(super) row: Option<ThreadRow>,
    pub(super) watched: Option<(Head, UnixMillis)>,
    pub(super) interrupts: BTreeMap<InterruptId, UnixMillis>,
    pub(super) due: BTreeMap<String, UnixMillis>,
    pub(super) rounds: BTreeMap<Dispatch, Round>,
    /// When it goes away: set for a tombstone.
    pub(super) expires: Option<UnixMillis>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Round {
    results: BTreeMap<TaskId, Bytes>,
    progress: BTreeMap<(TaskId, u64), Bytes>,
    attempts: BTreeMap<TaskId, u64>,
    pub(super) ended: bool,
}

#[derive(Clone, Debug)]
pub(super) struct Blob {
    pub(super) bytes: Bytes,
    pub(super) expires: Option<UnixMillis>,
    /// The last record that refers to it.
    pub(super) named: u64,
}

#[derive(Clone, Debug)]
struct Outcome {
    bytes: Bytes,
    expires: UnixMillis,
}

#[derive(Clone, Debug)]
pub(super) enum Expiry {
    Tombstone(ThreadId),
    Round(ThreadId, Dispatch),
    Blob(ThreadId, String),
    Outcome(ThreadId, CommandId),
    Claim(ThreadId, Dispatch, String),
}

impl Thread {
    pub(super) fn head(&self) -> Head {
        let (_, last) = self
            .records
            .last_key_value()
            .expect("a thread has at least one record");
        last.head
    }

    fn holds(&self, record: Head) -> bool {
        self.records
            .get(&record.version)
            .is_some_and(|held| held.head == record)
    }
}

impl State {
    /// Removes what has outlived its time at `now`.
    pub(super) fn expire(&mut self, now: UnixMillis) {
        while let Some(entry) = self.expiries.first_entry() {
            if entry.key().0 > now {
                return;
            }
            match entry.remove() {
                Expiry::Tombstone(thread) => {
                    let expires = self.threads.get(&thread).and_then(|found| found.expires);
                    if expires.is_some_and(|expires| expires <= now) {
                        self.threads.remove(&thread);
                    }
                }
                Expiry::Round(thread, round) => {
                    if let Some(found) = self.threads.get_mut(&thread)
                        && found.rounds.get(&round).is_some_and(|round| round.ended)
                    {
                        found.rounds.remove(&round);
                    }
                }
                Expiry::Blob(thread, id) => {
                    if let Entry::Occupied(blob) = self.blobs.entry((thread, id))
                        && blob.get().expires.is_some_and(|expires| expires <= now)
                    {
                        blob.remove();
                    }
                }
                Expiry::Outcome(thread, command) => {
                    if let Entry::Occupied(outcome) = self.outcomes.entry((thread, command))
                        && outcome.get().expires <= now
                    {
                        outcome.remove();
                    }
                }
                Expiry::Claim(thread, round, name) => {
                    if let Entry::Occupied(claim) = self.claims.entry((thread, round, name))
                        && rest(claim.get().1, now).is_none()
                    {
                        claim.remove();
                    }
                }
            }
        }
    }

    pub(super) fn expire_at(&mut self, at: UnixMillis, what: Expiry) {
        self.expiries_made += 1;
        self.expiries.insert((at, self.expiries_made), what);
    }

    pub(super) fn append(
        &mut self,
        thread: &ThreadId,
        append: &Append,
        now: UnixMillis,
    ) -> Appended {
        let found = self.threads.get(thread);
        if found.is_some_and(|found| found.holds(append.record.head)) {
            return Appended::Done;
        }
        if let Some((command, _)) = &append.outcome
            && let Some(outcome) = self.outcome(thread, command)
        {
            return Appended::Decided { outcome };
        }
        let head = found.map(Thread::head);
        if head != append.after {
            return Appended::Moved { head };
        }

        let found = self.threads.entry(thread.clone()).or_default();
        let version = append.record.head.version;
        found.records.insert(version, append.record.clone());
        found.expires = None;
        found.change_index(append.record.head, &append.index, now);
        for round in &append.index.rounds_closed {
            self.expire_at(
                after(now, ENDED_ROUND_TTL),
                Expiry::Round(thread.clone(), *round),
            );
        }
        if let Some((command, outcome)) = &append.outcome {
            self.put_outcome(thread, command, outcome.clone(), now);
        }
        for id in &append.blobs {
            if let Some(blob) = self.blobs.get_mut(&(thread.clone(), id.clone())) {
                blob.expires = None;
                blob.named = version;
            }
        }
        Appended::Done
    }

    pub(super) fn head(&self, thread: &ThreadId) -> Option<Head> {
        self.threads.get(thread).map(Thread::head)
    }

    pub(super) fn load(&self, thread: &ThreadId) -> Result<Option<Loaded>, Error> {
        let Some(found) = self.threads.get(thread) else {
            return Ok(None);
        };
        let (_, last) = found
            .records
            .last_key_value()
            .expect("a thread has at least one record");
        let records: Vec<_> = found
            .records
            .range(last.snapshot..)
            .map(|(_, record)| record.clone())
            .collect();
        if records[0].head.version != last.snapshot {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "thread `{thread}` builds on a snapshot at version {} that is not in its log",
                    last.snapshot
                ),
            ));
        }
        Ok(Some(Loaded { records }))
    }

    pub(super) fn record(&self, thread: &ThreadId, version: u64) -> Option<&StoredRecord> {
        self.threads.get(thread)?.records.get(&version)
    }

    pub(super) fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Vec<StoredRecord> {
        let Some(found) = self.threads.get(thread) else {
            return Vec::new();
        };
        let end = before.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (Bound::Unbounded, end);
        let newest_first = found.records.range(range).rev();
        newest_first
            .take(limit)
            .map(|(_, record)| record.clone())
            .collect()
    }

    pub(super) fn put_result(
        &mut self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        result: Bytes,
    ) -> PutResult {
        let Some(found) = self.threads.get_mut(thread) else {
            return PutResult::UnknownThread;
        };
        let Some(round) = found.rounds.get_mut(&round).filter(|round| !round.ended) else {
            return PutResult::RoundOver;
        };
        let count = round.results.len() as u64;
        match round.results.entry(task.clone()) {
            Entry::Occupied(_) => PutResult::Duplicate { count },
            Entry::Vacant(free) => {
                free.insert(result);
                PutResult::Stored { count: count + 1 }
            }
        }
    }

    pub(super) fn results(&self, thread: &ThreadId, round: Dispatch) -> BTreeMap<TaskId, Bytes> {
        let found = self.threads.get(thread);
        found
            .and_then(|found| found.rounds.get(&round))
            .map(|round| round.results.clone())
            .unwrap_or_default()
    }

    pub(super) fn put_progress(
        &mut self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        index: u64,
        entry: Bytes,
    ) -> PutProgress {
        let Some(found) = self.threads.get_mut(thread) else {
            return PutProgress::UnknownThread;
        };
        let Some(round) = found.rounds.get_mut(&round).filter(|round| !round.ended) else {
            return PutProgress::RoundOver;
        };
        match round.progress.entry((task.clone(), index)) {
            Entry::Occupied(taken) => PutProgress::Taken {
                bytes: taken.get().clone(),
            },
            Entry::Vacant(free) => {
                free.insert(entry);
                PutProgress::Stored
            }
        }
    }

    pub(super) fn progress(&self, thread: &ThreadId, round: Dispatch, task: &TaskId) -> Vec<Bytes> {
        let found = self.threads.get(thread);
        let Some(round) = found.and_then(|found| found.rounds.get(&round)) else {
            return Vec::new();
        };
        let entry = |index| round.progress.get(&(task.clone(), index)).cloned();
        (0..).map_while(entry).collect()
    }

    pub(super) fn claim(
        &mut self,
        (thread, round, name): (&ThreadId, Dispatch, &str),
        owner: Nonce,
        lease: Duration,
        now: UnixMillis,
    ) -> Claimed {
        let key = (thread.clone(), round, name.to_owned());
        if let Some((held_by, until)) = self.claims.get(&key)
            && *held_by != owner
            && let Some(rest) = rest(*until, now)
        {
            return Claimed::Held { rest };
        }
        let until = after(now, lease.min(CLAIM_LEASE_MAX));
        if until > now {
            self.expire_at(until, Expiry::Claim(key.0.clone(), key.1, key.2.clone()));
            self.claims.insert(key, (owner, until));
        } else {
            self.claims.remove(&key);
        }
        Claimed::Mine
    }

    pub(super) fn claims(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        now: UnixMillis,
    ) -> BTreeMap<String, Claim> {
        self.claims
            .range((thread.clone(), round, String::new())..)
            .take_while(|((of, in_round, _), _)| of == thread && *in_round == round)
            .filter_map(|((_, _, name), (owner, until))| {
                let rest = rest(*until, now)?;
                let owner = *owner;
                Some((name.clone(), Claim { owner, rest }))
            })
            .collect()
    }

    fn open_round(&mut self, thread: &ThreadId, round: Dispatch) -> Option<&mut Round> {
        let found = self.threads.get_mut(thread)?;
        found.rounds.get_mut(&round).filter(|round| !round.ended)
    }

    pub(super) fn count_attempt(
        &mut self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Option<u64> {
        let round = self.open_round(thread, round)?;
        let count = round.attempts.entry(task.clone()).or_default();
        *count += 1;
        Some(*count)
    }

    pub(super) fn forgive_attempt(&mut self, thread: &ThreadId, round: Dispatch, task: &TaskId) {
        if let Some(round) = self.open_round(thread, round)
            && let Some(count) = round.attempts.get_mut(task)
        {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn put_outcome(
        &mut self,
        thread: &ThreadId,
        command: &CommandId,
        outcome: Bytes,
        now: UnixMillis,
    ) -> Option<Bytes> {
        match self.outcomes.entry((thread.clone(), command.clone())) {
            Entry::Occupied(kept) => Some(kept.get().bytes.clone()),
            Entry::Vacant(free) => {
                let expires = after(now, OUTCOME_TTL);
                free.insert(Outcome {
                    bytes: outcome,
                    expires,
                });
                self.expire_at(expires, Expiry::Outcome(thread.clone(), command.clone()));
                None
            }
        }
    }

    pub(super) fn outcome(&self, thread: &ThreadId, command: &CommandId) -> Option<Bytes> {
        let kept = self.outcomes.get(&(thread.clone(), command.clone()))?;
        Some(kept.bytes.clone())
    }

    pub(super) fn put_blob(&mut self, thread: &ThreadId, id: &str, bytes: Bytes, now: UnixMillis) {
        let expires = after(now, BLOB_TTL);
        match self.blobs.entry((thread.clone(), id.to_owned())) {
            Entry::Occupied(mut held) => {
                let held = held.get_mut();
                held.bytes = bytes;
                held.expires = held.expires.map(|_| expires);
            }
            Entry::Vacant(free) => {
                free.insert(Blob {
                    bytes,
                    expires: Some(expires),
                    named: 0,
                });
            }
        }
        self.expire_at(expires, Expiry::Blob(thread.clone(), id.to_owned()));
    }

    pub(super) fn blobs(&self, thread: &ThreadId, ids: &[String]) -> Result<Vec<Bytes>, Error> {
        let blob = |id: &String| {
            let held = self.blobs.get(&(thread.clone(), id.clone()));
            held.map(|blob| blob.bytes.clone()).ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("thread `{thread}` refers to value `{id}`, which is not in the store"),
                )
            })
        };
        ids.iter().map(blob).collect()
    }

    pub(super) fn unwatch(&mut self, thread: &ThreadId, head: Head) -> bool {
        let entry = self
            .threads
            .get_mut(thread)
            .map(|found| &mut found.watched)
            .filter(|entry| entry.is_some_and(|(watched, _)| watched == head));
        entry.is_some_and(|entry| entry.take().is_some())
    }

    pub(super) fn watched(
        &self,
        from: UnixMillis,
        until: UnixMillis,
        limit: usize,
    ) -> Vec<Watched> {
        let entry = |(thread, found): (&ThreadId, &Thread)| {
            let (head, since) = found.watched?;
            Some(Watched {
                thread: thread.clone(),
                graph: found.row.as_ref()?.graph.clone(),
                head,
                since,
            })
        };
        let mut entries: Vec<_> = self
            .threads
            .iter()
            .filter_map(entry)
            .filter(|entry| from <= entry.since && entry.since <= until)
            .collect();
        entries.sort_by_key(|entry| entry.since);
        entries.truncate(limit);
        entries
    }

    pub(super) fn due(&self, now: UnixMillis, limit: usize) -> Vec<Due> {
        let mut entries = Vec::new();
        for (thread, found) in &self.threads {
            for (name, at) in found.due.iter().filter(|(_, at)| **at <= now) {
                entries.push(Due {
                    thread: thread.clone(),
                    name: name.clone(),
                    at: *at,
                });
            }
        }
        entries.sort_by_key(|entry| entry.at);
        entries.truncate(limit);
        entries
    }

    pub(super) fn threads(
        &self,
        query: &ThreadQuery,
    ) -> Result<Page<(ThreadId, ThreadRow)>, Error> {
        let wanted = |row: &ThreadRow| {
            query.status.is_none_or(|status| row.status == status)
                && query
                    .graph
                    .as_ref()
                    .is_none_or(|name| row.graph.name == *name)
        };
        let rows = self.threads.iter().filter_map(|(thread, found)| {
            let row = found.row.as_ref().filter(|row| wanted(row))?;
            Some((thread.clone(), row.clone()))
        });
        let key = |(thread, row): &(ThreadId, ThreadRow)| Cursor {
            at: row.updated_at,
            ids: vec![thread.to_string()],
        };
        let after = query.after.as_deref();
        let after = after.map(|text| Cursor::decode(text, 1)).transpose()?;
        Ok(page(rows.collect(), query.limit, after, true, key))
    }

    pub(super) fn interrupts(
        &self,
        query: &InterruptQuery,
    ) -> Result<Page<(ThreadId, InterruptRow)>, Error> {
        let mut rows = Vec::new();
        for (thread, found) in &self.threads {
            if query.thread.as_ref().is_none_or(|wanted| wanted == thread) {
                for (id, opened_at) in &found.interrupts {
                    let row = InterruptRow {
                        id: id.clone(),
                        opened_at: *opened_at,
                    };
                    rows.push((thread.clone(), row));
                }
            }
        }
        let key = |(thread, row): &(ThreadId, InterruptRow)| Cursor {
            at: row.opened_at,
            ids: vec![row.id.to_string(), thread.to_string()],
        };
        let after = query.after.as_deref();
        let after = after.map(|text| Cursor::decode(text, 2)).transpose()?;
        Ok(page(rows, query.limit, after, false, key))
    }

    pub(super) fn trim(&mut self, thread: &ThreadId, snapshot: Head, now: UnixMillis) -> Trimmed {
        let Some(found) = self.threads.get_mut(thread) else {
            return Trimmed::NotASnapshot;
        };
        let record = found.records.get(&snapshot.version);
        if record.is_none_or(|record| record.head != snapshot || !record.is_snapshot()) {
            return Trimmed::NotASnapshot;
        }
        let kept = found.records.split_off(&snapshot.version);
        let removed = std::mem::replace(&mut found.records, kept);
        let expires = after(now, BLOB_TTL);
        let of_thread = (thread.clone(), String::new())..;
        let mut freed = Vec::new();
        for ((owner, id), blob) in self.blobs.range_mut(of_thread) {
            if owner != thread {
                break;
            }
            if blob.expires.is_none() && blob.named < snapshot.version {
                blob.expires = Some(expires);
                freed.push(id.clone());
            }
        }
        for id in freed {
            self.expire_at(expires, Expiry::Blob(thread.clone(), id));
        }
        Trimmed::Removed(removed.len() as u64)
    }

    pub(super) fn delete(
        &mut self,
        thread: &ThreadId,
        after_head: Head,
        tombstone: StoredRecord,
        now: UnixMillis,
    ) -> Appended {
        let found = self.threads.get(thread);
        if found.is_some_and(|found| found.holds(tombstone.head)) {
            return Appended::Done;
        }
        let head = found.map(Thread::head);
        if head != Some(after_head) {
            return Appended::Moved { head };
        }
        let expires = after(now, TOMBSTONE_TTL);
        let left = Thread {
            records: BTreeMap::from([(tombstone.head.version, tombstone)]),
            expires: Some(expires),
            ..Thread::default()
        };
        self.threads.insert(thread.clone(), left);
        self.blobs.retain(|(owner, _), _| owner != thread);
        self.expire_at(expires, Expiry::Tombstone(thread.clone()));
        Appended::Done
    }

    pub(super) fn register(&mut self, graph: &GraphId, about: Bytes, now: UnixMillis) {
        self.registrations.insert(graph.clone(), (about, now));
    }

    pub(super) fn registrations(&self) -> Vec<Registration> {
        let registration =
            |(graph, (about, renewed_at)): (&GraphId, &(Bytes, UnixMillis))| Registration {
                graph: graph.clone(),
                about: about.clone(),
                renewed_at: *renewed_at,
            };
        self.registrations.iter().map(registration).collect()
    }
}

impl Thread {
    fn change_index(&mut self, head: Head, change: &IndexChange, now: UnixMillis) {
        if let Some(row) = &change.row {
            self.row = Some(row.clone());
        }
        match change.watched {
            Some(true) => self.watched = Some((head, now)),
            Some(false) => self.watched = None,
            None => {}
        }
        for id in &change.closed {
            self.interrupts.remove(id);
        }
        for row in &change.opened {
            self.interrupts.insert(row.id.clone(), row.opened_at);
        }
        for name in &change.due_removed {
            self.due.remove(name);
        }
        for (name, at) in &change.due_set {
            self.due.insert(name.clone(), *at);
        }
        for round in &change.rounds_closed {
            if let Some(round) = self.rounds.get_mut(round) {
                round.ended = true;
            }
        }
        for round in &change.rounds_opened {
            self.rounds.insert(*round, Round::default());
        }
    }
}

/// How long a claim until `until` lives yet; `None` if it is dead.
fn rest(until: UnixMillis, now: UnixMillis) -> Option<Duration> {
    let rest = Duration::from_millis(until.0.saturating_sub(now.0));
    (!rest.is_zero() && rest <= CLAIM_LEASE_MAX).then_some(rest)
}

/// The time `ttl` after `now`.
pub(super) fn after(now: UnixMillis, ttl: Duration) -> UnixMillis {
    now.plus_ms(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))
}

/// One page of `rows`, ordered by time (newest first if so wanted), then ids, which `key`
/// gives; from after the cursor on.
fn page<Row>(
    mut rows: Vec<Row>,
    limit: usize,
    after: Option<Cursor>,
    newest_first: bool,
    key: impl Fn(&Row) -> Cursor,
) -> Page<Row> {
    let in_order = |a: &Cursor, b: &Cursor| {
        let by_time = a.at.cmp(&b.at);
        let by_time = if newest_first {
            by_time.reverse()
        } else {
            by_time
        };
        by_time.then_with(|| a.ids.cmp(&b.ids))
    };
    if let Some(after) = after {
        rows.retain(|row| in_order(&key(row), &after).is_gt());
    }
    rows.sort_by(|a, b| in_order(&key(a), &key(b)));
    let limit = page_rows(limit);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let last = rows.last().filter(|_| more);
    let next = last.map(|row| key(row).encode());
    Page { rows, next }
}
