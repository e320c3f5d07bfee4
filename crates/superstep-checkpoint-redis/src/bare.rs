//! Redis with nothing of the thread log around it: the least that a record costs here.
//!
//! For measuring only. One script that compares a head and writes a record behind it, one that
//! puts a result if it is absent: what a worker cannot do without, on the same connection and
//! client. No index, no row, no snapshot. What records hold is left to whoever measures.
//!
//! The rule it keeps: its keys are the namespace's, so that [`RedisLog::remove_namespace`] takes
//! them away with all others.

use superstep_checkpoint::Error;
use superstep_protocol::ThreadId;

use crate::{
    RedisLog, RedisSettings,
    inspect::escaped,
    keys::{Keys, namespace_keys},
    link::Link,
    reply::Reply,
    scripts,
};

/// Keys that are deleted by one call.
const KEYS_AT_ONCE: usize = 500;

/// A log without a log around it.
#[derive(Debug)]
pub struct BareLog {
    link: Link,
    keys: Keys,
}

impl BareLog {
    /// Connects.
    ///
    /// # Errors
    /// As [`RedisLog::connect`].
    pub async fn connect(settings: &RedisSettings) -> Result<Self, Error> {
        let link = Link::new(settings, settings.check()?)?;
        link.connect().await?;
        Ok(Self {
            link,
            keys: Keys::new(&settings.prefix, &settings.namespace, settings.shards),
        })
    }

    /// Appends `record` as `version` behind the version before it; answers whether that was the
    /// head.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses it.
    pub async fn append(
        &self,
        thread: &ThreadId,
        version: u64,
        record: &[u8],
    ) -> Result<bool, Error> {
        let key = self.keys.shard(thread).bare(thread);
        let mut cmd = scripts::call(&scripts::BARE_APPEND, &[key]);
        match version {
            1 => cmd.arg(""),
            version => cmd.arg(version - 1),
        };
        cmd.arg(version).arg(record);
        let reply = Reply::new("a bare append", self.link.call(&cmd).await?);
        Ok(reply.integer()? == 1)
    }

    /// Puts a result if it is absent; answers how many there are.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses it.
    pub async fn put(&self, thread: &ThreadId, field: u64, result: &[u8]) -> Result<u64, Error> {
        let key = self.keys.shard(thread).bare_results(thread);
        let mut cmd = scripts::call(&scripts::BARE_PUT, &[key]);
        cmd.arg(field).arg(result);
        Reply::new("a bare result", self.link.call(&cmd).await?).count()
    }
}

impl RedisLog {
    /// Deletes every key of this prefix and namespace: for namespaces that were made to be
    /// measured or tested in, when nobody works in them any more.
    ///
    /// # Errors
    /// If the server cannot be reached, or refuses it.
    pub async fn remove_namespace(&self) -> Result<(), Error> {
        let (prefix, namespace) = (&self.settings().prefix, &self.settings().namespace);
        let all = [
            format!("{}*", escaped(self.keys.shard_keys())),
            format!("{}*", escaped(&namespace_keys(prefix, namespace))),
        ];
        for master in self.link.masters().await? {
            for pattern in &all {
                self.remove_matching(&master, pattern).await?;
            }
        }
        Ok(())
    }

    async fn remove_matching(&self, master: &str, pattern: &str) -> Result<(), Error> {
        let mut cursor = "0".to_owned();
        loop {
            let mut scan = redis::cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(pattern);
            scan.arg("COUNT").arg(KEYS_AT_ONCE);
            let reply = Reply::new("a scan", self.link.call_at(master, &scan).await?);
            let [next, keys] = reply.array()?;
            // One call a slot: of a Cluster, keys of several slots cannot be deleted by one.
            let mut slots = std::collections::BTreeMap::<String, redis::Cmd>::new();
            for key in keys.texts()? {
                let slot = key.split('}').next().unwrap_or_default().to_owned();
                let unlink = slots.entry(slot).or_insert_with(|| redis::cmd("UNLINK"));
                unlink.arg(key);
            }
            for unlink in slots.values() {
                self.link.call(unlink).await?;
            }
            cursor = next.text()?;
            if cursor == "0" {
                return Ok(());
            }
        }
    }
}
