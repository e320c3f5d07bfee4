//! The log of events, and the window in which a message id is remembered.
//!
//! Synchronous and given the time. Events are kept by a limit: the newest make the oldest go,
//! and a subscriber that reads too slowly misses those, as on a server.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use tokio::time::Instant;

use crate::{Finding, Received, header};

#[derive(Debug)]
pub(super) struct EventLog {
    messages_max: usize,
    /// The sequence of the first event that is held.
    first: u64,
    events: VecDeque<Received>,
    seen: Window,
}

impl EventLog {
    pub(super) fn new(messages_max: usize, window: Duration) -> Self {
        Self {
            messages_max,
            first: 1,
            events: VecDeque::new(),
            seen: Window::new(window),
        }
    }

    /// Stores an event, unless its id was seen within the window.
    pub(super) fn push(&mut self, event: Received, now: Instant) {
        let sequence = self.end();
        if let Some(id) = event.headers.get(header::MSG_ID) {
            if self.seen.find(id, now).is_some() {
                return;
            }
            self.seen.remember(id.clone(), sequence, now);
        }
        self.events.push_back(event);
        while self.events.len() > self.messages_max {
            self.events.pop_front();
            self.first += 1;
        }
    }

    /// Forgets every event, and that it was seen. Subscriptions go on with what comes.
    pub(super) fn forget(&mut self) {
        self.first = self.end();
        self.events.clear();
        self.seen = Window::new(self.seen.length);
    }

    /// Where a new subscription begins to read.
    pub(super) fn cursor(&self, from_start: bool) -> u64 {
        if from_start { self.first } else { self.end() }
    }

    /// The first event that is held, from `sequence` on.
    pub(super) fn at_or_after(&self, sequence: u64) -> Option<(u64, &Received)> {
        let sequence = sequence.max(self.first);
        let index = usize::try_from(sequence - self.first).ok()?;
        Some((sequence, self.events.get(index)?))
    }

    pub(super) fn finding(&self) -> Finding {
        Finding {
            ok: true,
            subject: "stream events".to_owned(),
            detail: format!(
                "in memory, {} of at most {} messages",
                self.events.len(),
                self.messages_max
            ),
        }
    }

    fn end(&self) -> u64 {
        self.first + self.events.len() as u64
    }
}

/// Message ids seen within a time, each with the sequence it was stored under.
#[derive(Debug)]
pub(super) struct Window {
    length: Duration,
    sequences: HashMap<String, u64>,
    by_age: VecDeque<(Instant, String)>,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        Self {
            length,
            sequences: HashMap::new(),
            by_age: VecDeque::new(),
        }
    }

    /// The sequence that `id` was stored under, if that is not too long ago.
    pub(super) fn find(&mut self, id: &str, now: Instant) -> Option<u64> {
        while let Some((seen_at, id)) = self.by_age.front()
            && *seen_at + self.length <= now
        {
            self.sequences.remove(id);
            self.by_age.pop_front();
        }
        self.sequences.get(id).copied()
    }

    /// Remembers `id`; the caller has asked [`Self::find`] first.
    pub(super) fn remember(&mut self, id: String, sequence: u64, now: Instant) {
        self.by_age.push_back((now, id.clone()));
        self.sequences.insert(id, sequence);
    }
}
