//! The AsyncAPI 3.0 document: channels with their subjects, operations, messages, headers.
//!
//! The subjects stand here as a table, since the `.proto` files describe bodies only; a
//! subject's message must be one of the bodies, and every body must have a channel. Payloads
//! refer to the schemas beside the document.
//!
//! The rule it keeps: it is written from the side of superstep, which receives commands and
//! sends the rest, as AsyncAPI 3 counts.

use anyhow::{Context, ensure};

use super::{
    model::Model,
    tree::{Tree, map, reference},
};

/// Where the document is.
pub(crate) const PATH: &str = "proto/asyncapi.yaml";

/// A channel: where messages of one body go.
struct Channel {
    /// Its id in the document.
    id: &'static str,
    /// Its subject after prefix and namespace; `None` if the sender of a command names it.
    subject: Option<&'static str>,
    /// The body.
    body: &'static str,
    /// Whether superstep receives it or sends it.
    action: &'static str,
    /// Which headers go with it.
    headers: &'static [Header],
}

/// A header: name, whether it is always there, what it is.
type Header = (&'static str, bool, &'static str);

const TRACE: [Header; 2] = [
    (
        "traceparent",
        false,
        "W3C trace context: the trace and the span that this belongs to.",
    ),
    (
        "tracestate",
        false,
        "W3C trace context: what vendors add to it.",
    ),
];

const COMMAND: &[Header] = &[
    (
        "Nats-Msg-Id",
        false,
        "The idempotency key of the command: the same key again gets the same outcome. Absent: the stream, sequence and time of the message.",
    ),
    (
        "Superstep-Reply",
        false,
        "The subject that the Reply goes to. Subscribe before you publish.",
    ),
    (
        "Superstep-Sender",
        false,
        "Who sends this, in the sender's own words. Kept with the answer, not verified.",
    ),
    TRACE[0],
    TRACE[1],
];

const EVENT: &[Header] = &[
    (
        "Nats-Msg-Id",
        true,
        "The event's id. Repeats have the same.",
    ),
    ("content-type", true, "Always application/json."),
    ("ce-specversion", true, "CloudEvents: always 1.0."),
    ("ce-id", true, "CloudEvents: the event's id."),
    (
        "ce-source",
        true,
        "CloudEvents: /superstep/<namespace>/threads/<thread>.",
    ),
    ("ce-type", true, "CloudEvents: superstep.<kind>."),
    ("ce-time", true, "CloudEvents: when it happened, RFC 3339."),
    TRACE[0],
    TRACE[1],
];

const CHANNELS: [Channel; 9] = [
    Channel {
        id: "start",
        subject: Some("start.{graph}"),
        body: "StartCommand",
        action: "receive",
        headers: COMMAND,
    },
    Channel {
        id: "resume",
        subject: Some("resume.{thread}"),
        body: "ResumeCommand",
        action: "receive",
        headers: COMMAND,
    },
    Channel {
        id: "cancel",
        subject: Some("cancel.{thread}"),
        body: "CancelCommand",
        action: "receive",
        headers: COMMAND,
    },
    Channel {
        id: "update",
        subject: Some("update.{thread}"),
        body: "UpdateCommand",
        action: "receive",
        headers: COMMAND,
    },
    Channel {
        id: "retry",
        subject: Some("retry.{thread}"),
        body: "RetryCommand",
        action: "receive",
        headers: COMMAND,
    },
    Channel {
        id: "reply",
        subject: None,
        body: "Reply",
        action: "send",
        headers: &[],
    },
    Channel {
        id: "events",
        subject: Some("events.{kind}.{graph}.{thread}"),
        body: "Event",
        action: "send",
        headers: EVENT,
    },
    Channel {
        id: "output",
        subject: Some("output.{thread}.{run}"),
        body: "Output",
        action: "send",
        headers: &[],
    },
    Channel {
        id: "work",
        subject: Some("work.{graph}.{version}"),
        body: "Work",
        action: "send",
        headers: &TRACE,
    },
];

const PARAMETERS: [(&str, Option<&str>, &str); 7] = [
    (
        "prefix",
        Some("superstep"),
        "A setting, the same for all of one installation.",
    ),
    ("namespace", Some("default"), "The tenant, a setting."),
    (
        "graph",
        None,
        "The name of a registered graph; - in an event that concerns none.",
    ),
    ("version", None, "The version of a registered graph."),
    (
        "thread",
        None,
        "The thread id. Bytes that a NATS token cannot carry (. * > % space, controls, all beyond ASCII) are percent-encoded.",
    ),
    ("run", None, "The run id, encoded like a thread id."),
    ("kind", None, "The event's kind."),
];

/// The document as YAML.
pub(crate) fn document(model: &Model) -> anyhow::Result<String> {
    for body in model.bodies() {
        ensure!(
            CHANNELS.iter().any(|channel| channel.body == body.name),
            "{} has no channel; add it to the table in codegen/asyncapi.rs, or refer to it from \
             the message it is a part of",
            body.name
        );
    }
    let mut channels = Vec::new();
    let mut operations = Vec::new();
    let mut messages = Vec::new();
    for channel in &CHANNELS {
        let body = model
            .message(channel.body)
            .with_context(|| format!("proto/ has no message {}", channel.body))?;
        channels.push((channel.id.to_owned(), channel_tree(channel)));
        operations.push((operation_id(channel), operation_tree(channel)));
        messages.push((
            channel.body.to_owned(),
            message_tree(channel, &body.doc.flowing()),
        ));
    }
    let tree = map([
        ("asyncapi", "3.0.0".into()),
        (
            "info",
            map([
                ("title", "superstep".into()),
                ("version", "1.0.0".into()),
                ("description", DESCRIPTION.into()),
                ("license", map([("name", "Apache-2.0".into())])),
            ]),
        ),
        ("defaultContentType", "application/json".into()),
        ("channels", Tree::Map(channels)),
        ("operations", Tree::Map(operations)),
        (
            "components",
            map([
                ("messages", Tree::Map(messages)),
                ("parameters", parameters()),
            ]),
        ),
    ]);
    Ok(format!(
        "# Written by `cargo xtask fix` from proto/superstep/v1 and a table of subjects.\n{}",
        tree.to_yaml()
    ))
}

const DESCRIPTION: &str = "Durable graphs with people in the loop, on NATS and Redis. \
     Commands, work and events are kept by JetStream streams; replies and live output are \
     core NATS messages. Bodies are JSON.";

fn channel_tree(channel: &Channel) -> Tree {
    let message = map([(
        channel.body,
        reference(format!("#/components/messages/{}", channel.body)),
    )]);
    let Some(subject) = channel.subject else {
        return map([
            ("address", Tree::Null),
            (
                "description",
                "The subject in the command's Superstep-Reply header.".into(),
            ),
            ("messages", message),
        ]);
    };
    let address = format!("{{prefix}}.{{namespace}}.{subject}");
    let parameters = PARAMETERS
        .iter()
        .filter(|(name, _, _)| address.contains(&format!("{{{name}}}")))
        .map(|(name, _, _)| {
            let of = reference(format!("#/components/parameters/{name}"));
            ((*name).to_owned(), of)
        })
        .collect();
    map([
        ("address", address.into()),
        ("parameters", Tree::Map(parameters)),
        ("messages", message),
    ])
}

fn parameters() -> Tree {
    let of = PARAMETERS.iter().map(|(name, default, description)| {
        let mut entries = vec![("description".to_owned(), Tree::from(*description))];
        entries.extend(default.map(|text| ("default".to_owned(), text.into())));
        ((*name).to_owned(), Tree::Map(entries))
    });
    Tree::Map(of.collect())
}

fn operation_id(channel: &Channel) -> String {
    format!("{}_{}", channel.action, channel.id)
}

fn operation_tree(channel: &Channel) -> Tree {
    let mut entries = vec![
        ("action".to_owned(), channel.action.into()),
        (
            "channel".to_owned(),
            reference(format!("#/channels/{}", channel.id)),
        ),
    ];
    if channel.action == "receive" {
        entries.push((
            "reply".to_owned(),
            map([
                (
                    "address",
                    map([("location", "$message.header#/Superstep-Reply".into())]),
                ),
                ("channel", reference("#/channels/reply")),
            ]),
        ));
    }
    Tree::Map(entries)
}

fn message_tree(channel: &Channel, description: &str) -> Tree {
    let mut entries = vec![
        ("contentType".to_owned(), "application/json".into()),
        ("description".to_owned(), description.into()),
    ];
    if !channel.headers.is_empty() {
        entries.push(("headers".to_owned(), headers_tree(channel.headers)));
    }
    entries.push((
        "payload".to_owned(),
        reference(format!("schemas/{}.json", channel.body)),
    ));
    Tree::Map(entries)
}

fn headers_tree(headers: &[Header]) -> Tree {
    let properties = headers
        .iter()
        .map(|(name, _, description)| {
            let of = map([
                ("type", "string".into()),
                ("description", (*description).into()),
            ]);
            ((*name).to_owned(), of)
        })
        .collect();
    let required: Vec<Tree> = headers
        .iter()
        .filter(|(_, required, _)| *required)
        .map(|(name, _, _)| (*name).into())
        .collect();
    let mut entries = vec![
        ("type".to_owned(), "object".into()),
        ("properties".to_owned(), Tree::Map(properties)),
    ];
    if !required.is_empty() {
        entries.push(("required".to_owned(), Tree::List(required)));
    }
    Tree::Map(entries)
}
