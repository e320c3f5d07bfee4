//! A private cluster of three NATS servers that share JetStream.
//!
//! Each is an ordinary [`NatsServer`] that can be killed, frozen, restarted and wiped by itself.
//! Streams are placed by the code under test; which server leads one is asked of JetStream.
//!
//! The rule it keeps: `start` returns when the servers have chosen a leader that sees all of them.

use std::fmt::Write as _;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use super::ports::free_port;
use super::{NatsOptions, NatsServer};
use crate::wait::until;

/// How many servers there are.
const SERVERS: usize = 3;

/// How long the servers may take to find each other.
const READY_WITHIN: Duration = Duration::from_secs(60);

/// How often the whole is tried when another process takes a port.
const ATTEMPTS: usize = 3;

/// Three servers, named `n0`, `n1` and `n2`.
#[derive(Debug)]
pub struct NatsCluster {
    nodes: Vec<NatsServer>,
    monitors: Vec<u16>,
}

impl NatsCluster {
    /// Starts a cluster whose servers all have the given options.
    ///
    /// # Errors
    ///
    /// When there is no binary, or the cluster does not come up.
    pub fn start_with(options: &NatsOptions) -> anyhow::Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::launch(options) {
                Ok(cluster) => {
                    cluster.until_ready()?;
                    return Ok(cluster);
                }
                Err(_) if attempt < ATTEMPTS => attempt += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// The addresses of all servers.
    #[must_use]
    pub fn urls(&self) -> Vec<String> {
        self.nodes.iter().map(NatsServer::url).collect()
    }

    /// The servers.
    #[must_use]
    pub fn nodes(&self) -> &[NatsServer] {
        &self.nodes
    }

    /// The servers, to kill or restart one.
    pub fn nodes_mut(&mut self) -> &mut [NatsServer] {
        &mut self.nodes
    }

    /// The number of the server with this name.
    #[must_use]
    pub fn position(name: &str) -> Option<usize> {
        name.strip_prefix('n')?
            .parse()
            .ok()
            .filter(|n| *n < SERVERS)
    }

    /// Waits until the servers have a leader that sees all of them, up to date.
    ///
    /// # Errors
    ///
    /// When they do not come together in time.
    pub fn until_ready(&self) -> anyhow::Result<()> {
        // Only the leader tells of its followers.
        let all_current = |told: String| told.matches("\"current\": true").count() == SERVERS - 1;
        until("the NATS cluster has a leader", READY_WITHIN, || {
            let mut ports = self.monitors.iter();
            ports.any(|port| jetstream(*port).is_ok_and(all_current))
        })
    }

    fn launch(options: &NatsOptions) -> anyhow::Result<Self> {
        // A port is free together with the one 10,000 above: clients use one, servers the other.
        let mut ports = Vec::new();
        let mut monitors = Vec::new();
        for _ in 0..SERVERS {
            ports.push(free_port()?);
            monitors.push(free_port()?);
        }
        let routes: Vec<_> = ports
            .iter()
            .map(|port| format!("nats://127.0.0.1:{}", port + 10_000))
            .collect();
        let mut nodes = Vec::new();
        for (index, (port, monitor)) in ports.iter().zip(&monitors).enumerate() {
            let mut options = options.clone();
            let _ = write!(
                options.config,
                "\nserver_name: n{index}\nhttp: \"127.0.0.1:{monitor}\"\n\
                 cluster {{\n  name: test\n  listen: \"127.0.0.1:{}\"\n  routes: [{}]\n}}\n",
                port + 10_000,
                routes.join(", ")
            );
            nodes.push(NatsServer::start_on(*port, options)?);
        }
        Ok(Self { nodes, monitors })
    }
}

/// What a server's monitor tells of JetStream.
fn jetstream(port: u16) -> anyhow::Result<String> {
    let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET /jsz HTTP/1.0\r\n\r\n")?;
    let mut told = String::new();
    stream.read_to_string(&mut told)?;
    Ok(told)
}
