//! A server that is there and does not serve: loading, without replicas, without a disk.
//!
//! Each is made on a real server. The rule that all of them look for: the call fails with a kind
//! that tells the caller to try again, nothing is half done, and the same append is done as soon as
//! the server serves.

use std::time::Duration;

use superstep_checkpoint::{Append, Appended, Error, ErrorKind, ThreadLog as _};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_protocol::ThreadId;
use superstep_tests::servers::{RedisOptions, RedisReplicas, RedisServer, Reply, ServerBinary};

use super::{SOON, chain, grow, log_on, must, next, thread};

fn ok(server: &RedisServer, command: &[&str]) {
    let answer = server.command(command).unwrap();
    assert!(matches!(answer, Reply::Text(_)), "{command:?}: {answer:?}");
}

/// Sends the append until the server refuses it for this reason.
async fn refuses(log: &RedisLog, thread: &ThreadId, append: &Append, says: &str) -> Error {
    superstep_tests::eventually_async(says, SOON, async || {
        let error = log.append(thread, append).await.err()?;
        error.to_string().contains(says).then_some(error)
    })
    .await
}

/// Sends the append until it is done.
async fn done(log: &RedisLog, thread: &ThreadId, append: &Append) {
    let answer = superstep_tests::eventually_async("an answer", SOON, async || {
        log.append(thread, append).await.ok()
    });
    assert_eq!(answer.await, Appended::Done);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_loading_server_is_waited_for() {
    let mut server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    for n in 0..150 {
        grow(&log, &thread(&format!("other-{n}")), 1).await;
    }
    let t = thread("t");
    let now = grow(&log, &t, 1).await;
    // Slow enough to be met, and awake enough to say so.
    ok(&server, &["BGREWRITEAOF"]);
    superstep_tests::eventually_async("the file is rewritten", SOON, async || {
        let info = server.command(&["INFO", "persistence"]).ok()?;
        let info = info.text()?.to_owned();
        let idle =
            info.contains("aof_rewrite_in_progress:0") && info.contains("aof_rewrite_scheduled:0");
        idle.then_some(())
    })
    .await;
    ok(&server, &["CONFIG", "SET", "key-load-delay", "20000"]);
    ok(
        &server,
        &[
            "CONFIG",
            "SET",
            "loading-process-events-interval-bytes",
            "1024",
        ],
    );
    ok(&server, &["CONFIG", "REWRITE"]);
    server.stop();
    let restarting = tokio::task::spawn_blocking(move || {
        server.restart().unwrap();
        server
    });
    let append = next(Some(now), 2, 10);
    let error = refuses(&log, &t, &append, "cannot serve the call now").await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    done(&log, &t, &append).await;
    assert_eq!(chain(&log, &t).await, [now, append.record.head]);
    drop(restarting.await.unwrap());
}

#[tokio::test]
async fn a_server_without_its_replicas_is_waited_for() {
    let options = RedisOptions {
        config: "min-replicas-to-write 1\nmin-replicas-max-lag 1".to_owned(),
        ..RedisOptions::default()
    };
    let mut servers = RedisReplicas::start_with(&options, 1).unwrap();
    let log = log_on(&servers.nodes()[0]).await;
    let t = thread("t");
    let first = next(None, 1, 10);
    done(&log, &t, &first).await;
    let second = next(Some(first.record.head), 2, 10);
    servers.nodes()[1].freeze();
    let error = superstep_tests::eventually_async("the lag is noticed", SOON, async || {
        let probe = servers.nodes()[0].command(&["SET", "probe", "1"]).ok()?;
        match probe {
            Reply::Error(why) if why.starts_with("NOREPLICAS") => Some(()),
            _ => None,
        }
    });
    error.await;
    let error = refuses(&log, &t, &second, "min-replicas-to-write").await;
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    servers.nodes()[1].thaw();
    done(&log, &t, &second).await;
    servers.nodes_mut()[1].kill();
    let third = next(Some(second.record.head), 3, 10);
    refuses(&log, &t, &third, "min-replicas-to-write").await;
    servers.nodes_mut()[1].restart().unwrap();
    done(&log, &t, &third).await;
    assert_eq!(chain(&log, &t).await.len(), 3);
}

#[tokio::test]
async fn a_server_that_cannot_write_its_disk_is_full() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let now = grow(&log, &t, 2).await;
    // A snapshot cannot take the place of a folder.
    let snapshot = server.data_dir().join("dump.rdb");
    std::fs::create_dir(&snapshot).unwrap();
    std::fs::write(snapshot.join("file"), "").unwrap();
    ok(&server, &["CONFIG", "SET", "save", "3600 1000000"]);
    let saved = async |expected: &str| {
        ok(&server, &["BGSAVE"]);
        superstep_tests::eventually_async(expected, SOON, async || {
            let info = server.command(&["INFO", "persistence"]).ok()?;
            let info = info.text()?.to_owned();
            (info.contains("rdb_bgsave_in_progress:0") && info.contains(expected)).then_some(())
        })
        .await;
    };
    saved("rdb_last_bgsave_status:err").await;
    let append = next(Some(now), 3, 10);
    let error = log.append(&t, &append).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("disk"), "{error}");
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
    std::fs::remove_dir_all(&snapshot).unwrap();
    saved("rdb_last_bgsave_status:ok").await;
    must(&log, &t, &append).await;
}

#[tokio::test]
async fn a_server_that_can_tell_says_what_is_on_disk() {
    // Debian's Redis is older than the command.
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    grow(&log, &thread("t"), 1).await;
    assert!(!log.wait_durable().await.unwrap());

    if !ServerBinary::Valkey.available_to("a_server_that_can_tell_says_what_is_on_disk") {
        return;
    }
    let options = RedisOptions {
        binary: ServerBinary::Valkey,
        ..RedisOptions::default()
    };
    let mut servers = RedisReplicas::start_with(&options, 1).unwrap();
    let log = log_on(&servers.nodes()[0]).await;
    let mut after = None;
    for nonce in 1..4 {
        after = Some(must(&log, &thread("t"), &next(after, nonce, 10)).await);
        let all = futures_util::future::join_all((0..50).map(|_| log.wait_durable()));
        let all: Result<Vec<bool>, _> = all.await.into_iter().collect();
        assert!(all.unwrap().into_iter().all(|durable| durable));
    }
    // Several addresses mean that another server may take over: there is nothing to ask.
    let several = RedisLog::connect(RedisSettings::new(&servers.urls())).await;
    assert!(!several.unwrap().wait_durable().await.unwrap());
    // Without its replica it is the master's disk that counts, and without a file nothing.
    servers.nodes_mut()[1].kill();
    must(&log, &thread("t"), &next(after, 9, 10)).await;
    assert!(log.wait_durable().await.unwrap());
    ok(&servers.nodes()[0], &["CONFIG", "SET", "appendonly", "no"]);
    assert!(!log.wait_durable().await.unwrap());
    servers.nodes_mut()[0].kill();
    let error = log.wait_durable().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn the_default_response_timeout_outlasts_a_stalled_disk() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let now = grow(&log, &t, 1).await;
    let append = next(Some(now), 2, 10);
    server.freeze();
    // Longer than the client library would wait by itself.
    let mut appending = std::pin::pin!(log.append(&t, &append));
    let early = tokio::time::timeout(Duration::from_millis(1_500), &mut appending).await;
    assert!(early.is_err(), "given up early: {early:?}");
    server.thaw();
    assert_eq!(appending.await.unwrap(), Appended::Done);
    assert_eq!(chain(&log, &t).await, [now, append.record.head]);
}
