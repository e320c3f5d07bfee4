//! Work, commands and events: the port, the in-process queue, and the contract suite that
//! every queue passes.
//!
//! The port knows no vendor and no rule of the protocol. An implementation is right if it
//! passes [`contract`]; the doc of each method says what is stored and what a retry does.
//! [`subject`] is the text of the wire's names, [`memory`] the queue of one process.

pub mod contract;
mod error;
pub mod memory;
mod queue;
pub mod subject;

pub use error::{Error, ErrorKind};
pub use queue::{
    Acker, CommandKind, CommandMessage, Consumer, Delivery, DeliveryBody, EventFilter,
    EventMessage, EventsMade, Finding, Headers, Published, Queue, RUN_CANCELLED, Received,
    Subscription, WorkMessage, header,
};
