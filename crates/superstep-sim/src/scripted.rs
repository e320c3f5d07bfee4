//! Tests with a script: one fault, or one order of events, and what must come of it.
//!
//! `points` puts one fault into each call of a run and `inner` into those of a subgraph;
//! `commands` and `tasks` hold one hazard each. What happens by chance is left to the seeds.

mod commands;
mod inner;
mod points;
mod tasks;
