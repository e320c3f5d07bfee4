//! Promises about stored events: everyone gets them, an id makes them one, filters and
//! beginnings.

use superstep_protocol::{GraphName, ThreadId};

use super::{MakeQueue, assert_no_more, event, next, next_texts, unhurried};
use crate::EventFilter;

fn everything() -> EventFilter {
    EventFilter {
        from_start: true,
        ..EventFilter::default()
    }
}

/// Every subscriber gets every event, in the order of publishing.
pub async fn events_reach_every_subscriber_in_order(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut first = q
        .queue()
        .events(&EventFilter::default())
        .await
        .expect("events");
    let mut second = q
        .peer()
        .events(&EventFilter::default())
        .await
        .expect("events");
    let events: Vec<_> = (0..50)
        .map(|n| event("run_started", Some("email"), "order-42", &format!("e{n}")))
        .collect();
    q.queue().publish_events(&events).await.expect("publish");
    let expected: Vec<_> = (0..50).map(|n| format!("e{n}")).collect();
    assert_eq!(next_texts(&mut *first, 50).await, expected);
    assert_eq!(next_texts(&mut *second, 50).await, expected);
}

/// An event published again under its id is one event.
pub async fn a_repeated_event_id_is_one_event(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut events = q
        .queue()
        .events(&EventFilter::default())
        .await
        .expect("events");
    let one = event("interrupt", Some("email"), "order-42", "e1");
    let two = event("interrupt", Some("email"), "order-42", "e2");
    q.queue()
        .publish_events(&[one.clone(), one.clone()])
        .await
        .expect("publish");
    q.peer().publish_events(&[one, two]).await.expect("publish");
    assert_eq!(next_texts(&mut *events, 2).await, ["e1", "e2"]);
    assert_no_more(&mut *events).await;
}

/// A filter by kind, graph or thread, or several, gets exactly what it names.
pub async fn events_are_filtered_by_each_part(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let published = [
        event("interrupt", Some("email"), "t1", "1"),
        event("interrupt", Some("email"), "t2", "2"),
        event("interrupt", Some("report"), "t1", "3"),
        event("run_completed", Some("email"), "t1", "4"),
        event("resume_refused", None, "t1", "5"),
        event("interrupt", Some("e.mail"), "t*", "6"),
    ];
    q.queue().publish_events(&published).await.expect("publish");
    let rows: [(_, _, _, &[&str]); 8] = [
        (None, None, None, &["1", "2", "3", "4", "5", "6"]),
        (Some("interrupt"), None, None, &["1", "2", "3", "6"]),
        (None, Some("email"), None, &["1", "2", "4"]),
        (None, None, Some("t1"), &["1", "3", "4", "5"]),
        (Some("interrupt"), Some("email"), Some("t1"), &["1"]),
        (None, Some("e.mail"), Some("t*"), &["6"]),
        (Some("nothing"), None, None, &[]),
        (None, Some("-"), None, &[]),
    ];
    for (kind, graph, thread, expected) in rows {
        let filter = EventFilter {
            kind: kind.map(str::to_owned),
            graph: graph.map(GraphName::from),
            thread: thread.map(ThreadId::from),
            from_start: true,
        };
        let mut events = q.queue().events(&filter).await.expect("events");
        let got = next_texts(&mut *events, expected.len()).await;
        assert_eq!(got, expected, "{filter:?}");
        assert_no_more(&mut *events).await;
    }
}

/// From the start there is all that is stored, else only what comes from now on.
pub async fn a_subscription_begins_where_it_asked(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let old = event("interrupt", Some("email"), "t1", "old");
    let new = event("interrupt", Some("email"), "t1", "new");
    q.queue().publish_events(&[old]).await.expect("publish");
    let mut from_now = q
        .queue()
        .events(&EventFilter::default())
        .await
        .expect("events");
    let mut from_start = q.queue().events(&everything()).await.expect("events");
    q.peer().publish_events(&[new]).await.expect("publish");
    assert_eq!(next_texts(&mut *from_now, 1).await, ["new"]);
    assert_eq!(next_texts(&mut *from_start, 2).await, ["old", "new"]);
    assert_no_more(&mut *from_now).await;
    assert_no_more(&mut *from_start).await;
}

/// An event about a thread that no graph has run says so in its subject.
pub async fn events_need_no_graph(make: impl MakeQueue) {
    let q = make(unhurried()).await.ready().await;
    let mut events = q
        .queue()
        .events(&EventFilter::default())
        .await
        .expect("events");
    let mut refused = event("resume_refused", None, "order-42", "e1");
    refused
        .headers
        .insert("ce-type".into(), "resume_refused".into());
    q.queue()
        .publish_events(std::slice::from_ref(&refused))
        .await
        .expect("publish");
    let received = next(&mut *events).await;
    assert_eq!(
        received.subject,
        "superstep.default.events.resume_refused.-.order-42"
    );
    assert_eq!(received.body, refused.body);
    for (name, value) in &refused.headers {
        assert_eq!(received.headers.get(name), Some(value), "{name}");
    }
}
