//! The simulator bites: each deliberate mistake is caught within a bounded number of seeds.
//!
//! The mistakes are those that a worker's surroundings can make for it (`Mutant`). A mistake that
//! is never caught would mean that the seeds never come where its rule matters. How soon each is
//! caught is printed; the bound leaves room above that.

use superstep_sim::{Mutant, sweep};

/// Within how many seeds a mistake must be found.
const SEEDS: u64 = 160;

#[track_caller]
#[expect(clippy::print_stdout, reason = "says how soon a mistake was caught")]
fn check(mutant: Mutant) {
    let failure = sweep(0..SEEDS, Some(mutant));
    let failure = failure.unwrap_or_else(|| panic!("{mutant:?} survives {SEEDS} seeds"));
    let first = failure.problem.lines().next().unwrap_or_default();
    println!("{mutant:?}: seed {}, {first}", failure.seed);
}

#[test]
fn an_ack_before_the_append_is_caught() {
    check(Mutant::AckBeforeAppend);
}

#[test]
fn an_append_without_its_compare_is_caught() {
    check(Mutant::AppendWithoutCompare);
}

#[test]
fn effects_of_the_head_only_are_caught() {
    check(Mutant::EffectsOfTheHeadOnly);
}

#[test]
fn a_watch_left_before_events_is_caught() {
    check(Mutant::UnwatchedBeforeTold);
}

#[test]
fn an_event_id_without_nonce_is_caught() {
    check(Mutant::EventIdWithoutNonce);
}

#[test]
fn commands_acked_at_once_are_caught() {
    check(Mutant::CommandsAckedAtOnce);
}

#[test]
fn refusals_that_nobody_remembers_are_caught() {
    check(Mutant::RefusalsForgotten);
}

#[test]
fn a_map_named_by_the_checkpoint_is_caught() {
    check(Mutant::MapByCheckpoint);
}

#[test]
fn a_missing_reconciler_is_caught() {
    check(Mutant::NoReconciler);
}
