//! Fold: what a record means.
//!
//! A pure function of the state and the record; every reader of a log computes the same state.
//! It decides nothing and refuses nothing but a log that is not one: a gap, or a record that
//! cannot follow. Whether a record may be appended is `decide`'s business.

mod moves;
mod questions;
mod queue;
mod runs;

use std::collections::BTreeMap;

use superstep_graph::{Checkpoint, Lineage, Source, TaskId};

use crate::{
    ids::{GraphId, Head, ThreadId},
    queue::QueuedRun,
    record::{
        Amended, CommandRef, Committed, Parked, Profile, Record, RecordBody, TaskResult, Then,
    },
    state::{Asked, Decision, Progress, TaskState, ThreadState},
    status::RunStatus,
    trace::Found,
};
use questions::{
    answer, begin_again, expire, give_up_questions, give_up_task_questions, raise, take_offered,
};
use queue::{ask_next, ask_no_next, end_open, note_run};
use runs::{
    begin_run, close, close_or_end, continue_run, count_anew, decide_on, drop_rounds, end_pauses,
    end_run, forget_untracked, open_round, pause, set_status, take_decision,
};

/// A log that no writer of this protocol made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("thread `{thread}` has a corrupt log: record {record} ({kind}) cannot follow {before}")]
pub struct FoldError {
    /// The thread.
    pub thread: ThreadId,
    /// The record.
    pub record: Head,
    /// Its kind.
    pub kind: &'static str,
    /// The head that it was to follow.
    pub before: String,
}

/// The state after one more record.
///
/// # Errors
/// If the record's version does not follow the head's, or a thread does not begin with a start.
pub fn fold(
    thread: &ThreadId,
    state: Option<ThreadState>,
    record: &Record,
) -> Result<ThreadState, FoldError> {
    let error = |before: String| FoldError {
        thread: thread.clone(),
        record: record.head,
        kind: record.body.kind(),
        before,
    };
    let expected = state.as_ref().map_or(1, |state| state.head.version + 1);
    if record.head.version != expected {
        return Err(error(state.map_or_else(
            || "nothing".to_owned(),
            |state| state.head.to_string(),
        )));
    }
    let fresh = state.as_ref().is_none_or(|state| state.deleted);
    let mut state = match (&record.body, state) {
        (
            RecordBody::Started {
                command,
                graph,
                topology,
                profile,
                ..
            }
            | RecordBody::Created {
                command,
                graph,
                topology,
                profile,
                ..
            },
            state,
        ) if fresh => new_state(
            thread,
            record,
            state,
            (command, (graph, topology), *profile),
        ),
        (RecordBody::Enqueued(queued), state) if fresh => {
            let QueuedRun {
                command,
                graph,
                topology,
                profile,
                ..
            } = &**queued;
            new_state(
                thread,
                record,
                state,
                (command, (graph, topology), *profile),
            )
        }
        (_, Some(state)) if !state.deleted => state,
        (_, state) => {
            return Err(error(state.map_or("nothing", |_| "a tombstone").to_owned()));
        }
    };
    state.head = record.head;
    state.time = record.time;
    state.untold.retain(|version| *version > record.told);
    if makes_events(&record.body) {
        state.untold.insert(record.head.version);
    }
    ask_no_next(&mut state);
    let found = Found::in_state(&state);
    apply_body(&mut state, record);
    note_run(&mut state, record.head, &record.body);
    ask_next(&mut state);
    found.note_segment(&mut state);
    Ok(state)
}

/// Who begins a thread, under which version of its graph, and how it is to decide.
type Beginning<'a> = (&'a CommandRef, (&'a GraphId, &'a Option<String>), Profile);

/// A thread as its first record finds it; `before` is a tombstone, if one was there.
fn new_state(
    thread: &ThreadId,
    record: &Record,
    before: Option<ThreadState>,
    (command, (graph, topology), profile): Beginning<'_>,
) -> ThreadState {
    ThreadState {
        thread: thread.clone(),
        head: record.head,
        time: record.time,
        created_at: record.time,
        incarnation: command.id.clone(),
        graph: graph.clone(),
        topology: topology.clone(),
        stays: None,
        profile,
        metadata: serde_json::Map::new(),
        checkpoint: Checkpoint::empty(Lineage::root(command.id.as_str())),
        saved: None,
        tasks: Vec::new(),
        decision: None,
        rounds: BTreeMap::new(),
        run: None,
        applied: Vec::new(),
        untold: before.map(|state| state.untold).unwrap_or_default(),
        closed: Vec::new(),
        deleted: false,
        offer: None,
        commanded: Vec::new(),
        spoiled: None,
        amended: false,
        dropped: Vec::new(),
        kept: BTreeMap::new(),
        queue: Vec::new(),
        begun: Vec::new(),
        hidden: Vec::new(),
        ttl_ms: None,
        segment: None,
    }
}

/// Whether a record makes events; see `events`.
pub(crate) fn makes_events(body: &RecordBody) -> bool {
    match body {
        RecordBody::Committed(committed) => !matches!(committed.then, Then::Run),
        // It runs nothing, and so ends at once, unless what is finished is applied first.
        RecordBody::Amended(amended) => amended.round.is_empty(),
        RecordBody::UpdateAsked { .. }
        | RecordBody::Created { .. }
        | RecordBody::Paused(_)
        | RecordBody::Woken { .. }
        | RecordBody::MoveAsked { .. }
        | RecordBody::Moved { .. }
        | RecordBody::MoveDeclined { .. } => false,
        RecordBody::Started { .. }
        | RecordBody::Enqueued(_)
        | RecordBody::Displaced(_)
        | RecordBody::Interrupted(_)
        | RecordBody::Failed(_)
        | RecordBody::Resumed { .. }
        | RecordBody::Retried { .. }
        | RecordBody::Commanded { .. }
        | RecordBody::ChildUpdated { .. }
        | RecordBody::Declined { .. }
        | RecordBody::Cancelled { .. }
        | RecordBody::DeadlinePassed { .. }
        | RecordBody::Deleted { .. } => true,
    }
}

fn apply_body(state: &mut ThreadState, record: &Record) {
    let head = record.head;
    match &record.body {
        RecordBody::Started {
            command,
            run,
            graph,
            topology,
            input,
            recursion_limit,
            config,
            metadata,
            terms,
            at,
            ..
        } => {
            give_up_questions(state, "new input");
            drop_rounds(state);
            state.graph = graph.clone();
            state.topology.clone_from(topology);
            state.stays = None;
            state.metadata.extend(metadata.clone());
            state.checkpoint.untracked.clear();
            state.offer = None;
            state.applied.push(command.id.clone());
            let asked = Asked::Input {
                input: input.clone(),
            };
            decide_on(state, head, asked, at.clone());
            let step = at
                .as_ref()
                .map_or(state.checkpoint.step, |at| at.checkpoint.step);
            let settings = (*recursion_limit, config.clone(), terms.clone());
            begin_run(state, run, command, step, settings);
        }
        // All there is of them is a new thread, or a run of the queue.
        RecordBody::Created { ttl_ms, .. } => state.ttl_ms = *ttl_ms,
        RecordBody::Enqueued(_) => {}
        RecordBody::Displaced(displaced) => {
            end_open(
                state,
                "displaced by another run",
                displaced.restores.as_deref(),
            );
        }
        RecordBody::Committed(committed) => commit(state, record, committed),
        RecordBody::Amended(amended) => amend(state, record, amended),
        RecordBody::Interrupted(parked) => {
            park(state, record, parked);
            end_run(state, RunStatus::Success);
        }
        RecordBody::Paused(parked) => park(state, record, parked),
        RecordBody::Woken { run, tasks } => {
            for task in &mut state.tasks {
                if let Some(until) = task
                    .paused_until()
                    .filter(|_| tasks.contains(&task.task.id))
                {
                    task.woken = Some(until);
                }
            }
            open_round(state, head, run, tasks);
        }
        RecordBody::Failed(parked) => {
            park(state, record, parked);
            end_pauses(state);
            if let Some(run) = &mut state.run {
                run.error.clone_from(&parked.error);
            }
            // A deadline that passed while this round ran is what ended the run.
            let timeout = state
                .run
                .as_ref()
                .is_some_and(|run| run.status == RunStatus::Timeout);
            if !timeout {
                end_run(state, RunStatus::Error);
            }
        }
        RecordBody::Resumed {
            command,
            run,
            answers,
            tasks,
            offer,
            recursion_limit,
            terms,
        } => {
            forget_untracked(state);
            for (id, value) in answers {
                answer(state, record, command, id, value.clone());
            }
            state.applied.push(command.id.clone());
            state.offer.clone_from(offer);
            continue_run(state, run, command, *recursion_limit, terms);
            count_anew(state, tasks);
            open_round(state, head, run, tasks);
            close_or_end(state, head);
        }
        RecordBody::Retried {
            command,
            run,
            tasks,
            again,
            recursion_limit,
            terms,
        } => {
            forget_untracked(state);
            state.applied.push(command.id.clone());
            state.offer = None;
            if *again {
                begin_again(state);
            }
            continue_run(state, run, command, *recursion_limit, terms);
            count_anew(state, tasks);
            open_round(state, head, run, tasks);
            close_or_end(state, head);
        }
        RecordBody::Commanded { asked, at } => {
            state.applied.push(asked.command.id.clone());
            decide_on(state, head, Asked::Command(asked.clone()), at.clone());
        }
        RecordBody::UpdateAsked {
            command,
            values,
            as_node,
            more,
            at,
            subgraph,
        } => {
            // Part of the lineage of what it leads to: after an update questions are new ones.
            state.applied.push(command.id.clone());
            let asked = Asked::Update {
                command: command.clone(),
                values: values.clone(),
                as_node: as_node.clone(),
                more: more.clone(),
                subgraph: subgraph.clone(),
            };
            decide_on(state, head, asked, at.clone());
        }
        RecordBody::ChildUpdated {
            closes,
            task,
            child,
        } => {
            if let Some(at) = state.tasks.iter().position(|known| known.task.id == *task) {
                // LangGraph shows them until the task is done.
                if state.profile == Profile::Default {
                    give_up_task_questions(state, at, "the state of its subgraph was updated");
                }
                extend_log(&mut state.tasks[at].child, child);
            }
            close(state, *closes);
        }
        RecordBody::Declined {
            closes,
            command,
            refusal,
            spoils,
            ..
        } => {
            if *spoils {
                state.spoiled = Some(refusal.to_string());
            }
            // It changed nothing, so it leaves no trace in the lineage either.
            if state.waits_for(*closes) && state.applied.last() == Some(&command.id) {
                state.applied.pop();
            }
            close(state, *closes);
        }
        RecordBody::MoveAsked {
            to,
            topology,
            command,
            results,
        } => {
            let to = (to.clone(), topology.clone());
            moves::ask(state, head, to, command.clone(), results);
        }
        RecordBody::Moved {
            closes,
            graph,
            topology,
            delta,
        } => moves::go(state, head, *closes, (graph, topology), delta),
        RecordBody::MoveDeclined { closes, refusal } => {
            moves::stay(state, head, *closes, refusal.clone());
        }
        RecordBody::Cancelled {
            command,
            spares,
            queued,
            restores,
            ..
        } => {
            state.queue.retain(|waits| !queued.contains(&waits.run));
            if !spares {
                end_open(state, "cancelled", restores.as_deref());
                state.applied.push(command.id.clone());
            }
        }
        RecordBody::DeadlinePassed { interrupt } => expire(state, interrupt),
        RecordBody::Deleted { .. } => {
            give_up_questions(state, "deleted");
            drop_rounds(state);
            state.tasks.clear();
            state.kept.clear();
            state.dropped.clear();
            state.offer = None;
            state.stays = None;
            let untold = std::mem::take(&mut state.untold);
            state.checkpoint = Checkpoint::empty(state.checkpoint.lineage.clone());
            state.saved = None;
            state.run = None;
            state.applied.clear();
            state.closed.clear();
            state.queue.clear();
            state.begun.clear();
            state.hidden.clear();
            state.ttl_ms = None;
            state.segment = None;
            state.metadata.clear();
            state.untold = untold
                .into_iter()
                .filter(|version| *version == head.version)
                .collect();
            state.deleted = true;
        }
    }
}

/// A command applied to the checkpoint as it stands: its answers, then what it changes and the
/// tasks that it adds. No step passes, and what other tasks did stays.
fn amend(state: &mut ThreadState, record: &Record, amended: &Amended) {
    let asked = take_decision(state, amended.closes);
    if let Some(Asked::Command(asked)) = asked.map(|decision| decision.asked) {
        forget_untracked(state);
        if asked.again {
            begin_again(state);
        }
        if state.profile == Profile::Langgraph && !asked.update.is_null() {
            state.commanded.push(asked.update);
        }
        for (id, value) in &asked.answers {
            answer(state, record, &asked.command, id, value.clone());
        }
        state.offer = asked.offer;
        let (run, command) = (&asked.run, &asked.command);
        continue_run(state, run, command, asked.recursion_limit, &asked.terms);
    }
    state.checkpoint.merge(&amended.delta);
    state.amended = true;
    let mut before = std::mem::take(&mut state.tasks);
    before.append(&mut state.dropped);
    for task in &amended.tasks {
        let known = before.iter().position(|known| known.task.id == task.id);
        state.tasks.push(match known {
            Some(at) => before.swap_remove(at),
            None => TaskState {
                added: true,
                ..TaskState::planned(task.clone())
            },
        });
    }
    state.dropped = before;
    count_anew(state, &amended.round);
    open_round(state, record.head, &amended.run, &amended.round);
    close_or_end(state, record.head);
}

/// Adds records to a log; those that were there under the same versions are gone.
fn extend_log(log: &mut Vec<Record>, new: &[Record]) {
    if let Some(first) = new.first() {
        log.retain(|record| record.head.version < first.head.version);
        log.extend_from_slice(new);
    }
}

fn commit(state: &mut ThreadState, record: &Record, committed: &Committed) {
    let mut run = state.rounds.get(&committed.closes).cloned();
    let decision = take_decision(state, committed.closes);
    if let Some(Decision { asked, at, .. }) = decision {
        if let Some(base) = at {
            state.checkpoint = base.checkpoint;
            state.saved = Some(base.saved);
        }
        // A copy of a checkpoint begins the run that was asked for; an input has begun its own.
        if let Asked::Command(asked) = asked {
            let limit = asked.recursion_limit;
            continue_run(state, &asked.run, &asked.command, limit, &asked.terms);
            run = Some(asked.run);
        }
    }
    close(state, committed.closes);
    drop_rounds(state);
    state.offer = None;
    state.amended = false;
    state.spoiled = None;
    // Said of the tasks that were there.
    state.stays = None;
    state.commanded.clear();
    state.dropped.clear();
    for (node, kept) in &committed.kept {
        state.kept.insert(node.clone(), kept.clone());
    }
    if let Some(run) = &mut state.run {
        run.shows |= committed.output;
    }
    let why = match committed.source {
        Source::Update => "the state was updated",
        Source::Input | Source::Loop | Source::Fork => "its task finished without it",
    };
    give_up_questions(state, why);
    state.checkpoint.merge(&committed.delta);
    state.checkpoint.step = committed.step;
    state.checkpoint.source = committed.source;
    state.checkpoint.lineage = committed.lineage.clone();
    state.saved = Some((record.head, record.time));
    state.applied.clear();
    state.tasks = committed
        .tasks
        .iter()
        .map(|task| TaskState::planned(task.clone()))
        .collect();
    let run = run.or_else(|| state.run.as_ref().map(|run| run.id.clone()));
    match &committed.then {
        Then::Run => {
            let tasks: Vec<TaskId> = state
                .tasks
                .iter()
                .map(|task| task.task.id.clone())
                .collect();
            if let Some(run) = &run {
                open_round(state, record.head, run, &tasks);
            }
            if let Some(run) = &mut state.run {
                run.status = RunStatus::Running;
            }
        }
        Then::Complete | Then::Break => set_status(state, RunStatus::Success),
        Then::Wait => {
            // An update ends no run, but a thread that failed and was mended waits again.
            if let Some(run) = &mut state.run
                && matches!(run.status, RunStatus::Error | RunStatus::Timeout)
            {
                run.status = RunStatus::Interrupted;
            }
        }
        Then::Fail(error) => {
            if let Some(run) = &mut state.run {
                run.error = Some(error.clone());
            }
            set_status(state, RunStatus::Error);
        }
    }
}

/// A task is done; its writes are parked. Whatever else it ended with changes nothing here.
fn finish(state: &mut ThreadState, at: usize, result: &TaskResult) {
    let TaskResult::Finished {
        writes,
        handled,
        keeps,
    } = result
    else {
        return;
    };
    give_up_task_questions(state, at, "its task finished without it");
    if handled.is_some() {
        state.tasks[at].error.clone_from(handled);
    }
    state.tasks[at].progress = Progress::Finished {
        writes: writes.clone(),
        handled: handled.clone(),
        keeps: keeps.clone(),
    };
}

fn park(state: &mut ThreadState, record: &Record, parked: &Parked) {
    for (id, result) in &parked.results {
        let Some(at) = state.tasks.iter().position(|task| task.task.id == *id) else {
            continue;
        };
        if let TaskResult::Failed { error, .. } = result {
            state.tasks[at].error = Some(error.clone());
        }
        extend_log(&mut state.tasks[at].child, result.child());
        match result {
            TaskResult::Finished { .. } => finish(state, at, result),
            // The node itself returned and only a path of it failed: LangGraph keeps its writes
            // and does not run it again, and so do we.
            TaskResult::Failed {
                writes: Some(writes),
                ..
            } => {
                give_up_task_questions(state, at, "its task finished without it");
                state.tasks[at].progress = Progress::Finished {
                    writes: writes.clone(),
                    handled: None,
                    keeps: None,
                };
            }
            TaskResult::Failed {
                error,
                writes: None,
                took,
                ..
            } => {
                take_offered(state, at, record, took);
                state.tasks[at].progress = Progress::Failed {
                    error: error.clone(),
                };
            }
            TaskResult::Interrupted { raised, took, .. } => {
                take_offered(state, at, record, took);
                state.tasks[at].progress = Progress::Waiting;
                raise(state, at, record, raised);
            }
            TaskResult::Paused(paused) => {
                take_offered(state, at, record, &paused.took);
                raise(state, at, record, &paused.raised);
                pause(state, at, paused);
            }
        }
    }
    close(state, parked.closes);
}
