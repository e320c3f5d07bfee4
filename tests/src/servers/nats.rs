//! A private NATS server, with JetStream unless told otherwise.
//!
//! Authorization, TLS and limits are further text of its configuration file, which a test writes
//! in NATS's own form. What streams there are is left to the code under test.
//!
//! The rule it keeps: `start` and `restart` return when the server speaks its protocol to a client,
//! which it does only after JetStream is up.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use tempfile::TempDir;

use super::ServerBinary;
use super::ports::free_port;
use crate::Program;

/// How long a server may take until it answers.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// How many ports are tried when another process is faster.
const PORT_ATTEMPTS: usize = 8;

/// What a private NATS is started with.
#[derive(Clone, Debug)]
pub struct NatsOptions {
    /// Which program; Debian's NATS unless told.
    pub binary: ServerBinary,
    /// Whether JetStream is on.
    pub jetstream: bool,
    /// Further lines inside the `jetstream` block, such as `max_file_store: 10MB`.
    pub jetstream_config: String,
    /// Further lines of the configuration, such as `authorization { token: secret }`.
    pub config: String,
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            binary: ServerBinary::Nats,
            jetstream: true,
            jetstream_config: String::new(),
            config: String::new(),
        }
    }
}

/// A NATS server of this test's own.
#[derive(Debug)]
pub struct NatsServer {
    // The program is dropped before the folder that it writes to.
    program: Option<Program>,
    path: PathBuf,
    options: NatsOptions,
    port: u16,
    dir: TempDir,
}

impl NatsServer {
    /// Starts a server with the default options.
    ///
    /// # Errors
    ///
    /// When there is no binary, or the server does not come up; the message carries its log.
    pub fn start() -> anyhow::Result<Self> {
        Self::start_with(NatsOptions::default())
    }

    /// Starts a server with the given options.
    ///
    /// # Errors
    ///
    /// When there is no binary, or the server does not come up; the message carries its log.
    pub fn start_with(options: NatsOptions) -> anyhow::Result<Self> {
        let mut server = Self::new(options)?;
        for _ in 0..PORT_ATTEMPTS {
            server.port = free_port()?;
            match server.bring_up() {
                Ok(()) => return Ok(server),
                Err(_) if server.port_was_taken() => server.program = None,
                Err(error) => return Err(error),
            }
        }
        bail!("no free port for a private NATS in {PORT_ATTEMPTS} attempts")
    }

    /// Starts a server on a port that was found to be free a moment ago.
    pub(super) fn start_on(port: u16, options: NatsOptions) -> anyhow::Result<Self> {
        let mut server = Self::new(options)?;
        server.port = port;
        server.bring_up()?;
        Ok(server)
    }

    fn new(options: NatsOptions) -> anyhow::Result<Self> {
        let path = options.binary.locate()?;
        let dir = tempfile::Builder::new()
            .prefix("superstep-nats-")
            .tempdir()?;
        Ok(Self {
            program: None,
            path,
            options,
            port: 0,
            dir,
        })
    }

    /// The port on the loopback address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The address without credentials, as `nats://127.0.0.1:<port>`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// The folder of the JetStream store.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What the server has logged since its first start.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Ends the server at once (SIGKILL).
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

    /// Starts the server again on the same port and data; one that runs is stopped first.
    ///
    /// # Errors
    ///
    /// When the server does not come up; the message carries its log.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        self.stop();
        self.program = None;
        self.bring_up()
    }

    /// Kills the server and deletes its streams; a restart then finds an empty disk.
    ///
    /// # Errors
    ///
    /// When the store cannot be deleted.
    pub fn wipe(&mut self) -> anyhow::Result<()> {
        self.kill();
        let data = self.data_dir();
        if data.exists() {
            std::fs::remove_dir_all(&data)
                .with_context(|| format!("cannot delete {}", data.display()))?;
        }
        Ok(())
    }

    fn bring_up(&mut self) -> anyhow::Result<()> {
        let config = self.dir.path().join("nats.conf");
        std::fs::write(&config, self.config_text()?)?;
        let mut command = Command::new(&self.path);
        command
            .arg("--config")
            .arg(&config)
            .current_dir(self.dir.path());
        self.program = Some(Program::spawn("nats-server", command, &self.log_path())?);
        self.until_ready()
    }

    fn config_text(&self) -> anyhow::Result<String> {
        let mut text = format!("host: 127.0.0.1\nport: {}\n", self.port);
        if self.options.jetstream {
            let store = quoted(&self.data_dir())?;
            let more = &self.options.jetstream_config;
            writeln!(text, "jetstream {{\n  store_dir: {store}\n  {more}\n}}")?;
        }
        text.push_str(&self.options.config);
        text.push('\n');
        Ok(text)
    }

    fn until_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            let answers = greets(self.port).is_ok();
            let program = self.program.as_mut().expect("the program was just started");
            // Asked after the greeting, so that it cannot have come from another server there.
            if let Some(status) = program.ended() {
                bail!(
                    "nats-server ended while starting ({status}); its log ends:\n{}",
                    program.tail()
                );
            }
            if answers {
                return Ok(());
            }
            if Instant::now() >= deadline {
                bail!(
                    "nats-server does not answer after {READY_WITHIN:?}; its log ends:\n{}",
                    program.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn port_was_taken(&self) -> bool {
        self.log()
            .lines()
            .rev()
            .take(5)
            .any(|line| line.contains("address already in use"))
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("nats.log")
    }
}

/// Whether a NATS server on the port greets a client and, where it lets strangers in, answers them.
fn greets(port: u16) -> anyhow::Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut reader = BufReader::new(stream);
    let mut info = String::new();
    reader.read_line(&mut info)?;
    ensure!(info.starts_with("INFO "), "not a NATS server: {info}");
    if info.contains("\"tls_required\":true") {
        return Ok(());
    }
    reader
        .get_mut()
        .write_all(b"CONNECT {\"verbose\":false}\r\nPING\r\n")?;
    let mut answer = String::new();
    reader.read_line(&mut answer)?;
    // Being turned away is an answer too: credentials are the test's affair.
    ensure!(
        answer.starts_with("PONG") || answer.starts_with("-ERR"),
        "no answer: {answer}"
    );
    Ok(())
}

/// A path as a quoted string of a NATS configuration.
fn quoted(path: &Path) -> anyhow::Result<String> {
    let text = path
        .to_str()
        .context("the temporary folder's path is not UTF-8")?;
    Ok(format!(
        "\"{}\"",
        text.replace('\\', "\\\\").replace('"', "\\\"")
    ))
}
