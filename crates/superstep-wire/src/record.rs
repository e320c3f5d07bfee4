//! Records, task results and progress as bytes: the stored format, with its version.
//!
//! JSON in an envelope that names the format, so that any tool can read a log and a newer
//! writer is noticed. Large channel values go out of line: the encoding hands them over as
//! blobs named by their content, and a decoded record says which blobs it needs before it can
//! be folded. What the fields mean is `superstep-protocol`'s business.
//!
//! Version 1 is the only one so far. A reader refuses what is newer than itself, and golden
//! files of every version are read back by a test for ever.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use superstep_graph::{ChannelChange, ChannelName, digest};
use superstep_protocol::{Record, TaskResult};

/// The format that this version writes.
pub const FORMAT: u32 = 1;

/// Stored bytes that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Written by a newer version.
    #[error(
        "the {what} has format {found} and this version reads up to {FORMAT}; upgrade this process"
    )]
    Newer {
        /// What was read.
        what: &'static str,
        /// Its format.
        found: u32,
    },
    /// Not what this code wrote.
    #[error("the {what} is not readable: it was damaged, or not written by superstep")]
    Unreadable {
        /// What was read.
        what: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// A blob does not hold what its record says.
    #[error("blob `{id}` of channel `{channel}` is not readable")]
    Blob {
        /// The blob.
        id: String,
        /// The channel it belongs to.
        channel: ChannelName,
    },
}

#[derive(Serialize)]
struct EnvelopeRef<'a, T> {
    format: u32,
    #[serde(flatten)]
    content: &'a T,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    snapshot_blobs: BTreeMap<ChannelName, String>,
}

#[derive(Deserialize)]
struct Format {
    format: u32,
}

#[derive(Deserialize)]
struct Envelope<T> {
    #[serde(flatten)]
    content: T,
    #[serde(default)]
    snapshot_blobs: BTreeMap<ChannelName, String>,
}

/// An encoded record, and the values that go out of line before it is appended.
#[derive(Clone, Debug)]
pub struct Encoded {
    /// The record.
    pub bytes: Vec<u8>,
    /// Blobs by id.
    pub blobs: BTreeMap<String, Vec<u8>>,
}

/// Encodes a record; channel values of more than `inline_bytes_max` bytes go out of line.
///
/// # Panics
/// Never for records of the protocol: their maps have text keys.
pub fn encode(mut record: Record, inline_bytes_max: usize) -> Encoded {
    let mut blobs = BTreeMap::new();
    if let superstep_protocol::RecordBody::Committed(committed) = &mut record.body {
        for change in committed.delta.channels.values_mut() {
            let (value, push) = match &*change {
                ChannelChange::Set(value) if exceeds(value, inline_bytes_max) => {
                    (to_bytes(value), false)
                }
                ChannelChange::Push(items)
                    if items.iter().map(size_hint).sum::<usize>() > inline_bytes_max =>
                {
                    (to_bytes(items), true)
                }
                _ => continue,
            };
            let id = blob_id(&value);
            blobs.insert(id.clone(), value);
            *change = ChannelChange::Blob { id, push };
        }
    }
    let mut snapshot_blobs = BTreeMap::new();
    if let Some(snapshot) = &mut record.snapshot {
        let large: Vec<ChannelName> = snapshot
            .checkpoint
            .values
            .iter()
            .filter(|(_, value)| exceeds(value, inline_bytes_max))
            .map(|(channel, _)| channel.clone())
            .collect();
        for channel in large {
            if let Some(value) = snapshot.checkpoint.values.remove(&channel) {
                let value = to_bytes(&value);
                let id = blob_id(&value);
                blobs.insert(id.clone(), value);
                snapshot_blobs.insert(channel, id);
            }
        }
    }
    let envelope = EnvelopeRef {
        format: FORMAT,
        content: &record,
        snapshot_blobs,
    };
    Encoded {
        bytes: to_bytes(&envelope),
        blobs,
    }
}

fn to_bytes<T: Serialize + ?Sized>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("records hold only text keys")
}

fn blob_id(bytes: &[u8]) -> String {
    // The length beside the digest makes a clash of contents of different length impossible.
    let text = String::from_utf8_lossy(bytes);
    format!("{}-{}", digest(&[&text]), bytes.len())
}

fn exceeds(value: &Value, bytes_max: usize) -> bool {
    size_hint(value) > bytes_max
}

/// About how many bytes a value takes as JSON, without writing it.
pub fn size_hint(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) => 5,
        Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => items.iter().map(size_hint).sum::<usize>() + items.len() + 2,
        Value::Object(object) => {
            object
                .iter()
                .map(|(key, value)| key.len() + 4 + size_hint(value))
                .sum::<usize>()
                + 2
        }
    }
}

/// A decoded record that may still lack its out-of-line values.
#[derive(Clone, Debug)]
pub struct Decoded {
    record: Record,
    snapshot_blobs: BTreeMap<ChannelName, String>,
}

/// Decodes a record.
///
/// # Errors
/// If it is of a newer format, or not readable.
pub fn decode(bytes: &[u8]) -> Result<Decoded, Error> {
    let envelope: Envelope<Record> = read("record", bytes)?;
    Ok(Decoded {
        record: envelope.content,
        snapshot_blobs: envelope.snapshot_blobs,
    })
}

fn read<T: for<'de> Deserialize<'de>>(
    what: &'static str,
    bytes: &[u8],
) -> Result<Envelope<T>, Error> {
    match serde_json::from_slice::<Envelope<T>>(bytes) {
        Ok(envelope) => match serde_json::from_slice::<Format>(bytes) {
            Ok(Format { format }) if format > FORMAT => Err(Error::Newer {
                what,
                found: format,
            }),
            Ok(_) => Ok(envelope),
            Err(source) => Err(Error::Unreadable { what, source }),
        },
        Err(source) => match serde_json::from_slice::<Format>(bytes) {
            Ok(Format { format }) if format > FORMAT => Err(Error::Newer {
                what,
                found: format,
            }),
            _ => Err(Error::Unreadable { what, source }),
        },
    }
}

impl Decoded {
    /// The ids of the blobs that the record needs, each once.
    pub fn blob_ids(&self) -> Vec<String> {
        let mut ids: Vec<String> = self.snapshot_blobs.values().cloned().collect();
        if let superstep_protocol::RecordBody::Committed(committed) = &self.record.body {
            for change in committed.delta.channels.values() {
                if let ChannelChange::Blob { id, .. } = change {
                    ids.push(id.clone());
                }
            }
        }
        ids.sort();
        ids.dedup();
        ids
    }

    /// When the record was made.
    pub fn time(&self) -> superstep_protocol::UnixMillis {
        self.record.time
    }

    /// Whether the record saved a checkpoint.
    pub fn is_checkpoint(&self) -> bool {
        matches!(
            self.record.body,
            superstep_protocol::RecordBody::Committed(_)
        )
    }

    /// The record with its values in place. `blobs` holds those that [`Decoded::blob_ids`]
    /// names.
    ///
    /// # Errors
    /// If a blob is missing or not readable.
    pub fn resolve<B: AsRef<[u8]>>(mut self, blobs: &BTreeMap<String, B>) -> Result<Record, Error> {
        let value = |channel: &ChannelName, id: &str| -> Result<Value, Error> {
            blobs
                .get(id)
                .and_then(|bytes| serde_json::from_slice(bytes.as_ref()).ok())
                .ok_or_else(|| Error::Blob {
                    id: id.to_owned(),
                    channel: channel.clone(),
                })
        };
        if let superstep_protocol::RecordBody::Committed(committed) = &mut self.record.body {
            for (channel, change) in &mut committed.delta.channels {
                let ChannelChange::Blob { id, push } = &*change else {
                    continue;
                };
                *change = match (value(channel, id)?, push) {
                    (Value::Array(items), true) => ChannelChange::Push(items),
                    (_, true) => {
                        return Err(Error::Blob {
                            id: id.clone(),
                            channel: channel.clone(),
                        });
                    }
                    (value, false) => ChannelChange::Set(value),
                };
            }
        }
        if let Some(snapshot) = &mut self.record.snapshot {
            for (channel, id) in &self.snapshot_blobs {
                snapshot
                    .checkpoint
                    .values
                    .insert(channel.clone(), value(channel, id)?);
            }
        }
        Ok(self.record)
    }
}

#[derive(Serialize, Deserialize)]
struct ResultContent {
    result: TaskResult,
}

/// Encodes a task's result for the map of its round.
pub fn encode_result(result: TaskResult) -> Vec<u8> {
    let content = ResultContent { result };
    to_bytes(&EnvelopeRef {
        format: FORMAT,
        content: &content,
        snapshot_blobs: BTreeMap::new(),
    })
}

/// Decodes a task's result.
///
/// # Errors
/// If it is of a newer format, or not readable.
pub fn decode_result(bytes: &[u8]) -> Result<TaskResult, Error> {
    read::<ResultContent>("task result", bytes).map(|envelope| envelope.content.result)
}

/// What a call of a subgraph did since the last entry of its task's progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProgressEntry {
    /// The records that it added to its log, in order.
    pub records: Vec<Record>,
    /// Whether its tasks have taken the answer that was offered to whoever asks first.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub took_offer: bool,
}

/// Encodes an entry of a task's progress. Its values stay in line: it is short-lived.
pub fn encode_progress(entry: &ProgressEntry) -> Vec<u8> {
    to_bytes(&EnvelopeRef {
        format: FORMAT,
        content: entry,
        snapshot_blobs: BTreeMap::new(),
    })
}

/// Decodes an entry of a task's progress.
///
/// # Errors
/// If it is of a newer format, or not readable.
pub fn decode_progress(bytes: &[u8]) -> Result<ProgressEntry, Error> {
    read::<ProgressEntry>("progress of a task", bytes).map(|envelope| envelope.content)
}

#[cfg(test)]
mod tests;
