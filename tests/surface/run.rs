//! Running the binary: in a folder of the test's own, with a bound on its time.
//!
//! Variables of the environment that the binary would read are taken away, so that the machine's
//! settings change no test.

use std::{
    io::Read,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use superstep_tests::{Program, worker_binary};
use tempfile::TempDir;

/// How long a command may take that waits for nothing. Machines that build meanwhile are slow.
const WITHIN: Duration = Duration::from_secs(60);

/// What a command said.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) took: Duration,
}

impl Ran {
    /// Checks the exit code.
    #[track_caller]
    pub(crate) fn code(self, expected: i32) -> Self {
        assert_eq!(self.code, Some(expected), "{self:#?}");
        self
    }

    /// Checks that standard error says all of `parts`.
    #[track_caller]
    pub(crate) fn says(self, parts: &[&str]) -> Self {
        for part in parts {
            assert!(self.stderr.contains(part), "{part} is not in {self:#?}");
        }
        self
    }

    /// The one JSON value on standard output.
    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }
}

/// A folder to run the binary in.
pub(crate) struct Shell {
    dir: TempDir,
}

impl Shell {
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The binary with `args`, not started yet.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(worker_binary("superstep").unwrap());
        for (name, _) in std::env::vars_os() {
            let named = name.to_string_lossy().into_owned();
            if named.starts_with("SUPERSTEP_") || named.starts_with("OPENAI_") {
                command.env_remove(name);
            }
        }
        command
            .args(args)
            .current_dir(self.dir())
            .env("SUPERSTEP_OUTBOX", "outbox.jsonl")
            .env("USER", "ann");
        command
    }

    /// Runs the binary to its end.
    #[track_caller]
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, &[], "")
    }

    /// Runs the binary to its end with variables and with text on standard input.
    #[track_caller]
    pub(crate) fn run_with(&self, args: &[&str], variables: &[(&str, &str)], input: &str) -> Ran {
        // Finding the binary may mean building it.
        let mut command = self.command(args);
        let began = Instant::now();
        let input_file = self.dir().join("stdin");
        std::fs::write(&input_file, input).unwrap();
        let mut child = command
            .envs(variables.iter().copied())
            .stdin(std::fs::File::open(input_file).unwrap())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = read(child.stdout.take().unwrap());
        let stderr = read(child.stderr.take().unwrap());
        let deadline = began + WITHIN;
        let status = loop {
            if let Some(status) = child.try_wait().unwrap() {
                break Some(status);
            }
            if Instant::now() >= deadline {
                child.kill().unwrap();
                child.wait().unwrap();
                break None;
            }
            thread::sleep(Duration::from_millis(2));
        };
        let ran = Ran {
            code: status.and_then(|status| status.code()),
            stdout: stdout.join().unwrap(),
            stderr: stderr.join().unwrap(),
            took: began.elapsed(),
        };
        assert!(status.is_some(), "{args:?} did not end: {ran:#?}");
        ran
    }

    /// Starts the binary in the background; its output goes to a log.
    #[track_caller]
    pub(crate) fn spawn(&self, name: &str, args: &[&str]) -> Program {
        let log = self.dir().join(format!("{name}.log"));
        Program::spawn(name, self.command(args), &log).unwrap()
    }
}

fn read(mut from: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        from.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    })
}
