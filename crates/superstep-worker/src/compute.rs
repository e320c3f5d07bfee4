//! What the graph makes of a state: the input taken, a superstep applied, an update.
//!
//! Pure functions that join the graph's rules and the protocol's: a delta, and the plan for the
//! checkpoint it leads to. They need the graph's code, so only its workers call them.

use superstep_graph::{
    Contribution, Delta, Namespace, NodeName, Planned, Source, Task, Write, apply, plan,
    take_input, update_state,
};
use superstep_protocol::{Profile, RunError, Superstep, ThreadState};

use crate::{
    error::{ERROR_CHARS_MAX, shortened},
    graphs::RunnableGraph,
    panics::caught,
};

fn planned(
    graph: &RunnableGraph,
    state: &ThreadState,
    delta: Delta,
    source: Source,
    tasks_max: usize,
) -> Result<Superstep, RunError> {
    let step = state.next_step();
    let lineage = state.next_lineage(step);
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
    })
}

/// Takes a run's input.
pub(crate) fn input(
    graph: &RunnableGraph,
    state: &ThreadState,
    input: &serde_json::Value,
    tasks_max: usize,
) -> Result<Superstep, RunError> {
    let pending: Vec<Task> = state.tasks.iter().map(|task| task.task.clone()).collect();
    reduced(|| {
        let delta = take_input(graph.topology(), &state.checkpoint, &pending, input)
            .map_err(|error| invalid(&error))?;
        planned(graph, state, delta, Source::Input, tasks_max)
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
        planned(graph, state, delta, Source::Loop, tasks_max)
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

/// Applies an update from outside.
pub(crate) fn update(
    graph: &RunnableGraph,
    state: &ThreadState,
    values: &serde_json::Value,
    as_node: Option<&NodeName>,
    tasks_max: usize,
) -> Result<(NodeName, Superstep), String> {
    let topology = graph.topology();
    let mut values = values.clone();
    if let (Profile::Langgraph, Some(object)) = (state.profile, values.as_object_mut()) {
        // LangGraph drops what is no channel without a word.
        object.retain(|key, _| topology.state_channels().contains(key.as_str()));
    }
    let updated = reduced(|| {
        Ok(update_state(topology, &state.checkpoint, values, as_node)
            .map_err(|error| shortened(error.to_string(), ERROR_CHARS_MAX)))
    });
    let (node, delta) = updated.map_err(|error| error.message)??;
    let superstep =
        planned(graph, state, delta, Source::Update, tasks_max).map_err(|error| error.message)?;
    Ok((node, superstep))
}
