//! What senders and timers ask of the world's thread, drawn at random.
//!
//! Events of every kind that no worker makes, sensible or not: on questions that are open or long
//! closed, for runs of the queue, for other versions of the graph. What they call for is the
//! business of `decide`.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use superstep_graph::{InterruptId, TaskId};
use superstep_protocol::{
    Answers, AskMove, Cancel, CommandRef, Event, Resume, RunId, Start, StateUpdate, Strategy,
    TaskResult, Terms, ThreadState, Timer,
};

use super::{World, chosen};
use crate::story::version_of_g;

impl World {
    pub(super) fn command(&self, writer: usize, kind: u8, pick: u8) -> Option<Event> {
        let view = self.writers[writer].view.as_ref();
        let command = CommandRef {
            id: format!("c{}", self.commands.len()).into(),
            sent_at: self.now,
            sender: None,
            trace: None,
            tracestate: None,
        };
        let run = format!("r{}", self.commands.len()).into();
        let questions: Vec<InterruptId> = view.map_or(Vec::new(), |view| {
            let closed = view.closed.iter().map(|(id, _)| id.clone());
            view.open_questions()
                .map(|(_, q)| q.id.clone())
                .chain(closed)
                .collect()
        });
        let question = chosen(questions.len(), pick).map(|at| questions[at].clone());
        let value = json!({"from": command.id});
        let queued: Vec<RunId> = view.map_or(Vec::new(), |view| {
            let queue = view.queue.iter();
            queue.map(|queued| queued.run.clone()).collect()
        });
        let queued = chosen(queued.len(), pick).map(|at| queued[at].clone());
        Some(match kind % 22 {
            0 | 1 | 12..=14 => Event::Start(Box::new(Start {
                command,
                run,
                graph: crate::story::graph("g"),
                topology: None,
                profile: self.profile,
                input: if pick.is_multiple_of(4) {
                    Value::Null
                } else {
                    json!({})
                },
                recursion_limit: 25,
                config: Map::new(),
                metadata: Map::new(),
                terms: Terms::default(),
                at: None,
                strategy: match kind % 22 {
                    12 => Strategy::Enqueue,
                    13 => Strategy::Interrupt,
                    14 => Strategy::Rollback,
                    _ => Strategy::Reject,
                },
                not_before: pick.is_multiple_of(5).then(|| self.now.plus_ms(300)),
                before: None,
            })),
            2 => Event::Resume(Box::new(Resume::new(command, run, Answers::Plain(value)))),
            3 => Event::Resume(Box::new(Resume {
                update: json!({"log": []}),
                answers: pick.is_multiple_of(3).then_some(Answers::Plain(value)),
                ..Resume::new(command, run, Answers::Plain(Value::Null))
            })),
            4..=6 => Event::Resume(Box::new(Resume::new(
                command,
                run,
                Answers::ById(BTreeMap::from([(question?, value)])),
            ))),
            7 | 18 | 19 => Event::DeadlineReached {
                interrupt: question?,
            },
            8 => Event::Update(Box::new(StateUpdate::new(command, json!({}), None))),
            9 => Event::Retry {
                command,
                run,
                recursion_limit: None,
            },
            10 => Event::Cancel(Box::new(Cancel::new(command, None))),
            17 => {
                let view = view?;
                let at = chosen(view.tasks.len(), pick)?;
                let name = Timer::Task(view.tasks[at].task.id.clone()).name();
                Event::TimerDue { name }
            }
            15 => Event::TimerDue {
                name: Timer::Start(queued?).name(),
            },
            16 => Event::Cancel(Box::new(Cancel {
                run: if pick.is_multiple_of(2) { queued } else { None },
                rollback: true,
                ..Cancel::new(command, None)
            })),
            20 | 21 => Event::Move(Box::new(AskMove {
                to: version_of_g(if pick.is_multiple_of(3) { "1" } else { "2" }),
                topology: None,
                command: (kind % 22 == 21).then_some(command),
                results: self.stored(view),
            })),
            _ if pick.is_multiple_of(4) => Event::Delete { command },
            _ => Event::Resume(Box::new(Resume::new(
                command,
                run,
                Answers::ById(
                    questions
                        .into_iter()
                        .map(|id| (id, value.clone()))
                        .collect(),
                ),
            ))),
        })
    }

    /// What tasks of the view's open rounds have brought so far.
    fn stored(&self, view: Option<&ThreadState>) -> BTreeMap<TaskId, TaskResult> {
        let rounds = view.into_iter().flat_map(|view| view.rounds.keys());
        rounds
            .flat_map(|round| self.store.brought(*round))
            .collect()
    }
}
