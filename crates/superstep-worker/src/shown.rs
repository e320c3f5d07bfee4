//! What is shown of a run that ended, and of a thread whose writes cannot be applied together.
//!
//! Pure, and the same for every mode: a run in this process and one on a cluster show the same
//! values and fail by the same conflicts. The shapes of what is shown are the callers'.

use std::borrow::Cow;

use serde_json::{Map, Value};
use superstep_graph::{Graph, read_output};
use superstep_protocol::{Profile, Refusal, RunError, ThreadState};

use crate::view::so_far;

/// The values of the last run: its output, where the graph says what that is, with what there is
/// so far of the current superstep.
///
/// With an error if writes so far cannot be applied together. By default they fail the run once
/// the superstep is complete; LangGraph shows what there is before them, and fails by that.
pub(crate) fn output(
    state: &ThreadState,
    graph: Option<&Graph>,
) -> (Map<String, Value>, Option<RunError>) {
    let Some(graph) = graph else {
        return (state.visible_values(), None);
    };
    let (so_far, error) = match so_far(state, graph, true) {
        Ok(so_far) => (so_far, None),
        Err(conflict) => {
            let error = RunError {
                kind: "InvalidUpdateError".to_owned(),
                message: conflict.to_string(),
                node: None,
                task: None,
            };
            let fails = state.profile == Profile::Langgraph;
            (Cow::Borrowed(&state.checkpoint), fails.then_some(error))
        }
    };
    let values = match read_output(graph, &so_far) {
        Value::Object(values) => values,
        _ => Map::new(),
    };
    (values, error)
}

/// Whether the last run shows its values: it wrote to the output, went on with what was there,
/// or asks.
pub(crate) fn shows(state: &ThreadState) -> bool {
    state.run.as_ref().is_some_and(|run| run.shows) || state.open_questions().next().is_some()
}

/// Refuses to show a thread of the `langgraph` profile where a superstep failed because its
/// writes cannot be applied together: LangGraph has no state to show then.
pub(crate) fn can_be_shown(state: &ThreadState, graph: Option<&Graph>) -> Result<(), Refusal> {
    if state.profile == Profile::Langgraph
        && let Some(Err(conflict)) = graph.map(|graph| so_far(state, graph, false))
    {
        let reason = conflict.to_string();
        return Err(Refusal::InvalidUpdate { reason });
    }
    Ok(())
}
