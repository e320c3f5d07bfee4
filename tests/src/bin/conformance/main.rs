//! The conformance runner: what LangGraph was recorded doing, done by superstep, and compared.
//!
//! `cargo run -p superstep-tests --bin conformance -- PATH...` reads cases in the format of
//! `tests/conformance/FORMAT.md`, builds each case's graph through the dynamic API, performs its
//! operations through the thread API and compares what it sees. The scripted nodes live here, and
//! the library does not know that it is tested. Threads have the `langgraph` profile.
//!
//! The rule it keeps: a case passes only if every operation was performed and compared.

mod args;
mod backend;
mod case;
mod cluster;
mod compare;
mod graphs;
mod handle;
mod observe;
mod ops;
mod recorder;
mod report;
mod run;
mod script;

use std::{io::Write as _, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use clap::Parser as _;

use crate::{args::Args, case::Found, report::Report};

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let args = Args::parse();
    let found = read(&args)?;
    if found.is_empty() {
        anyhow::bail!("no cases at the given paths of the given features; check the names");
    }
    let backends = backend::Backends::start(args.backend)?;
    let verdicts = run::run_all(&found, &Arc::new(backends)).await;
    let report = Report {
        backend: args.backend,
        verdicts: &verdicts,
        cases: found
            .iter()
            .map(|found| (found.name.as_str(), &**found))
            .collect(),
        whole: args.case.is_some(),
    };
    let mut out = std::io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &report.json())?;
        writeln!(out)?;
        eprintln!("{}", report.last_line());
    } else {
        write!(out, "{}", report.text())?;
    }
    out.flush()?;
    let (_, failed) = report.totals();
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// The cases that the arguments name.
fn read(args: &Args) -> anyhow::Result<Vec<Arc<Found>>> {
    let mut all = Vec::new();
    for path in &args.paths {
        let files = case::files_at(path)
            .with_context(|| format!("cannot read the cases at {}", path.display()))?;
        for file in files {
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("cannot read {}", file.display()))?;
            let cases = case::read_cases(&text)
                .with_context(|| format!("{} is no file of cases", file.display()))?;
            all.extend(cases);
        }
    }
    all.retain(|found| {
        let feature =
            args.features.is_empty() || args.features.iter().any(|f| f == found.feature());
        feature && args.case.as_ref().is_none_or(|name| *name == found.name)
    });
    Ok(all.into_iter().map(Arc::new).collect())
}
