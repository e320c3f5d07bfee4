//! The world's two inputs that the pure crates may not have: time and randomness.
//!
//! One trait, so that a simulator can supply both. Everything that needs a time or a nonce in
//! this crate takes it from here.

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use superstep_protocol::{Nonce, UnixMillis};

/// Where times and nonces come from.
pub trait World: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> UnixMillis;
    /// A nonce that nobody drew before.
    fn nonce(&self) -> Nonce;
}

/// The system's clock and random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemWorld;

impl World for SystemWorld {
    fn now(&self) -> UnixMillis {
        let since = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
    }

    fn nonce(&self) -> Nonce {
        Nonce(rand::random())
    }
}

/// A shared [`World`].
pub type SharedWorld = Arc<dyn World>;
