//! One graph of everything: a chain, a fan-out, a node that fails at first, a question, a sleep.
//!
//! Each node notes its effect on the world outside with its idempotency key, once per run of the
//! node: `effect <thread> <node> <key> <worker>`. A service that keeps keys applies each once. What
//! the input asks for is `items` (packets of the fan-out), `fails` (attempts of the flaky node that
//! fail), `asks` (whether a person is asked), `nap_ms`, and `slow_ms` (how long `second` works).
//!
//! The rule it keeps: values come from the input and the answer alone, so two runs with the same
//! input end alike whatever happened to their workers.

use std::time::Duration;

use serde_json::{Value, json};
use superstep::{
    Channel, Context, END, Graph, NodeError, Reducer, RetryPolicy, RunnableGraph, START, Send,
};

use crate::graphs::Place;

/// The channels that an input fills.
const GIVEN: [&str; 5] = ["items", "fails", "asks", "nap_ms", "slow_ms"];

pub(crate) fn mixed(place: &Place) -> RunnableGraph {
    let plain = |name: &'static str| {
        let place = place.clone();
        move |state: Value, ctx: Context| {
            let place = place.clone();
            async move {
                if name == "second" {
                    let slow = state["slow_ms"].as_u64().unwrap_or_default();
                    tokio::time::sleep(Duration::from_millis(slow)).await;
                }
                place.effect(name, &ctx)?;
                Ok(json!({"trail": [name]}))
            }
        }
    };
    let item = {
        let place = place.clone();
        move |packet: Value, ctx: Context| {
            let place = place.clone();
            async move {
                place.effect("item", &ctx)?;
                let number = packet["number"].as_u64().unwrap_or_default();
                Ok(json!({"squares": [number * number]}))
            }
        }
    };
    let flaky = {
        let place = place.clone();
        move |state: Value, ctx: Context| {
            let place = place.clone();
            async move {
                // A worker that died here has used up an attempt, so there may be fewer failures.
                if ctx.attempt() <= state["fails"].as_u64().unwrap_or_default() {
                    return Err(NodeError::new("Flaky", "not yet"));
                }
                place.effect("flaky", &ctx)?;
                Ok(json!({"trail": ["flaky"]}))
            }
        }
    };
    let ask = {
        let place = place.clone();
        move |_: Value, ctx: Context| {
            let place = place.clone();
            async move {
                let answer: Value = ctx.interrupt(json!({"question": "go on?"})).await?;
                place.effect("ask", &ctx)?;
                Ok(json!({"trail": ["ask"], "answer": answer}))
            }
        }
    };
    let nap = {
        let place = place.clone();
        move |state: Value, ctx: Context| {
            let place = place.clone();
            async move {
                let nap = state["nap_ms"].as_u64().unwrap_or_default();
                ctx.sleep(Duration::from_millis(nap)).await;
                place.effect("nap", &ctx)?;
                Ok(json!({"trail": ["nap"]}))
            }
        }
    };
    let mut graph = Graph::dynamic("mixed");
    for channel in GIVEN {
        graph = graph.channel(channel, Channel::Last);
    }
    graph
        .channel("answer", Channel::Last)
        .channel("trail", Channel::Reduce(Reducer::Append))
        .channel("squares", Channel::Reduce(Reducer::Append))
        .node("first", plain("first"))
        .node("second", plain("second"))
        .node_with_input("item", item)
        .node("gather", plain("gather"))
        .node("flaky", flaky)
        .node("ask", ask)
        .node("nap", nap)
        .node("last", plain("last"))
        .retry(
            "flaky",
            RetryPolicy::new(20).initial_interval(Duration::from_millis(20)),
        )
        .edge(START, "first")
        .edge("first", "second")
        .branch("second", |state: &Value| {
            let items = state["items"].as_u64().unwrap_or_default();
            let packet = |number| Send::to("item", json!({"number": number}));
            (0..items).map(packet).collect::<Vec<Send>>()
        })
        .edge("item", "gather")
        .edge("gather", "flaky")
        .branch(
            "flaky",
            |state: &Value| {
                if state["asks"] == true { "ask" } else { "nap" }
            },
        )
        .edge("ask", "nap")
        .edge("nap", "last")
        .edge("last", END)
        .build()
        .expect("the graph is right as written")
        .into()
}
