//! Contract: odd ids, empty and large values, extremes; registrations, the clock, the check.

use bytes::Bytes;
use superstep_graph::TaskId;
use superstep_protocol::{Head, Nonce, ThreadId, ThreadStatus, UnixMillis};

use super::build::{
    LATER, Log, all_threads, any_interrupt, any_thread, command, graph, grow, head, interrupt,
    must, next, next_with, thread,
};
use crate::{Append, Appended, IndexChange, PutResult, StoredRecord, ThreadQuery, ThreadRow};

/// Names that a careless key, pattern, script or query would trip over.
fn odd_names() -> Vec<String> {
    let mut names: Vec<String> = [
        " ",
        "a b",
        " a",
        "a ",
        "\t",
        "a\nb",
        "\r\n",
        "a\u{0}b",
        "ünï",
        "日本語",
        "🦀",
        "e\u{301}",
        "é",
        "{a}",
        "}{",
        "{",
        "a:b",
        "a::b",
        ":",
        "*",
        "a*",
        "?",
        "[a]",
        "%",
        "%25",
        "a%2fb",
        "_",
        "..",
        "../a",
        "/",
        "a/b",
        "\\",
        "a\\b",
        "'",
        "''",
        "\"",
        "`",
        "$",
        "$(a)",
        ";",
        "--",
        "a|b",
        ">",
        "a.b",
        ".",
        "a.>",
        "null",
        "0",
        "-1",
        "1e3",
        "A",
        "a",
        "",
    ]
    .map(str::to_owned)
    .into();
    names.push("x".repeat(512));
    names.push("x".repeat(511));
    names.push("ü".repeat(256));
    names.retain(|name| !name.is_empty());
    names
}

/// Threads are told apart by every byte of their ids, and listed by them.
pub async fn odd_thread_ids_are_kept_apart(log: Log) {
    let ids: Vec<ThreadId> = odd_names().into_iter().map(ThreadId::from).collect();
    for (nonce, id) in (100..).zip(&ids) {
        assert_eq!(log.head(id).await.unwrap(), None, "{id:?}");
        must(&log, id, &next(None, nonce)).await;
    }
    for (nonce, id) in (100..).zip(&ids) {
        assert_eq!(log.head(id).await.unwrap(), Some(head(1, nonce)), "{id:?}");
    }
    let mut sorted = ids.clone();
    sorted.sort();
    for limit in [1, 10, 1_000] {
        let listed = all_threads(&log, &any_thread(limit)).await;
        let listed: Vec<_> = listed.into_iter().map(|(id, _)| id).collect();
        assert_eq!(listed, sorted, "in pages of {limit}");
    }
    let (first, rest) = ids.split_first().unwrap();
    let grave = super::build::record(head(2, 1), 2);
    log.delete(first, head(1, 100), grave).await.unwrap();
    assert_eq!(all_threads(&log, &any_thread(10)).await.len(), rest.len());
}

/// Names of timers, commands, tasks, blobs, questions and graphs come back as they went in.
pub async fn odd_names_are_kept_as_they_are(log: Log) {
    let t = thread("odd: {t} *");
    let names = odd_names();
    let round = head(1, 1);
    let index = IndexChange {
        opened: names.iter().map(|name| interrupt(name, 7)).collect(),
        due_set: names
            .iter()
            .map(|name| (name.clone(), UnixMillis(7)))
            .collect(),
        rounds_opened: vec![round],
        watched: Some(true),
        ..IndexChange::default()
    };
    must(&log, &t, &next_with(None, 1, index)).await;
    for (count, name) in (1..).zip(&names) {
        let value = Bytes::from(format!("value {count}"));
        log.put_blob(&t, name, value.clone()).await.unwrap();
        let put = log.put_outcome(&t, &command(name), value.clone()).await;
        assert_eq!(put.unwrap(), None, "{name:?}");
        let put = log
            .put_result(&t, round, &TaskId::from(name.as_str()), value)
            .await;
        assert_eq!(put.unwrap(), PutResult::Stored { count });
        let registered = graph(name, &format!("{name}1"));
        log.register(&registered, Bytes::from("{}")).await.unwrap();
    }
    let value = |n: usize| Bytes::from(format!("value {}", n + 1));
    let blobs = log.blobs(&t, &names).await.unwrap();
    let results = log.results(&t, round).await.unwrap();
    for (n, name) in names.iter().enumerate() {
        assert_eq!(blobs[n], value(n), "{name:?}");
        assert_eq!(results[name.as_str()], value(n), "{name:?}");
        let outcome = log.outcome(&t, &command(name)).await.unwrap();
        assert_eq!(outcome, Some(value(n)), "{name:?}");
    }
    let mut sorted = names.clone();
    sorted.sort();
    let due = log.due(LATER, 1_000).await.unwrap();
    let mut timers: Vec<_> = due.into_iter().map(|entry| entry.name).collect();
    timers.sort();
    assert_eq!(timers, sorted);
    let open = log.interrupts(&any_interrupt(1_000)).await.unwrap().rows;
    let open: Vec<_> = open
        .into_iter()
        .map(|(_, row)| row.id.to_string())
        .collect();
    assert_eq!(open, sorted);
    let registered = log.registrations().await.unwrap();
    let mut registered: Vec<_> = registered.into_iter().map(|r| r.graph).collect();
    registered.sort();
    let graphs: Vec<_> = sorted.iter().map(|n| graph(n, &format!("{n}1"))).collect();
    assert_eq!(registered, graphs);
}

/// Pairs of ids are not one joined text: a separator inside an id moves nothing.
pub async fn ids_that_join_alike_are_kept_apart(log: Log) {
    let pairs = [("a", "b:c"), ("a:b", "c"), ("a{b", "c"), ("a", "{b:c")];
    for (id, name) in pairs {
        let t = thread(id);
        let value = Bytes::from(format!("{id} and {name}"));
        log.put_blob(&t, name, value.clone()).await.unwrap();
        let put = log.put_outcome(&t, &command(name), value).await;
        assert_eq!(put.unwrap(), None);
        log.register(&graph(id, name), Bytes::from("{}"))
            .await
            .unwrap();
    }
    for (id, name) in pairs {
        let t = thread(id);
        let value = Bytes::from(format!("{id} and {name}"));
        let blobs = log.blobs(&t, &[name.to_owned()]).await.unwrap();
        assert_eq!(blobs[0], value);
        let outcome = log.outcome(&t, &command(name)).await.unwrap();
        assert_eq!(outcome, Some(value));
    }
    assert_eq!(log.registrations().await.unwrap().len(), pairs.len());

    // A graph's name and version are two texts in the thread's row, too.
    for (n, (name, version)) in pairs.into_iter().enumerate() {
        let index = IndexChange {
            row: Some(ThreadRow {
                status: ThreadStatus::Idle,
                graph: graph(name, version),
                created_at: UnixMillis(1),
                updated_at: UnixMillis(1),
            }),
            ..IndexChange::default()
        };
        let t = thread(&format!("t{n}"));
        must(&log, &t, &next_with(None, 1, index)).await;
    }
    let query = ThreadQuery {
        graph: Some("a".into()),
        ..any_thread(10)
    };
    let rows = log.threads(&query).await.unwrap().rows;
    let versions: Vec<_> = rows
        .iter()
        .map(|(_, row)| row.graph.version.as_str())
        .collect();
    assert_eq!(versions, ["b:c", "{b:c"]);
}

/// Nothing is a value: it is there, and a put over it is a duplicate.
pub async fn empty_values_are_not_absent(log: Log) {
    let t = thread("t");
    let round = head(1, 1);
    let mut start = next_with(
        None,
        1,
        IndexChange {
            rounds_opened: vec![round],
            ..IndexChange::default()
        },
    );
    start.record.bytes = Bytes::new();
    start.outcome = Some((command("start"), Bytes::new()));
    must(&log, &t, &start).await;
    let loaded = log.load(&t).await.unwrap().unwrap();
    assert_eq!(loaded.records, [start.record]);
    let a = TaskId::from("a");
    let put = log.put_result(&t, round, &a, Bytes::new()).await.unwrap();
    assert_eq!(put, PutResult::Stored { count: 1 });
    let put = log
        .put_result(&t, round, &a, Bytes::from("r"))
        .await
        .unwrap();
    assert_eq!(put, PutResult::Duplicate { count: 1 });
    let results = log.results(&t, round).await.unwrap();
    assert_eq!(results, [(a, Bytes::new())].into());
    let outcome = log.outcome(&t, &command("start")).await.unwrap();
    assert_eq!(outcome, Some(Bytes::new()));
    let put = log
        .put_outcome(&t, &command("c"), Bytes::new())
        .await
        .unwrap();
    assert_eq!(put, None);
    let put = log
        .put_outcome(&t, &command("c"), Bytes::from("x"))
        .await
        .unwrap();
    assert_eq!(put, Some(Bytes::new()));
    log.put_blob(&t, "b", Bytes::new()).await.unwrap();
    let blobs = log.blobs(&t, &["b".to_owned()]).await.unwrap();
    assert_eq!(blobs, [Bytes::new()]);
    log.register(&graph("g", "1"), Bytes::new()).await.unwrap();
    assert_eq!(log.registrations().await.unwrap()[0].about, Bytes::new());
}

/// A megabyte of any bytes, text or not, comes back bit by bit.
pub async fn large_binary_values_come_back_whole(log: Log) {
    let t = thread("t");
    let binary: Vec<u8> = (0..1_u32 << 20)
        .map(|n| (n.wrapping_mul(2_654_435_761)).to_le_bytes()[3])
        .collect();
    let binary = Bytes::from(binary);
    let text = Bytes::from("ünï\u{0}".repeat((1 << 20) / 6));
    let round = head(1, 1);
    let mut start = next_with(
        None,
        1,
        IndexChange {
            rounds_opened: vec![round],
            ..IndexChange::default()
        },
    );
    start.record.bytes = binary.clone();
    let at = must(&log, &t, &start).await;
    let mut second = next(Some(at), 2);
    second.record.bytes = text.clone();
    must(&log, &t, &second).await;
    let loaded = log.load(&t).await.unwrap().unwrap();
    assert!(loaded.records[0].bytes == binary, "the binary record");
    assert!(loaded.records[1].bytes == text, "the text record");
    for (id, value) in [("binary", &binary), ("text", &text)] {
        let task = TaskId::from(id);
        log.put_result(&t, round, &task, value.clone())
            .await
            .unwrap();
        log.put_blob(&t, id, value.clone()).await.unwrap();
    }
    let results = log.results(&t, round).await.unwrap();
    let blobs = log
        .blobs(&t, &["binary".to_owned(), "text".to_owned()])
        .await;
    let blobs = blobs.unwrap();
    assert!(results["binary"] == binary && results["text"] == text);
    assert!(blobs[0] == binary && blobs[1] == text);
}

/// All 64 bits of a nonce count, and are compared.
pub async fn extreme_nonces_are_kept(log: Log) {
    let t = thread("t");
    let nonces = [0, u64::MAX, 1 << 63, (1 << 53) + 1, i64::MAX as u64];
    let mut after: Option<Head> = None;
    for nonce in nonces {
        if let Some(at) = after {
            let near = Append {
                after: Some(head(at.version, at.nonce.0 ^ 1)),
                ..next(Some(at), 5)
            };
            let answer = log.append(&t, &near).await.unwrap();
            assert_eq!(answer, Appended::Moved { head: Some(at) });
        }
        after = Some(must(&log, &t, &next(after, nonce)).await);
    }
    let history = log.history(&t, None, 10).await.unwrap();
    let read: Vec<_> = history.iter().rev().map(|r| r.head.nonce).collect();
    assert_eq!(read, nonces.map(Nonce));
}

/// More records than any page, read whole and in pages.
pub async fn a_long_log_loads_and_pages(log: Log) {
    let t = thread("t");
    let length = 300;
    grow(&log, &t, length).await;
    let loaded = log.load(&t).await.unwrap().unwrap();
    let versions: Vec<_> = loaded.records.iter().map(|r| r.head.version).collect();
    assert_eq!(versions, (1..=length).collect::<Vec<_>>());
    let mut before = None;
    let mut paged: Vec<StoredRecord> = Vec::new();
    loop {
        let page = log.history(&t, before, 37).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.head.version);
        paged.extend(page);
    }
    paged.reverse();
    assert_eq!(paged, loaded.records);
}

/// A registration is renewed in place, with what it says and when.
pub async fn registrations_are_renewed(log: Log) {
    let (letter, other) = (graph("letter", "1"), graph("letter", "2"));
    let from = log.now().await.unwrap();
    log.register(&letter, Bytes::from("old")).await.unwrap();
    log.register(&other, Bytes::from("two")).await.unwrap();
    let first = log.registrations().await.unwrap();
    log.register(&letter, Bytes::from("new")).await.unwrap();
    let until = log.now().await.unwrap();
    let mut renewed = log.registrations().await.unwrap();
    renewed.sort_by(|a, b| a.graph.cmp(&b.graph));
    assert_eq!(renewed.len(), 2);
    assert_eq!(renewed[0].graph, letter);
    assert_eq!(renewed[0].about, Bytes::from("new"));
    assert_eq!(renewed[1].graph, other);
    assert_eq!(renewed[1].about, Bytes::from("two"));
    for registration in first.iter().chain(&renewed) {
        let at = registration.renewed_at;
        assert!((from..=until).contains(&at), "{registration:?}");
    }
    let before = first.iter().find(|r| r.graph == letter).unwrap();
    assert!(renewed[0].renewed_at >= before.renewed_at);
}

/// The store's clock is near the wall clock's century and does not run backwards.
pub async fn the_clock_goes_forward(log: Log) {
    let mut last = UnixMillis(0);
    for _ in 0..10 {
        let now = log.now().await.unwrap();
        assert!(now >= last, "{now:?} after {last:?}");
        last = now;
    }
    assert!(last > UnixMillis(1_700_000_000_000), "{last:?}");
    assert!(last < LATER, "{last:?}");
}

/// `doctor` gets at least one finding, and each says what it is about.
pub async fn checks_name_what_they_looked_at(log: Log) {
    let findings = log.check().await;
    assert!(!findings.is_empty());
    for finding in findings {
        assert!(!finding.subject.is_empty(), "{finding:?}");
        assert!(!finding.detail.is_empty(), "{finding:?}");
    }
}
