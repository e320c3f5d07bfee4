//! Names of records, checkpoints, questions and events: what is in them, and what is not.

use proptest::prelude::*;
use serde_json::json;
use superstep_graph::InterruptId;
use superstep_protocol::{
    Head, Nonce, Record, ThreadStatus, UnixMillis, checkpoint_id, event_id, events,
    version_of_checkpoint,
};

use crate::story::{End, Story};

/// The same story with other nonces: the same superstep done again after a step back.
fn redone(story: &Story, from: usize) -> Story {
    let mut again = Story::new();
    again.profile = story.profile;
    for record in &story.records[..from] {
        again.append_record(record.clone());
        again.now = record.time;
    }
    again.nonce = 1_000;
    again
}

fn asked() -> Story {
    let mut story = Story::new();
    story.start("s1").enter(&["a"]);
    story.round(&[("a", End::Asks(&[0]))], &[]);
    story
}

fn only_question(story: &Story) -> InterruptId {
    let open: Vec<InterruptId> = story
        .state()
        .open_questions()
        .map(|(_, question)| question.id.clone())
        .collect();
    assert_eq!(open.len(), 1);
    open[0].clone()
}

#[test]
fn a_redone_superstep_asks_the_same_question() {
    let story = asked();
    for from in 1..story.records.len() {
        let mut again = redone(&story, from);
        if again.state().decision.is_some() {
            again.enter(&["a"]);
        } else if again.state().tasks[0].task.node == "__start__" {
            again.round(&[("__start__", End::Done)], &["a"]);
        }
        again.round(&[("a", End::Asks(&[0]))], &[]);
        assert_ne!(again.last().head, story.last().head);
        assert_eq!(only_question(&again), only_question(&story), "from {from}");
        assert_eq!(again.task("a"), story.task("a"));
    }
}

#[test]
fn the_same_question_asked_again_keeps_its_id() {
    let mut story = Story::new();
    story.start("s1").enter(&["a", "b"]);
    story.round(&[("a", End::Asks(&[0])), ("b", End::Fails)], &[]);
    let id = only_question(&story);
    let opened = story.state().open_questions().next().unwrap().1.opened_by;
    story.retry("x");
    story.round(&[("b", End::Fails)], &[]);
    assert_eq!(only_question(&story), id);
    let still = story.state().open_questions().next().unwrap().1.opened_by;
    assert_eq!(still, opened);
}

#[test]
fn the_next_question_of_a_node_is_another() {
    let mut story = asked();
    let first = only_question(&story);
    story.answer("r1", "a", 0);
    story.round(&[("a", End::Asks(&[1]))], &[]);
    let second = only_question(&story);
    assert_ne!(first, second);
    assert!(InterruptId::is_id(second.as_str()));
    assert_eq!(
        story.state().tasks[0].answers(),
        [Some(json!("to a")), None]
    );
}

#[test]
fn questions_after_an_update_or_new_input_are_others() {
    let story = asked();
    let first = only_question(&story);
    let mut updated = story.clone();
    updated.update("u1", &["a"]).retry("x");
    updated.round(&[("a", End::Asks(&[0]))], &[]);
    assert_ne!(only_question(&updated), first);

    let mut started = story.clone();
    started.cancel("c1").start("s2").enter(&["a"]);
    started.round(&[("a", End::Asks(&[0]))], &[]);
    assert_ne!(only_question(&started), first);

    let mut anew = story.clone();
    anew.delete("d1").start("s3").enter(&["a"]);
    anew.round(&[("a", End::Asks(&[0]))], &[]);
    assert_ne!(only_question(&anew), first);

    // Even the very same steps under another command are another thread.
    let mut twin = Story::new();
    twin.start("s9").enter(&["a"]);
    twin.round(&[("a", End::Asks(&[0]))], &[]);
    assert_ne!(only_question(&twin), first);
}

#[test]
fn an_update_and_a_superstep_from_one_place_differ() {
    // Without the update in its lineage both would lead to the same ids.
    let mut story = Story::new();
    story
        .start("s1")
        .enter(&["a"])
        .round(&[("a", End::Fails)], &[]);
    let plain = story.state().next_lineage(story.state().next_step());
    story.ask_update("u1");
    let updated = story.state().next_lineage(story.state().next_step());
    assert_ne!(plain, updated);
    // An update that is declined leaves no trace.
    let dispatch = story.state().decision.as_ref().unwrap().dispatch;
    story.happens(&superstep_protocol::Event::UpdateApplied {
        dispatch,
        superstep: Err("no".to_owned()),
    });
    assert_eq!(plain, story.state().next_lineage(story.state().next_step()));
}

#[test]
fn a_deadline_is_part_of_the_lineage() {
    let mut story = Story::new();
    story.expire_ms = Some(1_000);
    story.start("s1").enter(&["a"]);
    story.round(&[("a", End::Asks(&[0]))], &[]);
    let before = story.state().next_lineage(2);
    story.deadline("a", 0);
    assert_ne!(before, story.state().next_lineage(2));
}

#[test]
fn ids_of_events_carry_the_nonce() {
    let head = |nonce| Head {
        version: 7,
        nonce: Nonce(nonce),
    };
    let ids = [
        event_id(&"t".into(), head(1), 0),
        event_id(&"t".into(), head(2), 0),
        event_id(&"t".into(), head(1), 1),
        event_id(&"u".into(), head(1), 0),
    ];
    for (at, id) in ids.iter().enumerate() {
        assert!(id.is_ascii(), "{id}");
        assert!(!ids[..at].contains(id), "{id}");
    }
    // A thread's name may be anything; the id goes through headers.
    assert!(event_id(&"zürich\n".into(), head(1), 0).is_ascii());
}

#[test]
fn a_redone_record_tells_events_of_its_own() {
    let story = asked();
    let mut again = redone(&story, story.records.len() - 1);
    again.round(&[("a", End::Asks(&[0]))], &[]);
    let (one, two) = (
        events(story.last(), story.state()),
        events(again.last(), again.state()),
    );
    assert_ne!(one[0].id, two[0].id);
    assert_eq!(one[0].data, two[0].data);
}

#[test]
fn texts_of_heads_are_read_strictly() {
    let head = Head {
        version: 12,
        nonce: Nonce(0x00c0_ffee),
    };
    assert_eq!(head.to_string(), "12-0000000000c0ffee");
    assert_eq!("12-0000000000c0ffee".parse(), Ok(head));
    let wrong = [
        "",
        "12",
        "12-c0ffee",
        "-0000000000c0ffee",
        "x-0000000000c0ffee",
        "+12-0000000000c0ffee",
        "012-0000000000c0ffee",
        "12-+000000000c0ffee",
        "12-0000000000C0FFEE",
        "12-0000000000c0ffee0",
        "99999999999999999999-0000000000c0ffee",
    ];
    for text in wrong {
        assert!(text.parse::<Head>().is_err(), "{text}");
    }
    insta::assert_snapshot!("12".parse::<Head>().unwrap_err(), @"`12` is not a record name; it has the form <version>-<16 hex digits>");
}

#[test]
fn only_checkpoint_ids_are_read_as_such() {
    let id = checkpoint_id(
        Head {
            version: 3,
            nonce: Nonce(9),
        },
        UnixMillis(1_700_000_000_000),
    );
    assert_eq!(version_of_checkpoint(&id), Some((3, 9)));
    let wrong = [
        String::new(),
        id.replace('-', ""),
        id.replacen('7', "4", 1).replace("-7", "-4"),
        format!("+{}", &id[1..]),
        id.replacen("-8", "-c", 1),
        format!("{}-", &id[..35]),
    ];
    for text in wrong {
        assert_eq!(version_of_checkpoint(&text), None, "{text}");
    }
}

#[test]
fn thread_statuses_are_their_words() {
    for status in ThreadStatus::ALL {
        assert_eq!(status.to_string().parse(), Ok(status));
        assert_eq!(json!(status), json!(status.as_str()));
    }
    assert!("running".parse::<ThreadStatus>().is_err());
}

proptest! {
    #[test]
    fn checkpoint_ids_sort_by_time_then_version(
        one in (0_u64..1 << 47, 1_u64..1 << 31, any::<u64>()),
        two in (0_u64..1 << 47, 1_u64..1 << 31, any::<u64>()),
        near in any::<bool>(),
    ) {
        let two = if near { (one.0, one.1 + 1, two.2) } else { two };
        let id = |(ms, version, nonce)| {
            let head = Head { version, nonce: Nonce(nonce) };
            checkpoint_id(head, UnixMillis(ms))
        };
        let (a, b) = (id(one), id(two));
        if (one.0, one.1) != (two.0, two.1) {
            prop_assert_eq!(a.cmp(&b), (one.0, one.1).cmp(&(two.0, two.1)));
        }
        prop_assert_eq!(version_of_checkpoint(&a), Some((one.1, one.2 & 0x3ff_ffff_ffff)));
        prop_assert_eq!(a.len(), 36);
        prop_assert_eq!(&a[14..15], "7");
        prop_assert!(matches!(&a[19..20], "8" | "9" | "a" | "b"));
    }

    #[test]
    fn heads_read_back_as_written(version in 1_u64.., nonce in any::<u64>()) {
        let head = Head { version, nonce: Nonce(nonce) };
        prop_assert_eq!(head.to_string().parse::<Head>(), Ok(head));
        let data = serde_json::to_string(&head).unwrap();
        prop_assert_eq!(serde_json::from_str::<Head>(&data).unwrap(), head);
    }
}

#[test]
fn records_read_back_as_written() {
    for name in crate::states::STATES {
        let story = crate::states::state(name);
        for record in &story.records {
            let mut record = record.clone();
            record
                .snapshot
                .clone_from(&story.state.clone().map(Box::new));
            let text = serde_json::to_string(&record).unwrap();
            assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }
}
