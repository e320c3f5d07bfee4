//! Streams and consumers that vanish under a working queue.
//!
//! A server that comes back with an empty disk, and a stranger who deletes: what is gone is made
//! anew by whoever misses it, without a word from the caller.

use superstep_queue::{EventFilter, Queue};
use superstep_tests::servers::ServerBinary;
use tokio::time::timeout;

use super::*;

on_both_servers! {
    an_empty_disk_costs_only_what_was_on_it
    a_deleted_consumer_is_made_anew_within_the_pull
    a_deleted_stream_is_made_anew_by_a_pull
    a_deleted_stream_is_made_anew_by_a_publish
    a_listener_does_not_hide_that_a_stream_is_gone
    many_queues_may_set_up_at_once
}

const WORK: &str = "SUPERSTEP_default_WORK";

async fn an_empty_disk_costs_only_what_was_on_it(binary: ServerBinary) {
    let mut server = server(binary);
    let queue = queue_on(&server).await;
    let mut works = queue.work(&email()).await.unwrap();
    let mut commands = queue.commands().await.unwrap();
    let mut events = queue.events(&EventFilter::default()).await.unwrap();
    // Sequences of the new streams are below those of the old.
    let old: Vec<_> = (0..30).map(|n| interrupt(&format!("old-{n}"))).collect();
    queue.publish_events(&old).await.unwrap();
    let first = timeout(SOON, events.next())
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert_eq!(text(&first.body), "old-0");

    let working = tokio::spawn(async move { pull_one(&mut *works).await });
    let deciding = tokio::spawn(async move { pull_one(&mut *commands).await });
    server.wipe().unwrap();
    server.restart().unwrap();
    insist("publishing", async || {
        queue.publish_work(&[work("new work")]).await
    })
    .await;
    insist("publishing", async || {
        queue.publish_command(&resume("new command")).await
    })
    .await;
    insist("publishing", async || {
        queue.publish_events(&[interrupt("new event")]).await
    })
    .await;
    assert_eq!(text(&working.await.unwrap().body), "new work");
    assert_eq!(text(&deciding.await.unwrap().body), "new command");
    loop {
        let event = timeout(SOON, events.next())
            .await
            .expect("the event comes in time");
        let body = text(&event.unwrap().unwrap().body);
        if body == "new event" {
            break;
        }
        assert!(body.starts_with("old-"), "{body} was fetched before");
    }
}

async fn a_deleted_consumer_is_made_anew_within_the_pull(binary: ServerBinary) {
    let server = server(binary);
    let queue = queue_on(&server).await;
    let mut consumer = queue.work(&email()).await.unwrap();
    let stranger = stranger(&server).await;
    let stream = stranger.get_stream_no_info(WORK).await.unwrap();

    // While it waits.
    let delete = async {
        let names = stranger.get_stream(WORK).await.unwrap().consumer_names();
        let names: Vec<String> = futures_util::TryStreamExt::try_collect(names)
            .await
            .unwrap();
        assert_eq!(names.len(), 1);
        stream.delete_consumer(&names[0]).await.unwrap();
        queue.publish_work(&[work("a")]).await.unwrap();
        names[0].clone()
    };
    let (pulled, name) = tokio::join!(consumer.pull(1, SOON), delete);
    let pulled = pulled.expect("the pull goes on");
    assert_eq!(text(&pulled[0].body), "a");
    pulled[0].acker.ack().await.unwrap();

    // Between two pulls, once the server has done with what was acked: it takes acks in its own time.
    queue.flush().await.unwrap();
    superstep_tests::eventually_async("the ack is taken", SOON, async || {
        let info = stream.get_info().await.ok()?;
        (info.state.messages == 0).then_some(())
    })
    .await;
    stream.delete_consumer(&name).await.unwrap();
    queue.publish_work(&[work("b")]).await.unwrap();
    let pulled = consumer.pull(1, SOON).await.expect("the pull goes on");
    assert_eq!(text(&pulled[0].body), "b");
}

async fn a_deleted_stream_is_made_anew_by_a_pull(binary: ServerBinary) {
    let server = server(binary);
    let queue = queue_on(&server).await;
    let mut consumer = queue.work(&email()).await.unwrap();
    let stranger = stranger(&server).await;
    let pulling = tokio::spawn(async move { pull_one(&mut *consumer).await });
    stranger.delete_stream(WORK).await.unwrap();
    superstep_tests::eventually_async("the stream is back", SOON, async || {
        stranger.get_stream(WORK).await.ok().map(drop)
    })
    .await;
    queue.publish_work(&[work("a")]).await.unwrap();
    assert_eq!(text(&pulling.await.unwrap().body), "a");
}

async fn a_deleted_stream_is_made_anew_by_a_publish(binary: ServerBinary) {
    let server = server(binary);
    let queue = queue_on(&server).await;
    let stranger = stranger(&server).await;
    stranger.delete_stream(WORK).await.unwrap();
    stranger
        .delete_stream("SUPERSTEP_default_COMMANDS")
        .await
        .unwrap();
    stranger
        .delete_stream("SUPERSTEP_default_EVENTS")
        .await
        .unwrap();
    let many = works(0..300);
    queue.publish_work(&many).await.unwrap();
    queue.publish_command(&resume("k1")).await.unwrap();
    queue.publish_events(&[interrupt("e1")]).await.unwrap();
    let info = stranger
        .get_stream(WORK)
        .await
        .unwrap()
        .get_info()
        .await
        .unwrap();
    assert_eq!(info.state.messages, 300);
}

async fn a_listener_does_not_hide_that_a_stream_is_gone(binary: ServerBinary) {
    let server = server(binary);
    let queue = queue_on(&server).await;
    // A plain subscription takes the message, so the server does not say that no stream did.
    let listener = async_nats::connect(server.url()).await.unwrap();
    let _listening = listener
        .subscribe("superstep.default.events.>")
        .await
        .unwrap();
    listener.flush().await.unwrap();
    let stranger = stranger(&server).await;
    let events = "SUPERSTEP_default_EVENTS";
    stranger.delete_stream(events).await.unwrap();
    insist("publishing", async || {
        queue.publish_events(&[interrupt("told")]).await
    })
    .await;
    let mut stream = stranger.get_stream(events).await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
}

async fn many_queues_may_set_up_at_once(binary: ServerBinary) {
    let server = server(binary);
    let mut starting = Vec::new();
    for _ in 0..8 {
        let settings = settings(&server);
        starting.push(tokio::spawn(async move {
            let queue = NatsQueue::connect(settings).await.unwrap();
            queue.setup().await.unwrap();
            queue.commands().await.unwrap();
            queue.work(&email()).await.unwrap();
        }));
    }
    for started in starting {
        started.await.unwrap();
    }
}
