//! The human-in-the-loop guide's patterns as example graphs, each a file to read and copy.
//!
//! | graph | pattern |
//! |---|---|
//! | [`basic`] | a person says yes or no |
//! | [`email`] | approval before action: draft, review with edits, send |
//! | [`tools`] | approval of the tool calls that a model asks for |
//! | [`report`] | edit before the run goes on |
//! | [`multi`] | two questions in a row in one node |
//! | [`conditional`] | a question only where confidence is low |
//! | [`fanout`] | many tasks in one superstep; not of the guide, for demos and tests |
//!
//! The seventh pattern, looking at what a thread waits for, is shown with each of them. The
//! `superstep` binary runs them, tests and documentation use them: scripts rely on their names,
//! keys, payloads and answers. Drafting is left to [`writer`], sending to [`outbox`].

pub mod basic;
pub mod conditional;
pub mod email;
pub mod fanout;
pub mod multi;
pub mod outbox;
pub mod report;
pub mod tools;
pub mod writer;

use superstep::RunnableGraph;

use crate::{outbox::Outbox, writer::Writer};

/// Every graph of this crate, with writer and outbox as the environment says.
pub fn graphs() -> Vec<RunnableGraph> {
    graphs_with(&Writer::from_env(), &Outbox::from_env())
}

/// Every graph of this crate, with this writer and outbox.
pub fn graphs_with(writer: &Writer, outbox: &Outbox) -> Vec<RunnableGraph> {
    vec![
        basic::graph().into(),
        conditional::graph().into(),
        email::graph(writer, outbox).into(),
        fanout::graph().into(),
        multi::graph().into(),
        report::graph(writer).into(),
        tools::graph().into(),
    ]
}
