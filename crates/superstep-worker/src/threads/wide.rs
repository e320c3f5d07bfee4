//! Threads whose superstep has several tasks: read once by a worker, not once a message.
//!
//! The tasks of such a superstep come in many messages, and each would read the whole thread
//! again. The threads that were read last are kept here, as many as fit into a bound of bytes, and
//! a copy is given out only while the store still has the very head that it was read at: what was
//! true then is true now.
//!
//! The rule it keeps: it saves reads and decides nothing; an append compares the head as ever. Of
//! many that ask for one thread at once, one reads; nobody waits for another thread's read.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use superstep_protocol::ThreadId;

use super::{Thread, Threads};
use crate::error::Error;

/// How many threads are kept: as many as a worker may be at, more or less.
const KEPT_MAX: usize = 128;
/// How many bytes their records take together, which is a tenth or less of what they take in
/// memory; the last one is kept whatever it takes.
const BYTES_MAX: usize = 4 << 20;

/// The threads that were read last, newest last.
#[derive(Clone, Default)]
pub(super) struct Wide {
    kept: Arc<Mutex<VecDeque<Kept>>>,
}

struct Kept {
    thread: ThreadId,
    bytes: usize,
    /// Held while the thread is read.
    read: Arc<tokio::sync::Mutex<Option<Thread>>>,
}

impl Wide {
    /// The place of a thread, which is now the newest.
    fn place(&self, thread: &ThreadId) -> Arc<tokio::sync::Mutex<Option<Thread>>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|kept| kept.thread == *thread);
        let place = known
            .and_then(|at| kept.remove(at))
            .unwrap_or_else(|| Kept {
                thread: thread.clone(),
                bytes: 0,
                read: Arc::default(),
            });
        let read = Arc::clone(&place.read);
        kept.push_back(place);
        if kept.len() > KEPT_MAX {
            kept.pop_front();
        }
        read
    }

    /// A thread was read and takes so many bytes: others make room.
    fn takes(&self, thread: &ThreadId, bytes: usize) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.iter_mut().find(|kept| kept.thread == *thread) {
            known.bytes = bytes;
        }
        let mut all: usize = kept.iter().map(|kept| kept.bytes).sum();
        while all > BYTES_MAX && kept.len() > 1 {
            all -= kept.pop_front().map_or(0, |oldest| oldest.bytes);
        }
    }
}

impl Threads {
    /// As [`load`](Self::load), for one of many messages about a superstep of several tasks.
    pub(crate) async fn load_wide(&self, thread: &ThreadId) -> Result<Option<Thread>, Error> {
        let head = self.retrying(thread, || self.log.head(thread)).await?;
        let place = self.wide.place(thread);
        let mut read = place.lock().await;
        if let Some(known) = read.as_ref().filter(|known| Some(known.state.head) == head) {
            return Ok(Some(known.clone()));
        }
        let loaded = self.load(thread).await?;
        read.clone_from(&loaded);
        let bytes = |thread: &Thread| thread.snapshot_bytes + thread.bytes_since;
        self.wide.takes(thread, loaded.as_ref().map_or(0, bytes));
        Ok(loaded)
    }
}
