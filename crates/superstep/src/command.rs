//! A command as a run's input: answers, an update, targets, all at once.
//!
//! What LangGraph's `Command` is to `invoke`. What a value of it lacks is told when the command is
//! given to a thread, so that it can be built in one line. What it means is the protocol's.

use serde::Serialize;
use serde_json::Value;
use superstep_graph::{InterruptId, NodeName};
use superstep_protocol::{Answers, Goto};
use superstep_worker::{GoOn, answers};

use crate::{error::Error, send::Send, state::IntoInput};

/// What a run goes on with: answers to questions, an update of the state as it stands, and nodes
/// to run beside what is triggered already, all in the superstep that waits.
///
/// ```
/// # use superstep::{Embedded, Graph, NodeError, START, State};
/// # #[derive(Clone, Default, State)]
/// # struct Order { amount: u64, #[state(reducer = append)] log: Vec<String> }
/// # async fn check(order: Order, ctx: superstep::Context) -> Result<OrderUpdate, NodeError> {
/// #     let ok: bool = ctx.interrupt(serde_json::json!({"amount": order.amount})).await?;
/// #     Ok(Order::update().push_log(format!("{} {ok}", order.amount)))
/// # }
/// # async fn tell(_: Order) -> Result<OrderUpdate, NodeError> { Ok(Order::update().push_log("told".to_owned())) }
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// # let graph = Graph::<Order>::builder("order").node("check", check).node("tell", tell)
/// #     .edge(START, "check").build()?;
/// # let app = Embedded::memory().graph(graph).build().await?;
/// use superstep::RunCommand;
///
/// let thread = app.thread("42");
/// let asked = thread.invoke(Order::update().amount(7_u64)).await?;
/// assert!(asked.is_interrupted());
/// let command = RunCommand::new()
///     .resume(true)
///     .update(Order::update().amount(5_u64))
///     .goto("tell");
/// let done = thread.command(command).await?;
/// assert_eq!(done.state::<Order>()?.log, ["5 true", "told"]);
/// # Ok(())
/// # }
/// # tokio::runtime::Runtime::new().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Debug, Default)]
#[must_use = "a command does nothing until a thread is given it"]
pub struct RunCommand {
    answers: Option<Answers>,
    update: Value,
    goto: Vec<Goto>,
    wrong: Option<Error>,
}

impl RunCommand {
    /// Nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Answers the one open question; an object whose keys are all ids of interrupts answers
    /// several. Replaces what was answered before.
    pub fn resume(mut self, answer: impl Serialize) -> Self {
        match serde_json::to_value(answer) {
            Ok(answer) => self.answers = Some(answers(answer, None)),
            Err(error) => self.note(Error::Answer(error.to_string())),
        }
        self
    }

    /// Answers one question by its id, beside those that were answered so before.
    pub fn answer(mut self, interrupt: &InterruptId, answer: impl Serialize) -> Self {
        let answer = match serde_json::to_value(answer) {
            Ok(answer) => answer,
            Err(error) => {
                self.note(Error::Answer(error.to_string()));
                return self;
            }
        };
        match &mut self.answers {
            Some(Answers::ById(answers)) => {
                answers.insert(interrupt.clone(), answer);
            }
            _ => self.answers = Some(answers(answer, Some(interrupt.clone()))),
        }
        self
    }

    /// Updates the state as it stands, before anything runs. No superstep passes. Replaces an
    /// update that was given before.
    pub fn update(mut self, update: impl IntoInput) -> Self {
        match update.into_input() {
            Ok(update) => self.update = update,
            Err(error) => self.note(error.into()),
        }
        self
    }

    /// Runs a node beside what is triggered already.
    pub fn goto(mut self, node: impl Into<NodeName>) -> Self {
        self.goto.push(Goto::Node(node.into()));
        self
    }

    /// Runs the node of a packet on what the packet carries.
    pub fn send(mut self, send: Send) -> Self {
        match send.into_packet() {
            Ok(packet) => self.goto.push(Goto::Send(packet)),
            Err(error) => self.note(Error::Answer(error.to_string())),
        }
        self
    }

    fn note(&mut self, error: Error) {
        self.wrong.get_or_insert(error);
    }

    pub(crate) fn into_go_on(self) -> Result<GoOn, Error> {
        match self.wrong {
            Some(error) => Err(error),
            None => Ok(GoOn {
                answers: self.answers,
                update: self.update,
                goto: self.goto,
            }),
        }
    }
}
