//! Inputs against the schema that a graph is registered with.
//!
//! Checked by whoever decides on a start, before anything is stored. What the schema lets
//! through and the state's type does not is left to the nodes.

use std::borrow::Cow;

use serde_json::{Map, Value};
use superstep_protocol::Refusal;

use crate::error::shortened;

/// How many mistakes a refusal tells.
const MISTAKES_MAX: usize = 5;
/// How much of one mistake a refusal tells: it quotes the value, which may be of any size.
const MISTAKE_CHARS_MAX: usize = 400;

/// A compiled schema of inputs.
#[derive(Debug)]
pub struct InputSchema {
    validator: jsonschema::Validator,
}

impl InputSchema {
    /// Compiles a JSON Schema.
    ///
    /// # Errors
    /// Why it is none.
    pub fn new(schema: &Value) -> Result<Self, String> {
        let validator = jsonschema::validator_for(schema).map_err(|error| error.to_string())?;
        Ok(Self { validator })
    }

    /// Checks an input. Null is no input: it goes on with what is left. The value of an
    /// overwrite is checked as the channel's own.
    ///
    /// # Errors
    /// `InvalidInput` with the first mistakes and their places.
    pub fn check(&self, input: &Value) -> Result<(), Refusal> {
        if input.is_null() {
            return Ok(());
        }
        let input = without_overwrites(input);
        let mistakes: Vec<String> = self
            .validator
            .iter_errors(&input)
            .take(MISTAKES_MAX)
            .map(|error| {
                let mistake = shortened(error.to_string(), MISTAKE_CHARS_MAX);
                match error.instance_path().as_str() {
                    "" => mistake,
                    place => format!("{}: {mistake}", shortened(place.to_owned(), 100)),
                }
            })
            .collect();
        if mistakes.is_empty() {
            return Ok(());
        }
        Err(Refusal::InvalidInput {
            reason: mistakes.join("; "),
        })
    }
}

fn without_overwrites(input: &Value) -> Cow<'_, Value> {
    let value_of = |value: &Value| match value {
        Value::Object(object) if object.len() == 1 => object.get("__overwrite__").cloned(),
        _ => None,
    };
    match input {
        Value::Object(channels) if channels.values().any(|value| value_of(value).is_some()) => {
            let plain: Map<String, Value> = channels
                .iter()
                .map(|(channel, value)| {
                    let value = value_of(value).unwrap_or_else(|| value.clone());
                    (channel.clone(), value)
                })
                .collect();
            Cow::Owned(Value::Object(plain))
        }
        other => Cow::Borrowed(other),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn mistakes_are_told_with_their_places() {
        let schema = InputSchema::new(&json!({
            "type": "object",
            "properties": {"count": {"type": "integer"}},
            "required": ["topic"],
            "additionalProperties": false,
        }))
        .unwrap();
        let reason = |input: Value| schema.check(&input).unwrap_err().to_string();
        assert_eq!(schema.check(&Value::Null), Ok(()));
        assert!(reason(json!({"topc": 1})).contains("topc"));
        assert!(reason(json!({"topic": 1, "count": "x"})).contains("/count: "));
        assert!(reason(json!([])).contains("object"));
    }

    #[test]
    fn an_overwrite_is_checked_as_its_value() {
        let schema = json!({"properties": {"notes": {"type": "array"}}});
        let schema = InputSchema::new(&schema).unwrap();
        let overwrite = |value: Value| json!({"notes": {"__overwrite__": value}});
        assert_eq!(schema.check(&overwrite(json!(["a"]))), Ok(()));
        schema.check(&overwrite(json!("a"))).unwrap_err();
    }

    #[test]
    fn what_is_no_schema_is_told() {
        InputSchema::new(&json!({"type": "nothing"})).unwrap_err();
    }
}
