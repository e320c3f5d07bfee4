//! Contract: watch, timers, open questions and the thread's row, as appends change them.

use superstep_protocol::{ThreadStatus, UnixMillis};

use super::build::{
    EARLIER, LATER, Log, any_interrupt, any_thread, graph, grow, head, interrupt, must, next,
    next_with, row, thread,
};
use crate::{IndexChange, InterruptRow, ThreadQuery, ThreadRow};

fn watch(watched: bool) -> IndexChange {
    IndexChange {
        watched: Some(watched),
        ..IndexChange::default()
    }
}

fn timers(set: &[(&str, u64)], removed: &[&str]) -> IndexChange {
    let set = set
        .iter()
        .map(|(name, at)| ((*name).to_owned(), UnixMillis(*at)));
    IndexChange {
        due_set: set.collect(),
        due_removed: removed.iter().map(|name| (*name).to_owned()).collect(),
        ..IndexChange::default()
    }
}

/// The watch entry carries the head and time of the append that made it.
pub async fn a_watched_thread_is_listed_with_its_head(log: Log) {
    let t = thread("t");
    grow(&log, &thread("unwatched"), 1).await;
    let from = log.now().await.unwrap();
    let now = must(&log, &t, &next_with(None, 1, watch(true))).await;
    let until = log.now().await.unwrap();
    let entries = log.watched(EARLIER, until, 10).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!((&entries[0].thread, entries[0].head), (&t, now));
    assert_eq!(entries[0].graph, graph("letter", "1"));
    assert!((from..=until).contains(&entries[0].since), "{entries:?}");
    // An append that says nothing of the watch leaves the entry as it is.
    must(&log, &t, &next(Some(now), 2)).await;
    assert_eq!(log.watched(EARLIER, LATER, 10).await.unwrap(), entries);
}

/// A later append that owes something moves the entry to its own head.
pub async fn watching_again_moves_the_entry(log: Log) {
    let t = thread("t");
    let first = must(&log, &t, &next_with(None, 1, watch(true))).await;
    let second = must(&log, &t, &next_with(Some(first), 2, watch(true))).await;
    let entries = log.watched(EARLIER, LATER, 10).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].head, second);
}

/// An append after which nothing is owed leaves the watch.
pub async fn an_append_can_end_the_watch(log: Log) {
    let t = thread("t");
    let first = must(&log, &t, &next_with(None, 1, watch(true))).await;
    must(&log, &t, &next_with(Some(first), 2, watch(false))).await;
    assert_eq!(log.watched(EARLIER, LATER, 10).await.unwrap(), []);
}

/// A worker that is late to leave the watch must not take a newer entry with it.
pub async fn unwatch_compares_the_head(log: Log) {
    let t = thread("t");
    let first = must(&log, &t, &next_with(None, 1, watch(true))).await;
    let second = must(&log, &t, &next_with(Some(first), 2, watch(true))).await;
    for stale in [first, head(2, 99), head(3, 2)] {
        assert!(!log.unwatch(&t, stale).await.unwrap(), "{stale}");
    }
    assert_eq!(log.watched(EARLIER, LATER, 10).await.unwrap().len(), 1);
    assert!(log.unwatch(&t, second).await.unwrap());
    assert_eq!(log.watched(EARLIER, LATER, 10).await.unwrap(), []);
    assert!(!log.unwatch(&t, second).await.unwrap(), "it was gone");
    // The entry is of the append that made it, not of the head.
    let third = must(&log, &t, &next_with(Some(second), 3, watch(true))).await;
    let fourth = must(&log, &t, &next(Some(third), 4)).await;
    assert!(!log.unwatch(&t, fourth).await.unwrap());
    assert!(log.unwatch(&t, third).await.unwrap());
}

/// The reconciler asks for what has waited longest.
pub async fn watched_goes_oldest_first_within_until_and_limit(log: Log) {
    for n in 0..12 {
        let t = thread(&format!("t{n}"));
        must(&log, &t, &next_with(None, 1, watch(true))).await;
    }
    let all = log.watched(EARLIER, LATER, 100).await.unwrap();
    assert_eq!(all.len(), 12);
    assert!(all.is_sorted_by_key(|entry| entry.since), "{all:?}");
    assert_eq!(log.watched(EARLIER, LATER, 5).await.unwrap().len(), 5);
    assert_eq!(log.watched(EARLIER, UnixMillis(0), 100).await.unwrap(), []);
    let until = all[6].since;
    let up_to = all.iter().filter(|entry| entry.since <= until).count();
    assert_eq!(log.watched(EARLIER, until, 100).await.unwrap().len(), up_to);
    let from = all[6].since;
    let rest = all.iter().filter(|entry| entry.since >= from).count();
    assert_eq!(log.watched(from, LATER, 100).await.unwrap().len(), rest);
    let oldest = log.watched(EARLIER, LATER, 1).await.unwrap();
    assert_eq!(oldest[0].since, all[0].since);
}

/// A timer is due from its time on, and stays so until an append takes it out.
pub async fn timers_are_due_by_their_time(log: Log) {
    let t = thread("t");
    let index = timers(&[("wake", 5_000), ("deadline", 7_000)], &[]);
    must(&log, &t, &next_with(None, 1, index)).await;
    for (now, names) in [
        (4_999, &[][..]),
        (5_000, &["wake"]),
        (6_999, &["wake"]),
        (7_000, &["wake", "deadline"]),
    ] {
        for _ in 0..2 {
            let due = log.due(UnixMillis(now), 10).await.unwrap();
            let found: Vec<_> = due.iter().map(|entry| entry.name.as_str()).collect();
            assert_eq!(found, names, "at {now}");
        }
    }
    let due = log.due(UnixMillis(5_000), 10).await.unwrap();
    assert_eq!((&due[0].thread, due[0].at), (&t, UnixMillis(5_000)));
}

/// Timers are named within their thread: set again is moved, removed is gone.
pub async fn a_timer_is_moved_and_removed(log: Log) {
    let (t, u) = (thread("t"), thread("u"));
    let index = timers(&[("a", 1_000), ("b", 1_000)], &[]);
    let first = must(&log, &t, &next_with(None, 1, index.clone())).await;
    must(&log, &u, &next_with(None, 1, index)).await;
    let index = timers(&[("a", 9_000)], &["b", "never set"]);
    let second = must(&log, &t, &next_with(Some(first), 2, index)).await;
    let of_t = |due: Vec<crate::Due>| -> Vec<(String, u64)> {
        let of_t = due.into_iter().filter(|entry| entry.thread == t);
        of_t.map(|entry| (entry.name, entry.at.0)).collect()
    };
    let due = log.due(UnixMillis(8_999), 10).await.unwrap();
    assert_eq!(due.len(), 2, "the other thread's timers stay");
    assert_eq!(of_t(due), []);
    let due = log.due(LATER, 10).await.unwrap();
    assert_eq!(of_t(due), [("a".to_owned(), 9_000)]);
    must(&log, &t, &next_with(Some(second), 3, timers(&[], &["a"]))).await;
    assert_eq!(of_t(log.due(LATER, 10).await.unwrap()), []);
}

/// What is due longest comes first, over all threads.
pub async fn due_goes_earliest_first_within_the_limit(log: Log) {
    for (n, at) in [5_000, 3_000, 9_000, 1_000, 7_000].into_iter().enumerate() {
        let t = thread(&format!("t{n}"));
        let index = timers(&[("x", at), ("y", at + 1)], &[]);
        must(&log, &t, &next_with(None, 1, index)).await;
    }
    let times =
        |due: Vec<crate::Due>| -> Vec<u64> { due.into_iter().map(|entry| entry.at.0).collect() };
    let due = log.due(LATER, 100).await.unwrap();
    let all = [
        1_000, 1_001, 3_000, 3_001, 5_000, 5_001, 7_000, 7_001, 9_000, 9_001,
    ];
    assert_eq!(times(due), all);
    let due = log.due(LATER, 3).await.unwrap();
    assert_eq!(times(due), [1_000, 1_001, 3_000]);
}

/// Questions are listed from the append that opens them to the one that closes them.
pub async fn open_questions_follow_the_appends(log: Log) {
    let (t, u) = (thread("t"), thread("u"));
    let opening = |rows: &[(&str, u64)], closed: &[&str]| IndexChange {
        opened: rows.iter().map(|(id, at)| interrupt(id, *at)).collect(),
        closed: closed.iter().map(|id| (*id).into()).collect(),
        ..IndexChange::default()
    };
    let open = async || -> Vec<(String, InterruptRow)> {
        let page = log.interrupts(&any_interrupt(100)).await.unwrap();
        let rows = page.rows.into_iter();
        rows.map(|(thread, row)| (thread.to_string(), row))
            .collect()
    };
    let at = must(
        &log,
        &t,
        &next_with(None, 1, opening(&[("q1", 10), ("q2", 20)], &[])),
    )
    .await;
    must(&log, &u, &next_with(None, 1, opening(&[("q3", 15)], &[]))).await;
    let t_row = |id: &str, at| ("t".to_owned(), interrupt(id, at));
    let u_row = ("u".to_owned(), interrupt("q3", 15));
    assert_eq!(
        open().await,
        [t_row("q1", 10), u_row.clone(), t_row("q2", 20)]
    );
    // One append closes one, opens another, and names one that never was.
    let at = must(
        &log,
        &t,
        &next_with(Some(at), 2, opening(&[("q4", 12)], &["q1", "q9"])),
    )
    .await;
    assert_eq!(
        open().await,
        [t_row("q4", 12), u_row.clone(), t_row("q2", 20)]
    );
    let at = must(&log, &t, &next(Some(at), 3)).await;
    assert_eq!(
        open().await.len(),
        3,
        "an append without changes keeps them"
    );
    // One thread cannot close another's question.
    must(
        &log,
        &t,
        &next_with(Some(at), 4, opening(&[], &["q2", "q4", "q3"])),
    )
    .await;
    assert_eq!(open().await, [u_row]);
}

/// The row is the last one that an append brought.
pub async fn the_row_follows_the_appends(log: Log) {
    let t = thread("t");
    let rows = async || log.threads(&any_thread(10)).await.unwrap().rows;
    let first = must(&log, &t, &next(None, 1)).await;
    let started = row(ThreadStatus::Busy, "letter", 1_000);
    assert_eq!(rows().await, [(t.clone(), started.clone())]);
    let second = must(&log, &t, &next(Some(first), 2)).await;
    assert_eq!(rows().await, [(t.clone(), started)], "no row, no change");
    let moved = ThreadRow {
        status: ThreadStatus::Idle,
        graph: graph("letter", "2"),
        created_at: UnixMillis(1_000),
        updated_at: UnixMillis(3_000),
    };
    let index = IndexChange {
        row: Some(moved.clone()),
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(Some(second), 3, index)).await;
    assert_eq!(rows().await, [(t, moved)]);
}

/// After any sequence of appends a thread is under its last status and no other.
pub async fn the_status_filter_follows_the_appends(log: Log) {
    let t = thread("t");
    let mut at = grow(&log, &t, 1).await;
    let turns = ThreadStatus::ALL.into_iter().cycle().take(9);
    for (nonce, status) in (2..).zip(turns) {
        let graph_name = if nonce % 2 == 0 { "even" } else { "odd" };
        let index = IndexChange {
            row: Some(row(status, graph_name, 1_000 + nonce)),
            ..IndexChange::default()
        };
        at = must(&log, &t, &next_with(Some(at), nonce, index)).await;
        for filter in ThreadStatus::ALL {
            for name in ["even", "odd", "letter"] {
                let query = ThreadQuery {
                    status: Some(filter),
                    graph: Some(name.into()),
                    ..any_thread(10)
                };
                let found = log.threads(&query).await.unwrap().rows.len();
                let expected = usize::from(filter == status && name == graph_name);
                assert_eq!(found, expected, "{filter} {name} after {status}");
            }
        }
    }
}
