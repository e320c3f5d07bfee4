//! The check of settings, as a table of what is written down and what is said of it.

use super::*;

/// Settings by name and text.
fn settings(pairs: &[(&str, &str)]) -> ConnectSettings {
    let mut settings = ConnectSettings::default();
    for (name, value) in pairs {
        settings.set(name, value).unwrap();
    }
    settings
}

#[track_caller]
fn wrong(pairs: &[(&str, &str)], expected: &[(&str, &str)]) {
    let settings = settings(pairs);
    let mistakes = settings.check().unwrap_err();
    let found: Vec<&str> = mistakes.0.iter().map(|m| m.setting.as_str()).collect();
    let named: Vec<&str> = expected.iter().map(|(setting, _)| *setting).collect();
    assert_eq!(found, named, "{mistakes}");
    for (mistake, (_, part)) in mistakes.0.iter().zip(expected) {
        assert!(mistake.what.contains(part), "{mistake} should say {part}");
    }
    let shown = format!("{mistakes} {mistakes:?} {settings:?}");
    assert!(!shown.contains("s3cret"), "{shown}");
}

#[test]
fn the_defaults_are_right() {
    let cluster = ConnectSettings::default().check().unwrap();
    assert_eq!(cluster.nats.urls, ["nats://127.0.0.1:4222"]);
    assert_eq!(cluster.redis.urls, ["redis://127.0.0.1:6379"]);
    assert_eq!(cluster.subjects.to_string(), "superstep.default");
}

#[test]
fn a_wrong_address_is_named_without_its_secret() {
    wrong(
        &[("nats_url", "http://a:s3cret@b")],
        &[("nats_url", "`http://b`")],
    );
    wrong(
        &[("nats_url", "b:4222")],
        &[("nats_url", "nats://host:port")],
    );
    wrong(
        &[("redis_url", "redis://u:s3cret@")],
        &[("redis_url", "`redis://`")],
    );
    wrong(&[("redis_url", " , ")], &[("redis_url", "is empty")]);
}

#[test]
fn every_mistake_is_reported_at_once() {
    wrong(
        &[
            ("namespace", "a.b"),
            ("nats_url", "nowhere"),
            ("nats_token", "s3cret"),
            ("nats_nkey", "s3cret"),
            ("nats_key", "Cargo.toml"),
            ("nats_replicas", "9"),
            ("redis_url", "redis://u:s3cret@h"),
            ("redis_password", "s3cret"),
            ("redis_ca", "/none/ca.pem"),
            ("connect_timeout_ms", "0"),
        ],
        &[
            ("connect_timeout_ms", "1 to"),
            ("namespace", "letters"),
            ("nats_url", "nowhere"),
            ("nats_token", "one way"),
            ("nats_replicas", "1 to 5"),
            ("nats_key", "nats_cert"),
            ("redis_ca", "rediss://"),
            ("redis_password", "keep one"),
            ("redis_ca", "/none/ca.pem"),
        ],
    );
}

#[test]
fn a_mistyped_nkey_is_not_repeated() {
    wrong(
        &[("nats_nkey", "SUs3cret")],
        &[("nats_nkey", "58 characters")],
    );
}

#[test]
fn a_redis_user_and_password_go_into_the_address() {
    let settings = settings(&[
        ("redis_url", "rediss+cluster://a:1, rediss+cluster://b"),
        ("redis_user", "bob"),
        ("redis_password", "p@ss/w:rd"),
    ]);
    let cluster = settings.check().unwrap();
    assert_eq!(
        cluster.redis.urls,
        [
            "rediss+cluster://bob:p%40ss%2Fw%3Ard@a:1",
            "rediss+cluster://bob:p%40ss%2Fw%3Ard@b"
        ]
    );
    assert!(!format!("{settings:?}{cluster:?}").contains("p%40ss"));
}

#[test]
fn every_name_is_a_setting() {
    let example = |name: &str| match name {
        "nats_replicas" => "3",
        "connect_timeout_ms" => "100",
        _ => "x",
    };
    let mut all = ConnectSettings::default();
    for name in ConnectSettings::NAMES {
        let before = all.clone();
        all.set(name, example(name)).unwrap();
        assert_ne!(all, before, "{name} sets nothing");
    }
    assert!(all.set("nats_ulr", "x").is_err());
    assert!(all.set("nats_replicas", "many").is_err());
}

#[test]
fn a_file_with_an_unknown_key_is_refused() {
    let read: Result<ConnectSettings, _> = serde_json::from_str(r#"{"nats_ulr": "x"}"#);
    assert!(read.unwrap_err().to_string().contains("nats_ulr"));
    let read: ConnectSettings = serde_json::from_str(r#"{"namespace": "a"}"#).unwrap();
    assert_eq!(read, settings(&[("namespace", "a")]));
}
