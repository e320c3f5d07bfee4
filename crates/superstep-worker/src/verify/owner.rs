//! Owner: nothing is left without somebody who goes on with it, or a reason to wait.

use superstep_checkpoint::Kept;
use superstep_protocol::{Obligation, ThreadState, obligations};

use super::{Check, Wrong};

/// Checks that a thread that owes work is watched, and that one that is busy without owing any
/// has a timer.
pub(super) fn check(wrong: &mut Vec<Wrong>, state: &ThreadState, kept: &Kept) {
    let mut tell = |subject: &str, detail: String| {
        wrong.push(Wrong::new(Check::Owner, &state.thread, subject, detail));
    };
    let owed = obligations(state);
    let owes_work = owed
        .iter()
        .any(|one| matches!(one, Obligation::Work { .. }));
    match kept.watched {
        None if owes_work => tell("watch", "owes work and is not watched".to_owned()),
        None if state.is_busy() && kept.due.is_empty() => {
            tell(
                "timer",
                "is busy, and neither watched nor waiting for a time".to_owned(),
            );
        }
        Some(at) if at.version > state.head.version => {
            let detail = format!(
                "is watched since {at}, which is after its head {}",
                state.head
            );
            tell("watch", detail);
        }
        Some(_) if owed.is_empty() => tell("watch", "is watched and owes nothing".to_owned()),
        _ => {}
    }
    if state.deleted != kept.expires {
        let detail = if state.deleted {
            "is a tombstone without a time to live"
        } else {
            "goes away in time, and was not deleted"
        };
        tell("life", detail.to_owned());
    }
}
