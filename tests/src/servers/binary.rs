//! Which server binaries the tests know, and where each is found.
//!
//! `cargo xtask test` puts them on the machine and names them by environment variables; a plain
//! `cargo test` falls back to `PATH` and to what an earlier run left under the target folder.
//!
//! The rule it keeps: a binary that is not there is a failure that says what to run, or, where
//! skips are counted, a counted skip. It is never a test that passes having done nothing.

use std::path::PathBuf;

use anyhow::bail;

use crate::{may_skip, skip, target_dir};

/// A server program of one kind and age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum ServerBinary {
    /// NATS as the machine has it, or Debian's 2.9.10: the oldest that superstep speaks to.
    #[default]
    Nats,
    /// A current NATS.
    NatsModern,
    /// Redis as the machine has it, or Debian's 7.0.
    Redis,
    /// Redis 6.2: the oldest that superstep speaks to.
    Redis62,
    /// Valkey.
    Valkey,
}

impl ServerBinary {
    /// The environment variable that names the binary.
    #[must_use]
    pub fn env(self) -> &'static str {
        match self {
            Self::Nats => "SUPERSTEP_TEST_NATS",
            Self::NatsModern => "SUPERSTEP_TEST_NATS_MODERN",
            Self::Redis => "SUPERSTEP_TEST_REDIS",
            Self::Redis62 => "SUPERSTEP_TEST_REDIS_62",
            Self::Valkey => "SUPERSTEP_TEST_VALKEY",
        }
    }

    /// The file's name under `target/servers/bin`; `cargo xtask servers` puts it there.
    fn file(self) -> &'static str {
        match self {
            Self::Nats => "nats-server",
            Self::NatsModern => "nats-server-modern",
            Self::Redis => "redis-server",
            Self::Redis62 => "redis-server-6.2",
            Self::Valkey => "valkey-server",
        }
    }

    /// The path of the binary.
    ///
    /// # Errors
    ///
    /// When it is in none of the places; the message says what to run.
    pub fn locate(self) -> anyhow::Result<PathBuf> {
        if let Some(path) = std::env::var_os(self.env()).filter(|path| !path.is_empty()) {
            return Ok(PathBuf::from(path));
        }
        if matches!(self, Self::Nats | Self::Redis) {
            let path = std::env::var_os("PATH").unwrap_or_default();
            if let Some(found) = std::env::split_paths(&path)
                .map(|dir| dir.join(self.file()))
                .find(|p| p.is_file())
            {
                return Ok(found);
            }
        }
        let cached = target_dir().join("servers/bin").join(self.file());
        if cached.is_file() {
            return Ok(cached);
        }
        bail!(
            "no {} on this machine: run `cargo xtask test`, which gets it, or set {} to its path",
            self.file(),
            self.env()
        )
    }

    /// Whether `test` can use this binary; where it cannot and skips are counted, notes the skip.
    ///
    /// # Panics
    ///
    /// When the binary is missing and skips are not counted.
    #[must_use]
    #[track_caller]
    pub fn available_to(self, test: &str) -> bool {
        match self.locate() {
            Ok(_) => true,
            // Here the run that counts skips has just looked for it everywhere, and said so.
            Err(_) if may_skip() => {
                skip(
                    test,
                    &format!("this machine has no {}, nor could one be had", self.file()),
                );
                false
            }
            Err(why) => panic!("{why}"),
        }
    }
}
