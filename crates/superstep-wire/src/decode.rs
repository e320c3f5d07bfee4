//! Messages from bodies, and what to tell whoever sent one that cannot be read.
//!
//! A command comes from a person or a program in any language, so its errors say where the
//! body goes wrong, which field it is, and what to send instead; [`Error::refusal`] is the
//! answer that goes back. What superstep writes itself (work, events, replies, output) is read
//! leniently: unknown fields pass. Whether a command may be obeyed is not decided here.
//!
//! The rule it keeps: nothing that was sent is passed over in a command.

use serde::de::DeserializeOwned;
use serde_json::{error::Category, json};
use superstep_protocol::StreamMode;

use crate::{
    CancelCommand, Event, Output, Refusal, RefusalKind, Reply, ResumeCommand, RetryCommand,
    RunConfig, StartCommand, UpdateCommand, Work, field,
};

/// The longest id, in bytes: of a thread, a run, a graph's version, a question's key.
pub const ID_BYTES_MAX: usize = 256;

/// A body that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It has too many bytes.
    #[error(
        "the {what} has {bytes} bytes and at most {bytes_max} are allowed; keep large values \
         elsewhere and send a reference to them"
    )]
    TooLarge {
        /// What the body should be.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The limit.
        bytes_max: usize,
    },
    /// There is nothing in it.
    #[error("the {what} is empty; {hint}")]
    Empty {
        /// What the body should be.
        what: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// It is not JSON.
    #[error("the {what} is not JSON at line {line} column {column}: {problem}; {hint}")]
    NotJson {
        /// What the body should be.
        what: &'static str,
        /// Where reading stopped, from 1.
        line: usize,
        /// Where in the line reading stopped, in bytes, from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// It is JSON of another shape.
    #[error(
        "the {what} is wrong at {}line {line} column {column}: {problem}; {hint}",
        .field.as_ref().map(|path| format!("`{path}`, ")).unwrap_or_default()
    )]
    WrongShape {
        /// What the body should be.
        what: &'static str,
        /// The path to the field, such as `config.tags[1]`; `None` if it is the whole body.
        field: Option<String>,
        /// Where reading stopped, from 1.
        line: usize,
        /// Where in the line reading stopped, in bytes, from 1.
        column: usize,
        /// What is wrong there.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
    /// A field has a value that it cannot have.
    #[error("`{field}` of the {what} {problem}")]
    WrongValue {
        /// What the body should be.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// What is wrong and what to do.
        problem: &'static str,
    },
}

impl Error {
    /// The refusal to send for a command that cannot be read: `too_large` or `malformed`, with
    /// where it goes wrong.
    pub fn refusal(&self) -> Refusal {
        let (kind, data) = match self {
            Self::TooLarge {
                bytes, bytes_max, ..
            } => (
                RefusalKind::TooLarge,
                Some(json!({"bytes": bytes, "bytes_max": bytes_max})),
            ),
            Self::Empty { .. } => (RefusalKind::Malformed, None),
            Self::NotJson { line, column, .. }
            | Self::WrongShape {
                field: None,
                line,
                column,
                ..
            } => (
                RefusalKind::Malformed,
                Some(json!({"line": line, "column": column})),
            ),
            Self::WrongShape {
                field: Some(field),
                line,
                column,
                ..
            } => (
                RefusalKind::Malformed,
                Some(json!({"field": field, "line": line, "column": column})),
            ),
            Self::WrongValue { field, .. } => {
                (RefusalKind::Malformed, Some(json!({"field": field})))
            }
        };
        Refusal {
            data,
            ..Refusal::new(kind, self.to_string())
        }
    }
}

/// Reads the body of a start.
pub fn start(body: &[u8], bytes_max: usize) -> Result<StartCommand, Error> {
    const WHAT: &str = "start command";
    let hint =
        r#"send a JSON object such as {"thread_id": "order-42", "input": {"draft": "hello"}}"#;
    let command: StartCommand = sized(WHAT, hint, body, bytes_max)?;
    check_id(WHAT, "thread_id", command.thread_id.as_deref())?;
    check_id(WHAT, "run_id", command.run_id.as_deref())?;
    check_id(WHAT, "graph_version", command.graph_version.as_deref())?;
    check_id(WHAT, "checkpoint_id", command.checkpoint_id.as_deref())?;
    check_limit(WHAT, command.config.as_ref())?;
    command.terms()?;
    command.strategy()?;
    check_modes(WHAT, &command.stream_mode)?;
    Ok(command)
}

/// Reads the body of a resume.
pub fn resume(body: &[u8], bytes_max: usize) -> Result<ResumeCommand, Error> {
    const WHAT: &str = "resume command";
    let hint = r#"send a JSON object such as {"resume": {"approved": true}}"#;
    let command: ResumeCommand = sized(WHAT, hint, body, bytes_max)?;
    check_id(WHAT, "interrupt_id", command.interrupt_id.as_deref())?;
    check_id(WHAT, "key", command.key.as_deref())?;
    check_id(WHAT, "run_id", command.run_id.as_deref())?;
    check_modes(WHAT, &command.stream_mode)?;
    if command.interrupt_id.is_some() && command.key.is_some() {
        return Err(Error::WrongValue {
            what: WHAT,
            field: "key",
            problem: "names a question beside `interrupt_id`; send one of the two",
        });
    }
    let names_one = command.interrupt_id.is_some() || command.key.is_some();
    if names_one && command.resume.is_none() {
        return Err(Error::WrongValue {
            what: WHAT,
            field: "resume",
            problem: "is missing, though a question is named; send the answer in it",
        });
    }
    check_id(WHAT, "checkpoint_id", command.checkpoint_id.as_deref())?;
    check_id(WHAT, "graph", command.graph.as_deref())?;
    check_settings(WHAT, command.config.as_ref())?;
    command.terms()?;
    command.targets()?;
    Ok(command)
}

/// Reads the body of a cancel; an empty one is `{}`.
pub fn cancel(body: &[u8], bytes_max: usize) -> Result<CancelCommand, Error> {
    const WHAT: &str = "cancel command";
    if is_empty(body) {
        return Ok(CancelCommand::default());
    }
    let hint = r#"send a JSON object such as {"reason": "ordered twice"}, or nothing"#;
    let command: CancelCommand = sized(WHAT, hint, body, bytes_max)?;
    check_id(WHAT, "run_id", command.run_id.as_deref())?;
    command.rolls_back()?;
    Ok(command)
}

/// Reads the body of an update.
pub fn update(body: &[u8], bytes_max: usize) -> Result<UpdateCommand, Error> {
    const WHAT: &str = "update command";
    let hint = r#"send a JSON object such as {"values": {"draft": "hello"}}"#;
    let command: UpdateCommand = sized(WHAT, hint, body, bytes_max)?;
    check_id(WHAT, "as_node", command.as_node.as_deref())?;
    check_id(WHAT, "checkpoint_id", command.checkpoint_id.as_deref())?;
    check_id(WHAT, "graph", command.graph.as_deref())?;
    for update in &command.updates {
        check_id(WHAT, "updates.as_node", update.as_node.as_deref())?;
    }
    let is_one = command.values.is_some() || command.as_node.is_some();
    let wrong = |field, problem| {
        Err(Error::WrongValue {
            what: WHAT,
            field,
            problem,
        })
    };
    if is_one && !command.updates.is_empty() {
        let problem = "stands beside `values` or `as_node`; send either one update or a list";
        return wrong("updates", problem);
    }
    if command.values.is_none() && command.updates.is_empty() {
        let problem = "is missing; send the writes by key, or several updates in `updates`";
        return wrong("values", problem);
    }
    Ok(command)
}

/// Reads the body of a retry; an empty one is `{}`.
pub fn retry(body: &[u8], bytes_max: usize) -> Result<RetryCommand, Error> {
    const WHAT: &str = "retry command";
    if is_empty(body) {
        return Ok(RetryCommand::default());
    }
    let hint = r"send the JSON object {}, or nothing";
    let command: RetryCommand = sized(WHAT, hint, body, bytes_max)?;
    check_id(WHAT, "run_id", command.run_id.as_deref())?;
    check_settings(WHAT, command.config.as_ref())?;
    Ok(command)
}

const OURS: &str = "only superstep writes these; look for another program on this subject, or a \
                    version that is too new";

/// Reads the body of a work message.
pub fn work(body: &[u8]) -> Result<Work, Error> {
    read("work message", OURS, body)
}

/// Reads the body of an event.
pub fn event(body: &[u8]) -> Result<Event, Error> {
    read("event", OURS, body)
}

/// Reads the body of a reply.
pub fn reply(body: &[u8]) -> Result<Reply, Error> {
    read("reply", OURS, body)
}

/// Reads the body of live output.
pub fn output(body: &[u8]) -> Result<Output, Error> {
    read("output", OURS, body)
}

fn sized<M: DeserializeOwned>(
    what: &'static str,
    hint: &'static str,
    body: &[u8],
    bytes_max: usize,
) -> Result<M, Error> {
    if body.len() > bytes_max {
        return Err(Error::TooLarge {
            what,
            bytes: body.len(),
            bytes_max,
        });
    }
    read(what, hint, body)
}

fn read<M: DeserializeOwned>(
    what: &'static str,
    hint: &'static str,
    body: &[u8],
) -> Result<M, Error> {
    if is_empty(body) {
        return Err(Error::Empty { what, hint });
    }
    let mut json = serde_json::Deserializer::from_slice(body);
    let mut track = serde_path_to_error::Track::new();
    let tracked = serde_path_to_error::Deserializer::new(&mut json, &mut track);
    let message = field::object(tracked).map_err(|error| {
        let path = track.path();
        let named = path.iter().next().is_some();
        unreadable(what, hint, &error, named.then(|| path.to_string()))
    })?;
    json.end()
        .map_err(|error| unreadable(what, hint, &error, None))?;
    Ok(message)
}

fn is_empty(body: &[u8]) -> bool {
    body.iter().all(u8::is_ascii_whitespace)
}

fn unreadable(
    what: &'static str,
    hint: &'static str,
    error: &serde_json::Error,
    field: Option<String>,
) -> Error {
    let text = error.to_string();
    let position = format!(" at line {} column {}", error.line(), error.column());
    let problem = text.strip_suffix(&position).unwrap_or(&text).to_owned();
    // serde_json counts the columns that it has passed: none at the beginning of a line.
    let (line, column) = (error.line(), error.column().max(1));
    match error.classify() {
        Category::Data => Error::WrongShape {
            what,
            field,
            line,
            column,
            problem: in_json_words(problem),
            hint,
        },
        Category::Syntax | Category::Eof | Category::Io => Error::NotJson {
            what,
            line,
            column,
            problem: syntax_in_json_words(&problem),
            hint,
        },
    }
}

/// The problem without names of the parser's own.
fn syntax_in_json_words(problem: &str) -> String {
    problem
        .replace("EOF while parsing", "it ends inside")
        .replace(
            "recursion limit exceeded",
            "it is nested deeper than 127 levels",
        )
}

/// The problem without names of Rust types, which mean nothing to senders.
fn in_json_words(problem: String) -> String {
    let Some((before, expected)) = problem.rsplit_once(", expected ") else {
        return problem;
    };
    let before = before
        .replace("invalid type: map", "invalid type: object")
        .replace("invalid type: sequence", "invalid type: array");
    let expected = match expected {
        "u32" => "a whole number from 0 to 4294967295",
        "i32" => "a whole number from -2147483648 to 2147483647",
        "a map" => "an object",
        "a sequence" => "an array",
        other => other,
    };
    format!("{before}, expected {expected}")
}

fn check_limit(what: &'static str, config: Option<&RunConfig>) -> Result<(), Error> {
    if config.and_then(|config| config.recursion_limit) == Some(0) {
        return Err(Error::WrongValue {
            what,
            field: "config.recursion_limit",
            problem: "is 0, which allows no superstep; send at least 1 or leave it out",
        });
    }
    Ok(())
}

/// The settings of a run that goes on with what an earlier one was given.
fn check_settings(what: &'static str, config: Option<&RunConfig>) -> Result<(), Error> {
    check_limit(what, config)?;
    let field = match config {
        Some(config) if !config.configurable.is_empty() => "config.configurable",
        Some(config) if !config.tags.is_empty() => "config.tags",
        _ => return Ok(()),
    };
    Err(Error::WrongValue {
        what,
        field,
        problem: "belongs to a start, and what goes on keeps that; leave it out",
    })
}

fn check_modes(what: &'static str, words: &[String]) -> Result<(), Error> {
    if words.iter().all(|word| StreamMode::of(word).is_some()) {
        return Ok(());
    }
    Err(Error::WrongValue {
        what,
        field: "stream_mode",
        problem: "names no mode of live output; use values, updates, custom, messages, tasks, \
                  checkpoints or debug",
    })
}

fn check_id(what: &'static str, field: &'static str, id: Option<&str>) -> Result<(), Error> {
    let problem = match id {
        Some("") => "is empty; leave it out or give it a name",
        Some(id) if id.len() > ID_BYTES_MAX => "is longer than 256 bytes; choose a shorter one",
        _ => return Ok(()),
    };
    Err(Error::WrongValue {
        what,
        field,
        problem,
    })
}

#[cfg(test)]
mod tests;
