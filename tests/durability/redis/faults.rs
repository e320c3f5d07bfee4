//! What a server does to a log by dying, forgetting its scripts, hanging or losing answers.
//!
//! The rule that all of them look for: an append whose answer is not known is settled by sending
//! the same append again, and a thread's records are one chain with nothing twice.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use superstep_checkpoint::{Appended, ErrorKind, ThreadLog as _};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_protocol::Head;
use superstep_tests::servers::{RedisCluster, RedisOptions, RedisServer, Reply};
use tokio::task::JoinSet;

use super::{SOON, chain, grow, head, log_on, must, next, proxy::LossyProxy, thread};

/// Options of a server that has on its disk whatever it answered. With `everysec`, the default, a
/// kill may lose answered records: while a sync is under way, Redis puts the write off.
fn synced_always() -> RedisOptions {
    RedisOptions {
        config: "appendfsync always".to_owned(),
        ..RedisOptions::default()
    }
}

/// Appends to a thread of its own until told to stop, sending again what was not answered. Where
/// the server may have stepped back, goes on from what is left, which must be its own records.
async fn write(
    log: Arc<RedisLog>,
    writer: u64,
    may_step_back: bool,
    stop: Arc<AtomicBool>,
) -> Vec<Head> {
    let thread = thread(&format!("writer-{writer}"));
    let mut written: Vec<Head> = Vec::new();
    let mut nonce = 0;
    while !stop.load(Ordering::Relaxed) {
        nonce += 1;
        let append = next(written.last().copied(), nonce, 100);
        let answer = loop {
            match log.append(&thread, &append).await {
                Ok(answer) => break answer,
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        };
        match answer {
            Appended::Done => written.push(append.record.head),
            Appended::Moved { head } if may_step_back => {
                let left = head.map_or(0, |head| usize::try_from(head.version).unwrap());
                assert!(left < written.len(), "{thread} did not step back");
                written.truncate(left);
                assert_eq!(head, written.last().copied(), "{thread}");
            }
            other => panic!("{thread} has one writer, yet: {other:?}"),
        }
    }
    written
}

/// Demands that the threads of the writers hold exactly what these wrote.
pub(super) async fn one_chain_each(log: &RedisLog, writers: Vec<(u64, Vec<Head>)>) {
    for (writer, written) in writers {
        let stored = chain(log, &thread(&format!("writer-{writer}"))).await;
        assert_eq!(stored, written, "writer {writer}");
    }
}

/// Starts so many writers, each on a thread of its own.
pub(super) fn writers(
    log: &Arc<RedisLog>,
    count: u64,
    may_step_back: bool,
    stop: &Arc<AtomicBool>,
) -> JoinSet<(u64, Vec<Head>)> {
    let mut writers = JoinSet::new();
    for writer in 0..count {
        let (log, stop) = (Arc::clone(log), Arc::clone(stop));
        writers.spawn(async move { (writer, write(log, writer, may_step_back, stop).await) });
    }
    writers
}

/// Waits until the thread of a writer has so many records.
pub(super) async fn at_least(log: &RedisLog, writer: u64, version: u64) {
    let thread = thread(&format!("writer-{writer}"));
    let there = superstep_tests::eventually_async("the writer goes on", SOON, async || {
        let head = log.head(&thread).await.ok().flatten();
        head.filter(|head| head.version >= version)
    });
    there.await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_leaves_no_double_record() {
    let mut server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writers = writers(&log, 8, true, &stop);
    for round in 1..=4 {
        at_least(&log, 0, round * 20).await;
        server.kill();
        server.restart().unwrap();
    }
    at_least(&log, 7, 100).await;
    stop.store(true, Ordering::Relaxed);
    one_chain_each(&log, writers.join_all().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_answers_are_settled_by_sending_again() {
    let server = RedisServer::start().unwrap();
    let proxy = LossyProxy::to(server.port(), 7).await;
    let settings = RedisSettings::new(&proxy.url());
    let connect = async || RedisLog::connect(settings.clone()).await.ok();
    let log = superstep_tests::eventually_async("a way through", SOON, connect).await;
    let log = Arc::new(log);
    let stop = Arc::new(AtomicBool::new(false));
    let writers = writers(&log, 4, false, &stop);
    superstep_tests::eventually_async("fifty lost answers", SOON, async || {
        (proxy.lost() >= 50).then_some(())
    })
    .await;
    stop.store(true, Ordering::Relaxed);
    let direct = log_on(&server).await;
    one_chain_each(&direct, writers.join_all().await).await;
}

#[tokio::test]
async fn a_forgotten_script_is_sent_again() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let mut after = None;
    for nonce in 1..=5 {
        let flushed = server.command(&["SCRIPT", "FLUSH"]).unwrap();
        assert_eq!(flushed, Reply::Text("OK".to_owned()));
        after = Some(must(&log, &t, &next(after, nonce, 10)).await);
    }
    assert_eq!(log.load(&t).await.unwrap().unwrap().records.len(), 5);
}

#[tokio::test]
async fn a_frozen_server_is_unavailable_and_then_settled() {
    let server = RedisServer::start().unwrap();
    let mut settings = RedisSettings::new(&server.url());
    settings.response_timeout = Duration::from_millis(200);
    settings.connect_timeout = Duration::from_millis(300);
    let log = RedisLog::connect(settings).await.unwrap();
    let t = thread("t");
    let now = grow(&log, &t, 1).await;
    let append = next(Some(now), 2, 10);
    server.freeze();
    for _ in 0..2 {
        let error = log.append(&t, &append).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    server.thaw();
    let settled = superstep_tests::eventually_async("an answer", SOON, async || {
        log.append(&t, &append).await.ok()
    });
    assert_eq!(settled.await, Appended::Done);
    assert_eq!(chain(&log, &t).await, [now, append.record.head]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_short_restart_is_not_noticed_by_callers() {
    let mut server = RedisServer::start_with(synced_always()).unwrap();
    let log = log_on(&server).await;
    let t = thread("t");
    let mut now = grow(&log, &t, 1).await;
    for nonce in 2..5 {
        server.kill();
        let append = next(Some(now), nonce, 10);
        let restarting = tokio::task::spawn_blocking(move || {
            server.restart().unwrap();
            server
        });
        let appended = log.append(&t, &append).await;
        server = restarting.await.unwrap();
        assert_eq!(appended.unwrap(), Appended::Done);
        now = append.record.head;
    }
    assert_eq!(now, head(4, 4));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_goes_on_after_its_masters_restart() {
    let mut cluster = RedisCluster::start_with(&synced_always()).unwrap();
    let urls = cluster.urls().join(",");
    let mut settings = RedisSettings::new(&urls);
    settings.cluster = true;
    let log = Arc::new(RedisLog::connect(settings).await.unwrap());
    let stop = Arc::new(AtomicBool::new(false));
    let writers = writers(&log, 12, false, &stop);
    for (turn, node) in [(1, 0), (2, 1)] {
        for writer in 0..12 {
            at_least(&log, writer, turn * 20).await;
        }
        cluster.nodes_mut()[node].kill();
        cluster.nodes_mut()[node].restart().unwrap();
    }
    // And all of them at once.
    for writer in 0..12 {
        at_least(&log, writer, 60).await;
    }
    for node in cluster.nodes_mut() {
        node.kill();
    }
    for node in cluster.nodes_mut() {
        node.restart().unwrap();
    }
    for writer in 0..12 {
        at_least(&log, writer, 80).await;
    }
    stop.store(true, Ordering::Relaxed);
    one_chain_each(&log, writers.join_all().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_frozen_master_does_not_hold_up_the_others() {
    let cluster = RedisCluster::start_with(&RedisOptions {
        config: "cluster-require-full-coverage no".to_owned(),
        ..RedisOptions::default()
    });
    let cluster = cluster.unwrap();
    let mut settings = RedisSettings::new(&cluster.urls().join(","));
    settings.cluster = true;
    settings.response_timeout = Duration::from_secs(1);
    let log = Arc::new(RedisLog::connect(settings).await.unwrap());
    let mut heads = Vec::new();
    for n in 0..24 {
        let t = thread(&format!("t{n}"));
        heads.push((grow(&log, &t, 1).await, t));
    }
    cluster.nodes()[0].freeze();
    let mut appending = JoinSet::new();
    for (now, t) in heads {
        let log = Arc::clone(&log);
        appending.spawn(async move {
            let began = Instant::now();
            let answer = log.append(&t, &next(Some(now), 2, 10)).await;
            (answer, began.elapsed())
        });
    }
    let (done, late): (Vec<_>, Vec<_>) = appending
        .join_all()
        .await
        .into_iter()
        .partition(|(answer, _)| answer.is_ok());
    for (_, took) in &done {
        assert!(*took < Duration::from_millis(900), "took {took:?}");
    }
    for (answer, _) in &late {
        let kind = answer.as_ref().map_err(superstep_checkpoint::Error::kind);
        assert_eq!(kind, Err(ErrorKind::Unavailable));
    }
    assert!(done.len() >= 8 && !late.is_empty(), "{done:?} {late:?}");
    cluster.nodes()[0].thaw();
}
