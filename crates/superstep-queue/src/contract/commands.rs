//! Promises about commands: what they carry, that an id makes them one, that they can be
//! acked late.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::{
    ContractSettings, MakeQueue, ack_all, assert_silent, command, command_with_id, pull_exactly,
    pull_one, text, texts, unhurried,
};
use crate::{CommandKind, DeliveryBody, Headers, header};

/// Every kind of command arrives as what it is, with its headers.
pub async fn commands_carry_their_kind_and_target(make: impl MakeQueue) {
    let settings = unhurried();
    let q = make(settings.clone()).await.ready().await;
    let mut consumer = q.queue().commands().await.expect("commands");
    assert_eq!(consumer.ack_wait(), settings.command_ack_wait);
    for kind in CommandKind::ALL {
        let mut message = command(kind, "order-42", "{}");
        message
            .headers
            .insert(header::REPLY.to_owned(), "answers.x".to_owned());
        message
            .headers
            .insert(header::SENDER.to_owned(), "Zoë".to_owned());
        q.peer().publish_command(&message).await.expect("publish");
        let delivery = pull_one(&mut *consumer).await;
        let target = "order-42".to_owned();
        assert_eq!(delivery.kind, DeliveryBody::Command { kind, target });
        assert_eq!((delivery.attempt, &delivery.body), (1, &message.body));
        for (name, value) in &message.headers {
            assert_eq!(delivery.headers.get(name), Some(value), "{name}");
        }
        delivery.acker.ack().await.expect("ack");
    }
}

/// Commands of all kinds keep one order.
pub async fn commands_come_in_the_order_of_publishing(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let kinds = CommandKind::ALL.into_iter().cycle().take(20);
    let mut expected = Vec::new();
    for (n, kind) in kinds.enumerate() {
        let message = command(kind, "order-42", &n.to_string());
        q.queue().publish_command(&message).await.expect("publish");
        expected.push(n.to_string());
    }
    let mut consumer = q.queue().commands().await.expect("commands");
    let pulled = pull_exactly(&mut *consumer, 20).await;
    assert_eq!(texts(&pulled), expected);
    ack_all(&pulled).await;
}

/// The same id again is the same command: stored once, and told so.
pub async fn a_repeated_command_id_is_one_command(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut consumer = q.queue().commands().await.expect("commands");
    let first = q
        .queue()
        .publish_command(&command_with_id("k1", "first"))
        .await
        .expect("publish");
    let again = q
        .peer()
        .publish_command(&command_with_id("k1", "again"))
        .await
        .expect("publish");
    let other = q
        .queue()
        .publish_command(&command_with_id("k2", "other"))
        .await
        .expect("publish");
    assert_eq!(
        (first.duplicate, again.duplicate, other.duplicate),
        (false, true, false)
    );
    assert_eq!(first.id, again.id);
    assert_ne!(first.id, other.id);
    let pulled = pull_exactly(&mut *consumer, 2).await;
    assert_eq!(texts(&pulled), ["first", "other"]);
    ack_all(&pulled).await;
    assert_silent(&mut *consumer).await;
}

/// An id is remembered for the window, though its message is long acked.
pub async fn a_done_command_is_still_remembered(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut consumer = q.queue().commands().await.expect("commands");
    q.queue()
        .publish_command(&command_with_id("k1", "first"))
        .await
        .expect("publish");
    pull_one(&mut *consumer)
        .await
        .acker
        .ack()
        .await
        .expect("ack");
    assert_silent(&mut *consumer).await;
    let again = q
        .queue()
        .publish_command(&command_with_id("k1", "again"))
        .await
        .expect("publish");
    assert!(again.duplicate);
    assert_silent(&mut *consumer).await;
}

/// Without an id nothing is taken for a repetition.
pub async fn commands_without_id_are_all_kept(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut consumer = q.queue().commands().await.expect("commands");
    let message = command(CommandKind::Resume, "order-42", "same");
    let mut ids = BTreeSet::new();
    for _ in 0..3 {
        let published = q.queue().publish_command(&message).await.expect("publish");
        assert!(!published.duplicate);
        ids.insert(published.id);
    }
    let pulled = pull_exactly(&mut *consumer, 3).await;
    let delivered: BTreeSet<_> = pulled.iter().map(|d| d.id.clone()).collect();
    assert_eq!(ids, delivered);
    assert_eq!(ids.len(), 3);
    ack_all(&pulled).await;
}

/// The id told at the publish is the delivery's, at each redelivery too.
pub async fn a_published_id_names_every_delivery(make: impl MakeQueue) {
    let q = make(ContractSettings::default()).await.ready().await;
    let mut consumer = q.queue().commands().await.expect("commands");
    let message = command(CommandKind::Start, "email", "{}");
    let published = q.queue().publish_command(&message).await.expect("publish");
    for attempt in 1..=3 {
        let delivery = pull_one(&mut *consumer).await;
        assert_eq!((delivery.attempt, &delivery.id), (attempt, &published.id));
        if attempt == 3 {
            delivery.acker.ack().await.expect("ack");
        }
    }
    assert_silent(&mut *consumer).await;
}

/// Commands are acked late, so a thousand without an ack must not stop the next.
pub async fn many_commands_can_wait_for_their_ack(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut consumer = q.queue().commands().await.expect("commands");
    let mut held = Vec::new();
    for round in 0..5 {
        for n in 0..240 {
            let message = command(CommandKind::Resume, &format!("t-{round}-{n}"), "{}");
            q.queue().publish_command(&message).await.expect("publish");
        }
        held.extend(pull_exactly(&mut *consumer, 240).await);
    }
    assert!(held.iter().all(|delivery| delivery.attempt == 1));
    ack_all(&held).await;
    assert_silent(&mut *consumer).await;
}

/// A command under a subject that superstep cannot read is delivered as such, so that it can
/// be refused; it does not vanish.
pub async fn commands_under_unknown_subjects_are_delivered(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let Some(publish) = &q.raw else {
        return;
    };
    let mut consumer = q.queue().commands().await.expect("commands");
    let unknown = [
        "superstep.default.resume.a.b",
        "superstep.default.start.50%",
    ];
    for subject in unknown {
        let body = Bytes::from_static(b"{}");
        publish(subject.to_owned(), Headers::new(), body).await;
        let delivery = pull_one(&mut *consumer).await;
        let subject = subject.to_owned();
        assert_eq!(delivery.kind, DeliveryBody::Unknown { subject });
        delivery.acker.term("unknown subject").await.expect("term");
    }
    let plain = "superstep.default.resume.größe".to_owned();
    publish(plain, Headers::new(), Bytes::from_static(b"plain")).await;
    let delivery = pull_one(&mut *consumer).await;
    let (kind, target) = (CommandKind::Resume, "größe".to_owned());
    assert_eq!(delivery.kind, DeliveryBody::Command { kind, target });
    assert_eq!(text(&delivery.body), "plain");
    delivery.acker.ack().await.expect("ack");
}
