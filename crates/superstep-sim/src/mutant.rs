//! Deliberate mistakes: what the simulator must catch, or its silence means nothing.
//!
//! Each breaks one rule of the design where it can be broken from outside: in the store or the
//! queue that a worker is given. So the worker's code holds no switch for any of them. A test
//! proves that each is found within a bounded number of seeds.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use superstep_graph::TaskId;
use superstep_protocol::{Head, ThreadId};

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mutant {
    /// Work is acked when it is handed over, before anything is appended.
    AckBeforeAppend,
    /// An append that lost is told that it won.
    AppendWithoutCompare,
    /// The results of all rounds of a checkpoint lie in one map.
    MapByCheckpoint,
    /// Of what a thread owes, only what its last record calls for goes out.
    EffectsOfTheHeadOnly,
    /// A thread leaves the watch index before its events are in their stream.
    UnwatchedBeforeTold,
    /// Ids of events do not carry the nonce of their record.
    EventIdWithoutNonce,
    /// Commands are acked at once, however young their record is.
    CommandsAckedAtOnce,
    /// Refusals are told and not remembered.
    RefusalsForgotten,
    /// Nobody looks at watched threads.
    NoReconciler,
}

/// All results of a thread's checkpoints, each in the one map that they share.
#[derive(Default)]
pub(crate) struct SharedMaps {
    maps: HashMap<(ThreadId, Option<Head>), BTreeMap<TaskId, Bytes>>,
}

impl SharedMaps {
    /// Puts a result if there is none, and says whether it did and how many are there.
    pub(crate) fn put(
        &mut self,
        thread: &ThreadId,
        checkpoint: Option<Head>,
        task: &TaskId,
        result: Bytes,
    ) -> (bool, u64) {
        let map = self.maps.entry((thread.clone(), checkpoint)).or_default();
        let is_new = !map.contains_key(task);
        map.entry(task.clone()).or_insert(result);
        (is_new, map.len() as u64)
    }

    pub(crate) fn all(
        &self,
        thread: &ThreadId,
        checkpoint: Option<Head>,
    ) -> BTreeMap<TaskId, Bytes> {
        let map = self.maps.get(&(thread.clone(), checkpoint));
        map.cloned().unwrap_or_default()
    }
}

/// The id of an event as it would be without its record's nonce.
pub(crate) fn without_nonce(id: &str, record: Head) -> String {
    id.replace(&record.to_string(), &record.version.to_string())
}
