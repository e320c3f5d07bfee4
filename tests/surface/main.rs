//! What a person or a script meets: the `superstep` binary, run as it is built.
//!
//! Its output, its exit codes, its settings, and how it behaves when servers are away. Each test
//! has a folder of its own to work in and servers of its own. What happens inside a cluster is left
//! to the cluster tests.
#![expect(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod bench;
mod demo;
mod deploy;
mod dev;
mod help;
mod run;
mod servers;
mod settings;
