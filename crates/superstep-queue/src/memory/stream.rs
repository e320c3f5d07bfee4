//! A stream of messages that are each for one consumer, and kept until acked.
//!
//! Synchronous and given the time: what is deliverable, to which lane, how often it was
//! handed over. A lane is what one durable consumer reads: all commands, or the work of one
//! graph version. The rule it keeps: a message leaves only by ack or term, and a message under
//! a lease is handed to nobody else until the lease ends.

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use superstep_protocol::UnixMillis;
use tokio::time::Instant;

use super::log::Window;
use crate::{Error, ErrorKind, Finding, Headers, Published, header};

#[derive(Debug)]
pub(super) struct Stream {
    name: &'static str,
    /// Tells this stream's ids from those of a stream that an earlier process had: a log that
    /// outlives the queue remembers commands by them.
    made_at: UnixMillis,
    messages_max: usize,
    last: u64,
    messages: HashMap<u64, Message>,
    lanes: HashMap<String, Lane>,
    seen: Window,
}

#[derive(Debug)]
struct Message {
    lane: String,
    subject: String,
    headers: Headers,
    body: Bytes,
    published_at: UnixMillis,
    published: Instant,
    attempts: u64,
    /// When it becomes deliverable again; `None` if it is.
    waits_until: Option<Instant>,
}

#[derive(Debug, Default)]
struct Lane {
    ready: BTreeSet<u64>,
    waiting: BTreeSet<(Instant, u64)>,
}

/// A message handed over.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) sequence: u64,
    pub(super) id: String,
    pub(super) subject: String,
    pub(super) headers: Headers,
    pub(super) body: Bytes,
    pub(super) published_at: UnixMillis,
    pub(super) attempt: u64,
}

impl Stream {
    pub(super) fn new(
        name: &'static str,
        made_at: UnixMillis,
        messages_max: usize,
        window: Duration,
    ) -> Self {
        Self {
            name,
            made_at,
            messages_max,
            last: 0,
            messages: HashMap::new(),
            lanes: HashMap::new(),
            seen: Window::new(window),
        }
    }

    /// Becomes `empty`, whose messages are numbered on from these.
    pub(super) fn forget(&mut self, empty: Self) {
        let last = self.last;
        *self = empty;
        self.last = last;
    }

    /// Stores a message for the consumer of `lane`, or finds that it is there already.
    pub(super) fn publish(
        &mut self,
        lane: &str,
        subject: &str,
        headers: Headers,
        body: Bytes,
        now: Instant,
        published_at: UnixMillis,
    ) -> Result<Published, Error> {
        let message_id = headers.get(header::MSG_ID).cloned();
        if let Some(sequence) = message_id.as_ref().and_then(|id| self.seen.find(id, now)) {
            return Ok(Published {
                id: self.id(sequence),
                duplicate: true,
            });
        }
        if self.messages.len() >= self.messages_max {
            return Err(Error::new(
                ErrorKind::Full,
                format!(
                    "the {} stream holds {} messages, its bound; wait until some are done, or \
                     raise the bound",
                    self.name, self.messages_max
                ),
            ));
        }
        self.last += 1;
        let sequence = self.last;
        if let Some(id) = message_id {
            self.seen.remember(id, sequence, now);
        }
        self.lane(lane).ready.insert(sequence);
        let message = Message {
            lane: lane.to_owned(),
            subject: subject.to_owned(),
            headers,
            body,
            published_at,
            published: now,
            attempts: 0,
            waits_until: None,
        };
        self.messages.insert(sequence, message);
        Ok(Published {
            id: self.id(sequence),
            duplicate: false,
        })
    }

    /// Leases up to `max` messages of `lane` for `ack_wait`, oldest first; with none, says
    /// when one that is under a lease or delayed will be deliverable.
    pub(super) fn take(
        &mut self,
        lane: &str,
        max: usize,
        now: Instant,
        ack_wait: Duration,
    ) -> (Vec<Lease>, Option<Instant>) {
        let Some(found) = self.lanes.get_mut(lane) else {
            return (Vec::new(), None);
        };
        while let Some(&(at, sequence)) = found.waiting.first().filter(|(at, _)| *at <= now) {
            found.waiting.remove(&(at, sequence));
            found.ready.insert(sequence);
        }
        let (name, made_at) = (self.name, self.made_at.0);
        let mut leases = Vec::new();
        while leases.len() < max
            && let Some(sequence) = found.ready.pop_first()
        {
            let message = self
                .messages
                .get_mut(&sequence)
                .expect("a lane names only messages that are held");
            let until = now + ack_wait;
            message.attempts += 1;
            message.waits_until = Some(until);
            found.waiting.insert((until, sequence));
            leases.push(Lease {
                sequence,
                id: format!("{name}-{made_at}:{sequence}"),
                subject: message.subject.clone(),
                headers: message.headers.clone(),
                body: message.body.clone(),
                published_at: message.published_at,
                attempt: message.attempts,
            });
        }
        let next = found.waiting.first().map(|(at, _)| *at);
        (leases, next)
    }

    /// For how long the oldest message of `lane` has waited that nobody holds.
    pub(super) fn waited(&self, lane: &str, now: Instant) -> Option<Duration> {
        let first = self.lanes.get(lane)?.ready.first()?;
        let message = self.messages.get(first)?;
        Some(now.saturating_duration_since(message.published))
    }

    /// Makes a leased message deliverable at `at`, if its lease of that `attempt` stands: a
    /// late nak or in-progress of a lease that ended must not touch the next one's.
    pub(super) fn deliver_at(&mut self, sequence: u64, attempt: u64, at: Instant) {
        let Some(message) = self.messages.get_mut(&sequence) else {
            return;
        };
        if message.attempts != attempt {
            return;
        }
        let previous = message.waits_until.replace(at);
        let lane = self
            .lanes
            .get_mut(&message.lane)
            .expect("a held message has a lane");
        if let Some(previous) = previous {
            lane.waiting.remove(&(previous, sequence));
        }
        lane.ready.remove(&sequence);
        lane.waiting.insert((at, sequence));
    }

    /// Forgets a message for good, whoever holds it.
    pub(super) fn remove(&mut self, sequence: u64) {
        let Some(message) = self.messages.remove(&sequence) else {
            return;
        };
        let lane = self.lane(&message.lane);
        lane.ready.remove(&sequence);
        if let Some(until) = message.waits_until {
            lane.waiting.remove(&(until, sequence));
        }
    }

    pub(super) fn finding(&self) -> Finding {
        let (held, max) = (self.messages.len(), self.messages_max);
        Finding {
            ok: held < max,
            subject: format!("stream {}", self.name),
            detail: format!("in memory, {held} of at most {max} messages"),
        }
    }

    fn lane(&mut self, lane: &str) -> &mut Lane {
        self.lanes.entry(lane.to_owned()).or_default()
    }

    fn id(&self, sequence: u64) -> String {
        format!("{}-{}:{sequence}", self.name, self.made_at.0)
    }
}
