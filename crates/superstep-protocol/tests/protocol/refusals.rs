//! What refusals say: each names what is wrong and what to do, in words and as data.

use std::collections::BTreeMap;

use serde_json::json;
use superstep_protocol::{
    Answers, Cancel, Event, QUEUED_RUNS_MAX, Refusal, Strategy, UnixMillis, Verdict,
};

use crate::{
    states::state,
    story::{End, Story},
};

#[track_caller]
fn refusal(story: &Story, event: &Event) -> Refusal {
    match story.verdict(event) {
        Verdict::Refuse(refusal) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

fn plain(story: &Story) -> Event {
    story.resume_event("x", Answers::Plain(json!("yes")))
}

/// A refusal of each kind, as decided where that can be.
fn all() -> Vec<Refusal> {
    let none = state("none");
    let running = state("running_one");
    let asked = state("asked_one");
    let two = state("asked_two");
    let completed = state("completed");
    let cancelled = state("cancelled");
    let expired = state("timed_out");

    let mut other = running.start_event("x", json!({}));
    if let Event::Start(start) = &mut other {
        start.graph = crate::story::graph("other");
    }
    let answered = completed.state().closed[0].0.clone();
    let value = |value: &str| Answers::ById(BTreeMap::from([(answered.clone(), json!(value))]));
    let unknown = Answers::ById(BTreeMap::from([("f".repeat(32).into(), json!(1))]));
    let mut stale = plain(&asked);
    if let Event::Resume(resume) = &mut stale {
        let command = &mut resume.command;
        command.sent_at = UnixMillis(1);
    }
    let cancel = |story: &Story| Event::Cancel(Box::new(Cancel::new(story.command("x"), None)));
    let cancel_of = |story: &Story, run: &str| {
        let cancel = Cancel::new(story.command("x"), None);
        Event::Cancel(Box::new(Cancel {
            run: Some(run.into()),
            ..cancel
        }))
    };
    let mut full = running.clone();
    for at in 0..QUEUED_RUNS_MAX {
        let event = full.start_with(&format!("q{at}"), Strategy::Enqueue);
        full.happens(&event);
    }
    let retry = |story: &Story| Event::Retry {
        command: story.command("x"),
        run: "x".into(),
        recursion_limit: None,
    };
    vec![
        Refusal::Malformed {
            reason: "`resume` is missing".to_owned(),
        },
        Refusal::TooLarge {
            what: "the body".to_owned(),
            bytes: 12,
            bytes_max: 10,
        },
        Refusal::UnknownGraph {
            graph: "h".to_owned(),
            known: "g".to_owned(),
        },
        refusal(&none, &plain(&none)),
        refusal(&running, &other),
        refusal(&running, &running.start_event("x", json!({}))),
        refusal(&asked, &asked.start_event("x", json!({}))),
        refusal(&running, &plain(&running)),
        refusal(&completed, &completed.resume_event("x", value("to a"))),
        refusal(&completed, &completed.resume_event("x", value("another"))),
        refusal(&asked, &asked.resume_event("x", unknown)),
        refusal(&two, &plain(&two)),
        refusal(&asked, &stale),
        refusal(&expired, &plain(&expired)),
        refusal(&cancelled, &plain(&cancelled)),
        refusal(&none, &none.start_event("x", json!(null))),
        Refusal::InvalidUpdate {
            reason: "the graph has no channel `x`".to_owned(),
        },
        refusal(&completed, &retry(&completed)),
        refusal(&completed, &cancel(&completed)),
        refusal(&full, &full.start_with("x", Strategy::Enqueue)),
        refusal(&running, &cancel_of(&running, "run-y")),
        Refusal::Unsupported {
            what: "a fork".to_owned(),
            instead: "start a new thread".to_owned(),
        },
    ]
}

#[test]
fn refusals_say_what_is_wrong_and_what_to_do() {
    let texts: Vec<String> = all()
        .iter()
        .map(|refusal| format!("{}: {refusal}", refusal.kind()))
        .collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    malformed: the command cannot be read: `resume` is missing
    too_large: the body has 12 bytes and may have 10; send less, or a reference to it
    unknown_graph: graph `h` is not known; known are: g; start a worker that has it, or correct the name
    unknown_thread: thread `t` does not exist; start it first, or correct the id
    wrong_graph: thread `t` belongs to graph `g`; use another thread id
    busy: thread `t` is busy: run `run-s1` is not over; wait for it, answer its questions, or cancel it
    busy: thread `t` is interrupted: run `run-s1` is not over; wait for it, answer its questions, or cancel it
    not_waiting: thread `t` is busy and waits for no answer; nothing to resume
    already_answered: interrupt `bf3effe7042e4853d59e8aae8671ec6e` was already answered by ann with the same value; this answer changes nothing
    already_answered: interrupt `bf3effe7042e4853d59e8aae8671ec6e` was already answered by ann; this answer changes nothing
    unknown_interrupt: thread `t` has no interrupt `ffffffffffffffffffffffffffffffff`; open are: bf3effe7042e4853d59e8aae8671ec6e
    ambiguous: thread `t` has several open interrupts (bf3effe7042e4853d59e8aae8671ec6e, 4d923a85002e924b72e812e840bf8129); name the one you answer
    stale: the answer was sent before interrupt `bf3effe7042e4853d59e8aae8671ec6e` opened and cannot be meant for it; look at the question and answer by its id
    expired: interrupt `bf3effe7042e4853d59e8aae8671ec6e` expired; it can no longer be answered
    cancelled: interrupt `4d923a85002e924b72e812e840bf8129` was given up (cancelled); it can no longer be answered
    invalid_input: the input does not fit the graph: a new thread needs an input; send an object of the state's channels
    invalid_update: the update cannot be applied: the graph has no channel `x`
    nothing_to_retry: thread `t` is idle and has nothing to retry
    nothing_to_cancel: thread `t` is idle and has nothing to cancel
    queue_full: thread `t` has 64 runs waiting and may have no more; wait until some are over, or cancel them
    unknown_run: thread `t` has no run `run-y`; take the id from its start's reply
    unsupported: a fork is not supported by this version; start a new thread
    "#);
}

#[test]
fn refusals_read_back_as_written_under_their_kind() {
    let mut kinds = Vec::new();
    for refusal in all() {
        let data = json!(refusal);
        assert_eq!(data["kind"], refusal.kind());
        assert_eq!(
            serde_json::from_value::<Refusal>(data).unwrap(),
            refusal,
            "{refusal}"
        );
        kinds.push(refusal.kind());
    }
    kinds.dedup();
    assert_eq!(kinds.len(), 20, "{kinds:?}");
}

#[test]
fn only_what_may_be_on_its_way_is_held_back() {
    let early: Vec<&str> = all()
        .iter()
        .filter(|refusal| refusal.may_be_early())
        .map(Refusal::kind)
        .collect();
    assert_eq!(early, ["unknown_graph", "unknown_thread", "unknown_run"]);
}

#[test]
fn the_second_answer_learns_who_was_first() {
    let mut story = state("asked_one");
    let id = story.question("a", 0);
    story.answer("r1", "a", 0);
    let at = story.now;
    // Also while the node still runs, and after everything is over.
    for _ in 0..2 {
        let again = Answers::ById(BTreeMap::from([(id.clone(), json!("to a"))]));
        let found = refusal(&story, &story.resume_event("r2", again));
        let expected = Refusal::AlreadyAnswered {
            interrupt: id.clone(),
            at,
            sender: Some("ann".to_owned()),
            command: "r1".into(),
            same: true,
        };
        assert_eq!(found, expected);
        if !story.state().rounds.is_empty() {
            story.round(&[("a", End::Done)], &[]);
        }
    }
}

#[test]
fn a_refused_map_consumes_nothing() {
    let mut story = state("asked_two");
    let (a, b) = (story.question("a", 0), story.question("b", 0));
    story.answer("r1", "a", 0);
    let both = Answers::ById([(a, json!(1)), (b.clone(), json!(2))].into());
    assert_eq!(
        refusal(&story, &story.resume_event("r2", both)).kind(),
        "already_answered"
    );
    let open: Vec<_> = story.state().open_questions().map(|(_, q)| &q.id).collect();
    assert_eq!(open, [&b]);
}

#[test]
fn what_resumes_carry_is_told_by_its_form() {
    let id = "0123456789abcdef0123456789abcdef";
    let rows = [
        (json!({id: 1}), None, true),
        (json!({id: 1, "approved": true}), None, false),
        (json!({id.to_uppercase(): 1}), None, false),
        (json!({}), None, false),
        (json!(null), None, false),
        (json!([id]), None, false),
        (json!({id: 1}), Some("ffff".into()), true),
        (json!(false), Some("ffff".into()), true),
    ];
    for (resume, named, by_id) in rows {
        let answers = Answers::of(resume.clone(), named.clone());
        assert_eq!(
            matches!(&answers, Answers::ById(_)),
            by_id,
            "{resume} {named:?}"
        );
        if let (Answers::ById(map), Some(named)) = (&answers, named) {
            assert_eq!(map.get(&named), Some(&resume));
        }
    }
}
