//! Operations: from a case's data to calls of the library's thread API, and its answers as
//! observations.
//!
//! The one place that knows how to say each operation to the library. What it cannot say yet is
//! `Unsupported`, by one function each, to be replaced by the call once there is one. The shape of
//! observations is left to `observe`, the meaning of ids to `compare`.

use serde_json::{Map, Value, json};
use superstep::{CheckpointView, RunOptions, StateView, StreamMode, Streams, Update};
use superstep_graph::Target;

use crate::{
    backend::Backend,
    case::{Case, Durability, Kind, OneUpdate, Op, Selector},
    compare::Labels,
    graphs::{Unsupported, breakpoints, target_of},
    handle::{Commanded, Declined, Handle, Inside},
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
    /// Whether the graph has a checkpointer.
    keeps: bool,
    backend: &'a Backend,
    recorder: &'a Recorder,
    classes: &'a Classes,
    /// Task results that are not to be compared; see `unsure_result`.
    unsure: Vec<(String, String)>,
}

/// What a run begins with.
enum Begin {
    /// New input, or null to go on.
    Input(Value),
    /// A command.
    Command(Commanded),
}

impl<'a> Session<'a> {
    /// A case that begins.
    pub(crate) fn new(
        case: &Case,
        backend: &'a Backend,
        recorder: &'a Recorder,
        classes: &'a Classes,
    ) -> Self {
        Self {
            keeps: case.checkpointer,
            backend,
            recorder,
            classes,
            unsure: Vec::new(),
        }
    }

    /// Performs an operation and observes it.
    pub(crate) async fn perform(&mut self, op: &Op, labels: &Labels) -> Result<Value, Fault> {
        if !self.keeps {
            return self.perform_unkept(op).await;
        }
        let mut thread = self.backend.thread(&op.thread);
        if let Some(place) = &op.subgraph {
            return self.perform_inside(&thread.subgraph(place), op).await;
        }
        let answers = match op.kind {
            Kind::ResumeMap => select_answers(&thread, op, labels).await?,
            _ => Map::new(),
        };
        if let Some(at) = op.at {
            let checkpoint = checkpoint_at(&thread, at).await?;
            thread = thread.at(&checkpoint);
        }
        match op.kind {
            Kind::Invoke => self.run(&thread, op, Begin::Input(op.input.clone())).await,
            Kind::Command => {
                let begin = Begin::Command(Commanded {
                    resume: Some(op.resume.clone()).filter(|resume| !resume.is_null()),
                    update: op.update.clone(),
                    goto: targets(&op.goto),
                });
                self.run(&thread, op, begin).await
            }
            Kind::ResumeMap => {
                let begin = Begin::Command(Commanded {
                    resume: Some(Value::Object(answers)),
                    update: op.update.clone(),
                    goto: Vec::new(),
                });
                self.run(&thread, op, begin).await
            }
            Kind::Update => {
                let update = Update {
                    values: op.values.clone(),
                    as_node: op.as_node.as_deref().map(Into::into),
                };
                self.update(&thread, op, vec![vec![update]]).await
            }
            Kind::BulkUpdate => {
                let update = |one: &OneUpdate| Update {
                    values: one.values.clone(),
                    as_node: one.as_node.as_deref().map(Into::into),
                };
                let supersteps = op.supersteps.iter();
                let supersteps = supersteps.map(|updates| updates.iter().map(update).collect());
                self.update(&thread, op, supersteps.collect()).await
            }
            Kind::State => self.state(&thread, op).await,
            Kind::History => self.history(&thread, op).await,
        }
    }

    /// Performs an operation on a subgraph whose call waits.
    async fn perform_inside(&self, inside: &Inside, op: &Op) -> Result<Value, Fault> {
        let seen = match op.kind {
            Kind::State => inside.state().await.map(|view| match view {
                Some(view) => observe::state(&view, self.classes),
                None => observe::no_state(),
            }),
            Kind::History => {
                let limit = op.limit.unwrap_or(usize::MAX);
                let views = inside.history(limit).await;
                views.map(|views| observe::history(&views, self.classes, &[]))
            }
            Kind::Update => {
                let values = op.values.clone();
                let updated = inside.update_state(values, op.as_node.as_deref()).await;
                updated.map(|()| json!({"ok": true}))
            }
            _ => return Err(Unsupported::new("a run from inside a subgraph").into()),
        };
        match seen {
            Ok(seen) => Ok(seen),
            Err(declined) => Ok(json!({"error": error_of(declined, false)?})),
        }
    }

    /// A graph without a checkpointer runs, and that is all: there is no thread, so there are no
    /// words to resume, look at or update one.
    async fn perform_unkept(&mut self, op: &Op) -> Result<Value, Fault> {
        let none = json!({"error": {"kind": "NoCheckpointer"}});
        let mut seen = match op.kind {
            Kind::State | Kind::History | Kind::Update | Kind::BulkUpdate => return Ok(none),
            Kind::Command | Kind::ResumeMap => none,
            Kind::Invoke => {
                let ran = self.backend.run_once(op.input.clone(), options(op)?).await;
                match ran {
                    Ok(output) => observe::run(&output, self.classes),
                    Err(declined) => json!({"error": error_of(declined, op.input.is_null())?}),
                }
            }
        };
        seen["ran"] = Value::Array(self.recorder.take_ran());
        Ok(seen)
    }

    async fn run(&mut self, thread: &Handle, op: &Op, begin: Begin) -> Result<Value, Fault> {
        let options = options(op)?;
        let was_empty = match &begin {
            Begin::Input(input) => input.is_null(),
            Begin::Command(command) => *command == Commanded::default(),
        };
        let mut events = Vec::new();
        let ended = match begin {
            Begin::Input(input) => thread.invoke_with(input, options, &mut events).await,
            Begin::Command(command) => thread.command_with(command, options, &mut events).await,
        };
        let mut seen = match ended {
            Ok(output) => observe::run(&output, self.classes),
            Err(declined) => json!({"error": error_of(declined, was_empty)?}),
        };
        if op.stream.is_some() {
            seen = observe::followed(&seen, &events, self.classes);
        }
        seen["ran"] = Value::Array(self.recorder.take_ran());
        Ok(seen)
    }

    async fn update(
        &mut self,
        thread: &Handle,
        op: &Op,
        supersteps: Vec<Vec<Update>>,
    ) -> Result<Value, Fault> {
        let before = read_state(thread).await?;
        match thread.update_state(supersteps).await {
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
        let state = if op.subgraphs {
            thread.state_with_subgraphs().await
        } else {
            thread.state().await
        };
        Ok(match state {
            Ok(Some(view)) => observe::state(&view, self.classes),
            Ok(None) => observe::no_state(),
            Err(declined) => json!({"error": error_of(declined, false)?}),
        })
    }

    async fn history(&self, thread: &Handle, op: &Op) -> Result<Value, Fault> {
        let limit = op.limit.unwrap_or(usize::MAX);
        let views = match &op.filter {
            None => thread.history(limit).await,
            Some(filter) => {
                thread
                    .history_where(limit, |view| passes(filter, view))
                    .await
            }
        };
        let views = match views {
            Ok(views) => views,
            Err(declined) => return Ok(json!({"error": error_of(declined, false)?})),
        };
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

/// The options of a run.
fn options(op: &Op) -> Result<RunOptions, Unsupported> {
    let mode = |word: &String| {
        let unknown = || Unsupported(format!("the stream mode `{word}`"));
        StreamMode::of(word).ok_or_else(unknown)
    };
    let modes = op.stream.iter().flatten().map(mode);
    Ok(RunOptions {
        streams: Streams {
            modes: modes.collect::<Result<_, _>>()?,
            subgraphs: op.stream_subgraphs,
        },
        recursion_limit: op.recursion_limit,
        interrupt_before: breakpoints(&op.interrupt_before),
        interrupt_after: breakpoints(&op.interrupt_after),
        durability: match op.durability {
            Some(Durability::Exit) => superstep::Durability::Exit,
            None | Some(Durability::Sync | Durability::Async) => superstep::Durability::Sync,
        },
        ..RunOptions::default()
    })
}

/// The metadata of a checkpoint that a filter names: its source and step.
fn passes(filter: &Map<String, Value>, view: &CheckpointView) -> bool {
    filter.iter().all(|(key, value)| match key.as_str() {
        "source" => *value == json!(view.source),
        "step" => *value == json!(view.step),
        _ => false,
    })
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
