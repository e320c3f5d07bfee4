//! What is stored stays stored, and nothing is stored twice: thread logs and queues on real servers.
//!
//! Each adapter runs the contract suite of the port here, and then what only it can promise: kills
//! and restarts, lost answers, a full or frozen server, and steps back to an older state. What
//! workers make of it is left to the cluster and chaos tests.
#![expect(clippy::unwrap_used, reason = "a test says by a panic what is wrong")]

mod nats;
mod redis;
