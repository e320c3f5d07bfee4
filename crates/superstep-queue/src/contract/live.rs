//! Promises about what is not stored: outcomes of commands and live output.

use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::{
    DEADLINE, MakeQueue, ack_all, assert_no_more, command, next, pull_exactly, pull_one, text,
    unhurried,
};
use crate::{CommandKind, Delivery, ErrorKind, Queue, header};

async fn answer(queue: &dyn Queue, delivery: &Delivery, outcome: &str) {
    let subject = &delivery.headers[header::REPLY];
    let outcome = Bytes::from(outcome.to_owned());
    queue.reply(subject, outcome).await.expect("reply");
    delivery.acker.ack().await.expect("ack");
}

/// A request gets what the decider replies, and the command's id.
pub async fn a_request_gets_its_outcome(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut consumer = q.peer().commands().await.expect("commands");
    let decide = async {
        let delivery = pull_one(&mut *consumer).await;
        answer(q.peer(), &delivery, "accepted").await;
        delivery.id
    };
    let message = command(CommandKind::Resume, "order-42", "{}");
    let (asked, delivered_id) = tokio::join!(q.queue().request(message, DEADLINE), decide);
    let (published, outcome) = asked.expect("request");
    assert_eq!(outcome, Some(Bytes::from_static(b"accepted")));
    assert_eq!(published.id, delivered_id);
}

/// Without an outcome the wait ends in time, and the command is stored all the same.
pub async fn a_request_without_outcome_ends_in_time(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let before = Instant::now();
    let message = command(CommandKind::Resume, "order-42", "{}");
    let asked = q.queue().request(message, Duration::from_millis(300)).await;
    let (published, outcome) = asked.expect("request");
    assert_eq!(outcome, None);
    assert!(before.elapsed() < DEADLINE / 2);
    let mut consumer = q.queue().commands().await.expect("commands");
    let delivery = pull_one(&mut *consumer).await;
    assert_eq!(delivery.id, published.id);
    answer(q.queue(), &delivery, "too late for anyone").await;
}

/// Outcomes find their own request, however many wait.
pub async fn concurrent_requests_get_their_own_outcomes(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut consumer = q.peer().commands().await.expect("commands");
    let ask = async |target: &str| {
        let message = command(CommandKind::Resume, target, target);
        let (_, outcome) = q.queue().request(message, DEADLINE).await.expect("request");
        text(&outcome.expect("an outcome"))
    };
    let decide = async {
        let mut deliveries = pull_exactly(&mut *consumer, 3).await;
        deliveries.reverse();
        for delivery in &deliveries {
            answer(q.peer(), delivery, &text(&delivery.body)).await;
        }
    };
    let (a, b, c, ()) = tokio::join!(ask("a"), ask("b"), ask("c"), decide);
    assert_eq!([a, b, c], ["a", "b", "c"]);
}

/// A reply subject is a stranger's word: only what is safe to publish on is taken.
pub async fn a_reply_goes_only_to_proper_subjects(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    for bad in [
        "",
        "a b",
        "a.*",
        ">",
        "a..b",
        "$JS.API.INFO",
        "superstep.default.resume.order-42",
        "superstep.default.work.email.1",
    ] {
        let error = q.queue().reply(bad, Bytes::new()).await.expect_err(bad);
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
    }
    let mut consumer = q.queue().commands().await.expect("commands");
    let pulled = consumer
        .pull(1, Duration::from_millis(200))
        .await
        .expect("pull");
    assert!(pulled.is_empty(), "no reply became a command");
    ack_all(&pulled).await;
}

/// A reply that nobody waits for is no error.
pub async fn a_reply_to_nobody_is_fine(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    for subject in ["_INBOX.gone", "answers.of.mine"] {
        q.queue()
            .reply(subject, Bytes::from_static(b"{}"))
            .await
            .expect("reply");
    }
}

/// Live output of every run of a thread reaches its subscribers, and no other thread's does.
pub async fn live_output_reaches_the_threads_subscribers(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let (thread, other) = ("order.42".into(), "order".into());
    let mut first = q.queue().outputs(&thread).await.expect("outputs");
    let mut second = q.peer().outputs(&thread).await.expect("outputs");
    let send = async |thread, run: &str, body: &str| {
        let body = Bytes::from(body.to_owned());
        q.queue()
            .output(thread, &run.into(), body)
            .await
            .expect("output");
    };
    send(&other, "r1", "other").await;
    send(&thread, "r1", "one").await;
    send(&thread, "r.2", "two").await;
    for outputs in [&mut first, &mut second] {
        let received = next(&mut **outputs).await;
        assert_eq!(received.subject, "superstep.default.output.order%2E42.r1");
        assert_eq!(text(&received.body), "one");
        assert_eq!(text(&next(&mut **outputs).await.body), "two");
        assert_no_more(&mut **outputs).await;
    }
}

/// Output before the subscription is gone; without subscribers it is no error.
pub async fn live_output_is_not_stored(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let (thread, run) = ("t1".into(), "r1".into());
    let send = async |body: &'static str| {
        q.queue()
            .output(&thread, &run, Bytes::from_static(body.as_bytes()))
            .await
    };
    send("before").await.expect("output");
    let mut outputs = q.queue().outputs(&thread).await.expect("outputs");
    send("after").await.expect("output");
    assert_eq!(text(&next(&mut *outputs).await.body), "after");
    assert_no_more(&mut *outputs).await;
}
