//! The worker: pulls commands and work, keeps what it holds in progress, and drains.
//!
//! Stateless: it can die at any line and another one finishes its work. It holds a slot of its
//! concurrency before it pulls, fetches no more than it has slots for, and acks only what is
//! stored and published.

mod cancels;
mod keeping;
mod live;
mod pulling;

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use superstep_checkpoint::ThreadLog;
use superstep_protocol::{Head, Obligation, ThreadId, ThreadState, UnixMillis, obligations};
use superstep_queue::{Delivery, DeliveryBody, Queue, subject::Subjects};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{Instrument, debug, error, info, info_span, warn};

use crate::{
    clock::SharedWorld,
    commands::{Commands, Handled, command_id, is_in_log, until_durable},
    effects::{Effects, Publish},
    engine::Engine,
    error::{Error, ErrorKind, chain},
    graphs::Graphs,
    health::{Health, Stage},
    panics::message_of,
    reconcile::Reconciler,
    registry::{Registrant, Registry},
    settings::WorkerSettings,
    stream::OutputSink,
    threads::Threads,
    timers::Timers,
    trace::{Outcome, Tracer},
    work::{Done, Holding, Works},
};
pub(crate) use cancels::Cancels;
use keeping::{give_up, keep};
use live::{OUTPUT_QUEUE_MAX, QueueSink, forward};
use pulling::{Held, Pulling, pull};

/// The pause before a delivery is looked at again that needs a person first.
const STANDS_STILL: Duration = Duration::from_secs(30);
/// The lease that a worker without graphs takes work to have.
const RECONCILE_LEASE_MIN: Duration = Duration::from_secs(1);
/// What is said of a panic in this crate: other deliveries go on, this one waits.
const BROKEN: &str = "a bug: the work on a delivery panicked; it stays, report this";
/// How many commands one worker holds while their records become durable.
const COMMANDS_HELD_MAX: usize = 4096;
/// How long a worker that goes waits for the store to hear of it.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drained {
    /// Everything that was held was finished.
    Clean,
    /// The time was over; so many deliveries were handed back for others.
    HandedBack {
        /// How many.
        deliveries: usize,
    },
}

/// A worker.
pub struct Worker {
    graphs: Arc<Graphs>,
    threads: Threads,
    queue: Arc<dyn Queue>,
    subjects: Subjects,
    settings: WorkerSettings,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Worker")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// A worker of `graphs` over `log` and `queue`; `subjects` are those of the queue.
    pub fn new(
        graphs: Graphs,
        log: Arc<dyn ThreadLog>,
        queue: Arc<dyn Queue>,
        subjects: Subjects,
        world: SharedWorld,
        settings: WorkerSettings,
    ) -> Self {
        let threads = Threads::new(log, world, settings.limits.clone(), settings.store_retry)
            .with_retention(settings.retention);
        Self {
            graphs: Arc::new(graphs),
            threads,
            queue,
            subjects,
            settings,
        }
    }

    /// Tells this health how it goes, in the place of one that nobody looks at.
    #[must_use]
    pub fn with_health(mut self, health: Health) -> Self {
        self.threads = self.threads.with_health(health);
        self
    }

    /// Tells this tracer what becomes of runs, tasks and messages.
    #[must_use]
    pub fn with_tracer(mut self, tracer: Arc<dyn Tracer>) -> Self {
        self.threads = self.threads.with_tracer(tracer);
        self
    }

    /// Works until `shutdown`, then drains: stops pulling, finishes what it holds at the next
    /// boundary of a superstep, and hands the rest back when the drain's time is over.
    ///
    /// # Errors
    /// If the streams cannot be set up, or the graphs cannot be registered.
    pub async fn run(self, shutdown: CancellationToken) -> Result<Drained, Error> {
        let health = self.threads.health().clone();
        health.reached(Stage::Connected);
        self.queue.setup().await?;
        health.reached(Stage::StreamsVerified);
        let registrant = Registrant::new(&self.threads, self.settings.strict_topology);
        let registrant = Arc::new(registrant);
        registrant.begin(&self.threads, &self.graphs).await?;
        let engine = Engine::new(self.threads.clone(), Arc::clone(&self.graphs));
        let effects = Effects::new(
            self.threads.clone(),
            Arc::clone(&self.queue),
            self.subjects.clone(),
        );
        let stopping = CancellationToken::new();
        let held = TaskTracker::new();
        let mut loops = JoinSet::new();

        let (sender, receiver) = mpsc::channel(OUTPUT_QUEUE_MAX);
        let forwarder = tokio::spawn(forward(Arc::clone(&self.queue), receiver));
        let sink: Arc<dyn OutputSink> = Arc::new(QueueSink { sender });
        // A loop that waits for messages holds a slot: with fewer slots than graphs, one quiet
        // graph would keep another from being pulled.
        let graphs = self.graphs.iter().count();
        let slots = self.settings.concurrency.max(graphs);
        health.slots(slots);
        let slots = Arc::new(Semaphore::new(slots));
        let cancels = Cancels::default();
        let listener = tokio::spawn(cancels.clone().listen(Arc::clone(&self.queue)));
        let registry = Registry::default();
        let works = Works {
            engine: engine.clone(),
            effects: effects.clone(),
            registry: registry.clone(),
            settings: self.settings.clone(),
            sink: Some(Arc::clone(&sink)),
            slots: Arc::clone(&slots),
            cancels,
            draining: shutdown.clone(),
            stopping: stopping.clone(),
        };
        let timers = Timers {
            engine: engine.clone(),
            effects: effects.clone(),
            registry: registry.clone(),
            sink: Some(Arc::clone(&sink)),
            every: self.settings.timers_every,
        };
        let commands = Commands {
            engine: engine.clone(),
            effects: effects.clone(),
            registry: registry.clone(),
            settings: self.settings.clone(),
            sink: Some(sink),
        };

        let mut lease = Duration::ZERO;
        for graph in self.graphs.iter() {
            let consumer = self.queue.work(graph.id()).await?;
            lease = lease.max(consumer.ack_wait());
            let works = works.clone();
            let handler = move |delivery| work_delivery(works.clone(), delivery);
            let pulling = Pulling {
                name: graph.id().to_string().into(),
                is_work: true,
                threads: self.threads.clone(),
                slots: Arc::clone(&slots),
                held: held.clone(),
                wait: self.settings.pull_wait,
                shutdown: shutdown.clone(),
            };
            loops.spawn(pull(consumer, pulling, handler));
        }
        let consumer = self.queue.commands().await?;
        let handler = {
            let (shutdown, stopping) = (shutdown.clone(), stopping.clone());
            move |delivery| {
                command_delivery(
                    commands.clone(),
                    delivery,
                    shutdown.clone(),
                    stopping.clone(),
                )
            }
        };
        let pulling = Pulling {
            name: "commands".into(),
            is_work: false,
            threads: self.threads.clone(),
            slots: Arc::new(Semaphore::new(COMMANDS_HELD_MAX)),
            held: held.clone(),
            wait: self.settings.pull_wait,
            shutdown: shutdown.clone(),
        };
        loops.spawn(pull(consumer, pulling, handler));
        loops.spawn(renew(
            Arc::clone(&registrant),
            self.threads.clone(),
            Arc::clone(&self.graphs),
            self.settings.register_every,
            shutdown.clone(),
        ));
        let after = self.settings.reconcile_after;
        let after =
            after.unwrap_or_else(|| lease.max(RECONCILE_LEASE_MIN) + Duration::from_secs(1));
        let every = self.settings.reconcile_every;
        let reconciler = Reconciler::new(engine, effects.clone(), registry, after, every);
        loops.spawn(reconciler.run(shutdown.clone()));
        loops.spawn(pay_owed(effects, shutdown.clone()));
        health.reached(Stage::Working);
        loops.spawn(timers.run(shutdown.clone()));
        info!(graphs, concurrency = self.settings.concurrency, "working");

        shutdown.cancelled().await;
        health.reached(Stage::Draining);
        info!(held = held.len(), "draining");
        held.close();
        drop(works);
        let drained = tokio::time::timeout(self.settings.drain_timeout, async {
            while loops.join_next().await.is_some() {}
            held.wait().await;
        })
        .await;
        let ended = if drained.is_ok() {
            Drained::Clean
        } else {
            let deliveries = held.len();
            warn!(deliveries, "the drain's time is over; handing back");
            stopping.cancel();
            // Nodes are dropped and their deliveries nak-ed; a server that does not answer now
            // hands them over after their lease anyway.
            let _ = tokio::time::timeout(Duration::from_secs(2), held.wait()).await;
            Drained::HandedBack { deliveries }
        };
        loops.shutdown().await;
        // Nobody is to wait for this worker; one that cannot say so is forgotten after its time.
        let left = registrant.leave(&self.threads, &self.graphs);
        match tokio::time::timeout(LEAVE_MAX, left).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(error = chain(&error), "the registration stays"),
            Err(_) => debug!("the registration stays: the store does not answer"),
        }
        forwarder.abort();
        listener.abort();
        info!(?ended, "drained");
        Ok(ended)
    }

    /// Performs what every watched thread owes: for a process that alone works on a store, at
    /// its start, when nobody else can be at work on them. Answers how many there were.
    ///
    /// # Errors
    /// If the store or the queue fails.
    pub async fn recover(&self) -> Result<usize, Error> {
        const PAGE: usize = 256;
        self.queue.setup().await?;
        let effects = Effects::new(
            self.threads.clone(),
            Arc::clone(&self.queue),
            self.subjects.clone(),
        );
        // All of them: the clock that entered them may have gone back since.
        let now = UnixMillis(i64::MAX.unsigned_abs());
        let mut seen = std::collections::BTreeSet::new();
        let mut limit = PAGE;
        loop {
            let watched = self
                .threads
                .log()
                .watched(UnixMillis(0), now, limit)
                .await
                .map_err(Error::Store)?;
            let page_full = watched.len() == limit;
            for entry in watched {
                if seen.insert(entry.thread.clone())
                    && let Some(mut thread) = self.threads.load(&entry.thread).await?
                {
                    self.end_claims(&thread.state).await?;
                    effects.perform(&mut thread, None, Publish::All).await?;
                }
            }
            if !page_full {
                return Ok(seen.len());
            }
            limit += PAGE;
        }
    }

    /// Ends the claims on the work of a thread that nobody can be at.
    async fn end_claims(&self, state: &ThreadState) -> Result<(), Error> {
        let log = self.threads.log();
        for owed in obligations(state) {
            let Obligation::Work { dispatch, .. } = owed else {
                continue;
            };
            let claims = log.claims(&state.thread, dispatch).await;
            for (name, claim) in claims.map_err(Error::Store)? {
                let ended = log.claim(&state.thread, dispatch, &name, claim.owner, Duration::ZERO);
                ended.await.map_err(Error::Store)?;
            }
        }
        Ok(())
    }
}

async fn work_delivery(works: Works, held: Held) {
    let delivery = held.delivery;
    let world = works.engine.threads.world();
    let holding = Holding::new(world.nonce(), held.ack_wait);
    let done = {
        let watch = keep(
            &works.engine.threads,
            delivery.acker.as_ref(),
            held.ack_wait,
            &holding,
            works.cancels.ear(),
        );
        tokio::pin!(watch);
        let handle = AssertUnwindSafe(works.handle(&delivery, &holding)).catch_unwind();
        tokio::pin!(handle);
        tokio::select! {
            biased;
            done = &mut handle => done.unwrap_or_else(|panic| {
                error!(delivery = %delivery.id, panic = message_of(panic.as_ref()), "{BROKEN}");
                Done::Again(STANDS_STILL)
            }),
            () = &mut watch => Done::Again(Duration::ZERO),
        }
    };
    if done != Done::Ack {
        give_up(&works.engine.threads, &holding).await;
    }
    let answered = match &done {
        Done::Ack => delivery.acker.ack().await,
        Done::Again(delay) => delivery.acker.nak(*delay).await,
        Done::Never(reason) => {
            error!(delivery = %delivery.id, reason, "a work message cannot be read");
            delivery.acker.term(reason).await
        }
    };
    if let Err(error) = answered {
        debug!(%error, "the answer to a delivery was lost; it comes again and changes nothing");
    }
}

async fn command_delivery(
    commands: Commands,
    held: Held,
    shutdown: CancellationToken,
    stopping: CancellationToken,
) {
    let delivery = held.delivery;
    let DeliveryBody::Command { kind, target } = &delivery.kind else {
        let reason = "not a command of superstep";
        warn!(delivery = %delivery.id, "a message on the commands stream is no command");
        if let Err(error) = delivery.acker.term(reason).await {
            debug!(%error, "could not be set aside");
        }
        return;
    };
    let span = info_span!(
        "delivery", kind = kind.as_str(), target = %target, attempt = delivery.attempt,
        trace_id = tracing::field::Empty
    );
    let threads = commands.engine.threads.clone();
    let live = threads.traces().map(|traces| traces.delivery(&delivery));
    let live = live.unwrap_or_default();
    if let Some(context) = &live.context {
        span.record("trace_id", context.trace_id());
    }
    let ended = |outcome: Outcome<'_>| {
        if let Some(traces) = threads.traces() {
            traces.delivery_ended(&live, &outcome);
        }
    };
    let answered = async {
        loop {
            let handle = Box::pin(commands.handle(*kind, target, &delivery));
            let handled = tokio::select! {
                biased;
                handled = AssertUnwindSafe(handle).catch_unwind() => handled,
                () = stopping.cancelled() => return delivery.acker.nak(Duration::ZERO).await,
            };
            let handled = match handled {
                Ok(handled) => handled,
                Err(panic) => {
                    error!(panic = message_of(panic.as_ref()), "{BROKEN}");
                    return delivery.acker.nak(STANDS_STILL).await;
                }
            };
            ended(match &handled {
                Ok(Handled::Ack | Handled::AckOnceDurable { .. }) => Outcome::Ended("done"),
                Ok(Handled::Again(_)) => Outcome::Ended("handed_back"),
                Err(error) => Outcome::Failed(error.kind().as_str()),
            });
            match handled {
                Ok(Handled::Ack) => return delivery.acker.ack().await,
                Ok(Handled::Again(pause)) => return delivery.acker.nak(pause).await,
                Ok(Handled::AckOnceDurable { thread, record }) => {
                    let durable = commands.engine.threads.log().durable_after();
                    if !durable.is_zero() {
                        tokio::select! {
                            biased;
                            waited = until_durable(commands.engine.threads.log()) => if let Err(error) = waited {
                                debug!(%error, "whether the record is durable is not known");
                                return delivery.acker.nak(durable).await;
                            },
                            // Another worker finds the outcome and sees to its durability.
                            () = shutdown.cancelled() => {
                                return delivery.acker.nak(durable).await;
                            }
                        }
                    }
                    match still_there(&commands, &thread, record, &delivery).await {
                        Ok(true) => return delivery.acker.ack().await,
                        Ok(false) => {
                            warn!(thread_id = %thread, %record, "the store lost the outcome; deciding again");
                            go_on(&commands, &thread).await;
                        }
                        Err(error) => {
                            debug!(%error, "whether the record is durable is not known");
                            return delivery.acker.nak(durable).await;
                        }
                    }
                }
                Err(error) if error.kind() == ErrorKind::Retry => {
                    warn!(error = chain(&error), "a command could not be decided; trying again");
                    return delivery.acker.nak(Duration::from_secs(1)).await;
                }
                // The command stays until a person has looked.
                Err(error) => {
                    error!(error = chain(&error), "a command cannot be decided");
                    return delivery.acker.nak(STANDS_STILL).await;
                }
            }
        }
    }
    .instrument(live.span.clone())
    .instrument(span)
    .await;
    if let Err(error) = answered {
        debug!(%error, "the answer to a delivery was lost; it comes again and changes nothing");
    }
}

/// Has a thread go on that the store took back: what the command is about may have to happen again
/// first, and would only when the reconciler has found it.
async fn go_on(commands: &Commands, thread: &ThreadId) {
    let went = async {
        if let Some(mut thread) = commands.engine.threads.load(thread).await? {
            let effects = &commands.effects;
            effects.perform(&mut thread, None, Publish::All).await?;
        }
        Ok::<_, Error>(())
    };
    if let Err(error) = went.await {
        debug!(thread_id = %thread, error = chain(&error), "left to the reconciler");
    }
}

/// Whether what a command was told still stands: the record that it became, or that its run became
/// before; and its outcome, which in the latter case was put after the record and can be lost alone.
async fn still_there(
    commands: &Commands,
    thread: &ThreadId,
    record: Head,
    delivery: &Delivery,
) -> Result<bool, superstep_checkpoint::Error> {
    let log = commands.engine.threads.log();
    let stands = is_in_log(log, thread, record).await?;
    if !stands || log.durable_after().is_zero() {
        return Ok(stands);
    }
    let id = command_id(delivery);
    Ok(log.outcome(thread, &id).await?.is_some())
}

async fn renew(
    registrant: Arc<Registrant>,
    threads: Threads,
    graphs: Arc<Graphs>,
    every: Duration,
    shutdown: CancellationToken,
) {
    let mut tick = tokio::time::interval(every);
    tick.tick().await;
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => {}
            () = shutdown.cancelled() => return,
        }
        if let Err(error) = registrant.register(&threads, &graphs).await {
            warn!(
                error = chain(&error),
                "the graphs could not be registered again"
            );
        }
    }
}

async fn pay_owed(effects: Effects, shutdown: CancellationToken) {
    let mut tick = tokio::time::interval(Duration::from_millis(500));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            biased;
            _ = tick.tick() => { effects.pay().await; }
            () = shutdown.cancelled() => {
                effects.pay().await;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
