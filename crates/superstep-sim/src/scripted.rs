//! Tests with a script: one fault, or one order of events, and what must come of it.
//!
//! `points` puts one fault into each call of a run and `inner` into those of a subgraph;
//! `commands`, `tasks` and `clocks` hold one hazard each. `drive` is how they move a rig. What
//! happens by chance is left to the seeds.

mod clocks;
mod commands;
mod drive;
mod inner;
mod points;
mod tasks;
