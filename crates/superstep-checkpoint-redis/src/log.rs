//! The thread log in Redis: each operation of the port as one call, or one a shard.
//!
//! What a call needs is put together here and in `append`; what happens on the server is in the
//! scripts. The rule it keeps: every call may be sent again as it is, so the link can.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use bytes::Bytes;
use redis::Cmd;
use superstep_checkpoint::{
    Append, Appended, BLOB_TTL, CLAIM_LEASE_MAX, Claim, Claimed, Due, Error, ErrorKind, Finding,
    InterruptQuery, InterruptRow, Loaded, OUTCOME_TTL, Page, PutProgress, PutResult, Registration,
    StoredRecord, ThreadLog, ThreadQuery, ThreadRow, Trimmed, Watched,
};
use superstep_graph::TaskId;
use superstep_protocol::{CommandId, Dispatch, GraphId, Head, Nonce, ThreadId, UnixMillis};
use tokio::time::timeout;

use crate::{
    append::{BLOB_STAYS, Inventory, append_call, delete_call, round_field},
    check,
    codec::{corrupt, graph_field, read_graph, read_head, read_record, read_row},
    durable::Durable,
    keys::{Keys, namespace_keys},
    link::Link,
    lists,
    reply::Reply,
    scripts,
    settings::RedisSettings,
};

/// The format of keys and fields that this code reads and writes.
const FORMAT: u32 = 1;

/// How long it takes until an append-only file that is synced every second has been synced.
const DISK_SYNCED_WITHIN: Duration = Duration::from_millis(2_500);

/// How many times a thread is looked at anew whose graph changes between two calls.
const LOOKS_MAX: usize = 8;

/// A thread log in Redis or Valkey.
#[derive(Debug)]
pub struct RedisLog {
    pub(crate) link: Link,
    pub(crate) keys: Keys,
    durable: Option<Durable>,
    settings: RedisSettings,
}

impl RedisLog {
    /// Connects, and creates the namespace if it is not there. An existing namespace keeps the
    /// number of shards that it was created with, whatever the settings say.
    ///
    /// # Errors
    /// Within `connect_timeout`: `Unavailable` if no server can be reached, `Denied` if it refuses
    /// the user, `Invalid` if the settings cannot be right, `Corrupt` if the namespace is of a
    /// newer superstep.
    pub async fn connect(settings: RedisSettings) -> Result<Self, Error> {
        let link = Link::new(&settings, settings.check()?)?;
        let opening = async {
            link.connect().await?;
            open_namespace(&link, &settings).await
        };
        let shards = match timeout(settings.connect_timeout, opening).await {
            Ok(shards) => shards?,
            Err(_) => return Err(link.silent()),
        };
        if shards != settings.shards {
            tracing::info!(
                namespace = %settings.namespace,
                shards,
                asked = settings.shards,
                "the namespace keeps the number of shards that it was created with"
            );
        }
        let keys = Keys::new(&settings.prefix, &settings.namespace, shards);
        let durable = link.only().map(|client| {
            let (connect, response) = (settings.connect_timeout, settings.response_timeout);
            Durable::new(client.clone(), connect, response)
        });
        Ok(Self {
            link,
            keys,
            durable,
            settings,
        })
    }

    pub(crate) fn settings(&self) -> &RedisSettings {
        &self.settings
    }

    pub(crate) async fn ask(&self, what: &'static str, cmd: &Cmd) -> Result<Reply, Error> {
        Ok(Reply::new(what, self.link.call(cmd).await?))
    }

    async fn inventory(&self, thread: &ThreadId) -> Result<Option<Inventory>, Error> {
        let shard = self.keys.shard(thread);
        let keys = [
            shard.thread(thread),
            shard.open(thread),
            shard.blob_index(thread),
        ];
        let cmd = scripts::call(&scripts::INVENTORY, &keys);
        let reply = self.ask("a look at a thread", &cmd).await?;
        let Some(parts) = reply.maybe_list()? else {
            return Ok(None);
        };
        let bad = || corrupt(&format!("thread `{thread}`"));
        let [_, row, rounds, open, blobs]: [Reply; 5] = parts.try_into().map_err(|_| bad())?;
        let row = row.maybe_text()?.map(|row| read_row(&row).ok_or_else(bad));
        let rounds = rounds.texts()?.into_iter().map(|field| {
            let round = field
                .strip_prefix("r:")
                .and_then(|round| round.parse().ok());
            round.ok_or_else(bad)
        });
        Ok(Some(Inventory {
            row: row.transpose()?,
            rounds: rounds.collect::<Result<_, _>>()?,
            open: open.texts()?,
            blobs: blobs.texts()?,
        }))
    }
}

/// Creates the namespace or reads what it was created with: its number of shards.
async fn open_namespace(link: &Link, settings: &RedisSettings) -> Result<u16, Error> {
    let meta = format!(
        "{}meta",
        namespace_keys(&settings.prefix, &settings.namespace)
    );
    for (field, value) in [("shards", u32::from(settings.shards)), ("format", FORMAT)] {
        let mut cmd = redis::cmd("HSETNX");
        cmd.arg(&meta).arg(field).arg(value);
        link.call(&cmd).await?;
    }
    let mut cmd = redis::cmd("HMGET");
    cmd.arg(&meta).arg("shards").arg("format");
    let reply = Reply::new("a read of the namespace", link.call(&cmd).await?);
    let [shards, format] = reply.array()?;
    if format.text()? != FORMAT.to_string() {
        return Err(Error::new(
            ErrorKind::Corrupt,
            format!(
                "namespace `{}` is written in a format that this superstep does not know; run the one that wrote it, or use another namespace",
                settings.namespace
            ),
        ));
    }
    let shards = shards.text()?.parse().ok().filter(|shards| *shards > 0);
    shards.ok_or_else(|| corrupt(&format!("key `{meta}`")))
}

#[async_trait]
impl ThreadLog for RedisLog {
    async fn append(&self, thread: &ThreadId, append: &Append) -> Result<Appended, Error> {
        append.validate()?;
        let mut was: Option<ThreadRow> = None;
        for _ in 0..LOOKS_MAX {
            let cmd = append_call(&self.keys, thread, append, was.as_ref());
            match read_appended(self.ask("an append", &cmd).await?, thread)? {
                Answer::Appended(appended) => return Ok(appended),
                Answer::InListOf(row) => was = Some(row),
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            format!("thread `{thread}` changes its graph faster than it can be appended to"),
        ))
    }

    async fn head(&self, thread: &ThreadId) -> Result<Option<Head>, Error> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(self.keys.shard(thread).thread(thread)).arg("h");
        let field = self.ask("a read of a head", &cmd).await?.maybe_text()?;
        field
            .map(|field| read_head(&field).ok_or_else(|| corrupt(&format!("thread `{thread}`"))))
            .transpose()
    }

    async fn load(&self, thread: &ThreadId) -> Result<Option<Loaded>, Error> {
        let key = self.keys.shard(thread).thread(thread);
        let cmd = scripts::call(&scripts::LOAD, &[key]);
        let Some(parts) = self.ask("a read of a thread", &cmd).await?.maybe_list()? else {
            return Ok(None);
        };
        let bad = || corrupt(&format!("thread `{thread}`"));
        let [head, records]: [Reply; 2] = parts.try_into().map_err(|_| bad())?;
        let head = head.text()?;
        let snapshot = head.split_once(':').and_then(|(_, s)| s.parse().ok());
        let records = read_records(thread, (snapshot.ok_or_else(bad)?).., records)?;
        if records.is_empty() {
            return Err(bad());
        }
        Ok(Some(Loaded { records }))
    }

    async fn record(&self, thread: &ThreadId, version: u64) -> Result<Option<StoredRecord>, Error> {
        let mut cmd = redis::cmd("HGET");
        cmd.arg(self.keys.shard(thread).thread(thread)).arg(version);
        let field = self.ask("a read of a record", &cmd).await?.bytes()?;
        field
            .map(|field| read_record(version, field).ok_or_else(|| bad_record(thread, version)))
            .transpose()
    }

    async fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<StoredRecord>, Error> {
        let key = self.keys.shard(thread).thread(thread);
        let mut cmd = scripts::call(&scripts::HISTORY, &[key]);
        let before = before.map(|before| before.to_string()).unwrap_or_default();
        cmd.arg(before).arg(limit);
        let reply = self.ask("a read of a history", &cmd).await?;
        let [first, records] = reply.array()?;
        let first = first.integer()?;
        let versions = (0..).map_while(|i| u64::try_from(first - i).ok());
        read_records(thread, versions, records)
    }

    async fn put_result(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        result: Bytes,
    ) -> Result<PutResult, Error> {
        let shard = self.keys.shard(thread);
        let keys = [shard.thread(thread), shard.results(thread, round)];
        let mut cmd = scripts::call(&scripts::PUT_RESULT, &keys);
        cmd.arg(round_field(round)).arg(task.as_str()).arg(&*result);
        let [became, count] = self.ask("a put of a result", &cmd).await?.array()?;
        let count = count.count()?;
        match became.integer()? {
            0 => Ok(PutResult::Stored { count }),
            1 => Ok(PutResult::Duplicate { count }),
            2 => Ok(PutResult::RoundOver),
            3 => Ok(PutResult::UnknownThread),
            _ => Err(corrupt("the answer to a put of a result")),
        }
    }

    async fn results_of(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        tasks: &[TaskId],
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        if tasks.is_empty() {
            return Ok(BTreeMap::new());
        }
        let mut cmd = redis::cmd("HMGET");
        cmd.arg(self.keys.shard(thread).results(thread, round));
        for task in tasks {
            cmd.arg(task.as_str());
        }
        let found = self.ask("a read of results", &cmd).await?.list()?;
        let mut results = BTreeMap::new();
        for (task, result) in tasks.iter().zip(found) {
            if let Some(result) = result.bytes()? {
                results.insert(task.clone(), result.into());
            }
        }
        Ok(results)
    }

    async fn results(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<TaskId, Bytes>, Error> {
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(self.keys.shard(thread).results(thread, round));
        let mut pairs = self
            .ask("a read of results", &cmd)
            .await?
            .list()?
            .into_iter();
        let mut results = BTreeMap::new();
        while let (Some(task), Some(result)) = (pairs.next(), pairs.next()) {
            let result = result.bytes()?.unwrap_or_default();
            results.insert(TaskId::new(task.text()?), result.into());
        }
        Ok(results)
    }

    async fn put_progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
        index: u64,
        entry: Bytes,
    ) -> Result<PutProgress, Error> {
        let shard = self.keys.shard(thread);
        let keys = [shard.thread(thread), shard.progress(thread, round)];
        let mut cmd = scripts::call(&scripts::PUT_PROGRESS, &keys);
        cmd.arg(round_field(round))
            .arg(format!("{index}:{task}"))
            .arg(&*entry);
        let [became, there] = self.ask("a put of progress", &cmd).await?.array()?;
        match became.integer()? {
            0 => Ok(PutProgress::Stored),
            1 => Ok(PutProgress::Taken {
                bytes: there.bytes()?.unwrap_or_default().into(),
            }),
            2 => Ok(PutProgress::RoundOver),
            3 => Ok(PutProgress::UnknownThread),
            _ => Err(corrupt("the answer to a put of progress")),
        }
    }

    async fn progress(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Vec<Bytes>, Error> {
        let key = self.keys.shard(thread).progress(thread, round);
        let mut cmd = scripts::call(&scripts::PROGRESS, &[key]);
        cmd.arg(task.as_str());
        let entries = self.ask("a read of progress", &cmd).await?.list()?;
        let entry = |entry: Reply| Ok(Bytes::from(entry.bytes()?.unwrap_or_default()));
        entries.into_iter().map(entry).collect()
    }

    async fn claim(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        name: &str,
        owner: Nonce,
        lease: Duration,
    ) -> Result<Claimed, Error> {
        let key = self.keys.shard(thread).claims(thread, round);
        let mut cmd = scripts::call(&scripts::CLAIM, &[key]);
        cmd.arg(millis(CLAIM_LEASE_MAX))
            .arg(name)
            .arg(owner.to_string())
            .arg(millis(lease));
        let rest = self.ask("a claim", &cmd).await?.count()?;
        Ok(match rest {
            0 => Claimed::Mine,
            rest => Claimed::Held {
                rest: Duration::from_millis(rest),
            },
        })
    }

    async fn claims(
        &self,
        thread: &ThreadId,
        round: Dispatch,
    ) -> Result<BTreeMap<String, Claim>, Error> {
        let key = self.keys.shard(thread).claims(thread, round);
        let mut cmd = scripts::call(&scripts::CLAIM, &[key]);
        cmd.arg(millis(CLAIM_LEASE_MAX));
        let found = self.ask("a read of claims", &cmd).await?.list()?;
        let mut found = found.into_iter();
        let mut claims = BTreeMap::new();
        while let (Some(name), Some(owner), Some(rest)) = (found.next(), found.next(), found.next())
        {
            let owner = u64::from_str_radix(&owner.text()?, 16);
            let owner = owner.map_err(|_| corrupt("the owner of a claim"))?;
            let claim = Claim {
                owner: Nonce(owner),
                rest: Duration::from_millis(rest.count()?),
            };
            claims.insert(name.text()?, claim);
        }
        Ok(claims)
    }

    async fn count_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<Option<u64>, Error> {
        let cmd = attempt_call(&self.keys, thread, round, task, 1);
        let count = self.ask("a count of attempts", &cmd).await?;
        if count.value == redis::Value::Nil {
            return Ok(None);
        }
        count.count().map(Some)
    }

    async fn forgive_attempt(
        &self,
        thread: &ThreadId,
        round: Dispatch,
        task: &TaskId,
    ) -> Result<(), Error> {
        let cmd = attempt_call(&self.keys, thread, round, task, -1);
        self.ask("a count of attempts", &cmd).await?;
        Ok(())
    }

    async fn put_outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
        outcome: Bytes,
    ) -> Result<Option<Bytes>, Error> {
        let key = self.keys.shard(thread).outcome(thread, command);
        let mut cmd = scripts::call(&scripts::PUT_OUTCOME, &[key]);
        cmd.arg(&*outcome).arg(millis(OUTCOME_TTL));
        let kept = self.ask("a put of an outcome", &cmd).await?.bytes()?;
        Ok(kept.map(Bytes::from))
    }

    async fn outcome(
        &self,
        thread: &ThreadId,
        command: &CommandId,
    ) -> Result<Option<Bytes>, Error> {
        let mut cmd = redis::cmd("GET");
        cmd.arg(self.keys.shard(thread).outcome(thread, command));
        let kept = self.ask("a read of an outcome", &cmd).await?.bytes()?;
        Ok(kept.map(Bytes::from))
    }

    async fn put_blob(&self, thread: &ThreadId, id: &str, bytes: Bytes) -> Result<(), Error> {
        let shard = self.keys.shard(thread);
        let keys = [shard.blob(thread, id), shard.blob_index(thread)];
        let mut cmd = scripts::call(&scripts::PUT_BLOB, &keys);
        cmd.arg(&*bytes).arg(millis(BLOB_TTL)).arg(id);
        self.ask("a put of a blob", &cmd).await?;
        Ok(())
    }

    async fn blobs(&self, thread: &ThreadId, ids: &[String]) -> Result<Vec<Bytes>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let shard = self.keys.shard(thread);
        let mut cmd = redis::cmd("MGET");
        for id in ids {
            cmd.arg(shard.blob(thread, id));
        }
        let replies = self.ask("a read of blobs", &cmd).await?.list()?;
        let blob = |(id, reply): (&String, Reply)| {
            let bytes = reply.bytes()?.map(Bytes::from);
            bytes.ok_or_else(|| {
                Error::new(
                    ErrorKind::Corrupt,
                    format!("thread `{thread}` refers to value `{id}`, which is not in the store"),
                )
            })
        };
        ids.iter().zip(replies).map(blob).collect()
    }

    async fn unwatch(&self, thread: &ThreadId, head: Head) -> Result<bool, Error> {
        let shard = self.keys.shard(thread);
        let keys = [shard.thread(thread), shard.watched()];
        let mut cmd = scripts::call(&scripts::UNWATCH, &keys);
        cmd.arg(head.to_string()).arg(thread.as_str());
        Ok(self.ask("an unwatch", &cmd).await?.integer()? == 1)
    }

    async fn watched(
        &self,
        from: UnixMillis,
        until: UnixMillis,
        limit: usize,
    ) -> Result<Vec<Watched>, Error> {
        lists::watched(&self.link, &self.keys, from, until, limit).await
    }

    async fn due(&self, now: UnixMillis, limit: usize) -> Result<Vec<Due>, Error> {
        lists::due(&self.link, &self.keys, now, limit).await
    }

    async fn threads(&self, query: &ThreadQuery) -> Result<Page<(ThreadId, ThreadRow)>, Error> {
        lists::threads(&self.link, &self.keys, query).await
    }

    async fn interrupts(
        &self,
        query: &InterruptQuery,
    ) -> Result<Page<(ThreadId, InterruptRow)>, Error> {
        lists::interrupts(&self.link, &self.keys, query).await
    }

    async fn trim(&self, thread: &ThreadId, snapshot: Head) -> Result<Trimmed, Error> {
        // What is found here can only be named again meanwhile, which the script looks at once more;
        // what is not found was named by an append since.
        let shard = self.keys.shard(thread);
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(shard.blob_index(thread)).arg(BLOB_STAYS);
        cmd.arg(format!("({}", BLOB_STAYS.saturating_add(snapshot.version)));
        let blobs = self.ask("a read of blobs", &cmd).await?.texts()?;
        let mut keys = vec![shard.thread(thread), shard.blob_index(thread)];
        keys.extend(blobs.iter().map(|id| shard.blob(thread, id)));
        let mut cmd = scripts::call(&scripts::TRIM, &keys);
        cmd.arg(snapshot.version)
            .arg(format!("{}:{}:", snapshot.nonce, snapshot.version))
            .arg(millis(BLOB_TTL))
            .arg(blobs);
        let removed = self.ask("a trim", &cmd).await?.integer()?;
        Ok(match u64::try_from(removed) {
            Ok(removed) => Trimmed::Removed(removed),
            Err(_) => Trimmed::NotASnapshot,
        })
    }

    async fn delete(
        &self,
        thread: &ThreadId,
        after: Head,
        tombstone: StoredRecord,
    ) -> Result<Appended, Error> {
        tombstone.validate_after(Some(after))?;
        // What the inventory finds cannot change without the head, which the delete compares; only
        // a blob that is put meanwhile may stay, and goes by its own time to live.
        let Some(has) = self.inventory(thread).await? else {
            return Ok(Appended::Moved { head: None });
        };
        let cmd = delete_call(&self.keys, thread, after, &tombstone, &has);
        match read_appended(self.ask("a delete", &cmd).await?, thread)? {
            Answer::Appended(appended) => Ok(appended),
            Answer::InListOf(_) => Err(corrupt("the answer to a delete")),
        }
    }

    async fn register(&self, graph: &GraphId, about: Bytes) -> Result<(), Error> {
        let keys = [self.keys.registrations(), self.keys.meta()];
        let mut cmd = scripts::call(&scripts::REGISTER, &keys);
        let mine = self.keys.shard_count();
        cmd.arg(graph_field(graph))
            .arg(&*about)
            .arg(mine)
            .arg(FORMAT);
        let shards = self.ask("a registration", &cmd).await?.text()?;
        if shards != mine.to_string() {
            return Err(Error::new(
                ErrorKind::Corrupt,
                format!(
                    "namespace `{}` was made anew with {shards} shards while this process uses {mine}; restart this process",
                    self.settings.namespace
                ),
            ));
        }
        Ok(())
    }

    async fn registrations(&self) -> Result<Vec<Registration>, Error> {
        let mut cmd = redis::cmd("HGETALL");
        cmd.arg(self.keys.registrations());
        let reply = self.ask("a read of registrations", &cmd).await?;
        let mut pairs = reply.list()?.into_iter();
        let mut found = Vec::new();
        while let (Some(field), Some(value)) = (pairs.next(), pairs.next()) {
            let value = Bytes::from(value.bytes()?.unwrap_or_default());
            let registration = read_graph(&field.text()?).and_then(|graph| {
                let end = value.iter().position(|byte| *byte == b':')?;
                let renewed_at = std::str::from_utf8(&value[..end]).ok()?.parse().ok()?;
                Some(Registration {
                    graph,
                    about: value.slice(end + 1..),
                    renewed_at: UnixMillis(renewed_at),
                })
            });
            found.push(registration.ok_or_else(|| corrupt("a registration"))?);
        }
        found.sort_by(|a, b| a.graph.cmp(&b.graph));
        Ok(found)
    }

    async fn now(&self) -> Result<UnixMillis, Error> {
        let cmd = scripts::call(&scripts::NOW, &[self.keys.meta()]);
        check::read_time(self.ask("a read of the time", &cmd).await?)
    }

    async fn wait_durable(&self) -> Result<bool, Error> {
        let Some(durable) = &self.durable else {
            return Ok(false);
        };
        let within = self.durable_after().max(DISK_SYNCED_WITHIN);
        let waited = durable.wait(&self.keys.mark(), within).await;
        waited.map_err(|error| self.link.error(error))
    }

    fn durable_after(&self) -> Duration {
        let default = if self.link.is_cluster() {
            Duration::from_secs(20)
        } else {
            DISK_SYNCED_WITHIN
        };
        self.settings.durable_after.unwrap_or(default)
    }

    async fn check(&self) -> Vec<Finding> {
        let mut findings = check::servers(&self.link).await;
        let (asked, has) = (usize::from(self.settings.shards), self.keys.shard_count());
        if asked != has {
            findings.push(Finding {
                ok: true,
                subject: "shards".to_owned(),
                detail: format!(
                    "the namespace was created with {has} shards and keeps them; the settings say {asked}"
                ),
            });
        }
        findings
    }
}

/// Changes the count of a task's attempts. A call that is sent again counts twice, at worst: a
/// count is a bound, and no truth.
fn attempt_call(keys: &Keys, thread: &ThreadId, round: Dispatch, task: &TaskId, by: i8) -> Cmd {
    let shard = keys.shard(thread);
    let keys = [shard.thread(thread), shard.progress(thread, round)];
    let mut cmd = scripts::call(&scripts::ATTEMPT, &keys);
    cmd.arg(round_field(round)).arg(format!("a:{task}")).arg(by);
    cmd
}

/// What an append or delete script answers.
enum Answer {
    Appended(Appended),
    /// The thread is in the list of another graph, which has to be named.
    InListOf(ThreadRow),
}

fn read_appended(reply: Reply, thread: &ThreadId) -> Result<Answer, Error> {
    if let redis::Value::Int(0) = reply.value {
        return Ok(Answer::Appended(Appended::Done));
    }
    let bad = || corrupt(&format!("thread `{thread}`"));
    let [became, value] = reply.array()?;
    match became.integer()? {
        1 => {
            let head = value.text()?;
            let head = match head.as_str() {
                "" => None,
                head => Some(head.parse().map_err(|_| bad())?),
            };
            Ok(Answer::Appended(Appended::Moved { head }))
        }
        2 => {
            let outcome = value.bytes()?.ok_or_else(bad)?.into();
            Ok(Answer::Appended(Appended::Decided { outcome }))
        }
        3 => Ok(Answer::InListOf(read_row(&value.text()?).ok_or_else(bad)?)),
        _ => Err(bad()),
    }
}

fn read_records(
    thread: &ThreadId,
    versions: impl IntoIterator<Item = u64>,
    fields: Reply,
) -> Result<Vec<StoredRecord>, Error> {
    let record = |(version, field): (u64, Reply)| {
        let field = field.bytes()?;
        let record = field.and_then(|field| read_record(version, field));
        record.ok_or_else(|| bad_record(thread, version))
    };
    versions
        .into_iter()
        .zip(fields.list()?)
        .map(record)
        .collect()
}

fn bad_record(thread: &ThreadId, version: u64) -> Error {
    corrupt(&format!("record {version} of thread `{thread}`"))
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// This machine's clock, to compare the server's with.
pub(crate) fn local_now() -> UnixMillis {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH);
    UnixMillis(millis(since_epoch.unwrap_or_default()))
}
