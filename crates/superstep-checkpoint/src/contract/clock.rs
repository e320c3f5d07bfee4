//! Contract of time, for logs whose clock can be set: what goes away, when, and what stays.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use superstep_graph::TaskId;
use superstep_protocol::{Head, Nonce, ThreadId, UnixMillis};

use super::{
    build::{
        EARLIER, LATER, Log, command, graph, grow, head, must, next, next_with, record,
        start_round, thread,
    },
    model::Dice,
};
use crate::{
    Append, Appended, BLOB_TTL, ENDED_ROUND_TTL, ErrorKind, IndexChange, OUTCOME_TTL, PutResult,
    TOMBSTONE_TTL, Trimmed, memory::Clock,
};

/// A clock that stands still until it is told to go on.
#[derive(Clone, Debug)]
pub struct ManualClock {
    now_ms: Arc<AtomicU64>,
}

impl Default for ManualClock {
    fn default() -> Self {
        Self {
            now_ms: Arc::new(AtomicU64::new(1_800_000_000_000)),
        }
    }
}

impl ManualClock {
    /// The clock as logs take it.
    pub fn clock(&self) -> Clock {
        let now_ms = Arc::clone(&self.now_ms);
        Arc::new(move || UnixMillis(now_ms.load(Ordering::SeqCst)))
    }

    /// What it shows.
    pub fn now(&self) -> UnixMillis {
        UnixMillis(self.now_ms.load(Ordering::SeqCst))
    }

    /// Sets the clock back, as a failover to another server does.
    pub fn step_back(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.now_ms.fetch_sub(ms, Ordering::SeqCst);
    }

    /// Lets `time` pass.
    pub fn advance(&self, time: Duration) {
        let ms = u64::try_from(time.as_millis()).unwrap();
        self.now_ms.fetch_add(ms, Ordering::SeqCst);
    }
}

pub(super) const MOMENT: Duration = Duration::from_millis(1);

fn just_before(time: Duration) -> Duration {
    time.checked_sub(MOMENT).unwrap()
}

async fn delete(log: &Log) -> Head {
    let t = thread("t");
    let now = grow(log, &t, 2).await;
    let grave = head(3, 666);
    let answer = log.delete(&t, now, record(grave, 3)).await.unwrap();
    assert_eq!(answer, Appended::Done);
    grave
}

/// After its time a tombstone is gone, and the name is free for a first record.
pub async fn a_tombstone_goes_away_in_time(log: Log, clock: ManualClock) {
    let t = thread("t");
    let grave = delete(&log).await;
    clock.advance(just_before(TOMBSTONE_TTL));
    assert_eq!(log.head(&t).await.unwrap(), Some(grave));
    clock.advance(MOMENT * 2);
    assert_eq!(log.head(&t).await.unwrap(), None);
    assert_eq!(log.load(&t).await.unwrap(), None);
    assert_eq!(log.record(&t, 3).await.unwrap(), None);
    assert_eq!(log.history(&t, None, 10).await.unwrap(), []);
    let put = log
        .put_result(&t, head(1, 1), &TaskId::from("a"), Bytes::new())
        .await;
    assert_eq!(put.unwrap(), PutResult::UnknownThread);
    let late = log.append(&t, &next(Some(grave), 4)).await.unwrap();
    assert_eq!(late, Appended::Moved { head: None });
    must(&log, &t, &next(None, 9)).await;
    assert_eq!(log.history(&t, None, 10).await.unwrap().len(), 1);
}

/// A thread that goes on from a tombstone is a thread: nothing of it goes away.
pub async fn an_append_lifts_the_tombstones_time(log: Log, clock: ManualClock) {
    let t = thread("t");
    let grave = delete(&log).await;
    let mut again = next(None, 9);
    again.after = Some(grave);
    again.record = record(head(4, 9), 4);
    let now = must(&log, &t, &again).await;
    clock.advance(TOMBSTONE_TTL * 3);
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
    assert_eq!(log.history(&t, None, 10).await.unwrap().len(), 2);
    must(&log, &t, &next(Some(now), 10)).await;
}

/// Results of an ended round are kept for a while and then gone; late ones stay refused.
pub async fn results_of_an_ended_round_go_away_in_time(log: Log, clock: ManualClock) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let (a, b) = (TaskId::from("a"), TaskId::from("b"));
    let put = log.put_result(&t, round, &a, Bytes::from("r")).await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    let index = IndexChange {
        rounds_closed: vec![round],
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(round), 2, index)).await;
    clock.advance(ENDED_ROUND_TTL + MOMENT);
    assert!(log.results(&t, round).await.unwrap().is_empty());
    for task in [a, b] {
        let put = log.put_result(&t, round, &task, Bytes::from("late")).await;
        assert_eq!(put.unwrap(), PutResult::RoundOver);
    }
    assert!(log.results(&t, round).await.unwrap().is_empty());
}

/// A sibling that waits for days does not lose the others' results.
pub async fn results_of_an_open_round_stay(log: Log, clock: ManualClock) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let put = log
        .put_result(&t, round, &TaskId::from("a"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 1 });
    clock.advance(ENDED_ROUND_TTL * 1_000);
    let put = log
        .put_result(&t, round, &TaskId::from("b"), Bytes::from("r"))
        .await;
    assert_eq!(put.unwrap(), PutResult::Stored { count: 2 });
    assert_eq!(log.results(&t, round).await.unwrap().len(), 2);
}

/// Outcomes are kept for their time at least, and not for ever.
pub async fn outcomes_go_away_in_time(log: Log, clock: ManualClock) {
    let t = thread("t");
    let c = command("c");
    let put = log.put_outcome(&t, &c, Bytes::from("first")).await;
    assert_eq!(put.unwrap(), None);
    clock.advance(just_before(OUTCOME_TTL));
    let kept = log.outcome(&t, &c).await.unwrap();
    assert_eq!(kept, Some(Bytes::from("first")));
    clock.advance(OUTCOME_TTL * 2);
    assert_eq!(log.outcome(&t, &c).await.unwrap(), None);
    // The command can be decided again, by a put or with an append.
    let append = Append {
        outcome: Some((c.clone(), Bytes::from("second"))),
        ..next(None, 1)
    };
    must(&log, &t, &append).await;
    let put = log.put_outcome(&t, &c, Bytes::from("third")).await;
    assert_eq!(put.unwrap(), Some(Bytes::from("second")));
}

/// A value whose writer died before its record does not stay.
pub async fn a_blob_without_a_record_goes_away_in_time(log: Log, clock: ManualClock) {
    let t = thread("t");
    let ids = ["a".to_owned()];
    log.put_blob(&t, "a", Bytes::from("v")).await.unwrap();
    clock.advance(just_before(BLOB_TTL));
    assert_eq!(log.blobs(&t, &ids).await.unwrap(), [Bytes::from("v")]);
    clock.advance(MOMENT * 2);
    let error = log.blobs(&t, &ids).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

/// A value that a record refers to stays, also when it is put again.
pub async fn a_blob_of_a_record_stays(log: Log, clock: ManualClock) {
    let t = thread("t");
    let ids = ["a".to_owned()];
    log.put_blob(&t, "a", Bytes::from("v")).await.unwrap();
    let append = Append {
        blobs: ids.to_vec(),
        ..next(None, 1)
    };
    must(&log, &t, &append).await;
    clock.advance(BLOB_TTL * 2);
    assert_eq!(log.blobs(&t, &ids).await.unwrap(), [Bytes::from("v")]);
    log.put_blob(&t, "a", Bytes::from("w")).await.unwrap();
    clock.advance(BLOB_TTL * 2);
    assert_eq!(log.blobs(&t, &ids).await.unwrap(), [Bytes::from("w")]);
}

/// A second writer's put gives its record the whole time again.
pub async fn a_blob_put_again_before_its_record_stays_longer(log: Log, clock: ManualClock) {
    let t = thread("t");
    let ids = ["a".to_owned()];
    log.put_blob(&t, "a", Bytes::from("v")).await.unwrap();
    clock.advance(just_before(BLOB_TTL));
    log.put_blob(&t, "a", Bytes::from("v")).await.unwrap();
    clock.advance(just_before(BLOB_TTL));
    assert_eq!(log.blobs(&t, &ids).await.unwrap(), [Bytes::from("v")]);
}

/// Puts blobs and appends the next record, with a snapshot, that refers to them.
async fn append_naming(log: &Log, t: &ThreadId, after: Option<Head>, ids: &[&str]) -> Head {
    let version = after.map_or(1, |after| after.version + 1);
    for id in ids {
        put(log, t, id).await;
    }
    let mut append = next(after, version);
    append.record = record(head(version, version), version);
    append.blobs = ids.iter().map(|id| (*id).to_owned()).collect();
    must(log, t, &append).await
}

async fn put(log: &Log, t: &ThreadId, id: &str) {
    let bytes = Bytes::copy_from_slice(id.as_bytes());
    log.put_blob(t, id, bytes).await.unwrap();
}

/// Whether the blob of this id is there, as it was put.
async fn is_there(log: &Log, t: &ThreadId, id: &str) -> bool {
    match log.blobs(t, &[id.to_owned()]).await {
        Ok(found) => found == [Bytes::copy_from_slice(id.as_bytes())],
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt);
            false
        }
    }
}

/// What only trimmed records refer to goes away in time, and nothing else does.
pub async fn a_trim_frees_blobs_of_trimmed_records_only(log: Log, clock: ManualClock) {
    let (t, u) = (thread("t"), thread("u"));
    append_naming(&log, &u, None, &["old"]).await;
    let one = append_naming(&log, &t, None, &["old", "both"]).await;
    let two = append_naming(&log, &t, Some(one), &["both", "new"]).await;
    let trimmed = log.trim(&t, one).await.unwrap();
    assert_eq!(trimmed, Trimmed::Removed(0));
    clock.advance(BLOB_TTL * 2);
    assert!(is_there(&log, &t, "old").await);
    let refused = Head {
        nonce: Nonce(99),
        ..two
    };
    let trimmed = log.trim(&t, refused).await.unwrap();
    assert_eq!(trimmed, Trimmed::NotASnapshot);
    clock.advance(BLOB_TTL * 2);
    assert!(is_there(&log, &t, "old").await);
    let trimmed = log.trim(&t, two).await.unwrap();
    assert_eq!(trimmed, Trimmed::Removed(1));
    clock.advance(just_before(BLOB_TTL));
    assert!(is_there(&log, &t, "old").await);
    clock.advance(MOMENT * 2);
    assert!(!is_there(&log, &t, "old").await);
    clock.advance(BLOB_TTL * 2);
    assert!(is_there(&log, &t, "both").await && is_there(&log, &t, "new").await);
    assert!(is_there(&log, &u, "old").await);
}

/// A writer that put a value before a trim freed it keeps it with its record.
pub async fn a_blob_freed_by_a_trim_is_lifted_by_an_append(log: Log, clock: ManualClock) {
    let t = thread("t");
    let one = append_naming(&log, &t, None, &["a", "b"]).await;
    let two = append_naming(&log, &t, Some(one), &[]).await;
    put(&log, &t, "a").await;
    log.trim(&t, two).await.unwrap();
    let mut append = next(Some(two), 3);
    append.blobs = vec!["a".to_owned()];
    must(&log, &t, &append).await;
    clock.advance(BLOB_TTL * 2);
    assert!(is_there(&log, &t, "a").await);
    assert!(!is_there(&log, &t, "b").await);
    // One that was freed and is put again has the whole time from then on.
    append_naming(&log, &t, Some(head(3, 3)), &["b"]).await;
    let five = append_naming(&log, &t, Some(head(4, 4)), &["a"]).await;
    log.trim(&t, five).await.unwrap();
    clock.advance(just_before(BLOB_TTL));
    put(&log, &t, "b").await;
    clock.advance(just_before(BLOB_TTL));
    append_naming(&log, &t, Some(five), &["b"]).await;
    clock.advance(BLOB_TTL * 2);
    assert!(is_there(&log, &t, "a").await && is_there(&log, &t, "b").await);
}

/// However puts, appends, trims and time follow each other, no value is lost that a record in the
/// log refers to, and none stays that no record does.
pub async fn no_blob_of_a_record_is_lost_to_trims(log: Log, clock: ManualClock) {
    const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];
    let mut dice = Dice(7);
    for round in 0..6 {
        let t = thread(&format!("t{round}"));
        let mut last = None;
        let mut names: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
        let mut put_at: BTreeMap<&str, UnixMillis> = BTreeMap::new();
        for _ in 0..80 {
            match dice.below(8) {
                0..=2 => {
                    let id = *dice.pick(&IDS).unwrap();
                    put(&log, &t, id).await;
                    put_at.insert(id, clock.now());
                }
                3..=4 => {
                    // A writer appends well within the time of what it put.
                    let fresh = clock.now().0 - u64::try_from(BLOB_TTL.as_millis()).unwrap() / 2;
                    let ready = put_at.iter().filter(|(_, at)| at.0 >= fresh);
                    let ids: Vec<&str> = ready.map(|(id, _)| *id).collect();
                    let ids: Vec<&str> = ids.into_iter().filter(|_| dice.one_in(2)).collect();
                    let version = last.map_or(1, |last: Head| last.version + 1);
                    let mut append = next(last, version);
                    append.record = record(head(version, version), version);
                    append.blobs = ids.iter().map(|id| (*id).to_owned()).collect();
                    last = Some(must(&log, &t, &append).await);
                    names.insert(version, ids);
                }
                5..=6 => {
                    let kept: Vec<u64> = names.keys().copied().collect();
                    if let Some(at) = dice.pick(&kept).copied() {
                        log.trim(&t, head(at, at)).await.unwrap();
                        names = names.split_off(&at);
                    }
                }
                _ => {
                    let part = u32::try_from(dice.below(5)).unwrap();
                    clock.advance(BLOB_TTL / 4 * part);
                }
            }
            for id in names.values().flatten() {
                assert!(is_there(&log, &t, id).await, "{id} of {names:?}");
            }
        }
        let Some(last) = last else { continue };
        let end = append_naming(&log, &t, Some(last), &["a"]).await;
        log.trim(&t, end).await.unwrap();
        clock.advance(BLOB_TTL * 2);
        for id in IDS {
            assert_eq!(is_there(&log, &t, id).await, id == "a", "{id}");
        }
    }
}

/// A worker that stopped renewing is seen by the age of its registration.
pub async fn registrations_carry_when_they_were_renewed(log: Log, clock: ManualClock) {
    let (a, b) = (graph("a", "1"), graph("b", "1"));
    let start = clock.now();
    for graph in [&a, &b] {
        log.register(graph, Bytes::from("{}")).await.unwrap();
    }
    clock.advance(crate::REGISTRATION_TTL * 2);
    log.register(&a, Bytes::from("{}")).await.unwrap();
    let registrations = log.registrations().await.unwrap();
    let renewed = |wanted| {
        let mut found = registrations.iter().filter(|r| r.graph == wanted);
        found.next().unwrap().renewed_at
    };
    assert_eq!(renewed(a), clock.now());
    assert_eq!(renewed(b), start, "it is kept, with its age");
}

/// Watch entries are found once they are old enough, by the store's own clock.
pub async fn watch_entries_carry_the_stores_time(log: Log, clock: ManualClock) {
    let watch = || IndexChange {
        watched: Some(true),
        ..IndexChange::default()
    };
    let start = clock.now();
    for id in ["a", "b", "c"] {
        must(&log, &thread(id), &next_with(None, 1, watch())).await;
        clock.advance(MOMENT);
    }
    let moved = next_with(Some(head(1, 1)), 2, watch());
    must(&log, &thread("a"), &moved).await;
    let found = log.watched(EARLIER, LATER, 10).await.unwrap();
    let found: Vec<_> = found
        .iter()
        .map(|entry| (entry.thread.as_str(), entry.since.0 - start.0))
        .collect();
    assert_eq!(found, [("b", 1), ("c", 2), ("a", 3)]);
    let until = start.plus_ms(2);
    assert_eq!(log.watched(EARLIER, until, 10).await.unwrap().len(), 2);
    assert_eq!(log.now().await.unwrap(), clock.now());
}
