//! What happens to a thread: its records, and three pure functions over them.
//!
//! A thread is a log of records. `fold` says what a record means, `decide` what an event calls
//! for, `obligations` what the thread still owes the world. They await nothing, read no clock
//! and draw no randomness; a worker, the embedded mode, the simulator and the tests all run
//! these same functions.

mod ids;
mod status;

pub use ids::{
    CommandId, Dispatch, GraphId, GraphName, GraphVersion, Head, Nonce, ParseHeadError, RunId,
    ThreadId, UnixMillis,
};
pub use status::{ParseThreadStatusError, RunStatus, ThreadStatus};
