//! Names and ids of the protocol, a newtype for each, and the head of a log.
//!
//! What names a thing in the store (head, dispatch, checkpoint) carries the nonce of its
//! record, so that after a step back of the store a redone record is never taken for the one
//! that is gone. Nothing here is random by itself: nonces come in as arguments.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use superstep_graph::string_id;

string_id! {
    /// One durable line of execution, named by whoever starts it (`thread_id`).
    ThreadId
}

string_id! {
    /// One invocation on a thread, from input to end or interrupt.
    RunId
}

string_id! {
    /// The idempotency key of a command: its `Nats-Msg-Id`, else its stream, sequence and
    /// time: a stream that is made anew counts from 1 again.
    CommandId
}

string_id! {
    /// The name a graph is registered under.
    GraphName
}

string_id! {
    /// The version a graph is registered under.
    GraphVersion
}

/// A graph as work is routed to it: name and version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct GraphId {
    /// The registered name.
    pub name: GraphName,
    /// The registered version.
    pub version: GraphVersion,
}

impl fmt::Display for GraphId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// Milliseconds since the Unix epoch, as the store's records carry it. Outside the store,
/// times are RFC 3339 text.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct UnixMillis(pub u64);

impl UnixMillis {
    /// `self` and `ms` more, stopping at the largest value.
    #[must_use]
    pub fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms))
    }
}

/// The random part of a record's name: 64 bits from the writer, as 16 hex digits of text.
///
/// It tells a record from another of the same version that was lost to a step back.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Nonce(pub u64);

impl fmt::Display for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Nonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The name of a record: its version (dense from 1) and its nonce. As text `7-00c0ffee00c0ffee`.
///
/// The last record's is the thread's head. Every append names the head it was decided on and
/// is refused if the thread has moved; that is the fencing token of this system. The record
/// that called for work names that work too: see [`Dispatch`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Head {
    /// The record's place in the log, dense from 1.
    pub version: u64,
    /// The record's random part.
    pub nonce: Nonce,
}

/// The record that called for the open tasks; their run for it is a round.
pub type Dispatch = Head;

impl fmt::Display for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.version, self.nonce)
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not a head: not `<version>-<16 hex digits>`.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a record name; it has the form <version>-<16 hex digits>")]
pub struct ParseHeadError(pub String);

impl FromStr for Head {
    type Err = ParseHeadError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || ParseHeadError(text.to_owned());
        let (version, nonce) = text.split_once('-').ok_or_else(error)?;
        // A sign or a leading zero would make two texts of one name.
        let plain = nonce.len() == 16
            && nonce
                .bytes()
                .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            && version.bytes().all(|b| b.is_ascii_digit())
            && !version.starts_with('0');
        if !plain {
            return Err(error());
        }
        Ok(Self {
            version: version.parse().map_err(|_| error())?,
            nonce: Nonce(u64::from_str_radix(nonce, 16).map_err(|_| error())?),
        })
    }
}

impl Serialize for Head {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Serialize for Nonce {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Nonce {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        u64::from_str_radix(&text, 16)
            .map(Nonce)
            .map_err(serde::de::Error::custom)
    }
}
