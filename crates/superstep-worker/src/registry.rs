//! The registry of graphs: what this process says it can run, and what all workers say.
//!
//! Deciders read it to choose a version and to check an input before a run begins. It is read
//! from the store at most every so often; a graph that is missing is looked for again at once.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::Value;
use superstep_checkpoint::{REGISTRATION_TTL, Registration};
use superstep_protocol::{GraphId, Refusal, UnixMillis};

use crate::{error::Error, graphs::Graphs, input::InputSchema, threads::Threads};

/// How long what was read counts as current.
const FRESH: Duration = Duration::from_secs(2);

#[derive(Default)]
struct Known {
    read_at: Option<tokio::time::Instant>,
    graphs: Vec<Arc<Entry>>,
}

struct Entry {
    registration: Registration,
    input: Option<InputSchema>,
}

/// What workers registered.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    known: Arc<Mutex<Known>>,
}

impl Registry {
    /// Registers the graphs of this process.
    pub(crate) async fn register(threads: &Threads, graphs: &Graphs) -> Result<(), Error> {
        for graph in graphs.iter() {
            let about = Bytes::from(graph.about().to_string());
            let registered = threads.log().register(graph.id(), about);
            threads
                .noted("other", registered)
                .await
                .map_err(Error::Store)?;
        }
        Ok(())
    }

    /// The graph and version that a start is for: the version that is asked for, else the
    /// highest one with a live worker, else the highest.
    pub(crate) async fn choose(
        &self,
        threads: &Threads,
        name: &str,
        version: Option<&str>,
        input: &Value,
    ) -> Result<Result<GraphId, Refusal>, Error> {
        let entry = match self.entry(threads, name, version).await? {
            Ok(entry) => entry,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(Err(refusal)) = entry.input.as_ref().map(|schema| schema.check(input)) {
            return Ok(Err(refusal));
        }
        Ok(Ok(entry.registration.graph.clone()))
    }

    /// As [`choose`](Self::choose), where there is no input to be checked.
    pub(crate) async fn newest(
        &self,
        threads: &Threads,
        name: &str,
    ) -> Result<Result<GraphId, Refusal>, Error> {
        let entry = self.entry(threads, name, None).await?;
        Ok(entry.map(|entry| entry.registration.graph.clone()))
    }

    async fn entry(
        &self,
        threads: &Threads,
        name: &str,
        version: Option<&str>,
    ) -> Result<Result<Arc<Entry>, Refusal>, Error> {
        let mut entry = None;
        for look_again in [false, true] {
            let known = self.read(threads, look_again).await?;
            let now = threads.world().now();
            entry = known
                .iter()
                .filter(|entry| entry.registration.graph.name == *name)
                .filter(|entry| version.is_none_or(|v| entry.registration.graph.version == *v))
                .max_by_key(|entry| rank(&entry.registration, now))
                .cloned();
            if entry.is_some() {
                break;
            }
        }
        let Some(entry) = entry else {
            let known = self.read(threads, false).await?;
            let names: Vec<String> = known
                .iter()
                .map(|entry| entry.registration.graph.to_string())
                .collect();
            return Ok(Err(Refusal::UnknownGraph {
                graph: version.map_or_else(|| name.to_owned(), |v| format!("{name}@{v}")),
                known: if names.is_empty() {
                    "none".to_owned()
                } else {
                    names.join(", ")
                },
            }));
        };
        Ok(Ok(entry))
    }

    async fn read(&self, threads: &Threads, again: bool) -> Result<Vec<Arc<Entry>>, Error> {
        {
            let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let fresh = known.read_at.is_some_and(|at| at.elapsed() < FRESH);
            if fresh && !again {
                return Ok(known.graphs.clone());
            }
        }
        let registrations = threads.log().registrations().await.map_err(Error::Store)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let graphs = registrations
            .into_iter()
            .map(|registration| {
                let same = known.graphs.iter().find(|old| {
                    old.registration.graph == registration.graph
                        && old.registration.about == registration.about
                });
                // Compiling a schema is worth keeping; the time of renewal is not.
                match same {
                    Some(old) if old.registration == registration => Arc::clone(old),
                    _ => Arc::new(Entry {
                        input: validator(&registration),
                        registration,
                    }),
                }
            })
            .collect::<Vec<_>>();
        known.graphs.clone_from(&graphs);
        known.read_at = Some(tokio::time::Instant::now());
        Ok(graphs)
    }
}

fn validator(registration: &Registration) -> Option<InputSchema> {
    let about: Value = serde_json::from_slice(&registration.about).ok()?;
    let schema = about
        .get("input_schema")
        .filter(|schema| !schema.is_null())?;
    InputSchema::new(schema).ok()
}

fn rank(registration: &Registration, now: UnixMillis) -> (bool, Vec<u64>, String) {
    let ttl = u64::try_from(REGISTRATION_TTL.as_millis()).unwrap_or(u64::MAX);
    let live = registration.renewed_at.plus_ms(ttl) >= now;
    let version = registration.graph.version.as_str();
    let numbers = version
        .split(|c: char| !c.is_ascii_digit())
        .filter_map(|part| part.parse().ok())
        .collect();
    (live, numbers, version.to_owned())
}
