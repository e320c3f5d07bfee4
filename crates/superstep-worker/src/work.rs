//! Work: one delivery of a work message, from its bytes to its ack.
//!
//! Append, then publish, then ack, in that order. A message whose dispatch the state no longer
//! waits for changes nothing; on a redelivery the thread's obligations are performed first, for
//! the worker before may have died between its append and its publish. What comes again, by the
//! queue or by whoever published it once more, looks for a claim first: a slow worker's node is
//! not run beside it.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use superstep_checkpoint::Claimed;
use superstep_graph::{START, TaskId};
use superstep_protocol::{Dispatch, Nonce, ThreadId};
use superstep_queue::Delivery;
use superstep_wire::decode;
use tokio::{sync::Semaphore, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, debug, error, info_span};

use crate::{
    effects::{Effects, Publish},
    engine::{Engine, Worked},
    error::{Error, ErrorKind, chain},
    movers::{self, Turn},
    poison::Charged,
    reconcile::RECONCILING,
    registry::Registry,
    rounds::Running,
    settings::WorkerSettings,
    sleep::Clock,
    stop::Stop,
    stream::OutputSink,
    threads::Thread,
    trace::{Outcome, TraceContext},
    worker::Cancels,
};

/// The pause before work comes again that must be run alone while something else is.
const CROWDED: Duration = Duration::from_secs(1);

/// How a delivery of work is to be answered.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Done {
    /// Everything that it called for is in the store and published.
    Ack,
    /// To be handed over again after a pause.
    Again(Duration),
    /// It can never be read.
    Never(String),
}

#[derive(Clone)]
pub(crate) struct Works {
    pub(crate) engine: Engine,
    pub(crate) effects: Effects,
    pub(crate) registry: Registry,
    pub(crate) settings: WorkerSettings,
    pub(crate) sink: Option<Arc<dyn OutputSink>>,
    /// How much is worked on at once; each delivery of work holds one.
    pub(crate) slots: Arc<Semaphore>,
    /// What is heard of cancels.
    pub(crate) cancels: Cancels,
    /// Set when the worker drains: nodes are told, and no superstep is begun any more.
    pub(crate) draining: CancellationToken,
    /// Set when the drain's time is over: nodes are dropped.
    pub(crate) stopping: CancellationToken,
}

/// What this worker is doing for a thread, for whoever watches over it.
#[derive(Clone)]
pub(crate) struct Holding {
    now: Arc<Mutex<Option<Held>>>,
    /// Who holds: this delivery, and no other of this process.
    pub(crate) owner: Nonce,
    /// How long a claim lives without being renewed: as long as the delivery does.
    pub(crate) lease: Duration,
    /// Whether it claimed anything.
    pub(crate) claimed: Arc<AtomicBool>,
}

/// How a delivery came.
struct Come {
    /// Its number among the deliveries of its message.
    attempt: u64,
    /// Whether somebody may have worked on it before, or be at it.
    again: bool,
    /// The attempts that were counted for it.
    charged: Charged,
    /// Its span.
    delivery: Option<TraceContext>,
}

impl Come {
    fn first(delivery: Option<TraceContext>) -> Self {
        Self {
            attempt: 1,
            again: false,
            charged: Charged::default(),
            delivery,
        }
    }
}

/// What the span of a delivery says of it.
fn outcome_of(worked: &Result<Done, Error>) -> Outcome<'static> {
    match worked {
        Ok(Done::Ack) => Outcome::Ended("done"),
        Ok(Done::Again(_)) => Outcome::Ended("handed_back"),
        Ok(Done::Never(_)) => Outcome::Failed("unreadable"),
        Err(error) => Outcome::Failed(error.kind().as_str()),
    }
}

/// What a claim is named by: the first of its tasks, or nothing for all of a dispatch.
fn name_of(tasks: &[TaskId]) -> &str {
    tasks.first().map_or("", TaskId::as_str)
}

/// A dispatch that is worked on.
#[derive(Clone)]
pub(crate) struct Held {
    pub(crate) thread: ThreadId,
    pub(crate) dispatch: Dispatch,
    /// The first of the tasks that are worked on; empty for all of the dispatch.
    pub(crate) name: String,
    /// Ends the work on this dispatch, and on no later one of the same delivery.
    pub(crate) stop: Stop,
}

impl Holding {
    pub(crate) fn new(owner: Nonce, lease: Duration) -> Self {
        Self {
            now: Arc::default(),
            owner,
            lease,
            claimed: Arc::default(),
        }
    }

    fn set(&self, held: Held) {
        *self.now.lock().unwrap_or_else(PoisonError::into_inner) = Some(held);
    }

    pub(crate) fn get(&self) -> Option<Held> {
        self.now
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl Works {
    pub(crate) async fn handle(&self, delivery: &Delivery, holding: &Holding) -> Done {
        let work = match decode::work(&delivery.body) {
            Ok(work) => work,
            Err(error) => return Done::Never(error.to_string()),
        };
        let Ok(dispatch) = work.dispatch.parse::<Dispatch>() else {
            return Done::Never(format!("`{}` is no dispatch", work.dispatch));
        };
        let id = ThreadId::new(work.thread_id);
        let tasks: Vec<TaskId> = work.tasks.into_iter().map(TaskId::from).collect();
        let span = info_span!(
            "delivery", thread_id = %id, %dispatch, attempt = delivery.attempt,
            trace_id = tracing::field::Empty
        );
        let traces = self.engine.threads.traces();
        let live = traces.map(|traces| span.in_scope(|| traces.delivery(delivery)));
        let live = live.unwrap_or_default();
        if let Some(context) = &live.context {
            span.record("trace_id", context.trace_id());
        }
        let charged = Charged::default();
        let come = Come {
            attempt: delivery.attempt,
            again: work.again || delivery.attempt > 1,
            charged: charged.clone(),
            delivery: live.context.clone(),
        };
        let worked = self
            .advance(&id, &work.incarnation, dispatch, tasks, come, holding)
            .instrument(live.span.clone())
            .instrument(span)
            .await;
        if let Some(traces) = traces {
            traces.delivery_ended(&live, &outcome_of(&worked));
        }
        if !matches!(worked, Ok(Done::Ack)) {
            charged.forgive(&self.engine.threads).await;
        }
        match worked {
            Ok(done) => done,
            Err(error) => match error.kind() {
                ErrorKind::Retry => {
                    debug!(thread_id = %id, error = chain(&error), "handed back");
                    Done::Again(Duration::from_secs(1))
                }
                // Going on would lose data; the message stays until a person has looked.
                ErrorKind::Invalid | ErrorKind::Corrupt => {
                    error!(thread_id = %id, error = chain(&error), "the thread stands still");
                    Done::Again(Duration::from_secs(30))
                }
            },
        }
    }

    async fn advance(
        &self,
        id: &ThreadId,
        incarnation: &str,
        mut dispatch: Dispatch,
        mut tasks: Vec<TaskId>,
        mut come: Come,
        holding: &Holding,
    ) -> Result<Done, Error> {
        let threads = &self.engine.threads;
        // Tasks are named only where a superstep has several.
        let loaded = if tasks.is_empty() {
            threads.load(id).await?
        } else {
            threads.load_wide(id).await?
        };
        let Some(mut thread) = loaded else {
            return Ok(Done::Ack);
        };
        let mine = thread.state.incarnation == *incarnation;
        if !mine || !thread.state.waits_for(dispatch) {
            return self
                .late(Some(Box::new(thread)), dispatch, come.attempt)
                .await;
        }
        if come.again
            && let Some(rest) = self.held_by_another(id, dispatch, &tasks, holding).await?
        {
            debug!(thread_id = %id, %dispatch, ?rest, "another worker is at it");
            return Ok(Done::Again(rest));
        }
        // Work is published after the events of its record and of those before it.
        thread.told = dispatch.version;
        let began = Instant::now();
        let mut supersteps = 0;
        loop {
            let grace = self.settings.cancel_grace;
            let stops = Stop::of_worker(&self.draining, &self.stopping, grace);
            holding.set(Held {
                thread: id.clone(),
                dispatch,
                name: name_of(&tasks).to_owned(),
                stop: stops.clone(),
            });
            let running = Running {
                attempt: come.attempt,
                again: come.again,
                attempts_max: Some(self.settings.attempts_max),
                charged: come.charged.clone(),
                timeout: self.settings.task_timeout,
                clock: Clock {
                    threads: self.engine.threads.clone(),
                    short_pause_max: self.settings.short_pause_max,
                },
                at_once: self.settings.tasks_at_once,
                slots: Some(Arc::clone(&self.slots)),
                stop: stops,
                sink: self.sink.clone(),
                delivery: come.delivery.clone(),
            };
            let step = thread.state.next_step();
            let run = thread.state.run_of(dispatch);
            let run = info_span!("run", run_id = run.as_ref().map_or("", |run| run.as_str()));
            let span = info_span!(parent: &run, "superstep", step);
            let work = async {
                match self.turn(&thread).await? {
                    Turn::Begins => {
                        Box::pin(self.engine.work(thread, dispatch, &tasks, &running)).await
                    }
                    Turn::Moves => Ok(Worked::Partial),
                    Turn::Refused(refusal) => {
                        Box::pin(self.engine.decline_next(thread, dispatch, refusal)).await
                    }
                }
            };
            let worked = work.instrument(span).await?;
            let (now, record) = match worked {
                Worked::Appended(appended) => *appended,
                Worked::Late(now) => return self.late(now, dispatch, come.attempt).await,
                Worked::Partial => return Ok(Done::Ack),
                Worked::Stopped => return self.stopped(id, dispatch, come.attempt).await,
                Worked::Crowded => return Ok(Done::Again(CROWDED)),
            };
            thread = now;
            let inline = self.goes_on(&thread, record.head, supersteps, began);
            let publish = if inline {
                Publish::Nothing
            } else {
                Publish::Of(record.head)
            };
            self.effects
                .perform(&mut thread, Some(&record), publish)
                .await?;
            if !inline {
                return Ok(Done::Ack);
            }
            supersteps += 1;
            dispatch = record.head;
            tasks.clear();
            come = Come::first(come.delivery);
        }
    }

    /// Whether the next run of the queue can begin, if that is what waits.
    async fn turn(&self, thread: &Thread) -> Result<Turn, Error> {
        let state = &thread.state;
        if !state.begins_next() {
            return Ok(Turn::Begins);
        }
        let (engine, effects, registry) = (&self.engine, &self.effects, &self.registry);
        Box::pin(movers::before_next(
            engine,
            effects,
            registry,
            state,
            (state.time, false),
        ))
        .await
    }

    /// For how long another worker's claim on any of this lives; if none does, it is claimed.
    ///
    /// Work that comes for the first time is not claimed before the first tick of whoever keeps it
    /// in progress. What comes again is: of two that come at once the second must not be counted.
    async fn held_by_another(
        &self,
        id: &ThreadId,
        dispatch: Dispatch,
        tasks: &[TaskId],
        holding: &Holding,
    ) -> Result<Option<Duration>, Error> {
        let threads = &self.engine.threads;
        let name = name_of(tasks);
        let claims = threads
            .retrying(id, || threads.log().claims(id, dispatch))
            .await?;
        let met = claims
            .iter()
            .filter(|(held, claim)| {
                claim.owner != holding.owner
                    && held.as_str() != RECONCILING
                    && (name.is_empty()
                        || held.is_empty()
                        || tasks.iter().any(|task| task.as_str() == held.as_str()))
            })
            .map(|(_, claim)| claim.rest)
            .max();
        if met.is_some() {
            return Ok(met);
        }
        let (owner, lease) = (holding.owner, holding.lease);
        let claimed = threads
            .retrying(id, || threads.log().claim(id, dispatch, name, owner, lease))
            .await?;
        Ok(match claimed {
            Claimed::Mine => {
                holding.claimed.store(true, Ordering::Relaxed);
                None
            }
            Claimed::Held { rest } => Some(rest),
        })
    }

    /// Whether this worker goes on with the thread at once: one next task, within the bounds of
    /// run-ahead. `__start__` and the next run of the queue run no node and are never worth a
    /// message.
    fn goes_on(&self, thread: &Thread, record: Dispatch, supersteps: u32, began: Instant) -> bool {
        if thread.state.begins_next() {
            return true;
        }
        let mut open = thread.state.round_tasks(record);
        let (Some(only), None) = (open.next(), open.next()) else {
            return false;
        };
        if self.engine.graphs.get(&thread.state.graph).is_none() {
            // Another version declined it: it is for workers of its own.
            return false;
        }
        only.task.node == START
            || (supersteps < self.settings.run_ahead_supersteps
                && began.elapsed() < self.settings.run_ahead_time
                && !self.draining.is_cancelled())
    }

    /// The work was told to stop: this worker must go, or the thread went on without it.
    async fn stopped(
        &self,
        id: &ThreadId,
        dispatch: Dispatch,
        attempt: u64,
    ) -> Result<Done, Error> {
        if self.stopping.is_cancelled() {
            return Ok(Done::Again(Duration::ZERO));
        }
        match self.engine.threads.load(id).await? {
            Some(now) if now.state.waits_for(dispatch) => Ok(Done::Again(Duration::ZERO)),
            now => self.late(now.map(Box::new), dispatch, attempt).await,
        }
    }

    /// The state does not wait for this message: nothing to do, but what a worker that died may
    /// have left undone, or what the store forgot: where it holds less than this message knows
    /// of, the messages of what it holds may be long acked.
    async fn late(
        &self,
        thread: Option<Box<Thread>>,
        dispatch: Dispatch,
        attempt: u64,
    ) -> Result<Done, Error> {
        if let Some(mut thread) = thread
            && (attempt > 1 || thread.state.head.version < dispatch.version)
        {
            self.effects
                .perform(&mut thread, None, Publish::All)
                .await?;
        }
        Ok(Done::Ack)
    }
}
