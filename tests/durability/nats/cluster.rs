//! Streams with three copies, on three servers of which one is lost.
//!
//! What was acked has been agreed on by two of them. The rule that all tests look for: it is there
//! when the others have chosen a new leader, and calls that were under way fail as unavailable and
//! are then repeated.

use std::{collections::BTreeSet, time::Instant};

use superstep_tests::servers::{NatsCluster, ServerBinary};

use super::*;

on_both_servers! {
    a_lost_leader_takes_nothing_with_it
    the_doctor_counts_the_copies
}

fn cluster(binary: ServerBinary) -> NatsCluster {
    let options = NatsOptions {
        binary,
        ..NatsOptions::default()
    };
    NatsCluster::start_with(&options).expect("three servers")
}

async fn queue_on(cluster: &NatsCluster, replicas: usize) -> NatsQueue {
    let settings = NatsSettings {
        urls: cluster.urls(),
        replicas,
        ..settings(&cluster.nodes()[0])
    };
    let queue = NatsQueue::connect(settings).await.expect("connect");
    insist("setup", async || queue.setup().await).await;
    queue
}

async fn leader(cluster: &NatsCluster, stream: &str) -> usize {
    let client = async_nats::connect(cluster.urls()).await.expect("connect");
    let context = jetstream::new(client);
    superstep_tests::eventually_async("a leader", SOON, async || {
        let mut stream = context.get_stream(stream).await.ok()?;
        let cluster = stream.info().await.ok()?.cluster.clone()?;
        NatsCluster::position(&cluster.leader?)
    })
    .await
}

async fn a_lost_leader_takes_nothing_with_it(binary: ServerBinary) {
    let mut cluster = cluster(binary);
    let queue = queue_on(&cluster, 3).await;
    let mut consumer = queue.work(&email()).await.unwrap();
    insist("a publish", async || {
        queue.publish_work(&works(0..200)).await
    })
    .await;
    let lost = leader(&cluster, "SUPERSTEP_default_WORK").await;
    cluster.nodes_mut()[lost].kill();
    insist("a publish", async || {
        queue.publish_work(&works(200..400)).await
    })
    .await;
    let mut seen = BTreeSet::new();
    let give_up = Instant::now() + SOON;
    while seen.len() < 400 {
        assert!(Instant::now() < give_up, "{} of 400 came", seen.len());
        let wait = Duration::from_millis(500);
        for delivery in consumer.pull(64, wait).await.unwrap_or_default() {
            seen.insert(text(&delivery.body));
            // An ack that is lost with its server lets the message come again.
            let _ = delivery.acker.ack().await;
        }
    }
    let published = insist("a command", async || {
        queue.publish_command(&resume("once")).await
    })
    .await;
    cluster.nodes_mut()[lost].restart().unwrap();
    // The same command again is known for one, on whichever server.
    let again = insist("a command", async || {
        queue.publish_command(&resume("once")).await
    })
    .await;
    assert_eq!((again.id, again.duplicate), (published.id, true));
}

async fn the_doctor_counts_the_copies(binary: ServerBinary) {
    let mut cluster = cluster(binary);
    let alone = queue_on(&cluster, 1).await;
    assert!(alone.check().await.iter().all(|finding| finding.ok));
    let asked = queue_on(&cluster, 3).await;
    let findings = asked.check().await;
    let lacking = findings.iter().filter(|finding| !finding.ok);
    for finding in lacking.clone() {
        assert!(finding.detail.contains("--replicas 3"), "{finding:?}");
    }
    assert_eq!(lacking.count(), 3, "{findings:?}");

    let settings = NatsSettings {
        namespace: "other".to_owned(),
        urls: cluster.urls(),
        replicas: 3,
        ..settings(&cluster.nodes()[0])
    };
    let queue = NatsQueue::connect(settings).await.unwrap();
    insist("setup", async || queue.setup().await).await;
    superstep_tests::eventually_async("every copy is made", SOON, async || {
        let findings = queue.check().await;
        findings.iter().all(|finding| finding.ok).then_some(())
    })
    .await;
    let leader = leader(&cluster, "SUPERSTEP_other_WORK").await;
    let lost = (leader + 1) % 3;
    cluster.nodes_mut()[lost].kill();
    let name = format!("n{lost}");
    superstep_tests::eventually_async("the lost copy is named", SOON, async || {
        let findings = queue.check().await;
        let names = |f: &superstep_queue::Finding| !f.ok && f.detail.contains(&name);
        findings.iter().any(names).then_some(())
    })
    .await;
}
