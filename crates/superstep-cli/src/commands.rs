//! The subcommands, a file each.
//!
//! Each reads its arguments, calls the crates below, and says what came of it. Reaching the
//! servers is left to `reach`, text to `output`.

pub(crate) mod bench;
pub(crate) mod demo;
pub(crate) mod doctor;
pub(crate) mod events;
pub(crate) mod graph;
pub(crate) mod interrupts;
pub(crate) mod probe;
pub(crate) mod run;
pub(crate) mod send;
pub(crate) mod threads;
pub(crate) mod verify;
