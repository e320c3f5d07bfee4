//! The contract on SQLite, with a peer as another process has it, and what only a file
//! promises: messages outlive the process, and bounds in its tables.

use std::{
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use rusqlite::Connection;
use superstep_checkpoint::contract::ManualClock;
use superstep_protocol::GraphId;
use superstep_queue::{
    CommandKind, CommandMessage, Delivery, DeliveryBody, ErrorKind, EventFilter, EventMessage,
    Headers, Queue, WorkMessage,
    contract::{ContractQueue, ContractSettings, DEADLINE},
    header,
};

use super::{SqliteQueue, SqliteQueueSettings};
use crate::Database;

async fn make_queue(settings: ContractSettings) -> ContractQueue {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let defaults = SqliteQueueSettings::default();
    let settings = SqliteQueueSettings {
        ack_wait: settings.ack_wait,
        command_ack_wait: settings.command_ack_wait,
        work_messages_max: settings
            .work_messages_max
            .unwrap_or(defaults.work_messages_max),
        ..defaults
    };
    let open = move || {
        let database = Database::open(&path).unwrap();
        SqliteQueue::new(database, settings.clone()).unwrap()
    };
    let opened = tokio::task::spawn_blocking(move || (open(), open()));
    let (queue, peer) = opened.await.unwrap();
    let raw = queue.clone();
    ContractQueue::new(Arc::new(queue))
        .with_peer(Arc::new(peer))
        .with_guard(folder)
        .with_raw(move |subject, headers, body| {
            let queue = raw.clone();
            async move {
                queue.publish_raw(&subject, headers, body).await.unwrap();
            }
        })
}

superstep_queue::contract_tests!(make_queue);

fn open(path: &std::path::Path) -> SqliteQueue {
    let database = Database::open(path).unwrap();
    SqliteQueue::new(database, SqliteQueueSettings::default()).unwrap()
}

fn email() -> GraphId {
    GraphId {
        name: "email".into(),
        version: "1".into(),
    }
}

fn work(body: &str) -> WorkMessage {
    WorkMessage {
        graph: email(),
        headers: Headers::new(),
        body: Bytes::from(body.to_owned()),
    }
}

fn resume(body: &str) -> CommandMessage {
    CommandMessage {
        kind: CommandKind::Resume,
        target: "order-42".to_owned(),
        headers: Headers::from([(header::MSG_ID.to_owned(), body.to_owned())]),
        body: Bytes::from(body.to_owned()),
    }
}

fn event(body: &str) -> EventMessage {
    EventMessage {
        kind: "interrupt".to_owned(),
        graph: None,
        thread: "order-42".into(),
        headers: Headers::from([(header::MSG_ID.to_owned(), body.to_owned())]),
        body: Bytes::from(body.to_owned()),
    }
}

fn from_start() -> EventFilter {
    EventFilter {
        from_start: true,
        ..EventFilter::default()
    }
}

fn texts(deliveries: &[Delivery]) -> Vec<String> {
    let text = |delivery: &Delivery| String::from_utf8_lossy(&delivery.body).into_owned();
    deliveries.iter().map(text).collect()
}

#[tokio::test]
async fn messages_outlive_the_process() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let queue = open(&path);
    queue.publish_command(&resume("c1")).await.unwrap();
    queue.publish_work(&[work("w1"), work("w2")]).await.unwrap();
    queue.publish_events(&[event("e1")]).await.unwrap();
    let mut consumer = queue.work(&email()).await.unwrap();
    let held = consumer.pull(1, DEADLINE).await.unwrap();
    assert_eq!(texts(&held), ["w1"]);
    drop((queue, consumer, held));

    let queue = open(&path);
    let again = queue.publish_command(&resume("c1")).await.unwrap();
    assert!(again.duplicate, "ids outlive the process, too");
    let mut commands = queue.commands().await.unwrap();
    let pulled = commands.pull(10, DEADLINE).await.unwrap();
    assert_eq!(texts(&pulled), ["c1"]);
    let mut events = queue.events(&from_start()).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().body, "e1");
    let mut consumer = queue.work(&email()).await.unwrap();
    let pulled = consumer.pull(10, DEADLINE).await.unwrap();
    assert_eq!(texts(&pulled), ["w2"], "w1 is still leased");
}

#[tokio::test]
async fn a_worker_that_starts_ends_old_leases() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let queue = open(&path);
    queue.publish_work(&[work("w1")]).await.unwrap();
    let mut consumer = queue.work(&email()).await.unwrap();
    let lost = consumer.pull(1, DEADLINE).await.unwrap();
    assert_eq!(lost.len(), 1);
    drop((queue, consumer, lost));

    let queue = open(&path);
    let begun = Instant::now();
    queue.end_leases().await.unwrap();
    let mut consumer = queue.work(&email()).await.unwrap();
    let again = consumer.pull(1, DEADLINE).await.unwrap();
    assert_eq!(
        (again[0].attempt, texts(&again)),
        (2, vec!["w1".to_owned()])
    );
    assert!(begun.elapsed() < SqliteQueueSettings::default().ack_wait);
}

#[tokio::test]
async fn a_pull_is_woken_within_its_process_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder.path().join("store.db"));
    let mut consumer = queue.work(&email()).await.unwrap();
    let mut quickest = Duration::MAX;
    for _ in 0..20 {
        let publish = async {
            tokio::task::yield_now().await;
            let begun = Instant::now();
            queue.publish_work(&[work("w")]).await.unwrap();
            begun
        };
        let (pulled, begun) = tokio::join!(consumer.pull(1, DEADLINE), publish);
        quickest = quickest.min(begun.elapsed());
        pulled.unwrap()[0].acker.ack().await.unwrap();
    }
    assert!(quickest < super::wake::POLL / 2, "took {quickest:?}");
}

/// This test is its own second process: started again with the file in the environment, it
/// asks for a resume, reads the outcome and the event that went with it, and ends.
#[tokio::test]
async fn another_process_asks_and_follows() {
    const FILE: &str = "SUPERSTEP_TEST_QUEUE_FILE";
    const NAME: &str = "queue::tests::another_process_asks_and_follows";
    if let Some(path) = std::env::var_os(FILE) {
        let queue = open(path.as_ref());
        let mut events = queue.events(&EventFilter::default()).await.unwrap();
        let (_, outcome) = queue.request(resume("c1"), DEADLINE).await.unwrap();
        assert_eq!(outcome, Some(Bytes::from("accepted")));
        assert_eq!(events.next().await.unwrap().unwrap().body, "e1");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let queue = open(&path);
    let mut commands = queue.commands().await.unwrap();
    let mut second = Command::new(std::env::current_exe().unwrap())
        .args([NAME, "--exact", "--quiet"])
        .env(FILE, &path)
        .spawn()
        .unwrap();
    let pulled = commands.pull(1, DEADLINE).await.unwrap();
    let target = "order-42".to_owned();
    let kind = CommandKind::Resume;
    assert_eq!(pulled[0].kind, DeliveryBody::Command { kind, target });
    queue.publish_events(&[event("e1")]).await.unwrap();
    let reply_to = &pulled[0].headers[header::REPLY];
    queue
        .reply(reply_to, Bytes::from("accepted"))
        .await
        .unwrap();
    pulled[0].acker.ack().await.unwrap();
    let ended = tokio::task::spawn_blocking(move || second.wait());
    let ended = tokio::time::timeout(DEADLINE, ended).await.unwrap();
    assert!(ended.unwrap().unwrap().success());
}

#[tokio::test]
async fn old_events_make_room_for_new_ones() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("store.db")).unwrap();
    let settings = SqliteQueueSettings {
        event_messages_max: 3,
        ..SqliteQueueSettings::default()
    };
    let queue = SqliteQueue::new(database, settings).unwrap();
    let mut slow = queue.events(&from_start()).await.unwrap();
    let events: Vec<_> = ["0", "1", "2", "3", "4"].map(event).into();
    queue.publish_events(&events).await.unwrap();
    for expected in ["2", "3", "4"] {
        assert_eq!(slow.next().await.unwrap().unwrap().body, expected);
    }
}

#[tokio::test]
async fn what_is_too_old_leaves_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let clock = ManualClock::default();
    let database = Database::open_with_clock(&path, clock.clock()).unwrap();
    let queue = SqliteQueue::new(database, SqliteQueueSettings::default()).unwrap();
    queue.publish_command(&resume("c1")).await.unwrap();
    queue.publish_events(&[event("old")]).await.unwrap();
    let gone = "_INBOX.sqlite.nobody-0";
    queue.reply(gone, Bytes::from("late")).await.unwrap();

    clock.advance(Duration::from_secs(121));
    let again = queue.publish_command(&resume("c1")).await.unwrap();
    assert!(!again.duplicate, "the window is over");
    clock.advance(SqliteQueueSettings::default().event_age_max);
    queue.publish_events(&[event("new")]).await.unwrap();

    let tool = Connection::open(&path).unwrap();
    for (what, left) in [
        ("events", 1),
        ("message_ids", 1),
        ("replies", 0),
        ("messages", 2),
    ] {
        let sql = format!("SELECT count(*) FROM {what}");
        let rows: i64 = tool.query_row(&sql, (), |row| row.get(0)).unwrap();
        assert_eq!(rows, left, "{what}");
    }
    let mut events = queue.events(&from_start()).await.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().body, "new");
}

#[tokio::test]
async fn commands_are_bounded_too() {
    let folder = tempfile::tempdir().unwrap();
    let database = Database::open(folder.path().join("store.db")).unwrap();
    let settings = SqliteQueueSettings {
        command_messages_max: 1,
        ..SqliteQueueSettings::default()
    };
    let queue = SqliteQueue::new(database, settings).unwrap();
    queue.publish_command(&resume("c1")).await.unwrap();
    let error = queue.publish_command(&resume("c2")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(!queue.check().await.iter().all(|finding| finding.ok));
}

#[tokio::test]
async fn subscriptions_end_with_their_queue() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder.path().join("store.db"));
    let mut events = queue.events(&EventFilter::default()).await.unwrap();
    let mut outputs = queue.outputs(&"order-42".into()).await.unwrap();
    drop(queue);
    assert_eq!(events.next().await.unwrap(), None);
    assert_eq!(outputs.next().await.unwrap(), None);
}

#[tokio::test]
async fn abandoned_requests_leave_no_inbox() {
    let folder = tempfile::tempdir().unwrap();
    let queue = open(&folder.path().join("store.db"));
    let asked = queue.request(resume("c1"), DEADLINE);
    let given_up = tokio::time::timeout(Duration::from_millis(100), asked).await;
    assert!(given_up.is_err());
    assert!(queue.shared.inboxes.is_empty());
}

#[tokio::test]
async fn live_output_leaves_bounded_rows() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.db");
    let queue = open(&path);
    for n in 0..3_000_u32 {
        let body = Bytes::from(n.to_string());
        let sent = queue.output(&"t".into(), &"r".into(), body).await;
        sent.unwrap();
    }
    drop(queue);
    let tool = Connection::open(&path).unwrap();
    let rows: i64 = tool
        .query_row("SELECT count(*) FROM output", (), |row| row.get(0))
        .unwrap();
    assert!((1..=1_024).contains(&rows), "{rows}");
}
