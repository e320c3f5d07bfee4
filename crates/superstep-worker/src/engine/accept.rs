//! Accepting: an event from outside, decided on the thread as it is, and appended.
//!
//! On a moved head it looks again. What the append calls for is left to the caller, and what an
//! event means to the protocol.

use std::collections::BTreeMap;

use superstep_protocol::{
    CommandId, Dispatch, Event, RecordBody, Refusal, Restored, ThreadId, ThreadState, UnixMillis,
    Verdict, decide, rolls_back,
};

use super::{Accepted, DECISIONS_MAX, Engine, Worked};
use crate::{
    error::Error,
    threads::{Outcome, OutcomeBytes, Thread},
};

impl Engine {
    /// Decides a command and appends what it calls for. `outcome` makes what is remembered of
    /// an accepted command.
    pub(crate) async fn accept(
        &self,
        thread: &ThreadId,
        event: &Event,
        command: Option<&CommandId>,
        outcome: impl Fn() -> Option<OutcomeBytes>,
    ) -> Result<Accepted, Error> {
        let now = self.threads.world().now();
        self.accept_with(thread, event, command, outcome, now).await
    }

    /// Decides an event of no sender at a time of the store's clock, and appends what it calls
    /// for.
    pub(crate) async fn accept_at(
        &self,
        thread: &ThreadId,
        event: &Event,
        now: UnixMillis,
    ) -> Result<Accepted, Error> {
        self.accept_with(thread, event, None, || None, now).await
    }

    async fn accept_with(
        &self,
        thread: &ThreadId,
        event: &Event,
        command: Option<&CommandId>,
        outcome: impl Fn() -> Option<OutcomeBytes>,
        now: UnixMillis,
    ) -> Result<Accepted, Error> {
        for _ in 0..DECISIONS_MAX {
            let before = self.threads.load(thread).await?;
            let now = before
                .as_ref()
                .map_or(now, |before| now.max(before.state.time));
            let state = before.as_ref().map(|before| &*before.state);
            let rolling_back = match state.and_then(|state| rolls_back(state, event)) {
                Some(version) => match self.with_before(thread, state, event, version).await? {
                    Ok(event) => Some(event),
                    Err(refusal) => return Ok(Accepted::Refused(refusal)),
                },
                None => None,
            };
            let event = rolling_back.as_ref().unwrap_or(event);
            let body = match decide(thread, state, event, now) {
                Verdict::Append(body) => body,
                Verdict::Known(head) => return Ok(Accepted::Known(head)),
                Verdict::Refuse(refusal) => return Ok(Accepted::Refused(refusal)),
                Verdict::Wait if rolling_back.is_some() => {
                    // The thread went on while what it was before was read.
                    let now = self.threads.load(thread).await?;
                    if now.map(|now| now.state.head) != state.map(|state| state.head) {
                        continue;
                    }
                    return Ok(Accepted::Wait);
                }
                Verdict::Nothing(_) => return Ok(Accepted::Nothing),
                Verdict::Wait => return Ok(Accepted::Wait),
            };
            let kept = command.cloned().zip(outcome());
            let queued = match &body {
                RecordBody::Enqueued(_) => state.map_or(0, |state| state.queue.len()),
                _ => 0,
            };
            match self.threads.append(thread, before, body, kept).await? {
                Outcome::Done(done) => return Ok(Accepted::Appended(done)),
                Outcome::Moved => {}
                Outcome::Decided(bytes) => return Ok(Accepted::Decided(bytes)),
                Outcome::TooLarge(error) => {
                    let mut reason = error.message;
                    if queued > 0 {
                        reason = format!(
                            "{reason}; the inputs of runs that wait count too, and {queued} wait \
                             on this thread"
                        );
                    }
                    return Ok(Accepted::Refused(Refusal::InvalidInput { reason }));
                }
            }
        }
        Err(Error::Contended {
            thread: thread.clone(),
        })
    }

    /// The event with what the thread was after `version`, the last record before the run that
    /// it rolls back.
    async fn with_before(
        &self,
        thread: &ThreadId,
        state: Option<&ThreadState>,
        event: &Event,
        version: u64,
    ) -> Result<Result<Event, Refusal>, Error> {
        let found = match version {
            0 => None,
            version => match self.threads.at(thread, version).await? {
                Some((_, state)) => Some(state),
                None => {
                    return Ok(Err(Refusal::Unsupported {
                        what: "a rollback to before what is left of the thread's history"
                            .to_owned(),
                        instead: "use `interrupt`".to_owned(),
                    }));
                }
            },
        };
        let restored = match (&found, state) {
            (Some(before), _) if !before.deleted => Restored::of(before),
            (_, Some(state)) => Restored::nothing(version, &state.incarnation),
            (_, None) => return Ok(Ok(event.clone())),
        };
        let mut event = event.clone();
        match &mut event {
            Event::Start(start) => start.before = Some(Box::new(restored)),
            Event::Cancel(cancel) => cancel.before = Some(Box::new(restored)),
            _ => {}
        }
        Ok(Ok(event))
    }

    /// Tells the sender of the next run of the queue why it cannot begin.
    pub(crate) async fn decline_next(
        &self,
        thread: Thread,
        dispatch: Dispatch,
        refusal: Refusal,
    ) -> Result<Worked, Error> {
        self.answer(thread, dispatch, &BTreeMap::new(), |_| Event::NextRun {
            dispatch,
            refusal: Some(refusal.clone()),
        })
        .await
    }
}
