//! Looking into the store: every log, what is kept of a thread, and mending its index entries.
//!
//! The only place that scans, and only for a person who asks: all keys of every master, a page a
//! call. An entry that this layout writes twice (in its thread and in its shard's index) is
//! compared here; what is in an index alone is found by `strays`.

use std::collections::BTreeMap;

use async_trait::async_trait;
use redis::Cmd;
use superstep_checkpoint::{Error, Inspect, Kept, Page, Reindex, Stray};
use superstep_protocol::{Head, ThreadId, ThreadStatus, UnixMillis};

use crate::{
    RedisLog,
    append::{QUESTION, TIMER, blob_stays, round_field},
    codec::{corrupt, member, read_head, read_row, row_field, status_digit},
    keys::ThreadKey,
    lists::read_score,
    reply::Reply,
    scripts,
};

#[async_trait]
impl Inspect for RedisLog {
    async fn logs(&self, after: Option<&str>, limit: usize) -> Result<Page<ThreadId>, Error> {
        let (keys, next) = self.scan("t:", after, limit).await?;
        let threads = keys.iter().filter_map(|key| match self.keys.read(key)? {
            ThreadKey::Log { thread } => Some(ThreadId::new(thread)),
            _ => None,
        });
        Ok(Page {
            rows: threads.collect(),
            next,
        })
    }

    async fn kept(&self, thread: &ThreadId) -> Result<Option<Kept>, Error> {
        let shard = self.keys.shard(thread);
        let keys = [
            shard.thread(thread),
            shard.open(thread),
            shard.blob_index(thread),
        ];
        let cmd = scripts::call(&scripts::KEPT, &keys);
        let reply = self.ask("a look at a thread", &cmd).await?;
        let Some(parts) = reply.maybe_list()? else {
            return Ok(None);
        };
        let mut kept = Self::read_kept(thread, parts)?;
        self.compare_twins(thread, &mut kept).await?;
        Ok(Some(kept))
    }

    async fn strays(&self, after: Option<&str>, limit: usize) -> Result<Page<Stray>, Error> {
        self.find_strays(after, limit).await
    }

    async fn is_stray(&self, stray: &Stray) -> Result<bool, Error> {
        self.settle_stray(stray, false).await
    }

    async fn remove_stray(&self, stray: &Stray) -> Result<bool, Error> {
        self.settle_stray(stray, true).await
    }

    async fn reindex(&self, thread: &ThreadId, head: Head, truth: &Reindex) -> Result<bool, Error> {
        let mut graphs = self.graphs_of_shard(thread).await?;
        if let Some(row) = &truth.row
            && !graphs.iter().any(|graph| *graph == row.graph.name.as_str())
        {
            graphs.push(row.graph.name.to_string());
        }
        // What is there goes, whatever the truth says; strays of the indexes are found elsewhere.
        let before = self.kept(thread).await?.unwrap_or_default();
        let cmd = self.reindex_call(thread, head, truth, &graphs, &before);
        Ok(self.ask("a reindex", &cmd).await?.integer()? == 1)
    }
}

impl RedisLog {
    /// A page of the keys of shards whose rest begins so, and where the next page begins: the
    /// master and its cursor.
    pub(crate) async fn scan(
        &self,
        begins: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<String>, Option<String>), Error> {
        let masters = self.link.masters().await?;
        let (master, cursor) = match after.map(|after| after.rsplit_once('|')) {
            Some(Some((master, cursor))) => (master.to_owned(), cursor.to_owned()),
            Some(None) => return Err(corrupt("the cursor of a scan")),
            None => match masters.first() {
                Some(first) => (first.clone(), "0".to_owned()),
                None => return Ok((Vec::new(), None)),
            },
        };
        let pattern = format!("{}*}}:{begins}*", escaped(self.keys.shard_keys()));
        let mut cmd = redis::cmd("SCAN");
        cmd.arg(&cursor).arg("MATCH").arg(pattern);
        cmd.arg("COUNT").arg(limit.max(1));
        let reply = Reply::new("a scan", self.link.call_at(&master, &cmd).await?);
        let [cursor, keys] = reply.array()?;
        let next = match cursor.text()?.as_str() {
            "0" => {
                let following = masters.into_iter().find(|other| *other > master);
                following.map(|master| format!("{master}|0"))
            }
            cursor => Some(format!("{master}|{cursor}")),
        };
        // Keys of others may match by chance and be no text.
        let keys = keys.list()?.into_iter();
        let keys = keys.filter_map(|key| key.text().ok()).collect();
        Ok((keys, next))
    }

    fn read_kept(thread: &ThreadId, parts: Vec<Reply>) -> Result<Kept, Error> {
        let bad = || corrupt(&format!("thread `{thread}`"));
        let parts: [Reply; 10] = parts.try_into().map_err(|_| bad())?;
        let [
            head,
            row,
            watch,
            records,
            oldest,
            bytes,
            expires,
            rounds,
            open,
            blobs,
        ] = parts;
        let mut kept = Kept {
            records: records.count()?,
            oldest: oldest.count()?,
            record_bytes: bytes.count()?,
            expires: expires.count()? == 1,
            ..Kept::default()
        };
        kept.head = head.maybe_text()?.and_then(|head| read_head(&head));
        if let Some(row) = row.maybe_text()? {
            kept.row = Some(read_row(&row).ok_or_else(bad)?);
        }
        if let Some(watch) = watch.maybe_text()? {
            kept.watched = Some(watch.parse().map_err(|_| bad())?);
        }
        for field in rounds.texts()? {
            let round = field.strip_prefix("r:").and_then(|r| r.parse().ok());
            kept.rounds.insert(round.ok_or_else(bad)?);
        }
        for entry in open.texts()?.chunks_exact(2) {
            let at = UnixMillis(read_score(&entry[1])?);
            if let Some(id) = entry[0].strip_prefix(QUESTION) {
                kept.interrupts.insert(id.into(), at);
            } else if let Some(name) = entry[0].strip_prefix(TIMER) {
                kept.due.insert(name.to_owned(), at);
            }
        }
        for entry in blobs.texts()?.chunks_exact(2) {
            if blob_stays(&entry[1]) {
                kept.blobs.insert(entry[0].clone());
            }
        }
        Ok(kept)
    }

    /// Compares what a thread has with what its shard's indexes have of it.
    async fn compare_twins(&self, thread: &ThreadId, kept: &mut Kept) -> Result<(), Error> {
        let shard = self.keys.shard(thread);
        let mut torn = Vec::new();
        let score = |key: String, member: String| async move {
            let mut cmd = redis::cmd("ZSCORE");
            cmd.arg(key).arg(member);
            let score = self.ask("a read of an index", &cmd).await?.maybe_text()?;
            score.map(|score| read_score(&score)).transpose()
        };
        if let Some(row) = &kept.row {
            let list = shard.list(status_digit(row.status), &row.graph.name);
            let listed = score(list, thread.to_string()).await?;
            if listed != Some(row.updated_at.0) {
                torn.push(format!(
                    "its row says {} of graph `{}` since {}, the list of those has it {}",
                    row.status,
                    row.graph.name,
                    row.updated_at.0,
                    said(listed)
                ));
            }
        }
        if kept.watched.is_some() && score(shard.watched(), thread.to_string()).await?.is_none() {
            torn.push("it has a watch entry that is not in the watch index".to_owned());
        }
        let questions = kept.interrupts.iter().map(|(id, at)| (id.as_str(), *at));
        let timers = kept.due.iter().map(|(name, at)| (name.as_str(), *at));
        for (what, key, entries) in [
            ("question", shard.questions(), questions.collect::<Vec<_>>()),
            ("timer", shard.due(), timers.collect()),
        ] {
            for (id, at) in entries {
                let indexed = score(key.clone(), member(id, thread)).await?;
                if indexed != Some(at.0) {
                    torn.push(format!(
                        "its {what} `{id}` is of {}, the index has it {}",
                        at.0,
                        said(indexed)
                    ));
                }
            }
        }
        kept.torn = torn;
        Ok(())
    }

    /// The names of graphs that threads of this thread's shard have had.
    pub(crate) async fn graphs_of_shard(&self, thread: &ThreadId) -> Result<Vec<String>, Error> {
        let mut cmd = redis::cmd("SMEMBERS");
        cmd.arg(self.keys.shard(thread).graphs());
        self.ask("a read of a shard's graphs", &cmd).await?.texts()
    }

    fn reindex_call(
        &self,
        thread: &ThreadId,
        head: Head,
        truth: &Reindex,
        graphs: &[String],
        before: &Kept,
    ) -> Cmd {
        let shard = self.keys.shard(thread);
        let mut keys = vec![
            shard.thread(thread),
            shard.open(thread),
            shard.watched(),
            shard.questions(),
            shard.due(),
            shard.graphs(),
        ];
        let mut right = 0;
        for graph in graphs {
            for status in ThreadStatus::ALL {
                keys.push(shard.list(status_digit(status), &graph.as_str().into()));
                let row = truth.row.as_ref();
                if row.is_some_and(|r| r.status == status && r.graph.name.as_str() == graph) {
                    right = keys.len() - 6;
                }
            }
        }
        let mut cmd = scripts::call(&scripts::REINDEX, &keys);
        cmd.arg(head.to_string()).arg(thread.as_str());
        cmd.arg(u8::from(truth.watched)).arg(keys.len() - 6);
        let row = truth.row.as_ref();
        let graph = row.map_or("", |row| row.graph.name.as_str());
        cmd.arg(right)
            .arg(row.map(|row| row_field(row).0).unwrap_or_default())
            .arg(
                row.map(|row| format!("-{}", row.updated_at.0))
                    .unwrap_or_default(),
            )
            .arg(graph);
        cmd.arg(truth.rounds.len());
        for round in &truth.rounds {
            cmd.arg(round_field(*round));
        }
        cmd.arg(before.interrupts.len() + before.due.len());
        for id in before.interrupts.keys() {
            cmd.arg(QUESTION.to_string())
                .arg(member(id.as_str(), thread));
        }
        for name in before.due.keys() {
            cmd.arg(TIMER.to_string()).arg(member(name, thread));
        }
        cmd.arg(truth.interrupts.len() + truth.due.len());
        let named: BTreeMap<&str, UnixMillis> = truth
            .interrupts
            .iter()
            .map(|(id, at)| (id.as_str(), *at))
            .collect();
        let timers: BTreeMap<&str, UnixMillis> = truth
            .due
            .iter()
            .map(|(name, at)| (name.as_str(), *at))
            .collect();
        for (kind, entries) in [(QUESTION, named), (TIMER, timers)] {
            for (id, at) in entries {
                cmd.arg(kind.to_string()).arg(at.0);
                cmd.arg(member(id, thread)).arg(format!("{kind}{id}"));
            }
        }
        cmd
    }
}

fn said(score: Option<u64>) -> String {
    score.map_or_else(|| "not at all".to_owned(), |score| format!("with {score}"))
}

/// Text that a pattern takes as it is.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if matches!(character, '*' | '?' | '[' | ']' | '\\' | '^') {
            escaped.push('\\');
        }
        escaped.push(character);
    }
    escaped
}
