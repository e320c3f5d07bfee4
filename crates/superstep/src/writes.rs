//! Writes: what an update sets, collected by the setters of a derived update.
//!
//! A setter cannot fail, so that setters chain; what could not be made into JSON is kept and
//! told when the update is used. How channels fold the writes is left to the engine.

use serde::Serialize;
use serde_json::{Map, Value, json};
use superstep_graph::{ChannelName, Write, WriteValue};

use crate::state::StateError;

/// The writes of one update, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Writes {
    writes: Vec<Write>,
    error: Option<StateError>,
}

impl Writes {
    /// Sets a channel that keeps one value: a second call replaces the first.
    pub fn set<T: Serialize + ?Sized>(&mut self, channel: &str, value: &T) {
        self.writes.retain(|write| write.channel != *channel);
        self.fold(channel, value);
    }

    /// Gives a value to a channel's reducer: a second call gives a second value.
    pub fn fold<T: Serialize + ?Sized>(&mut self, channel: &str, value: &T) {
        if let Some(value) = self.json(channel, value) {
            self.push(channel, WriteValue::Set(value));
        }
    }

    /// Adds items to a channel that takes lists.
    pub fn extend<T: Serialize>(&mut self, channel: &str, items: impl Iterator<Item = T>) {
        let mut added = Vec::new();
        for item in items {
            added.extend(self.json(channel, &item));
        }
        match self.writes.last_mut() {
            Some(Write {
                channel: last,
                value: WriteValue::Set(Value::Array(before)),
            }) if *last == *channel => before.extend(added),
            _ => self.push(channel, WriteValue::Set(Value::Array(added))),
        }
    }

    /// Replaces a reducing channel's value.
    pub fn overwrite<T: Serialize + ?Sized>(&mut self, channel: &str, value: &T) {
        if let Some(value) = self.json(channel, value) {
            self.push(channel, WriteValue::Overwrite(value));
        }
    }

    /// Reads an object of channels, as a node of a dynamic graph returns it.
    pub(crate) fn of_value(value: Value) -> Self {
        let mut all = Self::default();
        match value {
            Value::Null => {}
            Value::Object(object) => {
                for (channel, value) in object {
                    let value = match value {
                        Value::Object(mut object) if object.len() == 1 => {
                            match object.remove("__overwrite__") {
                                Some(value) => WriteValue::Overwrite(value),
                                None => WriteValue::Set(Value::Object(object)),
                            }
                        }
                        value => WriteValue::Set(value),
                    };
                    all.push(&channel, value);
                }
            }
            other => all.error = Some(StateError::not_an_object(&other)),
        }
        all
    }

    /// The writes, or why there are none.
    pub(crate) fn into_writes(self) -> Result<Vec<Write>, StateError> {
        match self.error {
            Some(error) => Err(error),
            None => Ok(self.writes),
        }
    }

    /// The writes as an object of channels, which an input is.
    ///
    /// # Errors
    /// If a value is no JSON, or a channel is written several times: an object has one place
    /// for it.
    pub fn into_input(self) -> Result<Value, StateError> {
        let mut object = Map::new();
        for write in self.into_writes()? {
            let value = match write.value {
                WriteValue::Set(value) => value,
                WriteValue::Overwrite(value) => json!({"__overwrite__": value}),
            };
            if object.insert(write.channel.to_string(), value).is_some() {
                return Err(StateError::WrittenTwice {
                    channel: write.channel,
                });
            }
        }
        Ok(Value::Object(object))
    }

    fn push(&mut self, channel: &str, value: WriteValue) {
        let channel = ChannelName::from(channel);
        self.writes.push(Write { channel, value });
    }

    fn json<T: Serialize + ?Sized>(&mut self, channel: &str, value: &T) -> Option<Value> {
        match serde_json::to_value(value) {
            Ok(value) => Some(value),
            Err(error) => {
                self.error.get_or_insert_with(|| StateError::NoJson {
                    channel: channel.into(),
                    reason: error.to_string(),
                });
                None
            }
        }
    }
}
