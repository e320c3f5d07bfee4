//! What the graph makes of a state: the input taken, a superstep applied, an update.
//!
//! Pure functions that join the graph's rules and the protocol's: a delta, and the plan for the
//! checkpoint it leads to. They need the graph's code, so only its workers call them.

use serde_json::Value;
use superstep_graph::{
    Contribution, Delta, END, Graph, Lineage, Namespace, NodeName, Planned, START, Source, Task,
    UnknownTargets, Write, amend, apply, clear, may_be_amended, plan, take_input, update_state,
};
use superstep_protocol::{
    AskedCommand, Profile, Progress, RunError, Stop, Superstep, Terms, ThreadState, Update, Updated,
};

use crate::{
    error::{ERROR_CHARS_MAX, shortened},
    graphs::RunnableGraph,
    panics::caught,
};

/// Where a checkpoint is to stand: its step, what it descends from, and the order of its tasks.
struct Place {
    step: i64,
    lineage: Lineage,
    source: Source,
}

impl Place {
    /// The next one.
    fn next(state: &ThreadState, source: Source) -> Self {
        let step = state.step_of(source);
        Self {
            step,
            lineage: state.next_lineage(step),
            source,
        }
    }

    /// The same one again.
    fn same(state: &ThreadState) -> Self {
        Self {
            step: state.checkpoint.step,
            lineage: state.checkpoint.lineage.clone(),
            source: state.checkpoint.source,
        }
    }
}

fn planned(
    graph: &RunnableGraph,
    state: &ThreadState,
    delta: Delta,
    place: Place,
    tasks_max: usize,
) -> Result<Superstep, RunError> {
    let Place {
        step,
        lineage,
        source,
    } = place;
    let ns = Namespace::root();
    let tasks = plan(
        graph.topology(),
        &Planned {
            base: &state.checkpoint,
            delta: &delta,
            source,
            step,
            lineage: &lineage,
            ns: &ns,
        },
    );
    if tasks.len() > tasks_max {
        return Err(RunError {
            kind: "TooManyTasks".to_owned(),
            message: format!(
                "the superstep would have {} tasks and may have {tasks_max}; send fewer packets \
                 at once, or raise `tasks_max`",
                tasks.len()
            ),
            node: None,
            task: None,
        });
    }
    Ok(Superstep {
        delta,
        tasks,
        lineage,
        output: false,
        stop: Stop::No,
    })
}

/// Whether a breakpoint stops the run between the tasks that ran and those that come next: the
/// run's own where it has some, else the graph's.
fn stop(graph: &RunnableGraph, state: &ThreadState, next: &[Task]) -> Stop {
    let terms = state.run.as_ref().map(|run| &run.terms);
    let before = terms.and_then(|terms| terms.interrupt_before.as_ref());
    let before = before.unwrap_or_else(|| graph.topology().interrupt_before());
    let mut ran = state.tasks.iter().map(|task| &task.task.node);
    if stops_after(graph.topology(), terms, &mut ran) {
        Stop::After
    } else if next.iter().any(|task| before.holds(&task.node)) {
        Stop::Before
    } else {
        Stop::No
    }
}

/// Whether a run with these terms stops after a superstep of these nodes.
pub(crate) fn stops_after<'a>(
    graph: &Graph,
    terms: Option<&Terms>,
    ran: impl IntoIterator<Item = &'a NodeName>,
) -> bool {
    let after = terms.and_then(|terms| terms.interrupt_after.as_ref());
    let after = after.unwrap_or_else(|| graph.interrupt_after());
    ran.into_iter().any(|node| after.holds(node))
}

/// Takes a run's input.
pub(crate) fn input(
    graph: &RunnableGraph,
    state: &ThreadState,
    input: &Value,
    tasks_max: usize,
) -> Result<Superstep, RunError> {
    let pending: Vec<Task> = state.tasks.iter().map(|task| task.task.clone()).collect();
    reduced(|| {
        let delta = take_input(graph.topology(), &state.checkpoint, &pending, input)
            .map_err(|error| invalid(&error))?;
        planned(
            graph,
            state,
            delta,
            Place::next(state, Source::Input),
            tasks_max,
        )
    })
}

/// Applies the writes of a complete superstep.
pub(crate) fn superstep(
    graph: &RunnableGraph,
    state: &ThreadState,
    writes: &[(&Task, &[Write])],
    tasks_max: usize,
) -> Result<Superstep, RunError> {
    let tasks: Vec<Contribution<'_>> = writes
        .iter()
        .map(|(task, writes)| Contribution::of(task, writes))
        .collect();
    reduced(|| {
        let delta =
            apply(graph.topology(), &state.checkpoint, &tasks).map_err(|error| invalid(&error))?;
        let place = Place::next(state, Source::Loop);
        let mut superstep = planned(graph, state, delta, place, tasks_max)?;
        let output = graph.topology().output_channels();
        superstep.output = writes
            .iter()
            .flat_map(|(_, writes)| *writes)
            .any(|write| output.contains(&write.channel));
        superstep.stop = stop(graph, state, &superstep.tasks);
        Ok(superstep)
    })
}

fn invalid(error: &superstep_graph::InvalidUpdate) -> RunError {
    RunError {
        kind: "InvalidUpdateError".to_owned(),
        message: shortened(error.to_string(), ERROR_CHARS_MAX),
        node: None,
        task: None,
    }
}

/// Calls the graph's reducers and paths, which may panic.
fn reduced<T>(code: impl FnOnce() -> Result<T, RunError>) -> Result<T, RunError> {
    caught(code).unwrap_or_else(|message| {
        Err(RunError {
            kind: "Panic".to_owned(),
            message: format!("a reducer or path of the graph panicked: {message}"),
            node: None,
            task: None,
        })
    })
}

/// Applies updates from outside, all in one superstep.
pub(crate) fn update(
    graph: &RunnableGraph,
    state: &ThreadState,
    updates: &[Update],
    tasks_max: usize,
) -> Result<Box<Updated>, String> {
    if let [Update { values, as_node }] = updates
        && let Some(special) = as_node.as_ref().filter(|node| is_special(node, values))
    {
        return special_update(graph, state, special, values, tasks_max);
    }
    let topology = graph.topology();
    let known = |update: &Update| {
        let mut values = update.values.clone();
        if let (Profile::Langgraph, Some(object)) = (state.profile, values.as_object_mut()) {
            // LangGraph drops what is no channel without a word.
            object.retain(|key, _| topology.state_channels().contains(key.as_str()));
        }
        (values, update.as_node.clone())
    };
    let values = updates.iter().map(known).collect();
    let made = reduced(|| {
        Ok(update_state(topology, &state.checkpoint, values)
            .map_err(|error| shortened(error.to_string(), ERROR_CHARS_MAX)))
    });
    let made = made.map_err(|error| error.message)??;
    let place = Place::next(state, Source::Update);
    let superstep =
        planned(graph, state, made.delta, place, tasks_max).map_err(|error| error.message)?;
    let node = made.made.first().map(|(node, _)| node.clone());
    let tasks = made.made.into_iter().filter_map(|(node, writes)| {
        let mut pending = state.tasks.iter().map(|task| &task.task);
        let task = pending.find(|task| task.node == node)?;
        Some((task.id.clone(), writes))
    });
    let tasks = tasks.collect();
    let node = node.unwrap_or_else(|| NodeName::new(START));
    Ok(Box::new(Updated {
        tasks,
        ..Updated::new(node, superstep)
    }))
}

/// LangGraph's `as_node` that is no node: an input, a copy, or the end of what is pending.
fn is_special(node: &NodeName, values: &Value) -> bool {
    match node.as_str() {
        "__input__" => true,
        "__copy__" | END => values.is_null(),
        _ => false,
    }
}

fn special_update(
    graph: &RunnableGraph,
    state: &ThreadState,
    node: &NodeName,
    values: &Value,
    tasks_max: usize,
) -> Result<Box<Updated>, String> {
    let topology = graph.topology();
    let (source, delta) = match node.as_str() {
        "__copy__" => (Source::Fork, Ok(Delta::default())),
        "__input__" => (
            Source::Input,
            take_input(topology, &state.checkpoint, &[], values),
        ),
        _ => {
            let done: Vec<Contribution<'_>> = state
                .tasks
                .iter()
                .map(|task| match &task.progress {
                    Progress::Finished { writes, .. } => Contribution::of(&task.task, writes),
                    _ => Contribution::of(&task.task, &[]),
                })
                .collect();
            (Source::Update, clear(topology, &state.checkpoint, &done))
        }
    };
    let delta = delta.map_err(|error| shortened(error.to_string(), ERROR_CHARS_MAX))?;
    let place = Place::next(state, source);
    let superstep =
        planned(graph, state, delta, place, tasks_max).map_err(|error| error.message)?;
    Ok(Box::new(Updated {
        source,
        ..Updated::new(node.clone(), superstep)
    }))
}

/// Prepares a run: its command applied to the checkpoint as it stands, or, if `copies`, to a copy
/// of it, which takes the next step.
pub(crate) fn command(
    graph: &RunnableGraph,
    state: &ThreadState,
    asked: &AskedCommand,
    copies: bool,
    tasks_max: usize,
) -> Result<Superstep, String> {
    let unknown = unknown_targets(state.profile);
    let goto = asked.goto.iter().cloned().map(Into::into).collect();
    let update = asked.update.clone();
    let topology = graph.topology();
    let delta = reduced(|| {
        // LangGraph applies all that commands said of a checkpoint at once.
        let together = state.commanded.iter().cloned().chain([update.clone()]);
        let delta = may_be_amended(topology, &state.checkpoint, together, unknown)
            .and_then(|()| amend(topology, &state.checkpoint, update, goto, unknown));
        Ok(delta.map_err(|error| shortened(error.to_string(), ERROR_CHARS_MAX)))
    });
    let delta = delta.map_err(|error| error.message)??;
    let place = if copies {
        // The run that copies a checkpoint takes its tasks in the order of that one.
        Place::next(state, state.checkpoint.source)
    } else {
        Place::same(state)
    };
    planned(graph, state, delta, place, tasks_max).map_err(|error| error.message)
}

/// How a profile takes what a graph does not have.
pub(crate) fn unknown_targets(profile: Profile) -> UnknownTargets {
    match profile {
        Profile::Default => UnknownTargets::Refused,
        Profile::Langgraph => UnknownTargets::Ignored,
    }
}
