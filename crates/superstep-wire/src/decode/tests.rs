//! Bodies as people mistype them, and what they are told.
//!
//! The texts are read by people, so they are a snapshot; what programs rely on (kinds, null
//! against absent, 64-bit integers) is asserted.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::*;

const BYTES_MAX: usize = 1024;

/// The error text of each body, one under the other.
fn errors<M: std::fmt::Debug>(
    read: impl Fn(&[u8], usize) -> Result<M, Error>,
    bodies: &[&str],
) -> String {
    let mut out = String::new();
    for body in bodies {
        let error = read(body.as_bytes(), BYTES_MAX).expect_err(body);
        let refusal = error.refusal();
        let data = refusal.data.unwrap_or(Value::Null);
        let _ = writeln!(out, "{body}\n  {}: {error}\n  {data}", refusal.kind);
    }
    out
}

#[test]
fn a_mistyped_resume_is_told_what_is_wrong() {
    insta::assert_snapshot!(errors(
        resume,
        &[
            "",
            " \n",
            "yes",
            "{\"resume\": yes}",
            "{\"resume\": true",
            "{\"resume\": true}}",
            "{\"resume\": \"a\nb\"}",
            "true",
            "[true]",
            "\"approved\"",
            "{\"resme\": true}",
            "{\"resume\": true,\n \"interupt_id\": \"x\"}",
            "{\"resume\": true, \"resume\": false}",
            "{\"resume\": true, \"interrupt_id\": 5}",
            "{\"resume\": true, \"interrupt_id\": \"\"}",
            "{\"resume\": true, \"interrupt_id\": \"a\", \"key\": \"b\"}",
            "{\"interrupt_id\": \"a\"}",
            "{\"goto\": {\"node\": \"a\"}}",
            "{\"resume\": 1, \"interrupt_before\": \"a\"}",
            "{\"resume\": 1, \"durability\": \"never\"}",
            "{\"resume\": 1, \"config\": {\"recursion_limit\": 0}}",
            "{\"resume\": 1, \"config\": {\"configurable\": {\"a\": 1}}}",
            "{\"resume\": 1, \"checkpoint_id\": \"\"}",
        ],
    ));
}

#[test]
fn a_mistyped_start_is_told_what_is_wrong() {
    let long = format!("{{\"thread_id\": \"{}\"}}", "t".repeat(257));
    insta::assert_snapshot!(errors(
        start,
        &[
            "",
            "{\"inputs\": {}}",
            "{\"config\": {\"recursion_limit\": \"5\"}}",
            "{\"config\": {\"recursion_limit\": -1}}",
            "{\"config\": {\"recursion_limit\": 2.5}}",
            "{\"config\": {\"recursion_limit\": 0}}",
            "{\"config\": {\"recursion_limt\": 5}}",
            "{\"config\": []}",
            "{\"config\": {\"tags\": [\"a\", 5]}}",
            "{\"config\": {\"tags\": \"a\"}}",
            "{\"metadata\": [1]}",
            "{\"thread_id\": {\"id\": 1}}",
            "{\"interrupt_after\": [1]}",
            "{\"durability\": 1}",
            &long,
        ],
    ));
}

#[test]
fn the_other_mistyped_commands_are_told_too() {
    insta::assert_snapshot!(
        [
            errors(cancel, &["{\"reasn\": \"x\"}", "\"stop\""]),
            errors(
                update,
                &[
                    "",
                    "{\"as_node\": \"a\"}",
                    "{\"draft\": 1}",
                    "{\"updates\": []}",
                    "{\"updates\": [{\"as_node\": \"a\"}]}",
                    "{\"updates\": [{\"values\": 1}], \"as_node\": \"a\"}",
                ]
            ),
            errors(
                retry,
                &["{\"run\": \"x\"}", "{\"config\": {\"tags\": [\"a\"]}}"]
            ),
        ]
        .concat()
    );
}

#[test]
fn a_body_over_the_limit_is_too_large() {
    let body = format!("{{\"resume\": \"{}\"}}", "x".repeat(BYTES_MAX));
    let error = resume(body.as_bytes(), BYTES_MAX).expect_err("it is over the limit");
    assert_eq!(error.refusal().kind, RefusalKind::TooLarge);
    insta::assert_snapshot!(error);
}

#[test]
fn a_body_that_is_not_utf8_is_malformed() {
    let error = resume(b"{\"resume\": \"\xff\"}", BYTES_MAX).expect_err("it is not UTF-8");
    assert_eq!(error.refusal().kind, RefusalKind::Malformed);
    insta::assert_snapshot!(error);
}

#[test]
fn nesting_without_end_is_an_error() {
    let body = "{\"resume\": ".to_owned() + &"[".repeat(500);
    let error = resume(body.as_bytes(), BYTES_MAX).expect_err("it is nested too deeply");
    insta::assert_snapshot!(error);
}

#[test]
fn null_is_a_value_and_absent_is_absent() {
    let read = |body: &str| start(body.as_bytes(), BYTES_MAX).map(|command| command.input);
    assert_eq!(read("{}"), Ok(None));
    assert_eq!(read("{\"input\": null}"), Ok(Some(Value::Null)));
    assert_eq!(read("{\"input\": {}}"), Ok(Some(json!({}))));
    let answer = resume(b"{\"resume\": null}", BYTES_MAX).map(|command| command.resume);
    assert_eq!(answer, Ok(Some(Value::Null)));
}

#[test]
fn a_resume_may_carry_no_answer() {
    let command = resume(br#"{"goto": "a", "update": null}"#, BYTES_MAX).expect("it is a resume");
    assert_eq!(command.resume, None);
    assert_eq!(command.update, Some(Value::Null));
    assert_eq!(resume(b"{}", BYTES_MAX), Ok(ResumeCommand::default()));
}

#[test]
fn null_for_any_other_field_is_absent() {
    let body = br#"{"thread_id": null, "config": null, "metadata": null, "run_id": null}"#;
    assert_eq!(start(body, BYTES_MAX), Ok(StartCommand::default()));
    let body = br#"{"config": {"tags": null, "recursion_limit": null, "configurable": null}}"#;
    let command = start(body, BYTES_MAX).expect("nulls are read");
    assert_eq!(command.config, Some(RunConfig::default()));
}

#[test]
fn integers_of_64_bits_pass_unchanged() {
    let text = r#"{"resume":[9007199254740993,18446744073709551615,-9223372036854775808]}"#;
    let command = resume(text.as_bytes(), BYTES_MAX).expect("it is a resume");
    assert_eq!(crate::encode::body(&command), text.as_bytes());
}

#[test]
fn an_empty_cancel_or_retry_is_enough() {
    for body in [&b""[..], b"\n", b"{}"] {
        assert_eq!(cancel(body, BYTES_MAX), Ok(CancelCommand::default()));
        assert_eq!(retry(body, BYTES_MAX), Ok(RetryCommand::default()));
    }
}

#[test]
fn readers_pass_over_fields_of_newer_versions() {
    let read = work(br#"{"thread_id":"t","incarnation":"c","dispatch":"1-0","state":{"new":1}}"#)
        .expect("an unknown field passes");
    assert_eq!(read.thread_id, "t");
    assert!(read.tasks.is_empty());
}

#[test]
fn readers_know_a_newer_kind_as_unknown() {
    let read = event(br#"{"event_id":"e","kind":"run_paused","thread_id":"t","time":"x"}"#)
        .expect("an unknown kind passes");
    assert_eq!(read.kind, crate::EventKind::Unknown);
}

#[test]
fn what_is_not_an_event_says_so() {
    let error = event(br#"{"kind":"interrupt"}"#).expect_err("fields are missing");
    insta::assert_snapshot!(error);
}
