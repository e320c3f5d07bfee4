//! Status: what a thread says of itself is what its facts are.

use std::collections::BTreeSet;

use superstep_protocol::{Progress, RunStatus, ThreadState};

use super::{Check, walk::Walk};

/// Checks the state after a record.
pub(super) fn check(walk: &mut Walk<'_>, state: &ThreadState) {
    let version = state.head.version;
    let mut found: Vec<(&str, String)> = Vec::new();
    for round in state.rounds.keys() {
        if state.round_tasks(*round).next().is_none() {
            found.push((
                "round",
                format!("round {round} is open without a task in it"),
            ));
        }
    }
    for task in &state.tasks {
        if let Progress::Open { dispatch } = &task.progress
            && !state.rounds.contains_key(dispatch)
        {
            let id = &task.task.id;
            found.push((
                "task",
                format!("task {id} is in round {dispatch}, which is not open"),
            ));
        }
    }
    if let Some(run) = &state.run {
        let goes_on = matches!(run.status, RunStatus::Pending | RunStatus::Running);
        if goes_on && !state.is_busy() {
            let detail = format!(
                "run {} is {}, and nothing of it is left",
                run.id, run.status
            );
            found.push(("run", detail));
        }
        let ended_badly = matches!(run.status, RunStatus::Error | RunStatus::Timeout);
        if ended_badly && run.error.is_none() {
            let detail = format!("run {} ended in {} without a reason", run.id, run.status);
            found.push(("error", detail));
        }
    }
    let mut ids = BTreeSet::new();
    for (_, question) in state.open_questions() {
        if !ids.insert(&question.id) {
            found.push((
                "question",
                format!("question {} is open twice", question.id),
            ));
        }
    }
    for untold in &state.untold {
        if *untold > version {
            found.push((
                "events",
                format!("events of record {untold} are owed, before it is there"),
            ));
        }
    }
    for (subject, detail) in found {
        walk.wrong(Check::Status, version, subject, detail);
    }
}
