//! Moves to another version of the graph: what goes along, what stays, who may still say what.
//!
//! A person who was asked must not notice: the question has its id, its answer counts once, and
//! what siblings finished is applied once, whichever version runs it.

use std::collections::BTreeMap;

use serde_json::json;
use superstep_graph::{ChannelChange, Delta};
use superstep_protocol::{
    Asked, Cancel, Event, Migrated, Nothing, Obligation, Progress, RecordBody, Refusal, Strategy,
    ThreadStatus, Verdict, obligations, timers,
};

use crate::{
    states::state,
    story::{End, Story, version_of_g},
};

fn asked() -> Story {
    state("asked_one")
}

#[test]
fn a_question_is_the_same_after_a_move() {
    let mut story = asked();
    let before = story.state().clone();
    story.ask_move("2", Some("r1")).make_move("2", true);
    let after = story.state();
    assert_eq!(after.graph, version_of_g("2"));
    assert_eq!(after.topology.as_deref(), Some("t2"));
    assert_eq!(after.tasks, before.tasks);
    assert_eq!(after.checkpoint, before.checkpoint);
    assert_eq!((&after.applied, &after.run), (&before.applied, &before.run));
    assert_eq!(after.status(), ThreadStatus::Interrupted);
    assert_eq!(obligations(after), obligations(&before));
    story.answer("r1", "a", 0);
    story.round(&[("a", End::Done)], &[]);
    assert_eq!(story.log(), json!(["__start__", "a", "b"]));
    assert_eq!(story.state().graph, version_of_g("2"));
}

#[test]
fn a_move_does_not_show_in_later_ids() {
    let ends = |moves: bool| {
        let mut story = asked();
        if moves {
            story.ask_move("2", None).make_move("2", true);
        }
        story.answer("r1", "a", 0);
        story.round(&[("a", End::Done)], &["next"]);
        (story.task("next"), story.state().checkpoint.lineage.clone())
    };
    assert_eq!(ends(true), ends(false));
}

#[test]
fn the_new_versions_workers_are_asked() {
    let story = state("moving_at_work");
    let found = story.state();
    assert!(found.rounds.is_empty());
    let owed = obligations(found);
    let Some(Obligation::Work { dispatch, tasks }) = owed.last() else {
        panic!("no work is owed: {owed:?}");
    };
    assert!(tasks.is_empty());
    assert_eq!(found.graph_for(*dispatch), &version_of_g("2"));
    assert_eq!(found.graph, version_of_g("1"));
}

#[test]
fn what_ran_runs_again_and_late_results_are_none() {
    let mut story = state("running_several");
    let old = *story.state().rounds.keys().next().unwrap();
    let all = [("a", End::Done), ("b", End::Done), ("c", End::Done)];
    let late = story.round_ended(old, &all, &[]);
    story.ask_move("2", None);
    assert_eq!(story.verdict(&late), Verdict::Nothing(Nothing::Late));
    story.make_move("2", true);
    assert_eq!(story.verdict(&late), Verdict::Nothing(Nothing::Late));
    let found = story.state();
    assert_eq!(found.round_tasks(found.head).count(), 3);
    assert_eq!(found.rounds[&found.head], "run-s1");
    story.round(&all, &[]);
    assert_eq!(story.log(), json!(["__start__", "a", "b", "c"]));
}

#[test]
fn what_tasks_had_finished_is_parked() {
    let mut story = state("running_several");
    let results = BTreeMap::from([
        (story.task("a"), story.result("a", End::Done)),
        (story.task("b"), story.result("b", End::Asks(&[0]))),
    ]);
    let mut event = story.move_event("2", None);
    if let Event::Move(asked) = &mut event {
        asked.results = results;
    }
    story.happens(&event).make_move("2", true);
    let found = story.state();
    assert!(matches!(found.tasks[0].progress, Progress::Finished { .. }));
    let open: Vec<&str> = found
        .round_tasks(found.head)
        .map(|task| task.task.node.as_str())
        .collect();
    assert_eq!(open, ["b", "c"]);
    story.round(&[("b", End::Done), ("c", End::Done)], &[]);
    assert_eq!(story.log(), json!(["__start__", "a", "b", "c"]));
}

#[test]
fn a_round_whose_tasks_all_finished_still_ends() {
    let mut story = state("running_several");
    let done = |node| (story.task(node), story.result(node, End::Done));
    let results = BTreeMap::from(["a", "b", "c"].map(done));
    let mut event = story.move_event("2", None);
    if let Event::Move(asked) = &mut event {
        asked.results = results;
    }
    story.happens(&event).make_move("2", true);
    let found = story.state();
    assert_eq!(found.round_tasks(found.head).count(), 1);
}

#[test]
fn two_rounds_go_on_as_one() {
    let mut story = state("two_rounds");
    story.ask_move("2", None).make_move("2", true);
    let found = story.state();
    assert_eq!(found.rounds.len(), 1);
    assert_eq!(found.round_tasks(found.head).count(), 2);
    assert_eq!(found.open_questions().count(), 1);
}

#[test]
fn what_waited_for_a_worker_waits_for_one_of_the_new_version() {
    let mut story = state("update_asked");
    let before = story.state().decision.clone().unwrap();
    story.ask_move("2", None).make_move("2", true);
    let after = story.state().decision.clone().unwrap();
    assert_eq!(after.asked, before.asked);
    assert_eq!(after.dispatch, story.state().head);
    assert_eq!(story.state().graph_for(after.dispatch), &version_of_g("2"));
    let event = story.update_applied(&["n"]);
    story.happens(&event);
    assert_eq!(story.state().tasks[0].task.node, "n");
}

#[test]
fn a_declined_move_leaves_everything_and_is_remembered() {
    let mut story = asked();
    let before = story.state().clone();
    story.ask_move("2", Some("r1")).make_move("2", false);
    let after = story.state().clone();
    assert_eq!(after.graph, before.graph);
    assert_eq!(after.tasks, before.tasks);
    assert_eq!(after.status(), ThreadStatus::Interrupted);
    let stays = after.stays.as_deref().unwrap();
    assert_eq!(stays.to, version_of_g("2"));
    assert_eq!(stays.command.as_ref().unwrap(), "r1");
    assert_eq!(stays.refusal.kind(), "missing_node");
    story.answer("r2", "a", 0);
    story.round(&[("a", End::Done)], &["next"]);
    assert_eq!(story.state().stays, None, "it was said of tasks that ended");
}

#[test]
fn a_declined_move_gives_the_work_back() {
    let mut story = state("moving_at_work");
    story.make_move("2", false);
    let found = story.state();
    assert_eq!(found.round_tasks(found.head).count(), 2);
    assert_eq!(found.graph_for(found.head), &version_of_g("1"));
}

#[test]
fn of_two_movers_the_first_one_wins() {
    let mut story = asked();
    let other = story.move_event("3", None);
    story.ask_move("2", None);
    // The third version came while the second one was asked, whose workers are gone.
    story.happens(&other);
    let Asked::Move(asked) = &story.state().decision.as_ref().unwrap().asked else {
        panic!("no move");
    };
    assert_eq!((&asked.to, &asked.kept), (&version_of_g("3"), &None));
    let from_second = story.move_made("2", true);
    assert_eq!(story.verdict(&from_second), Verdict::Nothing(Nothing::Late));
    story.make_move("3", true);
    let back = story.move_event("3", None);
    assert_eq!(story.verdict(&back), Verdict::Nothing(Nothing::Late));
}

#[test]
fn a_move_that_is_wanted_no_longer_is_given_up() {
    let mut story = state("moving_at_work");
    story.ask_move("1", None);
    let found = story.state();
    assert_eq!((&found.graph, &found.stays), (&version_of_g("1"), &None));
    assert_eq!(found.round_tasks(found.head).count(), 2);
}

#[test]
fn a_migration_changes_the_values_and_no_more() {
    let mut story = asked();
    let before = story.state().clone();
    story.ask_move("2", None);
    let Event::MoveMade { dispatch, .. } = story.move_made("2", true) else {
        panic!("no move");
    };
    let mut delta = Delta::default();
    delta
        .channels
        .insert("log".into(), ChannelChange::Set(json!(["new"])));
    story.happens(&Event::MoveMade {
        dispatch,
        moved: Ok(Migrated {
            graph: version_of_g("2"),
            topology: None,
            delta,
        }),
    });
    let after = story.state();
    assert_eq!(story.log(), json!(["new"]));
    assert_eq!(after.checkpoint.versions, before.checkpoint.versions);
    assert_eq!(after.checkpoint.lineage, before.checkpoint.lineage);
    assert_eq!(after.saved, before.saved);
}

#[test]
fn new_input_goes_to_the_version_that_it_names() {
    let mut story = state("completed");
    let mut event = story.start_event("s2", json!({"topic": "z"}));
    if let Event::Start(start) = &mut event {
        start.graph = version_of_g("2");
        start.topology = Some("t2".to_owned());
    }
    story.happens(&event);
    let RecordBody::Started { topology, .. } = &story.last().body else {
        panic!("no start");
    };
    assert_eq!(topology.as_deref(), Some("t2"));
    assert_eq!(story.state().graph, version_of_g("2"));
    assert_eq!(story.state().topology.as_deref(), Some("t2"));
}

#[test]
fn a_sleeping_task_wakes_on_the_new_version() {
    let mut story = state("sleeping");
    let before = story.state().clone();
    story.ask_move("2", None);
    assert_eq!(timers(story.state()), timers(&before));
    assert_eq!(story.state().paused().count(), 1);
    story.make_move("2", true);
    let after = story.state();
    assert_eq!(after.tasks, before.tasks);
    assert_eq!(timers(after), timers(&before));
    assert!(obligations(after).iter().all(|owed| !is_work(owed)));
    story.now = story.now.plus_ms(60_000);
    let due = story.timer_event("a");
    story.happens(&due);
    let woken = story.state();
    assert_eq!(woken.graph_for(woken.head), &version_of_g("2"));
    assert_eq!(woken.round_tasks(woken.head).count(), 1);
    assert!(matches!(story.last().body, RecordBody::Woken { .. }));
}

#[test]
fn a_sleeping_task_stays_asleep_while_others_move() {
    let mut story = state("moving_in_its_sleep");
    let a = story.task("a");
    assert!(story.state().task(&a).unwrap().paused_until().is_some());
    story.now = story.now.plus_ms(60_000);
    let due = story.timer_event("a");
    assert_eq!(story.verdict(&due), Verdict::Wait);
    story.make_move("2", true);
    let found = story.state();
    let open: Vec<_> = found.round_tasks(found.head).collect();
    assert_eq!(open.len(), 1);
    assert_eq!(open[0].task.node.as_str(), "b");
    story.happens(&due);
    assert!(matches!(story.last().body, RecordBody::Woken { .. }));
}

#[test]
fn a_queued_run_goes_along_and_gets_its_turn() {
    let mut story = state("moving_with_a_queue");
    story.make_move("2", true);
    let queued = &story.state().queue[0];
    assert_eq!(queued.graph, version_of_g("2"));
    assert_eq!(queued.topology.as_deref(), Some("t2"));
    story.round(&[("a", End::Done)], &[]);
    assert!(story.state().begins_next());
    story.begin_next();
    assert_eq!(story.state().graph, version_of_g("2"));
    assert!(story.state().queue.is_empty());
}

#[test]
fn a_queued_run_of_another_version_keeps_it() {
    let mut story = Story::new();
    story.start("s1").enter(&["a"]);
    let mut event = story.start_with("s2", Strategy::Enqueue);
    if let Event::Start(start) = &mut event {
        start.graph = version_of_g("3");
    }
    story.happens(&event);
    story.ask_move("2", None).make_move("2", true);
    story.round(&[("a", End::Done)], &[]);
    let found = story.state();
    assert_eq!(found.graph, version_of_g("2"));
    assert_eq!(found.graph_for(found.head), &version_of_g("3"));
    story.begin_next();
    assert_eq!(story.state().graph, version_of_g("3"));
}

#[test]
fn a_move_while_the_next_run_is_asked_asks_it_again() {
    let mut story = state("next_asked");
    story.ask_move("2", None);
    assert!(!story.state().begins_next());
    story.make_move("2", false);
    assert!(story.state().begins_next());
    assert_eq!(
        story.state().decision.as_ref().unwrap().dispatch,
        story.state().head
    );
}

#[test]
fn a_queued_run_that_no_version_takes_is_declined() {
    let mut story = state("next_asked");
    let refusal = Refusal::MigrationFailed {
        thread: story.thread.clone(),
        from: version_of_g("1"),
        to: version_of_g("2"),
        reason: "no".to_owned(),
    };
    let dispatch = story.state().head;
    story.happens(&Event::NextRun {
        dispatch,
        refusal: Some(refusal.clone()),
    });
    let RecordBody::Declined {
        refusal: told,
        queued,
        ..
    } = &story.last().body
    else {
        panic!("not declined");
    };
    assert_eq!((told, queued.as_ref()), (&refusal, Some(&"run-s2".into())));
    // The one behind it gets its turn.
    assert!(story.state().begins_next());
    assert_eq!(story.state().queue.len(), 1);
}

#[test]
fn a_rollback_goes_back_to_the_version_before() {
    let mut story = state("completed");
    let mut event = story.start_event("s2", json!({"topic": "z"}));
    if let Event::Start(start) = &mut event {
        start.graph = version_of_g("2");
    }
    story.happens(&event);
    let cancel = story.with_before(Event::Cancel(Box::new(Cancel {
        rollback: true,
        ..Cancel::new(story.command("c1"), None)
    })));
    story.happens(&cancel);
    assert_eq!(story.state().graph, version_of_g("1"));
    assert_eq!(story.state().topology.as_deref(), Some("t1"));
}

fn is_work(owed: &Obligation) -> bool {
    matches!(owed, Obligation::Work { .. })
}
