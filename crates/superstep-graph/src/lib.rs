//! What a superstep means: graph, channels, reducers, plan, apply, interrupts.
//!
//! Pure: nothing here awaits, reads a clock, draws randomness or knows a store. A superstep is
//! four calls: [`plan`] says which tasks a checkpoint triggers, [`input_of`] what each reads,
//! [`route`] what a finished node writes, [`apply`] what all of them change at once. Node
//! functions belong to the shells; a graph here is its topology, its reducers and its paths.

mod apply;
mod channel;
mod checkpoint;
mod compile;
mod error;
mod graph;
mod ids;
mod outside;
mod plan;
mod reduce;
mod route;
mod task;

pub use apply::{Contribution, apply};
pub use channel::{ChannelKind, Managed, ReduceFn, Reducer};
pub use checkpoint::{ChannelChange, Checkpoint, Delta, Source};
pub use compile::{CompileError, GraphBuilder, Problem, Warning};
pub use error::{InvalidUpdate, RouteError};
pub use graph::{Branch, Breakpoints, Graph, NodeSpec, PathFn};
pub use ids::{
    ChannelName, END, InterruptId, Lineage, Namespace, NodeName, SENDS, START, TaskId, digest,
};
pub use outside::{
    NodeUpdate, Updates, amend, clear, command_input, may_be_amended, start_writes, take_input,
    update_state,
};
pub use plan::{Horizon, Planned, input_of, listing_order, plan, read_output, read_state};
pub use route::{Routed, UnknownTargets, output_from_update, route, route_handled, route_within};
pub use task::some;
pub use task::{Command, NodeOutput, Send, Target, Task, TaskPath, Write, WriteValue};
