//! What the queue finds about itself: server, streams, consumers, and what to fix.
//!
//! It looks and changes nothing, and it goes on after a bad finding: a person wants all of
//! them at once.

use async_nats::{
    connection::State,
    jetstream::{
        consumer::{self, pull},
        response::Response,
        stream,
    },
};
use serde_json::json;
use superstep_queue::{Error, Finding};

use crate::{
    config::{StreamRole, commands_consumer, consumer_differences},
    queue::Shared,
    streams::{check_stream, stream_info},
};

/// A stream that refuses when full is worth a warning from here, in percent.
const FILL_PERCENT_MAX: u64 = 80;
/// Consumers looked at for each stream.
const CONSUMERS_MAX: usize = 256;

pub(crate) async fn check(shared: &Shared) -> Vec<Finding> {
    let mut findings = vec![server(shared), jetstream(shared)];
    for role in StreamRole::ALL {
        let name = role.stream(&shared.subjects);
        let subject = format!("stream {name}");
        match stream_info(&shared.context, &name).await {
            Ok(Some(info)) => {
                findings.push(stream(shared, role, subject, &info));
                if role != StreamRole::Events {
                    findings.extend(consumers(shared, role, &name).await);
                }
            }
            Ok(None) => findings.push(Finding {
                ok: false,
                subject,
                detail: "not there; a worker makes it when it starts".to_owned(),
            }),
            Err(failed) => findings.push(bad(subject, &failed)),
        }
    }
    findings
}

fn server(shared: &Shared) -> Finding {
    let info = shared.client.server_info();
    let is_connected = shared.client.connection_state() == State::Connected;
    let is_recent = shared.client.is_server_compatible(2, 9, 0);
    let mut detail = format!(
        "version {}, largest payload {} bytes",
        info.version, info.max_payload
    );
    if !is_connected {
        detail.push_str("; the connection is lost and being restored");
    }
    if !is_recent {
        detail.push_str("; too old, use 2.9 or newer");
    }
    Finding {
        ok: is_connected && is_recent,
        subject: format!("NATS at {}", shared.link.addresses),
        detail,
    }
}

fn jetstream(shared: &Shared) -> Finding {
    let ok = shared.client.server_info().jetstream;
    let detail = if ok {
        "enabled"
    } else {
        "not enabled on this server; start it with `-js`, unless another one has it"
    };
    Finding {
        ok,
        subject: "JetStream".to_owned(),
        detail: detail.to_owned(),
    }
}

fn stream(shared: &Shared, role: StreamRole, subject: String, info: &stream::Info) -> Finding {
    let wanted = role.wanted(&shared.settings, &shared.subjects, shared.counts_bytes());
    if let Err(failed) = check_stream(role, &wanted, &info.config) {
        return bad(subject, &failed);
    }
    let (config, state) = (&info.config, &info.state);
    let messages = fill(state.messages, config.max_messages);
    let bytes = fill(state.bytes, config.max_bytes);
    let mut detail = format!(
        "{} messages, {} bytes, {} replicas",
        of_bound(state.messages, config.max_messages),
        of_bound(state.bytes, config.max_bytes),
        config.num_replicas
    );
    let refuses = role != StreamRole::Events;
    let is_nearly_full = refuses && messages.max(bytes) >= FILL_PERCENT_MAX;
    if is_nearly_full {
        detail.push_str("; nearly full, and then refused: start more workers or raise the bound");
    }
    let lacking = copies_lacking(shared.settings.replicas, info);
    if let Some(lacking) = &lacking {
        detail.push_str("; ");
        detail.push_str(lacking);
    }
    Finding {
        ok: !is_nearly_full && lacking.is_none(),
        subject,
        detail,
    }
}

/// What is wrong with the copies of a stream of which `wanted` are asked for.
fn copies_lacking(wanted: usize, info: &stream::Info) -> Option<String> {
    let has = info.config.num_replicas;
    if has < wanted {
        return Some(format!(
            "{wanted} replicas are asked for: a lost server may take the stream with it; raise \
             them with `nats stream edit --replicas {wanted}`"
        ));
    }
    let cluster = info.cluster.as_ref().filter(|_| has > 1)?;
    if cluster.leader.is_none() {
        return Some("it has no leader and takes nothing: look at its servers".to_owned());
    }
    let behind = |peer: &&stream::PeerInfo| peer.offline || !peer.current;
    let behind: Vec<_> = cluster.replicas.iter().filter(behind).collect();
    if behind.is_empty() {
        return None;
    }
    let names: Vec<_> = behind.iter().map(|peer| peer.name.as_str()).collect();
    Some(format!(
        "the copies on {} are away or behind: look at these servers",
        names.join(", ")
    ))
}

async fn consumers(shared: &Shared, role: StreamRole, stream: &str) -> Vec<Finding> {
    let answer: Result<Response<Listed>, _> = shared
        .context
        .request(format!("CONSUMER.LIST.{stream}"), &json!({}))
        .await;
    let Ok(Response::Ok(listed)) = answer else {
        return vec![Finding {
            ok: false,
            subject: format!("consumers of {stream}"),
            detail: "cannot be listed; check the server and this user's permissions".to_owned(),
        }];
    };
    let wanted = |found: &consumer::Info| match role {
        StreamRole::Commands => commands_consumer(&shared.settings),
        // Which graph a consumer is for stands in its filter alone.
        StreamRole::Work | StreamRole::Events => pull::Config {
            filter_subject: found.config.filter_subject.clone(),
            ..pull::Config::default()
        },
    };
    let listed = listed.consumers.into_iter().take(CONSUMERS_MAX);
    listed
        .map(|found| consumer(&wanted(&found), &found))
        .collect()
}

#[derive(serde::Deserialize)]
struct Listed {
    consumers: Vec<consumer::Info>,
}

fn consumer(wanted: &pull::Config, found: &consumer::Info) -> Finding {
    let differences = consumer_differences(wanted, &found.config);
    let pending_max = found.config.max_ack_pending;
    let is_stuck = fill(found.num_ack_pending as u64, pending_max) >= 100;
    let mut detail = format!(
        "{} waiting to be delivered, {} unanswered, {} of these redelivered, {} pulls waiting, \
         ack_wait {:?}",
        found.num_pending,
        of_bound(found.num_ack_pending as u64, pending_max),
        found.num_redelivered,
        found.num_waiting,
        found.config.ack_wait
    );
    if is_stuck {
        detail.push_str("; delivers no more until some are answered: look at the workers");
    }
    if !differences.is_empty() {
        detail.push_str("; breaks a guarantee: ");
        detail.push_str(&differences.join("; "));
        detail.push_str("; remove it, it is made anew");
    }
    Finding {
        ok: differences.is_empty() && !is_stuck,
        subject: format!("consumer {} of {}", found.name, found.stream_name),
        detail,
    }
}

fn bad(subject: String, failed: &Error) -> Finding {
    Finding {
        ok: false,
        subject,
        detail: failed.to_string(),
    }
}

/// How full, in percent; 0 without a bound.
fn fill(count: u64, bound: i64) -> u64 {
    match u64::try_from(bound) {
        Ok(bound @ 1..) => count.saturating_mul(100) / bound,
        _ => 0,
    }
}

fn of_bound(count: u64, bound: i64) -> String {
    if bound > 0 {
        return format!("{count} of at most {bound}");
    }
    count.to_string()
}
