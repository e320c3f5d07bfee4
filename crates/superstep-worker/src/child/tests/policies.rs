//! Policies of a node that is a graph: what finished inside does not run again when it is retried,
//! and its error handler has questions of its own.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use serde_json::{Value, json};
use superstep_protocol::Profile;

use super::made::{Made, Ran, World, asked};
use crate::{Node, NodeContext, NodeError, NodeReturn, Policies, RetryPolicy};

/// `before`, `ask`, and `fails`, which fails so many times, as node `sub` with these policies.
fn failing(ran: &Ran, times: usize, policies: Policies) -> World {
    let tries = Arc::new(AtomicUsize::new(0));
    let inner = Made::new(ran)
        .plain("before")
        .asking("ask")
        .node("fails", move |_, ctx| {
            assert_eq!(ctx.attempt(), 1);
            let fails = tries.fetch_add(1, Ordering::Relaxed) < times;
            async move {
                if fails {
                    return Err(NodeError::new("Told", "it was told to fail"));
                }
                Ok(json!({"in": 2}))
            }
        })
        .chain(&["before", "ask", "fails"])
        .inner("inner");
    let graph = Made::new(ran)
        .sub("sub", inner)
        .chain(&["sub"])
        .make("main")
        .with_policies(BTreeMap::from([("sub".into(), policies)]));
    World::new(ran, Profile::Default, graph)
}

#[tokio::test]
async fn a_retried_subgraph_goes_on_inside() {
    let ran = Ran::default();
    let policies = Policies {
        retry: Some(RetryPolicy::new(3).without_pauses()),
        ..Policies::default()
    };
    let world = failing(&ran, 3, policies);
    let _ = world.invoke(json!({"in": 1})).await;
    assert_eq!(world.ran(), ["sub.before", "sub.ask"]);
    let failed = world.resume("yes").await;
    assert_eq!(failed.error.unwrap().kind, "Told");
    assert_eq!(
        world.ran(),
        ["sub.ask", "sub.fails", "sub.fails", "sub.fails"]
    );
    // What all of the attempts did is kept.
    let done = world.retry().await;
    assert_eq!(world.ran(), ["sub.fails"]);
    assert_eq!(done.values["out"], "yes");
}

#[tokio::test]
async fn an_error_handler_asks_beside_the_subgraph() {
    let ran = Ran::default();
    let handler = |_: Value, ctx: NodeContext| async move {
        let answer: Value = ctx.interrupt("what now?").await?;
        Ok(NodeReturn::Update(json!({"out": answer})))
    };
    let handler: Arc<dyn Node> = Arc::new(handler);
    let policies = Policies {
        on_error: Some(handler),
        ..Policies::default()
    };
    let world = failing(&ran, 9, policies);
    let _ = world.invoke(json!({"in": 1})).await;
    let stopped = world.resume("yes").await;
    assert_eq!(asked(&stopped), [&json!("what now?")]);
    let done = world.resume("leave it").await;
    assert_eq!(done.values["out"], "leave it");
}
