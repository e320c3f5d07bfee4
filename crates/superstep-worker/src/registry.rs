//! The registry of graphs: what this process says it can run, and what all workers say.
//!
//! Deciders read it to choose a version and to check an input before a run begins. It is read
//! from the store at most every so often; a graph that is missing is looked for again at once.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use serde_json::{Value, json};
use superstep_checkpoint::Registration;
use superstep_protocol::{GraphId, Refusal, UnixMillis};

use tracing::warn;

use crate::{
    error::{Error, ErrorKind},
    graphs::Graphs,
    input::InputSchema,
    threads::Threads,
    versions::{Version, numbers, registered_at, workers_of},
};

/// How long what was read counts as current.
const FRESH: Duration = Duration::from_secs(2);

/// How often a process that begins tries to register.
const TRIES_MAX: u32 = 5;
/// The pause between two tries.
const PAUSE: Duration = Duration::from_millis(200);
/// How many workers of a version its registration names; beyond that the latest are.
const WORKERS_MAX: usize = 64;

#[derive(Default)]
struct Known {
    read_at: Option<tokio::time::Instant>,
    graphs: Vec<Arc<Entry>>,
}

struct Entry {
    registration: Registration,
    version: Version,
    schema: Value,
    input: Option<Arc<InputSchema>>,
}

/// A graph as it was chosen for a start: its version, and that one's topology.
pub(crate) type Chosen = (GraphId, Option<String>);

/// A process that registers its graphs.
pub(crate) struct Registrant {
    /// Names it among the workers of a version.
    id: String,
    /// Whether another topology under a name and version that is live is an error.
    strict: bool,
    /// The graphs that it has warned of, with the topology that was there.
    warned: Mutex<BTreeMap<GraphId, String>>,
}

impl Registrant {
    pub(crate) fn new(threads: &Threads, strict: bool) -> Self {
        Self {
            id: threads.world().nonce().to_string(),
            strict,
            warned: Mutex::default(),
        }
    }

    /// Registers the graphs of a process that begins; a store that is away for a moment is asked
    /// again.
    pub(crate) async fn begin(&self, threads: &Threads, graphs: &Graphs) -> Result<(), Error> {
        let mut tries = 1;
        loop {
            match self.register(threads, graphs).await {
                Err(error) if error.kind() == ErrorKind::Retry && tries < TRIES_MAX => {
                    tokio::time::sleep(PAUSE).await;
                    tries += 1;
                }
                registered => return registered,
            }
        }
    }

    /// Registers the graphs of this process, or renews them.
    ///
    /// When a version was first registered stays with it. Two workers that come at once may lose
    /// one's entry to the other's until they renew; the version is live all the same.
    pub(crate) async fn register(&self, threads: &Threads, graphs: &Graphs) -> Result<(), Error> {
        let now = threads.log().now().await.map_err(Error::Store)?;
        let there = threads.log().registrations().await.map_err(Error::Store)?;
        // In the order of versions, so that of several in one process the highest is the newest.
        let mut mine: Vec<_> = graphs.iter().collect();
        mine.sort_by_key(|graph| {
            let version = graph.id().version.as_str();
            (
                graph.id().name.clone(),
                numbers(version),
                version.to_owned(),
            )
        });
        for (at, graph) in mine.into_iter().enumerate() {
            let before = there.iter().find(|known| known.graph == *graph.id());
            let known: Value = before
                .and_then(|before| serde_json::from_slice(&before.about).ok())
                .unwrap_or_default();
            let mut about = graph.about();
            let mut workers = workers_of(&known, now);
            workers.remove(&self.id);
            if !workers.is_empty() {
                self.compare(graph.id(), &known, &about)?;
            }
            while workers.len() >= WORKERS_MAX {
                let oldest = workers.iter().min_by_key(|(_, at)| **at);
                let Some(oldest) = oldest.map(|(id, _)| id.clone()) else {
                    break;
                };
                workers.remove(&oldest);
            }
            workers.insert(self.id.clone(), now.0);
            about["workers"] = json!(workers);
            let first = match registered_at(&known) {
                UnixMillis(0) => now.plus_ms(at as u64),
                first => first,
            };
            about["registered_at"] = json!(first);
            put(threads, graph.id(), &about).await?;
        }
        Ok(())
    }

    /// Takes this process off the workers of its graphs: it works no more.
    pub(crate) async fn leave(&self, threads: &Threads, graphs: &Graphs) -> Result<(), Error> {
        let now = threads.log().now().await.map_err(Error::Store)?;
        for known in threads.log().registrations().await.map_err(Error::Store)? {
            if graphs.get(&known.graph).is_none() {
                continue;
            }
            let mut about: Value = serde_json::from_slice(&known.about).unwrap_or_default();
            let mut workers = workers_of(&about, now);
            if about.is_object() && workers.remove(&self.id).is_some() {
                about["workers"] = json!(workers);
                put(threads, &known.graph, &about).await?;
            }
        }
        Ok(())
    }

    /// One name and version is to be one topology: threads are routed by these alone.
    fn compare(&self, graph: &GraphId, there: &Value, mine: &Value) -> Result<(), Error> {
        let hash = |about: &Value| about["topology_hash"].as_str().map(str::to_owned);
        let (Some(theirs), Some(mine)) = (hash(there), hash(mine)) else {
            return Ok(());
        };
        if theirs == mine {
            return Ok(());
        }
        if self.strict {
            return Err(Error::OtherTopology {
                graph: graph.to_string(),
                theirs,
                mine,
            });
        }
        let mut warned = self.warned.lock().unwrap_or_else(PoisonError::into_inner);
        if warned.insert(graph.clone(), theirs.clone()) != Some(theirs.clone()) {
            warn!(
                %graph, %theirs, %mine,
                "a live worker has registered this graph and version with another topology; \
                 threads may meet nodes that they do not know: give the graph another version"
            );
        }
        Ok(())
    }
}

async fn put(threads: &Threads, graph: &GraphId, about: &Value) -> Result<(), Error> {
    let about = Bytes::from(about.to_string());
    let registered = threads.log().register(graph, about);
    threads
        .noted("other", registered)
        .await
        .map_err(Error::Store)
}

/// What workers registered.
#[derive(Clone, Default)]
pub(crate) struct Registry {
    known: Arc<Mutex<Known>>,
}

impl Registry {
    /// Every version that was registered, as the rules of versions see it.
    /// `again` looks at the store now, however lately that was done.
    pub(crate) async fn versions(
        &self,
        threads: &Threads,
        again: bool,
    ) -> Result<Vec<Version>, Error> {
        let known = self.read(threads, again).await?;
        Ok(known.iter().map(|entry| entry.version.clone()).collect())
    }

    /// The graph and version that a start is for: the version that is asked for, else the newest
    /// one with a live worker, else the newest.
    pub(crate) async fn choose(
        &self,
        threads: &Threads,
        name: &str,
        version: Option<&str>,
        input: &Value,
    ) -> Result<Result<Chosen, Refusal>, Error> {
        let entry = match self.entry(threads, name, version).await? {
            Ok(entry) => entry,
            Err(refusal) => return Ok(Err(refusal)),
        };
        if let Some(Err(refusal)) = entry.input.as_ref().map(|schema| schema.check(input)) {
            return Ok(Err(refusal));
        }
        Ok(Ok(entry.chosen()))
    }

    /// As [`choose`](Self::choose), where there is no input to be checked.
    pub(crate) async fn newest(
        &self,
        threads: &Threads,
        name: &str,
    ) -> Result<Result<Chosen, Refusal>, Error> {
        let entry = self.entry(threads, name, None).await?;
        Ok(entry.map(|entry| entry.chosen()))
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
            entry = known
                .iter()
                .filter(|entry| entry.registration.graph.name == *name)
                .filter(|entry| version.is_none_or(|v| entry.registration.graph.version == *v))
                .max_by(|a, b| a.version.rank().cmp(&b.version.rank()))
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
        let now = threads.log().now().await.map_err(Error::Store)?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let graphs = registrations
            .into_iter()
            .map(|registration| {
                let version = Version::of(&registration, now);
                let schema = schema_of(&registration);
                // Compiling a schema is worth keeping.
                let same = known.graphs.iter().find(|old| {
                    old.registration.graph == registration.graph && old.schema == schema
                });
                Arc::new(Entry {
                    input: match same {
                        Some(old) => old.input.clone(),
                        None => validator(&schema),
                    },
                    registration,
                    version,
                    schema,
                })
            })
            .collect::<Vec<_>>();
        known.graphs.clone_from(&graphs);
        known.read_at = Some(tokio::time::Instant::now());
        Ok(graphs)
    }
}

fn schema_of(registration: &Registration) -> Value {
    let about: Value = serde_json::from_slice(&registration.about).unwrap_or_default();
    about["input_schema"].clone()
}

fn validator(schema: &Value) -> Option<Arc<InputSchema>> {
    let schema = Some(schema).filter(|schema| !schema.is_null())?;
    InputSchema::new(schema).ok().map(Arc::new)
}

impl Entry {
    fn chosen(&self) -> Chosen {
        (
            self.registration.graph.clone(),
            self.version.topology.clone(),
        )
    }
}
