//! The simulator: whole clusters of real workers, under faults, from one seed.
//!
//! `plan` draws what goes wrong, by seed or by script; `log` and `queue` are the wrappers that
//! make it so; `rig` runs workers that die and come back; `check` holds every append, ack and
//! outcome to the invariants. The tests: `points` puts one fault into each call of a run, `inner`
//! into those of a subgraph, `commands` and `tasks` hold one hazard each, `seeds` does everything
//! at once. A seed that fails is printed and can be run alone.
//!
//! Only calls to store and queue can fail or kill: nothing else that a worker does is seen.

#[cfg(test)]
mod check;
#[cfg(test)]
mod graphs;
#[cfg(test)]
mod log;
#[cfg(test)]
mod plan;
#[cfg(test)]
mod queue;
#[cfg(test)]
mod rig;
#[cfg(test)]
mod scripted;
#[cfg(test)]
mod seeds;
