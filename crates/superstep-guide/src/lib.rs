//! The human-in-the-loop guide's patterns as example graphs, each a file to read and copy.
//!
//! [`basic`] asks and branches on the answer. The `superstep` binary runs them, the tests and
//! the documentation use them; their names, keys, payloads and answers are relied on by scripts.

pub mod basic;

use superstep::RunnableGraph;

/// Every graph of this crate.
pub fn graphs() -> Vec<RunnableGraph> {
    vec![basic::graph().into()]
}
