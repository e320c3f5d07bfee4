//! Which value counts, and what is said of a wrong one.

use std::time::Duration;

use superstep::{Profile, Retention};

use super::*;
use crate::exit::Exit;

/// Layers of a file's text and flags; the environment is left out.
fn layers(file: &str, flags: &[(&'static str, &str)]) -> Layers {
    let mut layers = Layers::default();
    layers.add_file(Path::new("s.toml"), file).unwrap();
    for (name, value) in flags {
        layers.add(name, (*value).to_owned(), Source::Flag);
    }
    layers
}

#[track_caller]
fn wrong(file: &str, flags: &[(&'static str, &str)], expected: &[&str]) {
    let failure = layers(file, flags).check().unwrap_err();
    assert_eq!(failure.exit, Exit::Usage);
    for part in expected {
        assert!(
            failure.message.contains(part),
            "{} should say {part}",
            failure.message
        );
    }
}

#[test]
fn nothing_given_is_the_defaults() {
    let settings = layers("", &[]).check().unwrap();
    assert_eq!(settings.place, Place::Cluster { said: false });
    assert_eq!(settings.worker, superstep::WorkerSettings::default());
    assert_eq!(settings.logging.filter, None);
    assert_eq!(settings.health_addr, None);
}

#[test]
fn a_file_may_set_everything() {
    let settings = layers(
        "nats_url = ['nats://a:1', 'nats://b:2']\nconcurrency = 7\ntask_timeout = '2m'\n\
         profile = 'langgraph'\nlog = 'warn'\nstate_bytes_max = 1000\nsender = 'ann'\n",
        &[],
    );
    let settings = settings.check().unwrap();
    assert_eq!(
        settings.connect.nats_url.as_deref(),
        Some("nats://a:1,nats://b:2")
    );
    assert_eq!(settings.worker.concurrency, 7);
    assert_eq!(settings.worker.task_timeout, Duration::from_secs(120));
    assert_eq!(settings.worker.profile, Profile::Langgraph);
    assert_eq!(settings.worker.limits.state_bytes_max, 1000);
    assert_eq!(settings.sender.as_deref(), Some("ann"));
    assert_eq!(settings.place, Place::Cluster { said: true });
}

#[test]
fn a_flag_counts_over_the_file() {
    let file = "namespace = 'file'\nnats_url = 'nats://a:1'";
    let settings = layers(file, &[("namespace", "flag"), ("data", "d")]);
    let settings = settings.check().unwrap();
    assert_eq!(settings.connect.namespace.as_deref(), Some("flag"));
    assert_eq!(settings.place, Place::Folder("d".into()));
    let settings = layers("data = 'd'", &[("redis_url", "redis://h")]);
    assert_eq!(
        settings.check().unwrap().place,
        Place::Cluster { said: true }
    );
}

#[test]
fn every_mistake_is_named_with_its_place() {
    wrong(
        "nats_ulr = 'x'\nconcurrency = 0\nlog_format = 'xml'\nnamespace = { a = 1 }",
        &[
            ("nats_url", "nowhere"),
            ("drain_timeout", "30"),
            ("connect_timeout_ms", "soon"),
            ("log", "superstep=loud"),
        ],
        &[
            "8 settings are wrong",
            "nats_ulr in s.toml is no setting",
            "concurrency in s.toml is `0`",
            "log_format in s.toml is `xml`; it must be text or json",
            "namespace in s.toml is a table",
            "--nats-url has `nowhere`",
            "--drain-timeout is `30`; write a time with its unit",
            "--connect-timeout-ms is `soon`",
            "--log is `superstep=loud`",
        ],
    );
}

#[test]
fn a_folder_beside_a_server_is_a_mistake() {
    wrong(
        "",
        &[("data", "d"), ("nats_url", "nats://h")],
        &["--data is given beside --nats-url"],
    );
}

#[test]
fn a_file_that_is_no_toml_is_shown() {
    let failure = Layers::default()
        .add_file(Path::new("s.toml"), "nats_url nats://a")
        .unwrap_err();
    assert!(
        failure.message.contains("s.toml is not TOML"),
        "{failure:?}"
    );
    assert!(failure.message.contains("line 1"), "{failure:?}");
}

#[test]
fn times_are_read_with_their_units() {
    assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
    assert_eq!(duration("1h 30m"), Ok(Duration::from_secs(5_400)));
    for text in ["", "30", "-1s", "0s", "soon", "9999h 9999h"] {
        assert!(duration(text).is_err(), "{text}");
    }
}

#[test]
fn the_health_endpoint_is_off_unless_told() {
    let address = |text| {
        let settings = layers("", &[("health_addr", text)]).check();
        settings.unwrap().health_addr
    };
    assert_eq!(address("off"), None);
    let given = address("0.0.0.0:8080").expect("an address");
    assert_eq!(given.to_string(), "0.0.0.0:8080");
    wrong(
        "deaf_after = '9s'",
        &[("health_addr", "8080")],
        &[
            "--health-addr is `8080`; write an address with a port",
            "deaf_after in s.toml is `9s`; it must be 10 s or more",
        ],
    );
}

#[test]
fn history_is_kept_by_number_or_by_age() {
    let settings = |values: &[_]| layers("", values).check().unwrap().worker;
    assert_eq!(settings(&[]).retention, Retention::Whole);
    assert_eq!(settings(&[("history_last", "all")]).ended_ttl, None);
    let by_number = settings(&[("history_last", "20"), ("ended_ttl", "1h")]);
    assert_eq!(by_number.retention, Retention::Last(20));
    assert_eq!(by_number.ended_ttl, Some(Duration::from_secs(3_600)));
    let by_age = settings(&[("history_for", "2h")]).retention;
    assert_eq!(by_age, Retention::For(Duration::from_secs(7_200)));
    wrong(
        "history_last = '5'",
        &[("history_for", "1h"), ("ended_ttl", "soon")],
        &[
            "history_last in s.toml is given beside",
            "--ended-ttl is `soon`",
        ],
    );
}
