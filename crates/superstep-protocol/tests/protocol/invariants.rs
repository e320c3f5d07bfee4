//! What must hold of a log and its state after every step of a walk.
//!
//! One history, nothing applied twice or on answers that nobody gave, and no thread without an
//! owner or a reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use superstep_graph::Source;
use superstep_protocol::{
    CommandId, Progress, Record, RecordBody, RunStatus, ThreadState, ThreadStatus,
};

use crate::world::work_of;

fn command_in(body: &RecordBody) -> Option<&CommandId> {
    match body {
        RecordBody::Started { command, .. }
        | RecordBody::Resumed { command, .. }
        | RecordBody::Retried { command, .. }
        | RecordBody::Created { command, .. }
        | RecordBody::UpdateAsked { command, .. }
        | RecordBody::Cancelled { command, .. }
        | RecordBody::Deleted { command } => Some(&command.id),
        RecordBody::Commanded { asked, .. } => Some(&asked.command.id),
        _ => None,
    }
}

/// One chain: dense versions, time that does not run back, each command once, each question
/// answered once.
pub(crate) fn check_log(log: &[Record]) {
    let mut commands = BTreeSet::new();
    let mut answered = BTreeSet::new();
    let mut dispatches = BTreeSet::new();
    let mut closed = BTreeSet::new();
    let mut commanded = BTreeMap::new();
    for (at, record) in log.iter().enumerate() {
        assert_eq!(record.head.version, at as u64 + 1);
        assert!(at == 0 || log[at - 1].time <= record.time);
        dispatches.insert(record.head);
        if let Some(command) = command_in(&record.body) {
            assert!(commands.insert(command), "{command} took effect twice");
        }
        let answers_to = match &record.body {
            RecordBody::Resumed { answers, .. } => {
                for id in answers.keys() {
                    assert!(answered.insert(id), "{id} took two answers");
                }
                None
            }
            RecordBody::Commanded { asked, .. } => {
                commanded.insert(record.head, &asked.answers);
                None
            }
            RecordBody::Amended(amended) => {
                for id in commanded[&amended.closes].keys() {
                    assert!(answered.insert(id), "{id} took two answers");
                }
                Some(amended.closes)
            }
            RecordBody::Committed(committed) => Some(committed.closes),
            RecordBody::Interrupted(parked)
            | RecordBody::Failed(parked)
            | RecordBody::Paused(parked) => Some(parked.closes),
            RecordBody::Declined { closes, .. } => Some(*closes),
            _ => None,
        };
        if let Some(closes) = answers_to {
            assert!(dispatches.contains(&closes), "{closes} is not in the log");
            assert!(closed.insert(closes), "{closes} was closed twice");
        }
    }
}

/// No state without an owner or a reason.
pub(crate) fn check_state(state: &ThreadState) {
    let work = work_of(state);
    assert_eq!(state.has_work(), !work.is_empty());
    assert_eq!(state.is_busy(), state.has_work() || state.is_paused());
    if state.is_paused() {
        let run = state.run.as_ref().expect("what pauses runs");
        assert_eq!(
            run.status,
            RunStatus::Running,
            "a task pauses of a run that is over"
        );
    }
    for (dispatch, tasks) in &work {
        let decision = state
            .decision
            .as_ref()
            .is_some_and(|d| d.dispatch == *dispatch);
        assert!(state.waits_for(*dispatch));
        assert_eq!(decision, tasks.is_empty(), "a round without tasks");
    }
    for task in &state.tasks {
        if let Progress::Open { dispatch } = &task.progress {
            assert!(
                state.rounds.contains_key(dispatch),
                "an open task without a round"
            );
        }
        if matches!(task.progress, Progress::Finished { .. }) {
            assert_eq!(task.open_questions().count(), 0, "a finished task asks");
        }
    }
    let run = state.run.as_ref();
    let asks = state.open_questions().next().is_some();
    match state.status() {
        ThreadStatus::Busy => assert!(state.is_busy()),
        ThreadStatus::Error => {
            assert!(
                run.is_some_and(|run| run.error.is_some()),
                "an error without a reason"
            );
        }
        ThreadStatus::Idle => assert!(state.tasks.is_empty() && !asks),
        ThreadStatus::Interrupted => {
            let cancelled = run.is_some_and(|run| run.status == RunStatus::Interrupted);
            let updated = state.checkpoint.source == Source::Update;
            assert!(
                asks || cancelled || updated,
                "it waits for nothing: {state:#?}"
            );
        }
    }
}

/// What was applied: each task once, by a round that is in the log, on answers that are.
pub(crate) fn check_applied(log: &[Record], state: &ThreadState) {
    let heads: BTreeSet<String> = log.iter().map(|record| record.head.to_string()).collect();
    let mut given: BTreeSet<String> = BTreeSet::new();
    for record in log {
        let answers = match &record.body {
            RecordBody::Resumed { answers, .. } => answers,
            RecordBody::Commanded { asked, .. } => &asked.answers,
            _ => continue,
        };
        given.extend(answers.values().map(ToString::to_string));
    }
    let applied = state.checkpoint.content("log").and_then(Value::as_array);
    let mut tasks = BTreeSet::new();
    for write in applied.into_iter().flatten() {
        assert!(
            tasks.insert(write["task"].to_string()),
            "{write} was applied twice"
        );
        let round = write["round"].as_str().expect("a round's name");
        assert!(heads.contains(round), "{round} is not in the log");
        for answer in write["answers"].as_array().into_iter().flatten() {
            assert!(
                answer.is_null() || given.contains(&answer.to_string()),
                "{answer} was not given"
            );
        }
    }
}
