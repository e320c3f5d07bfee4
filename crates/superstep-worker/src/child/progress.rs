//! Where the calls of a round store what they did, superstep by superstep.
//!
//! A call puts an entry into its task's progress after every inner superstep, before anything is
//! done with it: the records that it added to its log since the entry before. A call that is done
//! again, after a crash or beside another worker, reads them and goes on behind them. The entries
//! live as long as the round, and nothing is decided by them: what counts for the thread is the
//! task's result, which carries the same records.
//!
//! A call within a call has entries of its own, under the path of tasks that leads to it, and so
//! has each attempt of a call that failed and is tried again, behind those before it. A call that
//! begins anew each time it goes on stores nothing, nor does what it calls.
//!
//! It leaves to the engine what to do when a call stops here: the round is over, or the store
//! fails for too long.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use bytes::Bytes;
use superstep_checkpoint::PutProgress;
use superstep_graph::{TaskId, digest};
use superstep_protocol::{Dispatch, Record, ThreadId};
use superstep_wire::record::{ProgressEntry, decode_progress, encode_progress};

use crate::{error::Error, health::Health, run_task::Stopped, threads::Threads};

/// Why calls of a round stopped by themselves.
#[derive(Debug)]
pub(crate) enum WhyStopped {
    /// The round is over, or the thread is gone.
    Late,
    /// The store failed.
    Failed(Error),
}

/// A round whose calls store their progress.
#[derive(Debug)]
struct Round {
    threads: Threads,
    thread: ThreadId,
    dispatch: Dispatch,
    /// Whether somebody may have worked on the round before.
    again: bool,
    stopped: Mutex<Option<WhyStopped>>,
}

/// The place in a round's progress of whatever runs: of one task of the round, and of the calls
/// that lead to it.
#[derive(Clone, Debug)]
pub(crate) struct Progress {
    round: Arc<Round>,
    /// The call that it is in; `None` in the root graph.
    call: Option<TaskId>,
    /// Whether a task in it has taken the offered answer.
    took_offer: Arc<AtomicBool>,
}

/// What became of an entry.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stored {
    /// It is stored.
    Done,
    /// There is another one, or the same from before: the call has to go on from that.
    Taken,
}

impl Progress {
    /// The progress of the round `dispatch`; `again` if somebody may have worked on it before.
    pub(crate) fn of_round(
        threads: &Threads,
        thread: &ThreadId,
        dispatch: Dispatch,
        again: bool,
    ) -> Self {
        Self {
            round: Arc::new(Round {
                threads: threads.clone(),
                thread: thread.clone(),
                dispatch,
                again,
                stopped: Mutex::default(),
            }),
            call: None,
            took_offer: Arc::default(),
        }
    }

    /// What is told of the work on it.
    pub(crate) fn health(&self) -> &Health {
        self.round.threads.health()
    }

    /// Why calls of the round stopped, if they did so by themselves; said once.
    pub(crate) fn why_stopped(&self) -> Option<WhyStopped> {
        let stopped = &self.round.stopped;
        stopped
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
    }

    /// The place of the call that `task`, which runs at this one, makes after so many tries.
    pub(super) fn of_call(&self, task: &TaskId, tries: u32) -> Self {
        let outer = self.call.as_ref().map_or("", TaskId::as_str);
        let call = if outer.is_empty() && tries == 0 {
            task.clone()
        } else {
            let tries = tries.to_string();
            TaskId::new(digest(&["call", outer, task.as_str(), &tries]))
        };
        // The tasks of the round take offers each for itself.
        let took_offer = match &self.call {
            None => Arc::default(),
            Some(_) => Arc::clone(&self.took_offer),
        };
        Self {
            round: Arc::clone(&self.round),
            call: Some(call),
            took_offer,
        }
    }

    /// Notes that a task took the offered answer.
    pub(crate) fn offer_taken(&self) {
        self.took_offer.store(true, Ordering::SeqCst);
    }

    /// Whether there can be entries that this process did not just put.
    pub(super) fn may_be_there(&self) -> bool {
        self.round.again
    }

    /// Stores what the call did as entry `index`.
    pub(super) async fn put(&self, index: u64, records: Vec<Record>) -> Result<Stored, Stopped> {
        let Some(call) = &self.call else {
            unreachable!("only calls have progress");
        };
        let entry = ProgressEntry {
            records,
            took_offer: self.took_offer.load(Ordering::SeqCst),
        };
        let bytes = Bytes::from(encode_progress(&entry));
        let Round {
            threads,
            thread,
            dispatch,
            ..
        } = &*self.round;
        let put = || {
            let log = threads.log();
            log.put_progress(thread, *dispatch, call, index, bytes.clone())
        };
        match threads.retrying(thread, put).await {
            Ok(PutProgress::Stored) => Ok(Stored::Done),
            Ok(PutProgress::Taken { .. }) => Ok(Stored::Taken),
            Ok(PutProgress::RoundOver | PutProgress::UnknownThread) => {
                Err(self.stop(WhyStopped::Late))
            }
            Err(error) => Err(self.stop(WhyStopped::Failed(error))),
        }
    }

    /// The call's entries.
    pub(super) async fn read(&self) -> Result<Vec<ProgressEntry>, Stopped> {
        let Some(call) = &self.call else {
            unreachable!("only calls have progress");
        };
        let Round {
            threads,
            thread,
            dispatch,
            ..
        } = &*self.round;
        let read = || threads.log().progress(thread, *dispatch, call);
        let stored = match threads.retrying(thread, read).await {
            Ok(stored) => stored,
            Err(error) => return Err(self.stop(WhyStopped::Failed(error))),
        };
        let entries = stored.iter().map(|bytes| decode_progress(bytes));
        entries.collect::<Result<_, _>>().map_err(|source| {
            let error = Error::Record {
                thread: thread.clone(),
                version: dispatch.version,
                source,
            };
            self.stop(WhyStopped::Failed(error))
        })
    }

    /// The first reason stays: of several calls that fail each says the same.
    fn stop(&self, why: WhyStopped) -> Stopped {
        let stopped = &self.round.stopped;
        let mut stopped = stopped.lock().unwrap_or_else(PoisonError::into_inner);
        stopped.get_or_insert(why);
        Stopped
    }
}
