//! `cargo xtask test`: all tests, with what they need brought up by itself.
//!
//! It gets the server binaries, builds everything once, runs `cargo test` with its output passed
//! through, and closes with one line of counts. Starting servers is left to the tests.
//!
//! The rule it keeps: every test is counted as exactly one of passed, failed or skipped, and each
//! skip is repeated at the end with its reason.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::servers;
use crate::steps;
use crate::workspace::{Workspace, output_of};

/// How many worlds the simulator runs.
const SEEDS: &str = "SUPERSTEP_SIM_SEEDS";

/// How many, where all tests are run and nobody says otherwise.
const SEEDS_OF_ALL_TESTS: &str = "2000";

/// How many tests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    passed: u64,
    failed: u64,
    skipped: u64,
}

/// Runs the tests; true when none failed.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<bool> {
    let environment = servers::bring_up(workspace)?;
    let notes = workspace.target.join("test-notes");
    std::fs::create_dir_all(&notes)?;
    let skips = notes.join(format!("skips-{}", std::process::id()));
    let pids = notes.join(format!("pids-{}", std::process::id()));
    for file in [&skips, &pids] {
        std::fs::write(file, "")?;
    }

    let scope = scope(arguments);
    if scope.is_some() {
        // Binaries and tests in one build, so that both get the same dependencies.
        steps::run(&mut workspace.cargo(&[
            "build",
            "--workspace",
            "--lib",
            "--bins",
            "--tests",
            "--examples",
        ]))
        .context("the tests do not build")?;
    }
    let mut command = workspace.cargo(&["test", "--no-fail-fast"]);
    command
        .args(scope)
        .args(arguments)
        .envs(environment)
        .env("SUPERSTEP_TEST_SKIPS", &skips)
        .env("SUPERSTEP_TEST_PIDS", &pids);
    if scope.is_some() {
        command.env("SUPERSTEP_TEST_BIN_DIR", workspace.target.join("debug"));
        if std::env::var_os(SEEDS).is_none() {
            command.env(SEEDS, SEEDS_OF_ALL_TESTS);
        }
    }
    let outcome = pass_through(&mut command);
    end_leftovers(&pids);
    let (mut counts, succeeded) = outcome?;

    let skipped = read_skips(&std::fs::read_to_string(&skips)?);
    for file in [&skips, &pids] {
        std::fs::remove_file(file)?;
    }
    counts = counts.with_skips(skipped.len());
    println!();
    for (test, why) in &skipped {
        println!("skipped {test}: {why}");
    }
    if !succeeded && counts.failed == 0 {
        println!("a test binary did not build or ended before it could say what failed");
        counts.failed = 1;
    }
    println!(
        "{} passed, {} failed, {} skipped",
        counts.passed, counts.failed, counts.skipped
    );
    Ok(succeeded)
}

/// The whole workspace, unless the arguments choose packages themselves.
fn scope(arguments: &[String]) -> Option<&'static str> {
    let chosen = arguments
        .iter()
        .take_while(|argument| *argument != "--")
        .any(|argument| {
            argument.starts_with("-p")
                || argument.starts_with("--package")
                || argument == "--workspace"
        });
    (!chosen).then_some("--workspace")
}

/// Runs the command, prints its output as it comes, and adds up the result lines.
fn pass_through(command: &mut Command) -> anyhow::Result<(Counts, bool)> {
    let mut child = command
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run cargo test")?;
    let output = child.stdout.take().expect("the output is piped");
    let mut counts = Counts::default();
    for line in BufReader::new(output).split(b'\n') {
        let line = line?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        counts.add(&line);
    }
    Ok((counts, child.wait()?.success()))
}

impl Counts {
    /// Adds a line of the form `test result: ok. 3 passed; 0 failed; 1 ignored; ...`.
    fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else {
            return;
        };
        let Some((_, numbers)) = result.split_once(". ") else {
            return;
        };
        for part in numbers.split("; ") {
            let mut words = part.split(' ');
            let (Some(Ok(number)), Some(what)) =
                (words.next().map(str::parse::<u64>), words.next())
            else {
                continue;
            };
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.skipped += number,
                _ => {}
            }
        }
    }

    /// Counts tests that skipped themselves, which their harness took for passed.
    fn with_skips(mut self, skips: usize) -> Self {
        let skips = u64::try_from(skips).unwrap_or(u64::MAX);
        self.passed = self.passed.saturating_sub(skips);
        self.skipped += skips;
        self
    }
}

/// The skips noted by the tests, by test, as lines `superstep-skip: <test>: <why>`.
fn read_skips(notes: &str) -> BTreeMap<String, String> {
    notes
        .lines()
        .filter_map(|line| line.strip_prefix("superstep-skip: "))
        .filter_map(|line| line.split_once(": "))
        .map(|(test, why)| (test.to_owned(), why.to_owned()))
        .collect()
}

/// Ends servers that a crashed test binary left running: processes that the tests noted and that
/// still run as one of the programs that tests start.
fn end_leftovers(pids: &Path) {
    for pid in std::fs::read_to_string(pids).unwrap_or_default().lines() {
        let Ok(name) = std::fs::read_to_string(format!("/proc/{pid}/comm")) else {
            continue;
        };
        let ours = ["nats-server", "redis-server", "valkey-server", "superstep"];
        if ours
            .iter()
            .any(|program| name.trim_end().starts_with(program))
        {
            eprintln!(
                "ending {} ({pid}), which a test left running",
                name.trim_end()
            );
            let _ = output_of(Command::new("kill").args(["-KILL", pid]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_added_up() {
        let mut counts = Counts::default();
        for line in [
            "running 3 tests",
            "test a ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 2 filtered out; finished in 0.00s",
            "test result: FAILED. 2 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s",
        ] {
            counts.add(line);
        }
        assert_eq!(
            counts,
            Counts {
                passed: 5,
                failed: 1,
                skipped: 1
            }
        );
    }

    #[test]
    fn a_skipped_test_is_not_counted_as_passed() {
        let notes = "superstep-skip: one: no server\nsuperstep-skip: two: no: really\n\
                     superstep-skip: one: no server\n";
        let skips = read_skips(notes);
        assert_eq!(skips.len(), 2);
        assert_eq!(skips["two"], "no: really");
        let counts = Counts {
            passed: 5,
            failed: 0,
            skipped: 0,
        }
        .with_skips(skips.len());
        assert_eq!(
            counts,
            Counts {
                passed: 3,
                failed: 0,
                skipped: 2
            }
        );
    }

    #[test]
    fn choosing_a_package_replaces_the_workspace() {
        let arguments = |list: &[&str]| list.iter().map(|&a| a.to_owned()).collect::<Vec<_>>();
        assert_eq!(scope(&arguments(&["a_filter"])), Some("--workspace"));
        assert_eq!(scope(&arguments(&["-p", "superstep-graph"])), None);
        assert_eq!(scope(&arguments(&["--", "-p"])), Some("--workspace"));
    }
}
