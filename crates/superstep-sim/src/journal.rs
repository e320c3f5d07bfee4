//! What happened, numbered: the log that a failing seed leaves to be stepped through.
//!
//! Every call that a worker makes, with its fate and its answer, and everything that the world
//! did to it, in the order in which it happened. The same seed writes the same lines, which is
//! what makes a replay worth reading; nothing here may say what differs from run to run, such as
//! an address or the wall clock.

use std::{fmt, sync::Mutex};

use crate::plan::lock;

/// How many lines of the end are shown when a check fails.
#[cfg(test)]
const STORY_LINES: usize = 250;

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place, from 1.
    pub number: usize,
    /// Virtual milliseconds since the world began.
    pub at_ms: u128,
    /// What it was: the worker first, if one did it, then the call, then its outcome.
    pub what: String,
}

impl Entry {
    /// Whether it names `word`: a thread, a worker, a call.
    pub fn names(&self, word: &str) -> bool {
        let is_edge = |c: char| !(c.is_alphanumeric() || c == '_');
        self.what.split(is_edge).any(|part| part == word)
    }

    /// Whether it is about everyone: a fault of the whole world, or a broken invariant.
    pub fn is_of_all(&self) -> bool {
        ["==", "--", "!!"]
            .iter()
            .any(|mark| self.what.starts_with(mark))
    }
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>6} {:>8} ms  {}", self.number, self.at_ms, self.what)
    }
}

/// All that happened in one world.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    entries: Mutex<Vec<Entry>>,
}

impl Journal {
    pub(crate) fn note(&self, at_ms: u128, what: String) {
        let mut entries = lock(&self.entries);
        let number = entries.len() + 1;
        entries.push(Entry {
            number,
            at_ms,
            what,
        });
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        lock(&self.entries).clone()
    }

    /// What happened last, for a person to read.
    #[cfg(test)]
    pub(crate) fn story(&self) -> String {
        let entries = lock(&self.entries);
        let from = entries.len().saturating_sub(STORY_LINES);
        let lines: Vec<String> = entries[from..].iter().map(ToString::to_string).collect();
        lines.join("\n")
    }
}
