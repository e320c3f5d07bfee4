//! The shell: runs nodes, decides commands, performs obligations, drains.
//!
//! It awaits, calls the pure crates, performs what they say and reports back. It names no
//! vendor: the log, the queue and the world come in as components.

mod attempts;
mod cache;
mod child;
mod client;
mod clock;
mod commands;
mod compute;
mod decisions;
mod effects;
mod engine;
mod error;
mod graphs;
mod health;
mod index;
mod input;
mod inside;
mod local;
mod meter;
mod movers;
mod moves;
mod node;
mod panics;
mod poison;
mod policies;
mod reconcile;
mod registry;
mod rounds;
mod run_task;
mod settings;
mod shown;
mod sleep;
mod stop;
mod stream;
mod threads;
mod timers;
mod trace;
mod turns;
mod verify;
mod versions;
mod view;
mod work;
mod worker;

pub use cache::{MemoryCache, NodeCache};
pub use client::{
    Client, Ended, EventFeed, OpenInterrupt, OutputFeed, QueuedDetail, RegisteredGraph, RunDetail,
    RunEnd, Sending, Sent, ThreadDetail, Told, UpdateEnd, Watching,
};
pub use clock::{SharedWorld, SystemWorld, World};
pub use error::{Error, ErrorKind, chain};
pub use graphs::{Checkpointer, Graphs, MissingNode, NodeCode, RunnableGraph, Subgraph};
pub use health::{
    Doing, Health, HealthSettings, LookFacts, LoopFacts, Probe, Snapshot, Stage, Verdict, verdict,
};
pub use input::InputSchema;
pub use local::{GoOn, Local, RunOptions, RunOutput, UpdateOptions, answers};
pub use meter::{Measure, Meter};
pub use node::{
    BoxFuture, Interrupt, Node, NodeContext, NodeError, NodeFailure, NodeReturn, TaskInfo,
};
pub use policies::{CachePolicy, Policies, RetryPolicy};
pub use settings::{Limits, Retention, WorkerSettings};
pub use sleep::Sleep;
pub use stream::{OutputSink, StreamEvent};
pub use threads::{Thread, Threads};
pub use trace::{
    AttributeValue, Attributes, Begins, Live, Outcome, Over, SpanName, TraceContext, Tracer,
};
pub use verify::{Check, Step, Summary, Verifier, Wrong};
pub use versions::{Migration, VersionPolicy};
pub use view::{CheckpointView, InterruptView, StateView, TaskView};
pub use worker::{Drained, Worker};
