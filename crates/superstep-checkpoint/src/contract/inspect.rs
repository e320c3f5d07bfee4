//! Contract: what tools see of a store, and how they mend its indexes.
//!
//! Entries that belong to nothing cannot be made through the port, so each store makes and finds
//! its own in its own tests; here a healthy store has none.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use superstep_protocol::{Head, ThreadId, ThreadStatus, UnixMillis};

use super::{
    build::{
        LATER, Log, all_interrupts, any_interrupt, any_thread, grow, head, interrupt, must, next,
        next_with, record, row, thread,
    },
    model::Dice,
};
use crate::{IndexChange, Inspect, PutResult, Reindex, Stray, ThreadLog, ThreadQuery};

/// One store behind both of its ports, with whatever must live as long as it.
pub struct Inspected<Guard> {
    /// The log.
    pub log: Arc<dyn ThreadLog>,
    /// The same, to look into.
    pub inspect: Arc<dyn Inspect>,
    /// Held as long.
    pub guard: Guard,
}

impl<Guard> Inspected<Guard> {
    /// Both ports of `store`.
    pub fn new<S: ThreadLog + Inspect>(store: Arc<S>, guard: Guard) -> Self {
        Self {
            log: Arc::clone(&store) as Arc<dyn ThreadLog>,
            inspect: store,
            guard,
        }
    }
}

impl<Guard> std::fmt::Debug for Inspected<Guard> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inspected").finish_non_exhaustive()
    }
}

type Tool = Arc<dyn Inspect>;

async fn all_logs(inspect: &Tool, limit: usize) -> BTreeSet<ThreadId> {
    let (mut after, mut found) = (None, BTreeSet::new());
    loop {
        let page = inspect.logs(after.as_deref(), limit).await.unwrap();
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

async fn all_strays(inspect: &Tool) -> Vec<Stray> {
    let (mut after, mut found) = (None, Vec::new());
    loop {
        let page = inspect.strays(after.as_deref(), 10).await.unwrap();
        found.extend(page.rows);
        after = page.next;
        if after.is_none() {
            return found;
        }
    }
}

/// An index change with one of everything.
fn everything() -> IndexChange {
    IndexChange {
        row: Some(row(ThreadStatus::Busy, "letter", 2_000)),
        watched: Some(true),
        opened: vec![interrupt("q\0a", 5), interrupt("q2", 6)],
        due_set: BTreeMap::from([("t\0:1".to_owned(), UnixMillis(70))]),
        rounds_opened: vec![head(1, 1)],
        ..IndexChange::default()
    }
}

/// Every thread with a log is found without the indexes, a tombstone too.
pub async fn every_log_is_found_without_the_indexes(log: Log, inspect: Tool) {
    assert!(all_logs(&inspect, 3).await.is_empty());
    let mut expected = BTreeSet::new();
    for n in 0..25 {
        let id = thread(&format!("odd [{n}*]{{x}}: ü"));
        grow(&log, &id, 1 + n % 3).await;
        expected.insert(id);
    }
    let gone = thread("deleted");
    let last = grow(&log, &gone, 2).await;
    super::delete::must_delete(&log, &gone, last).await;
    expected.insert(gone);
    assert_eq!(all_logs(&inspect, 7).await, expected);
    assert_eq!(all_logs(&inspect, 1_000).await, expected);
    assert!(all_strays(&inspect).await.is_empty());
}

/// What is kept of a thread is what its appends wrote.
pub async fn what_is_kept_follows_the_appends(log: Log, inspect: Tool) {
    let id = thread("kept");
    assert_eq!(inspect.kept(&id).await.unwrap(), None);
    let mut first = next_with(None, 1, everything());
    first.blobs = vec!["b1".to_owned()];
    log.put_blob(&id, "b1", Bytes::from("x")).await.unwrap();
    log.put_blob(&id, "b2", Bytes::from("y")).await.unwrap();
    let one = must(&log, &id, &first).await;
    let two = must(&log, &id, &next(Some(one), 2)).await;
    let kept = inspect.kept(&id).await.unwrap().unwrap();
    assert_eq!((kept.head, kept.records, kept.oldest), (Some(two), 2, 1));
    assert!(kept.record_bytes > 0 && !kept.expires && kept.torn.is_empty());
    assert_eq!(kept.row, first.index.row);
    assert_eq!(kept.watched, Some(one));
    let opened = [("q\0a".into(), UnixMillis(5)), ("q2".into(), UnixMillis(6))];
    assert_eq!(kept.interrupts, BTreeMap::from(opened));
    assert_eq!(kept.due, first.index.due_set);
    assert_eq!(kept.rounds, BTreeSet::from([head(1, 1)]));
    assert_eq!(kept.blobs, BTreeSet::from(["b1".to_owned()]));
    let closing = IndexChange {
        watched: Some(false),
        closed: vec!["q2".into()],
        due_removed: vec!["t\0:1".to_owned()],
        rounds_closed: vec![head(1, 1)],
        ..IndexChange::default()
    };
    let mut last = next_with(Some(two), 3, closing);
    last.record = record(head(3, 3), 3);
    let three = must(&log, &id, &last).await;
    log.trim(&id, three).await.unwrap();
    let kept = inspect.kept(&id).await.unwrap().unwrap();
    assert_eq!((kept.records, kept.oldest, kept.watched), (1, 3, None));
    assert_eq!(kept.interrupts.len(), 1);
    assert!(kept.due.is_empty() && kept.rounds.is_empty() && kept.blobs.is_empty());
    assert!(all_strays(&inspect).await.is_empty());
}

/// However puts, appends and trims follow each other, the values that stay are those that a record
/// in the log refers to.
pub async fn blobs_stay_as_long_as_their_records(log: Log, inspect: Tool) {
    const IDS: [&str; 4] = ["a", "b\0c", "b", "d"];
    let mut dice = Dice(11);
    for round in 0..4 {
        let id = thread(&format!("t{round}"));
        let mut last = None;
        let mut names: BTreeMap<u64, Vec<String>> = BTreeMap::new();
        for _ in 0..60 {
            match dice.below(4) {
                0 => {
                    let name = *dice.pick(&IDS).unwrap();
                    log.put_blob(&id, name, Bytes::from(name)).await.unwrap();
                }
                1 => {
                    let kept: Vec<u64> = names.keys().copied().collect();
                    if let Some(at) = dice.pick(&kept).copied() {
                        log.trim(&id, head(at, at)).await.unwrap();
                        names = names.split_off(&at);
                    }
                }
                _ => {
                    let chosen: Vec<_> = IDS.iter().filter(|_| dice.one_in(2)).collect();
                    for name in &chosen {
                        log.put_blob(&id, name, Bytes::from(**name)).await.unwrap();
                    }
                    let version = last.map_or(1, |last: Head| last.version + 1);
                    let mut append = next_with(last, version, IndexChange::default());
                    append.record = record(head(version, version), version);
                    append.blobs = chosen.iter().map(ToString::to_string).collect();
                    last = Some(must(&log, &id, &append).await);
                    names.insert(version, append.blobs);
                }
            }
            let live: BTreeSet<String> = names.values().flatten().cloned().collect();
            let ids: Vec<String> = live.iter().cloned().collect();
            log.blobs(&id, &ids).await.unwrap();
            let kept = inspect.kept(&id).await.unwrap();
            assert_eq!(kept.map(|kept| kept.blobs).unwrap_or_default(), live);
        }
    }
    assert!(all_strays(&inspect).await.is_empty());
}

/// A tombstone is kept for its time and has no entries.
pub async fn a_tombstone_is_kept_without_entries(log: Log, inspect: Tool) {
    let id = thread("gone");
    let last = must(&log, &id, &next_with(None, 1, everything())).await;
    let tombstone = super::delete::must_delete(&log, &id, last).await;
    let kept = inspect.kept(&id).await.unwrap().unwrap();
    assert!(kept.expires);
    let expected = crate::Kept {
        head: Some(tombstone),
        records: 1,
        oldest: 2,
        record_bytes: kept.record_bytes,
        expires: true,
        ..crate::Kept::default()
    };
    assert_eq!(kept, expected);
    assert!(all_strays(&inspect).await.is_empty());
}

/// A reindex replaces every entry, and every list shows it.
pub async fn a_reindex_replaces_every_entry(log: Log, inspect: Tool) {
    let (id, other) = (thread("mended"), thread("other"));
    must(&log, &other, &next_with(None, 9, everything())).await;
    let before = inspect.kept(&other).await.unwrap();
    let at = must(&log, &id, &next_with(None, 1, everything())).await;
    let truth = Reindex {
        row: Some(row(ThreadStatus::Idle, "memo", 3_000)),
        watched: false,
        interrupts: BTreeMap::from([("q2".into(), UnixMillis(8)), ("q3".into(), UnixMillis(9))]),
        due: BTreeMap::from([("t2".to_owned(), UnixMillis(71))]),
        rounds: BTreeSet::from([head(7, 7)]),
    };
    assert!(inspect.reindex(&id, at, &truth).await.unwrap());
    let kept = inspect.kept(&id).await.unwrap().unwrap();
    assert_eq!((&kept.row, kept.watched), (&truth.row, None));
    assert_eq!(
        (&kept.interrupts, &kept.due),
        (&truth.interrupts, &truth.due)
    );
    assert_eq!((&kept.rounds, kept.records), (&truth.rounds, 1));
    assert!(kept.torn.is_empty(), "{kept:?}");
    assert_eq!(inspect.kept(&other).await.unwrap(), before);
    assert!(all_strays(&inspect).await.is_empty());

    let idle = ThreadQuery {
        status: Some(ThreadStatus::Idle),
        graph: Some("memo".into()),
        ..any_thread(10)
    };
    let listed = log.threads(&idle).await.unwrap();
    assert_eq!(listed.rows, [(id.clone(), truth.row.clone().unwrap())]);
    assert_eq!(log.threads(&any_thread(10)).await.unwrap().rows.len(), 2);
    let mine = crate::InterruptQuery {
        thread: Some(id.clone()),
        ..any_interrupt(10)
    };
    assert_eq!(all_interrupts(&log, &mine).await.len(), 2);
    assert_eq!(all_interrupts(&log, &any_interrupt(10)).await.len(), 4);
    let due = log.due(LATER, 10).await.unwrap();
    let names: Vec<_> = due.iter().map(|due| due.name.as_str()).collect();
    assert_eq!(names, ["t\0:1", "t2"]);
    let watched = log.watched(UnixMillis(0), LATER, 10).await.unwrap();
    assert_eq!(watched.len(), 1);
    let (closed, opened) = (head(1, 1), head(7, 7));
    let task = superstep_graph::TaskId::from("t");
    let put = |round| log.put_result(&id, round, &task, Bytes::new());
    assert_eq!(put(closed).await.unwrap(), PutResult::RoundOver);
    assert_eq!(put(opened).await.unwrap(), PutResult::Stored { count: 1 });
}

/// A reindex that enters the watch names the head; one that is there stays.
pub async fn a_reindex_enters_the_watch_with_the_head(log: Log, inspect: Tool) {
    let id = thread("watched");
    let one = grow(&log, &id, 1).await;
    let truth = Reindex {
        row: Some(row(ThreadStatus::Busy, "letter", 1_000)),
        watched: true,
        ..Reindex::default()
    };
    assert!(inspect.reindex(&id, one, &truth).await.unwrap());
    assert_eq!(
        log.watched(UnixMillis(0), LATER, 10).await.unwrap()[0].head,
        one
    );
    let two = must(&log, &id, &next(Some(one), 2)).await;
    assert!(inspect.reindex(&id, two, &truth).await.unwrap());
    assert_eq!(
        log.watched(UnixMillis(0), LATER, 10).await.unwrap()[0].head,
        one
    );
    assert!(log.unwatch(&id, one).await.unwrap());
}

/// A reindex on another head, or of no thread, changes nothing.
pub async fn a_reindex_compares_the_head(log: Log, inspect: Tool) {
    let id = thread("moved");
    must(&log, &id, &next_with(None, 1, everything())).await;
    let before = inspect.kept(&id).await.unwrap();
    let truth = Reindex::default();
    for stale in [head(1, 2), head(2, 1)] {
        assert!(!inspect.reindex(&id, stale, &truth).await.unwrap());
    }
    assert!(
        !inspect
            .reindex(&thread("none"), head(1, 1), &truth)
            .await
            .unwrap()
    );
    assert_eq!(inspect.kept(&id).await.unwrap(), before);
    assert_eq!(inspect.kept(&thread("none")).await.unwrap(), None);
}

/// A healthy thread has no strays, through rounds that end with results.
pub async fn rounds_that_end_leave_no_strays(log: Log, inspect: Tool) {
    let id = thread("rounds");
    let at = must(&log, &id, &next_with(None, 1, everything())).await;
    let task = superstep_graph::TaskId::from("t");
    log.put_result(&id, at, &task, Bytes::from("r"))
        .await
        .unwrap();
    log.put_progress(&id, at, &task, 0, Bytes::from("p"))
        .await
        .unwrap();
    assert!(all_strays(&inspect).await.is_empty());
    let closing = IndexChange {
        rounds_closed: vec![at],
        ..IndexChange::default()
    };
    must(&log, &id, &next_with(Some(at), 2, closing)).await;
    assert!(all_strays(&inspect).await.is_empty());
    let none = Stray {
        kind: crate::StrayKind::Results,
        thread: id,
        name: at.to_string(),
    };
    assert!(!inspect.is_stray(&none).await.unwrap());
    assert!(!inspect.remove_stray(&none).await.unwrap());
}
