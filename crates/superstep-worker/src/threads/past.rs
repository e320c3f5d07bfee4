//! The past of a thread: a checkpoint by its id, and what became of a command.
//!
//! What commands, views and waiting ask of the log besides the state as it is now. What a
//! checkpoint that is not there means is said here once, for every mode and message. How a log
//! is folded is left to `threads`.

use superstep_protocol::{
    Base, Profile, Record, RecordBody, Refusal, RunId, ThreadId, checkpoint_id,
};

use super::Threads;
use crate::{error::Error, graphs::Graphs, view::StateView};

/// How a run came to nothing.
pub(crate) enum Fate {
    /// The graph cannot take what it was to begin with.
    Declined(Refusal),
    /// It was cancelled before it began, or displaced by another one.
    Cancelled,
}

impl Threads {
    /// The checkpoint that a command names, with all that a branch from it needs; or why the
    /// command cannot be taken. As [`base`](Self::base) otherwise.
    pub(crate) async fn named_base(
        &self,
        thread: &ThreadId,
        checkpoint: Option<&str>,
        amended: bool,
    ) -> Result<Result<Option<Box<Base>>, Refusal>, Error> {
        let Some(id) = checkpoint else {
            return Ok(Ok(None));
        };
        if let Some(base) = self.base(thread, id, amended).await? {
            return Ok(Ok(Some(Box::new(base))));
        }
        let is_there = self.load(thread).await?;
        if is_there.is_none_or(|found| found.state.deleted) {
            return Ok(Err(Refusal::UnknownThread {
                thread: thread.clone(),
            }));
        }
        Ok(Err(Refusal::InvalidInput {
            reason: format!(
                "thread `{thread}` has no checkpoint `{id}`; take one from its history"
            ),
        }))
    }

    /// The checkpoint that an update is of, if it is not the last one as it stands. In LangGraph
    /// an update knows nothing of what commands changed in a checkpoint since.
    pub(crate) async fn base_of_update(
        &self,
        thread: &ThreadId,
        checkpoint: Option<&str>,
    ) -> Result<Result<Option<Box<Base>>, Refusal>, Error> {
        if checkpoint.is_some() {
            return self.named_base(thread, checkpoint, false).await;
        }
        let found = self.load(thread).await?;
        let commanded = found.filter(|found| {
            let state = &found.state;
            state.amended && state.profile == Profile::Langgraph && !state.deleted
        });
        let saved = commanded.and_then(|found| found.state.saved);
        let saved = saved.map(|(head, time)| checkpoint_id(head, time));
        self.named_base(thread, saved.as_deref(), false).await
    }

    /// The thread as its history shows it at a checkpoint; `None` if there is no such thread.
    ///
    /// # Errors
    /// `Refused` if the thread has no such checkpoint; or if the store fails.
    pub(crate) async fn state_at(
        &self,
        thread: &ThreadId,
        checkpoint: &str,
        graphs: &Graphs,
    ) -> Result<Option<StateView>, Error> {
        let base = match self.named_base(thread, Some(checkpoint), false).await? {
            Ok(Some(base)) => base,
            Ok(None) | Err(Refusal::UnknownThread { .. }) => return Ok(None),
            Err(refusal) => return Err(Error::Refused(refusal)),
        };
        // One that was rolled back is in no history any more, and still is what it was.
        let all = self.checkpoints(thread, None, usize::MAX, graphs);
        let (history, _) = all.await?;
        let version = base.saved.0.version;
        let found = history.into_iter().find(|view| view.version == version);
        Ok(found.map(StateView::from))
    }

    /// How `run`, which was accepted behind record `since`, came to nothing, if the log says so.
    pub(crate) async fn fate(
        &self,
        thread: &ThreadId,
        since: u64,
        run: &RunId,
    ) -> Result<Option<Fate>, Error> {
        let mut asked = None;
        for record in self.records_behind(thread, since).await? {
            match record.body {
                RecordBody::Commanded { asked: command, .. } if command.run == *run => {
                    asked = Some(record.head);
                }
                RecordBody::Declined {
                    closes, refusal, ..
                } if asked == Some(closes) => return Ok(Some(Fate::Declined(refusal))),
                RecordBody::Declined {
                    queued: Some(queued),
                    refusal,
                    ..
                } if queued == *run => return Ok(Some(Fate::Declined(refusal))),
                RecordBody::Cancelled { queued, .. } if queued.contains(run) => {
                    return Ok(Some(Fate::Cancelled));
                }
                RecordBody::Displaced(displaced)
                    if displaced.run.as_ref() == Some(run) || displaced.queued.contains(run) =>
                {
                    return Ok(Some(Fate::Cancelled));
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// The records behind `since` that are still in the log, oldest first.
    async fn records_behind(&self, thread: &ThreadId, since: u64) -> Result<Vec<Record>, Error> {
        const PAGE: usize = 64;
        let mut stored = Vec::new();
        let mut before = None;
        loop {
            let page = self
                .retrying(thread, || self.log().history(thread, before, PAGE))
                .await?;
            let is_last = page.len() < PAGE;
            before = page.last().map(|record| record.head.version);
            let behind = page.into_iter();
            stored.extend(behind.filter(|record| record.head.version > since));
            if is_last || before.is_none_or(|version| version <= since) {
                break;
            }
        }
        stored.reverse();
        self.decode(thread, stored).await
    }
}
