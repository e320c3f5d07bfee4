//! Runs named steps one after the other and tells at the end which failed.
//!
//! What a step does is left to the callers; a step is a command or a function of their own.
//!
//! The rule it keeps: a failing step does not hide the next one. All of them run, each with its
//! time, and the last lines name those that failed.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

/// The steps run so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    ran: Vec<(&'static str, Duration, bool)>,
}

impl Steps {
    /// Runs one step and prints its outcome with its time.
    pub(crate) fn step(&mut self, name: &'static str, run: impl FnOnce() -> anyhow::Result<()>) {
        println!("==> {name}");
        let begin = Instant::now();
        let outcome = run();
        let took = begin.elapsed();
        match &outcome {
            Ok(()) => println!("    {name}: ok in {:.1} s", took.as_secs_f64()),
            Err(error) => {
                println!(
                    "    {name}: FAILED in {:.1} s: {error:#}",
                    took.as_secs_f64()
                );
            }
        }
        self.ran.push((name, took, outcome.is_ok()));
    }

    /// Runs one step that is a command, with its output passed through.
    pub(crate) fn command(&mut self, name: &'static str, command: &mut Command) {
        self.step(name, || run(command));
    }

    /// Prints what failed, if anything; true when nothing did.
    pub(crate) fn finish(self) -> bool {
        let failed: Vec<&str> = self
            .ran
            .iter()
            .filter(|(_, _, ok)| !ok)
            .map(|(name, _, _)| *name)
            .collect();
        let took: Duration = self.ran.iter().map(|(_, took, _)| *took).sum();
        println!();
        if failed.is_empty() {
            println!(
                "all {} steps ok in {:.1} s",
                self.ran.len(),
                took.as_secs_f64()
            );
        } else {
            println!(
                "{} of {} steps failed: {}",
                failed.len(),
                self.ran.len(),
                failed.join(", ")
            );
        }
        failed.is_empty()
    }
}

/// Runs a command with its output passed through, and fails when it fails.
pub(crate) fn run(command: &mut Command) -> anyhow::Result<()> {
    let shown = command.get_program().display().to_string();
    let status = command
        .status()
        .with_context(|| format!("cannot run {shown}"))?;
    ensure!(status.success(), "{shown} ended with {status}");
    Ok(())
}
