//! The cache of nodes' results: by what they were given, for whoever is given the same.
//!
//! A port with an implementation in memory. What is kept are the writes of a finished task, as
//! bytes; which nodes are cached, and by which key, is their policy's business.
//!
//! The rule it keeps: a cache is a convenience. One that fails is one that has nothing.

use std::{
    fmt,
    num::NonZeroUsize,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use lru::LruCache;
use serde_json::Value;
use superstep_graph::{NodeName, Write, digest};
use superstep_protocol::GraphId;
use tokio::time::Instant;
use tracing::debug;

use crate::policies::CachePolicy;

/// How many results a cache in memory holds, unless it is told otherwise.
const ENTRIES_MAX: usize = 10_000;

/// Where nodes' results are kept. Shared by every thread that runs the graph.
#[async_trait]
pub trait NodeCache: fmt::Debug + Send + Sync {
    /// What was kept under `key`, if it is still there; a failure is an absence.
    async fn get(&self, key: &str) -> Option<Bytes>;

    /// Keeps `result` under `key`, for `ttl` if one is given; a failure keeps nothing.
    async fn put(&self, key: &str, result: Bytes, ttl: Option<Duration>);
}

/// A bounded cache in this process: the result that was not asked for longest goes first.
pub struct MemoryCache {
    entries: Mutex<LruCache<String, Entry>>,
}

struct Entry {
    result: Bytes,
    until: Option<Instant>,
}

impl fmt::Debug for MemoryCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryCache")
            .field("entries", &self.entries().len())
            .finish()
    }
}

impl Default for MemoryCache {
    fn default() -> Self {
        Self::new(ENTRIES_MAX)
    }
}

impl MemoryCache {
    /// A cache of at most so many results, one at least. Default 10,000.
    pub fn new(entries_max: usize) -> Self {
        let entries_max = NonZeroUsize::new(entries_max).unwrap_or(NonZeroUsize::MIN);
        Self {
            entries: Mutex::new(LruCache::new(entries_max)),
        }
    }

    fn entries(&self) -> MutexGuard<'_, LruCache<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl NodeCache for MemoryCache {
    async fn get(&self, key: &str) -> Option<Bytes> {
        let mut entries = self.entries();
        let entry = entries.get(key)?;
        if entry.until.is_some_and(|until| until <= Instant::now()) {
            entries.pop(key);
            return None;
        }
        Some(entry.result.clone())
    }

    async fn put(&self, key: &str, result: Bytes, ttl: Option<Duration>) {
        let until = ttl.and_then(|ttl| Instant::now().checked_add(ttl));
        self.entries().put(key.to_owned(), Entry { result, until });
    }
}

/// The place of a task's result: of its graph and node, by what the policy makes of its input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CacheKey(String);

impl CacheKey {
    pub(crate) fn of(
        graph: &GraphId,
        node: &NodeName,
        policy: &CachePolicy,
        input: &Value,
    ) -> Self {
        let key = policy.key_of(input);
        let parts = [
            graph.name.as_str(),
            graph.version.as_str(),
            node.as_str(),
            &key,
        ];
        Self(digest(&parts).to_string())
    }
}

/// The writes that were kept, if any. What cannot be read was written by other code.
pub(crate) async fn look_up(cache: &dyn NodeCache, key: &CacheKey) -> Option<Vec<Write>> {
    let bytes = cache.get(&key.0).await?;
    match serde_json::from_slice(&bytes) {
        Ok(writes) => Some(writes),
        Err(error) => {
            debug!(%error, "a cached result cannot be read, and is made again");
            None
        }
    }
}

/// Keeps the writes of a finished task.
pub(crate) async fn keep(
    cache: &dyn NodeCache,
    key: &CacheKey,
    writes: &[Write],
    policy: &CachePolicy,
) {
    if let Ok(bytes) = serde_json::to_vec(writes) {
        cache.put(&key.0, Bytes::from(bytes), policy.ttl_of()).await;
    }
}

/// A value as text that is the same for equal values, however their keys are ordered.
pub(crate) fn canonical(value: &Value) -> String {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(object) => {
                let mut entries: Vec<_> = object.iter().collect();
                entries.sort_by_key(|(key, _)| *key);
                let entries = entries.into_iter();
                Value::Object(entries.map(|(k, v)| (k.clone(), sorted(v))).collect())
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            scalar => scalar.clone(),
        }
    }
    sorted(value).to_string()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn graph_id(name: &str, version: &str) -> GraphId {
        GraphId {
            name: name.into(),
            version: version.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_result_is_gone_after_its_time() {
        let cache = MemoryCache::new(2);
        let ttl = Duration::from_secs(10);
        cache.put("a", Bytes::from("1"), Some(ttl)).await;
        cache.put("b", Bytes::from("2"), None).await;
        tokio::time::advance(Duration::from_secs(9)).await;
        assert_eq!(cache.get("a").await, Some(Bytes::from("1")));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(cache.get("a").await, None);
        assert_eq!(cache.get("b").await, Some(Bytes::from("2")));
    }

    #[tokio::test]
    async fn the_longest_unused_result_goes_first() {
        let cache = MemoryCache::new(2);
        for key in ["a", "b"] {
            cache.put(key, Bytes::from("x"), None).await;
        }
        cache.get("a").await;
        cache.put("c", Bytes::from("x"), None).await;
        assert_eq!(cache.get("b").await, None);
        assert!(cache.get("a").await.is_some() && cache.get("c").await.is_some());
    }

    #[tokio::test]
    async fn what_cannot_be_read_is_not_there() {
        let cache = MemoryCache::default();
        let policy = CachePolicy::new();
        let graph = graph_id("g", "1");
        let key = CacheKey::of(&graph, &"n".into(), &policy, &json!({"a": 1}));
        let writes = vec![Write::set("x", json!(1))];
        keep(&cache, &key, &writes, &policy).await;
        assert_eq!(look_up(&cache, &key).await, Some(writes));
        cache.put(&key.0, Bytes::from("?"), None).await;
        assert_eq!(look_up(&cache, &key).await, None);
    }

    #[test]
    fn a_key_tells_graphs_nodes_and_inputs_apart() {
        let policy = CachePolicy::new();
        let one = graph_id("g", "1");
        let key = |graph, node: &str, input| CacheKey::of(graph, &node.into(), &policy, &input);
        let base = key(&one, "n", json!({"a": 1, "b": {"c": 2, "d": 3}}));
        assert_eq!(base, key(&one, "n", json!({"b": {"d": 3, "c": 2}, "a": 1})));
        let others = [
            key(
                &graph_id("g", "2"),
                "n",
                json!({"a": 1, "b": {"c": 2, "d": 3}}),
            ),
            key(&one, "m", json!({"a": 1, "b": {"c": 2, "d": 3}})),
            key(&one, "n", json!({"a": 1, "b": {"c": 2, "d": 4}})),
        ];
        assert!(!others.contains(&base));
    }
}
