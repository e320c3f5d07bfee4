//! An answer reaches only the question that it names, once.
//!
//! What a record answers was open when it was decided. An answer that names no question is taken
//! only if there was one, and it was sent after that opened: a double click must not answer the
//! next question.

use superstep_protocol::RecordBody;

use super::{Invariant, ensure};
use crate::ledger::{Facts, Seen, Step};

pub(super) struct AnswersNamed;

fn appended(step: &Step<'_>, facts: &Facts) -> Result<(), String> {
    let RecordBody::Resumed {
        answers, command, ..
    } = &step.record.body
    else {
        return Ok(());
    };
    let (thread, head) = (step.thread, step.record.head);
    let Some(before) = step.before else {
        return Err(format!(
            "{thread}: {head} answers before anything was asked"
        ));
    };
    for id in answers.keys() {
        let mut open = before.state.open_questions();
        ensure(open.any(|(_, question)| question.id == *id), || {
            format!("{thread}: {head} answers {id}, which is not open")
        })?;
        ensure(!before.answered.contains(id), || {
            format!("{thread}: question {id} is answered twice")
        })?;
    }
    let Some(sent) = facts.sent.get(&command.id).filter(|sent| sent.plain) else {
        return Ok(());
    };
    ensure(answers.len() <= 1, || {
        format!(
            "{thread}: {head} takes one plain value for {} questions",
            answers.len()
        )
    })?;
    for id in answers.keys() {
        let opened = facts.opened_ms.get(id).copied().unwrap_or_default();
        ensure(opened <= sent.at_ms, || {
            let at = sent.at_ms;
            format!("{thread}: {head} answers {id}, opened at {opened}, with a value sent at {at}")
        })?;
    }
    Ok(())
}

impl Invariant for AnswersNamed {
    fn name(&self) -> &'static str {
        "answers named"
    }

    fn look(&mut self, seen: &Seen<'_>, facts: &Facts) -> Result<(), String> {
        match seen {
            Seen::Appended(step) => appended(step, facts),
            _ => Ok(()),
        }
    }
}
