//! What stands in Redis, byte for byte: the stored format, version 1.
//!
//! A change that fails here changes what older and newer processes find, and needs a new format
//! number and a decision, not a new expectation.

use std::{collections::BTreeMap, fmt::Write as _};

use bytes::Bytes;
use superstep_checkpoint::{Append, IndexChange, InterruptRow, ThreadLog as _};
use superstep_graph::TaskId;
use superstep_protocol::{ThreadStatus, UnixMillis};
use superstep_tests::servers::{RedisServer, Reply};

use super::{keys, log_on, must, next, row, thread};

/// Everything on the server, a line a key, without what the clock says.
fn dump(server: &RedisServer) -> String {
    let ask = |command: &[&str]| server.command(command).unwrap();
    let list = |reply: Reply| match reply {
        Reply::List(items) => items
            .iter()
            .filter_map(|item| item.text().map(str::to_owned))
            .collect::<Vec<_>>(),
        other => panic!("not a list: {other:?}"),
    };
    let mut text = String::new();
    for key in keys(server, "") {
        let kind = ask(&["TYPE", &key]).text().unwrap().to_owned();
        let mut items = match kind.as_str() {
            "hash" => list(ask(&["HGETALL", &key])),
            "zset" => list(ask(&["ZRANGE", &key, "0", "-1", "WITHSCORES"])),
            "set" => list(ask(&["SMEMBERS", &key])),
            _ => vec![ask(&["GET", &key]).text().unwrap().to_owned()],
        };
        if kind == "hash" {
            let mut pairs: Vec<_> = items.chunks(2).map(<[String]>::to_vec).collect();
            pairs.sort();
            items = pairs.concat();
        }
        if key.ends_with("}:w") {
            "<now>".clone_into(&mut items[1]);
        }
        let expires = matches!(ask(&["PTTL", &key]), Reply::Integer(0..));
        let expires = if expires { " (expires)" } else { "" };
        writeln!(text, "{key} {kind}{expires}: {}", items.join(" | ")).unwrap();
    }
    text.replace('\0', "\\0").replace('\u{1}', "\\1")
}

#[tokio::test]
async fn the_stored_format_is_version_one() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("order-42");
    let mut append = Append {
        outcome: Some(("start-1".into(), Bytes::from("accepted"))),
        blobs: vec!["big".to_owned()],
        ..next(None, 0x00c0_ffee, 3)
    };
    append.index = IndexChange {
        row: Some(row(ThreadStatus::Interrupted, 9)),
        watched: Some(true),
        opened: vec![InterruptRow {
            id: "q1".into(),
            opened_at: UnixMillis(5),
        }],
        due_set: BTreeMap::from([("deadline/q1".to_owned(), UnixMillis(6))]),
        rounds_opened: vec![append.record.head],
        ..IndexChange::default()
    };
    log.put_blob(&t, "big", Bytes::from("value")).await.unwrap();
    let round = must(&log, &t, &append).await;
    let task = TaskId::new("task-1");
    let put = log.put_result(&t, round, &task, Bytes::from("result"));
    put.await.unwrap();
    let expected = "\
superstep:{default:12}:b:8:order-42big string: value
superstep:{default:12}:bi:order-42 zset: big | 4503599627370497
superstep:{default:12}:d zset: deadline/q1\\0\\1order-42 | 6
superstep:{default:12}:g set: letter
superstep:{default:12}:l:3:letter zset: order-42 | -9
superstep:{default:12}:o:8:order-42start-1 string (expires): accepted
superstep:{default:12}:q zset: q1\\0\\1order-42 | 5
superstep:{default:12}:r:1-0000000000c0ffee:order-42 hash: task-1 | result
superstep:{default:12}:t:order-42 hash: 1 | 0000000000c0ffee:1:xxx | h | 1-0000000000c0ffee:1 | i | 36:letter1:11,9 | r:1-0000000000c0ffee |  | w | 1-0000000000c0ffee
superstep:{default:12}:w zset: order-42 | <now>
superstep:{default:12}:x:order-42 zset: qq1 | 5 | ddeadline/q1 | 6
superstep:{default}:meta hash: format | 1 | shards | 16
";
    assert_eq!(dump(&server), expected);
}

#[tokio::test]
async fn progress_is_one_field_an_entry() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("order-42");
    let mut append = next(None, 0x00c0_ffee, 3);
    append.index.rounds_opened = vec![append.record.head];
    let round = must(&log, &t, &append).await;
    let task = TaskId::new("task-1");
    for (index, entry) in (0..).zip(["first", "second"]) {
        let put = log.put_progress(&t, round, &task, index, Bytes::from(entry));
        put.await.unwrap();
    }
    let expected = "superstep:{default:12}:p:1-0000000000c0ffee:order-42 hash: \
                    0:task-1 | first | 1:task-1 | second";
    let dump = dump(&server);
    assert!(dump.lines().any(|line| line == expected), "{dump}");
}
