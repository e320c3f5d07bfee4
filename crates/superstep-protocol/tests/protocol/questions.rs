//! Answers that come twice, late, early, or for something else: the traps of people in a loop.

use std::collections::BTreeMap;

use serde_json::json;
use superstep_protocol::{Answers, Cancel, Event, Head, Nonce, Nothing, UnixMillis, Verdict};

use crate::{
    states::state,
    story::{End, Story},
};

fn kind(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Append(body) => body.kind(),
        Verdict::Refuse(refusal) => refusal.kind(),
        Verdict::Known(_) => "known",
        Verdict::Nothing(_) => "nothing",
        Verdict::Wait => "wait",
    }
}

#[test]
fn a_double_click_does_not_answer_the_next_question() {
    let mut story = state("asked_one");
    let click = story.resume_event("click-1", Answers::Plain(json!(true)));
    let double = story.resume_event("click-2", Answers::Plain(json!(true)));
    story.happens(&click);
    assert_eq!(kind(&story.verdict(&double)), "already_answered");
    // The node asks its second question a moment later.
    story.round(&[("a", End::Asks(&[1]))], &[]);
    assert_eq!(kind(&story.verdict(&double)), "stale");
    // The first click, delivered again, is not taken for it either.
    assert_eq!(kind(&story.verdict(&click)), "stale");
    // Who has seen the second question answers it.
    let seen = story.resume_event("click-3", Answers::Plain(json!(true)));
    assert_eq!(kind(&story.verdict(&seen)), "resumed");
}

#[test]
fn an_answer_sent_as_the_question_opened_is_taken() {
    let story = state("asked_one");
    let opened = story.state().open_questions().next().unwrap().1.opened_at;
    for (sent_at, expected) in [(opened, "resumed"), (UnixMillis(opened.0 - 1), "stale")] {
        let mut event = story.resume_event("x", Answers::Plain(json!(0)));
        if let Event::Resume(resume) = &mut event {
            let command = &mut resume.command;
            command.sent_at = sent_at;
        }
        assert_eq!(kind(&story.verdict(&event)), expected);
    }
}

#[test]
fn a_named_answer_is_taken_whenever_it_was_sent() {
    // A slow clock of the sender cannot misdirect an answer that names its question.
    let mut story = state("asked_one");
    let id = story.question("a", 0);
    let mut event = story.resume_event("x", Answers::ById(BTreeMap::from([(id, json!(1))])));
    if let Event::Resume(resume) = &mut event {
        let command = &mut resume.command;
        command.sent_at = UnixMillis(0);
    }
    story.happens(&event);
}

#[test]
fn of_an_answer_a_deadline_and_a_cancel_one_wins() {
    let start = state("asked_one");
    let id = start.question("a", 0);
    let contenders = |story: &Story| {
        [
            story.resume_event("r", Answers::ById(BTreeMap::from([(id.clone(), json!(1))]))),
            Event::DeadlineReached {
                interrupt: id.clone(),
            },
            Event::Cancel(Box::new(Cancel::new(story.command("c"), None))),
        ]
    };
    let mut timely = start.clone();
    timely.now = UnixMillis(timely.now.0 + 58_999);
    let mut late = start.clone();
    late.now = UnixMillis(late.now.0 + 59_000);
    // Before the deadline nothing but the answer or the cancel is called for, after it the
    // answer is not.
    let kinds = |story: &Story| {
        contenders(story)
            .each_ref()
            .map(|event| kind(&story.verdict(event)))
    };
    assert_eq!(kinds(&timely), ["resumed", "nothing", "cancelled"]);
    assert_eq!(kinds(&late), ["expired", "deadline_passed", "cancelled"]);
    // Whoever is first, the others learn what became of the question.
    for (winner, expected) in [
        (0, ["already_answered", "nothing", "cancelled"]),
        (1, ["expired", "nothing", "nothing_to_cancel"]),
        (2, ["cancelled", "nothing", "nothing_to_cancel"]),
    ] {
        let mut story = if winner == 0 {
            timely.clone()
        } else {
            late.clone()
        };
        let events = contenders(&story);
        story.happens(&events[winner]);
        story.now = late.now;
        assert_eq!(kinds(&story), expected, "{winner}");
    }
}

#[test]
fn a_result_counts_for_its_own_round_alone() {
    let mut story = state("asked_two");
    let old = story.records[2].head;
    let question_again =
        story.round_ended(old, &[("a", End::Asks(&[0])), ("b", End::Asks(&[0]))], &[]);
    story.answer("r1", "a", 0);
    // A slow duplicate of the first round: the person is not asked again.
    let late = Verdict::Nothing(Nothing::Late);
    assert_eq!(story.verdict(&question_again), late);
    // A result of the answer's round, when the store has stepped back over the answer: the
    // same version, redone, is another round.
    let lost = story.state().head;
    let done = story.round_ended(lost, &[("a", End::Done)], &[]);
    let mut again = Story::new();
    for record in &story.records[..story.records.len() - 1] {
        again.append_record(record.clone());
        again.now = record.time;
    }
    assert_eq!(again.verdict(&done), late);
    again.expire_ms = Some(60_000);
    again.nonce = 500;
    again.answer("r9", "b", 0);
    let redone = again.state().head;
    assert_eq!(redone.version, lost.version);
    assert_ne!(redone, lost);
    assert_eq!(again.verdict(&done), late);
}

#[test]
fn results_of_tasks_of_other_rounds_are_left_out() {
    let mut story = state("two_rounds");
    let round = *story.state().rounds.keys().next().unwrap();
    // A result of b lies in the map of the round of a: it has its own round.
    let event = story.round_ended(round, &[("a", End::Done), ("b", End::Done)], &[]);
    story.happens(&event);
    let superstep_protocol::RecordBody::Interrupted(parked) = &story.last().body else {
        panic!("the superstep is not complete");
    };
    assert_eq!(
        parked.results.keys().collect::<Vec<_>>(),
        [&story.task("a")]
    );
    assert_eq!(story.state().rounds.len(), 1);
}

#[test]
fn a_round_that_never_was_is_late() {
    let story = state("running_one");
    for head in [
        Head {
            version: 99,
            nonce: Nonce(1),
        },
        Head {
            version: story.state().head.version,
            nonce: Nonce(1),
        },
    ] {
        let event = story.round_ended(head, &[("a", End::Done)], &[]);
        assert_eq!(story.verdict(&event), Verdict::Nothing(Nothing::Late));
    }
}

#[test]
fn an_answer_waits_while_an_update_is_applied() {
    let mut story = state("update_asked");
    let answer = story.resume_event("r1", Answers::Plain(json!(1)));
    assert_eq!(story.verdict(&answer), Verdict::Wait);
    let event = story.update_applied(&["b"]);
    story.happens(&event);
    assert_eq!(kind(&story.verdict(&answer)), "cancelled");
    let mut declined = state("update_asked");
    let dispatch = declined.state().head;
    declined.happens(&Event::UpdateApplied {
        dispatch,
        superstep: Err("no".to_owned()),
    });
    assert_eq!(kind(&declined.verdict(&answer)), "resumed");
}

#[test]
fn null_and_false_are_answers() {
    for value in [json!(null), json!(false), json!(0), json!(""), json!([])] {
        let mut story = state("asked_one");
        let event = story.resume_event("r1", Answers::Plain(value.clone()));
        story.happens(&event);
        assert_eq!(story.state().tasks[0].answers(), [Some(value)]);
    }
}
