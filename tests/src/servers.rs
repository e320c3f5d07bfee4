//! Private NATS and Redis servers for tests.
//!
//! A server listens on a loopback port of its own, keeps its data in a temporary folder, and is
//! gone with its value. It can be killed, frozen, restarted on the same port and data, and wiped.
//! Getting the server binaries onto the machine is left to `cargo xtask test`.
//!
//! ```no_run
//! use superstep_tests::servers::{NatsServer, RedisServer};
//!
//! let nats = NatsServer::start()?;
//! let mut redis = RedisServer::start()?;
//! println!("{} {}", nats.url(), redis.url());
//! redis.kill();
//! redis.restart()?;
//! # anyhow::Ok(())
//! ```
//!
//! The rule it keeps: `start` returns when the server answers, or fails with the server's own log.

mod binary;
mod cluster;
mod nats;
mod nats_cluster;
mod ports;
mod redis;
mod replica;
mod resp;

#[cfg(test)]
mod tests;

pub use binary::ServerBinary;
pub use cluster::RedisCluster;
pub use nats::{NatsOptions, NatsServer};
pub use nats_cluster::NatsCluster;
pub use redis::{RedisOptions, RedisServer};
pub use replica::{RedisReplicas, RedisSentinels};
pub use resp::Reply;
