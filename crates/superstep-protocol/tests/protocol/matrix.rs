//! Every pair of a kind of state and a kind of event, with the verdict it calls for.
//!
//! The table (`matrix.txt`) lists, for each event, the states by verdict. A test lists the pairs that no row
//! names, so that a new state or event cannot be forgotten.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use superstep_graph::InterruptId;
use superstep_protocol::{
    Answers, Cancel, Dispatch, Event, Goto, Head, Nonce, Nothing, Progress, RunError, StateUpdate,
    Strategy, Timer, Updated, Verdict,
};

use crate::{
    states::{STATES, state},
    story::{End, Story},
};

const EVENTS: [&str; 61] = [
    "start",
    "start with null",
    "start of another graph",
    "plain answer",
    "plain answer from before",
    "answer of a",
    "answer of a and b",
    "answer after the deadline",
    "answer of an unknown question",
    "cancel",
    "update",
    "retry",
    "delete",
    "round ends",
    "round ends with a question",
    "round ends with a failure",
    "round ends in part",
    "round ends without its superstep",
    "round ends that cannot be applied",
    "round of an older record ends",
    "round of a lost record ends",
    "input taken",
    "input fails",
    "input of a lost record taken",
    "update applied",
    "update fails",
    "deadline of a",
    "deadline of a too early",
    "command with an update",
    "command that answers and goes on",
    "command that is empty",
    "command at an older checkpoint",
    "answer at an older checkpoint",
    "start at an older checkpoint",
    "null at the last checkpoint",
    "create",
    "command applied",
    "command fails",
    "timer of a",
    "timer of a too early",
    "timer of the deadline of a",
    "start that waits",
    "start that interrupts",
    "start that rolls back",
    "start for later",
    "start of s1 again",
    "start of s2 again",
    "cancel of s1",
    "cancel of s2",
    "cancel of another run",
    "cancel that rolls back",
    "next run",
    "start of s2 due",
    "start of s2 due too early",
    "move asked",
    "move asked by a command",
    "move back asked",
    "move made",
    "move declined",
    "expires",
    "expires too early",
];

/// The dispatch that the state waits for first, else its head, else one that never was.
fn current(story: &Story) -> Dispatch {
    let lost = Head {
        version: 1,
        nonce: Nonce(0xdead),
    };
    let Some(state) = &story.state else {
        return lost;
    };
    let decision = state.decision.as_ref().map(|decision| decision.dispatch);
    let round = state.rounds.keys().next().copied();
    decision.or(round).unwrap_or(state.head)
}

/// The state's dispatch as it was before a step back: the same version, another nonce.
fn lost(story: &Story) -> Dispatch {
    Head {
        nonce: Nonce(0xdead),
        ..current(story)
    }
}

fn error() -> RunError {
    RunError {
        kind: "InvalidUpdateError".to_owned(),
        message: "two writes".to_owned(),
        node: None,
        task: None,
    }
}

/// The end of a round in which every node ended so.
fn ends(story: &Story, dispatch: Dispatch, end: End) -> Event {
    let nodes: Vec<String> = story.state.as_ref().map_or(Vec::new(), |state| {
        let open = |dispatch| Progress::Open { dispatch };
        let mine = state.tasks.iter().filter(|t| t.progress == open(dispatch));
        mine.map(|task| task.task.node.to_string()).collect()
    });
    if story.state.is_none() {
        return Event::RoundEnded {
            dispatch,
            results: BTreeMap::new(),
            superstep: None,
        };
    }
    let ends: Vec<(&str, End)> = nodes.iter().map(|node| (node.as_str(), end)).collect();
    story.round_ended(dispatch, &ends, &["next"])
}

/// The first question that the thread ever asked, if it did.
fn first_question(story: &Story, node: &str) -> InterruptId {
    let state = story.state.as_ref();
    let open = state.and_then(|state| {
        let mut open = state.open_questions();
        open.find(|(task, _)| task.task.node == node)
            .map(|(_, question)| question.id.clone())
    });
    let closed = || {
        let at = usize::from(node == "b");
        state.and_then(|state| state.closed.get(at).map(|(id, _)| id.clone()))
    };
    open.or_else(closed)
        .unwrap_or_else(|| "00000000000000000000000000000000".into())
}

fn by_id(ids: &[InterruptId]) -> Answers {
    Answers::ById(ids.iter().map(|id| (id.clone(), json!("to a"))).collect())
}

/// Makes the event; a few are about another time than the story's.
fn event(story: &mut Story, name: &str) -> Event {
    let command = story.command("x");
    let plain = || Answers::Plain(json!("yes"));
    let dispatch = current(story);
    let superstep = |story: &Story| story.state.is_some().then(|| story.superstep(&[], &["a"]));
    match name {
        "start" => story.start_event("x", json!({"topic": "y"})),
        "start with null" => story.start_event("x", Value::Null),
        "start of another graph" => {
            let mut event = story.start_event("x", json!({}));
            if let Event::Start(start) = &mut event {
                start.graph = crate::story::graph("other");
            }
            event
        }
        "plain answer" => story.resume_event("x", plain()),
        "plain answer from before" => {
            let mut event = story.resume_event("x", plain());
            if let Event::Resume(resume) = &mut event {
                let command = &mut resume.command;
                command.sent_at.0 -= 1_500;
            }
            event
        }
        "answer of a" => story.resume_event("x", by_id(&[first_question(story, "a")])),
        "answer of a and b" => {
            let ids = [first_question(story, "a"), first_question(story, "b")];
            story.resume_event("x", by_id(&ids))
        }
        "answer after the deadline" => {
            story.now = story.now.plus_ms(120_000);
            story.resume_event("x", by_id(&[first_question(story, "a")]))
        }
        "answer of an unknown question" => {
            let id: InterruptId = "ffffffffffffffffffffffffffffffff".into();
            story.resume_event("x", by_id(&[id]))
        }
        "cancel" => Event::Cancel(Box::new(Cancel::new(command, None))),
        "update" => Event::Update(Box::new(StateUpdate::new(command, json!({}), None))),
        "retry" => Event::Retry {
            command,
            run: "run-x".into(),
            recursion_limit: None,
        },
        "delete" => Event::Delete { command },
        "round ends" => ends(story, dispatch, End::Done),
        "round ends with a question" => ends(story, dispatch, End::Asks(&[0])),
        "round ends with a failure" => ends(story, dispatch, End::Fails),
        "round ends in part" => {
            let mut event = ends(story, dispatch, End::Done);
            if let Event::RoundEnded { results, .. } = &mut event {
                results.pop_last();
            }
            event
        }
        "round ends without its superstep" => {
            let mut event = ends(story, dispatch, End::Done);
            if let Event::RoundEnded { superstep, .. } = &mut event {
                *superstep = None;
            }
            event
        }
        "round ends that cannot be applied" => {
            let mut event = ends(story, dispatch, End::Done);
            if let Event::RoundEnded { superstep, .. } = &mut event {
                *superstep = Some(Err(error()));
            }
            event
        }
        "round of an older record ends" => {
            let mut event = ends(story, dispatch, End::Done);
            let mut heads = story.records.iter().map(|record| record.head);
            let older = heads.rfind(|head| *head != dispatch);
            if let Event::RoundEnded { dispatch, .. } = &mut event {
                *dispatch = older.unwrap_or(*dispatch);
                let waits = |state: &superstep_protocol::ThreadState| state.waits_for(*dispatch);
                if story.state.as_ref().is_some_and(waits) {
                    // Two rounds: the other one is not older but open.
                    *dispatch = story.records[0].head;
                }
            }
            event
        }
        "round of a lost record ends" => {
            let mut event = ends(story, dispatch, End::Done);
            if let Event::RoundEnded { dispatch, .. } = &mut event {
                *dispatch = lost(story);
            }
            event
        }
        "input taken" | "input fails" | "input of a lost record taken" => Event::InputTaken {
            dispatch: if name.contains("lost") {
                lost(story)
            } else {
                dispatch
            },
            superstep: superstep(story)
                .filter(|_| name != "input fails")
                .ok_or_else(error),
        },
        "update applied" | "update fails" => Event::UpdateApplied {
            dispatch,
            superstep: superstep(story)
                .filter(|_| name == "update applied")
                .map(|superstep| Box::new(Updated::new("a".into(), superstep)))
                .ok_or_else(|| "no such node".to_owned()),
        },
        "deadline of a" => {
            story.now = story.now.plus_ms(120_000);
            Event::DeadlineReached {
                interrupt: first_question(story, "a"),
            }
        }
        "deadline of a too early" => Event::DeadlineReached {
            interrupt: first_question(story, "a"),
        },
        "command with an update" => story.command_event("x", None),
        "command at an older checkpoint" => story.command_event("x", story.base(false)),
        "command that answers and goes on" => {
            let mut event = story.resume_event("x", by_id(&[first_question(story, "a")]));
            if let Event::Resume(resume) = &mut event {
                resume.goto = vec![Goto::Node("c".into())];
            }
            event
        }
        "command that is empty" => {
            let mut event = story.command_event("x", None);
            if let Event::Resume(resume) = &mut event {
                resume.update = Value::Null;
            }
            event
        }
        "answer at an older checkpoint" => {
            let mut event = story.resume_event("x", by_id(&[first_question(story, "a")]));
            if let Event::Resume(resume) = &mut event {
                resume.at = story.base(false).map(Box::new);
            }
            event
        }
        "start at an older checkpoint" => {
            let mut event = story.start_event("x", json!({"topic": "y"}));
            if let Event::Start(start) = &mut event {
                start.at = story.base(false).map(Box::new);
            }
            event
        }
        "null at the last checkpoint" => {
            let mut event = story.start_event("x", Value::Null);
            if let Event::Start(start) = &mut event {
                start.at = story.base(true).map(Box::new);
            }
            event
        }
        "create" => Event::Create {
            command,
            graph: crate::story::graph("g"),
            topology: None,
            profile: story.profile,
            ttl_ms: None,
        },
        "command applied" | "command fails" => Event::CommandApplied {
            dispatch,
            superstep: story
                .state
                .is_some()
                .then(|| story.amended("c"))
                .filter(|_| name == "command applied")
                .ok_or_else(|| "no such channel".to_owned()),
        },
        "timer of a" | "timer of a too early" => {
            if name == "timer of a" {
                story.now = story.now.plus_ms(120_000);
            }
            let state = story.state.as_ref();
            let task = state.and_then(|state| state.tasks.iter().find(|t| t.task.node == "a"));
            let task = task.map_or_else(|| "unknown".into(), |task| task.task.id.clone());
            Event::TimerDue {
                name: Timer::Task(task).name(),
            }
        }
        "timer of the deadline of a" => {
            story.now = story.now.plus_ms(120_000);
            Event::TimerDue {
                name: Timer::Interrupt(first_question(story, "a")).name(),
            }
        }
        "start that waits" => story.start_with("x", Strategy::Enqueue),
        "start that interrupts" => story.start_with("x", Strategy::Interrupt),
        "start that rolls back" => story.start_with("x", Strategy::Rollback),
        "start for later" => story.start_later("x"),
        "start of s1 again" => story.start_event("s1", json!({"topic": "x"})),
        "start of s2 again" => story.start_with("s2", Strategy::Interrupt),
        "cancel of s1" | "cancel of s2" | "cancel of another run" => {
            let run = name.rsplit(' ').next().unwrap();
            Event::Cancel(Box::new(Cancel {
                run: Some(format!("run-{run}").into()),
                ..Cancel::new(command, None)
            }))
        }
        "cancel that rolls back" => story.with_before(Event::Cancel(Box::new(Cancel {
            rollback: true,
            ..Cancel::new(command, None)
        }))),
        "next run" => Event::NextRun {
            dispatch,
            refusal: None,
        },
        "start of s2 due" => {
            story.now = story.now.plus_ms(120_000);
            Event::TimerDue {
                name: Timer::Start("run-s2".into()).name(),
            }
        }
        "start of s2 due too early" => Event::TimerDue {
            name: Timer::Start("run-s2".into()).name(),
        },
        "move asked" => story.move_event("2", None),
        "move asked by a command" => story.move_event("2", Some("x")),
        "move back asked" => story.move_event("1", None),
        "move made" => story.move_made("2", true),
        "move declined" => story.move_made("2", false),
        "expires" | "expires too early" => {
            if let Some(state) = &mut story.state {
                state.ttl_ms = Some(60_000);
            }
            if name == "expires" {
                story.now = story.now.plus_ms(120_000);
            }
            Event::TimerDue {
                name: Timer::Expire.name(),
            }
        }
        other => panic!("no event {other}"),
    }
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Append(body) => format!("append {}", body.kind()),
        Verdict::Refuse(refusal) => format!("refuse {}", refusal.kind()),
        Verdict::Nothing(Nothing::Late) => "late".to_owned(),
        Verdict::Nothing(Nothing::Incomplete { .. }) => "incomplete".to_owned(),
        Verdict::Nothing(Nothing::NotDue) => "not due".to_owned(),
        Verdict::Known(_) => "known".to_owned(),
        Verdict::Wait => "wait".to_owned(),
    }
}

fn found(state_name: &str, event_name: &str) -> String {
    let mut story = state(state_name);
    let event = event(&mut story, event_name);
    word(&story.verdict(&event))
}

/// The table: for each event, its verdicts with the states in which each is called for.
fn table() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
    let mut rows: Vec<(&str, &str, Vec<&str>)> = Vec::new();
    let mut event = "";
    for line in include_str!("matrix.txt").lines() {
        let text = line.trim_start();
        match line.len() - text.len() {
            _ if text.is_empty() || text.starts_with('#') => {}
            0 => event = text,
            2 => {
                let (verdict, states) = text.split_once(": ").unwrap();
                rows.push((event, verdict, states.split(' ').collect()));
            }
            _ => rows.last_mut().unwrap().2.extend(text.split(' ')),
        }
    }
    rows
}

#[test]
fn every_state_and_event_calls_for_its_verdict() {
    let mut wrong = Vec::new();
    for (event, expected, states) in table() {
        for state in states {
            let found = found(state, event);
            if found != expected {
                wrong.push(format!("{state}, {event}: {found} and not {expected}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_pair_of_state_and_event_has_a_row() {
    let mut named = BTreeSet::new();
    for (event, _, states) in table() {
        for state in states {
            assert!(
                named.insert((state, event)),
                "{state}, {event}: named twice"
            );
        }
    }
    let all: BTreeSet<(&str, &str)> = STATES
        .iter()
        .flat_map(|state| EVENTS.iter().map(move |event| (*state, *event)))
        .collect();
    let missing: Vec<_> = all.difference(&named).collect();
    let unknown: Vec<_> = named.difference(&all).collect();
    assert!(missing.is_empty(), "no row names {missing:?}");
    assert!(unknown.is_empty(), "no such states or events: {unknown:?}");
}

#[test]
fn every_kind_of_event_is_among_the_events() {
    let kinds: BTreeSet<&str> = EVENTS
        .iter()
        .map(|name| match event(&mut state("running_one"), name) {
            Event::Start(_) => "start",
            Event::Resume(_) => "resume",
            Event::Cancel(_) => "cancel",
            Event::Update(_) => "update",
            Event::Retry { .. } => "retry",
            Event::Delete { .. } => "delete",
            Event::RoundEnded { .. } => "round ended",
            Event::InputTaken { .. } => "input taken",
            Event::UpdateApplied { .. } => "update applied",
            Event::DeadlineReached { .. } => "deadline reached",
            Event::Create { .. } => "create",
            Event::CommandApplied { .. } => "command applied",
            Event::TimerDue { .. } => "timer due",
            Event::NextRun { .. } => "next run",
            Event::Move(_) => "move",
            Event::MoveMade { .. } => "move made",
            other => panic!("a new kind of event: {other:?}"),
        })
        .collect();
    assert_eq!(kinds.len(), 16, "{kinds:?}");
}

#[test]
fn no_event_but_a_start_makes_a_thread() {
    for name in EVENTS {
        for before in ["none", "tombstone"] {
            let verdict = found(before, name);
            let begins = ["append started", "append created", "append enqueued"];
            let starts = begins.contains(&verdict.as_str());
            assert!(starts || !verdict.starts_with("append"), "{before}, {name}");
        }
    }
}
