//! The invariants, one file each: what must be true after every step of a world.
//!
//! Each is told everything that can be seen from outside, in order, and answers what is wrong in
//! words. They know records, messages and the store as it is; none knows how a worker comes to
//! what it does, so that they survive a rewrite of it.

mod answers_named;
mod applied_once;
mod bounded;
mod effects_once;
mod ids_stable;
mod indexes_true;
mod one_chain;
mod one_outcome;
mod owner_or_reason;
mod runs_in_turn;
mod status_of_facts;
mod timers_once;
mod truth_first;

use crate::ledger::{Facts, Seen};

/// One thing that must be true of every world.
pub(crate) trait Invariant: Send {
    /// Its name, which a finding begins with.
    fn name(&self) -> &'static str;

    /// Looks at one thing that happened.
    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String>;
}

/// All of them. The order is that of findings: what is nearest to the cause comes first.
pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(one_chain::OneChain::default()),
        Box::new(applied_once::AppliedOnce),
        Box::new(truth_first::TruthFirst),
        Box::new(ids_stable::IdsStable::default()),
        Box::new(owner_or_reason::OwnerOrReason),
        Box::new(one_outcome::OneOutcome::default()),
        Box::new(answers_named::AnswersNamed),
        Box::new(status_of_facts::StatusOfFacts),
        Box::new(indexes_true::IndexesTrue),
        Box::new(runs_in_turn::RunsInTurn),
        Box::new(timers_once::TimersOnce::default()),
        Box::new(bounded::Bounded),
        Box::new(effects_once::EffectsOnce),
    ]
}

/// An objection, unless it is so.
fn ensure(so: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(what()) }
}
