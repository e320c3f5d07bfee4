//! Asking for moves: for the sake of a command, and for threads whose own workers are gone.
//!
//! Which version is to take a thread over is `versions`' business, whether it can, `moves`'. What
//! is done here may be done by any worker, by several at once, and twice: the append's compare
//! lets one of them win.
//!
//! The rule it keeps: a worker of the thread's own version that lives is never passed by.

use std::collections::BTreeMap;

use superstep_protocol::{AskMove, CommandRef, Event, Record, Refusal, ThreadState, UnixMillis};
use tracing::info;

use crate::{
    effects::{Effects, Publish},
    engine::{Accepted, Engine},
    error::Error,
    registry::Registry,
    versions::{First, Needs, Version, before_queued, is_live, needs_move},
};

/// What an event needs of the thread's graph.
pub(crate) fn needs(event: &Event) -> Needs<'_> {
    match event {
        Event::Start(start) if start.input.is_null() => Needs::WhatWaits(Some(&start.graph)),
        Event::Start(start) => Needs::Values(&start.graph),
        Event::Resume(_) | Event::Update(_) | Event::Retry { .. } => Needs::WhatWaits(None),
        _ => Needs::Nothing,
    }
}

/// Asks for the thread to be taken over; whether it is asked now.
pub(crate) async fn ask(
    engine: &Engine,
    effects: &Effects,
    state: &ThreadState,
    to: &Version,
    command: Option<&CommandRef>,
) -> Result<bool, Error> {
    let thread = &state.thread;
    let mut results = BTreeMap::new();
    for round in state.rounds.keys() {
        results.extend(engine.stored_results(thread, *round, None).await?);
    }
    let event = Event::Move(Box::new(AskMove {
        to: to.graph.clone(),
        topology: to.topology.clone(),
        command: command.cloned(),
        results,
    }));
    let Some(record) = performed(engine, effects, state, &event).await? else {
        return Ok(false);
    };
    info!(
        thread_id = %thread, from = %state.graph, to = %to.graph, kind = record.body.kind(),
        "another version is to take the thread over"
    );
    Ok(true)
}

/// Whether a queued run can begin.
pub(crate) enum Turn {
    /// It can.
    Begins,
    /// Its version of the graph takes the thread over first.
    Moves,
    /// That version cannot.
    Refused(Refusal),
}

/// What is to be done before the next run of the queue begins: it may be of a version that makes
/// the thread's values its own first. `again` asks that version even if it declined before.
pub(crate) async fn before_next(
    engine: &Engine,
    effects: &Effects,
    registry: &Registry,
    state: &ThreadState,
    (now, again): (UnixMillis, bool),
) -> Result<Turn, Error> {
    let next = state.next_queued(now.max(state.time));
    let Some(next) = next.filter(|next| next.graph != state.graph) else {
        return Ok(Turn::Begins);
    };
    let mut versions = registry.versions(&engine.threads, false).await?;
    if versions.iter().all(|version| version.graph != next.graph) {
        // It came since that was read.
        versions = registry.versions(&engine.threads, true).await?;
    }
    Ok(match before_queued(&versions, state, next) {
        First::Refuse(refusal) if !again => Turn::Refused(refusal),
        First::Refuse(_) | First::MoveFor(_) | First::Move(_) => {
            let to = versions.iter().find(|version| version.graph == next.graph);
            if let Some(to) = to {
                ask(engine, effects, state, to, None).await?;
            }
            Turn::Moves
        }
        First::Nothing => Turn::Begins,
    })
}

/// Sees to a thread that waits for workers which are not there: it is taken over, or what any
/// worker can decide is decided. Whether anything was done.
pub(crate) async fn see_to(
    engine: &Engine,
    effects: &Effects,
    versions: &[Version],
    state: &ThreadState,
) -> Result<bool, Error> {
    if let Some(decision) = state.decision.as_ref().filter(|_| state.begins_next()) {
        let dispatch = decision.dispatch;
        if is_live(versions, state.graph_for(dispatch)) {
            return Ok(false);
        }
        let event = Event::NextRun {
            dispatch,
            refusal: None,
        };
        return Ok(performed(engine, effects, state, &event).await?.is_some());
    }
    match needs_move(versions, state) {
        Some(to) => ask(engine, effects, state, to, None).await,
        None => Ok(false),
    }
}

/// Has an event decided that nobody sent; the record that it led to, once that is told.
async fn performed(
    engine: &Engine,
    effects: &Effects,
    state: &ThreadState,
    event: &Event,
) -> Result<Option<Record>, Error> {
    match engine.accept(&state.thread, event, None, || None).await? {
        Accepted::Appended(done) => {
            let (mut thread, record) = *done;
            let publish = Publish::Of(record.head);
            effects.perform(&mut thread, Some(&record), publish).await?;
            Ok(Some(record))
        }
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
