//! What a node may return: an update, nothing, a command, packets.
//!
//! Each kind of answer is a trait's implementation, so that a node's signature says what it does
//! and an update of another state does not compile.

use std::marker::PhantomData;

use serde_json::Value;
use superstep_graph::{Command as EngineCommand, NodeName, NodeOutput, Target};

use crate::{NodeError, NodeReturn, derive::output_of, send::Send, state::State, writes::Writes};

/// Changes of some channels of `S`.
pub trait IntoUpdate<S> {
    /// The writes, in order.
    fn into_writes(self) -> Writes;
}

/// No changes.
impl<S> IntoUpdate<S> for () {
    fn into_writes(self) -> Writes {
        Writes::default()
    }
}

impl IntoUpdate<Value> for Value {
    fn into_writes(self) -> Writes {
        Writes::of_value(self)
    }
}

impl<S, U: IntoUpdate<S>> IntoUpdate<S> for Option<U> {
    fn into_writes(self) -> Writes {
        self.map(U::into_writes).unwrap_or_default()
    }
}

/// What a node of a graph over `S` may return.
///
/// An update of `S`, `()` or `None` for none, a [`Command`], a [`Send`] or a list of them; in a
/// dynamic graph an object of channels.
pub trait IntoOutput<S> {
    /// The output as the engine takes it.
    ///
    /// # Errors
    /// If a value of it is no JSON.
    fn into_output(self) -> Result<NodeReturn, NodeError>;
}

impl<S> IntoOutput<S> for () {
    fn into_output(self) -> Result<NodeReturn, NodeError> {
        Ok(NodeReturn::Update(Value::Null))
    }
}

impl IntoOutput<Value> for Value {
    fn into_output(self) -> Result<NodeReturn, NodeError> {
        Ok(NodeReturn::Update(self))
    }
}

impl<S, O: IntoOutput<S>> IntoOutput<S> for Option<O> {
    fn into_output(self) -> Result<NodeReturn, NodeError> {
        match self {
            Some(output) => output.into_output(),
            None => Ok(NodeReturn::Update(Value::Null)),
        }
    }
}

impl<S> IntoOutput<S> for Send {
    fn into_output(self) -> Result<NodeReturn, NodeError> {
        IntoOutput::<S>::into_output(vec![self])
    }
}

impl<S> IntoOutput<S> for Vec<Send> {
    fn into_output(self) -> Result<NodeReturn, NodeError> {
        let sends = self
            .into_iter()
            .map(|send| Ok(Target::Send(send.into_packet()?)));
        Ok(NodeReturn::Output(NodeOutput::command(EngineCommand {
            goto: sends.collect::<Result<_, NodeError>>()?,
            ..EngineCommand::default()
        })))
    }
}

/// An update, and where to go next besides the static edges.
///
/// ```
/// use superstep::{Command, NodeError, Send, State};
///
/// #[derive(Clone, Default, State)]
/// struct Ticket {
///     text: String,
///     queue: String,
/// }
///
/// async fn triage(ticket: Ticket) -> Result<Command<TicketUpdate>, NodeError> {
///     let command = Command::new().update(Ticket::update().queue("billing"));
///     Ok(if ticket.text.contains("refund") {
///         command.goto("refund")
///     } else {
///         command.send(Send::to("answer", ticket.text))
///     })
/// }
/// # let _ = superstep::Graph::<Ticket>::builder("g").node("triage", triage);
/// ```
///
/// A command without an update is a `Command`.
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct Command<U = ()> {
    update: Option<U>,
    goto: Vec<Result<NodeName, Send>>,
}

impl<U> Default for Command<U> {
    fn default() -> Self {
        Self::new()
    }
}

impl<U> Command<U> {
    /// Updates nothing and goes nowhere yet.
    pub fn new() -> Self {
        Self {
            update: None,
            goto: Vec::new(),
        }
    }

    /// Updates the state; a second call replaces the first.
    pub fn update(mut self, update: U) -> Self {
        self.update = Some(update);
        self
    }

    /// Goes to a node in the next superstep.
    pub fn goto(mut self, node: impl Into<NodeName>) -> Self {
        self.goto.push(Ok(node.into()));
        self
    }

    /// Sends a packet.
    pub fn send(mut self, send: Send) -> Self {
        self.goto.push(Err(send));
        self
    }

    /// Sends packets.
    pub fn sends(mut self, sends: impl IntoIterator<Item = Send>) -> Self {
        self.goto.extend(sends.into_iter().map(Err));
        self
    }
}

impl<U> Command<U> {
    /// Gives the command to the parent graph, over the state `P`, from a node of its subgraph: the
    /// subgraph ends there, and this is all that comes of it. The parent goes along the edges of
    /// the subgraph's node as well.
    ///
    /// ```
    /// use superstep::{Command, NodeError, State, ToParent};
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Ticket {
    ///     queue: String,
    /// }
    ///
    /// #[derive(Clone, Default, State)]
    /// struct Answer {
    ///     text: String,
    /// }
    ///
    /// /// A node of a subgraph over `Answer` in a graph over `Ticket`.
    /// async fn give_up(_: Answer) -> Result<ToParent<Ticket, TicketUpdate>, NodeError> {
    ///     Ok(Command::new().update(Ticket::update().queue("people")).goto("hand_over").to_parent())
    /// }
    /// # let _ = superstep::Graph::<Answer>::builder("g").node("give_up", give_up);
    /// ```
    pub fn to_parent<P>(self) -> ToParent<P, U>
    where
        U: IntoUpdate<P>,
    {
        ToParent {
            command: self,
            parent: PhantomData,
        }
    }

    fn into_engine<S>(self) -> Result<NodeReturn, NodeError>
    where
        U: IntoUpdate<S>,
    {
        let writes = self.update.map(U::into_writes).unwrap_or_default();
        let goto = self.goto.into_iter().map(|target| match target {
            Ok(node) => Ok(Target::Node(node)),
            Err(send) => Ok(Target::Send(send.into_packet()?)),
        });
        let goto = goto.collect::<Result<Vec<_>, NodeError>>()?;
        match output_of(writes)? {
            NodeReturn::Output(mut output) => {
                for command in &mut output.commands {
                    command.goto.clone_from(&goto);
                }
                Ok(NodeReturn::Output(output))
            }
            update @ NodeReturn::Update(_) => Ok(update),
        }
    }
}

impl<S: State, U: IntoUpdate<S>> IntoOutput<S> for Command<U> {
    fn into_output(self) -> Result<NodeReturn, NodeError> {
        self.into_engine()
    }
}

/// A command to the parent graph, over the state `P`; see [`Command::to_parent`].
#[derive(Clone, Debug, PartialEq)]
#[must_use]
pub struct ToParent<P, U = ()> {
    command: Command<U>,
    parent: PhantomData<fn() -> P>,
}

impl<S: State, P, U: IntoUpdate<P>> IntoOutput<S> for ToParent<P, U> {
    fn into_output(self) -> Result<NodeReturn, NodeError> {
        let mut returned = self.command.into_engine()?;
        if let NodeReturn::Output(output) = &mut returned {
            for command in &mut output.commands {
                command.parent = true;
            }
        }
        Ok(returned)
    }
}
