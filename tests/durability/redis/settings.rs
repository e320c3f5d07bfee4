//! What a namespace is created with, and what connects to it later with other settings.

use superstep_checkpoint::{ErrorKind, ThreadLog as _};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_protocol::GraphId;
use superstep_tests::servers::RedisServer;

use super::{grow, listed, log_on, refused, thread};

fn with_shards(server: &RedisServer, shards: u16) -> RedisSettings {
    let mut settings = RedisSettings::new(&server.url());
    settings.shards = shards;
    settings
}

#[tokio::test]
async fn a_namespace_keeps_its_number_of_shards() {
    let server = RedisServer::start().unwrap();
    let log = RedisLog::connect(with_shards(&server, 5)).await.unwrap();
    for n in 0..20 {
        grow(&log, &thread(&format!("t{n}")), 1).await;
    }
    let other = RedisLog::connect(with_shards(&server, 64)).await.unwrap();
    assert_eq!(listed(&other).await, listed(&log).await);
    assert_eq!(listed(&other).await.len(), 20);
    let findings = other.check().await;
    let shards = findings.iter().find(|finding| finding.subject == "shards");
    assert!(shards.is_some_and(|found| found.detail.contains("5 shards")));
}

#[tokio::test]
async fn namespaces_and_prefixes_are_kept_apart() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    grow(&log, &thread("t"), 1).await;
    let mut settings = RedisSettings::new(&server.url());
    settings.namespace = "other".to_owned();
    let other = RedisLog::connect(settings.clone()).await.unwrap();
    assert_eq!(other.head(&thread("t")).await.unwrap(), None);
    settings.namespace = "default".to_owned();
    settings.prefix = "mine".to_owned();
    let mine = RedisLog::connect(settings).await.unwrap();
    assert_eq!(mine.head(&thread("t")).await.unwrap(), None);
}

#[tokio::test]
async fn a_namespace_made_anew_with_other_shards_is_noticed() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let graph = GraphId {
        name: "g".into(),
        version: "1".into(),
    };
    log.register(&graph, "{}".into()).await.unwrap();
    server.command(&["FLUSHALL"]).unwrap();
    // The process that is there makes the namespace again as it knows it.
    log.register(&graph, "{}".into()).await.unwrap();
    let again = RedisLog::connect(with_shards(&server, 3)).await.unwrap();
    again.register(&graph, "{}".into()).await.unwrap();
    // If another was faster, what this process would write is not where others look.
    server.command(&["FLUSHALL"]).unwrap();
    let faster = RedisLog::connect(with_shards(&server, 3)).await.unwrap();
    let error = log.register(&graph, "{}".into()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(
        error.to_string().contains("restart this process"),
        "{error}"
    );
    faster.register(&graph, "{}".into()).await.unwrap();
}

#[tokio::test]
async fn a_namespace_of_a_newer_format_is_refused() {
    let server = RedisServer::start().unwrap();
    log_on(&server).await;
    let meta = "superstep:{default}:meta";
    server.command(&["HSET", meta, "format", "2"]).unwrap();
    let error = refused(RedisSettings::new(&server.url())).await;
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert!(error.to_string().contains("format"), "{error}");
}

#[tokio::test]
async fn the_first_address_that_takes_writes_is_used() {
    let server = RedisServer::start().unwrap();
    let replica = RedisServer::start().unwrap();
    let port = server.port().to_string();
    replica.command(&["REPLICAOF", "127.0.0.1", &port]).unwrap();
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("redis://{}", nobody.local_addr().unwrap());
    drop(nobody);
    let urls = [dead, replica.url(), server.url()].join(",");
    let log = RedisLog::connect(RedisSettings::new(&urls)).await.unwrap();
    grow(&log, &thread("t"), 2).await;
    assert!(
        log_on(&server)
            .await
            .head(&thread("t"))
            .await
            .unwrap()
            .is_some()
    );
}
