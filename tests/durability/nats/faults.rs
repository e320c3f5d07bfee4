//! A server that dies, or freezes, while messages are published and pulled.
//!
//! The disk stays: nothing that was acked may be missing afterwards. Duplicates are allowed, as
//! the port says; what they may do to a thread is tested with the store.

use std::{collections::BTreeSet, time::Instant};

use superstep_queue::{EventFilter, Queue};
use superstep_tests::servers::ServerBinary;
use tokio::{task::JoinHandle, time::timeout};

use super::*;

on_both_servers! {
    nothing_is_lost_by_a_killed_server
    readers_of_events_go_on_after_a_restart
    a_frozen_server_is_noticed_and_nothing_is_lost
    a_pull_ends_soon_after_the_server_is_back
    a_dropped_pull_gives_its_message_to_the_next
    short_pulls_never_wait_for_a_missing_end
}

/// Publishes numbered works in batches until told to stop; returns how many were acked.
fn publish_until(
    queue: NatsQueue,
    mut stop: tokio::sync::oneshot::Receiver<()>,
) -> JoinHandle<usize> {
    tokio::spawn(async move {
        let mut published = 0;
        while stop.try_recv().is_err() {
            let batch = works(published..published + 50);
            match queue.publish_work(&batch).await {
                Ok(()) => published += batch.len(),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}"),
            }
        }
        published
    })
}

async fn nothing_is_lost_by_a_killed_server(binary: ServerBinary) {
    let mut server = server(binary);
    let queue = queue_on(&server).await;
    let mut consumer = queue.work(&email()).await.unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel();
    let publishing = publish_until(queue.clone(), stopped);

    let mut seen = BTreeSet::new();
    let mut kills = 0;
    let mut stop = Some(stop);
    let mut total = None;
    let mut publishing = Some(publishing);
    let give_up = Instant::now() + SOON;
    while total.is_none_or(|total| seen.len() < total) {
        assert!(Instant::now() < give_up, "{} of {total:?} came", seen.len());
        let wait = Duration::from_millis(500);
        for delivery in consumer.pull(32, wait).await.unwrap_or_default() {
            seen.insert(text(&delivery.body));
            // A server that is down cannot be told; the message comes again.
            let _ = delivery.acker.ack().await;
        }
        if kills < 2 && seen.len() >= (kills + 1) * 300 {
            kills += 1;
            server.kill();
            server.restart().unwrap();
        }
        if seen.len() >= 1000
            && let Some(stop) = stop.take()
        {
            stop.send(()).unwrap();
            total = Some(publishing.take().unwrap().await.unwrap());
        }
    }
    assert_eq!(kills, 2);
    assert_eq!(seen.len(), total.unwrap());
}

async fn readers_of_events_go_on_after_a_restart(binary: ServerBinary) {
    let mut server = server(binary);
    let queue = queue_on(&server).await;
    let mut events = queue.events(&EventFilter::default()).await.unwrap();
    let mut got = Vec::new();
    for round in 0..3 {
        let batch: Vec<_> = (0..20)
            .map(|n| interrupt(&format!("{round}-{n}")))
            .collect();
        insist("publishing events", async || {
            queue.publish_events(&batch).await
        })
        .await;
        if round == 1 {
            // In the middle of reading, so that some were fetched and some were not.
            let event = timeout(SOON, events.next())
                .await
                .unwrap()
                .unwrap()
                .unwrap();
            got.push(text(&event.body));
        }
        server.kill();
        server.restart().unwrap();
    }
    while got.len() < 60 {
        let event = timeout(SOON, events.next())
            .await
            .expect("an event comes in time");
        got.push(text(&event.unwrap().unwrap().body));
    }
    let expected: Vec<_> = (0..3)
        .flat_map(|round| (0..20).map(move |n| format!("{round}-{n}")))
        .collect();
    assert_eq!(got, expected, "each once and in order");
}

async fn a_frozen_server_is_noticed_and_nothing_is_lost(binary: ServerBinary) {
    let server = server(binary);
    let queue = queue_on(&server).await;
    let mut consumer = queue.work(&email()).await.unwrap();
    server.freeze();

    let before = Instant::now();
    // The first may still get through: a signal takes its time.
    let publish = async {
        loop {
            if let Err(error) = queue.publish_work(&[work("a")]).await {
                return error;
            }
        }
    };
    let (refused, pulled) = tokio::join!(publish, consumer.pull(64, Duration::from_secs(120)));
    assert_eq!(refused.kind(), ErrorKind::Unavailable, "{refused}");
    let pulled = match pulled {
        Ok(_) => consumer.pull(64, Duration::from_secs(120)).await,
        refused => refused,
    };
    assert_eq!(pulled.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(before.elapsed() < SOON, "took {:?}", before.elapsed());

    server.thaw();
    insist("publishing", async || {
        queue.publish_work(&[work("b")]).await
    })
    .await;
    let mut seen = BTreeSet::new();
    while !seen.contains("b") {
        let delivery = pull_one(&mut *consumer).await;
        delivery.acker.ack().await.unwrap();
        seen.insert(text(&delivery.body));
    }
}

async fn a_pull_ends_soon_after_the_server_is_back(binary: ServerBinary) {
    let mut server = server(binary);
    let queue = queue_on(&server).await;
    let mut consumer = queue.commands().await.unwrap();
    let pulling = tokio::spawn(async move { pull_one(&mut *consumer).await });
    server.kill();
    server.restart().unwrap();
    let back_at = Instant::now();
    insist("publishing", async || {
        queue.publish_command(&resume("k1")).await
    })
    .await;
    let delivery = pulling.await.unwrap();
    assert_eq!(text(&delivery.body), "k1");
    // The request went down with the server; the new connection makes a new one at once, long
    // before heartbeats are missed.
    assert!(back_at.elapsed() < SOON / 4, "took {:?}", back_at.elapsed());
}

async fn a_dropped_pull_gives_its_message_to_the_next(binary: ServerBinary) {
    let server = server(binary);
    let mut slow = settings(&server);
    slow.ack_wait = SOON * 2;
    let queue = NatsQueue::connect(slow).await.unwrap();
    queue.setup().await.unwrap();
    let mut consumer = queue.work(&email()).await.unwrap();
    let mut dropped = 0;
    // The leases outlive the test: a message that a dropped pull took with it never comes.
    for n in 0..200 {
        let messages = works(n..n + 1);
        let publish = queue.publish_work(&messages);
        tokio::pin!(publish);
        let pulled = tokio::select! {
            biased;
            published = &mut publish => {
                published.unwrap();
                dropped += 1;
                None
            }
            pulled = consumer.pull(4, SOON) => {
                publish.await.unwrap();
                Some(pulled.unwrap().remove(0))
            }
        };
        let delivery = match pulled {
            Some(delivery) => delivery,
            None => pull_one(&mut *consumer).await,
        };
        assert_eq!(text(&delivery.body), n.to_string());
        delivery.acker.ack().await.unwrap();
    }
    assert!(dropped > 0, "no pull was dropped");
}

/// A short request that nobody answers must not be waited for: old servers now and then forget to
/// end one when a message comes at that very moment.
async fn short_pulls_never_wait_for_a_missing_end(binary: ServerBinary) {
    let server = server(binary);
    let queue = queue_on(&server).await;
    let mut consumer = queue.work(&email()).await.unwrap();
    server.freeze();
    // A server that says nothing for a while stands for one that forgets: pulls end, empty.
    let before = Instant::now();
    for _ in 0..3 {
        let pulled = consumer.pull(4, Duration::from_millis(20)).await;
        assert_eq!(pulled.unwrap().len(), 0);
    }
    assert!(
        before.elapsed() < Duration::from_millis(1200),
        "took {:?}",
        before.elapsed()
    );
    server.thaw();
    queue.publish_work(&[work("a")]).await.unwrap();
    let delivery = pull_one(&mut *consumer).await;
    assert_eq!(text(&delivery.body), "a");
    delivery.acker.ack().await.unwrap();
}
