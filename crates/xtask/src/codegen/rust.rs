//! Rust types of the contract: one module of `superstep-wire` for each `.proto` file.
//!
//! Plain serde structs: a field that may be absent is an `Option`, any JSON is a
//! `serde_json::Value`, an enum is its word. The comments of the contract become docs. What
//! every field must do with `null`, absence and other shapes is written once, by hand, in the
//! crate's `field` module; here it is only named.
//!
//! The rule it keeps: what rustfmt makes of the text is what stands in the repository.

use std::{
    fmt::Write as _,
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

use super::{
    Files,
    model::{Doc, Enum, Field, File, Message, Model, Presence, Type},
};

const FOLDER: &str = "crates/superstep-wire/src";

/// The module files, formatted.
pub(crate) fn files(model: &Model) -> anyhow::Result<Files> {
    let mut files = Files::new();
    files.insert(
        format!("{FOLDER}/generated.rs").into(),
        format(&root(model))?,
    );
    for file in &model.files {
        files.insert(
            format!("{FOLDER}/generated/{}.rs", file.stem).into(),
            format(&module(file))?,
        );
    }
    Ok(files)
}

fn root(model: &Model) -> String {
    let mut out = String::from(
        "//! The contract's messages and enums, as `proto/superstep/v1` describes them.\n\
         //!\n\
         //! Written by `cargo xtask fix`, never by hand: change the `.proto` file. A field that\n\
         //! may be absent is an `Option`; for any JSON, `Some(Value::Null)` is `null` and `None`\n\
         //! is absent. Readers pass over fields that they do not know, save for commands.\n\n",
    );
    for file in &model.files {
        let _ = writeln!(out, "mod {};", file.stem);
    }
    out.push('\n');
    for file in &model.files {
        let enums = file.enums.iter().map(|of| of.name.as_str());
        let messages = file.messages.iter().map(|of| of.name.as_str());
        let mut names: Vec<&str> = enums.chain(messages).collect();
        names.sort_unstable();
        let _ = writeln!(out, "pub use {}::{{{}}};", file.stem, names.join(", "));
    }
    out
}

fn module(file: &File) -> String {
    let mut out = String::new();
    for line in file.doc.first_paragraph() {
        let _ = writeln!(out, "//! {line}");
    }
    let _ = writeln!(
        out,
        "//!\n\
         //! Written by `cargo xtask fix` from `proto/superstep/v1/{}.proto`, never by hand. The\n\
         //! rules that all messages share stand in `common.proto`.\n",
        file.stem
    );
    imports(&mut out, file);
    for of in &file.enums {
        word(&mut out, of);
    }
    for message in &file.messages {
        structure(&mut out, message);
    }
    out
}

fn imports(out: &mut String, file: &File) {
    let fields = || file.messages.iter().flat_map(|message| &message.fields);
    if fields().any(|field| field.presence == Presence::Map) {
        out.push_str("use std::collections::BTreeMap;\n\n");
    }
    out.push_str("use serde::{Deserialize, Serialize};\n");
    if fields().any(|field| field.of == Type::Json) {
        out.push_str("use serde_json::Value;\n");
    }
    let here = |name: &str| {
        file.messages.iter().any(|message| message.name == name)
            || file.enums.iter().any(|of| of.name == name)
    };
    let mut elsewhere: Vec<&str> = fields()
        .filter_map(|field| match &field.of {
            Type::Message(name) | Type::Enum(name) if !here(name) => Some(name.as_str()),
            _ => None,
        })
        .collect();
    elsewhere.sort_unstable();
    elsewhere.dedup();
    if !elsewhere.is_empty() {
        let _ = writeln!(out, "\nuse super::{{{}}};", elsewhere.join(", "));
    }
}

fn doc(out: &mut String, doc: &Doc) {
    for line in &doc.0 {
        let _ = writeln!(out, "/// {line}");
    }
}

fn word(out: &mut String, of: &Enum) {
    let name = &of.name;
    out.push('\n');
    doc(out, &of.doc);
    out.push_str(
        "#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]\n\
         #[serde(rename_all = \"snake_case\")]\n",
    );
    let _ = writeln!(out, "pub enum {name} {{");
    for word in &of.words {
        doc(out, &word.doc);
        let _ = writeln!(out, "{},", camel(&word.name));
    }
    doc(out, &of.unknown.doc);
    out.push_str("#[serde(other)]\nUnknown,\n}\n");
    let _ = writeln!(
        out,
        "\nimpl {name} {{\n\
         /// Every word that is written, in the order of the contract.\n\
         pub const ALL: [Self; {}] = [",
        of.words.len()
    );
    for word in &of.words {
        let _ = writeln!(out, "Self::{},", camel(&word.name));
    }
    out.push_str(
        "];\n\n/// The word on the wire.\npub fn as_str(self) -> &'static str {\nmatch self {\n",
    );
    for word in &of.words {
        let _ = writeln!(out, "Self::{} => \"{}\",", camel(&word.name), word.name);
    }
    out.push_str("Self::Unknown => \"unknown\",\n}\n}\n}\n");
    let _ = writeln!(
        out,
        "\nimpl std::fmt::Display for {name} {{\n\
         fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{\n\
         f.write_str(self.as_str())\n}}\n}}"
    );
}

fn structure(out: &mut String, message: &Message) {
    let name = &message.name;
    // An enum has no value that could be meant by default, so neither has what requires one.
    let has_default = !message.fields.iter().any(is_required_word);
    out.push('\n');
    doc(out, &message.doc);
    let default = if has_default { "Default, " } else { "" };
    let _ = writeln!(
        out,
        "#[derive(Clone, Debug, {default}PartialEq, Serialize, Deserialize)]"
    );
    if message.strict {
        out.push_str("#[serde(deny_unknown_fields)]\n");
    }
    let _ = writeln!(out, "pub struct {name} {{");
    for field in &message.fields {
        doc(out, &field.doc);
        out.push_str(&attribute(field));
        let _ = writeln!(out, "pub {}: {},", field.name, type_of(field));
    }
    out.push_str("}\n");
    if !has_default {
        constructor(out, message);
    }
}

fn is_required_word(field: &Field) -> bool {
    field.presence == Presence::Required && matches!(field.of, Type::Enum(_))
}

fn is_argument(field: &Field) -> bool {
    field.presence == Presence::Required && field.of != Type::Bool
}

fn constructor(out: &mut String, message: &Message) {
    let arguments: Vec<String> = message
        .fields
        .iter()
        .filter(|field| is_argument(field))
        .map(|field| match field.of {
            Type::Text => format!("{}: impl Into<String>", field.name),
            _ => format!("{}: {}", field.name, type_of(field)),
        })
        .collect();
    let _ = writeln!(
        out,
        "\nimpl {} {{\n\
         /// A message of what is always there; everything else is absent.\n\
         pub fn new({}) -> Self {{\nSelf {{",
        message.name,
        arguments.join(", ")
    );
    for field in &message.fields {
        let name = &field.name;
        let _ = match (is_argument(field), &field.of, field.presence) {
            (true, Type::Text, _) => writeln!(out, "{name}: {name}.into(),"),
            (true, _, _) => writeln!(out, "{name},"),
            (false, Type::Bool, Presence::Required) => writeln!(out, "{name}: false,"),
            (false, _, Presence::List) => writeln!(out, "{name}: Vec::new(),"),
            (false, _, Presence::Map) => writeln!(out, "{name}: BTreeMap::new(),"),
            (false, _, _) => writeln!(out, "{name}: None,"),
        };
    }
    out.push_str("}\n}\n}\n");
}

fn attribute(field: &Field) -> String {
    let with = |read: &str, skip: &str| {
        let read = if read.is_empty() {
            String::new()
        } else {
            format!("deserialize_with = \"crate::field::{read}\", ")
        };
        format!("#[serde(default, {read}skip_serializing_if = \"{skip}\")]\n")
    };
    match (field.presence, &field.of) {
        (Presence::Required, Type::Bool) => with("null_is_default", "crate::field::is_false"),
        (Presence::Required, Type::Message(_)) => {
            "#[serde(deserialize_with = \"crate::field::object\")]\n".to_owned()
        }
        (Presence::Required, _) => String::new(),
        (Presence::Optional, Type::Json) => with("null_is_a_value", "Option::is_none"),
        (Presence::Optional, Type::Message(_)) => with("optional_object", "Option::is_none"),
        (Presence::Optional, _) => with("", "Option::is_none"),
        (Presence::List, _) => with("null_is_default", "Vec::is_empty"),
        (Presence::Map, _) => with("null_is_default", "BTreeMap::is_empty"),
    }
}

fn type_of(field: &Field) -> String {
    let item = match &field.of {
        Type::Bool => "bool",
        Type::Text => "String",
        Type::Int32 => "i32",
        Type::Uint32 => "u32",
        Type::Json => "Value",
        Type::Message(name) | Type::Enum(name) => name,
    };
    match field.presence {
        Presence::Required => item.to_owned(),
        Presence::Optional => format!("Option<{item}>"),
        Presence::List => format!("Vec<{item}>"),
        Presence::Map => format!("BTreeMap<String, {item}>"),
    }
}

fn camel(snake: &str) -> String {
    let mut out = String::new();
    for part in snake.split('_') {
        let mut chars = part.chars();
        out.extend(chars.next().map(|first| first.to_ascii_uppercase()));
        out.push_str(chars.as_str());
    }
    out
}

fn format(text: &str) -> anyhow::Result<String> {
    let mut rustfmt = Command::new("rustfmt")
        .args(["--edition", "2024", "--emit", "stdout", "--quiet"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start rustfmt; run `rustup component add rustfmt`")?;
    // rustfmt reads everything before it writes, so writing first cannot block for ever.
    rustfmt
        .stdin
        .take()
        .expect("stdin is piped")
        .write_all(text.as_bytes())?;
    let output = rustfmt.wait_with_output()?;
    ensure!(
        output.status.success(),
        "rustfmt refuses what was made:\n{text}"
    );
    String::from_utf8(output.stdout).context("rustfmt wrote something else than UTF-8")
}
