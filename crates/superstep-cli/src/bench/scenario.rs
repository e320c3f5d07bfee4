//! What runs: three graphs, their inputs, and the values that each run must end with.
//!
//! Everything is computed from the run's number, so that a run that was mixed up with another, or
//! whose nodes' writes entered twice or not at all, ends with other values. Who runs them, and how
//! often, is left to `drive`.
//!
//! The rule it keeps: nodes do next to nothing, so that what is measured is superstep.

use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use superstep::{Channel, Context, END, Graph, NodeError, Reducer, RunnableGraph, START, Send};

/// How many supersteps a chain has.
pub(crate) const CHAIN: u64 = 10;

/// What each run does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Scenario {
    /// Ten nodes, one behind the other, each with a payload
    Chain,
    /// One node sends packets to many tasks; a third one adds up what they found
    FanOut,
    /// Three nodes of which the second asks; the answer comes at once
    Interrupt,
}

/// How large a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Size {
    /// The bytes that each node of a chain writes, and that an interrupt's thread carries.
    pub(crate) payload_bytes: usize,
    /// The tasks of a fan-out.
    pub(crate) width: u32,
}

impl Scenario {
    /// All of them.
    pub(crate) const ALL: [Self; 3] = [Self::Chain, Self::FanOut, Self::Interrupt];

    /// The name, which is the graph's too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Chain => "chain",
            Self::FanOut => "fan-out",
            Self::Interrupt => "interrupt",
        }
    }

    /// The supersteps of one run from its start to its end, answers included.
    pub(crate) fn supersteps(self) -> u64 {
        match self {
            Self::Chain => CHAIN,
            Self::FanOut | Self::Interrupt => 3,
        }
    }

    /// The graph.
    pub(crate) fn graph(self) -> RunnableGraph {
        match self {
            Self::Chain => chain(),
            Self::FanOut => fan_out(),
            Self::Interrupt => interrupt(),
        }
    }

    /// What run `number` begins with.
    pub(crate) fn input(self, number: u64, size: Size) -> Value {
        match self {
            Self::Chain | Self::Interrupt => {
                json!({"number": number, "bytes": size.payload_bytes})
            }
            Self::FanOut => json!({"number": number, "width": size.width}),
        }
    }

    /// What run `number` is answered.
    pub(crate) fn answer(number: u64) -> Value {
        json!({"token": number.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_string()})
    }

    /// Whether run `number` ended with what it must.
    ///
    /// # Errors
    /// The key that is wrong, with what it is and what it must be.
    pub(crate) fn check(self, number: u64, size: Size, values: &Value) -> Result<(), String> {
        let must = self.expected(number, size);
        for (key, must) in &must {
            let is = &values[key];
            if is != must {
                return Err(format!("{key} is {}, not {}", short(is), short(must)));
            }
        }
        Ok(())
    }

    fn expected(self, number: u64, size: Size) -> Map<String, Value> {
        let values = match self {
            Self::Chain => json!({
                "steps": (1..=CHAIN).collect::<Vec<_>>(),
                "sum": (1..=CHAIN).map(|step| step * number).sum::<u64>(),
                "payload": payload(number, CHAIN, size.payload_bytes),
            }),
            Self::FanOut => {
                let results: Vec<u64> = (0..u64::from(size.width)).map(|n| n * number).collect();
                json!({"sum": results.iter().sum::<u64>(), "results": results})
            }
            Self::Interrupt => json!({
                "steps": ["before", "ask", "after"],
                "answer": Self::answer(number),
                "payload": payload(number, 0, size.payload_bytes),
            }),
        };
        match values {
            Value::Object(values) => values,
            _ => Map::new(),
        }
    }
}

/// When the node of an interrupt went on with its answer, in microseconds, by its worker's clock.
pub(crate) fn resumed_us(values: &Value) -> Option<u64> {
    values["resumed_us"].as_u64()
}

/// Now, in microseconds.
pub(crate) fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

/// A text of so many bytes that no other step of any run has.
pub(crate) fn payload(number: u64, step: u64, bytes: usize) -> String {
    let mut text = format!("{number}.{step}.").repeat(bytes / 4 + 1);
    text.truncate(bytes);
    text
}

fn short(value: &Value) -> String {
    crate::output::short_json(value, 60)
}

fn number_of(state: &Value, key: &str) -> u64 {
    state[key].as_u64().unwrap_or_default()
}

fn bytes_of(state: &Value) -> usize {
    usize::try_from(number_of(state, "bytes")).unwrap_or_default()
}

fn chain() -> RunnableGraph {
    let mut graph = Graph::dynamic(Scenario::Chain.name())
        .description("ten nodes, one behind the other")
        .channel("number", Channel::Last)
        .channel("bytes", Channel::Last)
        .channel("steps", Channel::Reduce(Reducer::Append))
        .channel("sum", Channel::Last)
        .channel("payload", Channel::Last);
    let name = |step: u64| format!("step_{step}");
    for step in 1..=CHAIN {
        graph = graph.node(name(step), move |state: Value, _: Context| async move {
            let number = number_of(&state, "number");
            Ok::<_, NodeError>(json!({
                "steps": [step],
                "sum": number_of(&state, "sum") + step * number,
                "payload": payload(number, step, bytes_of(&state)),
            }))
        });
    }
    graph = graph.edge(START, name(1));
    for step in 1..CHAIN {
        graph = graph.edge(name(step), name(step + 1));
    }
    graph
        .edge(name(CHAIN), END)
        .build()
        .expect("the graph is right as written")
        .into()
}

fn fan_out() -> RunnableGraph {
    let spread = |state: &Value| {
        let number = number_of(state, "number");
        (0..number_of(state, "width"))
            .map(|item| Send::to("item", json!({"item": item, "number": number})))
            .collect::<Vec<Send>>()
    };
    Graph::dynamic(Scenario::FanOut.name())
        .description("packets for many tasks, and what they found added up")
        .channel("number", Channel::Last)
        .channel("width", Channel::Last)
        .channel("results", Channel::Reduce(Reducer::Append))
        .channel("sum", Channel::Last)
        .node("plan", |_: Value, _: Context| async { Ok(Value::Null) })
        .node_with_input("item", |packet: Value, _: Context| async move {
            let result = number_of(&packet, "item") * number_of(&packet, "number");
            Ok::<_, NodeError>(json!({"results": [result]}))
        })
        .node("add_up", |state: Value, _: Context| async move {
            let results = state["results"].as_array();
            let sum: u64 = results
                .into_iter()
                .flatten()
                .filter_map(Value::as_u64)
                .sum();
            Ok::<_, NodeError>(json!({"sum": sum}))
        })
        .edge(START, "plan")
        .branch("plan", spread)
        .edge("item", "add_up")
        .edge("add_up", END)
        .build()
        .expect("the graph is right as written")
        .into()
}

fn interrupt() -> RunnableGraph {
    Graph::dynamic(Scenario::Interrupt.name())
        .description("asks in the middle")
        .channel("number", Channel::Last)
        .channel("bytes", Channel::Last)
        .channel("steps", Channel::Reduce(Reducer::Append))
        .channel("payload", Channel::Last)
        .channel("answer", Channel::Last)
        .channel("resumed_us", Channel::Last)
        .node("before", |state: Value, _: Context| async move {
            let payload = payload(number_of(&state, "number"), 0, bytes_of(&state));
            Ok::<_, NodeError>(json!({"steps": ["before"], "payload": payload}))
        })
        .node("ask", |state: Value, ctx: Context| async move {
            let answer: Value = ctx.interrupt(json!({"number": state["number"]})).await?;
            let resumed_us = unix_us();
            Ok::<_, NodeError>(
                json!({"steps": ["ask"], "answer": answer, "resumed_us": resumed_us}),
            )
        })
        .node("after", |_: Value, _: Context| async {
            Ok::<_, NodeError>(json!({"steps": ["after"]}))
        })
        .edge(START, "before")
        .edge("before", "ask")
        .edge("ask", "after")
        .edge("after", END)
        .build()
        .expect("the graph is right as written")
        .into()
}
