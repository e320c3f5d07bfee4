//! One fault in one call to the store while a subgraph is under way: what finished inside does
//! not run again.
//!
//! The graph is `nested`: `inner` runs `in_a`, then `in_b` and `in_c`, which ask, beside `c`, which
//! asks too. The runs of each inner node are counted; a node that asks runs once to ask and once
//! more with the answer.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    plan::{Fate, Odds, lock},
    rig::{Rig, Setup, block_on, settings},
};
/// How often nodes ran, and the values at the end without what differs from run to run.
#[derive(Debug, PartialEq)]
struct Story {
    runs: BTreeMap<String, usize>,
    log: Vec<Value>,
}

/// One thread of `nested` from its start to its end, with one fault if there is one; and whether
/// that came to pass.
fn run(odds: &Odds, fault: Option<(&'static str, usize, Fate)>) -> (Story, bool) {
    let setup = Setup {
        graphs: vec!["nested".to_owned()],
        odds: odds.clone(),
        settings: settings(),
        ..Setup::default()
    };
    block_on(async {
        let rig = Rig::start(setup);
        if let Some((label, skip, fate)) = fault {
            rig.faults.script(label, skip, fate);
        }
        rig.see_through("nested", "t").await;
        rig.rest().await;
        let values = rig.checkpoints("t").await.pop().unwrap().2;
        let mut log = values["log"].as_array().unwrap().clone();
        log.sort_by_key(ToString::to_string);
        let runs = lock(&rig.runs).clone();
        (Story { runs, log }, rig.faults.script_is_done())
    })
}

/// Puts `fate` into every call of `label`, one after another: the values are those of a run in
/// which nothing happens, and inner nodes run so many times more at most, all of them together.
#[track_caller]
fn check_each(label: &'static str, fate: Fate, more_runs_max: usize) {
    let odds = Odds::default();
    let (expected, _) = run(&odds, None);
    assert_eq!(expected.runs["in_a"], 1);
    assert_eq!(expected.runs["in_b"], 2);
    assert_eq!(expected.runs["in_c"], 2);
    for skip in 0.. {
        let (story, came) = run(&odds, Some((label, skip, fate)));
        if !came {
            assert!(skip > 0, "there is no call of {label}");
            return;
        }
        let place = format!("{fate:?} at call {skip} of {label}");
        assert_eq!(story.log, expected.log, "{place}");
        let inside = story
            .runs
            .iter()
            .filter(|(node, _)| node.starts_with("in_"));
        let more: usize = inside.map(|(node, runs)| runs - expected.runs[node]).sum();
        assert!(more <= more_runs_max, "{place}: {more} more, {story:?}");
    }
}

#[test]
fn a_crash_after_an_inner_superstep_repeats_nothing() {
    check_each("put_progress", Fate::DiesAfter, 0);
    check_each("put_result", Fate::DiesBefore, 0);
    check_each("put_result", Fate::DiesAfter, 0);
}

#[test]
fn a_crash_before_progress_repeats_one_superstep() {
    check_each("put_progress", Fate::DiesBefore, 1);
}

#[test]
fn a_crash_in_a_node_repeats_that_node() {
    check_each("node", Fate::DiesBefore, 1);
}

#[test]
fn two_workers_on_one_call_come_to_the_same() {
    // Every piece of work is done twice, and one of the two is slow to store what it did.
    let twice = Odds {
        twice: 1000,
        ..Odds::default()
    };
    let (expected, _) = run(&Odds::default(), None);
    for skip in 0..4 {
        let slow = Fate::Slow(Duration::from_secs(2));
        let (story, came) = run(&twice, Some(("put_progress", skip, slow)));
        assert!(came, "call {skip}");
        assert_eq!(story.log, expected.log, "call {skip}");
    }
}

#[test]
fn a_crash_at_any_store_call_repeats_one_superstep() {
    for label in ["load", "append", "results", "unwatch"] {
        for fate in [Fate::DiesBefore, Fate::DiesAfter] {
            check_each(label, fate, 1);
        }
    }
}

#[test]
fn a_lost_answer_to_progress_repeats_nothing() {
    check_each("put_progress", Fate::Lost, 0);
    check_each("put_progress", Fate::Refused, 0);
    let later = Fate::LandsLater(Duration::from_secs(2));
    check_each("put_progress", later, 0);
}
