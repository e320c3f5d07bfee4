//! A child process that a test owns: a server or a worker.
//!
//! It can be killed, stopped, frozen and thawed, and its output is kept in a file, of which the end
//! is shown when the test that owns it fails. How to tell that it is ready is left to its users.
//!
//! The rule it keeps: no process outlives its value. Each is also noted in the file named by
//! `SUPERSTEP_TEST_PIDS`, so that `cargo xtask test` can end what a crashed test binary left.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How many of the last log lines a failing test shows.
const TAIL_LINES: usize = 60;

/// How long a program gets to end after a polite request before it is killed.
const STOP_WITHIN: Duration = Duration::from_secs(10);

/// A running child process with its log.
#[derive(Debug)]
pub struct Program {
    name: String,
    child: Child,
    log: PathBuf,
    ended: Option<ExitStatus>,
}

impl Program {
    /// Runs `command` with both its outputs appended to the file `log`.
    ///
    /// # Errors
    ///
    /// When the program cannot be started or the log cannot be written.
    pub fn spawn(name: &str, mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let out = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("cannot write the log of {name}: {}", log.display()))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("cannot start {name}: {}", command.get_program().display()))?;
        note_pid(child.id());
        Ok(Self {
            name: name.to_owned(),
            child,
            log: log.to_owned(),
            ended: None,
        })
    }

    /// The operating system's number of this process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What the program has written so far, on both outputs.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// The most memory that the program has held at once, in bytes; 0 where the system does not say.
    #[must_use]
    pub fn memory_peak_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()));
        let status = status.unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_default() * 1024
    }

    /// How the program ended, or nothing while it runs.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        if self.ended.is_none() {
            self.ended = self.child.try_wait().ok().flatten();
        }
        self.ended
    }

    /// Waits until the program ends by itself.
    ///
    /// # Errors
    ///
    /// When it still runs after `within`.
    pub fn wait(&mut self, within: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(status) = self.ended() {
                return Ok(status);
            }
            if Instant::now() >= deadline {
                bail!(
                    "{} still runs after {within:?}; its log ends:\n{}",
                    self.name,
                    self.tail()
                );
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Ends the program at once (SIGKILL) and waits until it is gone.
    pub fn kill(&mut self) {
        if self.ended().is_none() {
            // Failing means that it ended between the two calls, which the wait then sees.
            let _ = self.child.kill();
            self.ended = self.child.wait().ok();
        }
    }

    /// Asks the program to end (SIGTERM), waits, and kills it if it does not.
    pub fn stop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.signal(Signal::CONT);
        self.signal(Signal::TERM);
        if self.wait(STOP_WITHIN).is_err() {
            self.kill();
        }
    }

    /// Asks the program to end (SIGTERM) and returns at once.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Halts the program where it stands (SIGSTOP): its connections stay open and deaf.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a frozen program go on (SIGCONT).
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The last lines of the log.
    #[must_use]
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n")
    }

    fn signal(&self, signal: Signal) {
        // The child is not reaped before `ended` says so, so the number cannot be another's.
        if self.ended.is_none() {
            let _ = kill_process(Pid::from_child(&self.child), signal);
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            eprintln!(
                "--- the log of {} ({}) ends:\n{}\n---",
                self.name,
                self.pid(),
                self.tail()
            );
        }
    }
}

/// Adds the process to the file of processes, if this run keeps one.
fn note_pid(pid: u32) {
    if let Some(path) = std::env::var_os("SUPERSTEP_TEST_PIDS").filter(|path| !path.is_empty()) {
        let file: std::io::Result<File> = OpenOptions::new().create(true).append(true).open(path);
        // Losing the note costs only the sweep after a crash.
        let _ = file.and_then(|mut file| writeln!(file, "{pid}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_gone_when_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let program = Program::spawn("sleep", command, &dir.path().join("log")).unwrap();
        let pid = Pid::from_child(&program.child);
        assert!(rustix::process::test_kill_process(pid).is_ok());
        drop(program);
        assert!(rustix::process::test_kill_process(pid).is_err());
    }

    #[test]
    fn a_frozen_program_still_stops_when_asked() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let mut program = Program::spawn("sleep", command, &dir.path().join("log")).unwrap();
        program.freeze();
        program.stop();
        assert!(program.ended().is_some_and(|status| !status.success()));
    }

    #[test]
    fn both_outputs_are_kept_in_the_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo to-stdout; echo to-stderr >&2"]);
        let mut program = Program::spawn("sh", command, &dir.path().join("log")).unwrap();
        assert!(program.wait(Duration::from_secs(10)).unwrap().success());
        assert!(program.log().contains("to-stdout") && program.log().contains("to-stderr"));
    }
}
