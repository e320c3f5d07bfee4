//! Keeps so many runs in flight, from their start commands to the events of their ends.
//!
//! One task sends commands and listens to all events of the graph: as the service would that uses
//! superstep, and cheap enough that the load is the servers' and the workers'. Whether a run ended
//! right is the scenario's to say and `verdict`'s to count.
//!
//! The rule it keeps: a run that nothing was heard of for too long is wrong, and no load goes on
//! for ever.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use serde_json::Value;
use superstep_protocol::{GraphName, ThreadId};
use superstep_queue::{
    CommandKind, CommandMessage, EventFilter, Headers, Queue, Received, header, subject::Subjects,
};
use superstep_wire::{Event, EventKind, ResumeCommand, StartCommand, decode, encode};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{
    progress::Progress,
    scenario::{Scenario, Size, resumed_us, unix_us},
    verdict::Tally,
    window::{Span, Window},
};
use crate::exit::{Exit, Failure};

/// After so much that is wrong no more is begun.
const WRONG_MAX: u64 = 100;
/// How often progress is told, and the parts looked at.
const TICK: Duration = Duration::from_millis(250);

/// What to do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    pub(crate) scenario: Scenario,
    pub(crate) size: Size,
    /// How many runs are under way at once.
    pub(crate) in_flight: u64,
    pub(crate) span: Span,
    /// The most runs that are begun, whatever the time.
    pub(crate) runs_max: u64,
    /// How long a run may take, once no more are begun.
    pub(crate) patience: Duration,
}

/// Something that is done at every tick, and when the window opens and closes.
pub(crate) trait Watch {
    /// The window opened.
    fn opened(&mut self);
    /// Time passed.
    fn ticked(&mut self);
    /// The window closed.
    fn closed(&mut self);
}

/// What became of a load.
#[derive(Debug)]
pub(crate) struct Driven {
    pub(crate) window: Window,
    pub(crate) tally: Tally,
    /// How long the window was open, in seconds.
    pub(crate) seconds: f64,
}

/// Where a run is.
#[derive(Clone, Copy, Debug)]
enum Phase {
    Started(Instant),
    Resumed { at: Instant, unix_us: u64 },
}

struct Driver<'a> {
    load: &'a Load,
    queue: Arc<dyn Queue>,
    subjects: &'a Subjects,
    window: Window,
    tally: Tally,
    under_way: HashMap<u64, Phase>,
    next: u64,
    sends: JoinSet<(u64, Result<(), superstep_queue::Error>)>,
}

/// Drives the load to its end.
pub(crate) async fn drive(
    queue: Arc<dyn Queue>,
    subjects: &Subjects,
    load: &Load,
    progress: &Progress,
    watch: &mut dyn Watch,
    stop: &CancellationToken,
) -> Result<Driven, Failure> {
    let filter = EventFilter {
        graph: Some(GraphName::new(load.scenario.name())),
        ..EventFilter::default()
    };
    let mut feed = queue.events(&filter).await?;
    let mut driver = Driver {
        load,
        queue,
        subjects,
        window: Window::new(load.span),
        tally: Tally::default(),
        under_way: HashMap::new(),
        next: 0,
        sends: JoinSet::new(),
    };
    for _ in 0..load.in_flight {
        driver.begin();
    }
    let mut tick = tokio::time::interval(TICK);
    let (mut opened, mut closed) = (false, None);
    loop {
        let now = Instant::now();
        if !opened && now >= driver.window.opens() {
            opened = true;
            watch.opened();
        }
        if closed.is_none() && driver.is_over(now) {
            closed = Some(now);
            watch.closed();
        }
        if let Some(at) = closed {
            if driver.under_way.is_empty() {
                break;
            }
            if now.duration_since(at) >= load.patience {
                driver.give_up();
                break;
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(stopped()),
            received = feed.next() => match received? {
                Some(received) => driver.hear(&received),
                None => return Err(Failure::failed("the events ended before the runs")),
            },
            Some(sent) = driver.sends.join_next() => driver.sent(sent),
            _ = tick.tick() => {
                watch.ticked();
                progress.told(&driver.window, now);
            }
        }
    }
    let seconds = driver.window.seconds(closed.unwrap_or_else(Instant::now));
    Ok(Driven {
        seconds,
        window: driver.window,
        tally: driver.tally,
    })
}

/// The failure of a load that was stopped from the keyboard.
pub(crate) fn stopped() -> Failure {
    Failure::new(Exit::Stopped, "stopped before it was over; nothing is told")
}

impl Driver<'_> {
    fn is_over(&self, now: Instant) -> bool {
        self.window.is_over(now)
            || self.next >= self.load.runs_max
            || self.tally.wrong_so_far() >= WRONG_MAX
    }

    fn begin(&mut self) {
        if self.is_over(Instant::now()) {
            return;
        }
        let number = self.next;
        self.next += 1;
        let scenario = self.load.scenario;
        let body = encode::body(&StartCommand {
            thread_id: Some(thread(number).to_string()),
            input: Some(scenario.input(number, self.load.size)),
            ..StartCommand::default()
        });
        self.tally.begun();
        self.under_way
            .insert(number, Phase::Started(Instant::now()));
        self.send(number, CommandKind::Start, scenario.name().to_owned(), body);
    }

    fn send(&mut self, number: u64, kind: CommandKind, target: String, body: Vec<u8>) {
        let id = format!("{}.{number}", kind.as_str());
        let command = CommandMessage {
            kind,
            target,
            headers: Headers::from([(header::MSG_ID.to_owned(), id)]),
            body: Bytes::from(body),
        };
        let queue = Arc::clone(&self.queue);
        self.sends.spawn(async move {
            let sent = queue.publish_command(&command).await;
            (number, sent.map(drop))
        });
    }

    fn sent(
        &mut self,
        sent: Result<(u64, Result<(), superstep_queue::Error>), tokio::task::JoinError>,
    ) {
        match sent {
            Ok((_, Ok(()))) => {}
            Ok((number, Err(error))) => {
                let why = format!("its command was not stored: {error}");
                self.over(number, &why);
            }
            Err(error) => self.tally.wrong(None, &format!("a send broke: {error}")),
        }
    }

    fn hear(&mut self, received: &Received) {
        let Some(kind) = kind_of(&received.subject, self.subjects) else {
            return;
        };
        // Most of what is told needs no answer, and reading it would cost more than the rest.
        if matches!(kind, "run_started" | "resume_accepted") {
            return;
        }
        let event = match decode::event(&received.body) {
            Ok(event) => event,
            Err(error) => {
                self.tally
                    .wrong(None, &format!("an event cannot be read: {error}"));
                return;
            }
        };
        let Some(number) = number(&event.thread_id) else {
            self.tally
                .wrong(None, &format!("an event of {}", event.thread_id));
            return;
        };
        let now = Instant::now();
        match event.kind {
            EventKind::RunCompleted => self.completed(number, &event, now),
            EventKind::Interrupt => self.asked(number, &event, now),
            EventKind::RunFailed
            | EventKind::RunCancelled
            | EventKind::StartRefused
            | EventKind::ResumeRefused
            | EventKind::DeadLetter => self.over(number, &went_wrong(&event)),
            _ => {}
        }
    }

    fn completed(&mut self, number: u64, event: &Event, now: Instant) {
        let (scenario, size) = (self.load.scenario, self.load.size);
        let none = Value::Null;
        let values = event.values.as_ref().unwrap_or(&none);
        let right = scenario.check(number, size, values);
        if !self.tally.ended(number, &event.event_id, right) {
            return;
        }
        match self.under_way.remove(&number) {
            Some(Phase::Started(at)) => {
                self.window.took(now, "run", now.duration_since(at));
                if scenario == Scenario::Interrupt {
                    self.tally
                        .wrong(Some(number), "it ended without its question");
                }
            }
            Some(Phase::Resumed { at, unix_us }) => {
                self.window.took(now, "resume", now.duration_since(at));
                if let Some(resumed) = resumed_us(values) {
                    let to_node = Duration::from_micros(resumed.saturating_sub(unix_us));
                    self.window.took(now, "resume_to_node", to_node);
                }
            }
            // It was given up before, and is counted as wrong.
            None => {}
        }
        self.window.ended(now);
        self.begin();
    }

    fn asked(&mut self, number: u64, event: &Event, now: Instant) {
        let Some(Phase::Started(at)) = self.under_way.get(&number).copied() else {
            return;
        };
        let Some(question) = &event.interrupt else {
            self.over(number, "an interrupt event has no question");
            return;
        };
        self.window.took(now, "ask", now.duration_since(at));
        let resumed = Phase::Resumed {
            at: now,
            unix_us: unix_us(),
        };
        self.under_way.insert(number, resumed);
        let body = encode::body(&ResumeCommand {
            resume: Some(Scenario::answer(number)),
            interrupt_id: Some(question.interrupt_id.clone()),
            ..ResumeCommand::default()
        });
        self.send(
            number,
            CommandKind::Resume,
            thread(number).to_string(),
            body,
        );
    }

    /// A run came to nothing.
    fn over(&mut self, number: u64, why: &str) {
        self.tally.wrong(Some(number), why);
        if self.under_way.remove(&number).is_some() {
            self.begin();
        }
    }

    fn give_up(&mut self) {
        let left: Vec<u64> = self.under_way.drain().map(|(number, _)| number).collect();
        let why = format!("it did not end within {:?}", self.load.patience);
        for number in left {
            self.tally.wrong(Some(number), &why);
        }
    }
}

fn went_wrong(event: &Event) -> String {
    let why = match (&event.error, &event.refusal) {
        (Some(error), _) => format!("{}: {}", error.kind, error.message),
        (None, Some(refusal)) => refusal.message.clone(),
        (None, None) => String::new(),
    };
    format!("{} {why}", event.kind.as_str())
}

/// The thread of a run.
pub(crate) fn thread(number: u64) -> ThreadId {
    ThreadId::new(format!("run-{number}"))
}

fn number(thread: &str) -> Option<u64> {
    thread.strip_prefix("run-")?.parse().ok()
}

/// The kind that an event's subject names.
fn kind_of<'a>(subject: &'a str, subjects: &Subjects) -> Option<&'a str> {
    let rest = subject.strip_prefix(subjects.prefix())?.strip_prefix('.')?;
    let rest = rest.strip_prefix(subjects.namespace())?;
    rest.strip_prefix(".events.")?.split('.').next()
}
