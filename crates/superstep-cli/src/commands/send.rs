//! `start`, `resume`, `cancel`, `update`, `retry`: a command is sent, and its outcome told.
//!
//! With `--wait` also the run's end. Whoever waits subscribes before it sends, so nothing is
//! missed. Which outcome it is belongs to the workers; here it becomes text and an exit code.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value, json};
use superstep_protocol::{CommandId, GraphName, ThreadId};
use superstep_wire::{
    CancelCommand, ResumeCommand, RetryCommand, RunConfig, StartCommand, UpdateCommand,
};
use superstep_worker::{Client, Ended, OpenInterrupt, RunEnd, Sending, Sent, Watching};
use tokio::time::Instant;

use crate::{
    args::{CancelArgs, ResumeArgs, RetryArgs, SendArgs, StartArgs, UpdateArgs},
    exit::{Exit, Failure},
    json_arg,
    output::{ASKS, BAD, BOLD, DIM, GOOD, Output},
    reach::Session,
};

/// How long to wait for a command's outcome unless told.
const OUTCOME_WAIT: Duration = Duration::from_secs(10);
/// How long to wait for a run's end unless told.
const RUN_WAIT: Duration = Duration::from_secs(600);

pub(crate) async fn start(session: &Session, args: StartArgs) -> Result<Exit, Failure> {
    let object = |name: &str, text: &Option<String>| match text {
        None => Ok(BTreeMap::new()),
        Some(text) => match json_arg::read(name, text)? {
            Value::Object(object) => Ok(object.into_iter().collect()),
            other => Err(Failure::usage(format!(
                "{name} is {other}; give a JSON object"
            ))),
        },
    };
    let input = args
        .input
        .as_deref()
        .map(|text| json_arg::read("the input", text));
    let command = StartCommand {
        thread_id: args.thread.clone(),
        run_id: args.run,
        input: input.transpose()?,
        config: Some(RunConfig {
            recursion_limit: args.recursion_limit,
            configurable: object("--configurable", &args.configurable)?,
            tags: Vec::new(),
        })
        .filter(|config| *config != RunConfig::default()),
        metadata: object("--metadata", &args.metadata)?,
        graph_version: args.graph_version,
        checkpoint_id: args.checkpoint,
        multitask_strategy: args.strategy.map(|strategy| strategy.to_string()),
        after_seconds: args.after,
        interrupt_before: args.stops.before(),
        interrupt_after: args.stops.after(),
        ..StartCommand::default()
    };
    let connected = session.connect().await?;
    let client = connected.client();
    let mut sending = Dispatch::new(session, &args.send, args.wait);
    // The thread of a start that names none is named after the command.
    let id = sending
        .how
        .command_id
        .get_or_insert_with(|| client.new_command_id());
    let thread = args
        .thread
        .map_or_else(|| client.thread_of(id), ThreadId::from);
    let watching = sending.watch(&client, &thread).await?;
    let graph = GraphName::new(args.graph);
    let sent = client.start(&graph, command, &sending.how).await?;
    sending.tell(sent, watching).await
}

pub(crate) async fn resume(session: &Session, args: ResumeArgs) -> Result<Exit, Failure> {
    let read = |name: &str, text: &Option<String>| {
        let text = text.as_deref();
        text.map(|text| json_arg::read(name, text)).transpose()
    };
    let goto: Vec<Value> = args.goto.iter().map(|target| goto(target)).collect();
    let command = ResumeCommand {
        resume: read("the answer", &args.answer)?,
        interrupt_id: args.interrupt,
        update: read("--update", &args.update)?,
        goto: (!goto.is_empty()).then_some(Value::Array(goto)),
        config: limit(args.recursion_limit),
        checkpoint_id: args.checkpoint,
        interrupt_before: args.stops.before(),
        interrupt_after: args.stops.after(),
        ..ResumeCommand::default()
    };
    let client = session.connect().await?.client();
    let thread = ThreadId::new(args.thread);
    let sending = Dispatch::new(session, &args.send, args.wait);
    let watching = sending.watch(&client, &thread).await?;
    let sent = client.resume(&thread, command, &sending.how).await?;
    sending.tell(sent, watching).await
}

pub(crate) async fn cancel(session: &Session, args: CancelArgs) -> Result<Exit, Failure> {
    let command = CancelCommand {
        reason: args.reason,
        run_id: args.run,
        action: args.rollback.then(|| "rollback".to_owned()),
    };
    let client = session.connect().await?.client();
    let sending = Dispatch::new(session, &args.send, false);
    let thread = ThreadId::new(args.thread);
    let sent = client.cancel(&thread, &command, &sending.how).await?;
    sending.tell(sent, None).await
}

pub(crate) async fn update(session: &Session, args: UpdateArgs) -> Result<Exit, Failure> {
    let command = UpdateCommand {
        values: Some(json_arg::read("the values", &args.values)?),
        as_node: args.as_node,
        checkpoint_id: args.checkpoint,
        graph: args.graph,
        ..UpdateCommand::default()
    };
    let client = session.connect().await?.client();
    let sending = Dispatch::new(session, &args.send, false);
    let thread = ThreadId::new(args.thread);
    let sent = client.update(&thread, &command, &sending.how).await?;
    sending.tell(sent, None).await
}

pub(crate) async fn retry(session: &Session, args: RetryArgs) -> Result<Exit, Failure> {
    let client = session.connect().await?.client();
    let thread = ThreadId::new(args.thread);
    let sending = Dispatch::new(session, &args.send, args.wait);
    let watching = sending.watch(&client, &thread).await?;
    let command = RetryCommand {
        checkpoint_id: args.from,
        config: limit(args.recursion_limit),
        ..RetryCommand::default()
    };
    let sent = client.retry(&thread, command, &sending.how).await?;
    sending.tell(sent, watching).await
}

/// A target: a packet if it is JSON of one, else a node by its name.
fn goto(target: &str) -> Value {
    let packet = serde_json::from_str(target).ok().filter(Value::is_object);
    packet.unwrap_or_else(|| Value::from(target))
}

/// The settings of a run that goes on.
fn limit(recursion_limit: Option<u32>) -> Option<RunConfig> {
    recursion_limit.map(|limit| RunConfig {
        recursion_limit: Some(limit),
        ..RunConfig::default()
    })
}

/// One command on its way.
struct Dispatch {
    output: Output,
    how: Sending,
    wait: bool,
    deadline: Instant,
}

impl Dispatch {
    fn new(session: &Session, args: &SendArgs, wait: bool) -> Self {
        let default = if wait { RUN_WAIT } else { OUTCOME_WAIT };
        let timeout = args.timeout.unwrap_or(default);
        let outcome_wait = if wait {
            timeout.min(OUTCOME_WAIT)
        } else {
            timeout
        };
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let user = || variable("USER");
        Self {
            output: session.output,
            how: Sending {
                command_id: args.id.clone().map(CommandId::from),
                sender: session.settings.sender.clone().or_else(user),
                // The names that whoever starts a program within a trace uses.
                traceparent: variable("TRACEPARENT"),
                tracestate: variable("TRACESTATE"),
                wait: outcome_wait,
            },
            wait,
            deadline: Instant::now() + timeout,
        }
    }

    async fn watch(&self, client: &Client, thread: &ThreadId) -> Result<Option<Watching>, Failure> {
        if !self.wait {
            return Ok(None);
        }
        Ok(Some(client.watch(thread).await?))
    }

    /// Says what became of the command, and of its run if it is waited for.
    async fn tell(self, sent: Sent, watching: Option<Watching>) -> Result<Exit, Failure> {
        let output = self.output;
        if let Sent::Refused { refusal, .. } = &sent {
            output.value(&sent)?;
            if !output.is_json() {
                let kind = refusal.kind;
                output.failure(&Failure::new(
                    Exit::Refused,
                    format!("refused as {kind}: {}", refusal.message),
                ));
            }
            return Ok(Exit::Refused);
        }
        if let Sent::Accepted { .. } = &sent {
            let run = sent.run_id().map(|run| format!("  run {run}"));
            output.line(format!(
                "{GOOD}accepted{GOOD:#}  thread {}{}",
                sent.thread_id(),
                run.unwrap_or_default()
            ))?;
        }
        let (Some(watching), Some(run)) = (watching, sent.run_id().cloned()) else {
            output.value(&sent)?;
            return match sent {
                Sent::Stored { waited_ms, .. } => Err(no_outcome(output, waited_ms)),
                _ => Ok(Exit::Done),
            };
        };
        let left = self.deadline.saturating_duration_since(Instant::now());
        let end = tokio::select! {
            end = Box::pin(watching.run_end(&run, left)) => end?,
            _ = tokio::signal::ctrl_c() => {
                output.note(format!("stopped waiting; run {run} goes on"));
                return Ok(Exit::Stopped);
            }
        };
        let mut value = serde_json::to_value(&sent).unwrap_or_default();
        value["end"] = json!(end);
        output.value(&value)?;
        match (end, &sent) {
            (Some(end), _) => tell_end(output, &end),
            (None, Sent::Stored { waited_ms, .. }) => Err(no_outcome(output, *waited_ms)),
            (None, _) => Err(timed_out(
                output,
                Failure::new(
                    Exit::TimedOut,
                    format!("run {run} has not ended in time; it goes on"),
                )
                .with_hint(format!("superstep threads get {}", sent.thread_id())),
            )),
        }
    }
}

fn no_outcome(output: Output, waited_ms: u64) -> Failure {
    let waited = Duration::from_millis(waited_ms);
    timed_out(
        output,
        Failure::new(
            Exit::TimedOut,
            format!("the command is stored, but no worker answered within {waited:?}"),
        )
        .with_hint("is a worker running? the command will be decided when one is"),
    )
}

/// A machine has the outcome already.
fn timed_out(output: Output, failure: Failure) -> Failure {
    if output.is_json() {
        Failure::silent(failure.exit)
    } else {
        failure
    }
}

fn tell_end(output: Output, end: &RunEnd) -> Result<Exit, Failure> {
    match &end.ended {
        Ended::Completed { values } => {
            output.line(format!("{GOOD}completed{GOOD:#}"))?;
            if let Some(values) = values {
                show_values(output, values)?;
            }
            Ok(Exit::Done)
        }
        Ended::Interrupted { interrupts, values } if interrupts.is_empty() => {
            output.line(format!("{ASKS}stopped{ASKS:#}  at a breakpoint"))?;
            show_values(output, values)?;
            output.line(format!(
                "{DIM}go on with: superstep start GRAPH --thread {}{DIM:#}",
                end.thread_id
            ))?;
            Ok(Exit::Done)
        }
        Ended::Interrupted { interrupts, .. } => {
            for interrupt in interrupts {
                show_interrupt(output, interrupt)?;
            }
            let named = match interrupts.as_slice() {
                [_] => "",
                _ => " --interrupt ID",
            };
            output.line(format!(
                "{DIM}answer with: superstep resume {} JSON{named}{DIM:#}",
                end.thread_id
            ))?;
            Ok(Exit::Done)
        }
        Ended::Failed { error } => {
            let node = error.node.as_ref().map(|node| format!(" in node {node}"));
            output.line(format!(
                "{BAD}failed{BAD:#}{}  {}: {}",
                node.unwrap_or_default(),
                error.kind,
                error.message
            ))?;
            output.line(format!(
                "{DIM}mend the cause, then: superstep retry {}{DIM:#}",
                end.thread_id
            ))?;
            Ok(Exit::Failed)
        }
        Ended::Cancelled => {
            output.line(format!("{BAD}cancelled{BAD:#}"))?;
            Ok(Exit::Failed)
        }
        Ended::Declined { refusal } => {
            if !output.is_json() {
                output.failure(&Failure::new(
                    Exit::Refused,
                    format!("refused as {}: {refusal}", refusal.kind()),
                ));
            }
            Ok(Exit::Refused)
        }
    }
}

fn show_values(output: Output, values: &Map<String, Value>) -> Result<(), Failure> {
    output.fields(&Value::Object(values.clone()))
}

/// A question with what it asks.
pub(crate) fn show_interrupt(output: Output, open: &OpenInterrupt) -> Result<(), Failure> {
    output.line(format!(
        "{ASKS}interrupt{ASKS:#}  {BOLD}{}{BOLD:#}  {DIM}thread {}, node {}, since {}{DIM:#}",
        open.interrupt_id, open.thread_id, open.node, open.opened_at
    ))?;
    output.fields(&open.value)
}
