//! What fails: workers, servers, and the ways between them, one after the other and overlapping.
//!
//! One fault begins every few hundred milliseconds and each has an end of its own, so several are
//! under way at most moments. A worker that ended by itself (it found no server at its start) is
//! started again, as a supervisor does.
//!
//! The rule it keeps: which faults there are, and for how long, follows from the seed alone.

use std::fmt;
use std::time::{Duration, Instant};

use tokio::task::block_in_place;

use crate::draw::Draw;
use crate::site::{Site, WORKERS};

/// How often each fault happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    killed: u32,
    frozen: u32,
    cut: u32,
    deaf: u32,
    nats_killed: u32,
    nats_emptied: u32,
    redis_killed: u32,
    restarted: u32,
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "workers killed {}, frozen {}; ways cut {}, deaf {}; NATS killed {}, emptied {}; Redis \
             killed {}; workers that ended by themselves {}",
            self.killed,
            self.frozen,
            self.cut,
            self.deaf,
            self.nats_killed,
            self.nats_emptied,
            self.redis_killed,
            self.restarted
        )
    }
}

/// What a fault hits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The process of a worker.
    Process(usize),
    ToNats(usize),
    ToRedis(usize),
    Nats,
    Redis,
}

/// The site, and what is broken in it.
pub(crate) struct Faults {
    site: Site,
    /// What is to be mended, and when.
    broken: Vec<(Instant, Place)>,
    counts: Counts,
}

impl Faults {
    pub(crate) fn new(site: Site) -> Self {
        Self {
            site,
            broken: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Breaks one thing after the other for so long, and gives the site back with all mended but
    /// what `heal` mends.
    pub(crate) async fn disturb(mut self, mut draw: Draw, lasts: Duration) -> (Site, Counts) {
        let ends = Instant::now() + lasts;
        let mut next = Instant::now() + draw.between_ms(1_000, 2_000);
        while Instant::now() < ends {
            // The beat of the disturbance itself, not a wait for anything.
            tokio::time::sleep(Duration::from_millis(20)).await;
            let now = Instant::now();
            block_in_place(|| self.mend(now));
            if now >= next {
                next = now + draw.between_ms(200, 1_200);
                block_in_place(|| self.break_one(&mut draw, now));
            }
        }
        block_in_place(|| self.mend(ends + Duration::from_secs(3600)));
        (self.site, self.counts)
    }

    fn mend(&mut self, now: Instant) {
        let broken = std::mem::take(&mut self.broken);
        for (until, place) in broken {
            if until > now {
                self.broken.push((until, place));
                continue;
            }
            match place {
                Place::Process(n) => {
                    self.site.workers[n].thaw();
                    self.site.workers[n].keep_up();
                }
                Place::ToNats(n) => self.site.workers[n].to_nats.mend(),
                Place::ToRedis(n) => self.site.workers[n].to_redis.mend(),
                Place::Nats => self.site.nats.restart().expect("NATS comes back"),
                Place::Redis => self.site.redis.restart().expect("Redis comes back"),
            }
        }
        for n in 0..WORKERS {
            if !self.is_broken(Place::Process(n)) && self.site.workers[n].keep_up() {
                self.counts.restarted += 1;
            }
        }
    }

    fn is_broken(&self, place: Place) -> bool {
        self.broken.iter().any(|(_, broken)| *broken == place)
    }

    fn break_one(&mut self, draw: &mut Draw, now: Instant) {
        let n = usize::try_from(draw.below(WORKERS as u64)).expect("a few");
        let (fault, deaf) = (draw.below(100), draw.chance(50));
        let (short, long) = (draw.between_ms(100, 1_500), draw.between_ms(300, 4_000));
        let (place, lasts) = match fault {
            0..60 => (Place::Process(n), if fault < 35 { short } else { long }),
            60..74 => (Place::ToNats(n), long),
            74..88 => (Place::ToRedis(n), long),
            88..94 => (Place::Nats, short),
            _ => (Place::Redis, short),
        };
        if self.is_broken(place) {
            return;
        }
        let site = &mut self.site;
        let counts = &mut self.counts;
        match place {
            Place::Process(n) if fault < 35 => {
                site.workers[n].kill();
                counts.killed += 1;
            }
            Place::Process(n) => {
                site.workers[n].freeze();
                counts.frozen += 1;
            }
            Place::ToNats(n) | Place::ToRedis(n) => {
                let worker = &site.workers[n];
                let way = if place == Place::ToNats(n) {
                    &worker.to_nats
                } else {
                    &worker.to_redis
                };
                if deaf {
                    way.deafen();
                    counts.deaf += 1;
                } else {
                    way.cut();
                    counts.cut += 1;
                }
            }
            Place::Nats if fault < 91 => {
                site.nats.kill();
                counts.nats_killed += 1;
            }
            Place::Nats => {
                site.nats.wipe().expect("NATS loses everything");
                counts.nats_emptied += 1;
            }
            Place::Redis => {
                site.redis.kill();
                counts.redis_killed += 1;
            }
        }
        self.broken.push((now + lasts, place));
    }
}
