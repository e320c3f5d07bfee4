//! Compare: what was expected beside what was seen, and every place where they differ.
//!
//! Interrupt ids are compared by their labels: the first time a label meets an id the two belong
//! together, and from then on only with each other. Everything else is compared as it is, the
//! order within a superstep too, as far as a backend keeps the discipline of FORMAT, section 5.

use std::{collections::BTreeMap, fmt};

use serde_json::{Map, Value, json};

use crate::{observe::ANY, script::canonical};

/// Which label belongs to which id.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels {
    ids: BTreeMap<String, String>,
    labels: BTreeMap<String, String>,
}

impl Labels {
    /// The id of a label.
    pub(crate) fn id(&self, label: &str) -> Option<&str> {
        self.ids.get(label).map(String::as_str)
    }

    /// Whether the two belong together; those that are both new do from now on.
    fn meet(&mut self, label: &str, id: &str) -> bool {
        match (self.ids.get(label), self.labels.get(id)) {
            (Some(known), _) => known == id,
            (None, Some(_)) => false,
            (None, None) => {
                self.ids.insert(label.to_owned(), id.to_owned());
                self.labels.insert(id.to_owned(), label.to_owned());
                true
            }
        }
    }

    /// A value with labels for ids; an id without one is a new one.
    pub(crate) fn label(&self, value: &Value) -> Value {
        match value {
            Value::Array(items) => items.iter().map(|item| self.label(item)).collect(),
            Value::Object(object) => {
                let asked = is_question(object);
                let labelled = object.iter().map(|(key, value)| {
                    let value = match value.as_str().filter(|_| asked && key == "id") {
                        Some(id) => json!(self.labels.get(id).map_or("int:new", String::as_str)),
                        None => self.label(value),
                    };
                    (key.clone(), value)
                });
                Value::Object(labelled.collect())
            }
            scalar => scalar.clone(),
        }
    }
}

/// Whether an object is an interrupt.
fn is_question(object: &Map<String, Value>) -> bool {
    object.len() == 2 && object.contains_key("value") && object["id"].is_string()
}

/// A place where the two differ; `None` where one has nothing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Difference {
    pub(crate) path: String,
    pub(crate) expected: Option<Value>,
    pub(crate) got: Option<Value>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<Value>| match value {
            Some(value) => short(&canonical(value), 160),
            None => "nothing".to_owned(),
        };
        write!(
            f,
            "{}: expected {}, got {}",
            self.path,
            shown(&self.expected),
            shown(&self.got)
        )
    }
}

/// A text of at most so many characters.
pub(crate) fn short(text: &str, characters_max: usize) -> String {
    match text.char_indices().nth(characters_max) {
        Some((at, _)) => format!("{} ...", &text[..at]),
        None => text.to_owned(),
    }
}

/// Every place where an observation differs from the expected one; none if they agree.
pub(crate) fn compare(expected: &Value, got: &Value, labels: &mut Labels) -> Vec<Difference> {
    let (expected, got) = (comparable(expected), comparable(got));
    let mut found = Vec::new();
    walk("", &expected, &got, labels, &mut found);
    found
}

/// As [`compare`], but what ran and was told in one superstep may be in any order: where each task
/// is a delivery of its own, a failing one cannot be made to end last.
pub(crate) fn compare_loosely(
    expected: &Value,
    got: &Value,
    labels: &mut Labels,
) -> Vec<Difference> {
    let loosened = |value: &Value| {
        let mut value = value.clone();
        for key in ["events", "ran"] {
            if let Some(Value::Array(items)) = value.get_mut(key) {
                let step = |item: &Value| (item["step"].clone(), item.get("ns").is_some());
                for superstep in items.chunk_by_mut(|a, b| step(a) == step(b)) {
                    superstep.sort_by_cached_key(|item| canonical(&without_ids(item)));
                }
            }
        }
        value
    };
    compare(&loosened(expected), &loosened(got), labels)
}

/// A value without the ids of interrupts, which no order may depend on.
fn without_ids(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(without_ids).collect(),
        Value::Object(object) if is_question(object) => without_ids(&object["value"]),
        Value::Object(object) => Value::Object(
            object
                .iter()
                .map(|(key, value)| (key.clone(), without_ids(value)))
                .collect(),
        ),
        scalar => scalar.clone(),
    }
}

/// Without what the format says not to compare.
fn comparable(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(comparable).collect(),
        Value::Object(object) => {
            let informative = |key: &str| {
                (key == "detail" && object.contains_key("kind"))
                    || (key == "triggers" && object.get("type") == Some(&json!("task")))
            };
            let kept = object.iter().filter(|(key, _)| !informative(key));
            Value::Object(
                kept.map(|(key, value)| (key.clone(), comparable(value)))
                    .collect(),
            )
        }
        scalar => scalar.clone(),
    }
}

fn walk(
    path: &str,
    expected: &Value,
    got: &Value,
    labels: &mut Labels,
    found: &mut Vec<Difference>,
) {
    match (expected, got) {
        (_, Value::String(any)) if any == ANY => {}
        (Value::Object(expected), Value::Object(got)) => {
            walk_objects(path, expected, got, labels, found);
        }
        (Value::Array(expected), Value::Array(got)) => {
            for at in 0..expected.len().max(got.len()) {
                let path = format!("{path}[{at}]");
                let pair = (expected.get(at), got.get(at));
                walk_pair(&path, pair, labels, found);
            }
        }
        (expected, got) if expected == got => {}
        _ => found.push(difference(path, (Some(expected), Some(got)), labels)),
    }
}

fn walk_objects(
    path: &str,
    expected: &Map<String, Value>,
    got: &Map<String, Value>,
    labels: &mut Labels,
    found: &mut Vec<Difference>,
) {
    let questions = is_question(expected) && is_question(got);
    let mut keys: Vec<&String> = expected.keys().chain(got.keys()).collect();
    keys.sort();
    keys.dedup();
    for key in keys {
        let place = if path.is_empty() {
            key.clone()
        } else {
            format!("{path}.{key}")
        };
        match (expected.get(key), got.get(key)) {
            // A task of which anything may be expected may also show nothing.
            (None, Some(Value::String(any))) if any == ANY => {}
            (Some(Value::String(label)), Some(Value::String(id)))
                if questions && key == "id" && label.starts_with("int:") =>
            {
                if !labels.meet(label, id) {
                    let known = labels.labels.get(id).map_or("int:new", String::as_str);
                    found.push(Difference {
                        path: place,
                        expected: Some(json!(label)),
                        got: Some(json!(known)),
                    });
                }
            }
            pair => walk_pair(&place, pair, labels, found),
        }
    }
}

fn walk_pair(
    path: &str,
    pair: (Option<&Value>, Option<&Value>),
    labels: &mut Labels,
    found: &mut Vec<Difference>,
) {
    match pair {
        (Some(expected), Some(got)) => walk(path, expected, got, labels, found),
        one => found.push(difference(path, one, labels)),
    }
}

fn difference(
    path: &str,
    (expected, got): (Option<&Value>, Option<&Value>),
    labels: &Labels,
) -> Difference {
    Difference {
        path: path.to_owned(),
        expected: expected.cloned(),
        got: got.map(|got| labels.label(got)),
    }
}

#[cfg(test)]
mod tests;
