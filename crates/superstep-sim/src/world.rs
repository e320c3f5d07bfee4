//! Virtual time, skewed as each process sees it, and nonces by seed.
//!
//! All of a world's clocks run at one speed and are set apart: a worker reads its own through
//! the `World` that it is given, the store reads another, and the broker's is the true one.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt, SeedableRng, rngs::StdRng};
use superstep_protocol::{Nonce, UnixMillis};
use superstep_worker::World;
use tokio::time::Instant;

use crate::plan::lock;

/// When every world begins.
const EPOCH_MS: i64 = 1_800_000_000_000;

/// Time and nonces of one world; as a `World` of its own, the true time.
pub(crate) struct SimWorld {
    began: Instant,
    nonces: Mutex<StdRng>,
    /// How far the store's clock is from the true time, in milliseconds.
    store_skew: AtomicI64,
}

impl SimWorld {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            began: Instant::now(),
            nonces: Mutex::new(StdRng::seed_from_u64(seed ^ 0x5eed)),
            store_skew: AtomicI64::new(0),
        }
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    fn skewed(&self, by_ms: i64) -> UnixMillis {
        let elapsed = i64::try_from(self.elapsed().as_millis()).expect("a world is short");
        UnixMillis(u64::try_from(EPOCH_MS + elapsed + by_ms).expect("after 1970"))
    }

    /// Sets the store's clock so far from the true time.
    pub(crate) fn skew_store(&self, by_ms: i64) {
        self.store_skew.store(by_ms, Ordering::SeqCst);
    }

    /// How far the store's clock is behind the true time.
    pub(crate) fn store_behind(&self) -> Duration {
        let ahead = self.store_skew.load(Ordering::SeqCst);
        Duration::from_millis(ahead.min(0).unsigned_abs())
    }

    /// The store's time.
    pub(crate) fn store_now(&self) -> UnixMillis {
        self.skewed(self.store_skew.load(Ordering::SeqCst))
    }
}

impl World for SimWorld {
    fn now(&self) -> UnixMillis {
        self.skewed(0)
    }

    fn nonce(&self) -> Nonce {
        Nonce(lock(&self.nonces).random())
    }
}

/// The world as a process with a wrong clock sees it.
pub(crate) struct SkewedWorld {
    pub(crate) world: Arc<SimWorld>,
    pub(crate) by_ms: i64,
}

impl World for SkewedWorld {
    fn now(&self) -> UnixMillis {
        self.world.skewed(self.by_ms)
    }

    fn nonce(&self) -> Nonce {
        self.world.nonce()
    }
}
