//! `threads`: lists, state, history, delete.
//!
//! Reads the store; only a delete changes anything. What the columns mean is the views'.

use serde_json::json;
use superstep_checkpoint::ThreadQuery;
use superstep_protocol::{GraphName, ThreadId, ThreadStatus, version_of_checkpoint};
use superstep_wire::time::to_rfc3339;
use superstep_worker::{CheckpointView, Client, Sending, Sent};

use crate::{
    args::{PageArgs, ThreadsCommand},
    commands::send,
    exit::{Exit, Failure},
    output::{ASKS, BAD, BOLD, DIM, GOOD, Output, seconds, table},
    reach::Session,
    timeline::{Columns, counted, timeline},
};

pub(crate) async fn run(session: &Session, command: ThreadsCommand) -> Result<Exit, Failure> {
    match command {
        ThreadsCommand::List {
            status,
            graph,
            page,
        } => list(session, status.as_deref(), graph, page).await,
        ThreadsCommand::Get { thread } => get(session, &ThreadId::new(thread)).await,
        ThreadsCommand::History {
            thread,
            limit,
            before,
        } => {
            let thread = ThreadId::new(thread);
            history(session, &thread, limit.into(), before.as_deref()).await
        }
        ThreadsCommand::Delete { thread } => delete(session, &ThreadId::new(thread)).await,
        ThreadsCommand::Retry(args) => send::retry(session, args).await,
    }
}

async fn list(
    session: &Session,
    status: Option<&str>,
    graph: Option<String>,
    page: PageArgs,
) -> Result<Exit, Failure> {
    let status = status.map(str::parse::<ThreadStatus>).transpose();
    let query = ThreadQuery {
        status: status.map_err(|error| Failure::usage(format!("--status: {error}")))?,
        graph: graph.map(GraphName::from),
        limit: page.limit.into(),
        after: page.after,
    };
    let output = session.output;
    let page = session.connect().await?.client().threads(&query).await?;
    let mut rows = table(["thread", "status", "graph", "updated", "created"], &[]);
    let mut values = Vec::new();
    for (thread, row) in &page.rows {
        let (created, updated) = (to_rfc3339(row.created_at), to_rfc3339(row.updated_at));
        rows.add_row([
            thread.to_string(),
            row.status.to_string(),
            row.graph.to_string(),
            seconds(&updated),
            seconds(&created),
        ]);
        values.push(json!({
            "thread_id": thread,
            "status": row.status,
            "graph": row.graph.name,
            "graph_version": row.graph.version,
            "created_at": created,
            "updated_at": updated,
        }));
    }
    output.value(&json!({"threads": values, "next": page.next}))?;
    output.rows(&mut rows, "no threads")?;
    more(output, page.next.as_deref());
    Ok(Exit::Done)
}

/// How to get the next page.
pub(crate) fn more(output: Output, next: Option<&str>) {
    if let Some(next) = next {
        output.note(format!("{DIM}there are more: --after {next}{DIM:#}"));
    }
}

fn unknown(thread: &ThreadId) -> Failure {
    Failure::failed(format!("there is no thread `{thread}`"))
        .with_hint("superstep threads list shows those there are")
}

async fn get(session: &Session, thread: &ThreadId) -> Result<Exit, Failure> {
    let output = session.output;
    let client = session.connect().await?.client();
    let found = client.thread(thread).await?;
    let found = found.ok_or_else(|| unknown(thread))?;
    output.value(&found)?;
    let style = match found.status {
        ThreadStatus::Idle | ThreadStatus::Busy => GOOD,
        ThreadStatus::Interrupted => ASKS,
        ThreadStatus::Error => BAD,
    };
    output.line(format!(
        "{BOLD}{thread}{BOLD:#}  {style}{}{style:#}  {DIM}graph {}@{}, created {}, updated {}{DIM:#}",
        found.status, found.graph, found.graph_version, found.created_at, found.updated_at
    ))?;
    if let Some(topology) = &found.topology {
        output.line(format!("{DIM}topology {topology}{DIM:#}"))?;
    }
    if let Some(why) = &found.waits_for {
        output.line(format!("{BAD}waits{BAD:#}  {why}"))?;
    }
    if let Some(run) = &found.run {
        output.line(format!("run {}  {}", run.run_id, run.status))?;
        if let Some(error) = &run.error {
            output.line(format!(
                "{BAD}error{BAD:#}  {}: {}",
                error.kind, error.message
            ))?;
        }
    }
    for queued in &found.queue {
        let when = match &queued.not_before {
            Some(time) => format!("not before {}", seconds(time)),
            None => format!("since {}", seconds(&queued.queued_at)),
        };
        output.line(format!(
            "queue {}  {}  {DIM}{when}{DIM:#}",
            queued.run_id, queued.status
        ))?;
    }
    if !found.state.next.is_empty() {
        output.line(format!("next  {}", counted(found.state.next.iter())))?;
    }
    if !found.state.values.is_empty() {
        output.line("values")?;
        output.fields(&json!(found.state.values))?;
    }
    if !output.is_json() && !found.state.interrupts.is_empty() {
        for open in client.interrupts_of(thread).await? {
            send::show_interrupt(output, &open)?;
        }
    }
    Ok(Exit::Done)
}

async fn history(
    session: &Session,
    thread: &ThreadId,
    limit: usize,
    before: Option<&str>,
) -> Result<Exit, Failure> {
    let output = session.output;
    let before = before.map(|id| {
        let found = version_of_checkpoint(id);
        found.map(|(version, _)| version).ok_or_else(|| {
            Failure::usage(format!("--before is `{id}`, which is no checkpoint's id"))
                .with_hint("take one from the checkpoint column of the history")
        })
    });
    let client = session.connect().await?.client();
    // One more: what the oldest one shown has changed is seen beside the one before it.
    let mut views = client
        .history(thread, before.transpose()?, limit + 1)
        .await?;
    if views.is_empty() && client.thread(thread).await?.is_none() {
        return Err(unknown(thread));
    }
    let older = if views.len() > limit {
        views.pop()
    } else {
        None
    };
    let values: Vec<_> = views.iter().map(with_time).collect();
    output.value(&json!({"thread_id": thread, "history": values, "more": older.is_some()}))?;
    let mut rows = timeline(&views, older.as_ref(), Columns::Ids);
    output.rows(&mut rows, "no checkpoints yet")?;
    if let (Some(_), Some(last)) = (&older, views.last()) {
        output.note(format!(
            "{DIM}there are older ones: --before {}{DIM:#}",
            last.checkpoint_id
        ));
    }
    Ok(Exit::Done)
}

fn with_time(view: &CheckpointView) -> serde_json::Value {
    let mut value = json!(view);
    value["created_at"] = json!(to_rfc3339(view.created_at));
    value
}

async fn delete(session: &Session, thread: &ThreadId) -> Result<Exit, Failure> {
    let output = session.output;
    let connected = session.connect().await?;
    let client: Client = connected.client();
    let sending = Sending {
        sender: session.settings.sender.clone(),
        ..Sending::default()
    };
    let sent = client.delete(thread, &sending).await?;
    output.value(&sent)?;
    match sent {
        Sent::Refused { refusal, .. } => {
            if !output.is_json() {
                let text = format!("refused as {}: {}", refusal.kind, refusal.message);
                output.failure(&Failure::new(Exit::Refused, text));
            }
            Ok(Exit::Refused)
        }
        Sent::Accepted { .. } | Sent::Stored { .. } => {
            output.line(format!("{GOOD}deleted{GOOD:#}  thread {thread}"))?;
            Ok(Exit::Done)
        }
    }
}
