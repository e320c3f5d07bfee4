//! Turns: in one process, calls that run a thread's nodes come one after another.
//!
//! The log would keep two of them apart as well, but only after both had run the nodes. What a
//! call runs can be stopped from outside its turn, so that a cancel reaches the node. Nothing
//! here is needed for safety, and nothing of it is shared between processes.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use superstep_protocol::ThreadId;
use tokio::sync::OwnedMutexGuard;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
struct Place {
    line: Arc<tokio::sync::Mutex<()>>,
    running: Mutex<CancellationToken>,
}

/// Who runs which thread of this process.
#[derive(Default)]
pub(crate) struct Turns {
    places: Mutex<BTreeMap<ThreadId, Weak<Place>>>,
}

/// The right to run a thread's nodes, until it is dropped.
pub(crate) struct Turn {
    place: Arc<Place>,
    _held: OwnedMutexGuard<()>,
}

impl Turns {
    /// Waits until nobody else runs `thread`.
    pub(crate) async fn take(&self, thread: &ThreadId) -> Turn {
        let place = self.place(thread);
        let held = Arc::clone(&place.line).lock_owned().await;
        Turn { place, _held: held }
    }

    /// Tells whoever runs `thread` to stop, if anybody does.
    pub(crate) fn stop(&self, thread: &ThreadId) {
        let place = lock(&self.places).get(thread).and_then(Weak::upgrade);
        if let Some(place) = place {
            lock(&place.running).cancel();
        }
    }

    fn place(&self, thread: &ThreadId) -> Arc<Place> {
        let mut places = lock(&self.places);
        if let Some(place) = places.get(thread).and_then(Weak::upgrade) {
            return place;
        }
        places.retain(|_, place| place.strong_count() > 0);
        let place = Arc::new(Place::default());
        places.insert(thread.clone(), Arc::downgrade(&place));
        place
    }
}

impl Turn {
    /// What stops the nodes that are run from now on.
    pub(crate) fn begin(&self) -> CancellationToken {
        let token = CancellationToken::new();
        lock(&self.place.running).clone_from(&token);
        token
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while these are held; what they hold is whole all the same.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
