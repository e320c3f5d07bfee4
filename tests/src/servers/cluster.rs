//! A private Redis Cluster of three masters.
//!
//! Each is an ordinary [`RedisServer`] that can be killed, frozen and restarted by itself. There
//! are no replicas: what the tests look at is how keys and scripts are spread over slots.
//!
//! The rule it keeps: `start` returns when all three masters know each other and say that every
//! slot is served.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};

use super::resp::Reply;
use super::{RedisOptions, RedisServer};

/// How many masters there are.
const MASTERS: u16 = 3;

/// How many slots a cluster has.
const SLOTS: u16 = 16_384;

/// How long the masters may take to find each other.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// Three masters that share the slots.
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
        let mut options = options.clone();
        options
            .config
            .push_str("\ncluster-enabled yes\ncluster-node-timeout 3000\n");
        let nodes = (0..MASTERS)
            .map(|_| RedisServer::start_with(options.clone()))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let cluster = Self { nodes };
        cluster.share_slots()?;
        cluster.until_ready()?;
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

    fn until_ready(&self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        while !self.nodes.iter().all(serves_every_slot) {
            if Instant::now() >= deadline {
                bail!("the Redis Cluster is not whole after {READY_WITHIN:?}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
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
    has("cluster_state:ok")
        && has(&format!("cluster_known_nodes:{MASTERS}"))
        && has("cluster_slots_ok:16384")
}
