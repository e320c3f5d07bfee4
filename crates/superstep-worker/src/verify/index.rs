//! Index: what lists, questions, timers and rounds show is what the records say.

use superstep_checkpoint::{Kept, Reindex};
use superstep_protocol::{Obligation, ThreadState, obligations};

use super::{Check, Wrong};
use crate::index::Indexed;

/// What the entries of a thread should be. One that owes work is watched; one that owes only
/// events may be, until somebody has told them.
pub(super) fn truth(state: &ThreadState, is_watched: bool) -> Reindex {
    let owed = obligations(state);
    let owes_work = owed
        .iter()
        .any(|one| matches!(one, Obligation::Work { .. }));
    Indexed::of(state).entries(owes_work || (is_watched && !owed.is_empty()))
}

/// Compares a thread's entries with its state.
pub(super) fn check(wrong: &mut Vec<Wrong>, state: &ThreadState, kept: &Kept) {
    let truth = truth(state, kept.watched.is_some());
    let mut tell = |subject: String, detail: String| {
        wrong.push(Wrong::new(Check::Index, &state.thread, subject, detail));
    };
    if kept.row != truth.row {
        let said = |row: &Option<superstep_checkpoint::ThreadRow>| match row {
            Some(row) => format!(
                "{} of graph `{}` since {}",
                row.status, row.graph, row.updated_at.0
            ),
            None => "nothing".to_owned(),
        };
        let detail = format!(
            "lists say {}, the log {}",
            said(&kept.row),
            said(&truth.row)
        );
        tell("row".to_owned(), detail);
    }
    for (id, at) in &truth.interrupts {
        match kept.interrupts.get(id) {
            Some(there) if there == at => {}
            Some(there) => {
                let detail = format!("opened at {} by the index, at {} by the log", there.0, at.0);
                tell(format!("question {id}"), detail);
            }
            None => tell(
                format!("question {id}"),
                "is open and not listed".to_owned(),
            ),
        }
    }
    for id in kept.interrupts.keys() {
        if !truth.interrupts.contains_key(id) {
            tell(
                format!("question {id}"),
                "is listed and not open".to_owned(),
            );
        }
    }
    for (name, at) in &truth.due {
        match kept.due.get(name) {
            Some(there) if there == at => {}
            Some(there) => {
                let detail = format!("is set to {}, and should be to {}", there.0, at.0);
                tell(format!("timer {name}"), detail);
            }
            None => tell(format!("timer {name}"), "is not set".to_owned()),
        }
    }
    for name in kept
        .due
        .keys()
        .filter(|name| !truth.due.contains_key(*name))
    {
        tell(format!("timer {name}"), "is set for nothing".to_owned());
    }
    for round in truth.rounds.difference(&kept.rounds) {
        let detail = "is open, and results for it are refused".to_owned();
        tell(format!("round {round}"), detail);
    }
    for round in kept.rounds.difference(&truth.rounds) {
        let detail = "is over, and results for it are taken".to_owned();
        tell(format!("round {round}"), detail);
    }
    for torn in &kept.torn {
        tell(
            torn.clone(),
            "its two entries should be the same".to_owned(),
        );
    }
}
