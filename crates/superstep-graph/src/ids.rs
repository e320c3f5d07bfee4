//! Names and ids of the pure core, a newtype for each.
//!
//! All of them are cheap to clone (`Arc<str>`), because a superstep names the same node and
//! channels many times. Ids that the outside world must recognise after a crash (tasks,
//! interrupts) are computed from the lineage of their checkpoint and never random, so a
//! superstep that is done again asks the same question and charges the same key.

use std::sync::Arc;

/// Declares a newtype over `Arc<str>` with the conversions every id needs.
///
/// The generated type orders and hashes like its text, serializes as a JSON string, and
/// borrows as `str`, so ordered maps can be searched without an allocation.
#[macro_export]
macro_rules! string_id {
    ($(#[$meta:meta])* $name:ident) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(::std::sync::Arc<str>);

        impl $name {
            /// Wraps `text` as it is; checks belong to where a name enters the system.
            pub fn new(text: impl Into<::std::sync::Arc<str>>) -> Self {
                Self(text.into())
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl ::std::fmt::Display for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl ::std::fmt::Debug for $name {
            fn fmt(&self, f: &mut ::std::fmt::Formatter<'_>) -> ::std::fmt::Result {
                ::std::fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl ::std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.into())
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(text.into())
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }

        impl ::serde::Serialize for $name {
            fn serialize<S: ::serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.serialize_str(&self.0)
            }
        }

        impl<'de> ::serde::Deserialize<'de> for $name {
            fn deserialize<D: ::serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                <String as ::serde::Deserialize>::deserialize(d).map(Self::from)
            }
        }
    };
}

string_id! {
    /// A node of a graph, by its name; [`START`] and [`END`] are reserved.
    NodeName
}

string_id! {
    /// A channel of a graph: a key of the state, or one the graph made for its own routing
    /// (`branch:to:<node>`, `join:<a>+<b>:<node>`, [`SENDS`]).
    ChannelName
}

string_id! {
    /// A task: one node to be run in one superstep. 32 hex digits, computed from the
    /// checkpoint's lineage, namespace, step, node and path; the same after a redo.
    TaskId
}

string_id! {
    /// A question that a task asked. 32 hex digits (LangGraph's clients tell a map of answers
    /// from a plain answer by that form), computed from the task and the question's index.
    InterruptId
}

string_id! {
    /// What a checkpoint descends from: 32 hex digits over the parent's lineage, the step, and
    /// the commands applied since. Two supersteps with one lineage are the same superstep,
    /// done once or again.
    Lineage
}

string_id! {
    /// The place of a subgraph's checkpoints: empty for the root graph, else
    /// `node:task|node:task` from the outside in, as LangGraph's `checkpoint_ns`.
    Namespace
}

/// Where a graph begins: the pseudo-node whose writes are the input.
pub const START: &str = "__start__";
/// Where a graph ends: an edge to it triggers nothing.
pub const END: &str = "__end__";
/// The channel of packets that `Send`s put, read by the next plan.
pub const SENDS: &str = "__pregel_tasks";

/// Hashes `parts` to 32 hex digits; a length before each part keeps `["ab","c"]` and
/// `["a","bc"]` apart.
pub fn digest(parts: &[&str]) -> Arc<str> {
    let mut bytes = Vec::with_capacity(parts.iter().map(|p| p.len() + 8).sum());
    for part in parts {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    format!("{:032x}", xxhash_rust::xxh3::xxh3_128(&bytes)).into()
}

impl Lineage {
    /// The lineage of a thread before its first checkpoint, from the id of the command that
    /// created it, so that a thread of the same name after a delete asks new questions.
    pub fn root(incarnation: &str) -> Self {
        Self(digest(&["root", incarnation]))
    }

    /// The lineage of the checkpoint at `step` that follows `self` after `commands` (ids of
    /// commands and deadlines, in log order) were applied.
    #[must_use]
    pub fn next<'a>(&self, step: i64, commands: impl IntoIterator<Item = &'a str>) -> Self {
        let step = step.to_string();
        let mut parts: Vec<&str> = vec![self.as_str(), &step];
        let commands: Vec<&str> = commands.into_iter().collect();
        parts.extend(&commands);
        Self(digest(&parts))
    }
}

impl InterruptId {
    /// The id of the `index`-th question (from 0) of `task`.
    pub fn of(task: &TaskId, index: usize) -> Self {
        Self(digest(&[task.as_str(), "interrupt", &index.to_string()]))
    }

    /// Whether `text` has the form of an interrupt id: 32 lower-case hex digits. A map whose
    /// keys all do is a map of answers (LangGraph `pregel/_loop.py`, `_first`).
    pub fn is_id(text: &str) -> bool {
        text.len() == 32 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
    }
}

impl Namespace {
    /// The namespace of the root graph.
    pub fn root() -> Self {
        Self::new("")
    }

    /// Whether this is the root graph's namespace.
    pub fn is_root(&self) -> bool {
        self.as_str().is_empty()
    }

    /// The namespace of the subgraph that `task` of `node` runs inside `self`.
    #[must_use]
    pub fn child(&self, node: &NodeName, task: &TaskId) -> Self {
        if self.is_root() {
            Self::new(format!("{node}:{task}"))
        } else {
            Self::new(format!("{self}|{node}:{task}"))
        }
    }
}
