//! What the folders of tests share: private servers, waiting with a deadline, and the built binaries.
//!
//! Adapter crates use this library from their own dev-dependencies too, so it depends on no crate
//! of superstep: it knows how to start NATS and Redis, and nothing about what runs on them.
//! The tests themselves live in the folders beside `src/`, one test binary each.
//!
//! The rule it keeps: whatever a test starts, it owns. Servers listen on loopback, on ports of
//! their own, in a temporary folder, and are gone when their value is dropped.

mod built;
mod program;
mod proxy;
#[cfg(feature = "conformance")]
mod questions;
pub mod servers;
mod skip;
mod wait;

pub use built::{example_binary, target_dir, worker_binary, workspace_root};
pub use program::Program;
pub use proxy::Proxy;
#[cfg(feature = "conformance")]
pub use questions::questions;
pub use skip::{may_skip, skip};
pub use wait::{eventually, eventually_async, until};
