//! People: who starts threads, answers their questions, and gets in the way.
//!
//! A person wants a thread to come to its end, as often as the seed says, and looks at the store
//! to see what to do next. One that disturbs also sends what nobody needs: commands twice, early,
//! late, to questions that are gone or never were, several at once, cancels and updates.
//!
//! The rule it keeps: an answer is a function of what is asked, and a cancel is followed by a
//! retry, so that whatever of this is accepted, in whatever order, a thread's values at its end
//! are those of an undisturbed run.

use std::{sync::Arc, time::Duration};

use serde_json::{Map, Value, json};
use superstep_protocol::{Question, ThreadState};
use superstep_queue::CommandKind;
use tokio::time::{Instant, sleep};

use crate::{
    graphs::answer_to,
    rig::{Rig, is_done},
};

/// How long a command may be without an effect before its sender sends it again.
const IMPATIENT: Duration = Duration::from_secs(20);

/// A person who wants a thread to come to its end.
pub(crate) struct Person {
    pub(crate) rig: Arc<Rig>,
    pub(crate) thread: String,
    pub(crate) graph: String,
    pub(crate) disturbs: bool,
    /// Whether clocks can be trusted to tell what was sent after a question.
    pub(crate) plain: bool,
    /// How often the thread is started.
    pub(crate) turns: usize,
    /// How many seconds each start waits for.
    pub(crate) delays: u64,
    made: usize,
    /// The last start, which is sent again until it is decided.
    last_start: String,
    seen: Vec<Question>,
    retried: u32,
    retried_at: Option<Instant>,
}

impl Person {
    pub(crate) fn new(rig: &Arc<Rig>, thread: String, graph: String) -> Self {
        Self {
            rig: Arc::clone(rig),
            thread,
            graph,
            disturbs: false,
            plain: true,
            turns: 1,
            delays: 0,
            made: 0,
            last_start: String::new(),
            seen: Vec::new(),
            retried: 0,
            retried_at: None,
        }
    }

    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{}-{what}-{}", self.thread, self.made)
    }

    fn chance(&self, percent: u64) -> bool {
        self.rig.faults.draw(0..100) < percent
    }

    /// Whether it gets in the way now: once nothing goes wrong any more, all that it does is what
    /// brings the thread on, so that whatever stands then stands for good.
    fn is_in_the_way(&self) -> bool {
        self.disturbs && !self.rig.calm.is_cancelled()
    }

    /// Sends a command, sometimes more than once.
    async fn send(&self, kind: CommandKind, target: &str, id: &str, body: &Value) {
        self.rig.send(kind, target, id, body).await;
        while self.is_in_the_way() && self.chance(20) {
            sleep(self.rig.faults.ms(0..4000)).await;
            self.rig.send(kind, target, id, body).await;
        }
    }

    async fn start(&mut self) {
        // What was asked for waits for its time.
        let state = self.rig.state(&self.thread);
        if state.is_some_and(|state| !state.queue.is_empty()) {
            return;
        }
        if self.last_start.is_empty() || self.rig.is_decided(&self.thread, &self.last_start).await {
            self.last_start = self.name("start");
        }
        let id = self.last_start.clone();
        let mut body = json!({
            "thread_id": self.thread, "input": {"count": 4}, "config": {"recursion_limit": 200},
            "multitask_strategy": "reject",
        });
        if self.delays > 0 {
            body["after_seconds"] = json!(self.delays);
        }
        let graph = self.graph.clone();
        self.send(CommandKind::Start, &graph, &id, &body).await;
    }

    /// Whether a question is the only one that is open at this moment.
    fn is_only(&self, question: &Question) -> bool {
        let state = self.rig.state(&self.thread);
        let mut open = state.iter().flat_map(ThreadState::open_questions);
        let is_it = open.next().is_some_and(|(_, open)| open.id == question.id);
        is_it && open.next().is_none()
    }

    async fn resume(&mut self, what: &str, body: Value) {
        let (id, thread) = (self.name(what), self.thread.clone());
        self.send(CommandKind::Resume, &thread, &id, &body).await;
    }

    /// Sees the thread through to its end.
    pub(crate) async fn work(mut self) {
        if self.disturbs && self.chance(20) {
            // Too early, or just in time: either way it comes to an outcome.
            if self.chance(50) || !self.plain {
                let (id, thread) = (self.name("early"), self.thread.clone());
                self.send(CommandKind::Cancel, &thread, &id, &json!({}))
                    .await;
            } else {
                let (id, thread) = (self.name("early"), self.thread.clone());
                let body = json!({"resume": "early"});
                self.rig
                    .send(CommandKind::Resume, &thread, &id, &body)
                    .await;
                // In one millisecond with the first question it would count as its answer.
                sleep(Duration::from_millis(1)).await;
            }
        }
        self.start().await;
        let mut moved = (None, Instant::now());
        loop {
            sleep(self.rig.faults.ms(50..700)).await;
            if !self.rig.ledger.findings().is_empty() {
                return;
            }
            let chain = self.rig.ledger.current(&self.thread.as_str().into());
            let head = chain.as_ref().map(|chain| chain.state.head);
            if moved.0 != head {
                moved = (head, Instant::now());
            }
            let stands = moved.1.elapsed() > IMPATIENT;
            if stands {
                moved.1 = Instant::now();
            }
            match chain {
                None if stands => self.start().await,
                Some(chain) if !is_done(&chain.state) => self.push(&chain.state, stands).await,
                // What is there may yet be lost to a step back.
                Some(chain) if chain.inputs >= self.turns && self.rig.calm.is_cancelled() => return,
                Some(chain) if chain.inputs < self.turns && (stands || self.chance(40)) => {
                    self.start().await;
                }
                None | Some(_) => {}
            }
        }
    }

    /// Does what brings the thread on, and now and then what does not.
    async fn push(&mut self, state: &ThreadState, stands: bool) {
        let thread = self.thread.clone();
        if self.is_in_the_way() {
            self.disturb(state).await;
        }
        let open: Vec<_> = state.open_questions().map(|(_, q)| q.clone()).collect();
        for question in &open {
            if !self.chance(40) && !stands {
                continue;
            }
            if !self.seen.iter().any(|seen| seen.id == question.id) {
                self.seen.push(question.clone());
            }
            let id = self.name("answer");
            let value = answer_to(&question.payload, &id);
            if self.plain && self.is_only(question) && self.chance(30) {
                // Once: sent again after the next question opened, it would answer that.
                let body = json!({"resume": value});
                self.rig
                    .send(CommandKind::Resume, &thread, &id, &body)
                    .await;
                continue;
            }
            let body = json!({"resume": value, "interrupt_id": question.id});
            self.send(CommandKind::Resume, &thread, &id, &body).await;
        }
        let waits = state.is_busy() || !open.is_empty() || !state.queue.is_empty();
        if waits || !(self.chance(40) || stands) {
            return;
        }
        if state.tasks.is_empty() {
            // Cancelled before its input was taken, or updated after its end.
            self.start().await;
        } else {
            self.retry().await;
        }
    }

    /// Has what failed or was cancelled tried again, less and less often.
    async fn retry(&mut self) {
        let pause = Duration::from_millis(100 << self.retried.min(8));
        if self.retried_at.is_some_and(|at| at.elapsed() < pause) {
            return;
        }
        self.retried += 1;
        self.retried_at = Some(Instant::now());
        let (id, thread) = (self.name("retry"), self.thread.clone());
        self.send(CommandKind::Retry, &thread, &id, &json!({}))
            .await;
    }

    /// Sends what does not bring the thread on.
    async fn disturb(&mut self, state: &ThreadState) {
        let thread = self.thread.clone();
        // A cancel and a retry count attempts anew: what kills its workers would never be found.
        // Of a start that waits for its time nothing would be left.
        let waits = !state.queue.is_empty();
        if self.graph != "poison" && !waits && self.chance(3) {
            let id = self.name("cancel");
            self.send(CommandKind::Cancel, &thread, &id, &json!({}))
                .await;
        }
        let has_input = state.checkpoint.values.contains_key("count");
        let one_by_one = matches!(self.graph.as_str(), "chain" | "twice");
        if has_input && one_by_one && self.chance(3) {
            let id = self.name("update");
            let body = json!({"values": {"note": id}});
            self.send(CommandKind::Update, &thread, &id, &body).await;
        }
        if self.chance(3) {
            // A start without input goes on with what waits, or is refused.
            let id = self.name("again");
            let body = json!({"thread_id": thread, "input": null, "multitask_strategy": "reject"});
            let graph = self.graph.clone();
            self.send(CommandKind::Start, &graph, &id, &body).await;
        }
        if self.chance(3) {
            let nobody = format!("{:032x}", self.rig.faults.draw(0..u64::MAX));
            let body = json!({"resume": "wrong", "interrupt_id": nobody});
            self.resume("wrong", body).await;
        }
        if self.chance(5) && !self.seen.is_empty() {
            let at = usize::try_from(self.rig.faults.draw(0..self.seen.len() as u64));
            let question = self.seen[at.expect("an index")].clone();
            let id = self.name("stale");
            let value = answer_to(&question.payload, &id);
            let body = json!({"resume": value, "interrupt_id": question.id});
            self.send(CommandKind::Resume, &thread, &id, &body).await;
        }
        let all = if state.open_questions().count() > 1 {
            30
        } else {
            5
        };
        if self.chance(all) && state.open_questions().next().is_some() {
            let id = self.name("all");
            let answers: Map<String, Value> = state
                .open_questions()
                .map(|(_, asked)| (asked.id.to_string(), answer_to(&asked.payload, &id)))
                .collect();
            let body = json!({"resume": answers});
            self.send(CommandKind::Resume, &thread, &id, &body).await;
        }
    }
}
