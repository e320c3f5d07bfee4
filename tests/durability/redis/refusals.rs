//! Servers that refuse: full, locked, not there, of the wrong kind.
//!
//! Each refusal has its kind of error, and a message with the address, what to do, and no
//! password.

use std::time::Duration;

use bytes::Bytes;
use superstep_checkpoint::{Appended, Error, ErrorKind, Finding, ThreadLog as _};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_graph::TaskId;
use superstep_tests::servers::{RedisCluster, RedisOptions, RedisServer};

use super::{chain, grow, keys, listed, log_on, must, next, refused, thread};

#[track_caller]
fn says(error: &Error, kind: ErrorKind, parts: &[&str]) {
    assert_eq!(error.kind(), kind, "{error}");
    let text = format!("{:#}", anyhow::Error::msg(error.to_string()));
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
    assert!(!format!("{error:?}").contains("secret"), "{error:?}");
}

fn find<'a>(findings: &'a [Finding], subject: &str) -> &'a Finding {
    let mut found = findings.iter().filter(|finding| finding.subject == subject);
    found
        .next()
        .unwrap_or_else(|| panic!("nothing about {subject}: {findings:?}"))
}

#[tokio::test]
async fn a_full_server_changes_nothing_and_goes_on() {
    let server = RedisServer::start_with(RedisOptions {
        maxmemory: Some("4mb".to_owned()),
        ..RedisOptions::default()
    });
    let server = server.unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let mut now = grow(&log, &t, 1).await;
    let (refused, error) = loop {
        let append = next(Some(now), 1, 50_000);
        match log.append(&t, &append).await {
            Ok(answer) => assert_eq!(answer, Appended::Done),
            Err(error) => break (append, error),
        }
        now = append.record.head;
        assert!(now.version < 500, "4 MB are never full");
    };
    says(&error, ErrorKind::Full, &["out of memory", "maxmemory"]);
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
    assert_eq!(
        log.record(&t, refused.record.head.version).await.unwrap(),
        None
    );

    // However much a refused call gives back, it stays full.
    server
        .command(&["CONFIG", "SET", "maxmemory", "1mb"])
        .unwrap();
    let other = thread("other");
    let error = log.append(&other, &next(None, 1, 10)).await.unwrap_err();
    says(&error, ErrorKind::Full, &[]);
    assert_eq!(log.head(&other).await.unwrap(), None);
    assert_eq!(listed(&log).await.len(), 1);
    let put = log.put_outcome(&t, &"c".into(), Bytes::from("o")).await;
    says(&put.unwrap_err(), ErrorKind::Full, &[]);
    let put = log.put_blob(&t, "b", Bytes::from("v")).await;
    says(&put.unwrap_err(), ErrorKind::Full, &[]);

    server
        .command(&["CONFIG", "SET", "maxmemory", "64mb"])
        .unwrap();
    let end = must(&log, &t, &refused).await;
    must(&log, &other, &next(None, 1, 10)).await;
    assert_eq!(chain(&log, &t).await.len() as u64, end.version);
}

#[tokio::test]
async fn a_full_server_still_deletes() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let (t, round) = (thread("t"), TaskId::new("a"));
    let now = grow(&log, &t, 3).await;
    server
        .command(&["CONFIG", "SET", "maxmemory", "1mb"])
        .unwrap();
    let error = log.append(&t, &next(Some(now), 9, 10)).await.unwrap_err();
    says(&error, ErrorKind::Full, &[]);
    let mut grave = next(Some(now), 9, 0).record;
    grave.snapshot = grave.head.version;
    let deleted = log.delete(&t, now, grave).await.unwrap();
    assert_eq!(deleted, Appended::Done);
    let put = log.put_result(&t, now, &round, Bytes::from("late")).await;
    put.expect("what is refused for another reason needs no memory");
}

#[tokio::test]
async fn a_wrong_password_is_denied_with_the_address() {
    let server = RedisServer::start_with(RedisOptions {
        requirepass: Some("right".to_owned()),
        config: "user alice on >right ~superstep:* +@all".to_owned(),
        ..RedisOptions::default()
    });
    let server = server.unwrap();
    let address = format!("127.0.0.1:{}", server.port());
    for url in [
        server.url(),
        server.url_as("", "secret"),
        server.url_as("alice", "secret"),
    ] {
        let error = refused(RedisSettings::new(&url)).await;
        says(&error, ErrorKind::Denied, &[&address, "password"]);
    }
    for url in [server.url_as("", "right"), server.url_as("alice", "right")] {
        let log = RedisLog::connect(RedisSettings::new(&url)).await.unwrap();
        grow(&log, &thread(&url), 2).await;
    }
}

#[tokio::test]
async fn a_user_without_permission_is_denied() {
    let server = RedisServer::start_with(RedisOptions {
        config: "user bob on >pass ~superstep:* +@all -hset\nuser eve on >pass ~other:* +@all"
            .to_owned(),
        ..RedisOptions::default()
    });
    let server = server.unwrap();
    log_on(&server).await;
    let error = refused(RedisSettings::new(&server.url_as("eve", "pass"))).await;
    says(&error, ErrorKind::Denied, &["ACL"]);
    let log = RedisLog::connect(RedisSettings::new(&server.url_as("bob", "pass")))
        .await
        .unwrap();
    let error = log
        .append(&thread("t"), &next(None, 1, 10))
        .await
        .unwrap_err();
    says(&error, ErrorKind::Denied, &["ACL"]);
}

#[tokio::test]
async fn an_unreachable_server_is_told_soon() {
    // A port that nobody listens on, and one where nobody answers.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut settings = RedisSettings::new(&format!("redis://bob:secret@127.0.0.1:{port}"));
    settings.connect_timeout = Duration::from_millis(500);
    let address = format!("127.0.0.1:{port}");
    let error = refused(settings.clone()).await;
    says(&error, ErrorKind::Unavailable, &[&address, "is it running"]);
    drop(listener);
    for cluster in [false, true] {
        settings.cluster = cluster;
        let error = refused(settings.clone()).await;
        says(&error, ErrorKind::Unavailable, &[&address, "is it running"]);
    }
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable_within_seconds() {
    let mut server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    server.kill();
    let (t, append) = (thread("t"), next(None, 1, 10));
    let asked = tokio::time::timeout(Duration::from_secs(8), log.append(&t, &append));
    let error = asked.await.unwrap().unwrap_err();
    says(&error, ErrorKind::Unavailable, &["cannot reach"]);
}

#[tokio::test]
async fn a_foreign_value_under_our_key_is_corrupt() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    grow(&log, &t, 1).await;
    let key = &keys(&server, "}:t:")[0];
    let damage: [&[&str]; 3] = [
        &["HSET", key, "1", "not a record"],
        &["HSET", key, "h", "not a head"],
        &["SET", key, "not a hash"],
    ];
    for command in damage {
        server.command(command).unwrap();
        let error = log.load(&t).await.unwrap_err();
        says(&error, ErrorKind::Corrupt, &["superstep"]);
        let error = log.history(&t, None, 10).await.unwrap_err();
        says(&error, ErrorKind::Corrupt, &["superstep"]);
    }
    let error = log.append(&t, &next(None, 1, 10)).await.unwrap_err();
    says(&error, ErrorKind::Corrupt, &["another type"]);
}

#[tokio::test]
async fn the_wrong_kind_of_address_is_denied() {
    let server = RedisServer::start().unwrap();
    let url = server.url().replace("redis://", "redis+cluster://");
    let error = refused(RedisSettings::new(&url)).await;
    says(&error, ErrorKind::Denied, &["not a node of a Cluster"]);

    let cluster = RedisCluster::start().unwrap();
    let mut told = 0;
    for url in cluster.urls() {
        match RedisLog::connect(RedisSettings::new(&url)).await {
            // The node that happens to have the namespace's own slot: the check tells.
            Ok(log) => {
                let findings = log.check().await;
                assert!(!find(&findings, "cluster").ok);
            }
            Err(error) => says(&error, ErrorKind::Denied, &["redis+cluster://"]),
        }
        told += 1;
    }
    assert_eq!(told, 3);
}

#[tokio::test]
async fn the_check_finds_what_the_guarantees_need() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let findings = log.check().await;
    for subject in [
        "version",
        "role",
        "maxmemory-policy",
        "appendonly",
        "appendfsync",
        "cluster",
        "clock",
    ] {
        assert!(find(&findings, subject).ok, "{findings:?}");
    }
    for (name, value) in [("maxmemory-policy", "allkeys-lru"), ("appendonly", "no")] {
        server.command(&["CONFIG", "SET", name, value]).unwrap();
        let findings = log.check().await;
        assert!(!find(&findings, name).ok, "{findings:?}");
    }
    server
        .command(&["CONFIG", "SET", "appendfsync", "no"])
        .unwrap();
    assert!(!find(&log.check().await, "appendfsync").ok);
}

#[tokio::test]
async fn a_check_that_is_not_permitted_is_a_finding() {
    let server = RedisServer::start_with(RedisOptions {
        config: "user worker on >pass ~superstep:* +@all -info -config".to_owned(),
        ..RedisOptions::default()
    });
    let server = server.unwrap();
    let settings = RedisSettings::new(&server.url_as("worker", "pass"));
    let log = RedisLog::connect(settings).await.unwrap();
    let findings = log.check().await;
    assert!(!find(&findings, "INFO").ok);
    assert!(find(&findings, "INFO").detail.contains("+info"));
    let fsync = find(&findings, "appendfsync");
    assert!(
        fsync.ok && fsync.detail.contains("not checked"),
        "{fsync:?}"
    );
    assert!(find(&findings, "clock").ok);
}

#[tokio::test]
async fn the_check_of_a_dead_server_says_so() {
    let mut server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    server.kill();
    let findings = log.check().await;
    assert_eq!(findings.len(), 1, "{findings:?}");
    assert!(!find(&findings, "reachable").ok);
}

#[tokio::test]
async fn every_master_of_a_cluster_is_checked() {
    let cluster = RedisCluster::start().unwrap();
    let mut settings = RedisSettings::new(&cluster.urls()[0]);
    settings.cluster = true;
    let log = RedisLog::connect(settings).await.unwrap();
    let findings = log.check().await;
    for node in cluster.nodes() {
        let subject = format!("maxmemory-policy of 127.0.0.1:{}", node.port());
        assert!(find(&findings, &subject).ok, "{findings:?}");
    }
    assert!(log.durable_after() > Duration::from_secs(15));
}
