//! Promises about deliveries: one consumer each, leases, naks, and what a pull holds.
//!
//! They are shown on work; commands are delivered by the same rules.

use std::{collections::BTreeSet, time::Duration};

use tokio::time::{Instant, sleep, timeout};

use super::{
    ContractSettings, DEADLINE, MakeQueue, ack_all, assert_silent, graph, pull_exactly, pull_one,
    text, texts, unhurried, work, works,
};
use crate::DeliveryBody;

/// Room for the clocks of two processes.
const CLOCK_SLACK: Duration = Duration::from_millis(50);

/// Two consumers of one graph's work share it: no message comes to both.
pub async fn each_work_message_reaches_one_of_two_consumers(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let mut first = q.queue().work(&email).await.expect("work");
    let mut second = q.peer().work(&email).await.expect("work");
    q.queue()
        .publish_work(&works(&email, 0..40))
        .await
        .expect("publish");

    let mut seen = Vec::new();
    let give_up = Instant::now() + DEADLINE;
    while seen.len() < 40 {
        assert!(Instant::now() < give_up, "only {} of 40 came", seen.len());
        for consumer in [&mut first, &mut second] {
            let pulled = consumer
                .pull(3, Duration::from_millis(200))
                .await
                .expect("pull");
            ack_all(&pulled).await;
            seen.extend(texts(&pulled));
        }
    }
    let distinct: BTreeSet<_> = seen.iter().cloned().collect();
    assert_eq!(distinct.len(), 40);
    assert_silent(&mut *first).await;
    assert_silent(&mut *second).await;
}

/// A delivery that nobody answers is made again, to anyone, with the next attempt number and
/// not before its lease ended.
pub async fn an_unacked_message_comes_again_after_ack_wait(make: impl MakeQueue) {
    let settings = ContractSettings::default();
    let q = make(settings.clone()).await.ready().await;
    let email = graph("email", "1");
    let mut first = q.queue().work(&email).await.expect("work");
    let mut second = q.peer().work(&email).await.expect("work");
    assert_eq!(first.ack_wait(), settings.ack_wait);
    q.queue()
        .publish_work(&[work(&email, "a")])
        .await
        .expect("publish");

    let before = Instant::now();
    let lost = pull_one(&mut *first).await;
    let again = pull_one(&mut *second).await;
    assert!(before.elapsed() + CLOCK_SLACK >= settings.ack_wait);
    assert_eq!((lost.attempt, again.attempt), (1, 2));
    assert_eq!((&lost.id, &lost.body), (&again.id, &again.body));
    assert_eq!(lost.published_at, again.published_at);
    let third = pull_one(&mut *first).await;
    assert_eq!(third.attempt, 3);
    third.acker.ack().await.expect("ack");
    assert_silent(&mut *second).await;
}

/// A holder that signals in time keeps its message, for longer than one lease.
pub async fn in_progress_prolongs_the_lease(make: impl MakeQueue) {
    let settings = ContractSettings {
        ack_wait: Duration::from_secs(2),
        ..ContractSettings::default()
    };
    let q = make(settings.clone()).await.ready().await;
    let email = graph("email", "1");
    let mut first = q.queue().work(&email).await.expect("work");
    let mut second = q.peer().work(&email).await.expect("work");
    q.queue()
        .publish_work(&[work(&email, "a")])
        .await
        .expect("publish");

    let held = pull_one(&mut *first).await;
    let begun = Instant::now();
    while begun.elapsed() < settings.ack_wait * 2 {
        held.acker.in_progress().await.expect("in progress");
        let stolen = second.pull(1, settings.ack_wait / 4).await.expect("pull");
        assert_eq!(texts(&stolen), [""; 0], "the lease was prolonged");
    }
    let again = pull_one(&mut *second).await;
    assert_eq!(again.attempt, 2, "without signals the lease ends");
    again.acker.ack().await.expect("ack");
}

/// A nak gives the message back; it comes again after the delay and not before.
pub async fn a_nak_delays_the_next_delivery(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    q.queue()
        .publish_work(&[work(&email, "a")])
        .await
        .expect("publish");

    let delay = Duration::from_millis(800);
    let delivery = pull_one(&mut *consumer).await;
    let before = Instant::now();
    delivery.acker.nak(delay).await.expect("nak");
    let again = pull_one(&mut *consumer).await;
    assert!(before.elapsed() + CLOCK_SLACK >= delay);
    assert_eq!((again.attempt, &again.id), (2, &delivery.id));
    again.acker.ack().await.expect("ack");
}

/// A nak without delay hands the message over at once, though its lease is long.
pub async fn a_nak_without_delay_redelivers_at_once(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    let mut peer = q.peer().work(&email).await.expect("work");
    q.queue()
        .publish_work(&[work(&email, "a")])
        .await
        .expect("publish");

    let delivery = pull_one(&mut *consumer).await;
    delivery.acker.nak(Duration::ZERO).await.expect("nak");
    let again = pull_one(&mut *peer).await;
    assert_eq!(again.attempt, 2);
    again.acker.ack().await.expect("ack");
}

/// A termed message is gone, even after its lease.
pub async fn a_termed_message_never_comes_again(make: impl MakeQueue) {
    let settings = ContractSettings::default();
    let q = make(settings.clone()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    q.queue()
        .publish_work(&[work(&email, "a")])
        .await
        .expect("publish");

    let delivery = pull_one(&mut *consumer).await;
    delivery
        .acker
        .term("malformed: no thread")
        .await
        .expect("term");
    sleep(settings.ack_wait).await;
    assert_silent(&mut *consumer).await;
}

/// An acked message is gone, even after its lease, and its neighbours are not.
pub async fn an_acked_message_never_comes_again(make: impl MakeQueue) {
    let settings = ContractSettings::default();
    let q = make(settings.clone()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    q.queue()
        .publish_work(&works(&email, 0..3))
        .await
        .expect("publish");

    let deliveries = pull_exactly(&mut *consumer, 3).await;
    deliveries[1].acker.ack().await.expect("ack");
    let again = pull_exactly(&mut *consumer, 2).await;
    let bodies: BTreeSet<_> = texts(&again).into_iter().collect();
    assert_eq!(bodies, BTreeSet::from(["0".to_owned(), "2".to_owned()]));
    ack_all(&again).await;
    sleep(settings.ack_wait).await;
    assert_silent(&mut *consumer).await;
}

/// An ack after the lease, beside the next holder's own, breaks nothing.
pub async fn a_late_ack_harms_nothing(make: impl MakeQueue) {
    let settings = ContractSettings::default();
    let q = make(settings.clone()).await.ready().await;
    let email = graph("email", "1");
    let mut frozen = q.queue().work(&email).await.expect("work");
    let mut healthy = q.peer().work(&email).await.expect("work");
    q.queue()
        .publish_work(&[work(&email, "a")])
        .await
        .expect("publish");

    let late = pull_one(&mut *frozen).await;
    let again = pull_one(&mut *healthy).await;
    late.acker.ack().await.expect("late ack");
    late.acker.in_progress().await.expect("late in progress");
    late.acker.nak(Duration::ZERO).await.expect("late nak");
    again.acker.ack().await.expect("ack");
    again.acker.ack().await.expect("ack twice");
    q.queue()
        .publish_work(&[work(&email, "b")])
        .await
        .expect("publish");
    let next = pull_one(&mut *frozen).await;
    assert_eq!((text(&next.body).as_str(), next.attempt), ("b", 1));
    next.acker.ack().await.expect("ack");
    sleep(settings.ack_wait).await;
    assert_silent(&mut *healthy).await;
}

/// A pull takes at most `max`, and what is beyond stays free for others at once.
pub async fn a_pull_holds_nothing_beyond_its_max(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let mut greedy = q.queue().work(&email).await.expect("work");
    let mut other = q.peer().work(&email).await.expect("work");
    q.queue()
        .publish_work(&works(&email, 0..10))
        .await
        .expect("publish");

    let held = pull_exactly(&mut *greedy, 3).await;
    let rest = pull_exactly(&mut *other, 7).await;
    assert!(rest.iter().all(|delivery| delivery.attempt == 1));
    ack_all(&held).await;
    ack_all(&rest).await;
}

/// A pull on an empty stream waits, and ends soon after the first message came.
pub async fn a_pull_waits_for_the_first_message(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    let publish = async {
        sleep(Duration::from_millis(300)).await;
        q.peer()
            .publish_work(&[work(&email, "a")])
            .await
            .expect("publish");
        Instant::now()
    };
    let pull = async {
        let pulled = consumer.pull(8, DEADLINE).await.expect("pull");
        (pulled, Instant::now())
    };
    let ((pulled, pulled_at), published_at) = tokio::join!(pull, publish);
    assert_eq!(texts(&pulled), ["a"]);
    assert!(pulled_at.saturating_duration_since(published_at) < DEADLINE / 4);
    ack_all(&pulled).await;
}

/// A pull that finds fewer than `max` returns them; it does not wait for more.
pub async fn a_short_batch_ends_the_wait(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    q.queue()
        .publish_work(&works(&email, 0..3))
        .await
        .expect("publish");

    let before = Instant::now();
    let mut bodies = BTreeSet::new();
    while bodies.len() < 3 {
        let pulled = consumer.pull(100, DEADLINE).await.expect("pull");
        bodies.extend(texts(&pulled));
        ack_all(&pulled).await;
    }
    assert!(
        before.elapsed() < DEADLINE / 4,
        "took {:?}",
        before.elapsed()
    );
}

/// A pull on an empty stream ends empty, after its wait and not long after.
pub async fn an_empty_pull_ends_after_its_wait(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut consumer = q.queue().work(&graph("email", "1")).await.expect("work");
    for wait in [Duration::ZERO, Duration::from_millis(500)] {
        let before = Instant::now();
        let pulled = timeout(DEADLINE, consumer.pull(4, wait))
            .await
            .expect("in time");
        assert_eq!(texts(&pulled.expect("pull")), [""; 0]);
        assert!(before.elapsed() + CLOCK_SLACK >= wait);
    }
}

/// A pull that is given up takes no message with it for longer than a lease.
pub async fn a_dropped_pull_loses_no_message(make: impl MakeQueue) {
    let q = make(ContractSettings::default()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    for _ in 0..3 {
        let given_up = timeout(Duration::from_millis(100), consumer.pull(4, DEADLINE)).await;
        assert!(given_up.is_err(), "nothing was there to pull");
    }
    q.peer()
        .publish_work(&works(&email, 0..5))
        .await
        .expect("publish");
    let mut bodies = BTreeSet::new();
    while bodies.len() < 5 {
        let delivery = pull_one(&mut *consumer).await;
        delivery.acker.ack().await.expect("ack");
        bodies.insert(text(&delivery.body));
    }
}

/// A worker sees no work of a graph or version that it does not hold.
pub async fn work_of_another_version_is_not_seen(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let graphs = [
        graph("email", "1"),
        graph("email", "2"),
        graph("report", "1"),
    ];
    let mut consumers = Vec::new();
    for id in &graphs {
        consumers.push(q.queue().work(id).await.expect("work"));
    }
    let messages: Vec<_> = graphs.iter().map(|id| work(id, &id.to_string())).collect();
    q.queue().publish_work(&messages).await.expect("publish");
    for (id, consumer) in graphs.iter().zip(&mut consumers) {
        let delivery = pull_one(&mut **consumer).await;
        assert_eq!(text(&delivery.body), id.to_string());
        assert_eq!(delivery.kind, DeliveryBody::Work { graph: id.clone() });
        delivery.acker.ack().await.expect("ack");
        assert_silent(&mut **consumer).await;
    }
}

/// Work published before any worker of its graph exists is kept for the first.
pub async fn work_waits_for_its_first_consumer(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    q.queue()
        .publish_work(&works(&email, 0..3))
        .await
        .expect("publish");
    let mut consumer = q.peer().work(&email).await.expect("work");
    let pulled = pull_exactly(&mut *consumer, 3).await;
    assert_eq!(texts(&pulled), ["0", "1", "2"]);
    ack_all(&pulled).await;
}

/// Headers and bytes come as they were sent, with the time that the stream took them.
pub async fn work_comes_with_headers_and_body(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let email = graph("email", "1");
    let mut consumer = q.queue().work(&email).await.expect("work");
    let mut message = work(&email, "");
    message.body = vec![0, 255, b'\r', b'\n', 128].into();
    message
        .headers
        .insert("traceparent".into(), "00-ab-cd-01".into());
    message
        .headers
        .insert("X-Mixed-Case".into(), "a: b, größe".into());
    q.queue()
        .publish_work(&[message.clone(), work(&email, "")])
        .await
        .expect("publish");

    let pulled = pull_exactly(&mut *consumer, 2).await;
    assert_eq!(pulled[0].body, message.body);
    for (name, value) in &message.headers {
        assert_eq!(pulled[0].headers.get(name), Some(value), "{name}");
    }
    assert!(pulled[1].body.is_empty());
    let year_2020 = 1_577_836_800_000;
    assert!(pulled.iter().all(|d| d.published_at.0 > year_2020));
    assert!(pulled[0].published_at <= pulled[1].published_at);
    ack_all(&pulled).await;
}

/// The backlog of a graph is told by what waits for a worker, held or done work is none of it.
pub async fn a_backlog_is_what_no_worker_holds(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let (email, other) = (graph("email", "1"), graph("email", "2"));
    assert_eq!(q.queue().backlog(&other).await.expect("backlog"), None);
    let published = q.queue().publish_work(&works(&email, 0..2)).await;
    published.expect("publish");
    let waits = Duration::from_millis(1_200);
    // An answer may be a second old.
    sleep(waits).await;
    let waited = q.queue().backlog(&email).await.expect("backlog");
    let waited = waited.expect("nobody has asked for work");
    assert!(
        waited + CLOCK_SLACK >= waits && waited < DEADLINE,
        "{waited:?}"
    );
    assert_eq!(q.queue().backlog(&other).await.expect("backlog"), None);
    let mut consumer = q.queue().work(&email).await.expect("work");
    let first = pull_one(&mut *consumer).await;
    sleep(waits).await;
    let waited = q.queue().backlog(&email).await.expect("backlog");
    assert!(waited.is_some(), "one of two waits");
    let second = pull_one(&mut *consumer).await;
    ack_all(&[first]).await;
    sleep(waits).await;
    assert_eq!(q.queue().backlog(&email).await.expect("backlog"), None);
    ack_all(&[second]).await;
}
