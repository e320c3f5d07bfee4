//! Commands that change a checkpoint as it stands, and runs that branch off an older one.

use serde_json::{Value, json};
use superstep_graph::Source;
use superstep_protocol::{
    Answers, Dispatch, Event, Goto, Profile, Progress, RunStatus, Stop, Updated, events,
};

use crate::{
    states::state,
    story::{End, Story},
};

fn progress(story: &Story, node: &str) -> Progress {
    let task = story.task(node);
    story.state().task(&task).unwrap().progress.clone()
}

fn kinds(story: &Story) -> Vec<&'static str> {
    let told = events(story.last(), story.state());
    told.iter().map(|event| event.data.kind()).collect()
}

fn decision(story: &Story) -> Dispatch {
    story.state().decision.as_ref().unwrap().dispatch
}

#[test]
fn a_command_keeps_what_the_superstep_did() {
    let mut story = state("asked_one");
    let step = story.state().checkpoint.step;
    let mut event = story.resume_event("k1", Answers::Plain(json!("yes")));
    if let Event::Resume(resume) = &mut event {
        resume.goto = vec![Goto::Node("c".into())];
    }
    story.happens(&event);
    assert!(matches!(progress(&story, "b"), Progress::Finished { .. }));
    assert_eq!(story.state().open_questions().count(), 1, "not yet applied");
    story.command_applied("c");
    let round = story.last().head;
    let open = Progress::Open { dispatch: round };
    assert_eq!(story.state().checkpoint.step, step, "no step passed");
    assert_eq!(progress(&story, "a"), open, "its question is answered");
    assert_eq!(progress(&story, "c"), open, "it was added");
    assert!(matches!(progress(&story, "b"), Progress::Finished { .. }));
    assert_eq!(story.state().run.as_ref().unwrap().id, "run-k1");
    story.round(&[("a", End::Done), ("c", End::Done)], &[]);
    assert_eq!(story.log(), json!(["__start__", "command", "a", "b", "c"]));
}

#[test]
fn a_command_that_cannot_be_applied_changes_nothing() {
    let mut story = state("command_asked");
    let before = story.clone();
    let event = Event::CommandApplied {
        dispatch: decision(&story),
        superstep: Err("no such channel".to_owned()),
    };
    story.happens(&event);
    assert_eq!(kinds(&story), ["resume_refused"]);
    let (now, then) = (story.state(), before.state());
    assert_eq!(now.run, then.run);
    assert_eq!(now.tasks, then.tasks);
    assert_eq!(now.checkpoint, then.checkpoint);
    // Nor is it part of what the next checkpoint descends from.
    assert_eq!(now.applied.len() + 1, then.applied.len());
}

#[test]
fn open_questions_stay_open_beside_a_command() {
    let story = state("amended");
    assert_eq!(progress(&story, "a"), Progress::Waiting);
    assert_eq!(story.state().open_questions().count(), 1);
    let mut langgraph = Story::new();
    langgraph.profile = Profile::Langgraph;
    langgraph.start("s1").enter(&["a"]);
    langgraph.round(&[("a", End::Asks(&[0]))], &[]);
    langgraph.ask_command("k1", None).command_applied("c");
    let dispatch = langgraph.last().head;
    assert_eq!(progress(&langgraph, "a"), Progress::Open { dispatch });
}

#[test]
fn a_command_that_runs_nothing_stops_at_once() {
    let mut story = state("command_asked");
    let asked = decision(&story);
    let mut superstep = story.amended("c");
    superstep.tasks.pop();
    let event = Event::CommandApplied {
        dispatch: asked,
        superstep: Ok(superstep),
    };
    story.happens(&event);
    assert_eq!(kinds(&story), ["run_stopped"], "its question is open still");
    let state = story.state();
    assert!(
        state.untold.contains(&state.head.version),
        "it is to be told"
    );
    assert_eq!(state.run.as_ref().unwrap().id, "run-k1");
    assert_eq!(state.run.as_ref().unwrap().status, RunStatus::Success);
}

/// Two supersteps and the end; and the checkpoint after the first as a base.
fn finished() -> (Story, superstep_protocol::Base) {
    let mut story = Story::new();
    story.start("s1").enter(&["a"]);
    story.round(&[("a", End::Done)], &["b"]);
    let base = story.base(true).unwrap();
    story.round(&[("b", End::Done)], &[]);
    (story, base)
}

#[test]
fn a_run_from_an_older_checkpoint_is_a_branch() {
    let (mut story, base) = finished();
    let end = story.state().saved;
    let mut event = story.start_event("f1", Value::Null);
    if let Event::Start(start) = &mut event {
        start.at = Some(Box::new(base.clone()));
    }
    story.happens(&event);
    assert_eq!(story.state().saved, end, "nothing moved yet");
    assert_eq!(kinds(&story), ["run_started"]);
    let on = story.state().decided_on(decision(&story)).into_owned();
    assert_eq!(on.saved, Some(base.saved));
    let mut planned = story.clone();
    planned.state = Some(on);
    let event = Event::CommandApplied {
        dispatch: decision(&story),
        superstep: Ok(planned.superstep(&[], &["b"])),
    };
    story.happens(&event);
    let now = story.state();
    assert_eq!(now.checkpoint.source, Source::Fork);
    assert_eq!(now.checkpoint.step, base.checkpoint.step + 1);
    assert_eq!(now.run.as_ref().unwrap().id, "run-f1");
    assert_eq!(now.run.as_ref().unwrap().stop, base.checkpoint.step + 27);
    story.round(&[("b", End::Done)], &[]);
    assert_eq!(story.log(), json!(["__start__", "a", "b"]));
}

#[test]
fn questions_asked_on_a_branch_are_new_ones() {
    let (mut story, base) = finished();
    let first = superstep_graph::InterruptId::of(&base.tasks[0].id, 0);
    let event = story.command_event("f1", Some(base));
    story.happens(&event);
    let mut planned = story.clone();
    planned.state = Some(story.state().decided_on(decision(&story)).into_owned());
    let event = Event::CommandApplied {
        dispatch: decision(&story),
        superstep: Ok(planned.superstep(&["command"], &["b"])),
    };
    story.happens(&event);
    story.round(&[("b", End::Asks(&[0]))], &[]);
    assert_ne!(story.question("b", 0), first);
    assert_eq!(story.log(), json!(["__start__", "a", "command"]));
}

#[test]
fn an_update_of_an_older_checkpoint_is_a_branch() {
    let (mut story, base) = finished();
    let mut event = Event::Update(Box::new(superstep_protocol::StateUpdate::new(
        story.command("u1"),
        json!({"log": ["patched"]}),
        Some("a".into()),
    )));
    if let Event::Update(update) = &mut event {
        update.at = Some(Box::new(base.clone()));
    }
    story.happens(&event);
    let mut planned = story.clone();
    planned.state = Some(story.state().decided_on(decision(&story)).into_owned());
    let superstep = planned.superstep(&["patched"], &["b"]);
    let event = Event::UpdateApplied {
        dispatch: decision(&story),
        superstep: Ok(Box::new(Updated::new("a".into(), superstep))),
    };
    story.happens(&event);
    assert_eq!(story.state().checkpoint.step, base.checkpoint.step + 1);
    assert_eq!(story.log(), json!(["__start__", "a", "patched"]));
    assert_eq!(kinds(&story), ["state_updated"]);
}

#[test]
fn a_run_that_stops_at_a_breakpoint_goes_on() {
    let mut story = state("stopped");
    assert_eq!(kinds(&story), ["run_stopped"]);
    assert_eq!(
        story.state().run.as_ref().unwrap().status,
        RunStatus::Success
    );
    story.stop = Stop::No;
    let event = story.start_event("s2", Value::Null);
    story.happens(&event);
    story.round(&[("a", End::Done), ("b", End::Done)], &[]);
    assert_eq!(kinds(&story), ["run_completed"]);
}

#[test]
fn an_answer_without_a_question_is_offered_once() {
    let mut story = Story::new();
    story.profile = Profile::Langgraph;
    story.start("s1").enter(&["a"]);
    story.stop = Stop::Before;
    story.round(&[("a", End::Done)], &["a"]);
    story.stop = Stop::No;
    let event = story.resume_event("r1", Answers::Plain(json!("early")));
    story.happens(&event);
    assert_eq!(story.state().offer, Some(json!("early")));
    story.round(&[("a", End::Asks(&[0]))], &[]);
    let event = story.start_event("s2", Value::Null);
    story.happens(&event);
    assert_eq!(story.state().offer, None, "it was for that run");
}

#[test]
fn a_command_on_a_finished_thread_ends_at_once_in_langgraph() {
    let mut story = Story::new();
    story.profile = Profile::Langgraph;
    story.start("s1").enter(&["a"]);
    story.round(&[("a", End::Done)], &[]);
    let event = story.resume_event("r1", Answers::Plain(json!("late")));
    story.happens(&event);
    assert_eq!(kinds(&story), ["resume_accepted", "run_completed"]);
    assert!(!story.state().is_busy());
}
