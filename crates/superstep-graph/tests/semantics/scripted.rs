//! Graphs as data: the language of the recorded cases, as far as they are run here.
//!
//! A node is a list of steps over JSON expressions; see `tests-data/README.md` for both. What
//! the language can say beyond that (interrupts, subgraphs, retries, caches) is refused by
//! `unsupported`, so that a case with it is left out by name and not by accident.

use std::{cell::RefCell, collections::BTreeMap, rc::Rc, sync::Arc};

use serde_json::{Map, Value, json};
use superstep_graph::{
    Branch, ChannelKind, Command, Graph, GraphBuilder, Managed, NodeSpec, Reducer, Send, Target,
    output_from_update,
};

use crate::engine::{Failure, Returned};

/// Counters that live as long as a case.
pub(crate) type Counters = Rc<RefCell<BTreeMap<String, i64>>>;

pub(crate) fn channel_kind(name: &str) -> ChannelKind {
    match name {
        "last" => ChannelKind::Last,
        "any" => ChannelKind::Any,
        "append" => ChannelKind::Reduce(Reducer::Append),
        "add" => ChannelKind::Reduce(Reducer::Add),
        "concat" => ChannelKind::Reduce(Reducer::Concat),
        "merge" => ChannelKind::Reduce(Reducer::Merge),
        "union" => ChannelKind::Reduce(Reducer::Union),
        "max" => ChannelKind::Reduce(Reducer::Max),
        "by_id" => ChannelKind::Reduce(Reducer::ById),
        "messages" => ChannelKind::Reduce(Reducer::Messages),
        "ephemeral" => ChannelKind::Ephemeral { guard: true },
        "untracked" => ChannelKind::Untracked,
        "topic" => ChannelKind::Topic { accumulate: false },
        "topic_acc" => ChannelKind::Topic { accumulate: true },
        "remaining_steps" => ChannelKind::Managed(Managed::RemainingSteps),
        "is_last_step" => ChannelKind::Managed(Managed::IsLastStep),
        other => panic!("unknown channel kind {other}"),
    }
}

fn texts(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().map(|item| item.as_str().unwrap()).collect(),
        Value::String(text) => vec![text],
        other => panic!("not a name: {other}"),
    }
}

fn list<'v>(spec: &'v Value, key: &str) -> impl Iterator<Item = &'v Value> {
    spec[key].as_array().into_iter().flatten()
}

/// The graph of a case.
pub(crate) fn build(spec: &Value) -> Graph {
    let mut builder = GraphBuilder::new();
    for (name, kind) in spec["channels"].as_object().unwrap() {
        builder.channel(name.as_str(), channel_kind(kind.as_str().unwrap()));
    }
    if spec["input"].is_array() {
        builder.input(texts(&spec["input"]).into_iter().map(Into::into));
    }
    if spec["output"].is_array() {
        builder.output(texts(&spec["output"]).into_iter().map(Into::into));
    }
    for node in list(spec, "nodes") {
        let mut made = NodeSpec::new(node["name"].as_str().unwrap());
        made.defer = node["defer"] == true;
        if node["reads"].is_array() {
            made.reads = Some(texts(&node["reads"]).into_iter().map(Into::into).collect());
        }
        builder.node(made);
    }
    for edge in list(spec, "edges") {
        let to = edge[1].as_str().unwrap();
        match &edge[0] {
            Value::String(from) => builder.edge(from.as_str(), to),
            sources => builder.join(texts(sources), to),
        };
    }
    for branch in list(spec, "branches") {
        let path = branch["path"].clone();
        let mut made = Branch::new(move |state| {
            let env = Env::new(state, &Counters::default());
            Ok(targets(env.eval(&path)))
        });
        if let Some(map) = branch["map"].as_object() {
            made = made.with_map(map.iter().map(|(key, to)| (key, to.as_str().unwrap())));
        }
        builder.branch(branch["from"].as_str().unwrap(), made);
    }
    builder.compile().expect("the case's graph compiles")
}

/// What stands for a packet among values.
const SEND: &str = "$send";

fn targets(value: Value) -> Vec<Target> {
    match value {
        Value::Array(items) => items.into_iter().flat_map(targets).collect(),
        Value::String(name) => vec![name.as_str().into()],
        // A path that gives no node names none.
        Value::Null => vec!["".into()],
        Value::Bool(flag) => vec![if flag { "true" } else { "false" }.into()],
        packet if packet.get(SEND).is_some() => {
            let node = packet[SEND][0].as_str().unwrap();
            vec![Send::new(node, packet[SEND][1].clone()).into()]
        }
        other => panic!("no target: {other}"),
    }
}

/// The steps of every node, ready to run.
#[derive(Clone)]
pub(crate) struct Script {
    graph: Arc<Graph>,
    steps: Arc<BTreeMap<String, Value>>,
    counters: Counters,
}

impl Script {
    pub(crate) fn new(graph: Arc<Graph>, spec: &Value) -> Self {
        let steps = list(spec, "nodes")
            .map(|node| {
                (
                    node["name"].as_str().unwrap().to_owned(),
                    node["do"].clone(),
                )
            })
            .collect();
        Self {
            graph,
            steps: Arc::new(steps),
            counters: Counters::default(),
        }
    }

    /// Runs a node.
    pub(crate) fn run(&self, node: &str, input: &Value) -> Result<Returned, Failure> {
        let mut env = Env::new(input, &self.counters);
        let mut out = Out::default();
        let steps = &self.steps[node];
        if let Some(returned) = env.steps(steps, &mut out)? {
            return Ok(Returned::Update(returned));
        }
        let update = if out.update.is_empty() {
            Value::Null
        } else {
            Value::Object(out.update)
        };
        if out.goto.is_empty() && !out.parent {
            return Ok(Returned::Update(update));
        }
        let mut output = output_from_update(&self.graph, update)?;
        let writes = output.commands.remove(0).update;
        output.extra.clear();
        output.commands.push(Command {
            update: writes,
            goto: out.goto,
            parent: out.parent,
        });
        Ok(Returned::Output(output))
    }
}

#[derive(Default)]
struct Out {
    update: Map<String, Value>,
    goto: Vec<Target>,
    parent: bool,
}

struct Env<'v> {
    input: &'v Value,
    vars: BTreeMap<String, Value>,
    counters: Counters,
}

impl<'v> Env<'v> {
    fn new(input: &'v Value, counters: &Counters) -> Self {
        Self {
            input,
            vars: BTreeMap::new(),
            counters: Rc::clone(counters),
        }
    }

    /// Runs steps; what a `return` gave, if one was met.
    fn steps(&mut self, steps: &Value, out: &mut Out) -> Result<Option<Value>, Failure> {
        for step in steps.as_array().into_iter().flatten() {
            if let Some(set) = step["set"].as_object() {
                for (key, value) in set {
                    out.update.insert(key.clone(), self.eval(value));
                }
            } else if let Some(vars) = step["let"].as_object() {
                for (name, value) in vars {
                    let value = self.eval(value);
                    self.vars.insert(name.clone(), value);
                }
            } else if let Some(condition) = step.get("if") {
                let taken = if truthy(&self.eval(condition)) {
                    "then"
                } else {
                    "else"
                };
                if let Some(value) = self.steps(&step[taken], out)? {
                    return Ok(Some(value));
                }
            } else if let Some(message) = step.get("fail") {
                let class = step["class"].as_str().unwrap_or("Error");
                return Err(Failure {
                    kind: class.to_owned(),
                    message: text(&self.eval(message)),
                    node: true,
                });
            } else if let Some(to) = step.get("goto") {
                out.goto.extend(targets(self.eval(to)));
                out.parent |= step["graph"] == "parent";
            } else if let Some(value) = step.get("return") {
                return Ok(Some(self.eval(value)));
            } else {
                assert!(step.get("emit").is_some(), "unknown step {step}");
            }
        }
        Ok(None)
    }

    fn eval(&self, expression: &Value) -> Value {
        let object = match expression {
            Value::Array(items) => return items.iter().map(|item| self.eval(item)).collect(),
            Value::Object(object) => object,
            scalar => return scalar.clone(),
        };
        let (operator, operand) = object.iter().next().expect("an operator");
        assert_eq!(object.len(), 1, "bad expression {expression}");
        self.apply(operator, operand)
    }

    fn apply(&self, operator: &str, operand: &Value) -> Value {
        let each = || -> Vec<Value> {
            let operands = operand.as_array().expect("a list of operands");
            operands.iter().map(|item| self.eval(item)).collect()
        };
        match operator {
            "lit" => operand.clone(),
            "get" => walk(self.input, operand),
            "var" => walk(&json!(self.vars), operand),
            "input" => self.input.clone(),
            "attempt" => json!(1),
            "count" => {
                let name = operand.as_str().expect("a counter's name").to_owned();
                let mut counters = self.counters.borrow_mut();
                let count = counters.entry(name).or_default();
                *count += 1;
                json!(*count)
            }
            "obj" => {
                let object = operand.as_object().expect("an object");
                let evaluated = object.iter().map(|(k, v)| (k.clone(), self.eval(v)));
                Value::Object(evaluated.collect())
            }
            "add" => each().into_iter().reduce(|a, b| plus(&a, &b)).unwrap(),
            "str" => json!(text(&self.eval(operand))),
            "eq" => {
                let sides = each();
                json!(sides[0] == sides[1])
            }
            "lt" => {
                let sides = each();
                json!(number(&sides[0]) < number(&sides[1]))
            }
            "not" => json!(!truthy(&self.eval(operand))),
            "and" => json!(each().iter().all(truthy)),
            "or" => json!(each().iter().any(truthy)),
            "if" => {
                let taken = if truthy(&self.eval(&operand[0])) {
                    1
                } else {
                    2
                };
                self.eval(&operand[taken])
            }
            "len" => match self.eval(operand) {
                Value::Array(items) => json!(items.len()),
                Value::Object(object) => json!(object.len()),
                Value::String(text) => json!(text.chars().count()),
                _ => json!(0),
            },
            "merge" => {
                let objects = each().into_iter().filter_map(|v| match v {
                    Value::Object(object) => Some(object),
                    _ => None,
                });
                Value::Object(objects.flatten().collect())
            }
            "map" => {
                let name = operand["as"].as_str().expect("a variable's name");
                let over = self.eval(&operand["over"]);
                let mapped = over.as_array().into_iter().flatten().map(|item| {
                    let mut inner = Env::new(self.input, &self.counters);
                    inner.vars.clone_from(&self.vars);
                    inner.vars.insert(name.to_owned(), item.clone());
                    inner.eval(&operand["do"])
                });
                mapped.collect()
            }
            "send" => json!({SEND: [self.eval(&operand[0]), self.eval(&operand[1])]}),
            "overwrite" => json!({"__overwrite__": self.eval(operand)}),
            other => panic!("unknown operator {other}"),
        }
    }
}

fn truthy(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(flag) => *flag,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(object) => !object.is_empty(),
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(0.0)
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

fn plus(a: &Value, b: &Value) -> Value {
    let as_list = |value: &Value| match value {
        Value::Array(items) => items.clone(),
        Value::Null => Vec::new(),
        item => vec![item.clone()],
    };
    if a.is_array() || b.is_array() {
        return as_list(a).into_iter().chain(as_list(b)).collect();
    }
    if a.is_string() || b.is_string() {
        return json!(text(a) + &text(b));
    }
    match (a.as_i64(), b.as_i64()) {
        (None, _) if a.is_null() => b.clone(),
        (_, None) if b.is_null() => a.clone(),
        (Some(a), Some(b)) => json!(a + b),
        _ => json!(number(a) + number(b)),
    }
}

fn walk(value: &Value, path: &Value) -> Value {
    let steps = match path {
        Value::Array(steps) => steps.clone(),
        step => vec![step.clone()],
    };
    let mut value = value.clone();
    for step in steps {
        let next = match (&step, &value) {
            (Value::String(key), Value::Object(object)) => object.get(key),
            (Value::Number(at), Value::Array(items)) => {
                let at = at.as_i64().expect("an index");
                let from_end = usize::try_from(-at).ok().filter(|_| at < 0);
                match from_end {
                    Some(back) => items.len().checked_sub(back).and_then(|i| items.get(i)),
                    None => usize::try_from(at).ok().and_then(|i| items.get(i)),
                }
            }
            _ => None,
        };
        value = next.cloned().unwrap_or(Value::Null);
    }
    value
}
