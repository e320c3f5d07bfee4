//! What happens to a thread, by the public functions alone: tables, refusals, folds, races.
//!
//! `story` appends records to a log in memory; `states` tells one story for each kind of state.
//! `world` lets several writers with stale views compete, under faults, and checks the
//! invariants after every step.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod branches;
mod ids;
mod invariants;
mod matrix;
mod meanings;
mod moves;
mod owed;
mod pauses;
mod questions;
mod queue;
mod refusals;
mod replay;
mod states;
mod story;
mod toy_store;
mod world;
mod world_runs;
