//! What clocks that are apart must not change: how long a node sleeps, and how often.
//!
//! Only the store's clock counts for what is stored. A worker that goes by its own for a moment is
//! not noticed while both show the same, so here they do not.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use superstep_worker::{NodeContext, NodeError, Policies, RetryPolicy, RunnableGraph};

use crate::{
    graphs::{Stage, alone, entry},
    rig::{Rig, Setup, block_on, is_done},
};

/// A node that sleeps for a moment, fails at first, and is tried again after half a minute.
fn nap(stage: &Stage) -> Vec<RunnableGraph> {
    let stage = stage.clone();
    let node = move |_: Value, ctx: NodeContext| {
        let stage = stage.clone();
        async move {
            ctx.sleep(Duration::from_millis(100)).await;
            if stage.count("nap") == 1 {
                return Err(NodeError::new("Broke", "broke"));
            }
            Ok(entry(&ctx, &[]))
        }
    };
    let retry = RetryPolicy::new(2)
        .without_jitter()
        .initial_interval(Duration::from_secs(30));
    let policy = Policies {
        retry: Some(retry),
        ..Policies::default()
    };
    vec![alone("nap", node).with_policies(BTreeMap::from([("n".into(), policy)]))]
}

#[test]
fn a_sleep_that_is_over_is_not_slept_again() {
    block_on(async {
        let rig = Rig::start(Setup {
            graphs: Vec::new(),
            own: nap,
            ..Setup::default()
        });
        rig.faults.world.skew_store(-600_000);
        rig.begin("nap", "t", json!({"count": 1})).await;
        rig.until("t", "done", is_done).await;
        rig.rest().await;
        let took = rig.faults.world.elapsed();
        assert!(took < Duration::from_secs(60), "{took:?}");
    });
}
