//! The worker under faults: the real code over the memory log and queue, both wrapped.
//!
//! `plan` draws what goes wrong, by seed or by script; `log` and `queue` are the wrappers that
//! make it so; `rig` runs workers that die and come back; `check` holds every append, ack and
//! outcome to the invariants. The tests: `points` puts one fault into each call of a run, `inner` into those of a subgraph,
//! `commands` and `tasks` hold one hazard each, `seeds` does everything at once. A seed that
//! fails is printed and can be run alone.
//!
//! Only calls to store and queue can fail or kill: nothing else that a worker does is seen.

mod check;
mod commands;
mod graphs;
mod inner;
mod log;
mod plan;
mod points;
mod queue;
mod rig;
mod seeds;
mod tasks;
