//! What must hold of a log and its state after every step of a walk.
//!
//! One history, nothing applied twice or on answers that nobody gave, and no thread without an
//! owner or a reason.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use superstep_graph::Source;
use superstep_protocol::{
    CommandId, Progress, QueuedRun, Record, RecordBody, RunId, RunStatus, ThreadId, ThreadState,
    ThreadStatus, fold,
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
        RecordBody::Enqueued(queued) => Some(&queued.command.id),
        RecordBody::Displaced(displaced) => Some(&displaced.start.command.id),
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
    let mut waiting = BTreeSet::new();
    for (at, record) in log.iter().enumerate() {
        assert_eq!(record.head.version, at as u64 + 1);
        assert!(at == 0 || log[at - 1].time <= record.time);
        dispatches.insert(record.head);
        let restores = match &record.body {
            RecordBody::Cancelled { restores, .. } => restores.as_deref(),
            RecordBody::Displaced(displaced) => displaced.restores.as_deref(),
            _ => None,
        };
        if restores.is_some() {
            // What was answered is undone, and may be asked again.
            answered.clear();
        }
        if let Some(command) = command_in(&record.body) {
            // What waited for its turn takes effect when that comes.
            let waits = matches!(
                record.body,
                RecordBody::Enqueued(_) | RecordBody::Displaced(_)
            );
            let turn = !waits && waiting.remove(command);
            assert!(
                turn || commands.insert(command),
                "{command} took effect twice"
            );
            if waits {
                waiting.insert(command);
            }
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
            // What was asked before is asked again under this record.
            RecordBody::Moved { closes, .. } | RecordBody::MoveDeclined { closes, .. } => {
                if let Some(answers) = commanded.last_key_value().map(|(_, answers)| *answers) {
                    commanded.insert(record.head, answers);
                }
                Some(*closes)
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
        ThreadStatus::Busy => assert!(state.is_busy() || state.delayed().next().is_some()),
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

/// One run at a time; what waits begins in order, once, or is cancelled once.
pub(crate) fn check_runs(thread: &ThreadId, log: &[Record]) {
    let mut before: Option<ThreadState> = None;
    let mut ended: BTreeSet<RunId> = BTreeSet::new();
    for record in log {
        let after = fold(thread, before.clone(), record).expect("the log folds");
        let queue = before.as_ref().map_or(&[][..], |before| &before.queue);
        let begins = match &record.body {
            RecordBody::Started { run, .. } | RecordBody::Retried { run, .. } => Some(run),
            RecordBody::Commanded { asked, .. } => Some(&asked.run),
            RecordBody::Declined { queued, .. } => queued.as_ref(),
            _ => None,
        };
        if let Some(before) = before.as_ref().filter(|_| begins.is_some()) {
            assert!(!before.is_running(), "two runs at once: {record:#?}");
        }
        let left: Vec<&QueuedRun> = queue
            .iter()
            .filter(|queued| !after.queue.iter().any(|still| still.run == queued.run))
            .collect();
        for queued in &left {
            assert!(ended.insert(queued.run.clone()), "{} twice", queued.run);
        }
        if let Some(next) = left.iter().find(|queued| Some(&queued.run) == begins) {
            assert_eq!(left.len(), 1, "one begins and others are lost");
            let first = queue.iter().map(QueuedRun::ready_at).min();
            assert_eq!(Some(next.ready_at()), first, "it is not its turn");
        } else if !left.is_empty() {
            let gone = match &record.body {
                RecordBody::Cancelled { queued, .. } => queued.len(),
                RecordBody::Displaced(displaced) => displaced.queued.len(),
                RecordBody::Deleted { .. } => left.len(),
                other => panic!("{} empties the queue", other.kind()),
            };
            assert_eq!(left.len(), gone);
        }
        if let RecordBody::Deleted { .. } = &record.body {
            ended.clear();
        }
        before = Some(after);
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
