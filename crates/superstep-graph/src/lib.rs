//! What a superstep means: graph, channels, reducers, plan, apply, interrupts.
//!
//! Pure: nothing here awaits, reads a clock, draws randomness or knows a store.

mod ids;

pub use ids::{
    ChannelName, END, InterruptId, Lineage, Namespace, NodeName, SENDS, START, TaskId, digest,
};
