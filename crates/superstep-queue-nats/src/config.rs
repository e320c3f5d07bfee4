//! What streams and consumers must be like, and how what is there differs.
//!
//! Pure: wanted settings from ours, and a comparison with what a server has. A difference is
//! named only if it breaks a guarantee; bounds, replicas and the like are the operator's.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{self, AckPolicy, DeliverPolicy, pull},
    stream::{self, DiscardPolicy, RetentionPolicy, StorageType},
};
use superstep_protocol::GraphId;
use superstep_queue::subject::Subjects;

use crate::settings::NatsSettings;

/// The durable consumer of commands.
pub(crate) const COMMANDS_CONSUMER: &str = "workers";
/// Pull requests that may wait at one consumer: several for each of thousands of workers.
const WAITING_MAX: i64 = 16_384;

/// The streams of one prefix and namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamRole {
    Commands,
    Work,
    Events,
}

impl StreamRole {
    pub(crate) const ALL: [Self; 3] = [Self::Commands, Self::Work, Self::Events];

    /// The stream's name. Both parts are checked to be plain tokens.
    pub(crate) fn stream(self, subjects: &Subjects) -> String {
        let role = match self {
            Self::Commands => "COMMANDS",
            Self::Work => "WORK",
            Self::Events => "EVENTS",
        };
        let prefix = subjects.prefix().to_ascii_uppercase();
        format!("{prefix}_{}_{role}", subjects.namespace())
    }

    /// The stream as it is made where it is missing.
    ///
    /// A NATS before 2.10.5 takes a message that is over the bytes by its own record alone and
    /// then makes room as if the oldest were to go: a full stream would lose what it has acked,
    /// without a word. There only the number of messages is bounded, and bytes by the server's
    /// own store, which refuses as it should.
    pub(crate) fn wanted(
        self,
        settings: &NatsSettings,
        subjects: &Subjects,
        counts_bytes: bool,
    ) -> stream::Config {
        let kept_bytes = |max| if counts_bytes { max } else { -1 };
        let bound = |max: u64| i64::try_from(max).unwrap_or(i64::MAX);
        let base = stream::Config {
            name: self.stream(subjects),
            storage: StorageType::File,
            num_replicas: settings.replicas,
            duplicate_window: settings.duplicate_window,
            max_messages: -1,
            max_messages_per_subject: -1,
            max_consumers: -1,
            max_message_size: -1,
            ..stream::Config::default()
        };
        match self {
            Self::Commands => stream::Config {
                description: Some("superstep: commands, kept until decided".to_owned()),
                subjects: subjects.commands_stream(),
                retention: RetentionPolicy::WorkQueue,
                discard: DiscardPolicy::New,
                max_messages: bound(settings.command_messages_max),
                max_bytes: kept_bytes(bound(settings.command_bytes_max)),
                ..base
            },
            Self::Work => stream::Config {
                description: Some("superstep: work, hints to look at a thread".to_owned()),
                subjects: vec![subjects.work_stream()],
                retention: RetentionPolicy::WorkQueue,
                discard: DiscardPolicy::New,
                max_messages: bound(settings.work_messages_max),
                max_bytes: kept_bytes(bound(settings.work_bytes_max)),
                ..base
            },
            Self::Events => stream::Config {
                description: Some("superstep: events, kept by limits".to_owned()),
                subjects: vec![subjects.events_stream()],
                retention: RetentionPolicy::Limits,
                discard: DiscardPolicy::Old,
                max_age: settings.event_age_max,
                max_bytes: bound(settings.event_bytes_max),
                // The server refuses a window beyond the age.
                duplicate_window: settings.duplicate_window.min(settings.event_age_max),
                ..base
            },
        }
    }
}

/// How `found` breaks what `wanted` promises, one phrase for each setting.
pub(crate) fn stream_differences(
    role: StreamRole,
    wanted: &stream::Config,
    found: &stream::Config,
) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |field: &str, found: String, needed: &str| {
        differences.push(format!("{field} is {found}, needed is {needed}"));
    };
    if found.retention != wanted.retention {
        let needed = retention(wanted.retention);
        differ("retention", retention(found.retention).to_owned(), needed);
    }
    for subject in &wanted.subjects {
        if !found
            .subjects
            .iter()
            .any(|pattern| covers(pattern, subject))
        {
            differ(
                "subjects",
                format!("[{}]", found.subjects.join(", ")),
                subject,
            );
        }
    }
    if found.no_ack {
        differ("no_ack", "true".to_owned(), "false");
    }
    if found.sealed {
        differ("sealed", "true".to_owned(), "false");
    }
    if let Some(mirror) = &found.mirror {
        differ("mirror", mirror.name.clone(), "none");
    }
    if role != StreamRole::Events {
        if found.discard != DiscardPolicy::New {
            differ("discard", "old".to_owned(), "new");
        }
        if !found.max_age.is_zero() {
            differ("max_age", format!("{:?}", found.max_age), "none");
        }
        if found.max_messages_per_subject > 0 {
            let limit = found.max_messages_per_subject.to_string();
            differ("max_msgs_per_subject", limit, "none");
        }
    }
    // Work is a hint that may be lost; a command and an event must outlive their server.
    if role != StreamRole::Work && found.storage != StorageType::File {
        differ("storage", "memory".to_owned(), "file");
    }
    differences
}

fn retention(policy: RetentionPolicy) -> &'static str {
    match policy {
        RetentionPolicy::Limits => "limits",
        RetentionPolicy::Interest => "interest",
        RetentionPolicy::WorkQueue => "workqueue",
    }
}

/// Whether `pattern` takes every subject that `needed` (itself a pattern) takes.
fn covers(pattern: &str, needed: &str) -> bool {
    let mut needed = needed.split('.');
    let mut tokens = pattern.split('.');
    loop {
        match (tokens.next(), needed.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(token), Some(needed)) if token == needed => {}
            _ => return false,
        }
    }
}

/// The durable consumer of commands, as it is made where it is missing.
pub(crate) fn commands_consumer(settings: &NatsSettings) -> pull::Config {
    pull::Config {
        description: Some("superstep: workers that decide commands".to_owned()),
        max_ack_pending: settings.command_ack_pending_max.into(),
        ..durable(COMMANDS_CONSUMER.to_owned(), settings.command_ack_wait)
    }
}

/// The durable consumer of one graph version's work.
pub(crate) fn work_consumer(
    settings: &NatsSettings,
    subjects: &Subjects,
    graph: &GraphId,
) -> Result<pull::Config, superstep_queue::Error> {
    Ok(pull::Config {
        description: Some(format!("superstep: workers of {graph}")),
        filter_subject: subjects.work(graph)?,
        max_ack_pending: settings.work_ack_pending_max.into(),
        ..durable(work_consumer_name(graph), settings.ack_wait)
    })
}

/// A name that consumers can have, from ids that may hold anything: what is readable of the
/// graph and version, and a hash of both so that no two share it.
fn work_consumer_name(graph: &GraphId) -> String {
    let readable = |id: &str, max: usize| -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
        id.chars().map(plain).take(max).collect()
    };
    let (name, version) = (graph.name.as_str(), graph.version.as_str());
    let length = (name.len() as u64).to_le_bytes();
    let bytes = [&length[..], name.as_bytes(), version.as_bytes()].concat();
    let hash = xxhash_rust::xxh3::xxh3_64(&bytes);
    format!(
        "{}-{}-{hash:016x}",
        readable(name, 40),
        readable(version, 20)
    )
}

fn durable(name: String, ack_wait: Duration) -> pull::Config {
    pull::Config {
        name: Some(name.clone()),
        durable_name: Some(name),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait,
        max_deliver: -1,
        max_waiting: WAITING_MAX,
        ..pull::Config::default()
    }
}

/// How a consumer that exists breaks what `wanted` promises. Its `ack_wait` may differ: it is
/// taken as it is.
pub(crate) fn consumer_differences(wanted: &pull::Config, found: &consumer::Config) -> Vec<String> {
    let mut differences = Vec::new();
    let mut differ = |field: &str, found: String, needed: &str| {
        differences.push(format!("{field} is {found}, needed is {needed}"));
    };
    if let Some(subject) = &found.deliver_subject {
        differ("deliver_subject", subject.clone(), "none (a pull consumer)");
    }
    if found.ack_policy != AckPolicy::Explicit {
        let policy = format!("{:?}", found.ack_policy).to_lowercase();
        differ("ack_policy", policy, "explicit");
    }
    if found.max_deliver > 0 {
        differ("max_deliver", found.max_deliver.to_string(), "-1");
    }
    if !found.backoff.is_empty() {
        differ("backoff", format!("{:?}", found.backoff), "none");
    }
    if found.filter_subject != wanted.filter_subject {
        let needed = match wanted.filter_subject.as_str() {
            "" => "none",
            filter => filter,
        };
        differ("filter_subject", found.filter_subject.clone(), needed);
    }
    differences
}

#[cfg(test)]
mod tests;
