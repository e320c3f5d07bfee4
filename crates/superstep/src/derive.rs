//! What the code of `#[derive(State)]` names; not for people.
//!
//! Kept beside the traits and not in the macro, so that it is compiled once and tested as any
//! code.

use std::sync::Arc;

use schemars::{JsonSchema, SchemaGenerator, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};
pub use serde_json::Value;
use serde_json::json;
use superstep_graph::{ChannelKind, Command, NodeOutput, Reducer};
pub use superstep_graph::{ChannelName, Managed};

pub use crate::writes::Writes;
use crate::{NodeError, NodeReturn, state::StateError};

/// The values of channels.
pub type Map = serde_json::Map<String, Value>;

/// Takes a channel's value; absent is the default.
///
/// # Errors
/// If it does not have the form of `T`.
pub fn take<T: DeserializeOwned + Default>(
    values: &mut Map,
    channel: &str,
) -> Result<T, StateError> {
    match values.remove(channel) {
        Some(value) => read(channel, value),
        None => Ok(T::default()),
    }
}

/// Takes a channel's value, which must be there.
///
/// # Errors
/// If it is not, or does not have the form of `T`.
pub fn take_required<T: DeserializeOwned>(
    values: &mut Map,
    channel: &str,
) -> Result<T, StateError> {
    match values.remove(channel) {
        Some(value) => read(channel, value),
        None => Err(StateError::Missing {
            channel: channel.into(),
        }),
    }
}

fn read<T: DeserializeOwned>(channel: &str, value: Value) -> Result<T, StateError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let place = error.path().to_string();
        let cause = error.into_inner();
        StateError::Form {
            channel: channel.into(),
            reason: if place == "." {
                cause.to_string()
            } else {
                format!("at `{place}`: {cause}")
            },
        }
    })
}

/// A reducing channel over a typed function.
pub fn custom_reducer<T>(name: &str, reduce: fn(T, T) -> T) -> ChannelKind
where
    T: Serialize + DeserializeOwned + Default + 'static,
{
    let typed = |side: &str, value: Value| {
        serde_json::from_value::<T>(value).map_err(|error| format!("the {side}: {error}"))
    };
    ChannelKind::Reduce(Reducer::Custom {
        name: name.into(),
        initial: serde_json::to_value(T::default()).ok(),
        reduce: Arc::new(move |left, right| {
            let folded = reduce(typed("value so far", left)?, typed("write", right)?);
            serde_json::to_value(folded).map_err(|error| format!("the result: {error}"))
        }),
    })
}

/// What a node returns that only updates.
///
/// # Errors
/// If a value is no JSON.
pub fn output_of(writes: Writes) -> Result<NodeReturn, NodeError> {
    let update = writes
        .into_writes()
        .map_err(|error| NodeError::new("InvalidUpdate", error.to_string()))?;
    Ok(NodeReturn::Output(NodeOutput::command(Command {
        update,
        ..Command::default()
    })))
}

/// Collects the schema of an input: an object that has no other keys.
#[derive(Debug)]
pub struct SchemaBuilder {
    title: &'static str,
    generator: SchemaGenerator,
    properties: Map,
    required: Vec<Value>,
}

impl SchemaBuilder {
    /// Of a state without channels.
    pub fn new(title: &'static str) -> Self {
        Self {
            title,
            generator: SchemaSettings::draft2020_12().into_generator(),
            properties: Map::new(),
            required: Vec::new(),
        }
    }

    /// Adds a channel.
    pub fn property<T: JsonSchema>(&mut self, channel: &str, required: bool) {
        let schema = self.generator.subschema_for::<T>();
        self.properties.insert(channel.to_owned(), schema.into());
        if required {
            self.required.push(channel.into());
        }
    }

    /// The schema.
    pub fn build(mut self) -> Value {
        let mut schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "title": self.title,
            "type": "object",
            "properties": self.properties,
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema["required"] = Value::Array(self.required);
        }
        let definitions = self.generator.take_definitions(true);
        if !definitions.is_empty() {
            schema["$defs"] = Value::Object(definitions);
        }
        schema
    }
}
