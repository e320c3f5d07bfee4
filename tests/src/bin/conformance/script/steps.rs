//! Steps: what a scripted node does, one after the other, and what it returns.
//!
//! A run is a loop over a stack of lists, so that it can wait for an answer in the middle of a
//! branch. What interrupts, fails or emits goes to the `World`; the counting of questions and the
//! meaning of what is returned are left to the engine under test.

use std::future::Future;

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::expr::{Env, Expr};
use crate::case::Entries;

/// A step.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(try_from = "Raw")]
pub(crate) enum Step {
    /// Puts keys into the update.
    Set(Entries<Expr>),
    /// Binds variables.
    Let(Entries<Expr>),
    /// Asks, and binds the answer.
    Interrupt { payload: Expr, into: Option<String> },
    /// Goes one way or the other.
    If {
        condition: Expr,
        then: Vec<Step>,
        otherwise: Vec<Step>,
    },
    /// Fails.
    Fail { message: Expr, class: String },
    /// Tells whoever follows the run.
    Emit(Expr),
    /// Goes to nodes, or sends packets.
    Goto { targets: Expr, parent: bool },
    /// Stops, and returns just this.
    Return(Expr),
}

/// A step as it is written: the keys of every kind.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Raw {
    set: Option<Entries<Expr>>,
    #[serde(rename = "let")]
    binds: Option<Entries<Expr>>,
    #[serde(deserialize_with = "present")]
    interrupt: Option<Expr>,
    into: Option<String>,
    #[serde(rename = "if", deserialize_with = "present")]
    condition: Option<Expr>,
    then: Vec<Step>,
    #[serde(rename = "else")]
    otherwise: Vec<Step>,
    #[serde(deserialize_with = "present")]
    fail: Option<Expr>,
    class: Option<String>,
    #[serde(deserialize_with = "present")]
    emit: Option<Expr>,
    #[serde(deserialize_with = "present")]
    goto: Option<Expr>,
    graph: Option<String>,
    #[serde(rename = "return", deserialize_with = "present")]
    returns: Option<Expr>,
}

/// A key that is there with null for a value is there.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Expr>, D::Error> {
    Expr::deserialize(deserializer).map(Some)
}

impl TryFrom<Raw> for Step {
    type Error = String;

    fn try_from(raw: Raw) -> Result<Self, String> {
        let parent = match raw.graph.as_deref() {
            None => false,
            Some("parent") => true,
            Some(other) => return Err(format!("a goto to the graph `{other}`")),
        };
        let class = raw.class.unwrap_or_else(|| "Error".to_owned());
        let mut kinds = [
            raw.set.map(Self::Set),
            raw.binds.map(Self::Let),
            raw.interrupt.map(|payload| Self::Interrupt {
                payload,
                into: raw.into,
            }),
            raw.condition.map(|condition| Self::If {
                condition,
                then: raw.then,
                otherwise: raw.otherwise,
            }),
            raw.fail.map(|message| Self::Fail { message, class }),
            raw.emit.map(Self::Emit),
            raw.goto.map(|targets| Self::Goto { targets, parent }),
            raw.returns.map(Self::Return),
        ]
        .into_iter()
        .flatten();
        match (kinds.next(), kinds.next()) {
            (Some(step), None) => Ok(step),
            (Some(_), Some(_)) => Err("a step of two kinds".to_owned()),
            (None, _) => Err("a step of no kind".to_owned()),
        }
    }
}

/// Where a node's questions and output go.
pub(crate) trait World: Send + Sync {
    /// How a question, or the node, fails.
    type Error: Send;

    /// Asks.
    fn interrupt(&self, payload: Value) -> impl Future<Output = Result<Value, Self::Error>> + Send;

    /// Tells.
    fn emit(&self, data: Value);

    /// The error of a class with a message.
    fn error(&self, class: &str, message: &str) -> Self::Error;
}

/// What a node returned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Returned {
    /// A plain value: an object of channels, or null.
    Update(Value),
    /// An update, and where to go: names and packets.
    Command {
        update: Value,
        goto: Vec<Value>,
        parent: bool,
    },
}

/// Runs a node to its end.
///
/// # Errors
/// What a step or the world raised; an expression that makes no sense is of the class
/// `BadScript`, which no case has.
pub(crate) async fn run<W: World>(
    steps: &[Step],
    mut env: Env,
    world: &W,
) -> Result<Returned, W::Error> {
    let mut update = Map::new();
    let mut goto = Vec::new();
    let mut to_parent = false;
    let mut went = false;
    let bad = |reason: String| world.error("BadScript", &reason);
    let mut left: Vec<std::slice::Iter<'_, Step>> = vec![steps.iter()];
    while let Some(list) = left.last_mut() {
        let Some(step) = list.next() else {
            left.pop();
            continue;
        };
        match step {
            Step::Set(entries) => {
                for (key, value) in &entries.0 {
                    update.insert(key.clone(), env.eval(value).map_err(bad)?);
                }
            }
            Step::Let(entries) => {
                for (name, value) in &entries.0 {
                    let value = env.eval(value).map_err(bad)?;
                    env.vars.insert(name.clone(), value);
                }
            }
            Step::Interrupt { payload, into } => {
                let payload = env.eval(payload).map_err(bad)?;
                let answer = world.interrupt(payload).await?;
                if let Some(name) = into {
                    env.vars.insert(name.clone(), answer);
                }
            }
            Step::If {
                condition,
                then,
                otherwise,
            } => {
                let taken = if env.holds(condition).map_err(bad)? {
                    then
                } else {
                    otherwise
                };
                left.push(taken.iter());
            }
            Step::Fail { message, class } => {
                let message = match env.eval(message).map_err(bad)? {
                    Value::String(text) => text,
                    other => super::canonical(&other),
                };
                return Err(world.error(class, &message));
            }
            Step::Emit(data) => world.emit(env.eval(data).map_err(bad)?),
            Step::Goto { targets, parent } => {
                match env.eval(targets).map_err(bad)? {
                    Value::Array(targets) => goto.extend(targets),
                    target => goto.push(target),
                }
                went = true;
                to_parent |= parent;
            }
            Step::Return(value) => {
                return Ok(Returned::Update(env.eval(value).map_err(bad)?));
            }
        }
    }
    let update = if update.is_empty() {
        Value::Null
    } else {
        Value::Object(update)
    };
    Ok(if went && (to_parent || !goto.is_empty()) {
        Returned::Command {
            update,
            goto,
            parent: to_parent,
        }
    } else {
        Returned::Update(update)
    })
}

#[cfg(test)]
mod tests;
