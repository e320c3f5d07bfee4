//! What the scripted nodes of a case note while they run: which bodies began, and the counters.
//!
//! One per case, shared by every node of it. It says nothing about what the engine made of them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};

use crate::script::Counters;

/// A case's notes.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    ran: Mutex<Vec<Value>>,
    counters: Arc<Counters>,
}

impl Recorder {
    /// The counters of the case.
    pub(crate) fn counters(&self) -> Arc<Counters> {
        Arc::clone(&self.counters)
    }

    /// Notes that a node's body began. `ns` are the names of the enclosing subgraph nodes.
    pub(crate) fn began(&self, node: &str, step: i64, ns: &[String], attempt: u64) {
        let mut entry = json!({"step": step, "node": node});
        if !ns.is_empty() {
            entry["ns"] = json!(ns);
        }
        if attempt != 1 {
            entry["attempt"] = json!(attempt);
        }
        self.ran().push(entry);
    }

    /// The bodies that began since the last call.
    pub(crate) fn take_ran(&self) -> Vec<Value> {
        std::mem::take(&mut *self.ran())
    }

    fn ran(&self) -> MutexGuard<'_, Vec<Value>> {
        self.ran.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
