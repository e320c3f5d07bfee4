//! Who waits for what, and how they learn that it came.
//!
//! What this process stores rings the bell of its topic. What another process stores is
//! noticed by `PRAGMA data_version`, which costs a look at shared memory: asked at most every
//! [`POLL`], and only while somebody waits. A bell says "look again", nothing more, so one
//! ring too many is only a look; the rule it keeps is that there is never one too few.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use rusqlite::Connection;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

use crate::{failure::Failure, schema::open_reader};

/// How late at most this process learns what another one stored.
pub(super) const POLL: Duration = Duration::from_millis(50);

/// What can be waited for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Topic {
    /// Messages of a lane.
    Lane(String),
    /// Events.
    Events,
    /// Anything from other processes.
    Others,
}

#[derive(Debug)]
pub(super) struct Wake {
    path: PathBuf,
    bells: Mutex<HashMap<Topic, watch::Sender<()>>>,
    others: Mutex<Others>,
}

/// The look at what other processes, and our own writer, commit.
#[derive(Debug)]
struct Others {
    connection: Option<Connection>,
    version: Option<i64>,
    next_look: Instant,
}

impl Wake {
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            bells: Mutex::default(),
            others: Mutex::new(Others {
                connection: None,
                version: None,
                next_look: Instant::now(),
            }),
        }
    }

    /// A bell that rings from now on.
    pub(super) fn bell(&self, topic: Topic) -> watch::Receiver<()> {
        let mut bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        let bell = bells.entry(topic).or_insert_with(|| watch::Sender::new(()));
        bell.subscribe()
    }

    /// Wakes those who wait for `topic`.
    pub(super) fn ring(&self, topic: &Topic) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bell) = bells.get(topic) {
            bell.send_replace(());
        }
    }

    /// Wakes everyone.
    pub(super) fn ring_all(&self) {
        let bells = self.bells.lock().unwrap_or_else(PoisonError::into_inner);
        for bell in bells.values() {
            bell.send_replace(());
        }
    }

    /// Waits until the bell rings or `until` comes, looking after other processes meanwhile.
    /// The caller marked the bell unchanged before it looked for itself.
    pub(super) async fn wait(&self, bell: &mut watch::Receiver<()>, until: Instant) {
        loop {
            let now = Instant::now();
            if now >= until {
                return;
            }
            tokio::select! {
                // The sender lives in `self`.
                _ = bell.changed() => return,
                () = sleep_until(until.min(now + POLL)) => self.look_after_others(),
            }
        }
    }

    /// Rings every bell if anything was committed since the last look.
    pub(super) fn look_after_others(&self) {
        let changed = {
            let mut others = self.others.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if now < others.next_look {
                return;
            }
            // A little less than the period of those who wait, so that no turn is missed.
            others.next_look = now + POLL / 2;
            let version = others.look(&self.path).ok();
            // If the look failed, whoever is woken asks for itself, and is told what is wrong.
            version.is_none() || std::mem::replace(&mut others.version, version) != version
        };
        if changed {
            self.ring_all();
        }
    }
}

impl Others {
    fn look(&mut self, path: &Path) -> Result<i64, Failure> {
        let reused = self.connection.take();
        if reused.is_none() {
            // The version counts from the connection's own beginning.
            self.version = None;
        }
        let connection = reused.map_or_else(|| open_reader(path), Ok)?;
        let version = connection
            .prepare_cached("PRAGMA data_version")?
            .query_row((), |row| row.get(0))?;
        self.connection = Some(connection);
        Ok(version)
    }
}
