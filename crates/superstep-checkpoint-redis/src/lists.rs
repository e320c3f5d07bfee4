//! Lists over all threads: every shard is asked for a page, and the pages are merged.
//!
//! A page costs what it shows, times the shards: each shard gives at most as many rows as the page
//! may have. The rule it keeps: the order, and so the cursor, is the port's, by bytes; nothing
//! depends on a locale or on the number of shards.

use futures_util::future::try_join_all;
use redis::Cmd;
use superstep_checkpoint::{
    Cursor, Due, Error, InterruptQuery, InterruptRow, Page, ThreadQuery, ThreadRow, Watched,
    page_rows,
};
use superstep_protocol::{ThreadId, ThreadStatus, UnixMillis};

use crate::{
    append::QUESTION,
    codec::{corrupt, member, read_member, read_row, status_digit},
    keys::Keys,
    link::Link,
    reply::Reply,
    scripts,
};

/// A page of the thread list.
pub(crate) async fn threads(
    link: &Link,
    keys: &Keys,
    query: &ThreadQuery,
) -> Result<Page<(ThreadId, ThreadRow)>, Error> {
    let limit = page_rows(query.limit);
    let cursor = query.after.as_deref().map(|after| Cursor::decode(after, 1));
    let cursor = cursor.transpose()?;
    let (from, after) = match &cursor {
        Some(cursor) => (format!("-{}", cursor.at.0), Some(cursor.ids[0].as_str())),
        None => ("-inf".to_owned(), None),
    };
    let statuses: String = match query.status {
        Some(status) => status_digit(status).to_string(),
        None => ThreadStatus::ALL.into_iter().map(status_digit).collect(),
    };
    let graph = query.graph.as_ref().map_or("", |graph| graph.as_str());
    let pages = keys.shards().iter().map(|shard| {
        let mut cmd = page_call(shard.graphs(), &from, after, limit);
        cmd.arg(&statuses)
            .arg(graph)
            .arg(shard.lists())
            .arg(shard.threads());
        async move { scored_rows(link, &cmd).await }
    });
    let mut rows = Vec::new();
    for (at, thread, row) in try_join_all(pages).await?.into_iter().flatten() {
        // Without a row it was deleted since: this list is not one moment of all shards.
        if let Some(row) = row {
            let row =
                read_row(&row).ok_or_else(|| corrupt(&format!("the row of thread `{thread}`")))?;
            rows.push((at, ThreadId::new(thread), row));
        }
    }
    rows.sort_by(|a, b| (b.0, &a.1).cmp(&(a.0, &b.1)));
    let next = cut(&mut rows, limit).map(|(at, thread, _)| Cursor {
        at: UnixMillis(*at),
        ids: vec![thread.to_string()],
    });
    Ok(Page {
        next: next.map(|cursor| cursor.encode()),
        rows: rows
            .into_iter()
            .map(|(_, thread, row)| (thread, row))
            .collect(),
    })
}

/// A page of the open questions.
pub(crate) async fn interrupts(
    link: &Link,
    keys: &Keys,
    query: &InterruptQuery,
) -> Result<Page<(ThreadId, InterruptRow)>, Error> {
    let limit = page_rows(query.limit);
    let cursor = query.after.as_deref().map(|after| Cursor::decode(after, 2));
    let cursor = cursor.transpose()?;
    let mut rows = match &query.thread {
        Some(thread) => questions_of(link, keys, thread, cursor.as_ref()).await?,
        None => questions_of_all(link, keys, cursor.as_ref(), limit).await?,
    };
    rows.sort_by(|(a_thread, a), (b_thread, b)| {
        (a.opened_at, &a.id, a_thread).cmp(&(b.opened_at, &b.id, b_thread))
    });
    let next = cut(&mut rows, limit).map(|(thread, row)| Cursor {
        at: row.opened_at,
        ids: vec![row.id.to_string(), thread.to_string()],
    });
    Ok(Page {
        next: next.map(|cursor| cursor.encode()),
        rows,
    })
}

/// Watched threads of every shard, oldest first.
pub(crate) async fn watched(
    link: &Link,
    keys: &Keys,
    from: UnixMillis,
    until: UnixMillis,
    limit: usize,
) -> Result<Vec<Watched>, Error> {
    let pages = keys.shards().iter().map(|shard| async move {
        let mut cmd = scripts::call(&scripts::WATCHED, &[shard.watched()]);
        cmd.arg(from.0).arg(until.0).arg(limit).arg(shard.threads());
        let reply = Reply::new("a read of the watch index", link.call(&cmd).await?);
        reply.texts()
    });
    let mut entries = Vec::new();
    for page in try_join_all(pages).await? {
        for entry in page.chunks_exact(4) {
            let bad = || corrupt(&format!("the watch entry of thread `{}`", entry[0]));
            entries.push(Watched {
                head: entry[2].parse().map_err(|_| bad())?,
                graph: read_row(&entry[3]).ok_or_else(bad)?.graph,
                thread: ThreadId::new(entry[0].as_str()),
                since: UnixMillis(read_score(&entry[1])?),
            });
        }
    }
    entries.sort_by(|a, b| (a.since, &a.thread).cmp(&(b.since, &b.thread)));
    entries.truncate(limit);
    Ok(entries)
}

/// Due timers of every shard, earliest first.
pub(crate) async fn due(
    link: &Link,
    keys: &Keys,
    now: UnixMillis,
    limit: usize,
) -> Result<Vec<Due>, Error> {
    let pages = keys.shards().iter().map(|shard| async move {
        let mut cmd = redis::cmd("ZRANGEBYSCORE");
        cmd.arg(shard.due())
            .arg("-inf")
            .arg(now.0)
            .arg("WITHSCORES");
        cmd.arg("LIMIT").arg(0).arg(limit);
        Reply::new("a read of the timers", link.call(&cmd).await?).texts()
    });
    let mut entries = Vec::new();
    for page in try_join_all(pages).await? {
        for entry in page.chunks_exact(2) {
            let (name, thread) =
                read_member(&entry[0]).ok_or_else(|| corrupt("a member of the timers"))?;
            entries.push(Due {
                thread,
                name,
                at: UnixMillis(read_score(&entry[1])?),
            });
        }
    }
    entries.sort_by(|a, b| (a.at, &a.thread, &a.name).cmp(&(b.at, &b.thread, &b.name)));
    entries.truncate(limit);
    Ok(entries)
}

async fn questions_of(
    link: &Link,
    keys: &Keys,
    thread: &ThreadId,
    cursor: Option<&Cursor>,
) -> Result<Vec<(ThreadId, InterruptRow)>, Error> {
    let mut cmd = redis::cmd("ZRANGE");
    cmd.arg(keys.shard(thread).open(thread))
        .arg(0)
        .arg(-1)
        .arg("WITHSCORES");
    let open = Reply::new("a read of a thread's questions", link.call(&cmd).await?).texts()?;
    let mut rows = Vec::new();
    for entry in open.chunks_exact(2) {
        let Some(id) = entry[0].strip_prefix(QUESTION) else {
            continue;
        };
        let opened_at = UnixMillis(read_score(&entry[1])?);
        let is_after = cursor.is_none_or(|cursor| {
            (opened_at, id, thread.as_str())
                > (cursor.at, cursor.ids[0].as_str(), cursor.ids[1].as_str())
        });
        if is_after {
            rows.push((
                thread.clone(),
                InterruptRow {
                    id: id.into(),
                    opened_at,
                },
            ));
        }
    }
    Ok(rows)
}

async fn questions_of_all(
    link: &Link,
    keys: &Keys,
    cursor: Option<&Cursor>,
    limit: usize,
) -> Result<Vec<(ThreadId, InterruptRow)>, Error> {
    let from = cursor.map_or_else(|| "-inf".to_owned(), |cursor| cursor.at.0.to_string());
    let after = cursor.map(|cursor| member(&cursor.ids[0], &cursor.ids[1].as_str().into()));
    let pages = keys.shards().iter().map(|shard| {
        let mut cmd = page_call(shard.questions(), &from, after.as_deref(), limit);
        cmd.arg("").arg("").arg("").arg("");
        async move { scored_rows(link, &cmd).await }
    });
    let mut rows = Vec::new();
    for (opened_at, member, _) in try_join_all(pages).await?.into_iter().flatten() {
        let (id, thread) =
            read_member(&member).ok_or_else(|| corrupt("a member of the open questions"))?;
        let row = InterruptRow {
            id: id.into(),
            opened_at: UnixMillis(opened_at),
        };
        rows.push((thread, row));
    }
    Ok(rows)
}

/// A call of the page script for one row more than the page, with the last four arguments left.
fn page_call(key: String, from: &str, after: Option<&str>, limit: usize) -> Cmd {
    let mut cmd = scripts::call(&scripts::PAGE, &[key]);
    cmd.arg(from)
        .arg(u8::from(after.is_some()))
        .arg(after.unwrap_or_default());
    cmd.arg(limit + 1);
    cmd
}

async fn scored_rows(link: &Link, cmd: &Cmd) -> Result<Vec<(u64, String, Option<String>)>, Error> {
    let reply = Reply::new("a read of a list", link.call(cmd).await?);
    let mut replies = reply.list()?.into_iter();
    let mut rows = Vec::new();
    while let (Some(score), Some(member), Some(row)) =
        (replies.next(), replies.next(), replies.next())
    {
        rows.push((
            read_score(&score.text()?)?,
            member.text()?,
            row.maybe_text()?,
        ));
    }
    Ok(rows)
}

/// Cuts `rows` to a page; the last row of it if there are more.
fn cut<Row>(rows: &mut Vec<Row>, limit: usize) -> Option<&Row> {
    let more = rows.len() > limit;
    rows.truncate(limit);
    rows.last().filter(|_| more)
}

/// A time from a score, which is a double and may be negated.
pub(crate) fn read_score(score: &str) -> Result<u64, Error> {
    let time: f64 = score
        .parse()
        .map_err(|_| corrupt("the score of an index"))?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "milliseconds fit a double exactly for 280,000 years, and the sign is taken off"
    )]
    Ok(time.abs() as u64)
}
