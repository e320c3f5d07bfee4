//! Random walks of competing writers, with and without a store that steps back.
//!
//! Whatever happens, the log is one chain, nothing is applied twice, and someone who cares for
//! the thread afterwards brings it to an end.

use proptest::prelude::*;
use superstep_protocol::Profile;

use crate::world::{Act, Step, World};

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => Just(Act::Look),
        12 => (any::<u8>(), any::<u8>(), any::<u64>())
            .prop_map(|(pick, some, draw)| Act::Work { pick, some, draw }),
        6 => (any::<u8>(), any::<u8>()).prop_map(|(kind, pick)| Act::Command { kind, pick }),
        1 => any::<u8>().prop_map(|pick| Act::Redeliver { pick }),
        2 => Just(Act::Resend),
        2 => any::<u8>().prop_map(|pick| Act::Late { pick }),
        1 => (1_u8..6).prop_map(|records| Act::StepBack { records }),
    ]
}

pub(crate) fn steps(count: usize) -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<u8>(), act(), prop::bool::weighted(0.15))
        .prop_map(|(writer, act, lost)| Step { writer, act, lost });
    prop::collection::vec(step, 1..count)
}

/// Runs a walk, then heals; every step checks the invariants.
pub(crate) fn walk(writers: usize, profile: Profile, steps: &[Step], steps_back: bool) -> World {
    let mut world = World::new(writers, profile);
    // Threads begin with a start.
    world.step(Step {
        writer: 0,
        act: Act::Command { kind: 0, pick: 1 },
        lost: false,
    });
    for step in steps {
        if steps_back || !matches!(step.act, Act::StepBack { .. }) {
            world.step(*step);
        }
    }
    world.read_again();
    world.heal();
    world.read_again();
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn competing_writers_make_one_chain(writers in 2_usize..5, steps in steps(160)) {
        walk(writers, Profile::Default, &steps, false);
    }

    #[test]
    fn a_store_that_steps_back_leaves_one_chain(writers in 2_usize..5, steps in steps(160)) {
        walk(writers, Profile::Default, &steps, true);
    }

    #[test]
    fn the_langgraph_profile_makes_one_chain_too(writers in 2_usize..5, steps in steps(160)) {
        walk(writers, Profile::Langgraph, &steps, true);
    }
}

/// The walks must come by what they are there for; otherwise they prove nothing.
#[test]
fn walks_reach_every_kind_of_record() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let mut seen = std::collections::BTreeMap::<&str, usize>::new();
    let mut supersteps = 0;
    for _ in 0..128 {
        let steps = steps(160).new_tree(&mut runner).unwrap().current();
        let world = walk(3, Profile::Default, &steps, true);
        for record in &world.store.log {
            *seen.entry(record.body.kind()).or_default() += 1;
        }
        supersteps += world
            .store
            .log
            .iter()
            .filter(|r| r.body.kind() == "committed")
            .count();
    }
    let kinds: Vec<&str> = seen.keys().copied().collect();
    let expected = [
        "amended",
        "cancelled",
        "commanded",
        "committed",
        "deadline_passed",
        "declined",
        "deleted",
        "displaced",
        "enqueued",
        "failed",
        "interrupted",
        "move_asked",
        "move_declined",
        "moved",
        "paused",
        "resumed",
        "retried",
        "started",
        "update_asked",
        "woken",
    ];
    assert_eq!(kinds, expected, "{seen:?}");
    assert!(supersteps > 200, "{seen:?}");
}
