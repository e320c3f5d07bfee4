//! Channels: the named slots of state, and how each folds several writes into one value.
//!
//! A channel's content is plain data in the checkpoint (`Checkpoint::values`); this file knows
//! what that data means for each kind. It leaves versions and triggers to `apply` and `plan`.
//! The rules are those of LangGraph's `langgraph/channels/` (one file there per kind).

use std::{collections::BTreeSet, fmt, sync::Arc};

use serde_json::{Value, json};

use crate::{
    checkpoint::ChannelChange,
    error::InvalidUpdate,
    ids::{ChannelName, NodeName},
    reduce,
    task::WriteValue,
};

/// A user's reducer: the value so far and a write give the next value, or a text that says
/// what is wrong with the write.
pub type ReduceFn = Arc<dyn Fn(Value, Value) -> Result<Value, String> + Send + Sync>;

/// How a reducing channel folds a write into its value.
#[derive(Clone)]
pub enum Reducer {
    /// Lists are joined; a value that is no list counts as a list of one. Initially `[]`.
    Append,
    /// Integers (or floats) are added. Initially `0`.
    Add,
    /// Texts are joined. Initially `""`.
    Concat,
    /// Objects are merged one level deep, the write wins. Initially `{}`.
    Merge,
    /// Lists become one sorted list without duplicates. Initially `[]`.
    Union,
    /// The larger number stays. Initially `0`.
    Max,
    /// Items are replaced in place by their `id`, else appended. Initially `[]`.
    ById,
    /// As `ById` for messages; `{"type": "remove", "id": ...}` deletes one. Initially `[]`.
    Messages,
    /// A function of the graph's author.
    Custom {
        /// Named in the graph's topology, so that a change of reducer is a change of graph.
        name: Arc<str>,
        /// The value before the first write; `None`: the first write is the value.
        initial: Option<Value>,
        /// The function; it must be pure.
        reduce: ReduceFn,
    },
}

impl Reducer {
    /// A name for topology and drawings.
    pub fn name(&self) -> &str {
        match self {
            Self::Append => "append",
            Self::Add => "add",
            Self::Concat => "concat",
            Self::Merge => "merge",
            Self::Union => "union",
            Self::Max => "max",
            Self::ById => "by_id",
            Self::Messages => "messages",
            Self::Custom { name, .. } => name,
        }
    }

    fn initial(&self) -> Option<Value> {
        match self {
            Self::Append | Self::Union | Self::ById | Self::Messages => Some(json!([])),
            Self::Add | Self::Max => Some(json!(0)),
            Self::Concat => Some(json!("")),
            Self::Merge => Some(json!({})),
            Self::Custom { initial, .. } => initial.clone(),
        }
    }

    pub(crate) fn reduce(&self, left: Value, right: Value) -> Result<Value, String> {
        match self {
            Self::Append => reduce::append(left, right),
            Self::Add => reduce::add(&left, &right),
            Self::Concat => reduce::concat(left, &right),
            Self::Merge => reduce::merge(left, right),
            Self::Union => reduce::union(left, right),
            Self::Max => reduce::max(left, right),
            Self::ById => reduce::by_id(left, right),
            Self::Messages => reduce::messages(left, right),
            Self::Custom { reduce, .. } => reduce(left, right),
        }
    }
}

impl fmt::Debug for Reducer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A value that the engine supplies and nobody writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Managed {
    /// Supersteps left before the recursion limit: `stop - step`.
    RemainingSteps,
    /// Whether this superstep is the last that the recursion limit allows: `step == stop - 1`.
    IsLastStep,
}

/// What a channel is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ChannelKind {
    /// Keeps the last value; two writes in one superstep are an error.
    Last,
    /// Keeps the last of several writes; a superstep without a write empties it.
    Any,
    /// Folds writes by a reducer.
    Reduce(Reducer),
    /// Collects the writes of one superstep, lists flattened; `accumulate` keeps them for ever.
    Topic {
        /// Whether a new superstep leaves the collected values.
        accumulate: bool,
    },
    /// Holds a value for one superstep; with `guard`, two writes in one superstep are an error.
    Ephemeral {
        /// Whether several writes are refused.
        guard: bool,
    },
    /// As `Last`, but in no checkpoint: a run that resumes reads it as absent.
    Untracked,
    /// A join: available once every one of `names` wrote its own name.
    Barrier {
        /// The sources that are waited for.
        names: BTreeSet<NodeName>,
    },
    /// The trigger of a deferred node: available only once nothing else is left to run.
    AfterFinish,
    /// The join of a deferred node.
    BarrierAfterFinish {
        /// The sources that are waited for.
        names: BTreeSet<NodeName>,
    },
    /// Supplied by the engine, read-only.
    Managed(Managed),
}

impl ChannelKind {
    /// A name for topology and drawings.
    pub fn name(&self) -> &str {
        match self {
            Self::Last => "last",
            Self::Any => "any",
            Self::Reduce(reducer) => reducer.name(),
            Self::Topic { accumulate: false } => "topic",
            Self::Topic { accumulate: true } => "topic_acc",
            Self::Ephemeral { .. } => "ephemeral",
            Self::Untracked => "untracked",
            Self::Barrier { .. } => "barrier",
            Self::AfterFinish => "after_finish",
            Self::BarrierAfterFinish { .. } => "barrier_after_finish",
            Self::Managed(Managed::RemainingSteps) => "remaining_steps",
            Self::Managed(Managed::IsLastStep) => "is_last_step",
        }
    }

    /// What a reader sees of the stored content; `None` if the channel is not available.
    pub(crate) fn read(&self, stored: Option<&Value>) -> Option<Value> {
        match self {
            Self::Reduce(reducer) => stored.cloned().or_else(|| reducer.initial()),
            Self::AfterFinish => stored
                .filter(|_| self.available(stored))?
                .get("value")
                .cloned(),
            Self::Barrier { .. } | Self::BarrierAfterFinish { .. } => {
                self.available(stored).then_some(Value::Null)
            }
            Self::Managed(_) => None,
            _ if self.available(stored) => stored.cloned(),
            _ => None,
        }
    }

    /// Whether the channel has something to read.
    pub(crate) fn available(&self, stored: Option<&Value>) -> bool {
        match (self, stored) {
            (Self::Reduce(reducer), None) => reducer.initial().is_some(),
            (Self::Managed(_), _) | (_, None) => false,
            (Self::Topic { .. }, Some(values)) => values.as_array().is_some_and(|v| !v.is_empty()),
            (Self::Barrier { names }, Some(seen)) => complete(names, seen),
            (Self::BarrierAfterFinish { names }, Some(content)) => {
                is_finished(content) && content.get("seen").is_some_and(|s| complete(names, s))
            }
            (Self::AfterFinish, Some(content)) => is_finished(content),
            (
                Self::Last | Self::Any | Self::Reduce(_) | Self::Ephemeral { .. } | Self::Untracked,
                Some(_),
            ) => true,
        }
    }

    /// Folds the writes of one superstep. `None`: the channel does not change. An empty list
    /// of writes tells the channel that a superstep passed without one.
    pub(crate) fn update(
        &self,
        channel: &ChannelName,
        stored: Option<&Value>,
        writes: &[WriteValue],
    ) -> Result<Option<ChannelChange>, InvalidUpdate> {
        match self {
            Self::Last | Self::Untracked => match writes {
                [] => Ok(None),
                [one] => Ok(Some(ChannelChange::Set(one.value().clone()))),
                _ => Err(InvalidUpdate::SeveralWrites {
                    channel: channel.clone(),
                }),
            },
            Self::Any => Ok(match (writes.last(), stored) {
                (Some(last), _) => Some(ChannelChange::Set(last.value().clone())),
                (None, Some(_)) => Some(ChannelChange::Remove),
                (None, None) => None,
            }),
            Self::Ephemeral { guard } => match writes {
                [] => Ok(stored.map(|_| ChannelChange::Remove)),
                [_, _, ..] if *guard => Err(InvalidUpdate::SeveralWrites {
                    channel: channel.clone(),
                }),
                [.., last] => Ok(Some(ChannelChange::Set(last.value().clone()))),
            },
            Self::Topic { accumulate } => Ok(update_topic(*accumulate, stored, writes)),
            Self::Barrier { names } => {
                let seen = add_names(channel, names, stored, writes)?;
                Ok(seen.map(|seen| ChannelChange::Set(json!(seen))))
            }
            Self::BarrierAfterFinish { names } => {
                let before = stored.and_then(|content| content.get("seen"));
                let seen = add_names(channel, names, before, writes)?;
                Ok(seen.map(|seen| ChannelChange::Set(json!({"seen": seen, "finished": false}))))
            }
            Self::AfterFinish => Ok(writes
                .last()
                .map(|last| ChannelChange::Set(json!({"value": last.value(), "finished": false})))),
            Self::Reduce(reducer) => update_reduced(channel, reducer, stored, writes),
            Self::Managed(_) if writes.is_empty() => Ok(None),
            Self::Managed(_) => Err(InvalidUpdate::ReadOnly {
                channel: channel.clone(),
            }),
        }
    }

    /// Whether a superstep without a write can change it; of the others nothing need be asked.
    pub(crate) fn fades(&self) -> bool {
        match self {
            Self::Any | Self::Ephemeral { .. } | Self::Topic { accumulate: false } => true,
            Self::Last
            | Self::Reduce(_)
            | Self::Topic { accumulate: true }
            | Self::Untracked
            | Self::Barrier { .. }
            | Self::AfterFinish
            | Self::BarrierAfterFinish { .. }
            | Self::Managed(_) => false,
        }
    }

    /// What reading it as a trigger leaves behind: a join starts over.
    pub(crate) fn consume(&self, stored: Option<&Value>) -> Option<ChannelChange> {
        match self {
            Self::Barrier { .. } | Self::BarrierAfterFinish { .. } | Self::AfterFinish
                if self.available(stored) =>
            {
                Some(ChannelChange::Remove)
            }
            _ => None,
        }
    }

    /// Whether the tentative end of the run can mean anything to it.
    pub(crate) fn finishes(&self) -> bool {
        matches!(self, Self::AfterFinish | Self::BarrierAfterFinish { .. })
    }

    /// What the tentative end of the run changes: deferred triggers become available.
    pub(crate) fn finish(&self, stored: Option<&Value>) -> Option<ChannelChange> {
        let content = stored?;
        let ready = match self {
            Self::AfterFinish => true,
            Self::BarrierAfterFinish { names } => content
                .get("seen")
                .is_some_and(|seen| complete(names, seen)),
            _ => false,
        };
        if !ready || is_finished(content) {
            return None;
        }
        let mut content = content.clone();
        content["finished"] = json!(true);
        Some(ChannelChange::Set(content))
    }
}

fn is_finished(content: &Value) -> bool {
    content.get("finished") == Some(&Value::Bool(true))
}

fn complete(names: &BTreeSet<NodeName>, seen: &Value) -> bool {
    // By name and not by number: a version of the graph may have given a join other sources.
    seen.as_array().is_some_and(|seen| {
        names
            .iter()
            .all(|name| seen.iter().any(|seen| seen.as_str() == Some(name.as_str())))
    })
}

fn add_names(
    channel: &ChannelName,
    names: &BTreeSet<NodeName>,
    seen: Option<&Value>,
    writes: &[WriteValue],
) -> Result<Option<BTreeSet<String>>, InvalidUpdate> {
    let mut all: BTreeSet<String> = seen
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    let before = all.len();
    for write in writes {
        let name = write.value().as_str().unwrap_or_default();
        if !names.contains(name) {
            return Err(InvalidUpdate::NotAwaited {
                channel: channel.clone(),
                name: name.to_owned(),
            });
        }
        all.insert(name.to_owned());
    }
    Ok((all.len() > before).then_some(all))
}

fn update_topic(
    accumulate: bool,
    stored: Option<&Value>,
    writes: &[WriteValue],
) -> Option<ChannelChange> {
    let mut new = Vec::new();
    for write in writes {
        match write.value() {
            Value::Array(items) => new.extend(items.iter().cloned()),
            item => new.push(item.clone()),
        }
    }
    let had = stored
        .and_then(Value::as_array)
        .is_some_and(|values| !values.is_empty());
    match (accumulate, new.is_empty()) {
        (true, true) => None,
        (true, false) => Some(ChannelChange::Push(new)),
        (false, true) => had.then_some(ChannelChange::Remove),
        (false, false) => Some(ChannelChange::Set(Value::Array(new))),
    }
}

fn update_reduced(
    channel: &ChannelName,
    reducer: &Reducer,
    stored: Option<&Value>,
    writes: &[WriteValue],
) -> Result<Option<ChannelChange>, InvalidUpdate> {
    if writes.is_empty() {
        return Ok(None);
    }
    let grows = matches!(stored, None | Some(Value::Array(_)));
    if matches!(reducer, Reducer::Append) && grows && writes.iter().all(|w| !w.is_overwrite()) {
        // The usual case of a growing list: only the new items are looked at, so the cost of
        // a superstep does not grow with the list. What an overwrite left there may be no list;
        // a push onto that would lose the items, so it goes the long way and is refused.
        let items = writes.iter().flat_map(|write| match write.value() {
            Value::Array(items) => items.clone(),
            Value::Null => Vec::new(),
            item => vec![item.clone()],
        });
        return Ok(Some(ChannelChange::Push(items.collect())));
    }
    let mut value = stored.cloned().or_else(|| reducer.initial());
    let mut overwritten = false;
    for write in writes {
        match write {
            WriteValue::Overwrite(_) if overwritten => {
                return Err(InvalidUpdate::SeveralOverwrites {
                    channel: channel.clone(),
                });
            }
            WriteValue::Overwrite(new) => {
                value = Some(new.clone());
                overwritten = true;
            }
            WriteValue::Set(_) if overwritten => {}
            WriteValue::Set(new) => {
                value = Some(match value.take() {
                    None => new.clone(),
                    Some(left) => reducer.reduce(left, new.clone()).map_err(|reason| {
                        InvalidUpdate::Reducer {
                            channel: channel.clone(),
                            reducer: reducer.name().to_owned(),
                            reason,
                        }
                    })?,
                });
            }
        }
    }
    let value = value.expect("at least one write was folded");
    Ok(Some(as_push(stored, value)))
}

/// A list that only grew is stored as what it grew by.
fn as_push(stored: Option<&Value>, value: Value) -> ChannelChange {
    match (stored, value) {
        (Some(Value::Array(old)), Value::Array(mut new))
            if !old.is_empty() && new.len() >= old.len() && new.starts_with(old) =>
        {
            ChannelChange::Push(new.split_off(old.len()))
        }
        (_, value) => ChannelChange::Set(value),
    }
}

#[cfg(test)]
mod tests;
