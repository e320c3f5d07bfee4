//! Expressions: JSON in which an object of one key is an operator.
//!
//! Read once into a tree, so that an unknown operator fails its case before it runs. The values
//! are JSON; a packet and an overwrite are objects of one key that no case uses otherwise. The
//! order of evaluation is that of the text, because counters count.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use serde::{
    Deserialize, Deserializer,
    de::{Error as _, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value, json};

use crate::case::Entries;

/// The key of a packet: `{SEND: [node, arg]}`.
pub(crate) const SEND: &str = "$send";

/// The key of an overwrite, as an update of the library has it.
pub(crate) const OVERWRITE: &str = "__overwrite__";

/// An expression.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Expr {
    Literal(Value),
    List(Vec<Expr>),
    Get(Place),
    Var(Place),
    Input,
    Attempt,
    Error(ErrorPart),
    Count(String),
    Object(Entries<Expr>),
    Add(Vec<Expr>),
    Text(Box<Expr>),
    Equal(Box<(Expr, Expr)>),
    Less(Box<(Expr, Expr)>),
    Not(Box<Expr>),
    And(Vec<Expr>),
    Or(Vec<Expr>),
    If(Box<(Expr, Expr, Expr)>),
    Length(Box<Expr>),
    Merge(Vec<Expr>),
    Map(Box<Mapped>),
    Send(Box<(Expr, Expr)>),
    Overwrite(Box<Expr>),
}

/// A place in a value: a key, or a path of keys and indexes.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(untagged)]
pub(crate) enum Place {
    Path(Vec<Value>),
    Key(Value),
}

/// What a handler reads of the error.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ErrorPart {
    Message,
    Node,
}

/// An expression for each item of a list.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub(crate) struct Mapped {
    over: Expr,
    #[serde(rename = "as")]
    name: String,
    #[serde(rename = "do")]
    each: Expr,
}

/// Counters that live as long as a case.
#[derive(Debug, Default)]
pub(crate) struct Counters(Mutex<BTreeMap<String, u64>>);

impl Counters {
    fn next(&self, name: &str) -> u64 {
        let mut counters = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let counter = counters.entry(name.to_owned()).or_default();
        *counter += 1;
        *counter
    }
}

/// The error that a handler handles.
#[derive(Clone, Debug)]
pub(crate) struct Handled {
    pub(crate) node: String,
    pub(crate) message: String,
}

/// What an expression can see.
#[derive(Debug)]
pub(crate) struct Env {
    pub(crate) input: Value,
    pub(crate) vars: Map<String, Value>,
    attempt: u64,
    handled: Option<Handled>,
    counters: Arc<Counters>,
}

impl Env {
    /// A node's, at its beginning.
    pub(crate) fn new(input: Value, attempt: u64, counters: Arc<Counters>) -> Self {
        Self {
            input,
            vars: Map::new(),
            attempt,
            handled: None,
            counters,
        }
    }

    /// An error handler's.
    pub(crate) fn handling(mut self, error: Handled) -> Self {
        self.handled = Some(error);
        self
    }

    /// The value of an expression.
    ///
    /// # Errors
    /// If an operator cannot take what it is given.
    pub(crate) fn eval(&mut self, expr: &Expr) -> Result<Value, String> {
        Ok(match expr {
            Expr::Literal(value) => value.clone(),
            Expr::List(items) => Value::Array(self.each(items)?),
            Expr::Get(place) => walk(&self.input, place),
            Expr::Var(Place::Path(path)) => match path.split_first() {
                Some((name, rest)) => follow(self.var(name), rest),
                None => Value::Null,
            },
            Expr::Var(Place::Key(name)) => self.var(name).clone(),
            Expr::Input => self.input.clone(),
            Expr::Attempt => json!(self.attempt),
            Expr::Error(part) => {
                let error = self.handled.as_ref().ok_or("no error is handled here")?;
                json!(match part {
                    ErrorPart::Message => &error.message,
                    ErrorPart::Node => &error.node,
                })
            }
            Expr::Count(name) => json!(self.counters.next(name)),
            Expr::Object(entries) => {
                let mut object = Map::new();
                for (key, value) in &entries.0 {
                    object.insert(key.clone(), self.eval(value)?);
                }
                Value::Object(object)
            }
            Expr::Add(items) => {
                let mut sum = None;
                for item in self.each(items)? {
                    sum = Some(match sum {
                        None => item,
                        Some(sum) => plus(sum, item)?,
                    });
                }
                sum.unwrap_or(Value::Null)
            }
            Expr::Text(value) => json!(text(&self.eval(value)?)),
            Expr::Equal(sides) => {
                let (left, right) = (self.eval(&sides.0)?, self.eval(&sides.1)?);
                json!(same(&left, &right))
            }
            Expr::Less(sides) => {
                let (left, right) = (self.eval(&sides.0)?, self.eval(&sides.1)?);
                json!(number(&left)? < number(&right)?)
            }
            Expr::Not(value) => json!(!is_true(&self.eval(value)?)),
            Expr::And(items) => json!(!self.any(items, false)?),
            Expr::Or(items) => json!(self.any(items, true)?),
            Expr::If(parts) => {
                let (condition, yes, no) = &**parts;
                let taken = if is_true(&self.eval(condition)?) {
                    yes
                } else {
                    no
                };
                self.eval(taken)?
            }
            Expr::Length(value) => json!(length(&self.eval(value)?)?),
            Expr::Merge(items) => {
                let mut merged = Map::new();
                for item in self.each(items)? {
                    match item {
                        Value::Object(object) => merged.extend(object),
                        empty if !is_true(&empty) => {}
                        other => return Err(format!("`merge` cannot take {other}")),
                    }
                }
                Value::Object(merged)
            }
            Expr::Map(mapped) => self.map(mapped)?,
            Expr::Send(parts) => {
                let (node, packet) = (self.eval(&parts.0)?, self.eval(&parts.1)?);
                json!({SEND: [node, packet]})
            }
            Expr::Overwrite(value) => json!({OVERWRITE: self.eval(value)?}),
        })
    }

    /// Whether a value is one of the true or false ones; as `if` has it.
    pub(crate) fn holds(&mut self, expr: &Expr) -> Result<bool, String> {
        Ok(is_true(&self.eval(expr)?))
    }

    fn var(&self, name: &Value) -> &Value {
        let value = name.as_str().and_then(|name| self.vars.get(name));
        value.unwrap_or(&Value::Null)
    }

    fn each(&mut self, items: &[Expr]) -> Result<Vec<Value>, String> {
        items.iter().map(|item| self.eval(item)).collect()
    }

    /// Whether one of the items is (not) true; those after it are not evaluated.
    fn any(&mut self, items: &[Expr], wanted: bool) -> Result<bool, String> {
        for item in items {
            if self.holds(item)? == wanted {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn map(&mut self, mapped: &Mapped) -> Result<Value, String> {
        let items = match self.eval(&mapped.over)? {
            Value::Array(items) => items,
            empty if !is_true(&empty) => Vec::new(),
            other => return Err(format!("`map` cannot go over {other}")),
        };
        let mut results = Vec::with_capacity(items.len());
        for item in items {
            self.vars.insert(mapped.name.clone(), item);
            results.push(self.eval(&mapped.each)?);
        }
        Ok(Value::Array(results))
    }
}

fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

fn number(value: &Value) -> Result<f64, String> {
    match value {
        Value::Null => Ok(0.0),
        Value::Bool(flag) => Ok(f64::from(u8::from(*flag))),
        Value::Number(number) => number
            .as_f64()
            .ok_or_else(|| format!("{number} is too large")),
        other => Err(format!("{other} is no number")),
    }
}

/// The whole number that something stands for in a sum.
fn whole(value: &Value) -> Option<i64> {
    match value {
        Value::Null => Some(0),
        Value::Bool(flag) => Some(i64::from(*flag)),
        other => other.as_i64(),
    }
}

fn plus(left: Value, right: Value) -> Result<Value, String> {
    let listed = |value| match value {
        Value::Array(items) => items,
        Value::Null => Vec::new(),
        item => vec![item],
    };
    if left.is_array() || right.is_array() {
        let mut items = listed(left);
        items.extend(listed(right));
        return Ok(Value::Array(items));
    }
    if left.is_string() || right.is_string() {
        return Ok(json!(text(&left) + &text(&right)));
    }
    match (whole(&left), whole(&right)) {
        (Some(left), Some(right)) => match left.checked_add(right) {
            Some(sum) => Ok(json!(sum)),
            None => Err(format!("{left} + {right} has more than 64 bits")),
        },
        _ => Ok(json!(number(&left)? + number(&right)?)),
    }
}

/// Equal as JSON: `true` is not `1`, but `1.0` is.
fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            let equal = |(key, a): (&String, &Value)| b.get(key).is_some_and(|b| same(a, b));
            a.len() == b.len() && a.iter().all(equal)
        }
        _ => left == right,
    }
}

fn length(value: &Value) -> Result<usize, String> {
    match value {
        Value::Null => Ok(0),
        Value::String(text) => Ok(text.chars().count()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(object) => Ok(object.len()),
        other => Err(format!("{other} has no length")),
    }
}

/// A text as it is, anything else as compact JSON with sorted keys.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => canonical(other),
    }
}

/// Compact JSON with sorted keys, whatever order an object keeps.
pub(crate) fn canonical(value: &Value) -> String {
    match value {
        Value::Array(items) => {
            let items: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", items.join(","))
        }
        Value::Object(object) => {
            let sorted: BTreeMap<&String, &Value> = object.iter().collect();
            let entries: Vec<String> = sorted
                .into_iter()
                .map(|(key, value)| format!("{}:{}", json!(key), canonical(value)))
                .collect();
            format!("{{{}}}", entries.join(","))
        }
        scalar => scalar.to_string(),
    }
}

fn walk(value: &Value, place: &Place) -> Value {
    match place {
        Place::Key(key) => follow(value, std::slice::from_ref(key)),
        Place::Path(path) => follow(value, path),
    }
}

fn follow(value: &Value, path: &[Value]) -> Value {
    let mut value = value;
    for step in path {
        let next = match (value, step) {
            (Value::Object(object), Value::String(key)) => object.get(key),
            (Value::Array(items), Value::Number(at)) => {
                at.as_i64().and_then(|at| item_at(items, at))
            }
            _ => None,
        };
        match next {
            Some(next) => value = next,
            None => return Value::Null,
        }
    }
    value.clone()
}

/// An item by its index; a negative one counts from the end.
pub(crate) fn item_at<T>(items: &[T], at: i64) -> Option<&T> {
    let index = if at < 0 {
        items
            .len()
            .checked_sub(usize::try_from(at.unsigned_abs()).ok()?)?
    } else {
        usize::try_from(at).ok()?
    };
    items.get(index)
}

impl<'de> Deserialize<'de> for Expr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Reader)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Expr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an expression")
    }

    fn visit_unit<E>(self) -> Result<Expr, E> {
        Ok(Expr::Literal(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Expr, E> {
        Ok(Expr::Literal(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Expr, E> {
        Ok(Expr::Literal(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Expr, E> {
        Ok(Expr::Literal(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Expr, E> {
        Ok(Expr::Literal(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Expr, E> {
        Ok(Expr::Literal(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Expr, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Expr::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Expr, A::Error> {
        let Some(operator) = map.next_key::<String>()? else {
            return Err(A::Error::custom("an expression `{}` has no operator"));
        };
        let expr = match operator.as_str() {
            "lit" => Expr::Literal(map.next_value()?),
            "get" => Expr::Get(map.next_value()?),
            "var" => Expr::Var(map.next_value()?),
            "input" => {
                let _: bool = map.next_value()?;
                Expr::Input
            }
            "attempt" => {
                let _: bool = map.next_value()?;
                Expr::Attempt
            }
            "error" => Expr::Error(map.next_value()?),
            "count" => Expr::Count(map.next_value()?),
            "obj" => Expr::Object(map.next_value()?),
            "add" => Expr::Add(map.next_value()?),
            "str" => Expr::Text(map.next_value()?),
            "eq" => Expr::Equal(map.next_value()?),
            "lt" => Expr::Less(map.next_value()?),
            "not" => Expr::Not(map.next_value()?),
            "and" => Expr::And(map.next_value()?),
            "or" => Expr::Or(map.next_value()?),
            "if" => Expr::If(map.next_value()?),
            "len" => Expr::Length(map.next_value()?),
            "merge" => Expr::Merge(map.next_value()?),
            "map" => Expr::Map(map.next_value()?),
            "send" => Expr::Send(map.next_value()?),
            "overwrite" => Expr::Overwrite(map.next_value()?),
            other => {
                let message = format!("unknown expression operator `{other}`");
                return Err(A::Error::custom(message));
            }
        };
        match map.next_key::<String>()? {
            None => Ok(expr),
            Some(other) => Err(A::Error::custom(format!(
                "`{operator}` and `{other}` in one expression"
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
