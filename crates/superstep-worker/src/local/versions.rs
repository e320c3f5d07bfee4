//! Threads of versions that this process does not hold: taken over, or told why not.
//!
//! The same rules as between workers, over the graphs that this process holds: these are its live
//! versions, and the newest is the highest. What is wanted is asked for and answered in one call.
//!
//! The rule it keeps: a command is refused before anything of it is recorded, if nobody here could
//! go on with the thread.

use std::collections::BTreeMap;

use superstep_protocol::{
    AskMove, CommandRef, Dispatch, Event, GraphId, ThreadId, ThreadState, UnixMillis,
};

use super::{Local, told};
use crate::{
    engine::{Accepted, Worked},
    error::Error,
    movers,
    threads::Thread,
    turns::Turn,
    versions::{First, Needs, Version, VersionPolicy, before_command, before_queued, needs_move},
};

/// How often a command waits for a thread that goes elsewhere meanwhile.
const MOVES_MAX: usize = 4;

impl Local {
    /// Has the thread taken over before `event` is decided, if a version that is held here does so.
    ///
    /// # Errors
    /// `NoSuchGraph` if the event needs code that is not held; `Refused` if the version that is held
    /// cannot take the thread.
    pub(super) async fn version_first(
        &self,
        turn: &Turn,
        thread: &ThreadId,
        event: &Event,
    ) -> Result<(), Error> {
        let needs = movers::needs(event);
        let Some(command) = command_of(event).filter(|_| needs != Needs::Nothing) else {
            return Ok(());
        };
        let versions = self.held();
        for _ in 0..MOVES_MAX {
            let found = self.engine.threads.load(thread).await?;
            let Some(found) = found.filter(|found| !found.state.deleted) else {
                return Ok(());
            };
            let state = &found.state;
            let to = match before_command(&versions, state, &command.id, needs) {
                First::Nothing => break,
                First::Refuse(refusal) => return Err(Error::Refused(refusal)),
                First::Move(to) | First::MoveFor(to) => to,
            };
            if self.ask(state, to, Some(command)).await?.is_none() {
                break;
            }
            self.finish_in(turn, thread).await?;
        }
        let found = self.engine.threads.load(thread).await?;
        match found.filter(|_| matches!(needs, Needs::WhatWaits(_))) {
            Some(found) if self.engine.graphs.get(&found.state.graph).is_none() => {
                Err(self.engine.graphs.lacks(&found.state))
            }
            _ => Ok(()),
        }
    }

    /// The thread once more is known of who goes on with it, if it is not simply its own version
    /// that is held here; `None` if that is so.
    ///
    /// # Errors
    /// `Refused` if the version that is held cannot take the thread.
    pub(super) async fn taken_over(
        &self,
        thread: &Thread,
        dispatch: Dispatch,
    ) -> Result<Option<Thread>, Error> {
        let state = &thread.state;
        let is_held = self.engine.graphs.get(state.graph_for(dispatch)).is_some();
        let next = state.next_queued(state.time);
        let next = next.filter(|next| state.begins_next() && next.graph != state.graph);
        if is_held && next.is_none() {
            return Ok(None);
        }
        let versions = self.held();
        let first = match next {
            Some(next) => before_queued(&versions, state, next),
            None => needs_move(&versions, state).map_or(First::Nothing, First::Move),
        };
        match first {
            First::Move(to) | First::MoveFor(to) => self.ask(state, to, None).await,
            First::Refuse(refusal) => {
                let declined = self.engine.decline_next(thread.clone(), dispatch, refusal);
                Ok(match Box::pin(declined).await? {
                    Worked::Appended(done) => Some(told(done.0)),
                    _ => None,
                })
            }
            First::Nothing => match &state.stays {
                Some(stays) if !is_held && !state.begins_next() => {
                    Err(Error::Refused(stays.refusal.clone()))
                }
                _ => Ok(None),
            },
        }
    }

    async fn ask(
        &self,
        state: &ThreadState,
        to: &Version,
        command: Option<&CommandRef>,
    ) -> Result<Option<Thread>, Error> {
        let mut results = BTreeMap::new();
        for round in state.rounds.keys() {
            let stored = self.engine.stored_results(&state.thread, *round, None);
            results.extend(stored.await?);
        }
        let event = Event::Move(Box::new(AskMove {
            to: to.graph.clone(),
            topology: to.topology.clone(),
            command: command.cloned(),
            results,
        }));
        let accepted = self.engine.accept(&state.thread, &event, None, || None);
        Ok(match Box::pin(accepted).await? {
            Accepted::Appended(done) => Some(told(done.0)),
            _ => None,
        })
    }

    /// The topology of a graph that is held.
    pub(super) fn topology_of(&self, graph: &GraphId) -> Option<String> {
        let graph = self.engine.graphs.get(graph);
        graph.map(|graph| graph.topology_hash())
    }

    /// The versions that this process holds, in the order of the numbers in their names.
    fn held(&self) -> Vec<Version> {
        let graphs = self.engine.graphs.iter();
        let of = |graph: &std::sync::Arc<crate::RunnableGraph>| Version {
            graph: GraphId::clone(graph.id()),
            topology: Some(graph.topology_hash()),
            takes_over: !matches!(graph.versions(), VersionPolicy::Pinned),
            migrates: matches!(graph.versions(), VersionPolicy::Migrate(_)),
            registered_at: UnixMillis(0),
            renewed_at: UnixMillis(0),
            live: true,
        };
        graphs.map(of).collect()
    }
}

fn command_of(event: &Event) -> Option<&CommandRef> {
    match event {
        Event::Start(start) => Some(&start.command),
        Event::Resume(resume) => Some(&resume.command),
        Event::Update(update) => Some(&update.command),
        Event::Retry { command, .. } => Some(command),
        _ => None,
    }
}
