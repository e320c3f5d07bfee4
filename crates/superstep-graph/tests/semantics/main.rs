//! Whole small graphs through the pure functions: plan, input, route, apply, merge.
//!
//! `engine` is the loop that a shell makes of them, without a store or a clock. On top of it run
//! graphs written here, recorded cases of LangGraph, and properties over random graphs.

#![expect(clippy::unwrap_used, reason = "in tests a panic is the report")]

mod cases;
mod checks;
mod drawing;
mod engine;
mod outside;
mod planning;
mod properties;
mod random;
mod routing;
mod scripted;
mod small_graphs;
