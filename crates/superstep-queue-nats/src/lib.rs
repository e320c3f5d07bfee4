//! The queue on NATS JetStream.
//!
//! Three streams for each prefix and namespace (commands, work, events), durable pull
//! consumers, pipelined publishes, and core messages for replies and live output. It is the
//! one crate that names `async_nats`; no type of it crosses the port. It decides nothing about
//! threads and keeps no message of its own.
//!
//! The core path uses nothing newer than NATS 2.9. What exists on a server is checked and
//! never altered; what is missing is made, at start and again whenever it was found gone.

mod backlog;
mod bare;
mod config;
mod connect;
mod consume;
mod doctor;
mod error;
mod message;
mod publish;
mod pull;
mod queue;
mod settings;
mod streams;
mod subscribe;

pub use bare::{BareMessage, BareMessages, BareQueue};
pub use queue::NatsQueue;
pub use settings::{NatsAuth, NatsSettings, NatsTls};
