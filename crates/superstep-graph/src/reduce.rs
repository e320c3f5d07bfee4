//! The built-in reducers, each a pure function of the value so far and one write.
//!
//! An error is a text that says what the write should have been; the channel adds its name.

use serde_json::{Number, Value};

fn list(side: &str, value: Value) -> Result<Vec<Value>, String> {
    match value {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        other => Err(format!("the {side} must be a list, not {}", kind(&other))),
    }
}

/// The JSON kind of a value, for messages; never its content.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

pub(crate) fn append(left: Value, right: Value) -> Result<Value, String> {
    let mut items = list("value so far", left)?;
    match right {
        Value::Array(new) => items.extend(new),
        Value::Null => {}
        item => items.push(item),
    }
    Ok(Value::Array(items))
}

pub(crate) fn add(left: &Value, right: &Value) -> Result<Value, String> {
    if let (Some(a), Some(b)) = (left.as_i64(), right.as_i64()) {
        let sum = a.checked_add(b).ok_or("the sum does not fit 64 bits")?;
        return Ok(Value::from(sum));
    }
    let (Some(a), Some(b)) = (left.as_f64(), right.as_f64()) else {
        return Err(format!("a write must be a number, not {}", kind(right)));
    };
    Number::from_f64(a + b)
        .map(Value::Number)
        .ok_or_else(|| "the sum is not finite".to_owned())
}

pub(crate) fn concat(left: Value, right: &Value) -> Result<Value, String> {
    match (left, right) {
        (Value::String(mut text), Value::String(more)) => {
            text.push_str(more);
            Ok(Value::String(text))
        }
        (_, other) => Err(format!("a write must be a text, not {}", kind(other))),
    }
}

pub(crate) fn merge(left: Value, right: Value) -> Result<Value, String> {
    match (left, right) {
        (Value::Object(mut object), Value::Object(more)) => {
            object.extend(more);
            Ok(Value::Object(object))
        }
        (_, other) => Err(format!("a write must be an object, not {}", kind(&other))),
    }
}

pub(crate) fn union(left: Value, right: Value) -> Result<Value, String> {
    let mut items = list("value so far", left)?;
    items.extend(list("write", right)?);
    items.sort_by(order);
    items.dedup();
    Ok(Value::Array(items))
}

fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x
                .as_f64()
                .unwrap_or(0.0)
                .total_cmp(&y.as_f64().unwrap_or(0.0)),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        _ => kind(a)
            .cmp(kind(b))
            .then_with(|| a.to_string().cmp(&b.to_string())),
    }
}

pub(crate) fn max(left: Value, right: Value) -> Result<Value, String> {
    if !right.is_number() {
        return Err(format!("a write must be a number, not {}", kind(&right)));
    }
    Ok(if order(&left, &right).is_ge() {
        left
    } else {
        right
    })
}

pub(crate) fn by_id(left: Value, right: Value) -> Result<Value, String> {
    upsert(left, right, |_| false)
}

pub(crate) fn messages(left: Value, right: Value) -> Result<Value, String> {
    upsert(left, right, |item| {
        item.get("type").and_then(Value::as_str) == Some("remove")
    })
}

/// Replaces items by id, appends new ones, removes those that `removes` says. An item without
/// an id is always appended. One object counts as a list of one.
fn upsert(left: Value, right: Value, removes: fn(&Value) -> bool) -> Result<Value, String> {
    let mut items = list("value so far", left)?;
    let new = if right.is_object() {
        vec![right]
    } else {
        list("write", right)?
    };
    for item in new {
        let id = item.get("id").filter(|id| !id.is_null());
        let place = id.and_then(|id| items.iter().position(|old| old.get("id") == Some(id)));
        match (place, removes(&item)) {
            (Some(at), true) => {
                items.remove(at);
            }
            (None, true) => {
                return Err("a message that is to be removed is not there".to_owned());
            }
            (Some(at), false) => items[at] = item,
            (None, false) => items.push(item),
        }
    }
    Ok(Value::Array(items))
}
