//! Everything at once, by seed: small graphs, commands sent twice, early and too late, cancels
//! and updates in between, and every fault that the wrappers know.
//!
//! Each seed is a world of its own with virtual time. When the faults stop, every thread must
//! come to its end with the values of an undisturbed run. `SUPERSTEP_FAULT_SEEDS=n` runs so
//! many seeds of each kind, `SUPERSTEP_FAULT_SEED=x` one.

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use serde_json::{Value, json};
use superstep_protocol::ThreadState;
use superstep_queue::CommandKind;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    check::Lenient,
    graphs::{GRAPHS, answer_to, comparable},
    plan::{Faults, Odds},
    rig::{Rig, Setup, block_on, is_done},
};

/// How many seeds of each kind are run unless the environment says otherwise.
const SEEDS: u64 = 20;
/// How long a command may be without an effect before its sender sends it again.
const IMPATIENT: Duration = Duration::from_secs(20);

/// What goes wrong in a kind of seeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Everything that redelivery alone must heal.
    Crashes,
    /// Also leases lost under living workers and full streams, which need someone to look at
    /// watched threads.
    LostLeases,
    /// The store steps back.
    StepsBack,
    /// Nothing: what the others are compared with.
    Undisturbed,
}

impl Kind {
    fn setup(self, seed: u64) -> Setup {
        let draw = Faults::new(seed ^ 0xface, Odds::default());
        let mut setup = Setup {
            seed,
            workers: 1 + usize::try_from(draw.draw(0..3)).unwrap(),
            node_ms_max: [0, 50, 12_000][usize::try_from(draw.draw(0..3)).unwrap()],
            dedupes: draw.draw(0..2) == 0,
            ..Setup::default()
        };
        setup.settings.run_ahead_supersteps =
            [0, 1, 100][usize::try_from(draw.draw(0..3)).unwrap()];
        setup.settings.concurrency = [1, 4, 32][usize::try_from(draw.draw(0..3)).unwrap()];
        let odds = Odds {
            slow: 60,
            refused: 30,
            lost: 30,
            lands_later: 10,
            dies: 6,
            twice: 60,
            ack_lost: 60,
            ..Odds::default()
        };
        match self {
            Self::Undisturbed => {}
            Self::Crashes => setup.odds = odds,
            Self::LostLeases => {
                setup.odds = Odds {
                    lease_lost: 80,
                    full: 50,
                    ..odds
                };
                setup.lenient.full = true;
            }
            Self::StepsBack => {
                setup.odds = odds;
                setup.durable_after = Duration::from_millis(2500);
                setup.lenient = Lenient {
                    steps_back: true,
                    full: false,
                };
            }
        }
        setup
    }
}

/// A person who wants a thread to come to its end.
struct Person {
    rig: Arc<Rig>,
    thread: String,
    graph: &'static str,
    disturbs: bool,
    made: usize,
    /// The last start, which is sent again until it is decided.
    last_start: String,
}

impl Person {
    fn name(&mut self, what: &str) -> String {
        self.made += 1;
        format!("{}-{what}-{}", self.thread, self.made)
    }

    fn chance(&self, percent: u64) -> bool {
        self.rig.faults.draw(0..100) < percent
    }

    /// Sends a command, sometimes more than once.
    async fn send(&self, kind: CommandKind, target: &str, id: &str, body: &Value) {
        self.rig.send(kind, target, id, body).await;
        while self.disturbs && self.chance(20) {
            sleep(self.rig.faults.ms(0..4000)).await;
            self.rig.send(kind, target, id, body).await;
        }
    }

    async fn start(&mut self) {
        if self.last_start.is_empty() || self.rig.is_decided(&self.thread, &self.last_start).await {
            self.last_start = self.name("start");
        }
        let id = self.last_start.clone();
        let body = json!({"thread_id": self.thread, "input": {"count": 4}});
        let graph = self.graph;
        self.send(CommandKind::Start, graph, &id, &body).await;
    }

    /// Sees the thread through to its end.
    async fn work(mut self) {
        if self.disturbs && self.chance(20) {
            // Too early, or just in time: either way it comes to an outcome.
            let (id, thread) = (self.name("early"), self.thread.clone());
            let kind = if self.chance(50) {
                CommandKind::Cancel
            } else {
                CommandKind::Resume
            };
            let body = json!({"resume": "early"});
            self.send(kind, &thread, &id, &body).await;
        }
        self.start().await;
        let mut moved = (None, Instant::now());
        loop {
            sleep(self.rig.faults.ms(50..700)).await;
            self.rig.check.assert_nothing_wrong();
            let state = self.rig.state(&self.thread);
            let head = state.as_ref().map(|state| state.head);
            if moved.0 != head {
                moved = (head, Instant::now());
            }
            let stands = moved.1.elapsed() > IMPATIENT;
            match state {
                None if stands => {
                    moved.1 = Instant::now();
                    self.start().await;
                }
                // What is there may yet be lost to a step back.
                Some(state) if is_done(&state) && self.rig.calm.is_cancelled() => return,
                Some(state) if is_done(&state) => {}
                None => {}
                Some(state) => self.push(&state, stands).await,
            }
            if stands {
                moved.1 = Instant::now();
            }
        }
    }

    /// Does what brings the thread on, and now and then what does not.
    async fn push(&mut self, state: &ThreadState, stands: bool) {
        let thread = self.thread.clone();
        if self.disturbs && self.chance(3) {
            let id = self.name("cancel");
            self.send(CommandKind::Cancel, &thread, &id, &json!({}))
                .await;
        }
        let has_input = state.checkpoint.values.contains_key("count");
        let one_by_one = matches!(self.graph, "chain" | "twice");
        if self.disturbs && has_input && one_by_one && self.chance(3) {
            let id = self.name("update");
            let body = json!({"values": {"note": id}});
            self.send(CommandKind::Update, &thread, &id, &body).await;
        }
        let open: Vec<_> = state.open_questions().map(|(_, q)| q.clone()).collect();
        for question in &open {
            if !self.chance(40) && !stands {
                continue;
            }
            let id = self.name("answer");
            let value = answer_to(&question.payload, &id);
            let body = if open.len() == 1 && self.chance(30) {
                json!({"resume": value})
            } else {
                json!({"resume": value, "interrupt_id": question.id})
            };
            self.send(CommandKind::Resume, &thread, &id, &body).await;
        }
        if state.is_busy() || !open.is_empty() || !(self.chance(40) || stands) {
            return;
        }
        if state.tasks.is_empty() {
            // Cancelled before its input was taken, or updated after its end.
            self.start().await;
        } else {
            let id = self.name("retry");
            self.send(CommandKind::Retry, &thread, &id, &json!({}))
                .await;
        }
    }
}

/// Runs one seed to its end and gives the values of its threads.
async fn run(kind: Kind, seed: u64, graphs: &[&'static str]) -> (Vec<Value>, String) {
    let mut setup = kind.setup(seed);
    setup.graphs = graphs.to_vec();
    let rig = Rig::start(setup);
    let disturbs = kind != Kind::Undisturbed;
    let people: Vec<_> = graphs
        .iter()
        .enumerate()
        .map(|(n, graph)| {
            let person = Person {
                rig: Arc::clone(&rig),
                thread: format!("t{n}"),
                graph,
                disturbs,
                made: 0,
                last_start: String::new(),
            };
            tokio::spawn(person.work())
        })
        .collect();
    let troubled = tokio::spawn(trouble(kind, Arc::clone(&rig)));
    for person in people {
        let done = timeout(Duration::from_secs(3600), person).await;
        done.unwrap_or_else(|_| panic!("a thread never ends\n{}", rig.faults.story()))
            .unwrap();
    }
    troubled.await.unwrap();
    rig.rest().await;
    let mut values = Vec::new();
    for n in 0..graphs.len() {
        let state = rig.state(&format!("t{n}")).unwrap();
        values.push(comparable(&state.visible_values()));
    }
    (values, rig.faults.story())
}

/// Makes the store step back now and then, and ends all faults after a while.
async fn trouble(kind: Kind, rig: Arc<Rig>) {
    let until = Instant::now() + rig.faults.ms(1000..30_000);
    while Instant::now() < until && kind != Kind::Undisturbed {
        sleep(rig.faults.ms(10..8000)).await;
        if kind == Kind::StepsBack {
            let changes = usize::try_from(rig.faults.draw(1..8)).unwrap();
            rig.store.step_back(changes);
        }
    }
    rig.faults.stop();
    rig.calm.cancel();
    if matches!(kind, Kind::LostLeases | Kind::StepsBack) {
        // Twice: who is still at work now may be the last one who knows of its work.
        for _ in 0..2 {
            sleep(Duration::from_secs(40)).await;
            rig.recover().await.unwrap();
        }
    }
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn run_seeds(kind: Kind) {
    let seeds = match from_env("SUPERSTEP_FAULT_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..from_env("SUPERSTEP_FAULT_SEEDS").unwrap_or(SEEDS),
    };
    let (undisturbed, _) = block_on(run(Kind::Undisturbed, 0, &GRAPHS));
    let expected: BTreeMap<_, _> = GRAPHS.into_iter().zip(undisturbed).collect();
    for seed in seeds {
        let graphs = [
            GRAPHS[usize::try_from(seed).unwrap() % GRAPHS.len()],
            GRAPHS[usize::try_from(seed).unwrap() / GRAPHS.len() % GRAPHS.len()],
        ];
        let ran = std::panic::catch_unwind(AssertUnwindSafe(|| {
            let (values, story) = block_on(run(kind, seed, &graphs));
            for (values, graph) in values.iter().zip(&graphs) {
                assert_eq!(
                    *values, expected[graph],
                    "unlike an undisturbed run\n{story}"
                );
            }
        }));
        if let Err(panic) = ran {
            eprintln!("the seed that failed: SUPERSTEP_FAULT_SEED={seed} of {kind:?}, {graphs:?}");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn every_thread_ends_well_under_crashes() {
    run_seeds(Kind::Crashes);
}

#[test]
fn every_thread_ends_well_though_leases_are_lost() {
    run_seeds(Kind::LostLeases);
}

#[test]
fn every_thread_ends_well_though_the_store_steps_back() {
    run_seeds(Kind::StepsBack);
}

#[test]
fn a_seed_tells_its_story_the_same_way_twice() {
    for seed in [3, 10, 17] {
        let graphs = ["both", "asking_fan"];
        let (_, once) = block_on(run(Kind::Crashes, seed, &graphs));
        let (_, again) = block_on(run(Kind::Crashes, seed, &graphs));
        let differs = once.lines().zip(again.lines()).find(|(a, b)| a != b);
        assert_eq!(differs, None);
    }
}
