//! Subjects: how commands, work, events and live output are named on the wire.
//!
//! Pure text, no client: every queue, the gateway and the tests build and read the same
//! subjects here. The rule it keeps: an id takes exactly one token, building and parsing are
//! inverse, and no id, however odd, can name another subject than its own. Bytes that a NATS
//! token cannot carry (`.`, `*`, `>`, `%`, space, controls, all beyond ASCII) are
//! percent-encoded, and an id that is just `-` becomes `%2D`, since a bare `-` says "none".
//! A plain client need not encode what NATS itself can carry: `größe` is read as it stands.

use std::fmt;

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};
use superstep_protocol::{GraphId, GraphName, GraphVersion, RunId, ThreadId};

use crate::{CommandKind, Error, ErrorKind, EventFilter};

/// The largest id, in bytes before encoding. Three of the longest, encoded, and what stands
/// around them fit into NATS's default control line of 4,096 bytes.
pub const ID_BYTES_MAX: usize = 256;
/// The largest prefix or namespace, in bytes. Both also go into the names of streams.
pub const NAME_BYTES_MAX: usize = 64;
/// The largest subject that a reply may be sent to, in bytes.
pub const REPLY_BYTES_MAX: usize = 1024;
/// The token of an event that concerns no graph.
const NONE: &str = "-";
const TOKEN_ESCAPES: &AsciiSet = &CONTROLS.add(b' ').add(b'.').add(b'*').add(b'>').add(b'%');

/// What a subject names, decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// `<prefix>.<namespace>.<kind>.<target>`
    Command {
        /// What the command asks for.
        kind: CommandKind,
        /// The graph's name for a start, else the thread id.
        target: String,
    },
    /// `<prefix>.<namespace>.work.<graph>.<version>`
    Work {
        /// The graph and version.
        graph: GraphId,
    },
    /// `<prefix>.<namespace>.events.<kind>.<graph>.<thread>`
    Event {
        /// The kind, such as `interrupt`.
        kind: String,
        /// The graph, where there is one.
        graph: Option<GraphName>,
        /// The thread.
        thread: ThreadId,
    },
    /// `<prefix>.<namespace>.output.<thread>.<run>`
    Output {
        /// The thread.
        thread: ThreadId,
        /// The run.
        run: RunId,
    },
}

/// Builds and parses the subjects of one prefix and namespace.
#[derive(Clone, PartialEq, Eq)]
pub struct Subjects {
    prefix: String,
    namespace: String,
}

impl Subjects {
    /// The subjects of `namespace` under `prefix`.
    ///
    /// # Errors
    /// `Invalid` unless both are 1 to [`NAME_BYTES_MAX`] letters, digits, `_` and `-`,
    /// beginning with a letter or digit: they are tokens of subjects and parts of stream names.
    pub fn new(prefix: &str, namespace: &str) -> Result<Self, Error> {
        check_name("prefix", prefix)?;
        check_name("namespace", namespace)?;
        Ok(Self {
            prefix: prefix.to_owned(),
            namespace: namespace.to_owned(),
        })
    }

    /// The first token.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The second token, which keeps tenants apart.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The subject of a command to `target`: the graph's name for a start, else the thread id.
    pub fn command(&self, kind: CommandKind, target: &str) -> Result<String, Error> {
        let what = match kind {
            CommandKind::Start => "graph name",
            CommandKind::Resume
            | CommandKind::Cancel
            | CommandKind::Update
            | CommandKind::Retry => "thread id",
        };
        Ok(format!(
            "{self}.{}.{}",
            kind.as_str(),
            encode(what, target)?
        ))
    }

    /// The subject of one graph version's work.
    pub fn work(&self, graph: &GraphId) -> Result<String, Error> {
        Ok(format!(
            "{self}.work.{}.{}",
            encode("graph name", graph.name.as_str())?,
            encode("graph version", graph.version.as_str())?
        ))
    }

    /// The subject of an event of `kind`.
    pub fn event(
        &self,
        kind: &str,
        graph: Option<&GraphName>,
        thread: &ThreadId,
    ) -> Result<String, Error> {
        let graph = match graph {
            Some(graph) => encode("graph name", graph.as_str())?,
            None => NONE.to_owned(),
        };
        Ok(format!(
            "{self}.events.{}.{graph}.{}",
            encode("event kind", kind)?,
            encode("thread id", thread.as_str())?
        ))
    }

    /// The subject of a run's live output.
    pub fn output(&self, thread: &ThreadId, run: &RunId) -> Result<String, Error> {
        Ok(format!(
            "{self}.output.{}.{}",
            encode("thread id", thread.as_str())?,
            encode("run id", run.as_str())?
        ))
    }

    /// The pattern of live output of all runs of a thread.
    pub fn outputs_of(&self, thread: &ThreadId) -> Result<String, Error> {
        Ok(format!(
            "{self}.output.{}.*",
            encode("thread id", thread.as_str())?
        ))
    }

    /// The pattern of the events that `filter` wants.
    pub fn events_of(&self, filter: &EventFilter) -> Result<String, Error> {
        let token = |what, id: Option<&str>| match id {
            Some(id) => encode(what, id),
            None => Ok("*".to_owned()),
        };
        Ok(format!(
            "{self}.events.{}.{}.{}",
            token("event kind", filter.kind.as_deref())?,
            token("graph name", filter.graph.as_ref().map(AsRef::as_ref))?,
            token("thread id", filter.thread.as_ref().map(AsRef::as_ref))?
        ))
    }

    /// The patterns of the stream of commands. They end in `>` so that a command under a
    /// subject with too many tokens (an id with an unencoded dot) is stored and can be
    /// refused, where a narrower pattern would let it vanish without a word.
    pub fn commands_stream(&self) -> Vec<String> {
        CommandKind::ALL
            .iter()
            .map(|kind| format!("{self}.{}.>", kind.as_str()))
            .collect()
    }

    /// The pattern of the stream of work.
    pub fn work_stream(&self) -> String {
        format!("{self}.work.>")
    }

    /// The pattern of the stream of events.
    pub fn events_stream(&self) -> String {
        format!("{self}.events.>")
    }

    /// What `subject` names, or `None` if it is none of this namespace's.
    pub fn parse(&self, subject: &str) -> Option<Subject> {
        let rest = subject
            .strip_prefix(self.prefix.as_str())?
            .strip_prefix('.')?
            .strip_prefix(self.namespace.as_str())?
            .strip_prefix('.')?;
        let tokens: Vec<&str> = rest.split('.').collect();
        match tokens.as_slice() {
            ["work", name, version] => Some(Subject::Work {
                graph: GraphId {
                    name: GraphName::from(decode(name)?),
                    version: GraphVersion::from(decode(version)?),
                },
            }),
            ["events", kind, graph, thread] => Some(Subject::Event {
                kind: decode(kind)?,
                graph: match *graph {
                    NONE => None,
                    graph => Some(decode(graph)?.into()),
                },
                thread: decode(thread)?.into(),
            }),
            ["output", thread, run] => Some(Subject::Output {
                thread: decode(thread)?.into(),
                run: decode(run)?.into(),
            }),
            [kind, target] => Some(Subject::Command {
                kind: CommandKind::ALL
                    .into_iter()
                    .find(|known| known.as_str() == *kind)?,
                target: decode(target)?,
            }),
            _ => None,
        }
    }

    /// Whether a reply may be sent to `subject`, which a stranger chose.
    ///
    /// # Errors
    /// `Invalid` if it is no subject to publish on (empty, too long, blanks, wildcards, empty
    /// tokens), or one by which a stranger would make a worker act for them: the server's own
    /// (`$JS`, `$SYS`, ...) and everything under this prefix.
    pub fn check_reply(&self, subject: &str) -> Result<(), Error> {
        let refuse = |why: &str| {
            Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "the reply subject {:?} {why}; name an inbox or a subject of your own",
                    shortened(subject)
                ),
            ))
        };
        if subject.is_empty() {
            return refuse("is empty");
        }
        if subject.len() > REPLY_BYTES_MAX {
            return refuse(&format!("is longer than {REPLY_BYTES_MAX} bytes"));
        }
        if subject.chars().any(|c| c.is_whitespace() || c.is_control()) {
            return refuse("has blanks or control characters");
        }
        if subject.split('.').any(str::is_empty) {
            return refuse("has an empty token");
        }
        if subject.split('.').any(|token| token == "*" || token == ">") {
            return refuse("has wildcards");
        }
        let first = subject.split('.').next().unwrap_or_default();
        if first.starts_with('$') {
            return refuse("belongs to the server");
        }
        if first == self.prefix {
            return refuse(&format!("lies under the prefix {}", self.prefix));
        }
        Ok(())
    }
}

/// The root of all subjects: `<prefix>.<namespace>`.
impl fmt::Display for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.prefix, self.namespace)
    }
}

impl fmt::Debug for Subjects {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subjects({self})")
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    let ok = (1..=NAME_BYTES_MAX).contains(&name.len())
        && name.bytes().all(allowed)
        && name.as_bytes()[0].is_ascii_alphanumeric();
    if ok {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "the {what} {:?} cannot be part of a subject; use 1 to {NAME_BYTES_MAX} letters, \
             digits, `_` and `-`, beginning with a letter or digit",
            shortened(name)
        ),
    ))
}

/// An id as one token.
fn encode(what: &str, id: &str) -> Result<String, Error> {
    if id.is_empty() || id.len() > ID_BYTES_MAX {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "the {what} {:?} has {} bytes; it must have 1 to {ID_BYTES_MAX}",
                shortened(id),
                id.len()
            ),
        ));
    }
    if id == NONE {
        return Ok("%2D".to_owned());
    }
    Ok(utf8_percent_encode(id, TOKEN_ESCAPES).to_string())
}

/// The id that a token carries; `None` if it is malformed or too long.
fn decode(token: &str) -> Option<String> {
    let escapes_are_whole = token.split('%').skip(1).all(|rest| {
        let digits = rest.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    });
    if token.is_empty() || !escapes_are_whole {
        return None;
    }
    let id = percent_decode_str(token).decode_utf8().ok()?.into_owned();
    (id.len() <= ID_BYTES_MAX).then_some(id)
}

/// At most the first 64 characters, for messages.
fn shortened(text: &str) -> String {
    let mut short: String = text.chars().take(64).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests;
