//! A log that was read back folds as it did when it was written, from any record on.
//!
//! The walks are those of `world_runs`. A state and the records after it go through the text that
//! a store keeps; a reader in another process has nothing else.

use proptest::prelude::*;
use superstep_protocol::{Profile, Record, ThreadId, ThreadState, fold};

use crate::world_runs::{steps, walk};

fn read_back<T: serde::Serialize + serde::de::DeserializeOwned>(value: &T) -> T {
    let text = serde_json::to_string(value).expect("it serializes");
    serde_json::from_str(&text).expect("it reads back")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_saved_state_folds_on_to_the_same(steps in steps(160), langgraph in any::<bool>()) {
        let profile = if langgraph { Profile::Langgraph } else { Profile::Default };
        let world = walk(3, profile, &steps, true);
        let thread = ThreadId::from("t");
        let mut state: Option<ThreadState> = None;
        for record in &world.store.log {
            let saved: Option<ThreadState> = read_back(&state);
            prop_assert_eq!(&saved, &state);
            let read: Record = read_back(record);
            prop_assert_eq!(&read, record);
            let again = fold(&thread, saved, &read).expect("the log folds");
            state = Some(fold(&thread, state, record).expect("the log folds"));
            prop_assert_eq!(Some(&again), state.as_ref());
        }
        prop_assert_eq!(state, world.store.state);
    }
}
