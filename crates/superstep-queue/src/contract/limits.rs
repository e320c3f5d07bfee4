//! Promises at the edges: full streams, large bodies, odd ids, many messages.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    ContractSettings, MakeQueue, ack_all, assert_silent, command, event, graph, next, pull_exactly,
    pull_one, text, unhurried, work, works,
};
use crate::{CommandKind, DeliveryBody, ErrorKind, EventFilter};

/// A full work stream refuses more and keeps what it has; once something is done it takes more.
pub async fn a_full_work_stream_refuses_and_loses_nothing(make: impl MakeQueue) {
    let settings = ContractSettings {
        work_messages_max: Some(10),
        ..unhurried()
    };
    let q = make(settings).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    q.queue()
        .publish_work(&works(&email, 0..10))
        .await
        .expect("publish");
    for batch in [works(&email, 10..11), works(&email, 10..40)] {
        let error = q.queue().publish_work(&batch).await.expect_err("full");
        assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    }
    // Commands and events have their own room.
    let resume = command(CommandKind::Resume, "order-42", "{}");
    q.queue().publish_command(&resume).await.expect("publish");
    let pulled = pull_exactly(&mut *consumer, 10).await;
    let bodies: BTreeSet<_> = pulled.iter().map(|d| text(&d.body)).collect();
    assert_eq!(bodies, (0..10).map(|n| n.to_string()).collect());
    let error = q
        .queue()
        .publish_work(&[work(&email, "x")])
        .await
        .expect_err("still held");
    assert_eq!(error.kind(), ErrorKind::Full, "{error}");
    ack_all(&pulled).await;
    assert_silent(&mut *consumer).await;
    q.queue()
        .publish_work(&[work(&email, "room")])
        .await
        .expect("publish");
    let delivery = pull_one(&mut *consumer).await;
    assert_eq!(text(&delivery.body), "room");
    delivery.acker.ack().await.expect("ack");
}

/// A body over the limit is refused by name, whatever it is in, and nothing is stored.
pub async fn a_body_over_the_limit_is_refused(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let large = Bytes::from(vec![b'x'; q.queue().body_bytes_max() + 1]);

    let mut too_large = command(CommandKind::Resume, "order-42", "");
    too_large.body = large.clone();
    let error = q
        .queue()
        .publish_command(&too_large)
        .await
        .expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");

    let mut too_large = work(&email, "");
    too_large.body = large.clone();
    let error = q
        .queue()
        .publish_work(&[too_large])
        .await
        .expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");

    let mut too_large = event("interrupt", None, "order-42", "e1");
    too_large.body = large.clone();
    let error = q
        .queue()
        .publish_events(&[too_large])
        .await
        .expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");

    let error = q
        .queue()
        .reply("_INBOX.x", large.clone())
        .await
        .expect_err("too large");
    assert_eq!(error.kind(), ErrorKind::TooLarge, "{error}");
    let output = q.queue().output(&"t".into(), &"r".into(), large).await;
    assert_eq!(output.expect_err("too large").kind(), ErrorKind::TooLarge);

    let mut consumer = q.queue().work(&email).await.expect("work");
    assert_silent(&mut *consumer).await;
    let mut consumer = q.queue().commands().await.expect("commands");
    assert_silent(&mut *consumer).await;
}

/// The largest body that the queue claims to take is taken, with ordinary headers.
pub async fn a_body_at_the_limit_is_carried(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut consumer = q.queue().commands().await.expect("commands");
    let mut largest = super::command_with_id("k1", "");
    largest.headers.insert("traceparent".into(), "0".repeat(55));
    largest.body = Bytes::from(vec![b'x'; q.queue().body_bytes_max()]);
    q.queue().publish_command(&largest).await.expect("publish");
    let delivery = pull_one(&mut *consumer).await;
    assert_eq!(delivery.body.len(), largest.body.len());
    delivery.acker.ack().await.expect("ack");
}

/// Ids of any bytes go through subjects and consumers and come back as they were.
pub async fn odd_ids_travel_unharmed(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let long = "ö.".repeat(66);
    let odd = [
        "a.b",
        "a b",
        "größe 🦀",
        "*",
        ">",
        "-",
        "%2D",
        "a/b\\c",
        "\u{7f}\n",
        &long,
    ];
    let mut commands = q.queue().commands().await.expect("commands");
    let mut events = q
        .queue()
        .events(&EventFilter::default())
        .await
        .expect("events");
    for id in odd {
        let message = command(CommandKind::Start, id, "{}");
        q.queue().publish_command(&message).await.expect("publish");
        let delivery = pull_one(&mut *commands).await;
        let (kind, target) = (CommandKind::Start, id.to_owned());
        assert_eq!(delivery.kind, DeliveryBody::Command { kind, target });
        delivery.acker.ack().await.expect("ack");

        let odd_graph = graph(id, id);
        let mut consumer = q.queue().work(&odd_graph).await.expect("work");
        q.peer()
            .publish_work(&[work(&odd_graph, id)])
            .await
            .expect("publish");
        let delivery = pull_one(&mut *consumer).await;
        assert_eq!(delivery.kind, DeliveryBody::Work { graph: odd_graph });
        assert_eq!(text(&delivery.body), id);
        delivery.acker.ack().await.expect("ack");

        let odd_event = event("interrupt", Some(id), id, id.trim());
        q.queue()
            .publish_events(std::slice::from_ref(&odd_event))
            .await
            .expect("publish");
        assert_eq!(next(&mut *events).await.body, odd_event.body);

        let mut outputs = q.queue().outputs(&id.into()).await.expect("outputs");
        let body = Bytes::from_static(b"out");
        q.queue()
            .output(&id.into(), &id.into(), body.clone())
            .await
            .expect("output");
        assert_eq!(next(&mut *outputs).await.body, body);
    }
}

/// An id that no subject can carry is refused as such.
pub async fn ids_without_a_subject_are_refused(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let long = "x".repeat(crate::subject::ID_BYTES_MAX + 1);
    for id in ["", &long] {
        let resume = command(CommandKind::Resume, id, "{}");
        let bad_graph = graph(id, "1");
        let filter = EventFilter {
            thread: Some(id.into()),
            ..EventFilter::default()
        };
        let bad_event = event("interrupt", None, id, "e1");
        let kinds = [
            q.queue().publish_command(&resume).await.map(drop),
            q.queue().publish_work(&[work(&bad_graph, "")]).await,
            q.queue().publish_events(&[bad_event]).await,
            q.queue().work(&bad_graph).await.map(drop),
            q.queue().events(&filter).await.map(drop),
            q.queue()
                .output(&id.into(), &"r".into(), Bytes::new())
                .await,
            q.queue().outputs(&id.into()).await.map(drop),
        ]
        .map(|result| result.expect_err("refused").kind());
        assert_eq!(kinds, [ErrorKind::Invalid; 7], "{} bytes", id.len());
    }
}

/// A thousand messages in one call are pipelined, stored, and delivered once each.
pub async fn a_thousand_works_all_arrive_once(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    q.peer()
        .publish_work(&works(&email, 0..1000))
        .await
        .expect("publish");
    let pulled = pull_exactly(&mut *consumer, 1000).await;
    let bodies: BTreeSet<_> = pulled.iter().map(|d| text(&d.body)).collect();
    assert_eq!(bodies.len(), 1000);
    assert!(pulled.iter().all(|delivery| delivery.attempt == 1));
    ack_all(&pulled).await;
    assert_silent(&mut *consumer).await;
}

/// Setting up what is there changes nothing, and a fresh queue finds nothing wrong with itself.
pub async fn setup_and_check_can_be_repeated(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let resume = command(CommandKind::Resume, "order-42", "{}");
    q.queue().publish_command(&resume).await.expect("publish");
    q.queue().setup().await.expect("setup again");
    q.peer().setup().await.expect("setup by another");
    let mut consumer = q.queue().commands().await.expect("commands");
    pull_one(&mut *consumer)
        .await
        .acker
        .ack()
        .await
        .expect("ack");
    let findings = q.queue().check().await;
    assert!(!findings.is_empty());
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
}
