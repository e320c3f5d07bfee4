//! The command line of superstep, as a library: hand it your graphs and it is yours.
//!
//! A platform team's whole program is one line, `superstep_cli::main(graphs)`; the `superstep`
//! binary is the same line with the guide's graphs. Every subcommand is a file of its own under
//! `commands`. What a graph means, how threads are stored and how work is handed over is left
//! to the crates below; here are arguments, settings, text and exit codes.
//!
//! The rule it keeps: what people read goes to standard output as tables, what machines read
//! as JSON (`--json`), what went wrong to standard error, and the exit code says which it was.

mod app;
mod args;
mod bench;
mod commands;
mod example;
mod exit;
mod health;
mod json_arg;
mod logging;
mod output;
mod prompt;
mod reach;
mod settings;
mod telemetry;
mod timeline;

pub use app::{App, main};
pub use example::{Choice, Example};
pub use exit::Exit;
pub use superstep_worker::{Graphs, RunnableGraph};
