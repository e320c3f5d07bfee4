//! Rounds: what an open round has brought is of tasks that it has, and can be read.
//!
//! Whoever brings a result learns how many there are, and closes the round when that is how many
//! tasks it has. A result of no task of it makes that count wrong, and one that cannot be read
//! fails everybody who closes. What belongs to rounds that are over is the strays' business.
//!
//! The rule it keeps: a result is no hint. It is told and left where it is.

use std::collections::BTreeSet;

use superstep_checkpoint::ErrorKind;
use superstep_graph::TaskId;
use superstep_protocol::ThreadState;
use superstep_wire::record::decode_result;

use super::{Check, Wrong, walk::Walk};
use crate::error::{Error, chain};

/// Compares the results of the open rounds with the tasks that are in them.
pub(super) async fn check(walk: &Walk<'_>, state: &ThreadState) -> Result<Vec<Wrong>, Error> {
    let mut found = Vec::new();
    for round in state.rounds.keys() {
        let mut tell = |subject: &str, detail: String| {
            let wrong = Wrong::new(Check::Writes, walk.thread, subject, detail);
            found.push(wrong.at(round.version));
        };
        let results = match walk.log.results(walk.thread, *round).await {
            Ok(results) => results,
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                tell(&format!("results of round {round}"), chain(&error));
                continue;
            }
            Err(source) => {
                return Err(Error::Log {
                    thread: walk.thread.clone(),
                    source,
                });
            }
        };
        let tasks: BTreeSet<&TaskId> = state.round_tasks(*round).map(|t| &t.task.id).collect();
        for (task, bytes) in &results {
            if !tasks.contains(task) {
                let detail = format!(
                    "round {round} has {} tasks and holds a result of task {task}, which is none \
                     of them: it is counted as one",
                    tasks.len()
                );
                tell(task.as_str(), detail);
            } else if let Err(error) = decode_result(bytes) {
                let detail = format!("its result in round {round}: {}", chain(&error));
                tell(task.as_str(), detail);
            }
        }
    }
    Ok(found)
}
