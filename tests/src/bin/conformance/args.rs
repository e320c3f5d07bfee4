//! Arguments: which cases, on what, and how to tell.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Runs recorded cases of LangGraph on superstep and says where the two differ.
#[derive(Debug, Parser)]
#[command(name = "conformance")]
pub(crate) struct Args {
    /// Files of cases, or folders that hold some.
    #[arg(required = true)]
    pub(crate) paths: Vec<PathBuf>,
    /// Where the threads live.
    #[arg(long, value_enum, default_value_t = BackendKind::Memory)]
    pub(crate) backend: BackendKind,
    /// Only cases of these features, which are the first parts of their names.
    #[arg(long, value_delimiter = ',')]
    pub(crate) features: Vec<String>,
    /// Only this case, with all of what was expected and seen where it differs.
    #[arg(long)]
    pub(crate) case: Option<String>,
    /// Print JSON and no table.
    #[arg(long)]
    pub(crate) json: bool,
}

/// Where the threads of a case live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum BackendKind {
    /// In this process.
    Memory,
    /// In a file.
    Sqlite,
    /// In Redis, run by workers over NATS; private servers are started for it.
    Cluster,
}

impl BackendKind {
    /// The name that `--backend` takes.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Sqlite => "sqlite",
            Self::Cluster => "cluster",
        }
    }
}
