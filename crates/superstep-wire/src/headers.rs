//! The headers of an event: its dedupe key and its CloudEvents attributes.
//!
//! Binary content mode of CloudEvents over NATS: attributes are headers named `ce-`, the body
//! is the data. Whoever publishes adds the trace context. Every value is printable ASCII, as
//! headers must be.

use std::collections::BTreeMap;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::Event;

/// The key by which the stream and its consumers know a repeat.
pub const MSG_ID: &str = "Nats-Msg-Id";
/// What the body is.
pub const CONTENT_TYPE: &str = "content-type";
/// CloudEvents: the version of that specification.
pub const CE_SPECVERSION: &str = "ce-specversion";
/// CloudEvents: the event's id.
pub const CE_ID: &str = "ce-id";
/// CloudEvents: the thread, as a path.
pub const CE_SOURCE: &str = "ce-source";
/// CloudEvents: the event's kind.
pub const CE_TYPE: &str = "ce-type";
/// CloudEvents: when it happened.
pub const CE_TIME: &str = "ce-time";

/// What a segment of a path may hold as it is: RFC 3986's unreserved characters.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The headers of `event` in that namespace.
pub fn of_event(namespace: &str, event: &Event) -> BTreeMap<String, String> {
    let source = format!(
        "/superstep/{}/threads/{}",
        utf8_percent_encode(namespace, ESCAPED),
        utf8_percent_encode(&event.thread_id, ESCAPED)
    );
    [
        (MSG_ID, event.event_id.clone()),
        (CONTENT_TYPE, "application/json".to_owned()),
        (CE_SPECVERSION, "1.0".to_owned()),
        (CE_ID, event.event_id.clone()),
        (CE_SOURCE, source),
        (CE_TYPE, format!("superstep.{}", event.kind)),
        (CE_TIME, event.time.clone()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value))
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::EventKind;

    #[test]
    fn an_event_carries_its_cloudevents_attributes() {
        let event = Event::new(
            "7-00c0ffee00c0ffee-0",
            EventKind::RunCompleted,
            "order-42",
            "2026-03-14T09:26:53.589Z",
        );
        let headers = of_event("default", &event);
        let expected = [
            ("Nats-Msg-Id", "7-00c0ffee00c0ffee-0"),
            ("ce-id", "7-00c0ffee00c0ffee-0"),
            ("ce-source", "/superstep/default/threads/order-42"),
            ("ce-specversion", "1.0"),
            ("ce-time", "2026-03-14T09:26:53.589Z"),
            ("ce-type", "superstep.run_completed"),
            ("content-type", "application/json"),
        ];
        let found: Vec<(&str, &str)> = headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn an_odd_thread_id_stays_one_path_segment() {
        let event = Event::new("e", EventKind::Interrupt, "a/b ü\n", "t");
        assert_eq!(
            of_event("default", &event)[CE_SOURCE],
            "/superstep/default/threads/a%2Fb%20%C3%BC%0A"
        );
    }
}
