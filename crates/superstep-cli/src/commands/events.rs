//! `events`: what happens, as it happens.
//!
//! One line an event; for machines its body as it was published. Ends from the keyboard, after
//! a number of events, or after a time.

use std::{future::pending, time::Duration};

use serde_json::Value;
use superstep_protocol::{GraphName, ThreadId};
use superstep_queue::EventFilter;
use superstep_wire::{Event, EventKind};

use crate::{
    args::EventsArgs,
    exit::{Exit, Failure},
    output::{ASKS, BAD, DIM, GOOD, Output, short_json},
    reach::Session,
};

/// The longest text of one value.
const VALUE_CHARS_MAX: usize = 100;

pub(crate) async fn run(session: &Session, args: EventsArgs) -> Result<Exit, Failure> {
    let output = session.output;
    if let Some(kind) = &args.kind
        && !EventKind::ALL.iter().any(|known| known.as_str() == kind)
    {
        let known: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        return Err(Failure::usage(format!(
            "--kind is `{kind}`; it must be one of {}",
            known.join(", ")
        )));
    }
    let client = session.connect().await?.client();
    let filter = EventFilter {
        kind: args.kind,
        graph: args.graph.map(GraphName::from),
        thread: args.thread.map(ThreadId::from),
        from_start: args.from_start,
    };
    let mut feed = client.events(&filter).await?;
    output.note(format!("{DIM}following events; Ctrl-C ends it{DIM:#}"));
    let over = over(args.timeout);
    tokio::pin!(over);
    let mut seen = 0;
    while args.count.is_none_or(|count| seen < count) {
        tokio::select! {
            next = feed.next() => {
                let Some((event, body)) = next? else { break };
                tell(output, &event, &body)?;
                seen += 1;
            }
            _ = tokio::signal::ctrl_c() => return Ok(Exit::Done),
            () = &mut over => {
                return match args.count {
                    None => Ok(Exit::Done),
                    Some(count) => Err(Failure::new(
                        Exit::TimedOut,
                        format!("{seen} of {count} events came in time"),
                    )),
                };
            }
        }
    }
    Ok(Exit::Done)
}

async fn over(timeout: Option<Duration>) {
    match timeout {
        Some(timeout) => tokio::time::sleep(timeout).await,
        None => pending().await,
    }
}

fn tell(output: Output, event: &Event, body: &[u8]) -> Result<(), Failure> {
    if output.is_json() {
        // As it was published: it may say more than this version knows.
        let body: Value = serde_json::from_slice(body)
            .map_err(|error| Failure::failed(format!("an event is no JSON: {error}")))?;
        return output.value(&body);
    }
    let style = match event.kind {
        EventKind::Interrupt | EventKind::InterruptExpired => ASKS,
        EventKind::RunFailed
        | EventKind::DeadLetter
        | EventKind::RunCancelled
        | EventKind::StartRefused
        | EventKind::ResumeRefused
        | EventKind::CancelRefused
        | EventKind::UpdateRefused
        | EventKind::RetryRefused => BAD,
        _ => GOOD,
    };
    output.line(format!(
        "{DIM}{}{DIM:#}  {style}{:<16}{style:#}  {}  {}",
        event.time,
        event.kind.as_str(),
        event.thread_id,
        detail(event)
    ))
}

/// What an event says beside its kind, in one line.
fn detail(event: &Event) -> String {
    let mut said = Vec::new();
    if let Some(interrupt) = &event.interrupt {
        said.push(format!(
            "{} asks {} ({})",
            interrupt.node,
            short_json(&interrupt.value, VALUE_CHARS_MAX),
            interrupt.interrupt_id
        ));
    }
    said.extend(event.interrupt_id.clone());
    for answer in &event.answers {
        said.push(format!(
            "{} is {}",
            answer.interrupt_id,
            short_json(&answer.value, VALUE_CHARS_MAX)
        ));
    }
    if let Some(values) = &event.values {
        said.push(short_json(values, VALUE_CHARS_MAX));
    }
    if let Some(error) = &event.error {
        said.push(format!("{}: {}", error.kind, error.message));
    }
    if let Some(refusal) = &event.refusal {
        said.push(format!("{}: {}", refusal.kind, refusal.message));
    }
    said.extend(event.reason.clone());
    if let Some(sender) = &event.sender {
        said.push(format!("by {sender}"));
    }
    said.join("  ")
}
