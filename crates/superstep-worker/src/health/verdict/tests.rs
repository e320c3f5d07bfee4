//! Tables: what each state of a worker says to each probe.

use super::*;

const SETTINGS: HealthSettings = HealthSettings {
    deaf_after: Duration::from_secs(30),
    drain_timeout: Duration::from_secs(25),
    store_retry: Duration::from_secs(20),
};

/// A worker as it is 1,000 s after it began, all of it in seconds ago.
struct Case {
    stage: Stage,
    since: u64,
    commands: Facts,
    work: Facts,
    looks: [(&'static str, u64); 2],
    kept: Option<u64>,
    store: (Option<u64>, Option<u64>),
}

#[derive(Clone, Copy)]
struct Facts {
    doing: Doing,
    since: u64,
    pulled: Option<u64>,
    failed: Option<u64>,
}

const PULLING: Facts = Facts {
    doing: Doing::Pulling,
    since: 900,
    pulled: Some(4),
    failed: None,
};

/// A worker that pulls and has nothing to do.
const IDLE: Case = Case {
    stage: Stage::Working,
    since: 900,
    commands: PULLING,
    work: PULLING,
    looks: [("reconciler", 1), ("timers", 0)],
    kept: None,
    store: (Some(9), None),
};

impl Case {
    fn judged(&self) -> Verdict {
        let born = Instant::now();
        let now = born + Duration::from_secs(1_000);
        let ago = |seconds: u64| now - Duration::from_secs(seconds);
        let facts = |facts: Facts| LoopFacts {
            doing: facts.doing,
            since: ago(facts.since),
            pulled: facts.pulled.map(ago),
            failed: facts.failed.map(ago),
            ack_wait: Duration::from_secs(8),
        };
        let snapshot = Snapshot {
            stage: self.stage,
            since: ago(self.since),
            loops: [
                ("commands".into(), facts(self.commands)),
                ("email@1".into(), facts(self.work)),
            ]
            .into(),
            looks: self
                .looks
                .map(|(name, seconds)| {
                    let (came_on, every) = (ago(seconds), Duration::from_secs(1));
                    (name, LookFacts { came_on, every })
                })
                .into(),
            kept: self.kept.map(ago),
            store_answered: self.store.0.map(ago),
            store_failed: self.store.1.map(ago),
            appended: None,
            slots: 32,
            slots_used: 0,
        };
        verdict(&snapshot, now, &SETTINGS)
    }

    /// Which probes say yes, as letters: startup, readiness, liveness.
    #[track_caller]
    fn says(&self, expected: &str, reasons: &[&str]) {
        let verdict = self.judged();
        let probes = [
            ("s", &verdict.startup),
            ("r", &verdict.readiness),
            ("l", &verdict.liveness),
        ];
        let yes: String = probes
            .iter()
            .filter_map(|(letter, probe)| probe.is_ok().then_some(*letter))
            .collect();
        assert_eq!(yes, expected, "{verdict:?}");
        let said: Vec<&String> = probes
            .iter()
            .flat_map(|(_, probe)| &probe.reasons)
            .collect();
        for reason in reasons {
            assert!(
                said.iter().any(|said| said.contains(reason)),
                "{said:?} should say `{reason}`"
            );
        }
    }
}

#[test]
fn a_worker_that_begins_is_only_alive() {
    for (stage, reason) in [
        (Stage::Connecting, "the servers are not reached yet"),
        (Stage::Connected, "the streams are not verified yet"),
        (Stage::StreamsVerified, "the graphs are not registered yet"),
    ] {
        Case { stage, ..IDLE }.says("l", &[reason]);
    }
}

#[test]
fn an_idle_worker_says_yes_to_all() {
    IDLE.says("srl", &[]);
}

#[test]
fn a_worker_that_never_pulled_has_its_time() {
    let fresh = |since| Case {
        commands: Facts {
            since,
            pulled: None,
            ..PULLING
        },
        ..IDLE
    };
    fresh(30).says("srl", &[]);
    fresh(31).says("sr", &["`commands` makes no progress", "31.0 s", "30.0 s"]);
}

#[test]
fn a_deaf_worker_is_not_alive() {
    let deaf = |pulled| Case {
        work: Facts {
            pulled: Some(pulled),
            ..PULLING
        },
        ..IDLE
    };
    deaf(30).says("srl", &[]);
    deaf(31).says("sr", &["`email@1` makes no progress: no pull was answered"]);
}

#[test]
fn a_failed_pull_is_unready_before_it_is_dead() {
    let failing = |pulled| Case {
        commands: Facts {
            pulled: Some(pulled),
            failed: Some(1),
            ..PULLING
        },
        ..IDLE
    };
    failing(9).says("sl", &["the last pull of `commands` failed, 1.0 s ago"]);
    failing(31).says("s", &["no pull was answered for 31.0 s"]);
    // It failed, and has succeeded since.
    Case {
        commands: Facts {
            failed: Some(10),
            ..PULLING
        },
        ..IDLE
    }
    .says("srl", &[]);
}

#[test]
fn a_busy_worker_lives_while_it_keeps_what_it_holds() {
    let busy = |kept| Case {
        work: Facts {
            doing: Doing::Waiting,
            since: 500,
            pulled: Some(500),
            failed: None,
        },
        kept,
        ..IDLE
    };
    busy(Some(3)).says("srl", &[]);
    busy(Some(50)).says("srl", &[]);
    busy(Some(51)).says("sr", &["all slots are used and nothing was kept"]);
    busy(None).says("sr", &["nothing was kept for 500.0 s"]);
}

#[test]
fn a_worker_whose_timers_hang_is_not_alive() {
    let hangs = |timers, reconciler| Case {
        looks: [("timers", timers), ("reconciler", reconciler)],
        ..IDLE
    };
    hangs(50, 50).says("srl", &[]);
    hangs(51, 1).says("sr", &["`timers` makes no progress", "51.0 s", "50.0 s"]);
    hangs(1, 51).says("sr", &["`reconciler` makes no progress"]);
    Case {
        stage: Stage::Draining,
        since: 20,
        ..hangs(90, 90)
    }
    .says("sl", &["it drains"]);
}

#[test]
fn a_loop_that_just_got_its_slot_has_its_time() {
    Case {
        work: Facts {
            since: 1,
            pulled: Some(500),
            ..PULLING
        },
        ..IDLE
    }
    .says("srl", &[]);
}

#[test]
fn a_draining_worker_is_unready_and_alive() {
    let draining = |since| Case {
        stage: Stage::Draining,
        since,
        // It pulls no more.
        commands: Facts {
            pulled: Some(600),
            failed: Some(500),
            ..PULLING
        },
        ..IDLE
    };
    draining(35).says("sl", &["it drains"]);
    draining(36).says("s", &["it has drained for 36.0 s"]);
}

#[test]
fn a_store_that_is_away_is_unready_only() {
    let store = |answered, failed| Case {
        store: (answered, failed),
        ..IDLE
    };
    store(Some(40), Some(2)).says("sl", &["the store was unavailable", "2.0 s ago"]);
    store(None, Some(2)).says("sl", &[]);
    store(Some(1), Some(2)).says("srl", &[]);
    store(None, None).says("srl", &[]);
}

#[test]
fn a_bound_below_two_pulls_is_raised() {
    let settings = WorkerSettings {
        deaf_after: Duration::from_secs(1),
        pull_wait: Duration::from_secs(5),
        ..WorkerSettings::default()
    };
    let bounds = HealthSettings::from(&settings);
    assert_eq!(bounds.deaf_after, Duration::from_secs(10));
}
