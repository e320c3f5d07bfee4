//! The model of a case: a graph, operations, and what was observed for each.
//!
//! As `tests/conformance/FORMAT.md` has it. A field that is not in the format fails the case and
//! nothing else: a case that is half understood must not pass. What the fields mean is left to
//! the modules that use them; the order of an object's keys is kept where it means something.

use std::{collections::BTreeMap, fmt, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Map, Value, value::RawValue};

use crate::script::{Expr, Step};

/// A case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    #[serde(rename = "name")]
    _name: String,
    #[serde(default, rename = "doc")]
    _doc: Option<String>,
    #[serde(default = "yes")]
    pub(crate) checkpointer: bool,
    /// Which probable bug of LangGraph it records, if one; `Found` says whether.
    #[serde(rename = "quirk")]
    _quirk: Option<String>,
    pub(crate) graph: GraphSpec,
    pub(crate) ops: Vec<Op>,
    pub(crate) expect: Vec<Value>,
}

/// A graph, or a subgraph.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct GraphSpec {
    pub(crate) channels: BTreeMap<String, String>,
    pub(crate) input: Option<Vec<String>>,
    pub(crate) output: Option<Vec<String>>,
    pub(crate) nodes: Vec<NodeSpec>,
    #[serde(default)]
    pub(crate) edges: Vec<(Names, String)>,
    #[serde(default)]
    pub(crate) branches: Vec<BranchSpec>,
    #[serde(default)]
    pub(crate) interrupt_before: Breakpoints,
    #[serde(default)]
    pub(crate) interrupt_after: Breakpoints,
}

/// One name, or several.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Names {
    One(String),
    All(Vec<String>),
}

/// Where a run stops without a question: nodes, or `*` for each.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(untagged)]
pub(crate) enum Breakpoints {
    #[default]
    None,
    Each(Star),
    Nodes(Vec<String>),
}

/// The text `*`.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
pub(crate) enum Star {
    #[serde(rename = "*")]
    Each,
}

/// A node: a list of steps, or a subgraph.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NodeSpec {
    pub(crate) name: String,
    #[serde(default, rename = "do")]
    pub(crate) steps: Vec<Step>,
    pub(crate) reads: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) defer: bool,
    pub(crate) retry: Option<Retry>,
    #[serde(default)]
    pub(crate) cache: bool,
    pub(crate) on_error: Option<Vec<Step>>,
    pub(crate) graph: Option<Box<GraphSpec>>,
    #[serde(default)]
    pub(crate) checkpointer: Keeps,
}

/// What a subgraph remembers.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Keeps {
    /// Its progress, for one call.
    #[default]
    Inherit,
    /// Its state, across calls.
    Own,
    /// Nothing.
    None,
}

/// A retry policy without pauses.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Retry {
    pub(crate) max_attempts: u32,
    /// The classes of errors that are tried again; all if there are none.
    pub(crate) on: Option<Vec<String>>,
}

/// A conditional edge.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BranchSpec {
    pub(crate) from: String,
    pub(crate) path: Expr,
    pub(crate) map: Option<BTreeMap<String, String>>,
}

/// What an operation does.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Kind {
    Invoke,
    Command,
    ResumeMap,
    Update,
    BulkUpdate,
    State,
    History,
}

/// An operation; each kind reads the fields that it has.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Op {
    #[serde(rename = "op")]
    pub(crate) kind: Kind,
    #[serde(default = "first_thread")]
    pub(crate) thread: String,
    /// A place in the history: 0 is the newest, -1 the oldest.
    pub(crate) at: Option<i64>,
    /// The pending nodes that lead to a subgraph.
    pub(crate) subgraph: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) input: Value,
    #[serde(default)]
    pub(crate) resume: Value,
    #[serde(default)]
    pub(crate) update: Value,
    #[serde(default)]
    pub(crate) goto: Value,
    #[serde(default)]
    pub(crate) answers: Vec<Selected>,
    #[serde(default)]
    pub(crate) values: Value,
    pub(crate) as_node: Option<String>,
    #[serde(default)]
    pub(crate) supersteps: Vec<Vec<OneUpdate>>,
    #[serde(default)]
    pub(crate) subgraphs: bool,
    pub(crate) limit: Option<usize>,
    pub(crate) filter: Option<Map<String, Value>>,
    pub(crate) recursion_limit: Option<u32>,
    #[serde(default)]
    pub(crate) interrupt_before: Breakpoints,
    #[serde(default)]
    pub(crate) interrupt_after: Breakpoints,
    pub(crate) durability: Option<Durability>,
    pub(crate) stream: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) stream_subgraphs: bool,
    /// How many tasks may run at once; the order they were recorded in is that of one.
    #[serde(rename = "max_concurrency")]
    _max_concurrency: Option<u32>,
}

/// When checkpoints are saved.
#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Durability {
    Sync,
    Async,
    Exit,
}

/// One update of a bulk update.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct OneUpdate {
    #[serde(default)]
    pub(crate) values: Value,
    pub(crate) as_node: Option<String>,
}

/// An answer, and which question it is for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Selected {
    at: Option<i64>,
    node: Option<String>,
    id: Option<String>,
    #[serde(default)]
    bogus: bool,
    pub(crate) value: Value,
}

/// Which question an answer is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selector<'a> {
    /// The so-many-th open one.
    At(i64),
    /// The first of the first task of this node.
    Node(&'a str),
    /// The one that was labelled so.
    Label(&'a str),
    /// One that never was.
    Bogus,
}

impl Selected {
    /// What it selects.
    pub(crate) fn selector(&self) -> Result<Selector<'_>, String> {
        match (self.at, &self.node, &self.id, self.bogus) {
            (Some(at), None, None, false) => Ok(Selector::At(at)),
            (None, Some(node), None, false) => Ok(Selector::Node(node)),
            (None, None, Some(id), false) => Ok(Selector::Label(id)),
            (None, None, None, true) => Ok(Selector::Bogus),
            _ => Err("an answer needs one of `at`, `node`, `id`, `bogus`".to_owned()),
        }
    }
}

fn yes() -> bool {
    true
}

fn first_thread() -> String {
    "1".to_owned()
}

/// An object whose order of keys means something.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Entries<T>(pub(crate) Vec<(String, T)>);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Entries<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder<T>(std::marker::PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for InOrder<T> {
            type Value = Entries<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }

        deserializer.deserialize_map(InOrder(std::marker::PhantomData))
    }
}

/// A case as it was found: one that cannot be read counts, and fails.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) name: String,
    pub(crate) quirk: bool,
    /// The operations as they are written, to be shown.
    pub(crate) ops: Vec<Value>,
    pub(crate) case: Result<Case, String>,
}

impl Found {
    /// The part of the name before the slash.
    pub(crate) fn feature(&self) -> &str {
        self.name.split('/').next().unwrap_or_default()
    }
}

/// Reads the cases of a file's text.
///
/// # Errors
/// If it is no list of objects with a name each.
pub(crate) fn read_cases(text: &str) -> Result<Vec<Found>, serde_json::Error> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
        #[serde(default)]
        quirk: Value,
        #[serde(default)]
        ops: Vec<Value>,
    }

    let raw: Vec<&RawValue> = serde_json::from_str(text)?;
    raw.into_iter()
        .map(|raw| {
            let named: Named = serde_json::from_str(raw.get())?;
            let case = serde_json::from_str::<Case>(raw.get())
                .map_err(|error| error.to_string())
                .and_then(|case| {
                    if case.ops.len() == case.expect.len() {
                        Ok(case)
                    } else {
                        Err("`ops` and `expect` are not of one length".to_owned())
                    }
                });
            Ok(Found {
                name: named.name,
                quirk: !named.quirk.is_null(),
                ops: named.ops,
                case,
            })
        })
        .collect()
}

/// Every file of cases at `path`, a file or a folder, in order of their names.
///
/// # Errors
/// If it cannot be read.
pub(crate) fn files_at(path: &Path) -> std::io::Result<Vec<std::path::PathBuf>> {
    if !std::fs::metadata(path)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut entries = std::fs::read_dir(path)?
        .map(|entry| Ok(entry?.path()))
        .collect::<std::io::Result<Vec<_>>>()?;
    entries.sort();
    let mut files = Vec::new();
    for entry in entries {
        if entry.is_dir() {
            files.extend(files_at(&entry)?);
        } else if entry.extension().is_some_and(|ending| ending == "json") {
            files.push(entry);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CASE: &str = r#"[{"name": "f/one", "graph": {"channels": {"v": "last"},
        "nodes": [{"name": "a", "do": [{"set": {"v": 1}}]}],
        "edges": [["__start__", "a"], [["a", "a"], "__end__"]], "interrupt_before": "*"},
        "ops": [{"op": "command", "resume": null}], "expect": [{}]}]"#;

    #[test]
    fn a_case_is_read_with_its_defaults() {
        let found = read_cases(CASE).unwrap().remove(0);
        assert_eq!(found.feature(), "f");
        let case = found.case.unwrap();
        assert!(case.checkpointer);
        assert_eq!(case.ops[0].thread, "1");
        assert_eq!(case.ops[0].resume, json!(null));
        assert_eq!(case.graph.interrupt_before, Breakpoints::Each(Star::Each));
        assert_eq!(case.graph.interrupt_after, Breakpoints::None);
        assert!(matches!(&case.graph.edges[1].0, Names::All(from) if from.len() == 2));
    }

    #[test]
    fn a_field_unknown_to_the_format_fails_only_its_case() {
        let odd = CASE.replace("\"resume\"", "\"assume\"");
        let found = read_cases(&odd).unwrap().remove(0);
        assert!(found.case.unwrap_err().contains("assume"));
        let odd = CASE.replace("[{}]", "[]");
        assert!(read_cases(&odd).unwrap()[0].case.is_err());
    }

    #[test]
    fn the_order_of_keys_is_kept() {
        let entries: Entries<u8> = serde_json::from_str(r#"{"b": 1, "a": 2, "c": 0}"#).unwrap();
        let keys: Vec<&str> = entries.0.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["b", "a", "c"]);
    }
}
