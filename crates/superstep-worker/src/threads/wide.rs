//! Threads whose superstep is wide: read once by a worker, not once a message.
//!
//! The tasks of a wide superstep come in many messages, and each would read the whole thread
//! again. The few threads that were read last are kept here, and a copy is given out only while
//! the store still has the very head that it was read at: what was true then is true now.
//!
//! The rule it keeps: it saves reads and decides nothing; an append compares the head as ever.

use std::{collections::VecDeque, sync::Arc};

use superstep_protocol::ThreadId;
use tokio::sync::Mutex;

use super::{Thread, Threads};
use crate::error::Error;

/// How many threads are kept; each takes up to the bound of a state.
const KEPT_MAX: usize = 4;

/// The wide threads that were read last, newest last.
#[derive(Clone, Default)]
pub(super) struct Wide {
    kept: Arc<Mutex<VecDeque<Thread>>>,
}

impl Threads {
    /// As [`load`](Self::load), for one of many messages about a wide superstep.
    pub(crate) async fn load_wide(&self, thread: &ThreadId) -> Result<Option<Thread>, Error> {
        let head = self.retrying(thread, || self.log.head(thread)).await?;
        // Held while the thread is read: of many that ask at once, one reads.
        let mut kept = self.wide.kept.lock().await;
        let known = kept.iter().find(|known| known.state.thread == *thread);
        if let Some(known) = known.filter(|known| Some(known.state.head) == head) {
            return Ok(Some(known.clone()));
        }
        kept.retain(|known| known.state.thread != *thread);
        let loaded = self.load(thread).await?;
        if let Some(loaded) = &loaded {
            if kept.len() == KEPT_MAX {
                kept.pop_front();
            }
            kept.push_back(loaded.clone());
        }
        Ok(loaded)
    }
}
