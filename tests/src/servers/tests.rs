//! The private servers themselves, started for real: each kind, each way to end and come back.
//!
//! What superstep does with them is tested elsewhere; here only that a test can rely on them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use super::*;
use crate::eventually;

fn set_and_get(server: &RedisServer) {
    assert_eq!(
        server.command(&["SET", "key", "value"]).unwrap().text(),
        Some("OK")
    );
    assert_eq!(
        server.command(&["GET", "key"]).unwrap().text(),
        Some("value")
    );
}

#[test]
fn a_killed_redis_comes_back_with_its_data() {
    let mut server = RedisServer::start().unwrap();
    let port = server.port();
    set_and_get(&server);
    server.kill();
    assert!(server.command(&["PING"]).is_err());
    server.restart().unwrap();
    assert_eq!(server.port(), port);
    assert_eq!(
        server.command(&["GET", "key"]).unwrap().text(),
        Some("value")
    );
}

#[test]
fn a_wiped_redis_comes_back_empty() {
    let mut server = RedisServer::start().unwrap();
    set_and_get(&server);
    server.wipe().unwrap();
    server.restart().unwrap();
    assert_eq!(server.command(&["GET", "key"]).unwrap(), Reply::Nil);
}

#[test]
fn a_frozen_redis_answers_only_once_thawed() {
    let server = RedisServer::start().unwrap();
    server.freeze();
    let mut stream = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    stream.write_all(b"PING\r\n").unwrap();
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    assert!(
        reader.read_line(&mut line).is_err(),
        "a frozen server said {line}"
    );
    server.thaw();
    eventually(
        "the answer of the thawed server",
        Duration::from_secs(5),
        || reader.read_line(&mut line).is_ok().then_some(()),
    );
    assert_eq!(line.trim_end(), "+PONG");
}

#[test]
fn redis_options_reach_the_server() {
    let server = RedisServer::start_with(RedisOptions {
        maxmemory: Some("3mb".to_owned()),
        requirepass: Some("secret".to_owned()),
        config: "user alice on >wonder ~* +@all".to_owned(),
        ..RedisOptions::default()
    })
    .unwrap();
    let setting = server.command(&["CONFIG", "GET", "maxmemory"]).unwrap();
    let texts = ["maxmemory", "3145728"].map(|text| Reply::Text(text.to_owned()));
    assert_eq!(setting, Reply::List(texts.to_vec()));
    let stranger = resp::call(server.port(), None, &["GET", "key"]).unwrap();
    assert!(matches!(stranger, Reply::Error(why) if why.starts_with("NOAUTH")));
}

#[test]
fn the_oldest_redis_starts_as_well() {
    starts_as_well(ServerBinary::Redis62, "the_oldest_redis_starts_as_well");
}

#[test]
fn valkey_starts_as_well() {
    starts_as_well(ServerBinary::Valkey, "valkey_starts_as_well");
}

#[track_caller]
fn starts_as_well(binary: ServerBinary, test: &str) {
    if binary.available_to(test) {
        let options = RedisOptions {
            binary,
            ..RedisOptions::default()
        };
        set_and_get(&RedisServer::start_with(options).unwrap());
    }
}

#[test]
fn three_masters_serve_every_slot() {
    let cluster = RedisCluster::start().unwrap();
    assert_eq!(cluster.urls().len(), 3);
    let replies: Vec<Reply> = cluster
        .nodes()
        .iter()
        .map(|node| node.command(&["SET", "{tag}key", "value"]).unwrap())
        .collect();
    let taken = replies
        .iter()
        .filter(|reply| reply.text() == Some("OK"))
        .count();
    let moved = replies
        .iter()
        .filter(|r| matches!(r, Reply::Error(e) if e.starts_with("MOVED")));
    assert_eq!((taken, moved.count()), (1, 2));
}

#[test]
fn a_killed_cluster_master_is_replaced_by_its_replica() {
    let mut cluster = RedisCluster::start_with_replicas(&RedisOptions::default()).unwrap();
    assert_eq!(cluster.nodes().len(), 6);
    cluster.nodes_mut()[0].kill();
    eventually("the replica is promoted", Duration::from_secs(30), || {
        let role = cluster.nodes()[3].command(&["ROLE"]).unwrap();
        let Reply::List(role) = role else { return None };
        (role[0].text() == Some("master")).then_some(())
    });
}

#[test]
fn sentinels_agree_on_another_master() {
    let mut all = RedisSentinels::start_with(&RedisOptions::default(), 1).unwrap();
    set_and_get(&all.nodes()[0]);
    assert_eq!(all.master(0), Some(0));
    all.nodes_mut()[0].kill();
    for sentinel in 0..3 {
        eventually("the replica is promoted", Duration::from_secs(30), || {
            (all.master(sentinel) == Some(1)).then_some(())
        });
    }
    // The old master comes back as it was and is made a replica.
    all.nodes_mut()[0].restart().unwrap();
    eventually("the old master follows", Duration::from_secs(30), || {
        let role = all.nodes()[0].command(&["ROLE"]).ok()?;
        let Reply::List(role) = role else { return None };
        (role[0].text() == Some("slave")).then_some(())
    });
}

#[test]
fn a_promoted_replica_has_the_data() {
    let all = RedisReplicas::start_with(&RedisOptions::default(), 1).unwrap();
    set_and_get(&all.nodes()[0]);
    let waited = all.nodes()[0].command(&["SET", "key", "other"]).unwrap();
    assert_eq!(waited.text(), Some("OK"));
    eventually("the replica has it", Duration::from_secs(10), || {
        let got = all.nodes()[1].command(&["GET", "key"]).ok()?;
        (got.text() == Some("other")).then_some(())
    });
    let refused = all.nodes()[1].command(&["SET", "key", "x"]).unwrap();
    assert!(matches!(refused, Reply::Error(why) if why.starts_with("READONLY")));
    all.promote(1).unwrap();
    set_and_get(&all.nodes()[1]);
}

#[test]
fn three_nats_servers_choose_a_leader_again() {
    let mut cluster = NatsCluster::start_with(&NatsOptions::default()).unwrap();
    assert_eq!(cluster.urls().len(), 3);
    cluster.nodes_mut()[1].wipe().unwrap();
    cluster.nodes_mut()[1].restart().unwrap();
    cluster.until_ready().unwrap();
}

#[test]
fn a_killed_nats_comes_back_on_its_port() {
    let mut server = NatsServer::start().unwrap();
    let url = server.url();
    assert!(server.data_dir().exists(), "JetStream is on");
    server.kill();
    assert!(TcpStream::connect(("127.0.0.1", server.port())).is_err());
    server.restart().unwrap();
    assert_eq!(server.url(), url);
    server.wipe().unwrap();
    assert!(!server.data_dir().exists());
    server.restart().unwrap();
    assert!(server.data_dir().exists());
}

#[test]
fn a_nats_with_authorization_counts_as_ready() {
    let options = NatsOptions {
        config: "authorization { user: alice, password: wonder }".to_owned(),
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).unwrap();
    assert!(
        server.log().contains("authentication error"),
        "{}",
        server.log()
    );
}

#[test]
fn a_modern_nats_starts_as_well() {
    let binary = ServerBinary::NatsModern;
    if binary.available_to("a_modern_nats_starts_as_well") {
        let options = NatsOptions {
            binary,
            ..NatsOptions::default()
        };
        assert!(
            NatsServer::start_with(options)
                .unwrap()
                .log()
                .contains("Server is ready")
        );
    }
}

#[test]
fn a_wrong_configuration_fails_with_the_log() {
    let options = NatsOptions {
        config: "no_such_setting: 1".to_owned(),
        ..NatsOptions::default()
    };
    let error = NatsServer::start_with(options).unwrap_err().to_string();
    assert!(error.contains("no_such_setting"), "{error}");
}
