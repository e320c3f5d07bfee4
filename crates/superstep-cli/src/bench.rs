//! Load: runs of known graphs, counted, timed, and checked one by one.
//!
//! A measurement has a namespace of its own on the servers, with workers of its own, and takes it
//! away when it ends. `scenario` says what runs and what must come of it, `drive` keeps so many
//! runs in flight, `verdict` counts how they ended, `bare` does the least that the same servers
//! can be asked for, so that every figure has a limit beside it. Servers of one's own are started
//! in `servers`. What is asked for and how it is told is left to `commands::bench`.
//!
//! The rule it keeps: nothing but its own namespaces is touched, and every load is bounded in time
//! and in number.

pub(crate) mod bare;
pub(crate) mod drive;
pub(crate) mod parts;
pub(crate) mod place;
pub(crate) mod progress;
pub(crate) mod report;
pub(crate) mod scenario;
pub(crate) mod servers;
pub(crate) mod verdict;
pub(crate) mod window;
pub(crate) mod workers;

#[cfg(test)]
mod tests;
