//! `doctor`: what is reached, whether it is as superstep relies on it, and what to fix.
//!
//! Each server is tried by itself, so that one that is away does not hide the other. What is
//! looked at on a server is the adapters'; the clocks are compared here.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;
use superstep::connect::{ConnectError, EmbeddedAccess, connect_log, connect_queue, open_embedded};
use superstep_checkpoint::{REGISTRATION_TTL, ThreadLog};
use superstep_protocol::UnixMillis;
use superstep_queue::Queue;

use crate::{
    exit::{Exit, Failure},
    output::{BAD, GOOD, table},
    reach::Session,
    settings::Place,
};

/// Clocks further apart than this can take an answer for one to another question.
const CLOCK_OFFSET_MS_MAX: u64 = 100;

struct Finding {
    ok: bool,
    subject: String,
    detail: String,
}

pub(crate) async fn run(session: &Session) -> Result<Exit, Failure> {
    let settings = &session.settings;
    let mut findings = Vec::new();
    let mut failures = Vec::new();
    match &settings.place {
        Place::Cluster { .. } => {
            let cluster = settings.connect.check().map_err(ConnectError::from);
            let cluster = cluster.map_err(|error| session.failure(&error))?;
            let (queue, log) = tokio::join!(
                Box::pin(connect_queue(&cluster)),
                Box::pin(connect_log(&cluster))
            );
            match queue {
                Ok(queue) => findings.extend(of_queue(&*queue, settings).await),
                Err(error) => failures.push(("NATS", error)),
            }
            match log {
                Ok(log) => findings.extend(of_log(&*log).await),
                Err(error) => failures.push(("Redis", error)),
            }
        }
        Place::Folder(folder) => {
            let access = EmbeddedAccess::Client;
            let opened = Box::pin(open_embedded(folder, access, &settings.connect)).await;
            let connected = opened.map_err(|error| session.failure(&error))?;
            findings.extend(of_queue(&*connected.queue, settings).await);
            findings.extend(of_log(&*connected.log).await);
        }
    }
    let mut exit = Exit::Done;
    for (server, error) in failures {
        let failure = session.failure(&error);
        findings.push(Finding {
            ok: false,
            subject: server.to_owned(),
            detail: failure.message,
        });
        // What must be mended counts over what may come back by itself.
        exit = match (exit, failure.exit) {
            (Exit::Usage, _) | (_, Exit::Usage) => Exit::Usage,
            (_, other) => other,
        };
    }
    if exit == Exit::Done && findings.iter().any(|finding| !finding.ok) {
        exit = Exit::Failed;
    }
    tell(session, &findings)?;
    Ok(exit)
}

fn tell(session: &Session, findings: &[Finding]) -> Result<(), Failure> {
    let output = session.output;
    let values: Vec<_> = findings
        .iter()
        .map(|finding| {
            json!({
                "ok": finding.ok,
                "subject": finding.subject,
                "detail": finding.detail,
            })
        })
        .collect();
    let wrong = findings.iter().filter(|finding| !finding.ok).count();
    output.value(&json!({"ok": wrong == 0, "findings": values}))?;
    let mut rows = table(["", "what", "found"], &["found"]);
    for finding in findings {
        let mark = if finding.ok { "ok" } else { "FIX" };
        rows.add_row([mark, finding.subject.as_str(), finding.detail.as_str()]);
    }
    output.table(&mut rows)?;
    if wrong == 0 {
        output.line(format!("{GOOD}all is as it should be{GOOD:#}"))
    } else {
        output.line(format!("{BAD}{wrong} to fix{BAD:#}"))
    }
}

async fn of_queue(queue: &dyn Queue, settings: &crate::settings::Settings) -> Vec<Finding> {
    let mut findings: Vec<Finding> = queue
        .check()
        .await
        .into_iter()
        .map(|finding| Finding {
            ok: finding.ok,
            subject: finding.subject,
            detail: finding.detail,
        })
        .collect();
    let (body_max, command_max) = (
        queue.body_bytes_max(),
        settings.worker.limits.command_bytes_max,
    );
    findings.push(Finding {
        ok: body_max >= command_max,
        subject: "message size".to_owned(),
        detail: if body_max >= command_max {
            format!("{body_max} bytes, commands may have {command_max}")
        } else {
            format!(
                "{body_max} bytes, but commands may have {command_max}: raise the server's \
                 max_payload, or lower command_bytes_max"
            )
        },
    });
    findings
}

async fn of_log(log: &dyn ThreadLog) -> Vec<Finding> {
    let mut findings: Vec<Finding> = log
        .check()
        .await
        .into_iter()
        .map(|finding| Finding {
            ok: finding.ok,
            subject: finding.subject,
            detail: finding.detail,
        })
        .collect();
    findings.extend(clock(log).await);
    findings.extend(workers(log).await);
    findings
}

/// Compares the store's clock with this machine's.
async fn clock(log: &dyn ThreadLog) -> Option<Finding> {
    let before = unix_ms();
    let store = log.now().await.ok()?.0;
    let after = unix_ms();
    // The store read its clock at some moment between the two.
    let offset_ms = before
        .saturating_sub(store)
        .max(store.saturating_sub(after));
    Some(Finding {
        ok: offset_ms <= CLOCK_OFFSET_MS_MAX,
        subject: "clock of the store".to_owned(),
        detail: if offset_ms <= CLOCK_OFFSET_MS_MAX {
            format!("within {offset_ms} ms of this machine's")
        } else {
            format!(
                "{offset_ms} ms from this machine's, at most {CLOCK_OFFSET_MS_MAX} are safe: \
                 synchronise both with a time server"
            )
        },
    })
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since: Duration| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

/// Who could work. That nobody does is worth knowing, and no fault of a server.
async fn workers(log: &dyn ThreadLog) -> Option<Finding> {
    let registered = log.registrations().await.ok()?;
    let now: UnixMillis = log.now().await.ok()?;
    let ttl_ms = u64::try_from(REGISTRATION_TTL.as_millis()).unwrap_or(u64::MAX);
    let live: Vec<String> = registered
        .iter()
        .filter(|registration| registration.renewed_at.plus_ms(ttl_ms) >= now)
        .map(|registration| registration.graph.to_string())
        .collect();
    Some(Finding {
        ok: true,
        subject: "workers".to_owned(),
        detail: if live.is_empty() {
            "none has registered a graph lately; start one with `superstep worker`".to_owned()
        } else {
            format!("live for {}", live.join(", "))
        },
    })
}
