//! Graphs as nodes of graphs, as their authors write them: typed states of their own, commands
//! to the parent, and what is kept between calls.

use serde_json::{Value, json};
use superstep::{
    Channel, Checkpointer, Command, Context, Graph, NodeError, NodeSpec, Reducer, START, State,
    ToParent,
};

use crate::app;

#[derive(Clone, Debug, Default, PartialEq, State)]
struct Order {
    item: String,
    price: u64,
    #[state(reducer = append)]
    log: Vec<String>,
}

/// What the pricing of an item needs to know, which is not all of an order.
#[derive(Clone, Debug, Default, State)]
struct Pricing {
    item: String,
    price: u64,
    offers: Vec<u64>,
}

async fn ask(pricing: Pricing, ctx: Context) -> Result<PricingUpdate, NodeError> {
    let offer: u64 = ctx.interrupt(json!({"offer for": pricing.item})).await?;
    Ok(Pricing::update().offers(vec![offer]))
}

async fn choose(pricing: Pricing) -> Result<ToParent<Order, OrderUpdate>, NodeError> {
    let price = pricing.offers.iter().copied().min().unwrap_or(0);
    let command = Command::new().update(Order::update().price(price));
    Ok(if price > 100 {
        command.goto("complain").to_parent()
    } else {
        command.to_parent()
    })
}

async fn note(order: Order) -> Result<OrderUpdate, NodeError> {
    Ok(Order::update().push_log(format!("{} for {}", order.item, order.price)))
}

async fn complain(_: Order) -> Result<OrderUpdate, NodeError> {
    Ok(Order::update().push_log("too much".to_owned()))
}

fn ordering() -> Graph<Order> {
    let pricing = Graph::<Pricing>::builder("pricing")
        .node("ask", ask)
        .node("choose", choose)
        .edge(START, "ask")
        .edge("ask", "choose")
        .build()
        .unwrap();
    Graph::<Order>::builder("order")
        .subgraph("pricing", pricing)
        .node("note", note)
        .node("complain", complain)
        .edge(START, "pricing")
        .edge("pricing", "note")
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_typed_subgraph_asks_and_commands_its_parent() {
    let app = app(ordering()).await;
    for (offer, expected) in [
        (20_u64, vec!["a hat for 20"]),
        (200, vec!["too much", "a hat for 200"]),
    ] {
        let thread = app.thread(format!("offer of {offer}"));
        let asked = thread.invoke(Order::update().item("a hat")).await.unwrap();
        assert_eq!(asked.interrupts[0].value, json!({"offer for": "a hat"}));
        let done = thread.resume(offer).await.unwrap();
        let order = done.state::<Order>().unwrap();
        assert_eq!(
            (order.price, order.log),
            (offer, expected.iter().map(ToString::to_string).collect())
        );
    }
}

#[tokio::test]
async fn what_waits_inside_can_be_seen_and_updated() {
    let app = app(ordering()).await;
    let thread = app.thread("1");
    let _ = thread.invoke(Order::update().item("a hat")).await.unwrap();
    let seen = thread.state_with_subgraphs().await.unwrap().unwrap();
    let inside = seen.tasks[0].state.as_ref().unwrap();
    assert_eq!(inside.values["item"], "a hat");
    assert_eq!(inside.interrupts, seen.interrupts);

    let pricing = thread.subgraph(["pricing"]);
    let patched = Pricing::update().offers(vec![7_u64, 5]);
    let after = pricing.update_state(patched, Some("ask")).await.unwrap();
    assert_eq!(after.next, ["choose"]);
    assert_eq!(pricing.history(10).await.unwrap().len(), 3);
    let done = thread.invoke(Value::Null).await.unwrap();
    assert_eq!(done.state::<Order>().unwrap().price, 5);

    let error = pricing.state().await.unwrap_err();
    assert_eq!(error.refusal().unwrap().kind(), "invalid_input");
}

#[tokio::test]
async fn a_subgraph_with_a_state_of_its_own_counts_its_calls() {
    let count = Graph::dynamic("count")
        .channel("calls", Channel::Reduce(Reducer::Add))
        .channel("said", Channel::Last)
        .node("count", |state: Value, _: Context| async move {
            let calls = state["calls"].as_u64().unwrap_or(0) + 1;
            Ok(json!({"calls": 1, "said": format!("call {calls}")}))
        })
        .edge(START, "count")
        .input(["said"])
        .output(["said"])
        .build()
        .unwrap();
    let graph = Graph::dynamic("main")
        .channel("said", Channel::Last)
        .subgraph_with(NodeSpec::new("count"), count, Checkpointer::Own)
        .edge(START, "count")
        .build()
        .unwrap();
    let app = app(graph).await;
    for expected in ["call 1", "call 2"] {
        let done = app.thread("1").invoke(json!({"said": ""})).await.unwrap();
        assert_eq!(done.values["said"], expected);
    }
    let other = app.thread("2").invoke(json!({"said": ""})).await.unwrap();
    assert_eq!(other.values["said"], "call 1");
}
