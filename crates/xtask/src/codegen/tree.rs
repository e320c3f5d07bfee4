//! JSON and YAML text from a tree that keeps the order of its keys.
//!
//! The schemas and the AsyncAPI document list fields in the order of the contract, which a
//! sorted map would lose. Text is always quoted, so no word is ever taken for a YAML number or
//! a YAML `no`. It leaves parsing to the tests.

use std::fmt::Write as _;

/// A value with its keys in order.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Tree {
    Map(Vec<(String, Tree)>),
    List(Vec<Tree>),
    Text(String),
    Number(i64),
    Bool(bool),
    Null,
}

impl From<&str> for Tree {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Tree {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

/// A map of these entries.
pub(crate) fn map<const N: usize>(entries: [(&str, Tree); N]) -> Tree {
    Tree::Map(
        entries
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value))
            .collect(),
    )
}

/// A reference to another part of a document.
pub(crate) fn reference(to: impl Into<String>) -> Tree {
    map([("$ref", Tree::Text(to.into()))])
}

impl Tree {
    /// The tree as indented JSON with a final line end.
    pub(crate) fn to_json(&self) -> String {
        let mut out = String::new();
        self.json(&mut out, 0);
        out.push('\n');
        out
    }

    /// The tree as YAML in block style.
    pub(crate) fn to_yaml(&self) -> String {
        let mut out = String::new();
        self.yaml(&mut out, 0);
        out
    }

    fn json(&self, out: &mut String, depth: usize) {
        let inner = "  ".repeat(depth + 1);
        let outer = "  ".repeat(depth);
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                out.push('{');
                for (index, (key, value)) in entries.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    let _ = write!(out, "{comma}\n{inner}{}: ", quoted(key));
                    value.json(out, depth + 1);
                }
                let _ = write!(out, "\n{outer}}}");
            }
            Self::List(items) if !items.is_empty() => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    let comma = if index == 0 { "" } else { "," };
                    let _ = write!(out, "{comma}\n{inner}");
                    item.json(out, depth + 1);
                }
                let _ = write!(out, "\n{outer}]");
            }
            flat => out.push_str(&flat.flat()),
        }
    }

    fn yaml(&self, out: &mut String, depth: usize) {
        let indent = "  ".repeat(depth);
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                for (key, value) in entries {
                    let _ = write!(out, "{indent}{}:", yaml_key(key));
                    value.yaml_after_colon(out, depth);
                }
            }
            Self::List(items) if !items.is_empty() => {
                for item in items {
                    let mut text = String::new();
                    item.yaml(&mut text, depth + 1);
                    // The item's first line takes the dash in place of its last two spaces.
                    let _ = write!(out, "{indent}- {}", text.trim_start());
                }
            }
            flat => {
                let _ = writeln!(out, "{indent}{}", flat.flat());
            }
        }
    }

    fn yaml_after_colon(&self, out: &mut String, depth: usize) {
        match self {
            Self::Map(entries) if !entries.is_empty() => {
                out.push('\n');
                self.yaml(out, depth + 1);
            }
            Self::List(items) if !items.is_empty() => {
                out.push('\n');
                self.yaml(out, depth + 1);
            }
            flat => {
                let _ = writeln!(out, " {}", flat.flat());
            }
        }
    }

    /// What fits on one line: the same text in JSON and YAML.
    fn flat(&self) -> String {
        match self {
            Self::Map(_) => "{}".to_owned(),
            Self::List(_) => "[]".to_owned(),
            Self::Text(text) => quoted(text),
            Self::Number(number) => number.to_string(),
            Self::Bool(value) => value.to_string(),
            Self::Null => "null".to_owned(),
        }
    }
}

/// A JSON string, which YAML reads the same between double quotes.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

fn yaml_key(key: &str) -> String {
    let plain = key
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { key.to_owned() } else { quoted(key) }
}
