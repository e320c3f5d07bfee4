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

/// An integer of up to 64 bits, signed or not.
fn integer(value: &Value) -> Option<i128> {
    value
        .as_i64()
        .map(i128::from)
        .or_else(|| value.as_u64().map(i128::from))
}

fn number(side: &str, value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .ok_or_else(|| format!("the {side} must be a number, not {}", kind(value)))
}

pub(crate) fn add(left: &Value, right: &Value) -> Result<Value, String> {
    if let (Some(a), Some(b)) = (integer(left), integer(right)) {
        // Never by way of a float, which would silently round.
        let sum = a + b;
        return i64::try_from(sum)
            .map(Value::from)
            .or_else(|_| u64::try_from(sum).map(Value::from))
            .map_err(|_| "the sum does not fit 64 bits".to_owned());
    }
    let sum = number("value so far", left)? + number("write", right)?;
    Number::from_f64(sum)
        .map(Value::Number)
        .ok_or_else(|| "the sum is not finite".to_owned())
}

pub(crate) fn concat(left: Value, right: &Value) -> Result<Value, String> {
    match (left, right) {
        (Value::String(mut text), Value::String(more)) => {
            text.push_str(more);
            Ok(Value::String(text))
        }
        (Value::String(_), other) => Err(format!("the write must be a text, not {}", kind(other))),
        (other, _) => Err(format!(
            "the value so far must be a text, not {}",
            kind(&other)
        )),
    }
}

pub(crate) fn merge(left: Value, right: Value) -> Result<Value, String> {
    match (left, right) {
        (Value::Object(mut object), Value::Object(more)) => {
            object.extend(more);
            Ok(Value::Object(object))
        }
        (Value::Object(_), other) => {
            Err(format!("the write must be an object, not {}", kind(&other)))
        }
        (other, _) => Err(format!(
            "the value so far must be an object, not {}",
            kind(&other)
        )),
    }
}

pub(crate) fn union(left: Value, right: Value) -> Result<Value, String> {
    let mut items = list("value so far", left)?;
    items.extend(list("write", right)?);
    items.sort_by(order);
    items.dedup();
    Ok(Value::Array(items))
}

/// A total order in which only equal values are equal. Numbers go by their value as a float
/// first, so that integers and floats mix; integers that round to one float by themselves.
fn order(a: &Value, b: &Value) -> std::cmp::Ordering {
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => {
            let float = |n: &Number| n.as_f64().unwrap_or(f64::MAX);
            float(x)
                .total_cmp(&float(y))
                .then_with(|| integer(a).cmp(&integer(b)))
        }
        (Value::String(x), Value::String(y)) => x.cmp(y),
        _ => kind(a)
            .cmp(kind(b))
            .then_with(|| a.to_string().cmp(&b.to_string())),
    }
}

pub(crate) fn max(left: Value, right: Value) -> Result<Value, String> {
    number("value so far", &left)?;
    number("write", &right)?;
    Ok(if order(&left, &right).is_ge() {
        left
    } else {
        right
    })
}

/// One object counts as a list of one.
fn items_of(write: Value) -> Result<Vec<Value>, String> {
    if write.is_object() {
        Ok(vec![write])
    } else {
        list("write", write)
    }
}

fn id_of(item: &Value) -> Option<&Value> {
    item.get("id").filter(|id| !id.is_null())
}

fn place_of(items: &[Value], id: Option<&Value>) -> Option<usize> {
    let id = id?;
    items.iter().position(|item| id_of(item) == Some(id))
}

/// Replaces items by id and appends new ones. An item without an id is always appended.
pub(crate) fn by_id(left: Value, right: Value) -> Result<Value, String> {
    let mut items = list("value so far", left)?;
    for item in items_of(right)? {
        match place_of(&items, id_of(&item)) {
            Some(at) => items[at] = item,
            None => items.push(item),
        }
    }
    Ok(Value::Array(items))
}

/// The id of a removal that removes every message before it (LangGraph's
/// `REMOVE_ALL_MESSAGES`).
const REMOVE_ALL: &str = "__remove_all__";

/// As [`by_id`], with removals. What is removed keeps its place until the end of the write, so
/// a message that is removed and given again in one write stays where it was (LangGraph's
/// `add_messages` in `graph/message.py`).
pub(crate) fn messages(left: Value, right: Value) -> Result<Value, String> {
    let is_removal = |item: &Value| item.get("type").and_then(Value::as_str) == Some("remove");
    let mut items = list("value so far", left)?;
    let mut new = items_of(right)?;
    let last_all = new
        .iter()
        .rposition(|item| is_removal(item) && id_of(item).is_some_and(|id| id == REMOVE_ALL));
    if let Some(at) = last_all {
        return Ok(Value::Array(new.split_off(at + 1)));
    }
    let mut gone: Vec<Value> = Vec::new();
    for item in new {
        match (place_of(&items, id_of(&item)), is_removal(&item)) {
            (Some(_), true) => gone.extend(id_of(&item).cloned()),
            (None, true) => {
                return Err(
                    "a message that is to be removed is not there; remove only those that are"
                        .to_owned(),
                );
            }
            (Some(at), false) => {
                gone.retain(|id| Some(id) != id_of(&item));
                items[at] = item;
            }
            (None, false) => items.push(item),
        }
    }
    items.retain(|item| id_of(item).is_none_or(|id| !gone.contains(id)));
    Ok(Value::Array(items))
}

#[cfg(test)]
mod tests;
