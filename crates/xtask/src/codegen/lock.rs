//! The lock: every field and word that was ever promised, one a line, in `proto/lock.txt`.
//!
//! A line may be added, never changed or taken away: other people's programs and stored
//! messages rely on it. To break the contract on purpose one has to edit the lock by hand,
//! which is the point. Only a command's field may cease to be required: superstep alone reads
//! commands, and what was sent before is still read.

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::bail;

use super::model::{Model, Presence, Type};

/// Where the lock is.
pub(crate) const PATH: &str = "proto/lock.txt";

const HEADER: &str = "\
# Every field and word of the contract: <message>.<field> = <number> <type>.
# Written by `cargo xtask fix`. Lines are added, never changed or removed; a command's field may
# become optional.
";

/// The lock of `model`, if it keeps every promise of the lock before.
pub(crate) fn advance(before: &str, model: &Model) -> anyhow::Result<String> {
    let promised = parse(before);
    let now = lines(model);
    let broken: Vec<String> = promised
        .iter()
        .filter(|(name, promise)| {
            let kept = now.get(**name);
            kept.is_none_or(|now| now != **promise && !is_loosened(name, promise, now))
        })
        .map(|(name, promise)| match now.get(*name) {
            Some(changed) => format!("{name} was {promise} and is now {changed}"),
            None => format!("{name} = {promise} is gone"),
        })
        .collect();
    if !broken.is_empty() {
        bail!(
            "proto/ breaks what {PATH} promises: {}; put it back and add a new field or word instead",
            broken.join("; ")
        );
    }
    let mut text = String::from(HEADER);
    for (name, promise) in &now {
        let _ = writeln!(text, "{name} = {promise}");
    }
    Ok(text)
}

/// Whether a field of a command was required and no longer is, and nothing else changed.
fn is_loosened(name: &str, promise: &str, now: &str) -> bool {
    let of_command = name
        .split_once('.')
        .is_some_and(|(message, _)| message.ends_with("Command"));
    let optional = promise
        .split_once(' ')
        .map(|(number, of)| format!("{number} optional {of}"));
    of_command && optional.as_deref() == Some(now)
}

fn parse(text: &str) -> BTreeMap<&str, &str> {
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(" = "))
        .collect()
}

fn lines(model: &Model) -> BTreeMap<String, String> {
    let mut lines = BTreeMap::new();
    for message in model.messages() {
        for field in &message.fields {
            let mark = match field.presence {
                Presence::Required => "",
                Presence::Optional => "optional ",
                Presence::List => "repeated ",
                Presence::Map => "map of ",
            };
            let of = match &field.of {
                Type::Bool => "bool",
                Type::Text => "string",
                Type::Int32 => "int32",
                Type::Uint32 => "uint32",
                Type::Json => "json",
                Type::Message(name) | Type::Enum(name) => name,
            };
            lines.insert(
                format!("{}.{}", message.name, field.name),
                format!("{} {mark}{of}", field.number),
            );
        }
    }
    for of in model.enums() {
        for word in std::iter::once(&of.unknown).chain(&of.words) {
            lines.insert(
                format!("{}.{}", of.name, word.name),
                format!("{} word", word.number),
            );
        }
    }
    lines
}
