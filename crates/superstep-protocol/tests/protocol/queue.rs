//! Runs beside each other on one thread: what waits, what ends what, and what is told of it.

use serde_json::json;
use superstep_protocol::{
    BEGUN_RUNS_MAX, Cancel, Event, EventData, HIDDEN_SPANS_MAX, Nothing, Profile, RecordBody,
    Restored, RunStatus, Strategy, ThreadStatus, UnixMillis, Verdict, events, timers,
};

use crate::{
    states::state,
    story::{End, Story},
};

fn run(story: &Story) -> (&str, RunStatus) {
    let run = story.state().run.as_ref().unwrap();
    (run.id.as_str(), run.status)
}

fn queue(story: &Story) -> Vec<&str> {
    let queue = story.state().queue.iter();
    queue.map(|queued| queued.run.as_str()).collect()
}

/// What the last record tells: each event's kind and run.
fn told(story: &Story) -> Vec<(&'static str, String)> {
    let events = events(story.last(), story.state());
    let told = events.iter().map(|event| {
        let run = event.run.as_ref().map(ToString::to_string);
        (event.data.kind(), run.unwrap_or_default())
    });
    told.collect()
}

#[track_caller]
fn starts(story: &mut Story, id: &str, strategy: Strategy) {
    let event = story.start_with(id, strategy);
    story.happens(&event);
}

fn cancel_of(story: &Story, run: &str) -> Event {
    Event::Cancel(Box::new(Cancel {
        run: Some(run.into()),
        ..Cancel::new(story.command("c"), None)
    }))
}

#[test]
fn queued_runs_begin_one_after_another() {
    let mut story = state("queued");
    assert_eq!(queue(&story), ["run-s2", "run-s3"]);
    assert_eq!(told(&story), [("run_queued", "run-s3".to_owned())]);
    for (next, left) in [("run-s2", vec!["run-s3"]), ("run-s3", vec![])] {
        let last = story.records.len();
        story.round(&[("a", End::Done)], &[]);
        assert_eq!(told(&story)[0].0, "run_completed");
        assert!(story.state().begins_next() && !story.state().is_running());
        assert_eq!(story.records.len(), last + 1);
        story.begin_next();
        assert_eq!(run(&story), (next, RunStatus::Pending));
        assert_eq!(queue(&story), left);
        assert_eq!(told(&story), [("run_started", next.to_owned())]);
        story.enter(&["a"]);
    }
    story.round(&[("a", End::Done)], &[]);
    assert_eq!(story.state().status(), ThreadStatus::Idle);
}

#[test]
fn a_run_that_failed_or_was_cancelled_lets_the_next_one_begin() {
    let mut failed = state("queued");
    failed.round(&[("a", End::Fails)], &[]);
    let mut cancelled = state("queued");
    let event = cancel_of(&cancelled, "run-s1");
    cancelled.happens(&event);
    assert_eq!(told(&cancelled), [("run_cancelled", "run-s1".to_owned())]);
    for story in [&mut failed, &mut cancelled] {
        assert!(story.state().begins_next());
        story.begin_next();
        assert_eq!(run(story).0, "run-s2");
    }
}

#[test]
fn queued_runs_wait_while_questions_are_open() {
    let mut story = state("queued_at_a_question");
    assert_eq!(story.state().status(), ThreadStatus::Interrupted);
    assert!(!story.state().is_busy());
    story.answer("r1", "a", 0).round(&[("a", End::Done)], &[]);
    assert!(story.state().begins_next());
    story.begin_next();
    assert_eq!(run(&story).0, "run-s2");
}

#[test]
fn in_the_langgraph_profile_they_begin_and_discard_them() {
    let mut story = Story::new();
    story.profile = Profile::Langgraph;
    story.start("s1").enter(&["a"]);
    starts(&mut story, "s2", Strategy::Enqueue);
    story.round(&[("a", End::Asks(&[0]))], &[]);
    assert!(story.state().begins_next());
    let asked = story.question("a", 0);
    story.begin_next();
    assert_eq!(run(&story).0, "run-s2");
    let events = events(story.last(), story.state());
    let expected = EventData::InterruptDiscarded { interrupt: asked };
    assert_eq!(events[0].data, expected);
    assert_eq!(events[1].data, EventData::RunStarted);
}

#[test]
fn an_interrupting_start_keeps_completed_supersteps() {
    let mut story = state("queued");
    let log = story.log();
    let lost = *story.state().rounds.keys().next().unwrap();
    starts(&mut story, "x", Strategy::Interrupt);
    assert_eq!(run(&story), ("run-s1", RunStatus::Interrupted));
    let cancelled = |run: &str| ("run_cancelled", run.to_owned());
    assert_eq!(
        told(&story),
        [
            cancelled("run-s1"),
            cancelled("run-s2"),
            cancelled("run-s3"),
            ("run_queued", "run-x".to_owned())
        ]
    );
    let late = story.round_ended(lost, &[("a", End::Done)], &[]);
    assert_eq!(story.verdict(&late), Verdict::Nothing(Nothing::Late));
    story.begin_next();
    assert_eq!(run(&story), ("run-x", RunStatus::Pending));
    assert_eq!(story.log(), log);
    assert!(queue(&story).is_empty() && story.state().hidden.is_empty());
}

#[test]
fn a_start_that_rolls_back_goes_on_from_before() {
    let mut story = state("completed");
    let before = story.clone();
    story.start("s2").enter(&["a", "b"]);
    story.round(&[("a", End::Done), ("b", End::Done)], &["c"]);
    let (first, last) = (before.records.len() + 1, story.records.len() + 1);
    starts(&mut story, "x", Strategy::Rollback);
    let (found, was) = (story.state(), before.state());
    assert_eq!(found.checkpoint, was.checkpoint);
    assert_eq!(found.saved, was.saved);
    assert!(found.tasks.is_empty());
    let versions = 1..=story.records.len() as u64;
    let hidden: Vec<u64> = versions.filter(|at| found.is_hidden(*at)).collect();
    assert_eq!(hidden, (first as u64..=last as u64).collect::<Vec<_>>());
    story.begin_next().enter(&["a"]);
    assert_eq!(run(&story).0, "run-x");
    // What a rollback hides once more is one span with the first.
    starts(&mut story, "y", Strategy::Rollback);
    assert_eq!(story.state().hidden.len(), 1);
    assert_eq!(story.state().checkpoint, was.checkpoint);
}

#[test]
fn a_rollback_of_the_first_run_leaves_nothing() {
    let mut story = state("running_several");
    starts(&mut story, "x", Strategy::Rollback);
    let found = story.state();
    assert_eq!(found.saved, None);
    assert_eq!(found.checkpoint.step, story_before().checkpoint.step);
    assert!(found.checkpoint.values.is_empty() && found.tasks.is_empty());
    story.begin_next().enter(&["a"]);
    assert_eq!(story.log(), json!(["__start__"]));
}

fn story_before() -> Restored {
    Restored::nothing(0, &"s1".into())
}

#[test]
fn a_cancel_that_rolls_back_starts_nothing() {
    let mut story = state("completed");
    let before = story.state().checkpoint.clone();
    story.start("s2").enter(&["a"]);
    let event = story.with_before(Event::Cancel(Box::new(Cancel {
        rollback: true,
        ..Cancel::new(story.command("c"), None)
    })));
    story.happens(&event);
    assert_eq!(story.state().checkpoint, before);
    assert!(!story.state().is_busy());
    assert_eq!(run(&story), ("run-s2", RunStatus::Interrupted));
}

#[test]
fn a_rollback_needs_the_state_before_that_very_run() {
    let mut story = state("completed");
    story.start("s2").enter(&["a"]);
    let mut event = story.start_with("x", Strategy::Rollback);
    if let Event::Start(start) = &mut event {
        start.before.as_mut().unwrap().version -= 1;
    }
    assert_eq!(story.verdict(&event), Verdict::Wait);
    if let Event::Start(start) = &mut event {
        start.before = None;
    }
    assert_eq!(story.verdict(&event), Verdict::Wait);
}

#[test]
fn a_cancel_ends_what_runs_and_all_that_waits() {
    let mut story = state("queued");
    story.cancel("c");
    assert!(queue(&story).is_empty() && !story.state().is_busy());
    assert_eq!(told(&story).len(), 3);
    let mut story = state("queued");
    let event = cancel_of(&story, "run-s2");
    story.happens(&event);
    assert_eq!(queue(&story), ["run-s3"]);
    assert_eq!(told(&story), [("run_cancelled", "run-s2".to_owned())]);
    assert!(story.state().is_running());
    assert_eq!(run(&story), ("run-s1", RunStatus::Running));
}

#[test]
fn a_cancel_between_two_runs_ends_the_next_one() {
    let mut story = state("next_asked");
    let dispatch = story.state().decision.as_ref().unwrap().dispatch;
    story.cancel("c");
    assert_eq!(run(&story), ("run-s1", RunStatus::Success));
    let late = story.verdict(&Event::NextRun {
        dispatch,
        refusal: None,
    });
    assert_eq!(late, Verdict::Nothing(Nothing::Late));
    assert_eq!(story.state().status(), ThreadStatus::Idle);
}

#[test]
fn the_same_start_again_begins_nothing() {
    let mut story = state("queued");
    for id in ["s1", "s2"] {
        let accepted = story.state().begun(&format!("run-{id}").into()).unwrap();
        for strategy in [Strategy::Reject, Strategy::Enqueue, Strategy::Rollback] {
            let again = story.start_with(id, strategy);
            assert_eq!(story.verdict(&again), Verdict::Known(accepted));
        }
    }
    story.cancel("c");
    for at in 0..BEGUN_RUNS_MAX {
        story.start(&format!("t{at}")).cancel(&format!("c{at}"));
        assert!(story.state().begun.len() <= BEGUN_RUNS_MAX);
    }
    assert_eq!(story.state().begun(&"run-s1".into()), None);
}

#[test]
fn a_delayed_start_begins_at_its_time() {
    let mut story = state("delayed");
    let due = timers(story.state());
    let at = due["start:run-s2"];
    let event = Event::TimerDue {
        name: "start:run-s2".to_owned(),
    };
    story.now = UnixMillis(at.0 - 1);
    assert_eq!(story.verdict(&event), Verdict::Nothing(Nothing::NotDue));
    // Another one begins meanwhile: the delayed one has no entry until that is over.
    starts(&mut story, "s3", Strategy::Enqueue);
    story.enter(&["a"]);
    assert_eq!(timers(story.state()).len(), 0);
    story.now = at;
    assert_eq!(story.verdict(&event), Verdict::Nothing(Nothing::Late));
    story.round(&[("a", End::Done)], &[]);
    assert!(story.state().begins_next());
    story.begin_next();
    assert_eq!(run(&story).0, "run-s2");
}

#[test]
fn a_start_waits_behind_one_whose_time_came() {
    let mut story = state("delayed");
    let at = timers(story.state())["start:run-s2"];
    // Nobody has begun it yet.
    story.now = at;
    starts(&mut story, "s3", Strategy::Enqueue);
    assert_eq!(queue(&story), ["run-s2", "run-s3"]);
    assert!(story.state().begins_next());
    story.begin_next();
    assert_eq!(run(&story).0, "run-s2");
}

#[test]
fn a_thread_may_begin_with_a_delayed_start() {
    let mut story = Story::new();
    let event = story.start_later("s1");
    story.happens(&event);
    assert_eq!(story.state().status(), ThreadStatus::Busy);
    assert!(!story.state().is_busy());
    story.now = story.now.plus_ms(120_000);
    story.happens(&Event::TimerDue {
        name: "start:run-s1".to_owned(),
    });
    story.enter(&["a"]).round(&[("a", End::Done)], &[]);
    assert_eq!(story.state().status(), ThreadStatus::Idle);
}

#[test]
fn a_queued_run_that_cannot_begin_is_told_why() {
    let mut story = state("queued");
    let mut event = story.start_event("x", json!(null));
    if let Event::Start(start) = &mut event {
        start.strategy = Strategy::Interrupt;
    }
    // It goes on with what the run that it ends has left.
    story.happens(&event).begin_next();
    assert!(matches!(story.last().body, RecordBody::Retried { .. }));
    if let Event::Start(start) = &mut event {
        start.strategy = Strategy::Enqueue;
        start.run = "run-y".into();
        start.command.id = "y".into();
    }
    story.happens(&event);
    starts(&mut story, "z", Strategy::Enqueue);
    story.round(&[("a", End::Done)], &[]).begin_next();
    assert_eq!(told(&story), [("start_refused", "run-y".to_owned())]);
    // The one behind it gets its turn.
    story.begin_next();
    assert_eq!(run(&story).0, "run-z");
}

#[test]
fn what_a_thread_remembers_of_rollbacks_is_bounded() {
    let mut story = Story::new();
    story.start("s").cancel("c");
    for at in 0..HIDDEN_SPANS_MAX + 3 {
        story.start(&format!("a{at}"));
        starts(&mut story, &format!("b{at}"), Strategy::Rollback);
        // A run that is kept stands between this rollback and the next.
        story.begin_next().cancel(&format!("c{at}"));
    }
    assert_eq!(story.state().hidden.len(), HIDDEN_SPANS_MAX);
    assert!(!story.state().is_hidden(3));
}

#[test]
fn a_deleted_thread_forgets_its_runs() {
    let mut story = state("queued");
    story.delete("d");
    let found = story.state();
    assert!(found.queue.is_empty() && found.begun.is_empty());
    assert_eq!(found.status(), ThreadStatus::Idle);
    story.start("s1");
    assert_eq!(run(&story), ("run-s1", RunStatus::Pending));
}
