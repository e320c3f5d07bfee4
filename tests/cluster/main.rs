//! Worker processes on real servers: the promises that only show between processes.
//!
//! Every test has its own nats-server, its own redis-server (append-only file, synced every
//! second), or several of either, and worker processes that it kills, freezes and drains. The world outside is a bare
//! NATS client, as the contract in `proto/` has it: no code of superstep sends or receives. What
//! became of a thread is read from Redis.
//!
//! The rule it keeps: nothing waits for a time to pass. Each wait names what must come, and by when.

mod bad_commands;
mod bad_servers;
mod changes;
mod cluster;
mod crash_points;
mod crashes;
mod drain;
mod duplicates;
mod fan_out;
mod health;
mod limits;
mod outages;
mod outside;
mod patterns;
mod reconcile;
mod story;
mod strategies;
mod time_to_continue;
mod timers;
mod topologies;
mod traces;
mod verify;
mod versions;

use std::time::Duration;

/// How long anything in these tests may take that should happen soon. A machine that builds and
/// tests at the same time is slow; nothing waits this long unless it fails.
const SOON: Duration = Duration::from_secs(60);
