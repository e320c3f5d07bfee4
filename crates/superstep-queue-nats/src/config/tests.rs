//! Tables: what a stream or consumer that exists may differ in, and what not.

use superstep_protocol::GraphId;

use super::*;

fn subjects() -> Subjects {
    Subjects::new("superstep", "default").unwrap()
}

fn wanted(role: StreamRole) -> stream::Config {
    role.wanted(&NatsSettings::default(), &subjects(), true)
}

fn graph(name: &str, version: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: version.into(),
    }
}

#[track_caller]
fn check(role: StreamRole, change: impl Fn(&mut stream::Config), expected: &[&str]) {
    let mut found = wanted(role);
    change(&mut found);
    assert_eq!(stream_differences(role, &wanted(role), &found), expected);
}

#[test]
fn streams_are_named_for_prefix_and_namespace() {
    let other = Subjects::new("ours", "tenant-1").unwrap();
    let named = StreamRole::ALL.map(|role| role.stream(&other));
    let expected = ["COMMANDS", "WORK", "EVENTS"].map(|role| format!("OURS_tenant-1_{role}"));
    assert_eq!(named, expected);
}

#[test]
fn what_breaks_no_guarantee_is_accepted() {
    for role in StreamRole::ALL {
        check(role, |_| {}, &[]);
        check(role, |found| found.num_replicas = 3, &[]);
        check(role, |found| found.max_bytes = 1, &[]);
        check(role, |found| found.max_messages = 1, &[]);
        check(role, |found| found.max_message_size = 1, &[]);
        check(role, |found| found.duplicate_window = Duration::ZERO, &[]);
        check(
            role,
            |found| found.subjects = vec!["superstep.>".into()],
            &[],
        );
        check(role, |found| found.subjects.push("other".into()), &[]);
        check(role, |found| found.description = None, &[]);
    }
    check(
        StreamRole::Events,
        |found| found.max_age = Duration::from_secs(1),
        &[],
    );
    check(
        StreamRole::Events,
        |found| found.discard = DiscardPolicy::New,
        &[],
    );
    check(
        StreamRole::Work,
        |found| found.storage = StorageType::Memory,
        &[],
    );
}

#[test]
fn what_breaks_a_guarantee_is_named() {
    for role in [StreamRole::Commands, StreamRole::Work] {
        check(
            role,
            |found| found.retention = RetentionPolicy::Limits,
            &["retention is limits, needed is workqueue"],
        );
        check(
            role,
            |found| found.discard = DiscardPolicy::Old,
            &["discard is old, needed is new"],
        );
        check(
            role,
            |found| found.max_age = Duration::from_secs(3600),
            &["max_age is 3600s, needed is none"],
        );
        check(
            role,
            |found| found.max_messages_per_subject = 1,
            &["max_msgs_per_subject is 1, needed is none"],
        );
    }
    for role in StreamRole::ALL {
        check(
            role,
            |found| found.no_ack = true,
            &["no_ack is true, needed is false"],
        );
        check(
            role,
            |found| found.sealed = true,
            &["sealed is true, needed is false"],
        );
    }
    for role in [StreamRole::Commands, StreamRole::Events] {
        check(
            role,
            |found| found.storage = StorageType::Memory,
            &["storage is memory, needed is file"],
        );
    }
    check(
        StreamRole::Events,
        |found| found.retention = RetentionPolicy::Interest,
        &["retention is interest, needed is limits"],
    );
    check(
        StreamRole::Work,
        |found| {
            found.subjects = vec!["superstep.default.work.*".into()];
            found.discard = DiscardPolicy::Old;
        },
        &[
            "subjects is [superstep.default.work.*], needed is superstep.default.work.>",
            "discard is old, needed is new",
        ],
    );
}

#[test]
fn a_pattern_covers_what_it_takes() {
    let rows = [
        ("a.b.>", "a.b.>", true),
        ("a.>", "a.b.>", true),
        (">", "a.b.>", true),
        ("a.*.>", "a.b.>", true),
        ("*.b.>", "a.b.>", true),
        ("a.b.*", "a.b.>", false),
        ("a.b.c", "a.b.>", false),
        ("a.b", "a.b.>", false),
        ("a.b.c.>", "a.b.>", false),
        ("a.b.*", "a.b.*", true),
        ("a.b", "a.b", true),
        ("a.c", "a.b", false),
    ];
    for (pattern, needed, expected) in rows {
        assert_eq!(covers(pattern, needed), expected, "{pattern} {needed}");
    }
}

#[test]
fn consumers_are_accepted_unless_they_break_a_guarantee() {
    let wanted = commands_consumer(&NatsSettings::default());
    let check = |change: fn(&mut consumer::Config), expected: &[&str]| {
        let mut found = consumer::Config {
            ack_policy: AckPolicy::Explicit,
            max_deliver: -1,
            ..consumer::Config::default()
        };
        change(&mut found);
        assert_eq!(consumer_differences(&wanted, &found), expected);
    };
    check(|_| {}, &[]);
    check(|found| found.ack_wait = Duration::from_secs(1), &[]);
    check(|found| found.max_ack_pending = 1, &[]);
    check(
        |found| found.max_deliver = 5,
        &["max_deliver is 5, needed is -1"],
    );
    check(
        |found| found.ack_policy = AckPolicy::None,
        &["ack_policy is none, needed is explicit"],
    );
    check(
        |found| found.backoff = vec![Duration::from_secs(1)],
        &["backoff is [1s], needed is none"],
    );
    check(
        |found| found.deliver_subject = Some("x".into()),
        &["deliver_subject is x, needed is none (a pull consumer)"],
    );
    check(
        |found| found.filter_subject = "x".into(),
        &["filter_subject is x, needed is none"],
    );
}

#[test]
fn consumer_names_are_plain_and_distinct() {
    let odd = "ö.".repeat(100);
    let ids = [
        graph("email", "1"),
        graph("email", "1.0"),
        graph("email", "1_0"),
        graph("emai", "l1"),
        graph("a.b", "c"),
        graph("a", "b.c"),
        graph(&odd, &odd),
    ];
    let names: Vec<_> = ids.iter().map(work_consumer_name).collect();
    for (n, name) in names.iter().enumerate() {
        assert!(name.len() <= 80, "{name}");
        assert!(
            name.bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
        );
        assert!(!names[..n].contains(name), "{name}");
    }
    assert!(names[0].starts_with("email-1-"), "{}", names[0]);
}
