//! Tasks that wait for a time: when they go on, with whom, and what ends their waiting.
//!
//! The table of states and events has a verdict for each; these are the records and the states
//! that they lead to.

use std::collections::BTreeMap;

use superstep_protocol::{
    Event, Nothing, Progress, RecordBody, RunStatus, TaskState, Timer, Verdict, obligations,
    sleep_name, timers,
};

use crate::{
    states::state,
    story::{End, Story},
};

fn task<'a>(story: &'a Story, node: &str) -> &'a TaskState {
    story.state().task(&story.task(node)).unwrap()
}

fn is_open(story: &Story, node: &str) -> bool {
    matches!(task(story, node).progress, Progress::Open { .. })
}

/// The nodes of the tasks that the last record woke.
fn woken(story: &Story) -> Vec<String> {
    let RecordBody::Woken { tasks, .. } = &story.last().body else {
        panic!("{:?}", story.last());
    };
    let of = |id| story.state().task(id).unwrap().task.node.to_string();
    tasks.iter().map(of).collect()
}

#[test]
fn a_sleeping_thread_holds_nothing_but_a_timer() {
    let story = state("sleeping");
    assert_eq!(story.last().body.kind(), "paused");
    assert_eq!(obligations(story.state()).len(), 1, "its start is told");
    let until = task(&story, "a").paused_until().unwrap();
    let name = Timer::Task(story.task("a")).name();
    assert_eq!(timers(story.state()), BTreeMap::from([(name, until)]));
    assert_eq!(story.state().wakes_at(), Some(until));
    assert!(story.state().is_busy() && !story.state().has_work());
}

#[test]
fn timers_with_different_times_wake_one_task_each() {
    let mut story = state("sleeping_twice");
    let (a, b) = (story.timer_event("a"), story.timer_event("b"));
    assert_eq!(timers(story.state()).len(), 2);
    story.now = story.now.plus_ms(60_000);
    assert_eq!(story.verdict(&b), Verdict::Nothing(Nothing::NotDue));
    story.happens(&a);
    assert_eq!(woken(&story), ["a"]);
    assert_eq!(story.verdict(&a), Verdict::Nothing(Nothing::Late));
    // What is done while b waits is parked, and the run is not over.
    story.round(&[("a", End::Done)], &[]);
    assert_eq!(story.last().body.kind(), "paused");
    assert_eq!(
        story.state().run.as_ref().unwrap().status,
        RunStatus::Running
    );
    story.now = story.now.plus_ms(300_000);
    story.happens(&b);
    assert_eq!(woken(&story), ["b"]);
    assert_eq!(task(&story, "b").attempts, 1, "attempts survive the wait");
    story.round(&[("b", End::Done)], &[]);
    assert_eq!(story.last().body.kind(), "committed");
    assert!(timers(story.state()).is_empty());
}

#[test]
fn one_timer_wakes_every_task_that_is_due() {
    for first in ["a", "b"] {
        let mut story = state("sleeping_twice");
        story.now = story.now.plus_ms(300_000);
        let event = story.timer_event(first);
        let other = story.timer_event(if first == "a" { "b" } else { "a" });
        story.happens(&event);
        assert_eq!(woken(&story), ["a", "b"]);
        assert_eq!(story.state().rounds.len(), 1);
        assert_eq!(story.verdict(&other), Verdict::Nothing(Nothing::Late));
        story.round(&[("a", End::Done), ("b", End::Done)], &[]);
        assert_eq!(story.last().body.kind(), "committed");
    }
}

#[test]
fn an_answer_leaves_a_sleeping_sibling_asleep() {
    let mut story = state("sleeping_beside_a_question");
    let before = story.state().run.as_ref().unwrap().id.clone();
    story.answer("r1", "a", 0);
    assert!(is_open(&story, "a") && !is_open(&story, "b"));
    story.round(&[("a", End::Done)], &[]);
    assert_eq!(story.last().body.kind(), "paused");
    story.now = story.now.plus_ms(300_000);
    let event = story.timer_event("b");
    story.happens(&event);
    let run = &story.state().run.as_ref().unwrap().id;
    assert_ne!(*run, before, "the answer's run is the one that goes on");
    assert_eq!(story.state().rounds.values().next(), Some(run));
    story.round(&[("b", End::Done)], &[]);
    assert_eq!(story.last().body.kind(), "committed");
}

#[test]
fn a_run_stops_once_only_questions_are_left() {
    let mut story = state("sleeping_beside_a_question");
    story.now = story.now.plus_ms(300_000);
    let event = story.timer_event("b");
    story.happens(&event).round(&[("b", End::Done)], &[]);
    assert_eq!(story.last().body.kind(), "interrupted");
    assert_eq!(
        story.state().run.as_ref().unwrap().status,
        RunStatus::Success
    );
    assert!(!story.state().is_busy());
    assert_eq!(story.state().open_questions().count(), 1);
}

#[test]
fn an_answer_or_the_time_wakes_a_task_that_waits_for_both() {
    let mut story = state("asking_in_its_sleep");
    assert_eq!(timers(story.state()).len(), 2, "its deadline and its sleep");
    let (early, asked) = (story.timer_event("a"), story.question("a", 0));
    let sleeps = task(&story, "a").sleeps.clone();
    story.answer("r1", "a", 0);
    assert!(is_open(&story, "a"));
    assert_eq!(
        task(&story, "a").sleeps,
        sleeps,
        "it sleeps no longer for that"
    );
    story.now = story.now.plus_ms(30_000);
    assert_eq!(story.verdict(&early), Verdict::Nothing(Nothing::Late));

    let mut story = state("asking_in_its_sleep");
    story.now = story.now.plus_ms(30_000);
    story.happens(&early);
    assert!(is_open(&story, "a"));
    assert!(
        story.state().open_questions().next().is_some(),
        "it is open yet"
    );
    story.round(&[("a", End::Done)], &[]);
    assert!(story.state().closed(&asked).is_some(), "it is given up");
}

#[test]
fn a_failure_and_a_cancel_end_the_waiting_of_siblings() {
    let mut story = state("sleeping_twice");
    story.cancel("c1");
    assert!(timers(story.state()).is_empty() && !story.state().is_busy());
    assert_eq!(
        story.state().run.as_ref().unwrap().status,
        RunStatus::Interrupted
    );

    let mut story = Story::new();
    story.start("s1").enter(&["a", "b"]);
    story.round(&[("a", End::Sleeps(60_000)), ("b", End::Fails)], &[]);
    assert_eq!(story.last().body.kind(), "failed");
    assert!(timers(story.state()).is_empty() && !story.state().is_busy());

    // The deadline of a sibling's question ends the run too.
    let mut story = Story::new();
    story.expire_ms = Some(60_000);
    story.start("s1").enter(&["a", "b"]);
    story.round(&[("a", End::Asks(&[0])), ("b", End::Sleeps(300_000))], &[]);
    story.deadline("a", 0);
    assert_eq!(
        story.state().run.as_ref().unwrap().status,
        RunStatus::Timeout
    );
    assert!(timers(story.state()).is_empty() && !story.state().is_busy());
}

#[test]
fn a_sleep_that_ends_after_its_run_failed_waits_for_a_retry() {
    let mut story = Story::new();
    story.start("s1").enter(&["a", "b"]);
    story.round(&[("a", End::Asks(&[0])), ("b", End::Asks(&[0]))], &[]);
    story.answer("r1", "a", 0).answer("r2", "b", 0);
    story.round(&[("a", End::Fails)], &[]);
    story.round(&[("b", End::Sleeps(60_000))], &[]);
    assert_eq!(story.last().body.kind(), "failed");
    assert!(!story.state().is_busy());
    let end = task(&story, "b").sleeps.clone();
    story.retry("t1");
    assert!(is_open(&story, "a") && is_open(&story, "b"));
    assert_eq!(task(&story, "b").sleeps, end, "a retry sleeps no longer");
}

#[test]
fn commands_count_attempts_anew_and_keep_sleeps() {
    let mut story = Story::new();
    story.start("s1").enter(&["a"]);
    story.round(&[("a", End::TriesAgain(60_000))], &[]);
    let since = task(&story, "a").tried_since;
    assert!(since.is_some() && task(&story, "a").error.is_some());
    story.now = story.now.plus_ms(60_000);
    let event = story.timer_event("a");
    story.happens(&event);
    assert_eq!(
        (task(&story, "a").attempts, task(&story, "a").tried_since),
        (1, since)
    );
    story.round(&[("a", End::Sleeps(60_000))], &[]);
    let name = sleep_name(&story.task("a"), 0);
    story.cancel("c1").retry("t1");
    assert_eq!(
        (task(&story, "a").attempts, task(&story, "a").tried_since),
        (0, None)
    );
    assert!(task(&story, "a").sleeps.contains_key(&name));
}

#[test]
fn nothing_of_a_sleep_is_left_behind_its_superstep() {
    let mut story = state("sleeping");
    story.now = story.now.plus_ms(60_000);
    let event = story.timer_event("a");
    story.happens(&event).round(&[("a", End::Done)], &["a"]);
    assert!(task(&story, "a").sleeps.is_empty());
    let lineage = story.state().checkpoint.lineage.clone();
    // That it slept changes no id: a superstep that is done again may have slept or not.
    let mut awake = Story::new();
    awake.start("s1").enter(&["a", "b"]);
    awake.round(&[("a", End::Done), ("b", End::Done)], &["a"]);
    assert_eq!(lineage, awake.state().checkpoint.lineage);
}

#[test]
fn timers_are_named_for_what_they_are_about() {
    let (task, question) = (Timer::Task("t/1".into()), Timer::Interrupt("ab".into()));
    for timer in [task, question, Timer::Expire] {
        assert_eq!(Timer::of_name(&timer.name()), Some(timer));
    }
    assert_eq!(Timer::of_name("other:1"), None);
    assert_eq!(Timer::of_name("task"), None);
    let name = "other:1".to_owned();
    let verdict = state("sleeping").verdict(&Event::TimerDue { name });
    assert_eq!(verdict, Verdict::Nothing(Nothing::Late));
}

#[test]
fn a_thread_that_rests_has_a_time_to_expire() {
    let mut story = Story::new();
    let mut start = story.start_event("s1", serde_json::json!({"topic": "x"}));
    if let Event::Start(start) = &mut start {
        start.terms.ttl_ms = Some(60_000);
    }
    let name = Timer::Expire.name();
    story.happens(&start);
    assert!(timers(story.state()).is_empty(), "busy");
    story.enter(&["a"]);
    story.round(&[("a", End::Asks(&[0]))], &[]);
    assert!(!timers(story.state()).contains_key(&name), "waited for");
    story.answer("r1", "a", 0).round(&[("a", End::Done)], &[]);
    let at = story.state().time.plus_ms(60_000);
    assert_eq!(timers(story.state()), BTreeMap::from([(name.clone(), at)]));
    let event = Event::TimerDue { name };
    story.now = story.now.plus_ms(3_600_000);
    story.happens(&event);
    assert!(story.state().deleted && timers(story.state()).is_empty());
    assert_eq!(story.verdict(&event), Verdict::Nothing(Nothing::Late));
    // A later thread of the same name has the time that its own start says.
    story.start("s2");
    assert_eq!(story.state().ttl_ms, None);
}
