//! Effects: performs what a thread owes the world, events first, then work.
//!
//! Everything here may happen twice and is one effect: events carry their ids, work is a hint.
//! Nothing is acked before its obligations are performed; the store is the truth if it fails
//! in between.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use superstep_graph::{InterruptId, TaskId};
use superstep_protocol::{
    CommandId, Dispatch, EventData, Obligation, Record, ThreadId, ThreadState, checkpoint_id,
    events, obligations,
};
use superstep_queue::{
    CommandKind, ErrorKind, EventMessage, Headers, Queue, WorkMessage, subject::Subjects,
};
use superstep_wire::{
    Event, EventKind, Refusal, Work, encode, headers, outward, record::size_hint,
};
use tracing::{debug, warn};

use crate::{
    error::{ERROR_CHARS_MAX, Error, shortened},
    threads::{Thread, Threads},
    trace::headers_for,
};

/// Into how many messages a superstep is spread, as far as their tasks allow.
const WORK_MESSAGES: usize = 256;
/// How many tasks one message may name: what a worker that dies leaves to another at most.
const TASKS_IN_MESSAGE_MAX: usize = 64;
/// How much work that a full stream refused this process remembers to publish later.
const OWED_WORK_MAX: usize = 10_000;

/// Which of the work that a thread owes is to be published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Publish {
    /// All of it: nobody knows what of it is under way.
    All,
    /// That of this dispatch, and of no other: theirs was seen to by whoever appended them, and
    /// once more would run their nodes beside themselves.
    Of(Dispatch),
    /// None: the caller goes on with it itself.
    Nothing,
}

/// Which events of a record are told.
#[derive(Clone, Copy)]
enum Tell<'a> {
    /// All, for the first time.
    New,
    /// All, maybe once more.
    Again,
    /// Those of questions that are still open.
    Questions(&'a BTreeSet<InterruptId>),
}

#[derive(Clone)]
pub(crate) struct Effects {
    pub(crate) threads: Threads,
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) subjects: Subjects,
    owed: Arc<Mutex<VecDeque<WorkMessage>>>,
}

impl Effects {
    pub(crate) fn new(threads: Threads, queue: Arc<dyn Queue>, subjects: Subjects) -> Self {
        Self {
            threads,
            queue,
            subjects,
            owed: Arc::default(),
        }
    }

    /// Performs what `thread` owes: its events, and of its work what `publish` says. `last` is
    /// the record that was just appended, if one was.
    pub(crate) async fn perform(
        &self,
        thread: &mut Thread,
        last: Option<&Record>,
        publish: Publish,
    ) -> Result<(), Error> {
        self.tell(thread, last).await?;
        let mut work = Vec::new();
        let mut rests = true;
        for obligation in obligations(&thread.state) {
            if let Obligation::Work { dispatch, tasks } = obligation {
                rests = false;
                let again = publish == Publish::All;
                if again || publish == Publish::Of(dispatch) {
                    let headers = headers_for(self.threads.traces(), &thread.state);
                    let again = (again, headers);
                    add_work(&thread.state, dispatch, &tasks, again, &mut work);
                }
            }
        }
        if !work.is_empty() {
            match self.queue.publish_work(&work).await {
                Ok(()) => {}
                // Holding on to the delivery would keep the stream full for ever: the work is owed.
                // The watch index owes it for good; this process remembers it only to publish it
                // as soon as there is room, which the reconciler's pauses would make later.
                Err(error) if error.kind() == ErrorKind::Full => {
                    warn!(thread_id = %thread.state.thread, %error, "work is owed: the stream is full");
                    self.owe(work);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if rests {
            let (id, head) = (&thread.state.thread, thread.state.head);
            self.threads
                .retrying(id, || self.threads.log().unwatch(id, head))
                .await?;
        }
        if let Some(last) = last {
            self.threads.prune(thread, last).await;
        }
        Ok(())
    }

    /// Publishes the events that are not known to be in their stream.
    async fn tell(&self, thread: &mut Thread, last: Option<&Record>) -> Result<(), Error> {
        let untold: Vec<u64> = thread
            .state
            .untold
            .iter()
            .copied()
            .filter(|v| *v > thread.told)
            .collect();
        let mut messages = Vec::new();
        for version in untold {
            match last.filter(|record| record.head.version == version) {
                Some(record) if version == thread.state.head.version => {
                    self.add_events(record, &thread.state, Tell::New, &mut messages)?;
                }
                _ => {
                    let found = self.threads.at(&thread.state.thread, version).await?;
                    if let Some((record, state)) = found {
                        self.add_events(&record, &state, Tell::Again, &mut messages)?;
                    } else {
                        warn!(
                            thread_id = %thread.state.thread, version,
                            "events of a trimmed record cannot be told any more"
                        );
                    }
                }
            }
        }
        if !messages.is_empty() {
            self.queue.publish_events(&messages).await?;
        }
        thread.told = thread.state.head.version;
        Ok(())
    }

    /// Publishes the events of the questions that are open, as they were when they opened. Answers
    /// how many.
    pub(crate) async fn announce(&self, thread: &Thread) -> Result<usize, Error> {
        let state = &thread.state;
        let (mut open, mut versions) = (BTreeSet::new(), BTreeSet::new());
        for (_, question) in state.open_questions() {
            open.insert(question.id.clone());
            versions.insert(question.opened_by);
        }
        let mut messages = Vec::new();
        for version in versions {
            if let Some((record, then)) = self.threads.at(&state.thread, version).await? {
                self.add_events(&record, &then, Tell::Questions(&open), &mut messages)?;
            }
        }
        if !messages.is_empty() {
            self.queue.publish_events(&messages).await?;
        }
        Ok(messages.len())
    }

    fn add_events(
        &self,
        record: &Record,
        state: &ThreadState,
        tell: Tell<'_>,
        messages: &mut Vec<EventMessage>,
    ) -> Result<(), Error> {
        let resume = self
            .subjects
            .command(CommandKind::Resume, state.thread.as_str())?;
        let values_max = self.threads.limits().event_values_bytes_max;
        let body_max = self.queue.body_bytes_max();
        for told in events(record, state) {
            match tell {
                Tell::New => self.threads.health().told(&state.graph.name, &told.data),
                Tell::Again => {}
                Tell::Questions(open) => match &told.data {
                    EventData::Interrupt { interrupt, .. } if open.contains(interrupt) => {}
                    _ => continue,
                },
            }
            let mut event = outward::event(&told, &state.thread, &state.graph, &resume);
            event.checkpoint_id = state.saved.map(|(head, time)| checkpoint_id(head, time));
            if event
                .values
                .as_ref()
                .is_some_and(|values| size_hint(values) > values_max)
            {
                event.values = None;
                event.values_omitted = true;
            }
            let body = fitting(&mut event, body_max);
            messages.push(self.message(&event, state, body));
        }
        Ok(())
    }

    fn message(&self, event: &Event, state: &ThreadState, body: Vec<u8>) -> EventMessage {
        let mut headers: Headers = headers::of_event(self.subjects.namespace(), event);
        headers.extend(headers_for(self.threads.traces(), state));
        EventMessage {
            kind: event.kind.as_str().to_owned(),
            graph: Some(state.graph.name.clone()),
            thread: state.thread.clone(),
            headers,
            body: Bytes::from(body),
        }
    }

    fn owe(&self, work: Vec<WorkMessage>) {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        owed.extend(work);
        let over = owed.len().saturating_sub(OWED_WORK_MAX);
        if over > 0 {
            warn!(
                dropped = over,
                "more work is owed than this process remembers"
            );
            owed.drain(..over);
        }
    }

    /// Publishes work that a full stream refused before, until it is full again.
    ///
    /// One by one: of several at once the first may be taken before the stream refuses another,
    /// and would go out again each time, ahead of those that never fitted.
    pub(crate) async fn pay(&self) {
        while let Some(next) = self.next_owed() {
            if let Err(error) = self.queue.publish_work(std::slice::from_ref(&next)).await {
                debug!(%error, "work is still owed");
                let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
                owed.push_front(next);
                return;
            }
        }
    }

    fn next_owed(&self) -> Option<WorkMessage> {
        let mut owed = self.owed.lock().unwrap_or_else(PoisonError::into_inner);
        owed.pop_front()
    }

    /// Tells the world and the sender that a command was refused.
    pub(crate) async fn tell_refusal(
        &self,
        kind: CommandKind,
        thread: &ThreadId,
        graph: Option<&str>,
        command: &CommandId,
        sender: Option<String>,
        refusal: &Refusal,
    ) -> Result<(), Error> {
        let event_kind = match kind {
            CommandKind::Start => EventKind::StartRefused,
            CommandKind::Resume => EventKind::ResumeRefused,
            CommandKind::Cancel => EventKind::CancelRefused,
            CommandKind::Update => EventKind::UpdateRefused,
            CommandKind::Retry => EventKind::RetryRefused,
        };
        let time = superstep_wire::time::to_rfc3339(self.threads.world().now());
        let id = superstep_graph::digest(&["refused", thread.as_str(), command.as_str()]);
        let mut event = Event::new(id.to_string(), event_kind, thread.as_str(), time);
        event.command_id = Some(command.to_string());
        event.sender = sender;
        event.graph = graph.map(str::to_owned);
        event.refusal = Some(refusal.clone());
        let message = EventMessage {
            kind: event.kind.as_str().to_owned(),
            graph: graph.map(Into::into),
            thread: thread.clone(),
            headers: headers::of_event(self.subjects.namespace(), &event),
            body: Bytes::from(fitting(&mut event, self.queue.body_bytes_max())),
        };
        Ok(self.queue.publish_events(&[message]).await?)
    }
}

/// The body of `event`, without what makes it too large: a payload near the limit with its
/// envelope may be over it, and the reader is told where to look instead.
fn fitting(event: &mut Event, bytes_max: usize) -> Vec<u8> {
    let body = encode::body(event);
    if body.len() <= bytes_max {
        return body;
    }
    event.values_omitted |= event.values.take().is_some();
    if let Some(interrupt) = &mut event.interrupt {
        interrupt.value = serde_json::Value::Null;
    }
    event.answers.clear();
    event.reason = event.reason.take().map(short);
    if let Some(error) = &mut event.error {
        error.message = short(std::mem::take(&mut error.message));
    }
    if let Some(refusal) = &mut event.refusal {
        refusal.message = short(std::mem::take(&mut refusal.message));
    }
    encode::body(event)
}

fn short(text: String) -> String {
    shortened(text, ERROR_CHARS_MAX)
}

fn add_work(
    state: &ThreadState,
    dispatch: Dispatch,
    tasks: &[TaskId],
    (again, headers): (bool, Headers),
    work: &mut Vec<WorkMessage>,
) {
    let mut message = |tasks: Vec<String>| {
        let body = encode::body(&Work {
            thread_id: state.thread.to_string(),
            incarnation: state.incarnation.to_string(),
            dispatch: dispatch.to_string(),
            tasks,
            again,
        });
        work.push(WorkMessage {
            graph: state.graph_for(dispatch).clone(),
            headers: headers.clone(),
            body: Bytes::from(body),
        });
    };
    // One answer for whoever asks first: only a worker that runs them all can see to that.
    if tasks.len() < 2 || state.offer.is_some() {
        message(Vec::new());
    } else {
        // One message each spreads a superstep over every worker with a free slot. A wide one is
        // spread just as well by fewer messages of several tasks, and each message costs.
        let of_each = tasks
            .len()
            .div_ceil(WORK_MESSAGES)
            .min(TASKS_IN_MESSAGE_MAX);
        for tasks in tasks.chunks(of_each) {
            message(tasks.iter().map(ToString::to_string).collect());
        }
    }
}
