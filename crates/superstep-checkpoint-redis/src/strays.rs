//! What is in an index, or lies beside a log, and belongs to nothing.
//!
//! First each shard's indexes, a page of one of them a call; then every key of every master. The
//! rule it keeps: a stray is removed only by a script that finds it a stray once more.

use superstep_checkpoint::{BLOB_TTL, ENDED_ROUND_TTL, Error, Page, Stray, StrayKind};
use superstep_protocol::ThreadId;

use crate::{
    RedisLog,
    append::{QUESTION, TIMER, round_field},
    codec::{corrupt, member, read_member, status_digit},
    keys::{Shard, ThreadKey},
    log::millis,
    reply::Reply,
    scripts,
};

/// One index of a shard.
struct Index {
    key: String,
    /// As `lua/strays.lua` names it.
    kind: char,
    /// How the row of a thread in this list begins.
    begins: String,
    /// The list's name in a stray.
    list: String,
}

impl RedisLog {
    /// A page of strays. Cursors are `i:shard:index:cursor` in the indexes, then `k:` and a scan's.
    pub(crate) async fn find_strays(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Stray>, Error> {
        let bad = || corrupt("the cursor of a list of strays");
        let after = after.unwrap_or("i:0:0:0");
        if let Some(scan) = after.strip_prefix("k:") {
            let scan = Some(scan).filter(|scan| !scan.is_empty());
            return self.strays_of_keys(scan, limit).await;
        }
        let parts: Vec<&str> = after.split(':').collect();
        let [_, shard_number, index_number, cursor] = parts[..] else {
            return Err(bad());
        };
        let shard_number: usize = shard_number.parse().map_err(|_| bad())?;
        let index_number: usize = index_number.parse().map_err(|_| bad())?;
        let Some(shard) = self.keys.shards().get(shard_number) else {
            return Ok(Page {
                rows: Vec::new(),
                next: Some("k:".to_owned()),
            });
        };
        let indexes = self.indexes(shard).await?;
        let Some(index) = indexes.get(index_number) else {
            return Ok(Page {
                rows: Vec::new(),
                next: Some(format!("i:{}:0:0", shard_number + 1)),
            });
        };
        let mut cmd = scripts::call(&scripts::STRAYS, std::slice::from_ref(&index.key));
        cmd.arg(cursor)
            .arg(limit.max(1))
            .arg(index.kind.to_string());
        cmd.arg(shard.threads())
            .arg(shard.open(&ThreadId::new("")))
            .arg(&index.begins);
        let reply = self.ask("a look at an index", &cmd).await?;
        let [cursor, members] = reply.array()?;
        let rows = members.texts()?;
        let rows = rows.iter().map(|member| index.stray(member));
        let next = match cursor.text()?.as_str() {
            "0" => format!("i:{shard_number}:{}:0", index_number + 1),
            cursor => format!("i:{shard_number}:{index_number}:{cursor}"),
        };
        Ok(Page {
            rows: rows.collect::<Result<_, _>>()?,
            next: Some(next),
        })
    }

    async fn indexes(&self, shard: &Shard) -> Result<Vec<Index>, Error> {
        let plain = |key: String, kind| Index {
            key,
            kind,
            begins: String::new(),
            list: String::new(),
        };
        let mut indexes = vec![
            plain(shard.watched(), 'w'),
            plain(shard.due(), TIMER),
            plain(shard.questions(), QUESTION),
        ];
        let mut cmd = redis::cmd("SMEMBERS");
        cmd.arg(shard.graphs());
        let mut graphs = self
            .ask("a read of a shard's graphs", &cmd)
            .await?
            .texts()?;
        graphs.sort();
        for graph in graphs {
            for digit in superstep_protocol::ThreadStatus::ALL.map(status_digit) {
                indexes.push(Index {
                    key: shard.list(digit, &graph.as_str().into()),
                    kind: 'l',
                    begins: format!("{digit}{}:{graph}", graph.len()),
                    list: format!("{digit}:{graph}"),
                });
            }
        }
        Ok(indexes)
    }

    async fn strays_of_keys(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Stray>, Error> {
        let (keys, next) = self.scan("", after, limit).await?;
        let mut rows = Vec::new();
        for key in &keys {
            let (kind, thread, name) = match self.keys.read(key) {
                Some(ThreadKey::Open { thread }) => (StrayKind::Entries, thread, String::new()),
                Some(ThreadKey::Results { thread, round }) => {
                    (StrayKind::Results, thread, round.to_string())
                }
                Some(ThreadKey::Progress { thread, round }) => {
                    (StrayKind::Progress, thread, round.to_string())
                }
                Some(ThreadKey::Blob { thread, id }) => (StrayKind::Blob, thread, id.to_owned()),
                Some(ThreadKey::Log { .. }) | None => continue,
            };
            let stray = Stray {
                kind,
                thread: ThreadId::new(thread),
                name,
            };
            if self.settle_stray(&stray, false).await? {
                rows.push(stray);
            }
        }
        Ok(Page {
            rows,
            next: next.map(|next| format!("k:{next}")),
        })
    }

    /// Whether it is a stray; and if so, and if that is asked, removes it.
    pub(crate) async fn settle_stray(&self, stray: &Stray, remove: bool) -> Result<bool, Error> {
        let thread = &stray.thread;
        let shard = self.keys.shard(thread);
        let round = || stray.name.parse();
        let (key, kind, in_index, has, ttl) = match stray.kind {
            StrayKind::Row => {
                let (digit, graph) = stray.name.split_once(':').unwrap_or_default();
                let digit = digit.chars().next().unwrap_or('0');
                let key = shard.list(digit, &graph.into());
                let begins = format!("{digit}{}:{graph}", graph.len());
                (key, 'l', thread.to_string(), begins, None)
            }
            StrayKind::Watch => (
                shard.watched(),
                'w',
                thread.to_string(),
                String::new(),
                None,
            ),
            StrayKind::Timer | StrayKind::Question => {
                let (key, kind) = if stray.kind == StrayKind::Timer {
                    (shard.due(), TIMER)
                } else {
                    (shard.questions(), QUESTION)
                };
                let has = format!("{kind}{}", stray.name);
                (key, kind, member(&stray.name, thread), has, None)
            }
            StrayKind::Entries => (shard.open(thread), 'x', String::new(), String::new(), None),
            StrayKind::Results | StrayKind::Progress => {
                let Ok(round) = round() else {
                    return Ok(false);
                };
                let key = if stray.kind == StrayKind::Results {
                    shard.results(thread, round)
                } else {
                    shard.progress(thread, round)
                };
                (
                    key,
                    'm',
                    String::new(),
                    round_field(round),
                    Some(ENDED_ROUND_TTL),
                )
            }
            StrayKind::Blob => {
                let key = shard.blob(thread, &stray.name);
                (key, 'b', String::new(), stray.name.clone(), Some(BLOB_TTL))
            }
        };
        let keys = [
            key,
            shard.thread(thread),
            shard.open(thread),
            shard.blob_index(thread),
        ];
        let mut cmd = scripts::call(&scripts::STRAY, &keys);
        cmd.arg(kind.to_string()).arg(in_index).arg(has);
        cmd.arg(match (remove, ttl) {
            (false, _) => String::new(),
            (true, None) => "1".to_owned(),
            (true, Some(ttl)) => millis(ttl).to_string(),
        });
        let reply: Reply = self.ask("a look at an entry", &cmd).await?;
        Ok(reply.integer()? == 1)
    }
}

impl Index {
    fn stray(&self, in_index: &str) -> Result<Stray, Error> {
        let of = |kind, thread: &str, name: String| Stray {
            kind,
            thread: ThreadId::new(thread),
            name,
        };
        Ok(match self.kind {
            'w' => of(StrayKind::Watch, in_index, String::new()),
            'l' => of(StrayKind::Row, in_index, self.list.clone()),
            kind => {
                let (name, thread) =
                    read_member(in_index).ok_or_else(|| corrupt("a member of an index"))?;
                let kind = if kind == TIMER {
                    StrayKind::Timer
                } else {
                    StrayKind::Question
                };
                of(kind, thread.as_str(), name)
            }
        })
    }
}
