//! Tables and properties of subjects: what is built, what is read, what is refused.

use proptest::prelude::*;

use super::*;

fn subjects() -> Subjects {
    Subjects::new("superstep", "default").unwrap()
}

fn graph(name: &str, version: &str) -> GraphId {
    GraphId {
        name: name.into(),
        version: version.into(),
    }
}

#[test]
fn subjects_are_built_as_the_contract_says() {
    let s = subjects();
    let thread = ThreadId::from("order-42");
    let rows = [
        (
            s.command(CommandKind::Start, "email"),
            "superstep.default.start.email",
        ),
        (
            s.command(CommandKind::Resume, "order-42"),
            "superstep.default.resume.order-42",
        ),
        (
            s.command(CommandKind::Cancel, "a.b"),
            "superstep.default.cancel.a%2Eb",
        ),
        (
            s.command(CommandKind::Update, "50% *>"),
            "superstep.default.update.50%25%20%2A%3E",
        ),
        (
            s.command(CommandKind::Retry, "-"),
            "superstep.default.retry.%2D",
        ),
        (
            s.work(&graph("email", "1.2")),
            "superstep.default.work.email.1%2E2",
        ),
        (
            s.event("interrupt", Some(&"email".into()), &thread),
            "superstep.default.events.interrupt.email.order-42",
        ),
        (
            s.event("resume_refused", None, &thread),
            "superstep.default.events.resume_refused.-.order-42",
        ),
        (
            s.event("interrupt", Some(&"-".into()), &"ü\n".into()),
            "superstep.default.events.interrupt.%2D.%C3%BC%0A",
        ),
        (
            s.output(&thread, &"run.1".into()),
            "superstep.default.output.order-42.run%2E1",
        ),
        (
            s.outputs_of(&"a b".into()),
            "superstep.default.output.a%20b.*",
        ),
    ];
    for (built, expected) in rows {
        assert_eq!(built.unwrap(), expected);
    }
}

#[test]
fn filters_name_what_is_given_and_star_the_rest() {
    let s = subjects();
    let mut filter = EventFilter::default();
    assert_eq!(
        s.events_of(&filter).unwrap(),
        "superstep.default.events.*.*.*"
    );
    filter.kind = Some("interrupt".into());
    filter.thread = Some("*".into());
    assert_eq!(
        s.events_of(&filter).unwrap(),
        "superstep.default.events.interrupt.*.%2A"
    );
    filter.graph = Some("-".into());
    assert_eq!(
        s.events_of(&filter).unwrap(),
        "superstep.default.events.interrupt.%2D.%2A"
    );
}

#[test]
fn what_a_plain_client_may_send_is_read() {
    let resume = |target: &str| {
        Some(Subject::Command {
            kind: CommandKind::Resume,
            target: target.into(),
        })
    };
    let rows = [
        ("superstep.default.resume.order-42", resume("order-42")),
        ("superstep.default.resume.größe", resume("größe")),
        ("superstep.default.resume.gr%C3%B6%c3%9fe", resume("größe")),
        ("superstep.default.resume.%41", resume("A")),
        ("superstep.default.resume.-", resume("-")),
        ("superstep.default.resume", None),
        ("superstep.default.resume.", None),
        ("superstep.default.resume.a.b", None),
        ("superstep.default.resume.50%", None),
        ("superstep.default.resume.50%2", None),
        ("superstep.default.resume.%zz", None),
        ("superstep.default.resume.%FF", None),
        ("superstep.default.restart.order-42", None),
        ("superstep.default.work.email", None),
        ("superstep.default.events.interrupt.order-42", None),
        ("superstep.other.resume.order-42", None),
        ("superstep.defaults.resume.order-42", None),
        ("superstepdefault.resume.order-42", None),
        ("", None),
    ];
    for (subject, expected) in rows {
        assert_eq!(subjects().parse(subject), expected, "{subject}");
    }
    let long = format!("superstep.default.resume.{}", "x".repeat(ID_BYTES_MAX + 1));
    assert_eq!(subjects().parse(&long), None);
}

#[test]
fn names_and_ids_that_cannot_be_carried_are_refused() {
    for name in [
        "", "a.b", "a b", "*", ">", "$JS", "_x", "-x", "ü", "a/b", "a\\b",
    ] {
        for (prefix, namespace) in [(name, "default"), ("superstep", name)] {
            let error = Subjects::new(prefix, namespace).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{name}");
        }
    }
    assert!(Subjects::new(&"x".repeat(NAME_BYTES_MAX), "t-1_A").is_ok());
    assert!(Subjects::new(&"x".repeat(NAME_BYTES_MAX + 1), "d").is_err());
    for id in ["", &"x".repeat(ID_BYTES_MAX + 1)] {
        let error = subjects().command(CommandKind::Resume, id).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
}

#[test]
fn replies_go_only_where_a_stranger_may_send() {
    let s = subjects();
    for fine in [
        "_INBOX.abc.1",
        "orders.answers",
        "a",
        "größe",
        "super",
        "a*b",
    ] {
        assert!(s.check_reply(fine).is_ok(), "{fine}");
    }
    let long = "x".repeat(REPLY_BYTES_MAX + 1);
    for bad in [
        "",
        ".",
        "a..b",
        "a.",
        ".a",
        "a b",
        "a\tb",
        "a\r\nPUB x 0",
        "a.*",
        "a.>",
        ">",
        "$JS.API.STREAM.DELETE.X",
        "$SYS.REQ.SERVER.PING",
        "superstep.default.start.email",
        "superstep.other.resume.order-42",
        "superstep",
        &long,
    ] {
        let error = s.check_reply(bad).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{bad}");
    }
}

/// Whether NATS takes `subject` to publish on: nothing but ASCII without blanks, wildcards or
/// empty tokens.
fn is_publishable(subject: &str) -> bool {
    subject.len() <= 3000
        && subject.bytes().all(|b| b.is_ascii_graphic())
        && subject
            .split('.')
            .all(|token| !token.is_empty() && !token.contains(['*', '>']))
}

fn any_id() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("-".to_owned()),
        Just("%2D".to_owned()),
        "[.*> %/-]{1,8}",
        "\\PC{1,40}",
        prop::collection::vec(any::<char>(), 1..40).prop_map(String::from_iter),
    ]
}

proptest! {
    #[test]
    fn every_subject_reads_back_as_it_was_built(a in any_id(), b in any_id(), c in any_id()) {
        let s = subjects();
        for kind in CommandKind::ALL {
            let subject = s.command(kind, &a).unwrap();
            prop_assert!(is_publishable(&subject));
            prop_assert_eq!(s.parse(&subject), Some(Subject::Command { kind, target: a.clone() }));
        }
        let id = graph(&a, &b);
        let subject = s.work(&id).unwrap();
        prop_assert!(is_publishable(&subject));
        prop_assert_eq!(s.parse(&subject), Some(Subject::Work { graph: id }));

        let thread = ThreadId::from(c.as_str());
        for graph in [None, Some(GraphName::from(b.as_str()))] {
            let subject = s.event(&a, graph.as_ref(), &thread).unwrap();
            prop_assert!(is_publishable(&subject));
            let kind = a.clone();
            prop_assert_eq!(s.parse(&subject), Some(Subject::Event { kind, graph, thread: thread.clone() }));
        }
        let run = RunId::from(a.as_str());
        let subject = s.output(&thread, &run).unwrap();
        prop_assert!(is_publishable(&subject));
        prop_assert_eq!(s.parse(&subject), Some(Subject::Output { thread, run }));
    }

    #[test]
    fn different_ids_never_share_a_subject(a in any_id(), b in any_id()) {
        prop_assume!(a != b);
        let s = subjects();
        prop_assert_ne!(
            s.command(CommandKind::Resume, &a).unwrap(),
            s.command(CommandKind::Resume, &b).unwrap()
        );
    }

    #[test]
    fn any_text_is_parsed_without_panic(text in "\\PC{0,80}") {
        let _ = subjects().parse(&text);
        let _ = subjects().parse(&format!("superstep.default.resume.{text}"));
        let _ = subjects().check_reply(&text);
    }
}
