//! One fault in one call, for every call of a run: whatever happens there, another worker
//! finishes, and nobody can tell from the history.
//!
//! The calls are those at which a worker can be seen from outside: before it reads, in the
//! node, before and after the append, between and after the publishes, around the ack. A test
//! goes through the first call of that label, the second, and so on until a run has no more.

use std::time::Duration;

use serde_json::Value;

use crate::{
    plan::Fate,
    rig::{Rig, Setup, block_on, settings},
};

type Checkpoints = Vec<(String, i64, Value, Vec<String>)>;

/// One run of `graph`, with one fault if there is one: its history, how often its nodes ran,
/// and whether the fault came to pass.
fn run(
    graph: &'static str,
    run_ahead: u32,
    fault: Option<(&'static str, usize, Fate)>,
) -> (Checkpoints, usize, bool) {
    let mut setup = Setup {
        graphs: vec![graph.to_owned()],
        settings: settings(),
        ..Setup::default()
    };
    setup.settings.run_ahead_supersteps = run_ahead;
    block_on(async {
        let rig = Rig::start(setup);
        if let Some((label, skip, fate)) = fault {
            rig.faults.script(label, skip, fate);
        }
        rig.see_through(graph, "t").await;
        rig.rest().await;
        let nodes = ["a", "b", "c", "d", "ask", "spread", "packet", "last"];
        let runs = nodes.iter().map(|node| rig.runs_of(node)).sum();
        let came = rig.faults.script_is_done();
        (rig.checkpoints("t").await, runs, came)
    })
}

/// Puts `fate` into every call of `label`, one after another, and says how many there were.
#[track_caller]
fn check_each(graph: &'static str, label: &'static str, fate: Fate, more_runs_max: usize) {
    let mut calls = 0;
    for run_ahead in [0, 100] {
        let (expected, runs_expected, _) = run(graph, run_ahead, None);
        for skip in 0.. {
            let (checkpoints, runs, came) = run(graph, run_ahead, Some((label, skip, fate)));
            if !came {
                break;
            }
            calls += 1;
            let place = format!("{fate:?} at call {skip} of {label} in {graph}");
            assert_eq!(checkpoints, expected, "{place}");
            let more = runs.saturating_sub(runs_expected);
            assert!(
                more <= more_runs_max,
                "{place}: nodes ran {more} times more"
            );
        }
    }
    assert!(calls > 0, "{graph} makes no call of {label}");
}

#[test]
fn a_worker_may_die_before_it_reads() {
    check_each("chain", "delivered", Fate::DiesBefore, 0);
    check_each("chain", "load", Fate::DiesBefore, 0);
    check_each("chain", "load", Fate::DiesAfter, 0);
}

#[test]
fn a_worker_may_die_in_the_node() {
    check_each("chain", "node", Fate::DiesBefore, 1);
    check_each("twice", "node", Fate::DiesBefore, 1);
}

#[test]
fn a_worker_may_die_before_its_append() {
    check_each("chain", "append", Fate::DiesBefore, 1);
    check_each("diamond", "append", Fate::DiesBefore, 1);
}

#[test]
fn a_worker_may_die_after_its_append() {
    check_each("chain", "append", Fate::DiesAfter, 0);
    check_each("both", "append", Fate::DiesAfter, 0);
}

#[test]
fn a_worker_may_die_between_two_publishes() {
    check_each("chain", "publish_events", Fate::DiesBefore, 0);
    check_each("chain", "publish_events", Fate::DiesAfter, 0);
    check_each("chain", "publish_work", Fate::DiesBefore, 0);
    check_each("chain", "publish_work", Fate::DiesAfter, 0);
}

#[test]
fn a_worker_may_die_around_its_ack() {
    check_each("chain", "unwatch", Fate::DiesAfter, 0);
    check_each("chain", "reply", Fate::DiesBefore, 0);
    check_each("chain", "ack", Fate::DiesBefore, 0);
    check_each("chain", "ack", Fate::DiesAfter, 0);
}

#[test]
fn a_worker_may_die_around_a_result_of_a_fan_out() {
    // Others of the round may be at work beside it, in the same process.
    check_each("asking_fan", "put_result", Fate::DiesBefore, 4);
    check_each("asking_fan", "put_result", Fate::DiesAfter, 4);
}

#[test]
fn a_lost_answer_never_doubles_a_record() {
    check_each("chain", "append", Fate::Lost, 0);
    check_each(
        "chain",
        "append",
        Fate::LandsLater(Duration::from_secs(2)),
        0,
    );
    check_each("both", "put_result", Fate::Lost, 0);
    check_each(
        "both",
        "put_result",
        Fate::LandsLater(Duration::from_secs(2)),
        0,
    );
}

#[test]
fn a_refused_call_is_tried_again() {
    for label in ["load", "append", "unwatch"] {
        check_each("chain", label, Fate::Refused, 0);
    }
    for label in ["publish_events", "publish_work", "reply", "ack"] {
        check_each("chain", label, Fate::Refused, 0);
        check_each("chain", label, Fate::Lost, 0);
    }
    check_each("both", "put_result", Fate::Refused, 0);
    check_each("asking_fan", "results", Fate::Refused, 0);
}
