//! Fold: what each record means, and which logs are none.

use serde_json::json;
use superstep_graph::Lineage;
use superstep_protocol::{
    Asked, CLOSED_QUESTIONS_MAX, Closed, Event, Head, Nonce, Profile, Progress, Record, RecordBody,
    RunStatus, Then, ThreadState, ThreadStatus, UnixMillis, fold,
};

use crate::{
    states::{STATES, state},
    story::{End, Story},
};

fn run_status(story: &Story) -> Option<RunStatus> {
    story.state().run.as_ref().map(|run| run.status)
}

#[test]
fn every_story_stands_as_it_should() {
    use RunStatus::{Error, Interrupted, Pending, Running, Success, Timeout};
    use ThreadStatus as Thread;
    let rows = [
        ("tombstone", Thread::Idle, None, 0),
        ("input_asked", Thread::Busy, Some(Pending), 0),
        ("starting", Thread::Busy, Some(Running), 0),
        ("running_one", Thread::Busy, Some(Running), 0),
        ("running_several", Thread::Busy, Some(Running), 0),
        ("asked_one", Thread::Interrupted, Some(Success), 1),
        ("asked_two", Thread::Interrupted, Some(Success), 2),
        ("asked_twice_by_one", Thread::Interrupted, Some(Success), 2),
        ("two_rounds", Thread::Busy, Some(Running), 1),
        ("round_over_a_failure", Thread::Busy, Some(Running), 0),
        ("failed", Thread::Error, Some(Error), 0),
        ("failed_path", Thread::Error, Some(Error), 0),
        ("failed_beside_a_question", Thread::Error, Some(Error), 1),
        ("timed_out", Thread::Error, Some(Timeout), 0),
        ("cancelled", Thread::Interrupted, Some(Interrupted), 0),
        ("update_asked", Thread::Busy, Some(Success), 1),
        ("updated", Thread::Interrupted, Some(Success), 0),
        ("command_asked", Thread::Busy, Some(Success), 1),
        ("amended", Thread::Busy, Some(Running), 1),
        ("moving", Thread::Busy, Some(Success), 1),
        ("moving_at_work", Thread::Busy, Some(Running), 0),
        ("moving_in_its_sleep", Thread::Busy, Some(Running), 0),
        ("moving_with_a_queue", Thread::Busy, Some(Running), 0),
        ("moved_at_work", Thread::Busy, Some(Running), 0),
        ("stopped", Thread::Interrupted, Some(Success), 0),
        ("over_the_limit", Thread::Error, Some(Error), 0),
        ("completed", Thread::Idle, Some(Success), 0),
        ("sleeping", Thread::Busy, Some(Running), 0),
        ("sleeping_twice", Thread::Busy, Some(Running), 0),
        ("sleeping_beside_a_question", Thread::Busy, Some(Running), 1),
        ("asking_in_its_sleep", Thread::Busy, Some(Running), 1),
        ("queued", Thread::Busy, Some(Running), 0),
        (
            "queued_at_a_question",
            Thread::Interrupted,
            Some(Success),
            1,
        ),
        ("next_asked", Thread::Busy, Some(Success), 0),
        ("delayed", Thread::Busy, Some(Success), 0),
        ("displaced", Thread::Busy, Some(Interrupted), 0),
    ];
    assert_eq!(rows.len(), STATES.len() - 1);
    for (name, thread, run, open) in rows {
        let story = state(name);
        let found = story.state();
        assert_eq!(found.status(), thread, "{name}");
        assert_eq!(run_status(&story), run, "{name}");
        assert_eq!(found.open_questions().count(), open, "{name}");
        // A run that waits for its time keeps no worker busy.
        let waits = name == "delayed";
        assert_eq!(found.is_busy(), thread == Thread::Busy && !waits, "{name}");
        assert_eq!(found.head, story.last().head, "{name}");
        assert_eq!(found.time, story.last().time, "{name}");
    }
}

#[test]
fn a_start_asks_for_its_input_to_be_taken() {
    let story = state("input_asked");
    let found = story.state();
    let decision = found.decision.as_ref().unwrap();
    assert_eq!(decision.dispatch, found.head);
    let input = json!({"topic": "x"});
    assert_eq!(decision.asked, Asked::Input { input });
    assert_eq!(found.incarnation, "s1");
    assert_eq!(found.checkpoint.lineage, Lineage::root("s1"));
    let run = found.run.as_ref().unwrap();
    // LangGraph: the first step of the run, -1, and the limit, and one.
    assert_eq!((run.id.as_str(), run.stop), ("run-s1", 25));
    assert_eq!(found.saved, None);
}

#[test]
fn a_checkpoint_opens_the_round_of_its_tasks() {
    let story = state("running_several");
    let found = story.state();
    assert_eq!(found.rounds.keys().collect::<Vec<_>>(), [&found.head]);
    assert_eq!(found.rounds[&found.head], "run-s1");
    assert_eq!(found.round_tasks(found.head).count(), 3);
    assert_eq!(found.checkpoint.step, 0);
    assert_eq!(found.saved, Some((found.head, found.time)));
    assert!(found.applied.is_empty());
    assert_eq!(story.log(), json!(["__start__"]));
}

#[test]
fn finished_siblings_are_parked_and_applied_once() {
    let mut story = state("asked_one");
    assert_eq!(story.log(), json!(["__start__"]));
    let parked = &story.state().tasks[1].progress;
    assert!(matches!(parked, Progress::Finished { .. }));
    story.answer("r1", "a", 0);
    let open: Vec<_> = story.state().round_tasks(story.state().head).collect();
    assert_eq!(open.len(), 1);
    story.round(&[("a", End::Done)], &["next"]);
    assert_eq!(story.log(), json!(["__start__", "a", "b"]));
}

#[test]
fn an_answer_opens_a_round_and_begins_a_run() {
    let mut story = state("asked_two");
    story.answer("r1", "a", 0);
    let found = story.state();
    let run = found.run.as_ref().unwrap();
    assert_eq!(
        (run.id.as_str(), run.status),
        ("run-r1", RunStatus::Running)
    );
    assert_eq!(run.stop, found.checkpoint.step + 1 + 25 + 1);
    assert_eq!(found.applied, ["r1"]);
    let running: Vec<&str> = found
        .round_tasks(found.head)
        .map(|t| t.task.node.as_str())
        .collect();
    assert_eq!(running, ["a"]);
    let answer = found.tasks[0].questions[0].answer.as_ref().unwrap();
    assert_eq!(answer.value, json!("to a"));
    assert_eq!(answer.sender.as_deref(), Some("ann"));
    assert_eq!((answer.command.as_str(), answer.at), ("r1", found.time));
}

#[test]
fn in_the_langgraph_profile_an_answer_runs_every_unanswered_task() {
    let mut story = Story::new();
    story.profile = Profile::Langgraph;
    story.start("s1").enter(&["a", "b", "c"]);
    let asks = End::Asks(&[0]);
    story.round(&[("a", asks), ("b", asks), ("c", End::Done)], &[]);
    story.answer("r1", "a", 0);
    assert_eq!(story.state().round_tasks(story.state().head).count(), 2);
    // New input is taken there, and gives the questions up.
    story.round(&[("a", asks), ("b", asks)], &[]);
    story.start("s2");
    assert_eq!(story.state().open_questions().count(), 0);
    let gave_up = |closed: &Closed| matches!(closed, Closed::GivenUp { why } if why == "new input");
    assert!(
        story
            .state()
            .closed
            .iter()
            .any(|(_, closed)| gave_up(closed))
    );
}

#[test]
fn two_questions_of_one_task_are_answered_in_any_order() {
    let mut story = state("asked_twice_by_one");
    story.answer("r1", "a", 1);
    assert_eq!(
        story.state().tasks[0].answers(),
        [None, Some(json!("to a"))]
    );
    // The other answer comes while the task runs: it moves to a new round.
    let first = story.state().head;
    story.answer("r2", "a", 0);
    let found = story.state();
    assert_eq!(found.rounds.keys().collect::<Vec<_>>(), [&found.head]);
    assert!(!found.waits_for(first));
    let late = story.round_ended(first, &[("a", End::Asks(&[0]))], &[]);
    assert!(matches!(
        story.verdict(&late),
        superstep_protocol::Verdict::Nothing(_)
    ));
    story.round(&[("a", End::Done)], &[]);
    assert_eq!(story.log(), json!(["__start__", "a"]));
}

#[test]
fn a_run_of_two_rounds_ends_with_the_last() {
    let mut story = state("two_rounds");
    story.round(&[("a", End::Done)], &[]);
    assert_eq!(run_status(&story), Some(RunStatus::Running));
    story.round(&[("b", End::Done)], &[]);
    assert_eq!(run_status(&story), Some(RunStatus::Success));
    assert_eq!(story.state().status(), ThreadStatus::Interrupted);
    story.answer("r3", "c", 0);
    story.round(&[("c", End::Done)], &[]);
    assert_eq!(story.state().status(), ThreadStatus::Idle);
    assert_eq!(story.log(), json!(["__start__", "a", "b", "c"]));
}

#[test]
fn a_failure_in_one_round_ends_the_run_with_the_last() {
    for end in [End::Done, End::Asks(&[1])] {
        let mut story = state("round_over_a_failure");
        story.round(&[("b", end)], &[]);
        assert_eq!(story.last().body.kind(), "failed");
        assert_eq!(story.state().status(), ThreadStatus::Error);
        let error = story.state().run.as_ref().unwrap().error.as_ref().unwrap();
        assert_eq!(error.message, "a failed");
    }
    // So does a failed path, although every task is finished then.
    let mut story = state("two_rounds");
    story.answer("r3", "c", 0);
    story.round(&[("a", End::PathFails)], &[]);
    story.round(&[("b", End::Done)], &[]);
    story.round(&[("c", End::Done)], &["next"]);
    assert_eq!(story.state().status(), ThreadStatus::Error);
    assert_eq!(story.log(), json!(["__start__"]));
    // A retry applies what is there; LangGraph goes on without the missing route.
    story.retry("x");
    assert_eq!(story.state().decision.as_ref().unwrap().asked, Asked::Close);
    let dispatch = story.state().head;
    story.round_of(dispatch, &[], &["next"]);
    assert_eq!(story.log(), json!(["__start__", "a", "b", "c"]));
}

#[test]
fn a_retry_runs_what_failed_and_replays_answers() {
    let mut story = state("asked_one");
    story.answer("r1", "a", 0).round(&[("a", End::Fails)], &[]);
    assert_eq!(story.state().status(), ThreadStatus::Error);
    story.retry("x");
    let task = story
        .state()
        .round_tasks(story.state().head)
        .next()
        .unwrap();
    assert_eq!(task.task.node, "a");
    assert_eq!(task.answers(), [Some(json!("to a"))]);
    assert_eq!(story.state().run.as_ref().unwrap().error, None);
}

#[test]
fn a_cancel_gives_up_questions_and_keeps_supersteps() {
    let story = state("cancelled");
    assert_eq!(story.log(), json!(["__start__"]));
    let why: Vec<_> = story
        .state()
        .closed
        .iter()
        .map(|(_, closed)| closed)
        .collect();
    let cancelled = Closed::GivenUp {
        why: "cancelled".to_owned(),
    };
    assert_eq!(why, [&cancelled, &cancelled]);
    let mut story = state("running_several");
    story.cancel("c1");
    let waits = |task: &superstep_protocol::TaskState| task.progress == Progress::Waiting;
    assert!(story.state().tasks.iter().all(waits));
    story.retry("x");
    assert_eq!(story.state().round_tasks(story.state().head).count(), 3);
}

#[test]
fn an_update_drops_what_was_pending_and_waits() {
    let story = state("updated");
    let found = story.state();
    assert_eq!(story.log(), json!(["__start__", "update"]));
    assert_eq!(found.tasks.len(), 2);
    assert!(found.rounds.is_empty());
    let RecordBody::Committed(committed) = &story.last().body else {
        panic!("an update is a checkpoint");
    };
    assert_eq!(committed.then, Then::Wait);
    assert_eq!(committed.as_node, Some("a".into()));
    // A failed thread that is mended waits again.
    let mut story = state("failed");
    story.update("u1", &["b"]);
    assert_eq!(story.state().status(), ThreadStatus::Interrupted);
}

#[test]
fn a_declined_update_changes_nothing() {
    let mut story = state("update_asked");
    let before = state("asked_one");
    let dispatch = story.state().decision.as_ref().unwrap().dispatch;
    story.happens(&Event::UpdateApplied {
        dispatch,
        superstep: Err("no such node".to_owned()),
    });
    let found = story.state();
    assert_eq!(found.tasks, before.state().tasks);
    assert_eq!(found.applied, before.state().applied);
    assert_eq!(found.status(), ThreadStatus::Interrupted);
}

#[test]
fn a_deadline_fails_its_task_even_while_it_runs() {
    // Both questions of a are open; one is answered, the other expires while a runs.
    let mut story = state("asked_twice_by_one");
    let other = story.question("a", 1);
    story.answer("r1", "a", 0).deadline("a", 1);
    let found = story.state();
    assert!(found.rounds.is_empty());
    assert_eq!(found.status(), ThreadStatus::Error);
    assert_eq!(found.closed(&other), Some(&Closed::Expired));
    let error = found.run.as_ref().unwrap().error.as_ref().unwrap();
    assert_eq!(error.kind, "InterruptExpired");
    assert_eq!(error.node, Some("a".into()));
    story.retry("x").round(&[("a", End::Asks(&[1]))], &[]);
    assert_eq!(story.question("a", 1), other);
    assert_eq!(story.state().open_questions().count(), 1);
}

#[test]
fn a_deadline_beside_a_running_round_ends_the_run_with_it() {
    let mut story = state("asked_two");
    story.answer("r1", "a", 0).deadline("b", 0);
    assert_eq!(story.state().status(), ThreadStatus::Busy);
    story.round(&[("a", End::Done)], &["next"]);
    assert_eq!(story.state().status(), ThreadStatus::Error);
    assert_eq!(run_status(&story), Some(RunStatus::Timeout));
    assert_eq!(story.log(), json!(["__start__"]));
}

#[test]
fn a_question_that_is_no_longer_asked_is_given_up() {
    let mut story = state("asked_twice_by_one");
    let other = story.question("a", 1);
    story.answer("r1", "a", 0);
    // The answer leads the node elsewhere: it asks a third thing and not the second.
    story.round(&[("a", End::Asks(&[2]))], &[]);
    let open: Vec<_> = story
        .state()
        .open_questions()
        .map(|(_, q)| q.index)
        .collect();
    assert_eq!(open, [2]);
    assert!(matches!(
        story.state().closed(&other),
        Some(Closed::GivenUp { .. })
    ));
}

#[test]
fn a_finished_task_keeps_no_question_open() {
    for end in [End::Done, End::PathFails] {
        let mut story = state("asked_twice_by_one");
        let other = story.question("a", 1);
        story.answer("r1", "a", 0).round(&[("a", end)], &[]);
        assert_eq!(story.state().open_questions().count(), 0);
        assert!(matches!(
            story.state().closed(&other),
            Some(Closed::GivenUp { .. })
        ));
    }
}

#[test]
fn untracked_values_end_with_their_run() {
    let mut story = Story::new();
    story.start("s1").enter(&["a"]);
    let dispatch = story.state().head;
    let mut event = story.round_ended(dispatch, &[("a", End::Done)], &["b", "c"]);
    if let Event::RoundEnded {
        superstep: Some(Ok(superstep)),
        ..
    } = &mut event
    {
        let set = superstep_graph::ChannelChange::Set(json!("now"));
        superstep.delta.untracked.insert("secret".into(), set);
    }
    story.happens(&event);
    let has = |story: &Story| story.state().checkpoint.content("secret").is_some();
    assert!(has(&story));
    story.round(&[("b", End::Asks(&[0])), ("c", End::Asks(&[0]))], &[]);
    // The result of the run that stopped still shows them; the one that goes on does not.
    assert!(has(&story));
    story.answer("r1", "b", 0);
    assert!(!has(&story));
}

#[test]
fn the_recursion_limit_is_the_runs_own() {
    let mut story = Story::new();
    story.limit = 2;
    story.start("s1").enter(&["a"]);
    story.round(&[("a", End::Done)], &["a"]);
    // LangGraph: the limit is met even if nothing is left to run.
    story.round(&[("a", End::Done)], &[]);
    assert_eq!(story.state().status(), ThreadStatus::Error);
    let mut story = Story::new();
    story.limit = 2;
    story.start("s1").enter(&["a"]);
    story
        .round(&[("a", End::Done)], &["a"])
        .round(&[("a", End::Done)], &["a"]);
    assert_eq!(run_status(&story), Some(RunStatus::Error));
    story.retry("x");
    for _ in 0..3 {
        assert_eq!(run_status(&story), Some(RunStatus::Running));
        story.round(&[("a", End::Done)], &["a"]);
    }
    story.round(&[("a", End::Done)], &["a"]);
    let error = story.state().run.as_ref().unwrap().error.as_ref().unwrap();
    assert_eq!(error.kind, "GraphRecursionError");
    insta::assert_snapshot!(error.message, @"the recursion limit of 2 supersteps was reached without coming to the end; raise `recursion_limit`, or give the loop a way out");
}

#[test]
fn a_deleted_thread_leaves_a_tombstone() {
    let mut story = state("asked_two");
    story.delete("d1");
    let found = story.state();
    assert!(found.deleted && found.tasks.is_empty() && found.closed.is_empty());
    assert!(found.visible_values().is_empty());
    let version = found.head.version;
    story.start("s2");
    let found = story.state();
    assert_eq!(found.head.version, version + 1);
    assert_eq!(found.incarnation, "s2");
    assert!(!found.deleted);
    assert_eq!(found.checkpoint.step, -2);
}

#[test]
fn closed_questions_are_remembered_within_bounds() {
    let mut story = Story::new();
    story.start("s1").enter(&["a"]);
    for turn in 0..CLOSED_QUESTIONS_MAX + 8 {
        story.round(&[("a", End::Asks(&[0]))], &[]);
        story.answer(&format!("r{turn}"), "a", 0);
        story.round(&[("a", End::Done)], &["a"]);
    }
    assert_eq!(story.state().closed.len(), CLOSED_QUESTIONS_MAX);
}

#[test]
fn what_a_reader_sees_leaves_routing_out() {
    let mut story = state("running_one");
    let state = story.state.as_mut().unwrap();
    for channel in ["__pregel_tasks", "branch:to:a", "join:a+b:c"] {
        state.checkpoint.values.insert(channel.into(), json!(1));
    }
    let visible: Vec<String> = state.visible_values().keys().cloned().collect();
    assert_eq!(visible, ["log"]);
}

#[test]
fn a_log_with_a_gap_is_none() {
    let story = state("asked_one");
    let fold_at = |state: Option<ThreadState>, version: u64, body: &RecordBody| {
        let record = Record {
            head: Head {
                version,
                nonce: Nonce(1),
            },
            time: UnixMillis(0),
            told: 0,
            body: body.clone(),
            snapshot: None,
        };
        fold(&story.thread, state, &record)
    };
    let started = &story.records[0].body;
    let cancelled = RecordBody::Cancelled {
        command: story.command("c"),
        reason: None,
        spares: false,
        queued: Vec::new(),
        restores: None,
    };
    let head = story.state().head.version;
    let deleted = state("tombstone");
    let tomb = deleted.state().head.version;
    let rows = [
        fold_at(None, 2, started),
        fold_at(None, 1, &cancelled),
        fold_at(story.state.clone(), head, &cancelled),
        fold_at(story.state.clone(), head + 2, &cancelled),
        fold_at(deleted.state.clone(), tomb + 1, &cancelled),
        fold_at(deleted.state.clone(), 1, started),
    ];
    for (at, found) in rows.iter().enumerate() {
        assert!(found.is_err(), "row {at}");
    }
    assert!(fold_at(deleted.state.clone(), tomb + 1, started).is_ok());
    let texts: Vec<String> = rows
        .iter()
        .map(|r| r.as_ref().unwrap_err().to_string())
        .collect();
    insta::assert_snapshot!(texts.join("\n"), @r#"
    thread `t` has a corrupt log: record 2-0000000000000001 (started) cannot follow nothing
    thread `t` has a corrupt log: record 1-0000000000000001 (cancelled) cannot follow nothing
    thread `t` has a corrupt log: record 4-0000000000000001 (cancelled) cannot follow 4-0000000000000004
    thread `t` has a corrupt log: record 6-0000000000000001 (cancelled) cannot follow 4-0000000000000004
    thread `t` has a corrupt log: record 5-0000000000000001 (cancelled) cannot follow a tombstone
    thread `t` has a corrupt log: record 1-0000000000000001 (started) cannot follow 4-0000000000000004
    "#);
}

#[test]
fn a_fold_from_a_snapshot_goes_on_the_same() {
    for name in STATES.iter().filter(|name| **name != "none") {
        let story = state(name);
        let mut from_start = None;
        for record in &story.records {
            let text = serde_json::to_string(&from_start).unwrap();
            let read: Option<ThreadState> = serde_json::from_str(&text).unwrap();
            assert_eq!(read, from_start, "{name}");
            from_start = Some(fold(&story.thread, read, record).unwrap());
        }
        assert_eq!(from_start, story.state, "{name}");
    }
}
