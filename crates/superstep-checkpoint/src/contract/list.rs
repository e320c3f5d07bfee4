//! Contract: lists of threads and open questions: order, filters, and pages with cursors.

use std::collections::BTreeSet;

use superstep_protocol::{ThreadId, ThreadStatus, UnixMillis};

use super::build::{
    Log, all_interrupts, all_threads, any_interrupt, any_thread, graph, head, interrupt, must,
    next, next_with, thread,
};
use crate::{
    ErrorKind, IndexChange, InterruptQuery, InterruptRow, PAGE_ROWS_MAX, ThreadQuery, ThreadRow,
};

/// 25 threads of every status and two graphs, four to a millisecond, in no order.
async fn fill(log: &Log) -> Vec<(ThreadId, ThreadRow)> {
    let mut rows = Vec::new();
    for n in 0..25_u64 {
        let place = n * 7 % 25;
        let row = ThreadRow {
            status: ThreadStatus::ALL[usize::try_from(n % 4).unwrap()],
            graph: graph(
                ["letter", "letter:b"][usize::from(n % 3 == 0)],
                ["1", "2"][usize::from(n % 5 == 0)],
            ),
            created_at: UnixMillis(1_700_000_000_000),
            updated_at: UnixMillis(1_700_000_000_000 + place / 4),
        };
        let id = thread(&format!("t-{}", place * 13 % 100));
        let index = IndexChange {
            row: Some(row.clone()),
            ..IndexChange::default()
        };
        must(log, &id, &next_with(None, 1, index)).await;
        rows.push((id, row));
    }
    rows.sort_by(|(a, a_row), (b, b_row)| {
        let newest_first = b_row.updated_at.cmp(&a_row.updated_at);
        newest_first.then_with(|| a.cmp(b))
    });
    rows
}

/// Newest first, then by id; every page size gives the same list, whole and without repeats.
pub async fn a_list_of_threads_is_paged_in_order(log: Log) {
    let expected = fill(&log).await;
    for limit in [1, 3, 7, 24, 25, 26, 1_000] {
        let listed = all_threads(&log, &any_thread(limit)).await;
        assert_eq!(listed, expected, "in pages of {limit}");
    }
}

/// Filters by status, by graph name over its versions, and by both, are paged alike.
pub async fn a_list_of_threads_filters_by_status_and_graph(log: Log) {
    let all = fill(&log).await;
    let statuses = ThreadStatus::ALL.into_iter().map(Some).chain([None]);
    for status in statuses {
        for name in [Some("letter"), Some("letter:b"), Some("lette"), None] {
            let fits = |row: &ThreadRow| {
                status.is_none_or(|status| row.status == status)
                    && name.is_none_or(|name| row.graph.name == *name)
            };
            let fitting = all.iter().filter(|(_, row)| fits(row));
            let expected: Vec<_> = fitting.cloned().collect();
            for limit in [1, 4, 1_000] {
                let query = ThreadQuery {
                    status,
                    graph: name.map(Into::into),
                    ..any_thread(limit)
                };
                let listed = all_threads(&log, &query).await;
                assert_eq!(listed, expected, "{status:?} {name:?} in pages of {limit}");
            }
        }
    }
}

/// 30 questions over 6 threads, three to a millisecond, in no order.
async fn ask(log: &Log) -> Vec<(ThreadId, InterruptRow)> {
    let mut rows = Vec::new();
    for n in 0..6_u64 {
        let id = thread(&format!("t{}", n * 5 % 6));
        let questions: Vec<_> = (0..5_u64)
            .map(|k| {
                interrupt(
                    &format!("{:032x}", n * 31 + k * 17 % 5),
                    1_000 + (n + k * 6) / 3,
                )
            })
            .collect();
        rows.extend(questions.iter().map(|row| (id.clone(), row.clone())));
        let index = IndexChange {
            opened: questions,
            ..IndexChange::default()
        };
        must(log, &id, &next_with(None, 1, index)).await;
    }
    rows.sort_by(|(_, a), (_, b)| (a.opened_at, &a.id).cmp(&(b.opened_at, &b.id)));
    rows
}

/// Oldest first, then by id; every page size gives the same list.
pub async fn a_list_of_questions_is_paged_in_order(log: Log) {
    let expected = ask(&log).await;
    for limit in [1, 3, 7, 29, 30, 31, 1_000] {
        let listed = all_interrupts(&log, &any_interrupt(limit)).await;
        assert_eq!(listed, expected, "in pages of {limit}");
    }
}

/// The questions of one thread, paged alike; none for a thread without or unknown.
pub async fn a_list_of_questions_filters_by_thread(log: Log) {
    let all = ask(&log).await;
    must(&log, &thread("silent"), &next(None, 1)).await;
    for id in ["t0", "t3", "t5", "silent", "nobody"] {
        let of_thread = all.iter().filter(|(owner, _)| owner.as_str() == id);
        let expected: Vec<_> = of_thread.cloned().collect();
        for limit in [1, 2, 5, 1_000] {
            let query = InterruptQuery {
                thread: Some(thread(id)),
                ..any_interrupt(limit)
            };
            let listed = all_interrupts(&log, &query).await;
            assert_eq!(listed, expected, "{id} in pages of {limit}");
        }
    }
}

/// A reader between two pages misses nothing and sees nothing twice of what did not change.
pub async fn pages_stay_in_place_while_threads_come(log: Log) {
    let expected = fill(&log).await;
    let mut query = any_thread(4);
    let mut seen = Vec::new();
    for n in 0_u64.. {
        let page = log.threads(&query).await.unwrap();
        seen.extend(page.rows);
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
        // A new thread, newer than all, comes in front of every page already read.
        let index = IndexChange {
            row: Some(ThreadRow {
                updated_at: UnixMillis(1_800_000_000_000 + n),
                ..expected[0].1.clone()
            }),
            ..IndexChange::default()
        };
        let id = thread(&format!("new-{n}"));
        must(&log, &id, &next_with(None, 1, index)).await;
    }
    assert_eq!(seen, expected);

    // A cursor's own row may go away: the page after it goes on from its place.
    let page = log.threads(&any_thread(10)).await.unwrap();
    let (last, _) = page.rows.last().unwrap();
    let rest = ThreadQuery {
        after: page.next.clone(),
        ..any_thread(1_000)
    };
    let before = log.threads(&rest).await.unwrap().rows;
    let tombstone = super::build::record(head(2, 2), 2);
    log.delete(last, head(1, 1), tombstone).await.unwrap();
    assert_eq!(log.threads(&rest).await.unwrap().rows, before);
}

/// A cursor from elsewhere is an error, not an empty page.
pub async fn a_cursor_that_is_none_is_invalid(log: Log) {
    fill(&log).await;
    let after = Some("no cursor of ours".to_owned());
    let query = ThreadQuery {
        after: after.clone(),
        ..any_thread(10)
    };
    let error = log.threads(&query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    let query = InterruptQuery {
        after,
        ..any_interrupt(10)
    };
    let error = log.interrupts(&query).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
}

/// No limit makes a page empty that has a next one, or larger than a page may be.
pub async fn a_limit_out_of_range_is_brought_into_it(log: Log) {
    let opened = (0..1_001)
        .map(|n| interrupt(&format!("{n:032x}"), 1))
        .collect();
    let index = IndexChange {
        opened,
        ..IndexChange::default()
    };
    for id in ["t", "u"] {
        must(&log, &thread(id), &next_with(None, 1, index.clone())).await;
    }
    for (limit, rows) in [
        (0, 1),
        (PAGE_ROWS_MAX + 1, PAGE_ROWS_MAX),
        (usize::MAX, PAGE_ROWS_MAX),
    ] {
        let page = log.interrupts(&any_interrupt(limit)).await.unwrap();
        assert_eq!(page.rows.len(), rows, "limit {limit}");
        assert!(page.next.is_some(), "limit {limit}");
    }
    let page = log.threads(&any_thread(0)).await.unwrap();
    assert_eq!((page.rows.len(), page.next.is_some()), (1, true));
    let page = log.threads(&any_thread(usize::MAX)).await.unwrap();
    assert_eq!((page.rows.len(), page.next), (2, None));
}

/// Nothing is listed where nothing is, and threads without questions are in no inbox.
pub async fn an_empty_store_lists_nothing(log: Log) {
    assert_eq!(all_threads(&log, &any_thread(10)).await, []);
    assert_eq!(all_interrupts(&log, &any_interrupt(10)).await, []);
    assert_eq!(log.registrations().await.unwrap(), []);
    let ids: BTreeSet<_> = fill(&log).await.into_iter().map(|(id, _)| id).collect();
    assert_eq!(ids.len(), 25, "every thread has an id of its own");
    assert_eq!(all_interrupts(&log, &any_interrupt(10)).await, []);
}
