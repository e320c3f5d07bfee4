//! Ids are data: what names a thing in the store carries the nonce, what the world must recognise
//! does not.
//!
//! An event id names one event of one record for ever, so a redone record has other ids. A
//! question has one id however often it is asked, also when the store lost it and it is asked
//! again; a task likewise has one node for its id.

use std::collections::BTreeMap;

use serde_json::Value;
use superstep_graph::{InterruptId, NodeName, TaskId};
use superstep_protocol::ThreadId;

use super::{Invariant, ensure};
use crate::ledger::{Facts, Seen, Step};

#[derive(Default)]
pub(super) struct IdsStable {
    events: BTreeMap<String, Option<String>>,
    questions: BTreeMap<InterruptId, (ThreadId, Value)>,
    tasks: BTreeMap<TaskId, (ThreadId, NodeName)>,
}

impl IdsStable {
    fn appended(&mut self, step: &Step<'_>) -> Result<(), String> {
        let thread = step.thread;
        for task in &step.state.tasks {
            let named = (thread.clone(), task.task.node.clone());
            let known = self
                .tasks
                .entry(task.task.id.clone())
                .or_insert_with(|| named.clone());
            ensure(*known == named, || {
                format!("task {} is {known:?} and {named:?}", task.task.id)
            })?;
        }
        for (_, question) in step.state.open_questions() {
            let asked = (thread.clone(), question.payload.clone());
            let known = self
                .questions
                .entry(question.id.clone())
                .or_insert_with(|| asked.clone());
            ensure(*known == asked, || {
                format!("question {} is {known:?} and {asked:?}", question.id)
            })?;
        }
        let Some(before) = step.before else {
            return Ok(());
        };
        let mut ids: Vec<_> = before.events.iter().map(|(_, id)| id).collect();
        ids.sort_unstable();
        let repeated = ids.windows(2).find(|pair| pair[0] == pair[1]);
        ensure(repeated.is_none(), || {
            format!("{thread}: {repeated:?} names two events")
        })
    }
}

impl Invariant for IdsStable {
    fn name(&self) -> &'static str {
        "ids stable"
    }

    fn look(&mut self, seen: &Seen<'_>, _: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => self.appended(step),
            Seen::Told { event } => {
                let record = event.record.clone();
                let known = self
                    .events
                    .entry(event.event_id.clone())
                    .or_insert_with(|| record.clone());
                ensure(*known == record, || {
                    format!("event {} is of {known:?} and of {record:?}", event.event_id)
                })
            }
            _ => Ok(()),
        }
    }
}
