//! What a server says about itself that the guarantees depend on, for `doctor`.
//!
//! Every master of a Cluster is asked. The rule it keeps: nothing here fails. A server that
//! refuses to tell is a finding, as is one that cannot be reached.

use superstep_checkpoint::{Error, ErrorKind, Finding};
use superstep_protocol::UnixMillis;

use crate::{link::Link, log::local_now, reply::Reply};

/// The oldest server that is supported.
const OLDEST: (u32, u32) = (6, 2);

/// How far a clock may be off: a plain answer is taken or refused by comparing clocks.
const CLOCK_OFFSET_MAX_MS: u64 = 100;

/// The findings about every server of the link.
pub(crate) async fn servers(link: &Link) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut info = redis::cmd("INFO");
    info.arg("everything");
    match link.call_all(&info).await {
        Ok(nodes) => {
            let many = nodes.len() > 1;
            for (node, answer) in nodes {
                let at = if many {
                    format!(" of {node}")
                } else {
                    String::new()
                };
                match Reply::new("INFO", answer).text() {
                    Ok(info) => findings.extend(of_info(&Info(&info), &at, link.is_cluster())),
                    Err(error) => findings.push(bad("reachable", &at, error.to_string())),
                }
            }
        }
        Err(error) if error.kind() == ErrorKind::Denied => {
            findings.push(bad("INFO", "", unchecked(&error, "+info")));
        }
        Err(error) => {
            findings.push(bad("reachable", "", error.to_string()));
            return findings;
        }
    }
    findings.extend(config(link).await);
    findings.extend(clock(link).await);
    findings
}

/// Reads the answer to TIME.
pub(crate) fn read_time(reply: Reply) -> Result<UnixMillis, Error> {
    let [seconds, micros] = reply.array()?;
    let number = |reply: Reply| {
        let bad = reply.corrupt();
        reply.text()?.parse::<u64>().map_err(|_| bad)
    };
    Ok(UnixMillis(
        number(seconds)? * 1_000 + number(micros)? / 1_000,
    ))
}

/// The text of INFO.
struct Info<'a>(&'a str);

impl Info<'_> {
    fn get(&self, name: &str) -> Option<&str> {
        self.0.lines().find_map(|line| {
            let value = line.trim_end().strip_prefix(name)?;
            value.strip_prefix(':')
        })
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.get(name) == Some(value)
    }
}

fn of_info(info: &Info<'_>, at: &str, cluster: bool) -> Vec<Finding> {
    let mut findings = vec![version(info, at)];
    findings.push(if info.is("role", "master") {
        good("role", at, "master")
    } else {
        bad(
            "role",
            at,
            "a replica: reads may be old and writes are refused; give the master's address"
                .to_owned(),
        )
    });
    findings.push(match info.get("maxmemory_policy") {
        Some("noeviction") => good("maxmemory-policy", at, "noeviction"),
        policy => bad(
            "maxmemory-policy",
            at,
            format!(
                "{}: threads may be evicted when memory is short; set it to noeviction",
                policy.unwrap_or("not told")
            ),
        ),
    });
    findings.push(if info.is("aof_enabled", "1") {
        good("appendonly", at, "yes")
    } else {
        bad("appendonly", at, "no: a restart loses what came after the last snapshot; set appendonly yes and appendfsync everysec".to_owned())
    });
    if info.is("aof_enabled", "1") && !info.is("aof_last_write_status", "ok") {
        findings.push(bad(
            "append-only file",
            at,
            "the last write to it failed; is the disk full?".to_owned(),
        ));
    }
    findings.push(match (info.is("cluster_enabled", "1"), cluster) {
        (true, true) => good("cluster", at, "yes, as the address says"),
        (false, false) => good("cluster", at, "no, as the address says"),
        (true, false) => bad(
            "cluster",
            at,
            "the server is a node of a Cluster; use redis+cluster:// for its address".to_owned(),
        ),
        (false, true) => bad(
            "cluster",
            at,
            "the server is not a node of a Cluster; use redis:// for its address".to_owned(),
        ),
    });
    findings
}

fn version(info: &Info<'_>, at: &str) -> Finding {
    if let Some(valkey) = info.get("valkey_version") {
        return good("version", at, &format!("Valkey {valkey}"));
    }
    let text = info.get("redis_version").unwrap_or("not told");
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found >= OLDEST {
        good("version", at, &format!("Redis {text}"))
    } else {
        bad(
            "version",
            at,
            format!("Redis {text}: use 6.2 or newer, or Valkey"),
        )
    }
}

async fn config(link: &Link) -> Vec<Finding> {
    let mut cmd = redis::cmd("CONFIG");
    cmd.arg("GET").arg("appendfsync");
    match link.call_all(&cmd).await {
        Ok(nodes) => nodes.into_iter().map(|(node, answer)| {
            let at = if link.is_cluster() { format!(" of {node}") } else { String::new() };
            let pair = Reply::new("CONFIG GET", answer).texts().unwrap_or_default();
            match pair.get(1).map(String::as_str) {
                Some("no") => bad("appendfsync", &at, "no: a crash of the machine may lose half a minute, and commands are acked before they are durable; set it to everysec".to_owned()),
                Some(policy) => good("appendfsync", &at, policy),
                None => good("appendfsync", &at, "not checked: the server does not tell"),
            }
        }).collect(),
        // Managed servers refuse CONFIG to everybody: that is no fault.
        Err(error) => vec![good("appendfsync", "", &unchecked(&error, "+config|get"))],
    }
}

async fn clock(link: &Link) -> Vec<Finding> {
    let before = local_now();
    let nodes = match link.call_all(&redis::cmd("TIME")).await {
        Ok(nodes) => nodes,
        Err(error) => return vec![bad("clock", "", unchecked(&error, "+time"))],
    };
    let after = local_now();
    nodes
        .into_iter()
        .map(|(node, answer)| {
            let at = if link.is_cluster() {
                format!(" of {node}")
            } else {
                String::new()
            };
            match read_time(Reply::new("TIME", answer)) {
                Ok(time) => offset(time, before, after, &at),
                Err(error) => bad("clock", &at, error.to_string()),
            }
        })
        .collect()
}

fn offset(server: UnixMillis, before: UnixMillis, after: UnixMillis, at: &str) -> Finding {
    // The answer was made at some moment between the two looks at the clock here.
    let ms = before
        .0
        .saturating_sub(server.0)
        .max(server.0.saturating_sub(after.0));
    if ms <= CLOCK_OFFSET_MAX_MS {
        good(
            "clock",
            at,
            &format!("at most {CLOCK_OFFSET_MAX_MS} ms from this machine's"),
        )
    } else {
        bad(
            "clock",
            at,
            format!(
                "{ms} ms from this machine's: plain answers may be refused as stale; synchronize both clocks (NTP)"
            ),
        )
    }
}

fn unchecked(error: &Error, grant: &str) -> String {
    match error.kind() {
        ErrorKind::Denied => {
            format!(
                "not checked: the server refuses it to this user; grant {grant} to have it checked"
            )
        }
        _ => format!("not checked: {error}"),
    }
}

fn good(subject: &str, at: &str, detail: &str) -> Finding {
    Finding {
        ok: true,
        subject: format!("{subject}{at}"),
        detail: detail.to_owned(),
    }
}

fn bad(subject: &str, at: &str, detail: String) -> Finding {
    Finding {
        ok: false,
        subject: format!("{subject}{at}"),
        detail,
    }
}
