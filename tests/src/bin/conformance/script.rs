//! Scripted nodes: the little language in which the cases say what a node does.
//!
//! Steps over expressions over JSON. It knows no engine: a node asks and tells through the
//! `World` that it is given, and what it returns is plain data.

mod expr;
mod steps;

pub(crate) use expr::{Counters, Env, Expr, Handled, OVERWRITE, SEND, canonical, item_at};
pub(crate) use steps::{Returned, Step, World, run};
