//! The loop of a shell over the pure functions, for one thread in memory.
//!
//! Tasks of a superstep run and end one after the other in plan order. What a failed superstep
//! finished is parked, as in a log; a run without input goes on from there. There are no
//! interrupts, retries or subgraphs here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use superstep_graph::{
    Checkpoint, Contribution, Delta, Graph, Horizon, InvalidUpdate, Lineage, Namespace, NodeOutput,
    Planned, RouteError, START, Source, Task, TaskId, TaskPath, UnknownTargets, Write, WriteValue,
    apply, input_of, output_from_update, plan, read_output, read_state, route_within, start_writes,
    take_input,
};

/// What a node does: from its input to what it returned, or to an error.
pub(crate) type NodeFn<'n> = dyn FnMut(&Task, &Value) -> Result<Returned, Failure> + 'n;

/// What a node returned.
pub(crate) enum Returned {
    Update(Value),
    Output(NodeOutput),
}

/// Why a run did not come to its end: LangGraph's name of the error, and a text. `node` names
/// what a node's own code raised.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Failure {
    pub(crate) kind: String,
    pub(crate) message: String,
    pub(crate) node: bool,
}

impl Failure {
    pub(crate) fn new(kind: &str, message: &dyn std::fmt::Display) -> Self {
        Self {
            kind: kind.to_owned(),
            message: message.to_string(),
            node: false,
        }
    }
}

impl From<InvalidUpdate> for Failure {
    fn from(error: InvalidUpdate) -> Self {
        Self::new("InvalidUpdateError", &error)
    }
}

impl From<RouteError> for Failure {
    fn from(error: RouteError) -> Self {
        Self::new(error.kind(), &error)
    }
}

/// How a task of a superstep ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) writes: Option<Vec<Write>>,
    pub(crate) error: Option<Failure>,
}

/// A checkpoint with its tasks and how they ended.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) checkpoint: Checkpoint,
    pub(crate) tasks: Vec<Task>,
    pub(crate) ended: BTreeMap<TaskId, Ended>,
}

/// What a run gave: the last values that it showed, if any, and which nodes ran when.
#[derive(Debug, Default)]
pub(crate) struct Ran {
    pub(crate) result: Value,
    pub(crate) bodies: Vec<(i64, String)>,
    pub(crate) error: Option<Failure>,
}

/// A thread.
pub(crate) struct Engine<'g> {
    pub(crate) graph: &'g Graph,
    /// Oldest first; empty before the first run.
    pub(crate) saved: Vec<Saved>,
}

impl<'g> Engine<'g> {
    pub(crate) fn new(graph: &'g Graph) -> Self {
        Self {
            graph,
            saved: Vec::new(),
        }
    }

    /// Runs to the end, with `input` or from where the last run stopped.
    pub(crate) fn invoke(
        &mut self,
        input: Option<&Value>,
        recursion_limit: i64,
        node: &mut NodeFn<'_>,
    ) -> Ran {
        let mut ran = Ran::default();
        ran.error = self.run(input, recursion_limit, node, &mut ran).err();
        ran
    }

    /// The state as a reader of the head sees it, finished tasks applied, and the nodes left.
    pub(crate) fn live(&self) -> Result<(Value, Vec<Task>), Failure> {
        let Some(last) = self.saved.last() else {
            let empty = Checkpoint::empty(Lineage::root("t"));
            return Ok((read_state(self.graph, &empty), Vec::new()));
        };
        let mut checkpoint = last.checkpoint.clone();
        let finished: Vec<_> = contributions(last);
        if !finished.is_empty() {
            let delta = apply(self.graph, &checkpoint, &finished)?;
            checkpoint.merge(&delta);
        }
        let left = last.tasks.iter().filter(|task| !finished_in(last, task));
        Ok((
            read_state(self.graph, &checkpoint),
            self.listed(left.cloned()),
        ))
    }

    /// Tasks in the order of lists.
    pub(crate) fn listed(&self, tasks: impl IntoIterator<Item = Task>) -> Vec<Task> {
        let mut tasks: Vec<Task> = tasks.into_iter().collect();
        tasks.sort_by_key(|task| match task.path {
            TaskPath::Push(index) => (0, index, 0),
            TaskPath::Pull => (1, 0, self.graph.definition_order(&task.node)),
        });
        tasks
    }

    fn run(
        &mut self,
        input: Option<&Value>,
        recursion_limit: i64,
        node: &mut NodeFn<'_>,
        ran: &mut Ran,
    ) -> Result<(), Failure> {
        let last = self.saved.last();
        let first = last.map_or(-1, |saved| saved.checkpoint.step + 1);
        let stop = first + recursion_limit + 1;
        match (input, last) {
            (Some(input), last) => {
                let empty = Checkpoint::empty(Lineage::root("t"));
                let (base, pending) =
                    last.map_or((&empty, &[][..]), |saved| (&saved.checkpoint, &saved.tasks));
                let delta = take_input(self.graph, base, pending, input)?;
                let base = base.clone();
                self.save(base, &delta, Source::Input);
            }
            (None, None) => return Err(Failure::new("EmptyInputError", &"no input")),
            (None, Some(saved)) => ran.result = read_output(self.graph, &saved.checkpoint),
        }
        loop {
            let saved = self.saved.last().expect("an input was saved");
            let horizon = Horizon {
                step: saved.checkpoint.step + 1,
                stop,
            };
            if horizon.step > horizon.stop {
                return Err(Failure::new("GraphRecursionError", &recursion_limit));
            }
            if saved.tasks.is_empty() {
                return Ok(());
            }
            self.superstep(horizon, node, ran)?;
        }
    }

    fn superstep(
        &mut self,
        horizon: Horizon,
        node: &mut NodeFn<'_>,
        ran: &mut Ran,
    ) -> Result<(), Failure> {
        let saved = self.saved.last().expect("a superstep has a checkpoint");
        let mut ended = saved.ended.clone();
        let mut failure = None;
        for task in saved.tasks.iter().filter(|task| !finished_in(saved, task)) {
            let mut end = run_task(self.graph, saved, task, horizon, node, ran);
            failure = failure.or_else(|| end.error.clone());
            // The record of an error stays, even if a later run of the task does better.
            let before = ended.get(&task.id).and_then(|ended| ended.error.clone());
            end.error = end.error.or(before);
            ended.insert(task.id.clone(), end);
        }
        let saved = self.saved.last_mut().expect("it was there before");
        saved.ended = ended;
        if let Some(failure) = failure {
            return Err(failure);
        }
        let finished = contributions(saved);
        let delta = apply(self.graph, &saved.checkpoint, &finished)?;
        let written = finished
            .iter()
            .flat_map(|task| task.writes)
            .any(|write| self.graph.output_channels().contains(&write.channel));
        let base = saved.checkpoint.clone();
        self.save(base, &delta, Source::Loop);
        if written {
            let saved = self.saved.last().expect("it was just saved");
            ran.result = read_output(self.graph, &saved.checkpoint);
        }
        Ok(())
    }

    /// Saves what follows `checkpoint` by `delta`, with the tasks that it triggers.
    fn save(&mut self, mut checkpoint: Checkpoint, delta: &Delta, source: Source) {
        let step = checkpoint.step + 1;
        let lineage = checkpoint.lineage.next(step, None);
        let tasks = plan(
            self.graph,
            &Planned {
                base: &checkpoint,
                delta,
                source,
                step,
                lineage: &lineage,
                ns: &Namespace::root(),
            },
        );
        checkpoint.merge(delta);
        checkpoint.step = step;
        checkpoint.source = source;
        checkpoint.lineage = lineage;
        self.saved.push(Saved {
            checkpoint,
            tasks,
            ended: BTreeMap::new(),
        });
    }
}

fn finished_in(saved: &Saved, task: &Task) -> bool {
    let ended = saved.ended.get(&task.id);
    ended.is_some_and(|ended| ended.writes.is_some())
}

fn contributions(saved: &Saved) -> Vec<Contribution<'_>> {
    saved
        .tasks
        .iter()
        .filter_map(|task| {
            let writes = saved.ended.get(&task.id)?.writes.as_ref()?;
            Some(Contribution::of(task, writes))
        })
        .collect()
}

fn run_task(
    graph: &Graph,
    saved: &Saved,
    task: &Task,
    horizon: Horizon,
    node: &mut NodeFn<'_>,
    ran: &mut Ran,
) -> Ended {
    let input = input_of(graph, &saved.checkpoint, task, horizon);
    if task.node == START {
        return match start_writes(graph, &saved.checkpoint, &input) {
            Ok(writes) => Ended {
                writes: Some(writes),
                error: None,
            },
            Err(error) => Ended {
                writes: None,
                error: Some(error.into()),
            },
        };
    }
    ran.bodies.push((horizon.step, task.node.to_string()));
    let output = node(task, &input).and_then(|returned| match returned {
        Returned::Update(update) => Ok(output_from_update(graph, update)?),
        Returned::Output(output) => Ok(output),
    });
    let output = match output {
        Ok(output) => output,
        Err(error) => {
            return Ended {
                writes: None,
                error: Some(error),
            };
        }
    };
    let unknown = UnknownTargets::Ignored;
    let routed = route_within(
        graph,
        &saved.checkpoint,
        &task.node,
        output,
        unknown,
        horizon,
    );
    if routed.parent.is_some() {
        return Ended {
            writes: None,
            error: Some(Failure::new("NoParentGraph", &task.node)),
        };
    }
    let kept = routed.error.as_ref().is_none_or(RouteError::keeps_writes);
    Ended {
        writes: kept.then_some(routed.writes),
        error: routed.error.map(Failure::from),
    }
}

/// What a task wrote to the state, as an object; a key written twice is marked.
pub(crate) fn result_of(graph: &Graph, writes: &[Write]) -> Value {
    let mut by_key: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for write in writes {
        if graph.state_channels().contains(&write.channel) {
            let value = match &write.value {
                WriteValue::Set(value) => value.clone(),
                WriteValue::Overwrite(value) => json!({"overwrite": value}),
            };
            by_key
                .entry(write.channel.as_str())
                .or_default()
                .push(value);
        }
    }
    let object: Map<String, Value> = by_key
        .into_iter()
        .map(|(key, mut values)| match values.len() {
            1 => (key.to_owned(), values.remove(0)),
            _ => (key.to_owned(), json!({"$writes": values})),
        })
        .collect();
    Value::Object(object)
}
