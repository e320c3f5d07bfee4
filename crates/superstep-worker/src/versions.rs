//! Versions of a graph: which there are, and whether a thread is to go from one to another.
//!
//! A graph's author says by a policy what becomes of threads that an older version left behind.
//! The rules here are pure: what workers registered and a thread's state in, a version out. That
//! a thread goes at all is decided as everything else, by the protocol.
//!
//! The rule it keeps: the newest version is the one that was registered last for the first time,
//! of those with a live worker; names of versions are names, never compared.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde_json::{Map, Value};
use superstep_checkpoint::{REGISTRATION_TTL, Registration};
use superstep_protocol::{CommandId, GraphId, QueuedRun, Refusal, ThreadState, UnixMillis};

/// Makes the values of a thread fit another version of its graph.
type Migrate =
    Arc<dyn Fn(&str, Map<String, Value>) -> Result<Map<String, Value>, String> + Send + Sync>;

/// What a version of a graph does with threads that began on others.
#[derive(Clone, Default)]
pub enum VersionPolicy {
    /// Work in flight stays with its version: runs, and the questions they wait for. A new run
    /// with input is taken.
    #[default]
    Pinned,
    /// It takes them over as they stand, if it has every node that they wait at.
    Latest,
    /// As `Latest`; a function first makes the values its own.
    Migrate(Migration),
}

impl VersionPolicy {
    /// A policy with a function of the old version's name and the thread's values by channel,
    /// which gives the values as this version has them. It must be pure: it may be called more
    /// than once.
    pub fn migrate<E: fmt::Display>(
        function: impl Fn(&str, Map<String, Value>) -> Result<Map<String, Value>, E>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let function = move |from: &str, values: Map<String, Value>| {
            function(from, values).map_err(|error| error.to_string())
        };
        Self::Migrate(Migration {
            function: Arc::new(function),
        })
    }

    /// The policy as its one word.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Pinned => "pinned",
            Self::Latest => "latest",
            Self::Migrate(_) => "migrate",
        }
    }
}

impl fmt::Debug for VersionPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The function of a migration.
#[derive(Clone)]
pub struct Migration {
    function: Migrate,
}

impl fmt::Debug for Migration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Migration")
    }
}

impl Migration {
    pub(crate) fn migrate(
        &self,
        from: &str,
        values: Map<String, Value>,
    ) -> Result<Map<String, Value>, String> {
        (self.function)(from, values)
    }
}

/// A registered version, as far as these rules go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version {
    pub(crate) graph: GraphId,
    pub(crate) topology: Option<String>,
    /// Whether it takes over threads of other versions.
    pub(crate) takes_over: bool,
    /// Whether it makes their values its own first.
    pub(crate) migrates: bool,
    pub(crate) registered_at: UnixMillis,
    pub(crate) renewed_at: UnixMillis,
    pub(crate) live: bool,
}

impl Version {
    pub(crate) fn of(registration: &Registration, now: UnixMillis) -> Self {
        let about: Value = serde_json::from_slice(&registration.about).unwrap_or_default();
        let policy = about["versions"].as_str();
        Self {
            graph: registration.graph.clone(),
            topology: about["topology_hash"].as_str().map(str::to_owned),
            takes_over: matches!(policy, Some("latest" | "migrate")),
            migrates: policy == Some("migrate"),
            registered_at: registered_at(&about),
            renewed_at: registration.renewed_at,
            live: seen_lately(&about, registration.renewed_at, now),
        }
    }

    /// The order of versions: those with a live worker before those without, then by when they
    /// were registered first. Of several that were in one moment, by the numbers in their names.
    pub(crate) fn rank(&self) -> (bool, UnixMillis, Vec<u64>, &str) {
        let name = self.graph.version.as_str();
        (self.live, self.registered_at, numbers(name), name)
    }
}

/// The numbers in a version's name.
pub(crate) fn numbers(version: &str) -> Vec<u64> {
    version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect()
}

/// When a version was registered first; the beginning of time if nobody said so.
pub(crate) fn registered_at(about: &Value) -> UnixMillis {
    UnixMillis(about["registered_at"].as_u64().unwrap_or_default())
}

/// The workers that renewed a version lately, with when each did.
pub(crate) fn workers_of(about: &Value, now: UnixMillis) -> BTreeMap<String, u64> {
    let workers = about["workers"].as_object().into_iter().flatten();
    let lately = |(id, at): (&String, &Value)| {
        let at = at.as_u64()?;
        (!is_late(UnixMillis(at), now)).then(|| (id.clone(), at))
    };
    workers.filter_map(lately).collect()
}

/// Whether a worker renewed it lately, and has not left.
pub(crate) fn seen_lately(about: &Value, renewed_at: UnixMillis, now: UnixMillis) -> bool {
    if about["workers"].is_object() {
        !workers_of(about, now).is_empty()
    } else {
        !is_late(renewed_at, now)
    }
}

fn is_late(renewed_at: UnixMillis, now: UnixMillis) -> bool {
    let ttl = u64::try_from(REGISTRATION_TTL.as_millis()).unwrap_or(u64::MAX);
    renewed_at.plus_ms(ttl) < now
}

/// The newest version of a graph, live ones before others.
pub(crate) fn newest<'a>(
    versions: impl IntoIterator<Item = &'a Version>,
    name: &str,
) -> Option<&'a Version> {
    let of_graph = versions.into_iter().filter(|v| v.graph.name == *name);
    of_graph.max_by(|a, b| a.rank().cmp(&b.rank()))
}

/// Whether a version has a live worker.
pub(crate) fn is_live(versions: &[Version], graph: &GraphId) -> bool {
    let mut of_graph = versions.iter().filter(|version| version.graph == *graph);
    of_graph.any(|version| version.live)
}

/// Whether the threads of a version wait for workers that are gone, while another version of the
/// graph takes threads over.
pub(crate) fn is_stranded(versions: &[Version], graph: &GraphId) -> bool {
    let mut others = versions.iter().filter(|to| to.graph.name == graph.name);
    !is_live(versions, graph) && others.any(|to| to.live && to.takes_over)
}

/// Where a thread is to go that waits for workers which are not there: a version that takes it
/// over, or back, if it was on its way to one that is gone. `None` if it is to stay.
pub(crate) fn needs_move<'a>(versions: &'a [Version], state: &ThreadState) -> Option<&'a Version> {
    if !state.has_work() {
        return None;
    }
    let find = |graph: &GraphId| versions.iter().find(|version| version.graph == *graph);
    if let Some(moving) = state.moving() {
        if is_live(versions, &moving.to) {
            return None;
        }
        if is_live(versions, &state.graph) {
            return find(&state.graph);
        }
    } else if is_live(versions, &state.graph) {
        return None;
    }
    let to = newest(versions, state.graph.name.as_str())?;
    let takes = to.live && to.takes_over && to.graph != state.graph;
    (takes && !declined(state, to)).then_some(to)
}

/// Whether this very version said that it cannot take the thread as it stands.
fn declined(state: &ThreadState, to: &Version) -> bool {
    let stays = state.stays.as_ref();
    stays.is_some_and(|stays| stays.to == to.graph && stays.topology == to.topology)
}

/// What is to be done before a command is decided.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum First<'a> {
    /// Nothing.
    Nothing,
    /// The thread is to be taken over by this version.
    Move(&'a Version),
    /// As `Move`, for the sake of this command.
    MoveFor(&'a Version),
    /// The command is refused: no version can go on with the thread.
    Refuse(Refusal),
}

/// What a command needs of a thread's graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs<'a> {
    /// Nothing: the protocol alone decides.
    Nothing,
    /// To go on with what waits; under the version that the command names, if it does.
    WhatWaits(Option<&'a GraphId>),
    /// To begin anew under this version, with the values that are there.
    Values(&'a GraphId),
}

/// What is to be done before a command is decided on `state`.
pub(crate) fn before_command<'a>(
    versions: &'a [Version],
    state: &ThreadState,
    command: &CommandId,
    needs: Needs<'_>,
) -> First<'a> {
    let named = match needs {
        Needs::Nothing => return First::Nothing,
        _ if state.deleted => return First::Nothing,
        _ if state.is_busy() => {
            return needs_move(versions, state).map_or(First::Nothing, First::Move);
        }
        // Its own version is no wish if nobody is left of it.
        Needs::WhatWaits(named) => {
            named.filter(|named| **named != state.graph || is_live(versions, named))
        }
        Needs::Values(named) => Some(named),
    };
    let to = match named {
        Some(named) => versions.iter().find(|version| version.graph == *named),
        None => newest(versions, state.graph.name.as_str()),
    };
    let same_graph = |to: &&Version| to.graph.name == state.graph.name && to.graph != state.graph;
    let Some(to) = to.filter(|to| to.live && to.takes_over).filter(same_graph) else {
        return First::Nothing;
    };
    if matches!(needs, Needs::Values(_)) && !to.migrates {
        // A new run leaves nothing waiting, and the values are taken as they are.
        return First::Nothing;
    }
    let own_is_live = is_live(versions, &state.graph);
    // Going on with what waits, its own workers can; new input under values that this version
    // could not make its own must not begin.
    let own_can = own_is_live && matches!(needs, Needs::WhatWaits(_));
    match &state.stays {
        Some(stays) if stays.command.as_ref() == Some(command) => {
            if own_can {
                First::Nothing
            } else {
                First::Refuse(stays.refusal.clone())
            }
        }
        Some(_) if own_can && declined(state, to) => First::Nothing,
        _ => First::MoveFor(to),
    }
}

/// What is to be done before a run of the queue begins that is of another version than the
/// thread.
pub(crate) fn before_queued<'a>(
    versions: &'a [Version],
    state: &ThreadState,
    next: &QueuedRun,
) -> First<'a> {
    let to = versions
        .iter()
        .find(|version| version.graph == next.graph && version.live && version.takes_over);
    let goes_on = next.input.is_null();
    match to.filter(|to| goes_on || to.migrates) {
        None => First::Nothing,
        Some(to) if !declined(state, to) => First::Move(to),
        Some(_) if goes_on && is_live(versions, &state.graph) => First::Nothing,
        Some(_) => {
            let stays = state.stays.as_ref();
            stays.map_or(First::Nothing, |stays| First::Refuse(stays.refusal.clone()))
        }
    }
}

#[cfg(test)]
mod tests;
