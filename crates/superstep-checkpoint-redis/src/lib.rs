//! The thread log in Redis and Valkey: 6.2 or newer, no modules, standalone or Cluster.
//!
//! A thread is one hash, and everything that concerns it (indexes, results, outcomes, values out
//! of line) lies in the same slot, so that one short script appends and changes the indexes in
//! one atomic step. The layout and its cost are argued in `docs/adr/0002-redis-layout.md`.
//!
//! What a record means is left to the protocol, and how long a caller waits for a server that is
//! away is left to the caller: a call is tried again only for a second or two. The rule it keeps:
//! nothing of this crate's client library crosses the port.

mod append;
mod bare;
mod check;
mod codec;
mod durable;
mod error;
mod inspect;
mod keys;
mod link;
mod lists;
mod log;
mod reply;
mod scripts;
mod sentinel;
mod settings;
mod strays;

pub use bare::BareLog;
pub use log::RedisLog;
pub use settings::{DEFAULT_SHARDS, RedisSettings};
