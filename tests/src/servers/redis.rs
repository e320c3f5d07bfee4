//! A private Redis or Valkey server.
//!
//! It starts as superstep asks for: append-only file, synced every second, no eviction, no RDB
//! snapshots. A test changes what it needs by options or by further lines of configuration.
//!
//! The rule it keeps: `start` and `restart` return when the server answers a PING, so no test
//! meets one that is still loading.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use tempfile::TempDir;

use super::ServerBinary;
use super::ports::free_port;
use super::resp::{self, Reply};
use crate::Program;

/// How long a server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How many ports are tried when another process is faster.
const PORT_ATTEMPTS: usize = 8;

/// What a private Redis is started with.
#[derive(Clone, Debug)]
pub struct RedisOptions {
    /// Which program; Debian's Redis unless told.
    pub binary: ServerBinary,
    /// Whether an append-only file is kept, synced every second.
    pub appendonly: bool,
    /// The limit of memory, such as `3mb`; none by default. What is beyond it is refused.
    pub maxmemory: Option<String>,
    /// The password of the default user.
    pub requirepass: Option<String>,
    /// Further lines of configuration, such as `user alice on >secret ~* +@all`.
    pub config: String,
    /// Whether the program watches other servers (Sentinel) in the place of storing anything;
    /// `config` then says which.
    pub sentinel: bool,
}

impl Default for RedisOptions {
    fn default() -> Self {
        Self {
            binary: ServerBinary::Redis,
            appendonly: true,
            maxmemory: None,
            requirepass: None,
            config: String::new(),
            sentinel: false,
        }
    }
}

/// A Redis or Valkey server of this test's own.
#[derive(Debug)]
pub struct RedisServer {
    // The program is dropped before the folder that it writes to.
    program: Option<Program>,
    path: PathBuf,
    options: RedisOptions,
    port: u16,
    dir: TempDir,
}

impl RedisServer {
    /// Starts a server with the default options.
    ///
    /// # Errors
    ///
    /// When there is no binary, or the server does not come up; the message carries its log.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(RedisOptions::default())
    }

    /// Starts a server with the given options.
    ///
    /// # Errors
    ///
    /// When there is no binary, or the server does not come up; the message carries its log.
    pub fn start_with(options: RedisOptions) -> anyhow::Result<Self> {
        let path = options.binary.locate()?;
        let dir = tempfile::Builder::new()
            .prefix("superstep-redis-")
            .tempdir()?;
        std::fs::create_dir(dir.path().join("data"))?;
        let mut server = Self {
            program: None,
            path,
            options,
            port: 0,
            dir,
        };
        for _ in 0..PORT_ATTEMPTS {
            server.port = free_port()?;
            std::fs::write(server.config_path(), server.config_text()?)?;
            match server.bring_up() {
                Ok(()) => return Ok(server),
                Err(_) if server.port_was_taken() => server.program = None,
                Err(error) => return Err(error),
            }
        }
        bail!("no free port for a private Redis in {PORT_ATTEMPTS} attempts")
    }

    /// The port on the loopback address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address without credentials, as `redis://127.0.0.1:<port>/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// The address with a user (empty for the default user) and a password.
    #[must_use]
    pub fn url_as(&self, user: &str, password: &str) -> String {
        format!("redis://{user}:{password}@127.0.0.1:{}/", self.port)
    }

    /// The folder with the append-only file, for tests that put an older one back.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What the server has logged since its first start.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Sends one command on a connection of its own, as the default user.
    ///
    /// # Errors
    ///
    /// When the server cannot be reached or does not reply; an error reply is a [`Reply::Error`].
    pub fn command(&self, command: &[&str]) -> anyhow::Result<Reply> {
        resp::call(self.port, self.options.requirepass.as_deref(), command)
    }

    /// Ends the server at once (SIGKILL), with what it had not yet written lost to its process.
    pub fn kill(&mut self) {
        if let Some(program) = &mut self.program {
            program.kill();
        }
    }

    /// Ends the server politely (SIGTERM).
    pub fn stop(&mut self) {
        if let Some(program) = &mut self.program {
            program.stop();
        }
    }

    /// Halts the server (SIGSTOP): connections stay open, nothing is answered.
    pub fn freeze(&self) {
        if let Some(program) = &self.program {
            program.freeze();
        }
    }

    /// Lets a frozen server go on (SIGCONT).
    pub fn thaw(&self) {
        if let Some(program) = &self.program {
            program.thaw();
        }
    }

    /// Starts the server again on the same port and data; one that runs is stopped first. What
    /// the server itself or a Sentinel has written into its configuration stays.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the message carries its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        self.program = None;
        self.bring_up()
    }

    /// Kills the server and deletes its data; a restart then finds an empty disk.
    ///
    /// # Errors
    ///
    /// When the data cannot be deleted.
    pub fn wipe(&mut self) -> anyhow::Result<()> {
        self.kill();
        std::fs::remove_dir_all(self.data_dir())?;
        std::fs::create_dir(self.data_dir())?;
        Ok(())
    }

    fn bring_up(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.path);
        command.arg(self.config_path()).current_dir(self.dir.path());
        if self.options.sentinel {
            command.arg("--sentinel");
        }
        self.program = Some(Program::spawn("redis-server", command, &self.log_path())?);
        self.until_ready()
    }

    fn config_path(&self) -> PathBuf {
        self.dir.path().join("redis.conf")
    }

    fn config_text(&self) -> anyhow::Result<String> {
        if self.options.sentinel {
            let dir = quoted(&self.data_dir())?;
            return Ok(format!(
                "bind 127.0.0.1\nport {}\ndir {dir}\ndaemonize no\n{}\n",
                self.port, self.options.config
            ));
        }
        let mut text = format!(
            "bind 127.0.0.1\nport {}\ndir {}\ndaemonize no\nsave \"\"\nmaxmemory-policy noeviction\n",
            self.port,
            quoted(&self.data_dir())?,
        );
        if self.options.appendonly {
            text.push_str("appendonly yes\nappendfsync everysec\n");
        }
        if let Some(bytes) = &self.options.maxmemory {
            writeln!(text, "maxmemory {bytes}")?;
        }
        if let Some(password) = &self.options.requirepass {
            writeln!(text, "requirepass {password}")?;
        }
        text.push_str(&self.options.config);
        text.push('\n');
        Ok(text)
    }

    fn until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            // Asking to log in is an answer too: users and passwords are the test's affair.
            match resp::call(self.port, None, &["PING"]) {
                Ok(Reply::Text(_)) => break,
                Ok(Reply::Error(why)) if why.starts_with("NO") => break,
                _ => {}
            }
            let program = self.program.as_mut().expect("the program was just started");
            if let Some(status) = program.ended() {
                bail!(
                    "redis-server ended while starting ({status}); its log ends:\n{}",
                    program.tail()
                );
            }
            if Instant::now() >= deadline {
                bail!(
                    "redis-server does not answer after {READY_WITHIN:?}; its log ends:\n{}",
                    program.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.is_mine()
    }

    /// Makes sure that the answer came from this server and not from another that has the port.
    fn is_mine(&mut self) -> anyhow::Result<()> {
        let program = self.program.as_mut().expect("the program was just started");
        match program.ended() {
            None => Ok(()),
            Some(status) => {
                bail!(
                    "redis-server ended while starting ({status}); its log ends:\n{}",
                    program.tail()
                )
            }
        }
    }

    fn port_was_taken(&self) -> bool {
        self.log()
            .lines()
            .rev()
            .take(5)
            .any(|line| line.contains("Address already in use"))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("redis.log")
    }
}

/// A path as a quoted string of a Redis configuration.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path
        .to_str()
        .context("the temporary folder's path is not UTF-8")?;
    Ok(format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}
