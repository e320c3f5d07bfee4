//! The contract on the memory queue, with time paused, and what only this queue promises.

use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    CommandKind,
    contract::{ContractQueue, ContractSettings},
};

async fn make_queue(settings: ContractSettings) -> ContractQueue {
    let defaults = MemoryQueueSettings::default();
    let queue = MemoryQueue::new(MemoryQueueSettings {
        ack_wait: settings.ack_wait,
        command_ack_wait: settings.command_ack_wait,
        work_messages_max: settings
            .work_messages_max
            .unwrap_or(defaults.work_messages_max),
        ..defaults
    })
    .unwrap();
    let raw = queue.clone();
    ContractQueue::new(Arc::new(queue)).with_raw(move |subject, headers, body| {
        let queue = raw.clone();
        async move {
            queue.publish_raw(&subject, headers, body).unwrap();
        }
    })
}

crate::contract_tests!(make_queue, start_paused = true);

fn resume(id: &str) -> CommandMessage {
    CommandMessage {
        kind: CommandKind::Resume,
        target: "order-42".to_owned(),
        headers: Headers::from([(header::MSG_ID.to_owned(), id.to_owned())]),
        body: Bytes::new(),
    }
}

fn interrupt(id: usize) -> EventMessage {
    EventMessage {
        kind: "interrupt".to_owned(),
        graph: None,
        thread: "order-42".into(),
        headers: Headers::new(),
        body: id.to_string().into(),
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_is_forgotten_after_its_window() {
    let queue = MemoryQueue::new(MemoryQueueSettings::default()).unwrap();
    queue.publish_command(&resume("k1")).await.unwrap();
    tokio::time::advance(Duration::from_millis(119_999)).await;
    assert!(
        queue
            .publish_command(&resume("k1"))
            .await
            .unwrap()
            .duplicate
    );
    tokio::time::advance(Duration::from_millis(1)).await;
    assert!(
        !queue
            .publish_command(&resume("k1"))
            .await
            .unwrap()
            .duplicate
    );
}

#[tokio::test(start_paused = true)]
async fn old_events_make_room_for_new_ones() {
    let queue = MemoryQueue::new(MemoryQueueSettings {
        event_messages_max: 3,
        ..MemoryQueueSettings::default()
    })
    .unwrap();
    let filter = EventFilter {
        from_start: true,
        ..EventFilter::default()
    };
    let mut slow = queue.events(&filter).await.unwrap();
    let events: Vec<_> = (0..5).map(interrupt).collect();
    queue.publish_events(&events).await.unwrap();
    for expected in ["2", "3", "4"] {
        let received = slow.next().await.unwrap().unwrap();
        assert_eq!(received.body, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn subscriptions_end_with_their_queue() {
    let queue = MemoryQueue::new(MemoryQueueSettings::default()).unwrap();
    let mut events = queue.events(&EventFilter::default()).await.unwrap();
    let mut outputs = queue.outputs(&"order-42".into()).await.unwrap();
    drop(queue);
    assert_eq!(events.next().await.unwrap(), None);
    assert_eq!(outputs.next().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn commands_are_bounded_too() {
    let queue = MemoryQueue::new(MemoryQueueSettings {
        command_messages_max: 1,
        ..MemoryQueueSettings::default()
    })
    .unwrap();
    queue.publish_command(&resume("k1")).await.unwrap();
    let error = queue.publish_command(&resume("k2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(!queue.check().await.iter().all(|finding| finding.ok));
}

#[tokio::test(start_paused = true)]
async fn abandoned_requests_leave_no_inbox() {
    let queue = MemoryQueue::new(MemoryQueueSettings::default()).unwrap();
    let wait = Duration::from_secs(60);
    let asked = queue.request(resume("k1"), wait);
    assert!(timeout(Duration::from_secs(1), asked).await.is_err());
    assert!(queue.shared.state().inboxes.is_empty());
}
