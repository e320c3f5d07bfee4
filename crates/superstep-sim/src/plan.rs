//! What goes wrong, and when: drawn from a seed, or written down by a test.
//!
//! A worker process is a number, a clock and a token that says whether it lives. Each of its calls to
//! the store or the queue has a label and asks here for its fate. A call of a dead process
//! never returns, so nothing that it does afterwards is seen by anyone: that is what a SIGKILL
//! looks like from outside.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::{
    journal::{Entry, Journal},
    mutant::Mutant,
    world::{SimWorld, SkewedWorld},
};

/// How many calls all workers together may make in one instant: far above what a world that gets
/// on makes. Whoever makes more goes round in circles, and time would never go on.
const CALLS_AT_ONCE_MAX: u64 = 2000;

/// What becomes of one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Fine,
    /// It begins late.
    Slow(Duration),
    /// It does not happen and fails.
    Refused,
    /// It happens, and the caller is told that it failed.
    Lost,
    /// It happens, and its answer comes late.
    SlowAnswer(Duration),
    /// The caller is told that it failed; it happens later.
    LandsLater(Duration),
    /// The process dies before it.
    DiesBefore,
    /// It happens, and the process dies.
    DiesAfter,
}

/// A fate for the call after `skip` others of that label and process.
pub(crate) struct Rule {
    pub(crate) label: &'static str,
    pub(crate) process: Option<usize>,
    pub(crate) skip: usize,
    pub(crate) fate: Fate,
}

/// How likely each fate is, in thousandths.
#[derive(Clone, Debug, Default)]
pub(crate) struct Odds {
    pub(crate) slow: u32,
    pub(crate) refused: u32,
    pub(crate) lost: u32,
    pub(crate) lands_later: u32,
    pub(crate) dies: u32,
    /// Work messages that are published twice.
    pub(crate) twice: u32,
    /// Answers to deliveries that never reach the queue.
    pub(crate) ack_lost: u32,
    /// Deliveries whose lease ends at once, so that another worker gets them too.
    pub(crate) lease_lost: u32,
    /// Work messages that reach the stream long after their publish was acked.
    pub(crate) late: u32,
    /// Work messages that a stream took and forgets.
    pub(crate) vanishes: u32,
    /// Publishes of work that find the stream full.
    pub(crate) full: u32,
}

/// One worker process.
#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) number: usize,
    /// How far its clock is from the true time, in milliseconds.
    pub(crate) skew_ms: i64,
    alive: CancellationToken,
    frozen_until: Arc<Mutex<Option<Instant>>>,
}

impl Process {
    pub(crate) fn kill(&self) {
        self.alive.cancel();
    }

    pub(crate) async fn died(&self) {
        self.alive.cancelled().await;
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.alive.is_cancelled()
    }

    /// Stops it, as SIGSTOP does: nothing that it does is seen before it is thawed.
    pub(crate) fn freeze(&self, time: Duration) {
        *lock(&self.frozen_until) = Some(Instant::now() + time);
    }

    /// Goes on only while the process lives, and once it is not frozen.
    pub(crate) async fn lives(&self) {
        loop {
            if self.is_dead() {
                std::future::pending::<()>().await;
            }
            let until = *lock(&self.frozen_until);
            match until.filter(|until| *until > Instant::now()) {
                Some(until) => sleep_until(until).await,
                None => return,
            }
        }
    }
}

/// The source of everything that goes wrong in one test.
pub(crate) struct Faults {
    pub(crate) world: Arc<SimWorld>,
    odds: Odds,
    /// How far the clocks of processes may be from the true time, in milliseconds.
    skew_ms_max: u64,
    /// The mistake that store and queue make.
    pub(crate) mutant: Option<Mutant>,
    on: AtomicBool,
    dice: Mutex<StdRng>,
    rules: Mutex<Vec<Rule>>,
    journal: Journal,
    processes: Mutex<Vec<Process>>,
    /// The instant of the last call, and how many there were in it.
    calls: Mutex<(Duration, u64)>,
    spins: AtomicBool,
}

impl Faults {
    pub(crate) fn new(seed: u64, odds: Odds) -> Self {
        Self {
            world: Arc::new(SimWorld::new(seed)),
            odds,
            skew_ms_max: 0,
            mutant: None,
            on: AtomicBool::new(true),
            dice: Mutex::new(StdRng::seed_from_u64(seed)),
            rules: Mutex::default(),
            journal: Journal::default(),
            processes: Mutex::default(),
            calls: Mutex::default(),
            spins: AtomicBool::new(false),
        }
    }

    /// Sets the clocks of all later processes apart, by so much at most.
    pub(crate) fn with_skew(mut self, ms_max: u64) -> Self {
        self.skew_ms_max = ms_max;
        self
    }

    /// Store and queue make this mistake.
    pub(crate) fn with_mutant(mut self, mutant: Option<Mutant>) -> Self {
        self.mutant = mutant;
        self
    }

    pub(crate) fn new_process(&self) -> Process {
        let skew_ms = match i64::try_from(self.skew_ms_max).expect("a few seconds") {
            0 => 0,
            max => lock(&self.dice).random_range(-max..=max),
        };
        let mut processes = lock(&self.processes);
        let process = Process {
            number: processes.len(),
            skew_ms,
            alive: CancellationToken::new(),
            frozen_until: Arc::default(),
        };
        processes.push(process.clone());
        process
    }

    /// The processes that live.
    pub(crate) fn living(&self) -> Vec<Process> {
        let processes = lock(&self.processes);
        let living = processes.iter().filter(|process| !process.is_dead());
        living.cloned().collect()
    }

    /// The world as `process` sees it.
    pub(crate) fn world_of(&self, process: &Process) -> Arc<SkewedWorld> {
        Arc::new(SkewedWorld {
            world: Arc::clone(&self.world),
            by_ms: process.skew_ms,
        })
    }

    /// From now on only what a script says goes wrong.
    pub(crate) fn stop(&self) {
        self.on.store(false, Ordering::SeqCst);
        self.note("-- no more faults --");
        for process in self.living() {
            process.freeze(Duration::ZERO);
        }
    }

    /// Whether something of so many thousandths happens.
    pub(crate) fn chance(&self, thousandths: u32) -> bool {
        self.on.load(Ordering::SeqCst) && lock(&self.dice).random_range(0..1000) < thousandths
    }

    pub(crate) fn odds(&self) -> &Odds {
        &self.odds
    }

    pub(crate) fn draw(&self, range: std::ops::Range<u64>) -> u64 {
        lock(&self.dice).random_range(range)
    }

    pub(crate) fn ms(&self, range: std::ops::Range<u64>) -> Duration {
        Duration::from_millis(self.draw(range))
    }

    fn fate(&self, process: &Process, label: &'static str) -> Fate {
        let mut rules = lock(&self.rules);
        for at in 0..rules.len() {
            let rule = &mut rules[at];
            if rule.label != label || rule.process.is_some_and(|p| p != process.number) {
                continue;
            }
            if rule.skip == 0 {
                return rules.remove(at).fate;
            }
            rule.skip -= 1;
        }
        drop(rules);
        if !self.on.load(Ordering::SeqCst) {
            return Fate::Fine;
        }
        let odds = &self.odds;
        let mut dice = lock(&self.dice);
        let roll = dice.random_range(0..1000);
        let short = Duration::from_millis(dice.random_range(1..400));
        let long = Duration::from_millis(dice.random_range(100..9000));
        drop(dice);
        let bands = [
            (odds.slow, Fate::Slow(short)),
            (odds.slow / 2, Fate::SlowAnswer(short)),
            (odds.refused, Fate::Refused),
            (odds.lost, Fate::Lost),
            (odds.lands_later, Fate::LandsLater(long)),
            (odds.dies, Fate::DiesBefore),
            (odds.dies, Fate::DiesAfter),
        ];
        let mut upto = 0;
        for (width, fate) in bands {
            upto += width;
            if roll < upto {
                return fate;
            }
        }
        Fate::Fine
    }

    /// Whether workers go round in circles.
    pub(crate) fn spins(&self) -> bool {
        self.spins.load(Ordering::SeqCst)
    }

    /// Counts a call, and says whether it is one of those that time cannot get past.
    fn is_endless(&self) -> bool {
        let now = self.world.elapsed();
        let mut calls = lock(&self.calls);
        let count = if calls.0 == now { calls.1 + 1 } else { 1 };
        *calls = (now, count);
        if count > CALLS_AT_ONCE_MAX {
            self.spins.store(true, Ordering::SeqCst);
        }
        count > CALLS_AT_ONCE_MAX
    }

    /// Makes one call, as its fate has it. `later` is the same call for when it happens after
    /// its caller was told that it failed.
    pub(crate) async fn call<T, E, L>(
        &self,
        process: &Process,
        label: &'static str,
        unavailable: impl Fn() -> E,
        call: impl Future<Output = Result<T, E>> + Send,
        later: impl FnOnce() -> L + Send,
    ) -> Result<T, E>
    where
        L: Future<Output = ()> + Send + 'static,
    {
        process.lives().await;
        if self.is_endless() {
            std::future::pending::<()>().await;
        }
        let fate = self.fate(process, label);
        match fate {
            Fate::Fine if label == "pull" => {}
            Fate::Fine => self.note(format!("w{} {label}", process.number)),
            fate => self.note(format!("w{} {label} {fate:?}", process.number)),
        }
        let call = async {
            process.lives().await;
            call.await
        };
        let answer = match fate {
            Fate::Fine => call.await,
            Fate::Slow(by) => {
                sleep(by).await;
                call.await
            }
            Fate::SlowAnswer(by) => {
                let answer = call.await;
                sleep(by).await;
                answer
            }
            Fate::Refused => Err(unavailable()),
            Fate::Lost => {
                let _ = call.await;
                Err(unavailable())
            }
            Fate::LandsLater(by) => {
                let call = later();
                tokio::spawn(async move {
                    sleep(by).await;
                    call.await;
                });
                Err(unavailable())
            }
            Fate::DiesBefore => {
                process.kill();
                std::future::pending().await
            }
            Fate::DiesAfter => {
                let _ = call.await;
                process.kill();
                std::future::pending().await
            }
        };
        process.lives().await;
        answer
    }

    /// A place in a worker that is no call: the process may die here.
    pub(crate) async fn reach(&self, process: &Process, label: &'static str) {
        let fine = async { Ok::<(), ()>(()) };
        let _ = self
            .call(process, label, || (), fine, || std::future::ready(()))
            .await;
    }

    pub(crate) fn note(&self, what: impl Into<String>) {
        let at = self.world.elapsed().as_millis();
        self.journal.note(at, what.into());
    }

    /// What happened last, for a person to read.
    #[cfg(test)]
    pub(crate) fn story(&self) -> String {
        self.journal.story()
    }

    /// All that happened.
    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.journal.entries()
    }
}

#[cfg(test)]
impl Faults {
    pub(crate) fn script(&self, label: &'static str, skip: usize, fate: Fate) {
        self.script_for(None, label, skip, fate);
    }

    pub(crate) fn script_for(
        &self,
        process: Option<usize>,
        label: &'static str,
        skip: usize,
        fate: Fate,
    ) {
        lock(&self.rules).push(Rule {
            label,
            process,
            skip,
            fate,
        });
    }

    /// Whether everything that was scripted has happened.
    pub(crate) fn script_is_done(&self) -> bool {
        lock(&self.rules).is_empty()
    }
}

/// A lock that a failed check poisoned is still read for the story.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
