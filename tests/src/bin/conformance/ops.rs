//! Operations: from a case's data to calls of the library's thread API, and its answers as
//! observations.
//!
//! The one place that knows how to say each operation to the library. What it cannot say yet is
//! `Unsupported`, by one function each, to be replaced by the call once there is one. The shape of
//! observations is left to `observe`, the meaning of ids to `compare`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use superstep::{RunOptions, StateView};
use superstep_graph::Target;

use crate::{
    backend::Backend,
    case::{Durability, Kind, OneUpdate, Op, Selector},
    compare::Labels,
    graphs::{Unsupported, breakpoints, target_of},
    handle::{Declined, Handle},
    observe::{self, Classes},
    recorder::Recorder,
    script::{SEND, item_at},
};

/// Why an operation gave no observation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The library has no word for it.
    Unsupported(String),
    /// What it names is not there, or the store failed.
    Broken(String),
}

impl From<Unsupported> for Fault {
    fn from(Unsupported(what): Unsupported) -> Self {
        Self::Unsupported(what)
    }
}

/// A case under way, as operations see it.
pub(crate) struct Session<'a> {
    backend: &'a Backend,
    recorder: &'a Recorder,
    classes: &'a Classes,
    /// The recursion limit of each thread's last run.
    limits: BTreeMap<String, Option<u32>>,
    /// Task results that are not to be compared; see `unsure_result`.
    unsure: Vec<(String, String)>,
}

/// What a run begins with.
enum Begin {
    /// New input, or null to go on.
    Input(Value),
    /// A command: its answer, update and targets; null and empty for none.
    Command {
        resume: Value,
        update: Value,
        goto: Vec<Target>,
    },
    /// Answers by id, and an update.
    Answers {
        answers: Map<String, Value>,
        update: Value,
    },
}

impl<'a> Session<'a> {
    /// A case that begins.
    pub(crate) fn new(backend: &'a Backend, recorder: &'a Recorder, classes: &'a Classes) -> Self {
        Self {
            backend,
            recorder,
            classes,
            limits: BTreeMap::new(),
            unsure: Vec::new(),
        }
    }

    /// Performs an operation and observes it.
    pub(crate) async fn perform(&mut self, op: &Op, labels: &Labels) -> Result<Value, Fault> {
        if op.subgraph.is_some() {
            return Err(Unsupported::new("the checkpoints of a subgraph").into());
        }
        let thread = self.backend.thread(&op.thread);
        if let Some(at) = op.at {
            let checkpoint = checkpoint_at(&thread, at).await?;
            return Err(on_checkpoint(op.kind, &checkpoint).into());
        }
        match op.kind {
            Kind::Invoke => self.run(&thread, op, Begin::Input(op.input.clone())).await,
            Kind::Command => {
                let begin = Begin::Command {
                    resume: op.resume.clone(),
                    update: op.update.clone(),
                    goto: targets(&op.goto),
                };
                self.run(&thread, op, begin).await
            }
            Kind::ResumeMap => {
                let begin = Begin::Answers {
                    answers: select_answers(&thread, op, labels).await?,
                    update: op.update.clone(),
                };
                self.run(&thread, op, begin).await
            }
            Kind::Update => self.update(&thread, op).await,
            Kind::BulkUpdate => Err(bulk_update(&op.supersteps).into()),
            Kind::State => self.state(&thread, op).await,
            Kind::History => self.history(&thread, op).await,
        }
    }

    async fn run(&mut self, thread: &Handle, op: &Op, begin: Begin) -> Result<Value, Fault> {
        check_options(op)?;
        let was_null = matches!(&begin, Begin::Input(Value::Null));
        let ended = match begin {
            Begin::Input(input) => {
                let options = RunOptions {
                    recursion_limit: op.recursion_limit,
                    ..RunOptions::default()
                };
                thread.invoke_with(input, options).await
            }
            Begin::Command {
                resume,
                update,
                goto,
            } => {
                if resume.is_null() || !update.is_null() || !goto.is_empty() {
                    return Err(command(&resume, &update, &goto).into());
                }
                self.goes_on_alike(op)?;
                thread.resume(resume).await
            }
            Begin::Answers { answers, update } => {
                if !update.is_null() {
                    return Err(command(&json!(answers), &update, &[]).into());
                }
                self.goes_on_alike(op)?;
                thread.resume(Value::Object(answers)).await
            }
        };
        self.limits.insert(op.thread.clone(), op.recursion_limit);
        let mut seen = match ended {
            Ok(output) => observe::run(&output, self.classes),
            Err(declined) => json!({"error": error_of(declined, was_null)?}),
        };
        seen["ran"] = Value::Array(self.recorder.take_ran());
        Ok(seen)
    }

    /// A resume takes no options: it goes on with those of the run before. That is the same where
    /// the case asks for the same.
    fn goes_on_alike(&self, op: &Op) -> Result<(), Fault> {
        match self.limits.get(&op.thread) {
            Some(limit) if *limit == op.recursion_limit => Ok(()),
            None if op.recursion_limit.is_none() => Ok(()),
            _ => Err(Unsupported::new("a recursion limit on a resume").into()),
        }
    }

    async fn update(&mut self, thread: &Handle, op: &Op) -> Result<Value, Fault> {
        if let Some(special) = op.as_node.as_deref().filter(|node| is_special(node)) {
            return Err(Unsupported(format!("update_state as {special}")).into());
        }
        let before = read_state(thread).await?;
        let updated = thread
            .update_state(op.values.clone(), op.as_node.as_deref())
            .await;
        match updated {
            Ok(after) => {
                self.unsure.extend(
                    before.and_then(|before| unsure_result(&before, &after, op.as_node.as_deref())),
                );
                Ok(json!({"ok": true}))
            }
            Err(declined) => Ok(json!({"error": error_of(declined, false)?})),
        }
    }

    async fn state(&self, thread: &Handle, op: &Op) -> Result<Value, Fault> {
        if op.subgraphs {
            return Err(Unsupported::new("the states of subgraphs").into());
        }
        Ok(match thread.state().await {
            Ok(Some(view)) => observe::state(&view, self.classes),
            Ok(None) => observe::no_state(),
            Err(declined) => json!({"error": error_of(declined, false)?}),
        })
    }

    async fn history(&self, thread: &Handle, op: &Op) -> Result<Value, Fault> {
        if op.filter.is_some() {
            return Err(Unsupported::new("a history with a filter").into());
        }
        let limit = op.limit.unwrap_or(usize::MAX);
        let views = thread.history(limit).await.map_err(Declined::into_fault)?;
        Ok(observe::history(&views, self.classes, &self.unsure))
    }
}

/// The id of the checkpoint at a place of the full history: 0 is the newest, -1 the oldest.
async fn checkpoint_at(thread: &Handle, at: i64) -> Result<String, Fault> {
    let views = thread
        .history(usize::MAX)
        .await
        .map_err(Declined::into_fault)?;
    let ids: Vec<String> = views.into_iter().map(|view| view.checkpoint_id).collect();
    item_at(&ids, at).cloned().ok_or_else(|| {
        Fault::Broken(format!(
            "the history has {} checkpoints, none at {at}",
            ids.len()
        ))
    })
}

/// An operation on the checkpoint of this id instead of the head.
fn on_checkpoint(kind: Kind, _checkpoint: &str) -> Unsupported {
    Unsupported::new(match kind {
        Kind::State => "get_state at a checkpoint",
        Kind::Update | Kind::BulkUpdate => "update_state at a checkpoint",
        Kind::History => "a history from a checkpoint on",
        Kind::Invoke | Kind::Command | Kind::ResumeMap => "a run from a checkpoint",
    })
}

/// Several updates, superstep by superstep, each in the order of its list.
fn bulk_update(supersteps: &[Vec<OneUpdate>]) -> Unsupported {
    let _updates = supersteps
        .iter()
        .flatten()
        .map(|update| (&update.values, update.as_node.as_deref()));
    Unsupported::new("bulk_update")
}

/// Options of a run that are refused as long as the library has none of the kind.
fn check_options(op: &Op) -> Result<(), Unsupported> {
    if op.stream.is_some() || op.stream_subgraphs {
        return Err(Unsupported::new("stream modes"));
    }
    if !op.interrupt_before.is_none() || !op.interrupt_after.is_none() {
        return Err(breakpoints(&op.interrupt_before, &op.interrupt_after));
    }
    match op.durability {
        Some(Durability::Exit) => Err(Unsupported::new("durability exit")),
        None | Some(Durability::Sync | Durability::Async) => Ok(()),
    }
}

/// Where a command goes; the format writes a packet here without the sign of an expression.
fn targets(goto: &Value) -> Vec<Target> {
    let target = |target: &Value| match target.get("send") {
        Some(send) => target_of(json!({SEND: send})),
        None => target_of(target.clone()),
    };
    match goto {
        Value::Null => Vec::new(),
        Value::Array(targets) => targets.iter().map(target).collect(),
        one => vec![target(one)],
    }
}

/// A command as input that is not just an answer.
fn command(resume: &Value, update: &Value, goto: &[Target]) -> Unsupported {
    let empty = resume.is_null() && update.is_null() && goto.is_empty();
    Unsupported::new(if empty {
        "an empty command as input"
    } else {
        "a command with update or goto as input"
    })
}

fn is_special(node: &str) -> bool {
    matches!(node, "__input__" | "__copy__" | "__end__")
}

/// The task of `as_node` in the state before an update, if it had finished there: LangGraph then
/// shows a mix of what it wrote and of the update, depending on the slots of its store, and the
/// format says not to compare it. Named by the checkpoint and the node.
fn unsure_result(
    before: &StateView,
    after: &StateView,
    as_node: Option<&str>,
) -> Option<(String, String)> {
    let checkpoint = before.checkpoint_id.clone()?;
    if after.checkpoint_id.as_ref() == Some(&checkpoint) {
        return None;
    }
    let finished = |name: &str| {
        before
            .tasks
            .iter()
            .any(|task| task.name == *name && task.result.is_some())
    };
    as_node
        .filter(|node| finished(node))
        .map(|node| (checkpoint, node.to_owned()))
}

/// The state to find something in; there is none to be found where it cannot be shown.
async fn read_state(thread: &Handle) -> Result<Option<StateView>, Fault> {
    match thread.state().await {
        Ok(view) => Ok(view),
        Err(Declined::Refused(_)) => Ok(None),
        Err(Declined::Fault(fault)) => Err(fault),
    }
}

/// The answers of a `resume_map` by the ids that the selectors mean.
async fn select_answers(
    thread: &Handle,
    op: &Op,
    labels: &Labels,
) -> Result<Map<String, Value>, Fault> {
    let view = read_state(thread).await?;
    let mut answers = Map::new();
    for answer in &op.answers {
        let selector = answer.selector().map_err(Fault::Broken)?;
        let open = view.iter().flat_map(|view| &view.interrupts);
        let id = match selector {
            Selector::At(at) => {
                let ids: Vec<_> = open.map(|interrupt| interrupt.id.to_string()).collect();
                item_at(&ids, at).cloned()
            }
            Selector::Node(node) => {
                let mut tasks = view.iter().flat_map(|view| &view.tasks);
                let task = tasks.find(|task| task.name == *node);
                task.and_then(|task| Some(task.interrupts.first()?.id.to_string()))
            }
            Selector::Label(label) => labels.id(label).map(str::to_owned),
            Selector::Bogus => Some("0".repeat(32)),
        };
        let Some(id) = id else {
            let reason = format!("there is no interrupt {selector:?} to answer");
            return Err(Fault::Broken(reason));
        };
        answers.insert(id, answer.value.clone());
    }
    Ok(answers)
}

/// A refused operation as an error of the format.
fn error_of(declined: Declined, input_was_null: bool) -> Result<Value, Fault> {
    let kind = match declined {
        Declined::Refused(kind) => kind,
        Declined::Fault(fault) => return Err(fault),
    };
    Ok(match kind.as_str() {
        "ambiguous" => json!({"kind": "AmbiguousResume"}),
        "invalid_update" => json!({"kind": "InvalidUpdateError"}),
        "invalid_input" if input_was_null => json!({"kind": "EmptyInputError"}),
        other => json!({"kind": format!("refused: {other}")}),
    })
}

#[cfg(test)]
mod tests {
    use superstep_graph::Send;

    use super::*;

    #[test]
    fn a_command_goes_to_names_and_packets() {
        let packet = json!({"send": ["b", {"x": 1}]});
        let sent: Target = Send::new("b", json!({"x": 1})).into();
        assert_eq!(targets(&Value::Null), []);
        assert_eq!(targets(&json!("a")), ["a".into()]);
        assert_eq!(targets(&packet), std::slice::from_ref(&sent));
        assert_eq!(targets(&json!(["a", packet])), ["a".into(), sent]);
    }
}
