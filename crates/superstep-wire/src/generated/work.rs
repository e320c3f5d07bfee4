//! What superstep tells its own workers.
//!
//! Written by `cargo xtask fix` from `proto/superstep/v1/work.proto`, never by hand. The
//! rules that all messages share stand in `common.proto`.

use serde::{Deserialize, Serialize};

/// A hint to look at a thread: it has tasks for workers of this graph. The store decides what
/// is still to be done; losing the hint loses time, a second one changes nothing.
///
/// Subject `<prefix>.<namespace>.work.<graph>.<version>`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Work {
    /// The thread.
    pub thread_id: String,
    /// The id of the command that created the thread: it tells a thread from a later one of the
    /// same name.
    pub incarnation: String,
    /// The record that called for this work, `<version>-<16 hex digits>`.
    pub dispatch: String,
    /// The ids of the tasks to run. Empty: all open tasks of the dispatch.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "Vec::is_empty"
    )]
    pub tasks: Vec<String>,
    /// Published by somebody else than the worker that appended the record, or later: others may
    /// be at work on it already.
    #[serde(
        default,
        deserialize_with = "crate::field::null_is_default",
        skip_serializing_if = "crate::field::is_false"
    )]
    pub again: bool,
}
