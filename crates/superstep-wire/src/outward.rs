//! What the protocol says, in the words of the contract.
//!
//! The protocol's types may change with the stored format; the contract's are public for
//! ever. Every event and refusal crosses from one to the other here and nowhere else, so the
//! keys of a refusal's data are written once. Which subject an event goes to, and whether its
//! values fit into a message, is left to whoever publishes it.
//!
//! The rule it keeps: times are text, and no number is larger than programs in other
//! languages can hold.

use serde_json::{Value, json};
use superstep_graph::Breakpoints;
use superstep_protocol::{
    self as protocol, Durability, EventData, Goto, GraphId, ThreadEvent, ThreadId,
};

use crate::{
    Answer, Event, EventKind, InterruptDetail, Refusal, RefusalKind, RunError, time::to_rfc3339,
};

/// An event of `thread`, which `graph` runs. Questions say that they are answered at
/// `resume_subject`. The checkpoint is left absent.
pub fn event(
    told: &ThreadEvent,
    thread: &ThreadId,
    graph: &GraphId,
    resume_subject: &str,
) -> Event {
    let time = to_rfc3339(told.time);
    let kind = word(EventKind::ALL, EventKind::as_str, told.data.kind());
    let mut event = Event {
        run_id: told.run.as_ref().map(ToString::to_string),
        graph: Some(graph.name.to_string()),
        graph_version: Some(graph.version.to_string()),
        record: Some(told.record.to_string()),
        ..Event::new(
            told.id.as_str(),
            kind.unwrap_or(EventKind::Unknown),
            thread.as_str(),
            time.as_str(),
        )
    };
    if let Some((command, sender)) = &told.command {
        event.command_id = Some(command.to_string());
        event.sender.clone_from(sender);
    }
    match &told.data {
        EventData::RunCompleted { values } => event.values = Some(Value::Object(values.clone())),
        EventData::RunFailed { error } | EventData::DeadLetter { error, .. } => {
            event.error = Some(run_error(error));
        }
        EventData::RunCancelled { reason } => event.reason.clone_from(reason),
        EventData::Interrupt {
            interrupt,
            task,
            node,
            index,
            payload,
            expires_at,
        } => {
            event.interrupt = Some(InterruptDetail {
                interrupt_id: interrupt.to_string(),
                task_id: task.to_string(),
                node: node.to_string(),
                checkpoint_ns: String::new(),
                index: u32::try_from(*index).unwrap_or(u32::MAX),
                value: payload.clone(),
                expires_at: expires_at.map(to_rfc3339),
                key: None,
                resume_subject: resume_subject.to_owned(),
            });
        }
        EventData::InterruptExpired { interrupt } | EventData::InterruptDiscarded { interrupt } => {
            event.interrupt_id = Some(interrupt.to_string());
        }
        EventData::ResumeAccepted { answers } => {
            event.answers = answers
                .iter()
                .map(|(interrupt, value)| Answer {
                    interrupt_id: interrupt.to_string(),
                    value: value.clone(),
                    at: time.clone(),
                    sender: event.sender.clone(),
                })
                .collect();
        }
        EventData::UpdateRefused { refusal: why }
        | EventData::ResumeRefused { refusal: why }
        | EventData::StartRefused { refusal: why } => {
            event.refusal = Some(refusal(why));
        }
        // These say everything by their kind.
        EventData::RunStarted
        | EventData::RunQueued
        | EventData::RunStopped
        | EventData::StateUpdated
        | EventData::ThreadDeleted => {}
        other => debug_assert!(false, "{} has no form in the contract", other.kind()),
    }
    event
}

/// Targets as a resume's `goto` says them.
pub fn goto(targets: &[Goto]) -> Value {
    let target = |target: &Goto| match target {
        Goto::Node(node) => json!(node),
        Goto::Send(packet) => json!({"node": packet.node, "input": packet.arg}),
    };
    Value::Array(targets.iter().map(target).collect())
}

/// Breakpoints as `interrupt_before` and `interrupt_after` say them.
pub fn breakpoints(at: &Breakpoints) -> Value {
    match at {
        Breakpoints::None => json!([]),
        Breakpoints::All => json!("*"),
        Breakpoints::Nodes(nodes) => json!(nodes),
    }
}

/// A durability as its word.
pub fn durability(durability: Durability) -> &'static str {
    match durability {
        Durability::Sync => "sync",
        Durability::Exit => "exit",
    }
}

/// Why a run failed.
pub fn run_error(error: &protocol::RunError) -> RunError {
    RunError {
        kind: error.kind.clone(),
        message: error.message.clone(),
        node: error.node.as_ref().map(ToString::to_string),
        task_id: error.task.as_ref().map(ToString::to_string),
    }
}

/// Why a command was refused.
pub fn refusal(refusal: &protocol::Refusal) -> Refusal {
    let kind = word(RefusalKind::ALL, RefusalKind::as_str, refusal.kind());
    Refusal {
        data: data(refusal),
        ..Refusal::new(kind.unwrap_or(RefusalKind::Unknown), refusal.to_string())
    }
}

fn data(refusal: &protocol::Refusal) -> Option<Value> {
    use protocol::Refusal as R;
    Some(match refusal {
        R::TooLarge {
            bytes, bytes_max, ..
        } => json!({"bytes": bytes, "bytes_max": bytes_max}),
        R::UnknownGraph { graph, .. } => json!({"graph": graph}),
        R::WrongGraph { graph, .. } => json!({"graph": graph}),
        R::QueueFull { queued, .. } => json!({"queued": queued}),
        R::UnknownRun { run, .. } => json!({"run_id": run}),
        R::Busy { status, run, .. } => json!({"status": status, "run_id": run}),
        R::NotWaiting { status, .. }
        | R::NothingToRetry { status, .. }
        | R::NothingToCancel { status, .. } => json!({"status": status}),
        R::AlreadyAnswered {
            interrupt,
            at,
            sender,
            command,
            same,
        } => {
            let mut data = json!({
                "interrupt_id": interrupt,
                "answered_at": to_rfc3339(*at),
                "command_id": command,
                "same_value": same,
            });
            if let Some(sender) = sender {
                data["answered_by"] = json!(sender);
            }
            data
        }
        R::Stale {
            interrupt,
            opened_at,
        } => json!({"interrupt_id": interrupt, "opened_at": to_rfc3339(*opened_at)}),
        R::UnknownInterrupt { interrupt, .. }
        | R::Expired { interrupt }
        | R::Cancelled { interrupt, .. } => json!({"interrupt_id": interrupt}),
        R::MissingNode { node, from, to, .. } => {
            json!({"node": node, "from": from.to_string(), "to": to.to_string()})
        }
        R::MigrationFailed {
            from, to, reason, ..
        } => json!({"from": from.to_string(), "to": to.to_string(), "reason": reason}),
        // The message says all of it.
        _ => return None,
    })
}

/// The word of the contract that reads like this; `None` if there is none.
fn word<W: Copy, const N: usize>(
    all: [W; N],
    as_str: impl Fn(W) -> &'static str,
    text: &str,
) -> Option<W> {
    let found = all.into_iter().find(|word| as_str(*word) == text);
    debug_assert!(found.is_some(), "`{text}` is no word of the contract");
    found
}

#[cfg(test)]
mod tests;
