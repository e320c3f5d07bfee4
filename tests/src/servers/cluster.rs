//! A private Redis Cluster of three masters, with or without a replica of each.
//!
//! Each node is an ordinary [`RedisServer`] that can be killed, frozen and restarted by itself.
//! Without replicas the tests look at how keys and scripts are spread over slots; with them at what
//! becomes of a thread whose master is gone.
//!
//! The rule it keeps: `start` returns when all nodes know each other, say that every slot is
//! served, and each replica has its master's data.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::replica::replication;
use super::resp::Reply;
use super::{RedisOptions, RedisServer};
use crate::wait::until;

/// How many masters there are.
const MASTERS: u16 = 3;

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// After how long a node that does not answer counts as failed, in milliseconds.
const NODE_TIMEOUT_MS: u64 = 3_000;

/// How long the masters may take to find each other.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Three masters that share the slots, and perhaps a replica of each: the nodes from the fourth.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts a cluster of Debian's Redis with the default options.
    ///
    /// # Errors
    ///
    /// When there is no binary, or the cluster does not come up.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(&RedisOptions::default())
    }

    /// Starts a cluster whose nodes all have the given options.
    ///
    /// # Errors
    ///
    /// When there is no binary, or the cluster does not come up.
    pub fn start_with(options: &RedisOptions) -> anyhow::Result<Self> {
        let cluster = Self::launch(options, MASTERS)?;
        cluster.until("whole", serves_every_slot)?;
        Ok(cluster)
    }

    /// Starts a cluster whose masters each have a replica: node `n + 3` is that of node `n`.
    ///
    /// # Errors
    ///
    /// When there is no binary, or the cluster does not come up.
    pub fn start_with_replicas(options: &RedisOptions) -> anyhow::Result<Self> {
        let cluster = Self::launch(options, 2 * MASTERS)?;
        cluster.until("whole", serves_every_slot)?;
        let (masters, replicas) = cluster.nodes.split_at(MASTERS.into());
        for (master, replica) in masters.iter().zip(replicas) {
            let id = master.command(&["CLUSTER", "MYID"])?;
            let id = id.text().context("a node has an id")?.to_owned();
            // A replica that has not heard of its master yet says so.
            until("a replica knows its master", READY_WITHIN, || {
                expect_ok(replica, &["CLUSTER", "REPLICATE", &id]).is_ok()
            })?;
        }
        cluster.until("replicated", |node| {
            let Ok(info) = replication(node) else {
                return false;
            };
            info.contains("connected_slaves:1") || info.contains("master_link_status:up")
        })?;
        // Or a replica is not voted for: the others must know whose it is.
        cluster.until("of one mind", |node| {
            let Ok(Reply::Text(nodes)) = node.command(&["CLUSTER", "NODES"]) else {
                return false;
            };
            nodes.matches("slave ").count() == usize::from(MASTERS)
        })?;
        Ok(cluster)
    }

    fn launch(options: &RedisOptions, count: u16) -> anyhow::Result<Self> {
        let mut options = options.clone();
        let _ = write!(
            options.config,
            "\ncluster-enabled yes\ncluster-node-timeout {NODE_TIMEOUT_MS}\nrepl-diskless-sync-delay 0\n"
        );
        let nodes = (0..count)
            .map(|_| RedisServer::start_with(options.clone()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        cluster.share_slots()?;
        Ok(cluster)
    }

    /// The addresses of all nodes, without credentials.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(RedisServer::url).collect()
    }

    /// The nodes.
    #[must_use]
    pub fn nodes(&self) -> &[RedisServer] {
        &self.nodes
    }

    /// The nodes, to kill or restart one.
    pub fn nodes_mut(&mut self) -> &mut [RedisServer] {
        &mut self.nodes
    }

    /// Gives each node its part of the slots and introduces them all to the first.
    fn share_slots(&self) -> anyhow::Result<()> {
        for (index, node) in (0..MASTERS).zip(&self.nodes) {
            let part = |i: u16| u32::from(SLOTS) * u32::from(i) / u32::from(MASTERS);
            let slots: Vec<String> = (part(index)..part(index + 1))
                .map(|slot| slot.to_string())
                .collect();
            let mut command = vec!["CLUSTER", "ADDSLOTS"];
            command.extend(slots.iter().map(String::as_str));
            expect_ok(node, &command)?;
            // Distinct epochs beforehand, or the nodes spend a while settling who has which.
            expect_ok(
                node,
                &["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()],
            )?;
        }
        let first = &self.nodes[0];
        for node in &self.nodes[1..] {
            expect_ok(
                first,
                &["CLUSTER", "MEET", "127.0.0.1", &node.port().to_string()],
            )?;
        }
        Ok(())
    }

    fn until(&self, what: &str, holds: impl Fn(&RedisServer) -> bool) -> anyhow::Result<()> {
        let what = format!("the Redis Cluster is {what}");
        until(&what, READY_WITHIN, || self.nodes.iter().all(&holds))?;
        let known = format!("cluster_known_nodes:{}", self.nodes.len());
        let meets = |node: &RedisServer| matches!(node.command(&["CLUSTER", "INFO"]), Ok(Reply::Text(info)) if info.contains(&known));
        let what = "the nodes of the Redis Cluster have met";
        until(what, READY_WITHIN, || self.nodes.iter().all(meets))
    }
}

fn expect_ok(node: &RedisServer, command: &[&str]) -> anyhow::Result<()> {
    let reply = node.command(command)?;
    ensure!(
        reply == Reply::Text("OK".to_owned()),
        "{} {} on port {} answered {reply:?}",
        command[0],
        command[1],
        node.port()
    );
    Ok(())
}

fn serves_every_slot(node: &RedisServer) -> bool {
    let Ok(Reply::Text(info)) = node.command(&["CLUSTER", "INFO"]) else {
        return false;
    };
    let has = |line: &str| info.lines().any(|found| found.trim_end() == line);
    has("cluster_state:ok") && has("cluster_slots_ok:16384")
}
