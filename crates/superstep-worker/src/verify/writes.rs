//! Writes: each task of a committed superstep wrote once.

use std::collections::BTreeMap;

use superstep_graph::{Source, TaskId};
use superstep_protocol::{Record, RecordBody, ThreadState};

use super::{Check, walk::Walk};

/// Compares who wrote in a superstep with the tasks that it was planned with.
pub(super) fn check(walk: &mut Walk<'_>, before: &ThreadState, record: &Record) {
    let RecordBody::Committed(committed) = &record.body else {
        return;
    };
    if committed.source != Source::Loop {
        return;
    }
    let mut wrote: BTreeMap<&TaskId, usize> = BTreeMap::new();
    for trace in &committed.traces {
        *wrote.entry(&trace.task).or_default() += 1;
    }
    for task in &before.tasks {
        let id = &task.task.id;
        let times = wrote.remove(id).unwrap_or(0);
        if times != 1 {
            let detail = format!("task {id} of node `{}` wrote {times} times", task.task.node);
            walk.wrong(Check::Writes, record.head.version, id.as_str(), detail);
        }
    }
    for (id, times) in wrote {
        let detail = format!("task {id}, which is none of the superstep's, wrote {times} times");
        walk.wrong(Check::Writes, record.head.version, id.as_str(), detail);
    }
}
