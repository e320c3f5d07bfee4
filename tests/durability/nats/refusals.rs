//! What a server refuses, and what is said about it: addresses, credentials, settings, room.
//!
//! Each refusal has its kind, comes within its bound, says what to do, and shows no secret.

use std::{net::TcpListener, time::Instant};

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};
use superstep_queue::{Error, Queue};
use superstep_queue_nats::NatsAuth;
use superstep_tests::servers::ServerBinary;

use super::*;

on_both_servers! {
    wrong_credentials_are_denied_without_a_secret
    right_credentials_of_each_kind_are_let_in
    a_server_without_jetstream_is_denied
    a_forbidden_publish_is_denied
    a_forbidden_api_is_denied
    an_incompatible_stream_is_named_and_left_alone
    another_streams_subjects_are_incompatible
    an_incompatible_consumer_is_named_and_left_alone
    bounds_of_an_existing_stream_are_kept
    a_full_stream_refuses_and_keeps_what_it_has
    what_a_filling_stream_acked_is_not_dropped
    a_server_without_room_refuses_the_streams
    the_servers_largest_payload_is_the_bound
    the_doctor_says_what_to_fix
}

#[track_caller]
fn assert_refused<T>(result: Result<T, Error>, kind: ErrorKind, said: &[&str]) {
    let Err(error) = result else {
        panic!("was to be refused as {kind:?}");
    };
    assert_eq!(error.kind(), kind, "{error}");
    for part in said {
        assert!(
            error.to_string().contains(part),
            "{error}: does not say {part}"
        );
    }
    for shown in [format!("{error}"), format!("{error:?}")] {
        assert!(!shown.contains("hunter2"), "{shown}: shows a secret");
    }
}

#[tokio::test]
async fn an_address_where_nobody_listens_is_unavailable() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let urls = vec![format!("nats://admin:hunter2@{address}")];
    let before = Instant::now();
    let connected = NatsQueue::connect(NatsSettings {
        urls,
        ..NatsSettings::default()
    })
    .await;
    assert_refused(connected, ErrorKind::Unavailable, &[&address, "refused"]);
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn an_address_that_never_answers_is_unavailable_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let settings = NatsSettings {
        urls: vec![format!("nats://{address}")],
        connect_timeout: Duration::from_millis(300),
        ..NatsSettings::default()
    };
    let before = Instant::now();
    let connected = NatsQueue::connect(settings).await;
    assert_refused(connected, ErrorKind::Unavailable, &[&address, "in time"]);
    assert!(before.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn settings_that_cannot_be_are_invalid() {
    let with = |change: fn(&mut NatsSettings)| {
        let mut settings = NatsSettings::default();
        change(&mut settings);
        NatsQueue::connect(settings)
    };
    let bad_url = with(|s| s.urls = vec!["http://hunter2@x y".to_owned()]).await;
    assert_refused(bad_url, ErrorKind::Invalid, &["nats://host:port"]);
    let no_url = with(|s| s.urls.clear()).await;
    assert_refused(no_url, ErrorKind::Invalid, &["no NATS address"]);
    let namespace = with(|s| s.namespace = "a.b".to_owned()).await;
    assert_refused(namespace, ErrorKind::Invalid, &["namespace", "a.b"]);
    let half = with(|s| s.tls.client_cert = Some("cert.pem".into())).await;
    assert_refused(half, ErrorKind::Invalid, &["certificate", "key"]);
    let missing = with(|s| s.auth = NatsAuth::CredentialsFile("/nowhere/x.creds".into())).await;
    assert_refused(missing, ErrorKind::Denied, &["/nowhere/x.creds"]);
}

const PASSWORD: &str = "authorization { user: worker, password: hunter2 }";

async fn wrong_credentials_are_denied_without_a_secret(binary: ServerBinary) {
    let server = server_with(
        binary,
        "",
        "authorization { user: worker, password: right }",
    );
    let auths = [
        NatsAuth::None,
        NatsAuth::Token("hunter2".to_owned()),
        NatsAuth::User {
            user: "worker".to_owned(),
            password: "hunter2".to_owned(),
        },
    ];
    for auth in auths {
        let settings = NatsSettings {
            auth,
            ..settings(&server)
        };
        assert!(!format!("{settings:?}").contains("hunter2"));
        let connected = NatsQueue::connect(settings).await;
        assert_refused(connected, ErrorKind::Denied, &["127.0.0.1", "credentials"]);
    }
}

async fn right_credentials_of_each_kind_are_let_in(binary: ServerBinary) {
    let by_user = server_with(binary, "", PASSWORD);
    let by_token = server_with(binary, "", "authorization { token: \"hun ter/2\" }");
    let user = NatsAuth::User {
        user: "worker".to_owned(),
        password: "hunter2".to_owned(),
    };
    let at =
        |server: &NatsServer, login: &str| format!("nats://{login}127.0.0.1:{}", server.port());
    let rows = [
        (at(&by_user, ""), user),
        (at(&by_user, "worker:hunter2@"), NatsAuth::None),
        (at(&by_token, ""), NatsAuth::Token("hun ter/2".to_owned())),
        (at(&by_token, "hun%20ter%2F2@"), NatsAuth::None),
    ];
    for (url, auth) in rows {
        let settings = NatsSettings {
            urls: vec![url],
            auth,
            ..NatsSettings::default()
        };
        let queue = NatsQueue::connect(settings).await.unwrap();
        queue.setup().await.unwrap();
    }
}

async fn a_server_without_jetstream_is_denied(binary: ServerBinary) {
    let options = NatsOptions {
        binary,
        jetstream: false,
        ..NatsOptions::default()
    };
    let server = NatsServer::start_with(options).unwrap();
    let queue = NatsQueue::connect(settings(&server)).await.unwrap();
    assert_refused(
        queue.setup().await,
        ErrorKind::Denied,
        &["JetStream", "-js"],
    );
    assert!(queue.check().await.iter().any(|finding| !finding.ok));
}

async fn a_forbidden_publish_is_denied(binary: ServerBinary) {
    let users = r#"authorization { users: [
        { user: admin, password: hunter2 }
        { user: worker, password: hunter2, permissions: {
            publish: { deny: ["superstep.*.resume.>"] }
        } }
    ] }"#;
    let server = server_with(binary, "", users);
    let auth = |user: &str| NatsAuth::User {
        user: user.to_owned(),
        password: "hunter2".to_owned(),
    };
    let settings = NatsSettings {
        auth: auth("worker"),
        ..settings(&server)
    };
    let queue = NatsQueue::connect(settings).await.unwrap();
    queue.setup().await.unwrap();
    let published = queue.publish_command(&resume("k1")).await;
    assert_refused(
        published,
        ErrorKind::Denied,
        &["superstep.default.resume.order-42"],
    );
    queue.publish_work(&[work("a")]).await.unwrap();
}

async fn a_forbidden_api_is_denied(binary: ServerBinary) {
    let users = |denied: &str| {
        format!(
            "authorization {{ users: [ {{ user: worker, password: hunter2, permissions: {{
                publish: {{ deny: [\"{denied}\"] }}
            }} }} ] }}"
        )
    };
    for denied in ["$JS.API.STREAM.>", "$JS.API.CONSUMER.CREATE.>"] {
        let server = server_with(binary, "", &users(denied));
        let auth = NatsAuth::User {
            user: "worker".to_owned(),
            password: "hunter2".to_owned(),
        };
        let settings = NatsSettings {
            auth,
            request_timeout: Duration::from_millis(500),
            ..settings(&server)
        };
        let queue = NatsQueue::connect(settings).await.unwrap();
        let said = ["forbids", denied.trim_end_matches(".>")];
        let refused = queue.work(&email()).await;
        assert_refused(refused, ErrorKind::Denied, &said);
    }
}

fn wrong_work_stream() -> Config {
    Config {
        name: "SUPERSTEP_default_WORK".to_owned(),
        subjects: vec!["superstep.default.work.>".to_owned()],
        retention: RetentionPolicy::Limits,
        discard: DiscardPolicy::Old,
        max_age: Duration::from_secs(3600),
        ..Config::default()
    }
}

async fn an_incompatible_stream_is_named_and_left_alone(binary: ServerBinary) {
    let server = server(binary);
    let stranger = stranger(&server).await;
    let made = stranger.create_stream(wrong_work_stream()).await.unwrap();
    let before = made.cached_info().config.clone();
    let queue = NatsQueue::connect(settings(&server)).await.unwrap();
    let said = [
        "SUPERSTEP_default_WORK",
        "retention is limits, needed is workqueue",
        "discard is old, needed is new",
        "max_age is 3600s, needed is none",
        "remove the stream",
    ];
    assert_refused(queue.setup().await, ErrorKind::Incompatible, &said);
    assert_refused(queue.work(&email()).await, ErrorKind::Incompatible, &said);
    let findings = queue.check().await;
    let bad: Vec<_> = findings
        .iter()
        .filter(|finding| finding.detail.contains(said[1]))
        .collect();
    assert!(bad.len() == 1 && !bad[0].ok, "{findings:?}");
    let after = stranger.get_stream(&before.name).await.unwrap();
    assert_eq!(after.cached_info().config, before);
}

async fn another_streams_subjects_are_incompatible(binary: ServerBinary) {
    let server = server(binary);
    let stranger = stranger(&server).await;
    let everything = Config {
        name: "AUDIT".to_owned(),
        subjects: vec!["superstep.>".to_owned()],
        ..Config::default()
    };
    stranger.create_stream(everything).await.unwrap();
    let queue = NatsQueue::connect(settings(&server)).await.unwrap();
    let said = ["SUPERSTEP_default_COMMANDS", "another stream"];
    assert_refused(queue.setup().await, ErrorKind::Incompatible, &said);
}

async fn an_incompatible_consumer_is_named_and_left_alone(binary: ServerBinary) {
    use async_nats::jetstream::consumer::{AckPolicy, pull};

    let server = server(binary);
    let queue = queue_on(&server).await;
    let stranger = stranger(&server).await;
    let stream = "SUPERSTEP_default_COMMANDS";
    let wrong = pull::Config {
        durable_name: Some("workers".to_owned()),
        ack_policy: AckPolicy::Explicit,
        max_deliver: 5,
        ..pull::Config::default()
    };
    stranger
        .create_consumer_on_stream(wrong, stream)
        .await
        .unwrap();
    let said = ["workers", stream, "max_deliver is 5, needed is -1"];
    assert_refused(queue.commands().await, ErrorKind::Incompatible, &said);
    let findings = queue.check().await;
    assert!(
        findings.iter().any(|f| !f.ok && f.detail.contains(said[2])),
        "{findings:?}"
    );
}

async fn bounds_of_an_existing_stream_are_kept(binary: ServerBinary) {
    let server = server(binary);
    let stranger = stranger(&server).await;
    let ours = Config {
        retention: RetentionPolicy::WorkQueue,
        discard: DiscardPolicy::New,
        max_age: Duration::ZERO,
        max_messages: 3,
        storage: StorageType::Memory,
        ..wrong_work_stream()
    };
    stranger.create_stream(ours).await.unwrap();
    let queue = queue_on(&server).await;
    let four = works(0..4);
    assert_refused(queue.publish_work(&four).await, ErrorKind::Full, &["bound"]);
    let info = stranger.get_stream("SUPERSTEP_default_WORK").await.unwrap();
    let state = &info.cached_info().state;
    assert_eq!(
        (state.messages, info.cached_info().config.max_messages),
        (3, 3)
    );
}

async fn a_full_stream_refuses_and_keeps_what_it_has(binary: ServerBinary) {
    let server = server(binary);
    // The oldest server miscounts bytes, so there the number of messages is the bound.
    let number = if binary == ServerBinary::Nats {
        1
    } else {
        1_000
    };
    let settings = NatsSettings {
        command_bytes_max: 4096,
        command_messages_max: number,
        work_bytes_max: 4096,
        work_messages_max: number,
        ..settings(&server)
    };
    let queue = NatsQueue::connect(settings).await.unwrap();
    queue.setup().await.unwrap();
    let long = "x".repeat(3800);
    let with_body = |id: &str| CommandMessage {
        body: Bytes::from(long.clone()),
        ..resume(id)
    };
    queue.publish_command(&with_body("k1")).await.unwrap();
    let refused = queue.publish_command(&with_body("k2")).await;
    assert_refused(refused, ErrorKind::Full, &["bound"]);
    queue.publish_work(&[work(&long)]).await.unwrap();
    let refused = queue.publish_work(&[work(&long)]).await;
    assert_refused(refused, ErrorKind::Full, &["bound"]);
    // A stream that makes room for the refused by dropping the oldest would have lost an ack.
    let mut commands = queue.commands().await.unwrap();
    let kept = pull_one(&mut *commands).await;
    assert_eq!(kept.headers[header::MSG_ID], "k1");
    let findings = queue.check().await;
    let nearly_full = findings
        .iter()
        .filter(|f| !f.ok && f.detail.contains("nearly full"));
    assert_eq!(nearly_full.count(), 2, "{findings:?}");
}

async fn what_a_filling_stream_acked_is_not_dropped(binary: ServerBinary) {
    let server = server(binary);
    let settings = NatsSettings {
        command_bytes_max: 4096,
        command_messages_max: 60,
        ..settings(&server)
    };
    let queue = NatsQueue::connect(settings).await.unwrap();
    queue.setup().await.unwrap();
    let mut acked = 0;
    let refused = loop {
        match queue.publish_command(&resume(&format!("k{acked}"))).await {
            Ok(_) => acked += 1,
            Err(error) => break error,
        }
        assert!(acked < 1_000, "the stream has a bound");
    };
    assert_eq!(refused.kind(), ErrorKind::Full, "{refused}");
    let stranger = stranger(&server).await;
    let mut stream = stranger
        .get_stream("SUPERSTEP_default_COMMANDS")
        .await
        .unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, acked);
}

async fn a_server_without_room_refuses_the_streams(binary: ServerBinary) {
    let server = server_with(binary, "max_file_store: 10MB", "");
    let queue = NatsQueue::connect(settings(&server)).await.unwrap();
    // Without bytes to reserve for commands, the oldest server refuses the events first.
    let refused = match binary {
        ServerBinary::Nats => "SUPERSTEP_default_EVENTS",
        _ => "SUPERSTEP_default_COMMANDS",
    };
    let said = [refused, "lower the bounds"];
    assert_refused(queue.setup().await, ErrorKind::Full, &said);
}

async fn the_servers_largest_payload_is_the_bound(binary: ServerBinary) {
    let server = server_with(binary, "", "max_payload: 64KB");
    let queue = queue_on(&server).await;
    let max = queue.body_bytes_max();
    assert!((32 * 1024..64 * 1024).contains(&max), "{max}");
    queue.publish_work(&[work(&"x".repeat(max))]).await.unwrap();
    let over = queue.publish_work(&[work(&"x".repeat(max + 1))]).await;
    assert_refused(over, ErrorKind::TooLarge, &["max_payload"]);
    let mut headers = resume("k1");
    headers
        .headers
        .insert("Big".to_owned(), "x".repeat(70 * 1024));
    assert_refused(
        queue.publish_command(&headers).await,
        ErrorKind::TooLarge,
        &["send less"],
    );
}

async fn the_doctor_says_what_to_fix(binary: ServerBinary) {
    let server = server(binary);
    let queue = NatsQueue::connect(settings(&server)).await.unwrap();
    let missing = queue.check().await;
    let bad = missing.iter().filter(|finding| !finding.ok);
    assert!(
        bad.clone().all(|f| f.detail.contains("not there")),
        "{missing:?}"
    );
    assert_eq!(bad.count(), 3);
    queue.setup().await.unwrap();
    queue.work(&email()).await.unwrap();
    queue.publish_work(&[work("a")]).await.unwrap();
    let findings = queue.check().await;
    assert!(findings.iter().all(|finding| finding.ok), "{findings:?}");
    let of = |subject: &str| {
        let mut found = findings.iter().filter(|f| f.subject.starts_with(subject));
        found
            .next()
            .unwrap_or_else(|| panic!("nothing about {subject}: {findings:?}"))
    };
    assert!(of("NATS at 127.0.0.1").detail.contains("version 2."));
    assert!(
        of("stream SUPERSTEP_default_WORK")
            .detail
            .contains("1 of at most 1000000")
    );
    assert!(
        of("consumer email-1-")
            .detail
            .contains("1 waiting to be delivered")
    );
}
