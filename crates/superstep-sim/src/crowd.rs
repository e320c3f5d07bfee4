//! A crowd: many who start one thread over each other, each as if it were alone.
//!
//! Starts of every strategy come one upon another, some delayed, some with the id of a run that was
//! asked for before; runs are cancelled by their ids, under way and in the queue, and rolled back.
//! What they leave depends on who came when, so their values are compared with nothing; the
//! invariants say what must hold of any order. Then all of it comes to an end.

use std::sync::Arc;

use serde_json::{Value, json};
use superstep_protocol::ThreadState;
use superstep_queue::CommandKind;
use tokio::time::sleep;

use crate::{graphs::answer_to, rig::Rig};

/// How many runs are asked for at most: under what a thread remembers.
const RUNS_MAX: usize = 24;

/// Who uses a thread without a look at the others.
pub(crate) struct Crowd {
    pub(crate) rig: Arc<Rig>,
    pub(crate) thread: String,
    pub(crate) graph: String,
    made: usize,
    runs: Vec<String>,
}

impl Crowd {
    pub(crate) fn new(rig: &Arc<Rig>, thread: String, graph: String) -> Self {
        Self {
            rig: Arc::clone(rig),
            thread,
            graph,
            made: 0,
            runs: Vec::new(),
        }
    }

    fn chance(&self, percent: u64) -> bool {
        self.rig.faults.draw(0..100) < percent
    }

    fn one<T: Clone>(&self, of: &[T]) -> T {
        let at = self.rig.faults.draw(0..of.len() as u64);
        of[usize::try_from(at).expect("an index")].clone()
    }

    async fn send(&mut self, kind: CommandKind, what: &str, body: Value) {
        self.made += 1;
        let id = format!("{}-{what}-{}", self.thread, self.made);
        let target = match kind {
            CommandKind::Start => self.graph.clone(),
            _ => self.thread.clone(),
        };
        self.rig.send(kind, &target, &id, &body).await;
        if self.chance(15) {
            sleep(self.rig.faults.ms(0..4000)).await;
            self.rig.send(kind, &target, &id, &body).await;
        }
    }

    async fn start(&mut self) {
        let run = if !self.runs.is_empty() && self.chance(15) {
            self.one(&self.runs)
        } else {
            format!("{}-run-{}", self.thread, self.runs.len())
        };
        let strategy = self.one(&["enqueue", "enqueue", "interrupt", "rollback", "reject"]);
        let mut body = json!({
            "thread_id": self.thread, "run_id": run, "input": {"count": 4},
            "config": {"recursion_limit": 200}, "multitask_strategy": strategy,
        });
        if self.chance(25) {
            body["after_seconds"] = json!(self.rig.faults.draw(1..40));
        }
        if !self.runs.contains(&run) {
            self.runs.push(run);
        }
        self.send(CommandKind::Start, strategy, body).await;
    }

    async fn cancel(&mut self) {
        let mut body = json!({});
        if !self.runs.is_empty() && self.chance(80) {
            body["run_id"] = json!(self.one(&self.runs));
        }
        if self.chance(40) {
            body["action"] = json!("rollback");
        }
        self.send(CommandKind::Cancel, "cancel", body).await;
    }

    async fn answer(&mut self, state: &ThreadState) {
        let open: Vec<_> = state.open_questions().map(|(_, q)| q.clone()).collect();
        for question in open {
            if !self.chance(40) {
                continue;
            }
            let value = answer_to(&question.payload, "crowd");
            let body = json!({"resume": value, "interrupt_id": question.id});
            self.send(CommandKind::Resume, "answer", body).await;
        }
    }

    /// Uses the thread until nothing goes wrong any more, and sees what is left to its end.
    pub(crate) async fn work(mut self) {
        self.start().await;
        loop {
            sleep(self.rig.faults.ms(50..1500)).await;
            if !self.rig.ledger.findings().is_empty() {
                return;
            }
            let calm = self.rig.calm.is_cancelled();
            if !calm && self.runs.len() < RUNS_MAX && self.chance(30) {
                self.start().await;
            }
            if !calm && self.chance(8) {
                self.cancel().await;
            }
            // What was asked for and is not decided yet may bring a run that asks, or waits.
            let decided = calm && self.rig.holds_no_command().await;
            let Some(state) = self.rig.state(&self.thread) else {
                if decided {
                    return;
                }
                continue;
            };
            self.answer(&state).await;
            let asks = state.open_questions().next().is_some();
            if decided && !state.is_busy() && !asks && state.queue.is_empty() {
                return;
            }
            if !calm && !state.is_busy() && !asks && !state.tasks.is_empty() && self.chance(10) {
                self.send(CommandKind::Retry, "retry", json!({})).await;
            }
        }
    }
}
