//! Poison: tasks that kill the workers they run on are found, and fail unrun.
//!
//! A process that dies says nothing, so what it did is counted before: in the store, by task and
//! round, whenever a task is begun that somebody may have begun before. Whoever lives to hand a
//! task back takes its count back; the first time a task is begun is not counted at all, so a
//! quick task costs nothing. At the bound it fails with kind [`TASK_POISONED`] and its run ends in
//! error; a retry opens a new round, whose counts begin anew.
//!
//! A process dies with all that it holds, mostly the innocent. So what was counted before and
//! never came to an end runs alone: one such task at a time in a process, counted only once it
//! has its turn, its result stored before the next one begins. From then on a death is charged to
//! the one that was running, and the others end. The rule it keeps: nobody is charged for
//! waiting.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use futures_util::{StreamExt as _, stream};
use superstep_graph::TaskId;
use superstep_protocol::{Dispatch, RunError, TASK_POISONED, TaskResult, ThreadId, ThreadState};
use tracing::{debug, error};

use crate::{error::Error, threads::Threads};

/// How many counted attempts make a task run alone.
const SUSPECT_FROM: u64 = 2;
/// How many counts are under way at once.
const AT_ONCE: usize = 32;

/// The attempts that were counted for one delivery.
#[derive(Clone, Default)]
pub(crate) struct Charged {
    counted: Arc<Mutex<Vec<(ThreadId, Dispatch, TaskId)>>>,
}

/// What counting came to.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// The most that one of the tasks was counted before and now.
    pub(crate) most: u64,
    /// How often each was counted: it was begun so often before, as far as is known.
    pub(crate) lost: BTreeMap<TaskId, u32>,
    /// Whether one of them is to run alone.
    pub(crate) suspect: bool,
    /// The tasks that are not to be run any more, with what they come to.
    pub(crate) poisoned: BTreeMap<TaskId, TaskResult>,
}

impl Charged {
    /// Counts an attempt at each of `tasks`; `None` if their round is over.
    pub(crate) async fn count(
        &self,
        threads: &Threads,
        (state, dispatch): (&ThreadState, Dispatch),
        tasks: &[TaskId],
        attempts_max: u64,
    ) -> Result<Option<Counts>, Error> {
        let thread = &state.thread;
        let count = async |task: &TaskId| {
            let counted = threads.retrying(thread, || {
                threads.log().count_attempt(thread, dispatch, task)
            });
            let counted = counted.await?;
            if counted.is_some() {
                let entry = (thread.clone(), dispatch, task.clone());
                self.lock().push(entry);
            }
            Ok::<_, Error>((task.clone(), counted))
        };
        // To its end even where one fails: what was counted is noted, to be taken back.
        let counted: Vec<_> = stream::iter(tasks.to_vec())
            .map(async |task| count(&task).await)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let mut counts = Counts::default();
        for counted in counted {
            let (task, Some(count)) = counted? else {
                return Ok(None);
            };
            counts.most = counts.most.max(count);
            let lost = u32::try_from(count).unwrap_or(u32::MAX);
            counts.lost.insert(task.clone(), lost);
            if count >= attempts_max {
                counts.suspect = true;
                let result = poisoned(state, &task, count);
                counts.poisoned.insert(task, result);
            }
            counts.suspect |= count >= SUSPECT_FROM;
        }
        Ok(Some(counts))
    }

    /// Takes back what was counted: whoever was charged lives. Best effort, for the store may be
    /// why it is handed back; then the next count stays one too high.
    pub(crate) async fn forgive(&self, threads: &Threads) {
        let counted = std::mem::take(&mut *self.lock());
        let forgive = async |(thread, dispatch, task): (ThreadId, Dispatch, TaskId)| {
            let forgiven = threads.log().forgive_attempt(&thread, dispatch, &task);
            if let Err(error) = forgiven.await {
                debug!(thread_id = %thread, %error, "an attempt stays counted");
            }
        };
        stream::iter(counted)
            .for_each_concurrent(AT_ONCE, forgive)
            .await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(ThreadId, Dispatch, TaskId)>> {
        self.counted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a task comes to that was begun so often.
fn poisoned(state: &ThreadState, task: &TaskId, begun: u64) -> TaskResult {
    let node = state.task(task).map(|found| found.task.node.clone());
    error!(
        thread_id = %state.thread, task_id = %task, node = node.as_ref().map_or("", |n| n.as_str()),
        begun, "a task kills the workers that run it; it fails unrun"
    );
    let error = RunError {
        kind: TASK_POISONED.to_owned(),
        message: format!(
            "the task was begun {begun} times and no worker lived to tell its end; mend what kills \
             them (memory, stack, an abort), then retry the thread"
        ),
        node,
        task: Some(task.clone()),
    };
    TaskResult::failed(error, None)
}

/// Whether a task failed so.
pub(crate) fn is_poisoned(result: &TaskResult) -> bool {
    matches!(result, TaskResult::Failed { error, .. } if error.kind == TASK_POISONED)
}
