//! What a test with a script does with a rig: waits for a state, sends one thing, waits for rest.
//!
//! Each wait has a deadline in virtual time and tells what happened when it passes. What a test
//! asserts beside that is its own.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::{Value, json};
use superstep_graph::InterruptId;
use superstep_protocol::{CommandId, Question, ThreadId, ThreadState};
use superstep_queue::{CommandKind, subject::Subjects};
use superstep_worker::Client;
use tokio::time::{Duration, sleep, timeout};

use crate::{
    graphs::answer_to,
    plan::lock,
    rig::{DEADLINE, Rig, is_done},
};

impl Rig {
    /// Waits until no message is held by the queue.
    pub(crate) async fn quiet(&self) {
        if let Err(wrong) = self.silence().await {
            panic!("{wrong}\n{}", self.faults.story());
        }
    }

    /// Waits for silence and checks what must be true of threads and commands then.
    pub(crate) async fn rest(&self) {
        if let Err(wrong) = self.settle().await {
            panic!("{wrong}\n{}", self.faults.story());
        }
    }

    /// Starts a thread whose input is `input`.
    pub(crate) async fn begin(&self, graph: &str, thread: &str, input: Value) {
        let body = json!({"thread_id": thread, "input": input});
        let id = format!("{thread}-start");
        self.send(CommandKind::Start, graph, &id, &body).await;
    }

    /// Starts a thread and answers each of its questions once, until it has completed.
    pub(crate) async fn see_through(&self, graph: &str, thread: &str) {
        self.begin(graph, thread, json!({"count": 4})).await;
        let mut answered = BTreeSet::new();
        loop {
            let state = self
                .until(thread, "done or asking", |state| {
                    is_done(state) || unanswered(state, &answered).is_some()
                })
                .await;
            let Some(question) = unanswered(&state, &answered) else {
                return;
            };
            self.answer(thread, question).await;
            answered.insert(question.id.clone());
        }
    }

    /// Answers a question by its id.
    pub(crate) async fn answer(&self, thread: &str, question: &Question) {
        let id = format!("{thread}-answer-{}", question.id);
        let value = answer_to(&question.payload, &id);
        let body = json!({"resume": value, "interrupt_id": question.id});
        self.send(CommandKind::Resume, thread, &id, &body).await;
    }

    /// The checkpoints of a thread, oldest first: source, step, values and what came next.
    pub(crate) async fn checkpoints(&self, thread: &str) -> Vec<(String, i64, Value, Vec<String>)> {
        let history = self.threads.history(&thread.into(), None, 1000).await;
        let mut views: Vec<_> = history
            .unwrap()
            .into_iter()
            .map(|view| {
                let next = view.next.iter().map(ToString::to_string).collect();
                let values = crate::graphs::comparable(&view.values);
                (view.source.to_owned(), view.step, values, next)
            })
            .collect();
        views.reverse();
        views
    }

    /// A client of the library's own.
    pub(crate) fn client(&self) -> Client {
        let process = self.faults.new_process();
        Client::with_world(
            Arc::new(self.log_of(&process)),
            Arc::new(self.queue_of(&process)),
            Subjects::new("superstep", "default").unwrap(),
            Arc::clone(&self.faults.world) as _,
        )
    }

    /// Waits until the thread's state is so.
    pub(crate) async fn until(
        &self,
        thread: &str,
        what: &str,
        so: impl Fn(&ThreadState) -> bool,
    ) -> ThreadState {
        let found = timeout(DEADLINE, async {
            loop {
                self.ledger.assert_nothing_wrong();
                if let Some(state) = self.state(thread)
                    && so(&state)
                {
                    return state;
                }
                sleep(Duration::from_millis(50)).await;
            }
        })
        .await;
        found.unwrap_or_else(|_| panic!("{thread} is never {what}\n{}", self.faults.story()))
    }

    /// The outcome of a command, once it has one.
    pub(crate) async fn outcome(&self, thread: &str, command: &str) -> superstep_wire::Reply {
        let (id, command) = (ThreadId::new(thread), CommandId::new(command));
        let found = timeout(DEADLINE, async {
            loop {
                self.ledger.assert_nothing_wrong();
                let kept = self.threads.log().outcome(&id, &command).await.unwrap();
                if let Some(kept) = kept {
                    return superstep_wire::decode::reply(&kept).unwrap();
                }
                sleep(Duration::from_millis(50)).await;
            }
        });
        let found = found.await;
        found.unwrap_or_else(|_| panic!("{command} has no outcome\n{}", self.faults.story()))
    }

    pub(crate) fn runs_of(&self, node: &str) -> usize {
        let runs: BTreeMap<_, _> = lock(&self.runs).clone();
        runs.get(node).copied().unwrap_or(0)
    }
}

fn unanswered<'a>(
    state: &'a ThreadState,
    answered: &BTreeSet<InterruptId>,
) -> Option<&'a Question> {
    state
        .open_questions()
        .map(|(_, question)| question)
        .find(|question| !answered.contains(&question.id))
}
