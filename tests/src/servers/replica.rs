//! A private Redis with replicas, and Sentinels that watch them.
//!
//! Each is an ordinary [`RedisServer`] that can be killed, frozen and restarted by itself. Without
//! Sentinels a test promotes a replica itself; with them three agree on who is the master.
//!
//! The rule it keeps: `start` returns when every replica has its master's data, and every Sentinel
//! knows the master, the replicas and the other Sentinels.

use std::time::Duration;

use anyhow::{Context as _, bail};

use super::resp::Reply;
use super::{RedisOptions, RedisServer};
use crate::wait::until;

/// How long the servers may take to find each other.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How many Sentinels there are, and how many must agree.
const SENTINELS: usize = 3;
const QUORUM: usize = 2;

/// After how long a master that does not answer is given up, in milliseconds.
const DOWN_AFTER_MS: u64 = 1_500;

/// What the Sentinels call the master.
const SERVICE: &str = "main";

/// A master and its replicas.
#[derive(Debug)]
pub struct RedisReplicas {
    nodes: Vec<RedisServer>,
}

impl RedisReplicas {
    /// Starts a master with the given options and so many replicas of it.
    ///
    /// # Errors
    ///
    /// When there is no binary, or a replica does not get the master's data.
    pub fn start_with(options: &RedisOptions, replicas: usize) -> anyhow::Result<Self> {
        let mut options = options.clone();
        options
            .config
            .push_str("\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n");
        let mut nodes = vec![RedisServer::start_with(options.clone())?];
        let of = format!("\nreplicaof 127.0.0.1 {}\n", nodes[0].port());
        options.config.push_str(&of);
        for _ in 0..replicas {
            nodes.push(RedisServer::start_with(options.clone())?);
        }
        let all = Self { nodes };
        until("every replica has the master's data", READY_WITHIN, || {
            all.nodes[1..].iter().all(is_in_sync)
        })?;
        Ok(all)
    }

    /// The servers; the first was started as the master.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The servers, to kill or restart one.
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// The addresses of all servers, separated by commas.
    #[must_use]
    pub fn urls(&self) -> String {
        let urls: Vec<_> = self.nodes.iter().map(RedisServer::url).collect();
        urls.join(",")
    }

    /// Cuts a replica off its master, without telling it that it is none any more.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub fn cut_off(&self, node: usize) -> anyhow::Result<()> {
        // Nobody listens on this port.
        self.replica_of(node, "1")
    }

    /// Makes a replica a master of its own.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub fn promote(&self, node: usize) -> anyhow::Result<()> {
        match self.nodes[node].command(&["REPLICAOF", "NO", "ONE"])? {
            Reply::Text(_) => Ok(()),
            other => bail!("REPLICAOF NO ONE answered {other:?}"),
        }
    }

    /// Makes a server a replica of another.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or refuses.
    pub fn follow(&self, node: usize, master: usize) -> anyhow::Result<()> {
        self.replica_of(node, &self.nodes[master].port().to_string())
    }

    fn replica_of(&self, node: usize, port: &str) -> anyhow::Result<()> {
        match self.nodes[node].command(&["REPLICAOF", "127.0.0.1", port])? {
            Reply::Text(_) => Ok(()),
            other => bail!("REPLICAOF answered {other:?}"),
        }
    }
}

/// A master, its replicas, and three Sentinels that watch them.
#[derive(Debug)]
pub struct RedisSentinels {
    // The Sentinels go first, or they would see a failover in the end of the servers.
    sentinels: Vec<RedisServer>,
    servers: RedisReplicas,
}

impl RedisSentinels {
    /// Starts a master with the given options, so many replicas of it, and the Sentinels.
    ///
    /// # Errors
    ///
    /// When there is no binary, or they do not find each other.
    pub fn start_with(options: &RedisOptions, replicas: usize) -> anyhow::Result<Self> {
        let servers = RedisReplicas::start_with(options, replicas)?;
        let port = servers.nodes[0].port();
        let watching = RedisOptions {
            binary: options.binary,
            sentinel: true,
            config: format!(
                "sentinel monitor {SERVICE} 127.0.0.1 {port} {QUORUM}\n\
                 sentinel down-after-milliseconds {SERVICE} {DOWN_AFTER_MS}\n\
                 sentinel failover-timeout {SERVICE} 6000\n"
            ),
            ..RedisOptions::default()
        };
        let sentinels = (0..SENTINELS)
            .map(|_| RedisServer::start_with(watching.clone()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let all = Self { sentinels, servers };
        until("every Sentinel knows all", READY_WITHIN, || {
            all.sentinels.iter().all(|sentinel| {
                let known = |field| number(sentinel, field);
                known("num-slaves") == Some(replicas)
                    && known("num-other-sentinels") == Some(SENTINELS - 1)
            })
        })?;
        Ok(all)
    }

    /// The address that names the Sentinels and the service.
    #[must_use]
    pub fn url(&self) -> String {
        let urls: Vec<_> = self
            .sentinels
            .iter()
            .map(|s| format!("redis+sentinel://127.0.0.1:{}/{SERVICE}", s.port()))
            .collect();
        urls.join(",")
    }

    /// The Sentinels.
    #[must_use]
    pub fn sentinels(&self) -> &[RedisServer] {
        &self.sentinels
    }

    /// The Sentinels, to kill or restart one.
    pub fn sentinels_mut(&mut self) -> &mut [RedisServer] {
        &mut self.sentinels
    }

    /// The servers that store; the first was started as the master.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        self.servers.nodes()
    }

    /// The servers that store, to kill or restart one.
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        self.servers.nodes_mut()
    }

    /// Which of the servers the Sentinel `sentinel` says is the master.
    #[must_use]
    pub fn master(&self, sentinel: usize) -> Option<usize> {
        let port = number(&self.sentinels[sentinel], "port")?;
        let nodes = self.nodes().iter();
        nodes
            .map(RedisServer::port)
            .position(|p| usize::from(p) == port)
    }
}

/// What a server says of its replication.
pub(super) fn replication(server: &RedisServer) -> anyhow::Result<String> {
    let reply = server.command(&["INFO", "replication"])?;
    Ok(reply.text().context("INFO answers with text")?.to_owned())
}

fn is_in_sync(replica: &RedisServer) -> bool {
    replication(replica).is_ok_and(|info| info.contains("master_link_status:up"))
}

/// A number that a Sentinel tells of the service.
fn number(sentinel: &RedisServer, field: &str) -> Option<usize> {
    let Reply::List(told) = sentinel.command(&["SENTINEL", "MASTER", SERVICE]).ok()? else {
        return None;
    };
    let at = told.iter().position(|reply| reply.text() == Some(field))?;
    told.get(at + 1)?.text()?.parse().ok()
}
