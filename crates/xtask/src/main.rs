//! The project's own commands: `cargo xtask verify`, `fix`, `test`, and the parts they are made of.
//!
//! One recipe decides: `verify` runs every check that is not a test and writes nothing, `fix` is
//! the one that edits, `test` runs all tests and brings up what they need by itself. Continuous
//! integration is `verify`, then `test`, then `deploy-check` and `image` with what those built. Beside
//! it, `oracle` asks LangGraph itself. What a check means is left to the tool that makes it.
//!
//! The rule it keeps: nothing is installed into the system. What a machine lacks is put under the
//! target folder, and what cannot be had is said, with what to do about it.

#![expect(
    clippy::print_stdout,
    reason = "a command line tool speaks on its standard output"
)]

mod codegen;
mod debian;
mod deny;
mod deploy;
mod fix;
mod image;
mod oracle;
mod python;
mod servers;
mod steps;
mod test;
mod verify;
mod wheel;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::workspace::Workspace;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "The project's own commands.")]
struct Arguments {
    #[command(subcommand)]
    command: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check that is not a test; write nothing.
    Verify,
    /// Format, apply what the lints suggest, and generate code anew.
    Fix,
    /// Run all tests, with private servers brought up by themselves.
    Test {
        /// Passed on to `cargo test`: a filter, `-p <crate>`, `-- --nocapture`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Get the servers that the tests use, and print the environment that names them.
    Servers,
    /// Write the code that is generated from `proto/` anew.
    Codegen,
    /// Check the manifests and the chart of `deploy/`, without a cluster.
    DeployCheck(deploy::DeployCheck),
    /// Build the image of `deploy/`, without a container engine, and run what is in it.
    Image(image::Image),
    /// Ask real LangGraph whether the recorded cases hold; needs Python and PyPI.
    Oracle(oracle::Oracle),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs one command; false when it ran and found something wrong.
fn run(task: Task) -> anyhow::Result<bool> {
    let workspace = Workspace::find()?;
    match task {
        Task::Verify => Ok(verify::run(&workspace)),
        Task::Fix => Ok(fix::run(&workspace)),
        Task::Test { arguments } => test::run(&workspace, &arguments),
        Task::Servers => servers::print(&workspace).map(|()| true),
        Task::Codegen => codegen::run(&workspace.root, codegen::Mode::Write).map(|()| true),
        Task::DeployCheck(asked) => deploy::run(&workspace, &asked),
        Task::Image(asked) => image::run(&workspace, &asked),
        Task::Oracle(asked) => oracle::run(&workspace, &asked),
    }
}
