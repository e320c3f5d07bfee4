//! The arguments of every subcommand, as clap reads them.
//!
//! Only their shape and help; what they mean is checked where they are used. Each subcommand's
//! help ends with examples that can be copied.

use clap::{Args, Parser, Subcommand};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "superstep",
    version,
    about = "Durable graphs with people in the loop, on NATS and Redis",
    disable_help_subcommand = true,
    after_help = EXIT_CODES
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
    0  done; also a run that stopped at a question
    1  the operation failed, a run ended in an error, or `doctor` found something
    2  wrong arguments or settings, or credentials that a server refuses
    3  refused: nothing was changed, the message says why
    4  a server could not be reached
    5  what was waited for did not come in time
    6  a worker handed back unfinished deliveries when it ended
  130  stopped from the keyboard";

/// What every subcommand takes.
#[derive(Debug, Default, Args)]
pub(crate) struct GlobalArgs {
    /// JSON for machines in the place of tables for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a graph here and now: it asks, is answered, finishes, and shows its checkpoints
    Demo(DemoArgs),
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep demo
  superstep demo email --answer '{\"approved\": false}'
  superstep demo multi --answer '{\"edited_draft\": \"b\"}' --answer '{\"approved_draft\": \"c\"}'
  superstep --json demo | jq .values")]
pub(crate) struct DemoArgs {
    /// The graph; the first example if left out
    pub(crate) graph: Option<String>,
    /// The graph's input: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    pub(crate) input: Option<String>,
    /// An answer, in the order of the questions: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    pub(crate) answer: Vec<String>,
}
