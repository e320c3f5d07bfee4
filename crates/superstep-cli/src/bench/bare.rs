//! The least that the same work can cost on the same servers: pull, append, publish, ack.
//!
//! No graph, no state, no encoding of records, no index, no event: a message names the run and
//! where it stands, and whoever pulls it appends what a superstep would, publishes what comes
//! next, and acks. What superstep reaches is told as a part of this, so that a figure says
//! something about superstep and not about the machine.
//!
//! Two forms: each superstep in a message of its own, or all that one worker can go on with in
//! one message, as superstep does by default.
//!
//! The rule it keeps: the same conditional append, the same acks that are awaited, the same number
//! of runs in flight; what is left out is only what superstep adds.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use clap::ValueEnum;
use serde::Serialize;
use superstep_checkpoint_redis::BareLog;
use superstep_protocol::ThreadId;
use superstep_queue_nats::{BareMessage, BareQueue};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;

use super::{
    drive::{Load, Watch, stopped},
    place::Place,
    progress::Progress,
    scenario::{CHAIN, Scenario},
    window::Window,
};
use crate::exit::Failure;

/// How supersteps follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Dispatch {
    /// A worker goes on with a thread while it can: one message for many supersteps
    RunAhead,
    /// A message for each superstep
    Full,
}

/// One stage of a run: so many messages, each with so many records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stage {
    messages: u32,
    records: u64,
    /// What the one appends who finds that all messages of the stage are done.
    closing: u64,
}

const fn stage(messages: u32, records: u64, closing: u64) -> Stage {
    Stage {
        messages,
        records,
        closing,
    }
}

/// The stages of one run.
fn stages(scenario: Scenario, dispatch: Dispatch, width: u32) -> Vec<Stage> {
    match (scenario, dispatch) {
        (Scenario::Chain, Dispatch::RunAhead) => vec![stage(1, CHAIN, 0)],
        (Scenario::Chain, Dispatch::Full) => vec![stage(1, 1, 0); 10],
        (Scenario::FanOut, Dispatch::RunAhead) => vec![stage(1, 1, 0), stage(width, 1, 2)],
        (Scenario::FanOut, Dispatch::Full) => {
            vec![stage(1, 1, 0), stage(width, 1, 1), stage(1, 1, 0)]
        }
        // The question is a record too.
        (Scenario::Interrupt, Dispatch::RunAhead) => vec![stage(1, 2, 0), stage(1, 2, 0)],
        (Scenario::Interrupt, Dispatch::Full) => vec![stage(1, 1, 0); 4],
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct At {
    run: u64,
    stage: usize,
    part: u32,
    /// The head that the next append comes behind.
    version: u64,
}

impl At {
    fn body(self) -> Bytes {
        format!("{} {} {} {}", self.run, self.stage, self.part, self.version).into()
    }

    fn read(body: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(body).ok()?.split(' ');
        Some(Self {
            run: parts.next()?.parse().ok()?,
            stage: parts.next()?.parse().ok()?,
            part: parts.next()?.parse().ok()?,
            version: parts.next()?.parse().ok()?,
        })
    }
}

/// Whoever works on messages.
struct Bare {
    log: BareLog,
    queue: BareQueue,
    stages: Vec<Stage>,
    record: Vec<u8>,
    ended: mpsc::UnboundedSender<u64>,
}

/// Runs the bare loop; gives what was measured and how long the window was open.
pub(crate) async fn bare(
    place: &Place,
    load: &Load,
    dispatch: Dispatch,
    progress: &Progress,
    watch: &mut dyn Watch,
    stop: &CancellationToken,
) -> Result<(Window, f64), Failure> {
    let (ended, mut ends) = mpsc::unbounded_channel();
    let bare = Arc::new(Bare {
        log: BareLog::connect(&place.cluster.redis).await?,
        queue: BareQueue::connect(&place.cluster.nats).await?,
        stages: stages(load.scenario, dispatch, load.size.width),
        record: vec![b'x'; load.size.payload_bytes],
        ended,
    });
    let mut pulling = JoinSet::new();
    pulling.spawn(pull(Arc::clone(&bare)));
    let mut window = Window::new(load.span);
    let mut began = std::collections::HashMap::new();
    let mut next = 0;
    for _ in 0..load.in_flight.min(load.runs_max) {
        began.insert(next, Instant::now());
        bare.begin(next).await?;
        next += 1;
    }
    let mut sends: JoinSet<Result<(), Failure>> = JoinSet::new();
    let mut tick = tokio::time::interval(std::time::Duration::from_millis(250));
    let (mut opened, mut closed) = (false, None);
    loop {
        let now = Instant::now();
        if !opened && now >= window.opens() {
            opened = true;
            watch.opened();
        }
        let is_over = window.is_over(now) || next >= load.runs_max;
        if is_over && closed.is_none() {
            closed = Some(now);
            watch.closed();
        }
        if let Some(at) = closed {
            if began.is_empty() {
                break;
            }
            if now.duration_since(at) >= load.patience {
                return Err(Failure::failed(format!(
                    "{} runs of the bare loop did not end within {:?}",
                    began.len(),
                    load.patience
                )));
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(stopped()),
            Some(broken) = pulling.join_next() => return Err(match broken {
                Ok(failure) => failure,
                Err(error) => Failure::failed(format!("the bare loop broke: {error}")),
            }),
            Some(sent) = sends.join_next() => {
                sent.map_err(|error| Failure::failed(format!("the bare loop broke: {error}")))??;
            }
            Some(run) = ends.recv() => {
                let now = Instant::now();
                if let Some(at) = began.remove(&run) {
                    window.took(now, "run", now.duration_since(at));
                    window.ended(now);
                }
                if !window.is_over(now) && next < load.runs_max {
                    began.insert(next, now);
                    let (bare, run) = (Arc::clone(&bare), next);
                    sends.spawn(async move { bare.begin(run).await });
                    next += 1;
                }
            }
            _ = tick.tick() => {
                watch.ticked();
                progress.told(&window, now);
            }
        }
    }
    let seconds = window.seconds(closed.unwrap_or_else(Instant::now));
    bare.queue.flush().await?;
    Ok((window, seconds))
}

/// Hands each message to a task of its own; ends only if something fails.
async fn pull(bare: Arc<Bare>) -> Failure {
    let mut messages = match bare.queue.messages().await {
        Ok(messages) => messages,
        Err(error) => return error.into(),
    };
    let mut working: JoinSet<Result<(), Failure>> = JoinSet::new();
    loop {
        tokio::select! {
            next = messages.next() => match next {
                Ok(Some(message)) => {
                    let bare = Arc::clone(&bare);
                    working.spawn(async move { bare.work(&message).await });
                }
                Ok(None) => return Failure::failed("the bare queue ended"),
                Err(error) => return error.into(),
            },
            Some(done) = working.join_next() => match done {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => return failure,
                Err(error) => return Failure::failed(format!("the bare loop broke: {error}")),
            },
        }
    }
}

impl Bare {
    async fn begin(&self, run: u64) -> Result<(), Failure> {
        self.publish(run, 0, 0).await
    }

    /// Publishes all messages of a stage.
    async fn publish(&self, run: u64, stage: usize, version: u64) -> Result<(), Failure> {
        let at = |part| At {
            run,
            stage,
            part,
            version,
        };
        let bodies = (0..self.stages[stage].messages).map(|part| at(part).body());
        Ok(self.queue.publish(bodies.collect()).await?)
    }

    async fn work(&self, message: &BareMessage) -> Result<(), Failure> {
        let Some(at) = At::read(message.body()).filter(|at| at.stage < self.stages.len()) else {
            return Err(Failure::failed(
                "a message of the bare loop is none of its own",
            ));
        };
        let stage = self.stages[at.stage];
        let thread = ThreadId::new(format!("run-{}", at.run));
        let mut version = at.version;
        let is_last = if stage.messages == 1 {
            version = self.append(&thread, version, stage.records).await?;
            true
        } else {
            let done = self.log.put(&thread, u64::from(at.part), b"1").await?;
            done == u64::from(stage.messages)
        };
        if is_last {
            version = self.append(&thread, version, stage.closing).await?;
            if at.stage + 1 < self.stages.len() {
                self.publish(at.run, at.stage + 1, version).await?;
            } else {
                // Nobody listens any more once the window is over.
                let _ = self.ended.send(at.run);
            }
        }
        Ok(message.ack().await?)
    }

    async fn append(
        &self,
        thread: &ThreadId,
        mut version: u64,
        times: u64,
    ) -> Result<u64, Failure> {
        for _ in 0..times {
            version += 1;
            if !self.log.append(thread, version, &self.record).await? {
                return Err(Failure::failed(format!(
                    "an append of the bare loop came behind another head of {thread}"
                )));
            }
        }
        Ok(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_where_its_run_stands() {
        let at = At {
            run: 7,
            stage: 1,
            part: 2,
            version: 3,
        };
        assert_eq!(At::read(&at.body()), Some(at));
        assert_eq!(At::read(b"7 1 2"), None);
        assert_eq!(At::read(b"\xff"), None);
    }

    #[test]
    fn both_forms_write_the_same_records() {
        for scenario in Scenario::ALL {
            let records = |dispatch| -> u64 {
                let stages = stages(scenario, dispatch, 5);
                let of = |stage: &Stage| u64::from(stage.messages) * stage.records + stage.closing;
                stages.iter().map(of).sum()
            };
            assert_eq!(
                records(Dispatch::RunAhead),
                records(Dispatch::Full),
                "{scenario:?}"
            );
        }
    }
}
