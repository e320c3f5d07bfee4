//! One seed, from its faults to its end.
//!
//! The seed says everything: what kind of trouble there is, which graphs run, how the workers are
//! set up, and each roll of the dice after that. Trouble ends; then every thread must come to its
//! end in bounded time, with the values of a run of the same seed in which nothing goes wrong.

use std::{fmt::Write, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::{
    crowd::Crowd,
    graphs::{GRAPHS, comparable},
    journal::Entry,
    ledger::Lenient,
    mutant::Mutant,
    person::Person,
    plan::{Faults, Odds},
    random,
    rig::{Rig, Setup, block_on},
};

/// The longest that a thread may take to its end, once nothing goes wrong any more.
const END: Duration = Duration::from_secs(7200);

/// The longest that nothing may get on, once nothing goes wrong any more, while a thread is not at
/// its end: above all sleeps, pauses and questions of one superstep.
const STALLS: Duration = Duration::from_secs(400);

/// How far behind the clock of a store may be that another takes the place of: what sleeps then
/// sleeps for so much longer.
const BEHIND: Duration = Duration::from_secs(600);

/// What goes wrong in a seed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is there or not, beside the others"
)]
struct Trouble {
    /// Calls fail, workers die, messages come twice.
    faults: bool,
    /// Leases are lost under living workers, streams are full, work messages vanish.
    hints_lost: bool,
    /// The store steps back.
    steps_back: bool,
    /// The store that it steps back to has a clock that is far behind.
    falls_behind: bool,
    /// All streams are lost with what is in them.
    wipes: bool,
    /// Workers stand still and go on.
    freezes: bool,
    /// Clocks are apart.
    skews: bool,
}

impl Trouble {
    fn of(seed: u64) -> Self {
        let faults = Self {
            faults: true,
            ..Self::default()
        };
        match seed % 8 {
            0 | 1 => faults,
            2 => Self {
                hints_lost: true,
                ..faults
            },
            3 => Self {
                steps_back: true,
                falls_behind: seed % 32 == 3,
                ..faults
            },
            4 => Self {
                wipes: true,
                ..faults
            },
            5 => Self {
                freezes: true,
                ..faults
            },
            6 => Self {
                skews: true,
                freezes: true,
                ..faults
            },
            _ => Self {
                hints_lost: true,
                steps_back: true,
                wipes: true,
                freezes: true,
                skews: true,
                falls_behind: seed % 64 == 7,
                ..faults
            },
        }
    }

    fn lenient(self) -> Lenient {
        Lenient {
            steps_back: self.steps_back,
            full: self.hints_lost || self.wipes,
            forgets: self.wipes,
        }
    }

    fn odds(self) -> Odds {
        if !self.faults {
            return Odds::default();
        }
        let odds = Odds {
            slow: 60,
            refused: 30,
            lost: 30,
            lands_later: 10,
            dies: 6,
            twice: 60,
            late: 40,
            ack_lost: 60,
            ..Odds::default()
        };
        if !self.hints_lost {
            return odds;
        }
        Odds {
            lease_lost: 80,
            full: 50,
            vanishes: 50,
            ..odds
        }
    }
}

/// One thread of a seed.
struct Task {
    graph: String,
    turns: usize,
    delays: u64,
    /// Whether many use it beside each other.
    crowded: bool,
}

/// The dice that set a seed up; those of its faults are others.
struct Cast(Faults);

impl Cast {
    fn of(seed: u64) -> Self {
        Self(Faults::new(seed ^ 0xface, Odds::default()))
    }

    fn one<T: Clone>(&self, of: &[T]) -> T {
        let at = self.0.draw(0..of.len() as u64);
        of[usize::try_from(at).expect("an index")].clone()
    }

    fn tasks(&self, seed: u64) -> Vec<Task> {
        let count = self.one(&[1, 2, 2, 3]);
        let graph = |n| {
            if self.0.draw(0..100) < 60 {
                random::name_of(seed * 4 + n)
            } else {
                self.one(&GRAPHS).to_owned()
            }
        };
        let task = |n| Task {
            graph: graph(n),
            turns: self.one(&[1, 1, 1, 2]),
            delays: self.one(&[0, 0, 0, 0, 0, 2, 30]),
            crowded: self.0.draw(0..100) < 20,
        };
        let mut tasks: Vec<Task> = (0..count).map(task).collect();
        for task in &mut tasks {
            // Who comes and goes would have its attempts counted anew each time.
            task.crowded &= task.graph != "poison";
        }
        tasks
    }

    fn setup(&self, seed: u64, trouble: Trouble, tasks: &[Task], mutant: Option<Mutant>) -> Setup {
        let mut graphs: Vec<String> = tasks.iter().map(|task| task.graph.clone()).collect();
        graphs.sort();
        graphs.dedup();
        let mut setup = Setup {
            seed,
            graphs,
            workers: self.one(&[1, 2, 3]),
            node_ms_max: self.one(&[0, 50, 12_000]),
            dedupes: self.one(&[true, false]),
            odds: trouble.odds(),
            lenient: trouble.lenient(),
            mutant,
            ..Setup::default()
        };
        setup.settings.run_ahead_supersteps = self.one(&[0, 1, 100]);
        setup.settings.concurrency = self.one(&[1, 4, 32]);
        if trouble.steps_back {
            setup.durable_after = Duration::from_millis(2500);
        }
        if trouble.falls_behind {
            // Much time may pass: no need to look for timers twice in each second of it.
            setup.settings.timers_every = Duration::from_secs(20);
            setup.settings.reconcile_every = Duration::from_secs(5);
            setup.settings.pull_wait = Duration::from_secs(30);
        }
        if trouble.skews {
            setup.skew_ms_max = self.one(&[50, 500, 2000]);
        }
        setup
    }
}

/// How a seed came out.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Everything that happened, in order.
    pub entries: Vec<Entry>,
    /// What is wrong with it, if anything is.
    pub problem: Option<String>,
}

/// Runs one seed, with a mistake if there is one, and says how it came out.
pub fn run(seed: u64, mutant: Option<Mutant>) -> Outcome {
    let (entries, ended) = block_on(world(seed, Trouble::of(seed), mutant));
    let problem = match ended {
        Err(problem) => Some(problem),
        Ok(values) => match block_on(world(seed, Trouble::default(), None)).1 {
            Err(problem) => Some(format!("with nothing going wrong: {problem}")),
            Ok(calm) => (values != calm).then(|| unlike(&values, &calm)),
        },
    };
    Outcome { entries, problem }
}

/// The first thread that ends unlike in an undisturbed run, and where it differs.
fn unlike(values: &[Value], calm: &[Value]) -> String {
    let differs = values
        .iter()
        .zip(calm)
        .enumerate()
        .find(|(_, (a, b))| a != b);
    let (n, (is, should)) = differs.expect("they differ");
    let mut channels: Vec<&String> = is
        .as_object()
        .into_iter()
        .flatten()
        .map(|(k, _)| k)
        .collect();
    channels.extend(should.as_object().into_iter().flatten().map(|(k, _)| k));
    channels.sort();
    channels.dedup();
    let mut what = format!("same end: t{n} ends unlike in an undisturbed run");
    for channel in channels {
        let (is, should) = (&is[channel], &should[channel]);
        if is == should {
            continue;
        }
        let entries = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let (all, should_all) = (entries(is), entries(should));
        let at = all.iter().zip(&should_all).position(|(a, b)| a != b);
        let at = at.unwrap_or_else(|| all.len().min(should_all.len()));
        let part = |value: &Value, entries: &[Value]| {
            let entry = entries.get(at).map(ToString::to_string);
            let whole = || {
                if value.is_array() {
                    "nothing".to_owned()
                } else {
                    value.to_string()
                }
            };
            entry.unwrap_or_else(whole)
        };
        let (is, should) = (part(is, &all), part(should, &should_all));
        let _ = write!(what, "\n  {channel}[{at}] is {is}, should be {should}");
    }
    what
}

/// Runs a world to its end and gives the values of its threads.
async fn world(
    seed: u64,
    trouble: Trouble,
    mutant: Option<Mutant>,
) -> (Vec<Entry>, Result<Vec<Value>, String>) {
    let cast = Cast::of(seed);
    let tasks = cast.tasks(seed);
    let rig = Rig::start(cast.setup(seed, trouble, &tasks, mutant));
    let ended = see_through(&rig, &tasks, trouble).await;
    if let Err(problem) = &ended {
        rig.faults.note(format!("!! {problem}"));
    }
    rig.shutdown.cancel();
    (rig.faults.entries(), ended)
}

async fn see_through(
    rig: &Arc<Rig>,
    tasks: &[Task],
    trouble: Trouble,
) -> Result<Vec<Value>, String> {
    // What a crowd leaves is compared with nothing.
    let compared = |(_, task): &(usize, &Task)| trouble.faults || !task.crowded;
    let people: Vec<_> = tasks
        .iter()
        .enumerate()
        .filter(compared)
        .map(|(n, task)| {
            if task.crowded {
                let crowd = Crowd::new(rig, format!("t{n}"), task.graph.clone());
                return (n, tokio::spawn(crowd.work()));
            }
            let mut person = Person::new(rig, format!("t{n}"), task.graph.clone());
            person.disturbs = trouble != Trouble::default();
            person.plain = !trouble.skews;
            person.turns = task.turns;
            person.delays = task.delays;
            (n, tokio::spawn(person.work()))
        })
        .collect();
    let troubled = tokio::spawn(make_trouble(trouble, Arc::clone(rig)));
    for (n, person) in people {
        tokio::select! {
            biased;
            done = person => done.map_err(|error| format!("a bug of the simulator: {error}"))?,
            why = stalls(rig) => return Err(format!("liveness: t{n} never ends: {why}")),
        }
    }
    let troubled = troubled.await;
    troubled.map_err(|error| format!("a bug of the simulator: {error}"))?;
    rig.settle().await?;
    let mut values = Vec::new();
    for (n, task) in tasks.iter().enumerate() {
        if task.crowded {
            values.push(Value::Null);
            continue;
        }
        let state = rig.state(&format!("t{n}"));
        let state = state.ok_or_else(|| format!("t{n} is gone"))?;
        values.push(comparable(&state.visible_values()));
    }
    Ok(values)
}

/// Waits until it is plain that a thread never ends, and says by what.
async fn stalls(rig: &Rig) -> &'static str {
    let mut last = (rig.ledger.progress(), Instant::now());
    let mut calm = None;
    loop {
        sleep(Duration::from_secs(1)).await;
        if rig.faults.spins() {
            return "workers make calls without end, and no time passes";
        }
        let progress = rig.ledger.progress();
        if progress != last.0 || !rig.calm.is_cancelled() {
            last = (progress, Instant::now());
        }
        if !rig.calm.is_cancelled() {
            continue;
        }
        let behind = rig.faults.world.store_behind();
        if last.1.elapsed() > STALLS + behind {
            return "nothing gets on any more";
        }
        if calm.get_or_insert_with(Instant::now).elapsed() > END + behind {
            return "it goes on and on";
        }
    }
}

/// Does to the world what no single call suffers, and ends all faults after a while.
async fn make_trouble(trouble: Trouble, rig: Arc<Rig>) {
    let until = Instant::now() + rig.faults.ms(1000..30_000);
    let mut kinds = Vec::new();
    kinds.extend(trouble.steps_back.then_some("step back"));
    kinds.extend(trouble.wipes.then_some("wipe"));
    kinds.extend(trouble.freezes.then_some("freeze"));
    if trouble.skews {
        let by = rig.faults.draw(0..4000).cast_signed() - 2000;
        rig.faults.world.skew_store(by);
    }
    while Instant::now() < until && trouble.faults {
        sleep(rig.faults.ms(10..8000)).await;
        let pick = rig.faults.draw(0..kinds.len().max(1) as u64);
        let pick = usize::try_from(pick).expect("an index");
        match kinds.get(pick).copied() {
            Some("step back") => {
                let changes = usize::try_from(rig.faults.draw(1..8)).expect("a few");
                if rig.store.step_back(changes) && trouble.falls_behind {
                    let by = i64::try_from(BEHIND.as_millis()).expect("minutes");
                    rig.faults.world.skew_store(-by);
                    rig.faults.note("== and its clock is far behind ==");
                }
            }
            Some("wipe") => {
                rig.faults.note("== all streams are lost ==");
                rig.broker.wipe();
            }
            Some(_) => rig.freeze_one(),
            None => {}
        }
    }
    rig.faults.stop();
    rig.calm.cancel();
}
