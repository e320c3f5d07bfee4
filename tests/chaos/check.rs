//! Whether everything ended as if nothing had happened.
//!
//! Values and history are read through the worker crate's own reader; effects from the ledger and
//! the outbox, in which each line carries the key that a service outside would know again; and
//! `superstep verify` reads what the store holds.
//!
//! The rule it keeps: all that is wrong is told, not the first thing only.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use superstep_checkpoint::{ThreadLog, ThreadQuery};
use superstep_protocol::{ThreadId, ThreadStatus};
use superstep_tests::worker_binary;
use superstep_worker::Threads;

use crate::site::Site;
use crate::threads::Thread;

pub(crate) type Store = (Arc<dyn ThreadLog>, Threads);

/// How often threads are looked at while they are waited for.
const BEAT: Duration = Duration::from_millis(250);

/// The threads that have not come to rest, each with what it does instead.
pub(crate) async fn unended((log, reader): &Store, threads: &[Thread]) -> Vec<(String, String)> {
    tokio::time::sleep(BEAT).await;
    let mut found: BTreeMap<String, ThreadStatus> = BTreeMap::new();
    let mut query = ThreadQuery {
        status: None,
        graph: None,
        limit: 1_000,
        after: None,
    };
    loop {
        let page = log.threads(&query).await.expect("the store answers");
        let rows = page.rows.into_iter();
        found.extend(rows.map(|(id, row)| (id.to_string(), row.status)));
        query.after = page.next;
        if query.after.is_none() {
            break;
        }
    }
    let mut left = Vec::new();
    for thread in threads {
        match found.get(&thread.id) {
            None => left.push((thread.id.clone(), "it was never begun".to_owned())),
            Some(ThreadStatus::Idle) if thread.runs == 1 => {}
            Some(status) => {
                let loaded = reader.load(&ThreadId::new(thread.id.as_str())).await;
                let loaded = loaded.expect("the thread can be read");
                let state = loaded.expect("it is listed").state;
                // A queued start may not have arrived yet.
                if *status != ThreadStatus::Idle
                    || !thread.wrong(&state.visible_values()).is_empty()
                {
                    let run = state.run.as_ref();
                    let why = format!("{status}, head {}, run {run:?}", state.head);
                    left.push((thread.id.clone(), why));
                }
            }
        }
    }
    left
}

/// What is wrong with how threads ended.
pub(crate) async fn ended_right(
    site: &Site,
    (log, reader): &Store,
    threads: &[Thread],
) -> Vec<String> {
    let mut wrong = Vec::new();
    for thread in threads {
        let id = ThreadId::new(thread.id.as_str());
        let loaded = reader.load(&id).await.expect("the thread can be read");
        let Some(loaded) = loaded else { continue };
        wrong.extend(thread.wrong(&loaded.state.visible_values()));

        let records = log.history(&id, None, 10_000).await;
        let records = records.expect("the log can be read");
        let versions = records.iter().rev().map(|record| record.head.version);
        if !versions.eq(1..=records.len() as u64) {
            wrong.push(format!("{id}: its records are no chain"));
        }
        let history = reader.history(&id, None, 10_000).await;
        let mut history = history.expect("the history can be read");
        history.reverse();
        let mut before: Option<String> = None;
        for (index, checkpoint) in history.into_iter().enumerate() {
            let step = i64::try_from(index).expect("a short history") - 1;
            if checkpoint.step != step || checkpoint.parent_checkpoint_id != before {
                wrong.push(format!(
                    "{id}: superstep {} stands in the place of {step}, parent {:?}",
                    checkpoint.step, checkpoint.parent_checkpoint_id
                ));
            }
            before = Some(checkpoint.checkpoint_id);
        }
    }
    wrong.extend(effects(site, threads));
    wrong
}

/// What is wrong with the effects on the world outside, each key counted once.
fn effects(site: &Site, threads: &[Thread]) -> Vec<String> {
    let read = |file| std::fs::read_to_string(site.dir().join(file)).unwrap_or_default();
    let mut keys: BTreeMap<String, BTreeMap<String, BTreeSet<String>>> = BTreeMap::new();
    let (mut lines, mut distinct) = (0, 0);
    for line in read("ledger").lines() {
        let words: Vec<&str> = line.split(' ').collect();
        if let ["effect", thread, node, key, _worker] = words[..] {
            let nodes = keys.entry(thread.to_owned()).or_default();
            let known = nodes.entry(node.to_owned()).or_default();
            lines += 1;
            distinct += usize::from(known.insert(key.to_owned()));
        }
    }
    eprintln!(
        "effects: {distinct} keys, {} of them again",
        lines - distinct
    );
    let mut mails: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in read("outbox").lines() {
        let mail: Value = serde_json::from_str(line).expect("a mail is JSON");
        let thread = mail["thread_id"].as_str().unwrap_or_default().to_owned();
        let key = mail["idempotency_key"].to_string();
        mails.entry(thread).or_default().insert(key);
    }
    let mut wrong = Vec::new();
    for thread in threads {
        let nodes = keys.remove(&thread.id).unwrap_or_default();
        let found: BTreeMap<String, usize> = nodes
            .into_iter()
            .map(|(node, keys)| (node, keys.len()))
            .collect();
        if found != thread.effects() {
            wrong.push(format!(
                "{}: effects {found:?}, must be {:?}",
                thread.id,
                thread.effects()
            ));
        }
        let sent = mails.get(&thread.id).map_or(0, BTreeSet::len);
        if sent != thread.mails() {
            wrong.push(format!("{}: {sent} mails", thread.id));
        }
    }
    wrong
}

/// What `superstep verify` finds.
pub(crate) async fn verified(site: &Site) -> Vec<String> {
    let path = worker_binary("superstep").expect("the binary builds");
    let mut command = Command::new(path);
    command
        .args(["--json", "verify"])
        .current_dir(site.dir())
        .env("SUPERSTEP_NATS_URL", site.nats.url())
        .env("SUPERSTEP_REDIS_URL", site.redis.url());
    let ran = tokio::task::spawn_blocking(move || command.output()).await;
    let output = ran.expect("it does not panic").expect("verify runs");
    let said = String::from_utf8_lossy(&output.stdout);
    eprintln!("verify: {}", said.lines().last().unwrap_or_default());
    if output.status.success() {
        return Vec::new();
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = said.lines().chain(errors.lines());
    said.map(|line| format!("verify: {line}")).collect()
}
