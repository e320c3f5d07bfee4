//! `verify`: whether what the store holds is as superstep writes it, and mending what can be.
//!
//! Only the store is asked, so it works while NATS is away. What is checked is the worker
//! crate's; here it is told, a line a finding, as it is found.

use std::io::IsTerminal as _;

use serde_json::json;
use superstep::connect::{ConnectError, connect_store};
use superstep_protocol::ThreadId;
use superstep_worker::{Step, Verifier, Wrong};

use crate::{
    args::VerifyArgs,
    exit::{Exit, Failure},
    output::{ASKS, BAD, BOLD, DIM, GOOD, Output},
    reach::Session,
    settings::Place,
};

pub(crate) async fn run(session: &Session, args: VerifyArgs) -> Result<Exit, Failure> {
    match &session.settings.place {
        Place::Cluster { .. } => {
            let cluster = session.settings.connect.check().map_err(ConnectError::from);
            let cluster = cluster.map_err(|error| session.failure(&error))?;
            let store = Box::pin(connect_store(&cluster)).await;
            let (log, inspect) = store.map_err(|error| session.failure(&error))?;
            verify(session.output, &Verifier::new(log, inspect), args).await
        }
        Place::Folder(_) => {
            // The folder is held for as long as it is read.
            let connected = session.connect().await?;
            let (log, inspect) = (connected.log.clone(), connected.inspect.clone());
            verify(session.output, &Verifier::new(log, inspect), args).await
        }
    }
}

async fn verify(output: Output, verifier: &Verifier, args: VerifyArgs) -> Result<Exit, Failure> {
    let verifier = verifier.clone().with_repair(args.repair);
    let shows_progress = !output.is_json() && std::io::stderr().is_terminal();
    let mut told = Ok(());
    let step = |step: Step| match step {
        Step::Checked(threads) => {
            if shows_progress {
                output.note(format!("{DIM}{threads} threads read{DIM:#}"));
            }
        }
        Step::Wrong(wrong) => {
            if told.is_ok() {
                told = tell(output, &wrong);
            }
        }
    };
    let summary = match &args.thread {
        Some(thread) => Box::pin(verifier.one(&ThreadId::new(thread.as_str()), step)).await,
        None => Box::pin(verifier.all(step)).await,
    };
    let summary = summary?;
    told?;
    let left = summary.wrong - summary.repaired;
    output.value(&json!({"ok": left == 0, "summary": summary}))?;
    let read = format!("{} threads, {} records", summary.threads, summary.records);
    output.line(match (summary.wrong, left) {
        (0, _) => format!("{GOOD}all is as it should be{GOOD:#}  {DIM}{read}{DIM:#}"),
        (wrong, 0) => format!("{GOOD}{wrong} wrong, all mended{GOOD:#}  {DIM}{read}{DIM:#}"),
        (wrong, left) => format!("{BAD}{wrong} wrong, {left} left{BAD:#}  {DIM}{read}{DIM:#}"),
    })?;
    Ok(if left == 0 { Exit::Done } else { Exit::Failed })
}

fn tell(output: Output, wrong: &Wrong) -> Result<(), Failure> {
    output.value(wrong)?;
    let record = wrong.record.map(|version| format!(" record {version}"));
    let mended = if wrong.repaired {
        format!("  {ASKS}mended{ASKS:#}")
    } else {
        String::new()
    };
    output.line(format!(
        "{BAD}{}{BAD:#}  {BOLD}{}{BOLD:#}{}  {}: {}{mended}\n  {DIM}{}{DIM:#}",
        wrong.check,
        wrong.thread_id,
        record.unwrap_or_default(),
        wrong.subject,
        wrong.detail,
        wrong.meaning
    ))
}
