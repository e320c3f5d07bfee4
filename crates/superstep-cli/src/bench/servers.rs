//! NATS and Redis of a measurement's own: started for it, and gone with it.
//!
//! They listen on loopback only, on ports that were free a moment before, and keep their data in a
//! temporary folder. Redis runs as superstep asks for; how often both sync their files is the
//! measurement's choice. Getting the programs onto the machine is left to whoever measures.
//!
//! The rule it keeps: a server that was not started here is never touched.

use std::{
    env, fs, io,
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use serde::Serialize;
use superstep::connect::ConnectSettings;
use tempfile::TempDir;

use super::parts::Part;
use crate::exit::Failure;

/// How long a server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(15);
/// How often is looked whether it does.
const LOOK_EVERY: Duration = Duration::from_millis(10);
/// How many ports are tried when another process is faster.
const PORT_ATTEMPTS: usize = 5;

/// When servers sync their files.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fsync {
    /// Redis every second, NATS every two minutes: their defaults
    Everysec,
    /// Before each answer
    Always,
}

/// A NATS and a Redis, which end when this is dropped.
#[derive(Debug)]
pub(crate) struct PrivateServers {
    nats: Server,
    redis: Server,
    // Behind the servers, which write into it.
    _folder: TempDir,
}

#[derive(Debug)]
struct Server {
    name: &'static str,
    child: Child,
    port: u16,
}

impl PrivateServers {
    /// Starts both.
    ///
    /// # Errors
    /// If a program is not on the machine, or does not come up.
    pub(crate) async fn start(fsync: Fsync) -> Result<Self, Failure> {
        let nats = program(&["nats-server"]);
        let redis = program(&["redis-server", "valkey-server"]);
        let (Some(nats), Some(redis)) = (&nats, &redis) else {
            return Err(missing(nats.is_none(), redis.is_none()));
        };
        let folder = tempfile::Builder::new()
            .prefix("superstep-bench-")
            .tempdir();
        let folder = folder.map_err(|error| failed("a temporary folder", &error))?;
        let (nats_dir, redis_dir) = (folder.path().join("nats"), folder.path().join("redis"));
        let nats_told = |port| nats_config(port, &nats_dir, fsync);
        let redis_told = |port| redis_config(port, &redis_dir, fsync);
        Ok(Self {
            nats: Server::start("nats-server", nats, &nats_dir, &nats_told).await?,
            redis: Server::start("redis-server", redis, &redis_dir, &redis_told).await?,
            _folder: folder,
        })
    }

    /// Where they are.
    pub(crate) fn settings(&self) -> ConnectSettings {
        ConnectSettings {
            nats_url: Some(format!("nats://127.0.0.1:{}", self.nats.port)),
            redis_url: Some(format!("redis://127.0.0.1:{}", self.redis.port)),
            ..ConnectSettings::default()
        }
    }

    /// Their processes.
    pub(crate) fn parts(&self) -> Vec<Part> {
        [&self.nats, &self.redis]
            .map(|server| Part::new(server.name, server.child.id()))
            .into()
    }
}

impl Server {
    async fn start(
        name: &'static str,
        program: &Path,
        dir: &Path,
        config: &dyn Fn(u16) -> String,
    ) -> Result<Self, Failure> {
        fs::create_dir_all(dir).map_err(|error| failed(name, &error))?;
        let mut last = String::new();
        for _ in 0..PORT_ATTEMPTS {
            let port = free_port().map_err(|error| failed(name, &error))?;
            let child = spawn(program, dir, &config(port));
            let child = child.map_err(|error| failed(name, &error))?;
            let mut server = Self { name, child, port };
            if server.answers().await {
                return Ok(server);
            }
            drop(server);
            last = log_end(dir);
        }
        Err(Failure::failed(format!(
            "{name} does not come up within {READY_WITHIN:?}; its log ends:\n{last}"
        )))
    }

    /// Whether it comes up; not if it ended or takes too long.
    async fn answers(&mut self) -> bool {
        let deadline = Instant::now() + READY_WITHIN;
        while Instant::now() < deadline {
            let is_there = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).is_ok();
            // Asked after the connection, so that it was not another's.
            if !matches!(self.child.try_wait(), Ok(None)) {
                return false;
            }
            if is_there {
                return true;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        false
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(program: &Path, dir: &Path, config: &str) -> io::Result<Child> {
    let (file, log) = (dir.join("server.conf"), fs::File::create(dir.join("log"))?);
    fs::write(&file, config)?;
    let mut command = Command::new(program);
    if program.ends_with("nats-server") {
        command.arg("--config");
    }
    command
        .arg(&file)
        .current_dir(dir)
        .stdin(Stdio::null())
        .stderr(log.try_clone()?)
        .stdout(log);
    #[cfg(unix)]
    {
        use std::os::unix::process::CommandExt as _;
        // What the keyboard sends to this process must not end the servers under it.
        command.process_group(0);
    }
    command.spawn()
}

fn nats_config(port: u16, dir: &Path, fsync: Fsync) -> String {
    let sync = match fsync {
        Fsync::Everysec => "",
        Fsync::Always => "sync_interval: always",
    };
    let store = quoted(&dir.join("data"));
    format!("host: 127.0.0.1\nport: {port}\njetstream {{\n  store_dir: {store}\n  {sync}\n}}\n")
}

fn redis_config(port: u16, dir: &Path, fsync: Fsync) -> String {
    let sync = match fsync {
        Fsync::Everysec => "everysec",
        Fsync::Always => "always",
    };
    format!(
        "bind 127.0.0.1\nport {port}\ndir {}\ndaemonize no\nsave \"\"\n\
         maxmemory-policy noeviction\nappendonly yes\nappendfsync {sync}\n",
        quoted(dir)
    )
}

fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// The first of these programs that is on the path.
fn program(names: &[&str]) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    let dirs: Vec<PathBuf> = env::split_paths(&path).collect();
    let files = names
        .iter()
        .flat_map(|name| dirs.iter().map(move |dir| dir.join(name)));
    files.into_iter().find(|file| file.is_file())
}

fn missing(nats: bool, redis: bool) -> Failure {
    let all = [
        (nats, "nats-server (nats.io; packages nats-server)"),
        (
            redis,
            "redis-server or valkey-server (packages redis-server, valkey)",
        ),
    ];
    let missing: Vec<&str> = all
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, name)| *name)
        .collect();
    Failure::usage(format!(
        "no servers were named, and private ones cannot be started: not on the PATH: {}",
        missing.join(" and ")
    ))
    .with_hint("install it, or name servers with --nats-url and --redis-url")
}

fn free_port() -> io::Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    Ok(listener.local_addr()?.port())
}

fn log_end(dir: &Path) -> String {
    let log = fs::read_to_string(dir.join("log")).unwrap_or_default();
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(10)..].join("\n")
}

fn failed(what: &str, error: &io::Error) -> Failure {
    Failure::failed(format!("{what} cannot be started: {error}"))
}
