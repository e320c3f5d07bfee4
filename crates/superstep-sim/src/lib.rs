//! The simulator: whole clusters of real workers, under faults, from one seed.
//!
//! Workers run over the memory log and queue, both wrapped, under virtual time, one world per
//! thread. `sim` runs a seed; `plan` draws what goes wrong; `log` and `queue` are the wrappers
//! that make it so; `rig` runs workers that die and come back; `person` and `crowd` are who use
//! them, `graphs` and `random` what they run. `ledger` sees every append, ack, event and reply, and
//! `invariants`, a file each, say what must be true then. `mutant` is how we know that they bite.
//!
//! Only calls to store and queue, and what nodes await, can fail or kill: nothing else that a
//! worker does is seen. Workers are driven through their public API alone.

mod crowd;
mod graphs;
mod invariants;
mod journal;
mod ledger;
mod log;
mod mutant;
mod person;
mod plan;
mod queue;
mod random;
mod rig;
#[cfg(test)]
mod scripted;
mod sim;
mod sweep;
mod world;

pub use journal::Entry;
pub use mutant::Mutant;
pub use sim::{Outcome, run};
pub use sweep::{Failure, sweep};
