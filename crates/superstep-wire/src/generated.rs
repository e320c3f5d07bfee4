//! The contract's messages and enums, as `proto/superstep/v1` describes them.
//!
//! Written by `cargo xtask fix`, never by hand: change the `.proto` file. A field that
//! may be absent is an `Option`; for any JSON, `Some(Value::Null)` is `null` and `None`
//! is absent. Readers pass over fields that they do not know, save for commands.

mod commands;
mod common;
mod events;
mod replies;
mod work;

pub use commands::{
    CancelCommand, ResumeCommand, RetryCommand, RunConfig, StartCommand, StateUpdate, UpdateCommand,
};
pub use common::{Refusal, RefusalKind};
pub use events::{Answer, Event, EventKind, InterruptDetail, Output, RunError};
pub use replies::{Outcome, Reply};
pub use work::Work;
