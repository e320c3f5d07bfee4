//! The compose file as Docker Compose itself reads it, and what must be true of it.
//!
//! Reading it needs no engine: the tool resolves the file and refuses what its format does not
//! know. Whether servers take the settings that are mounted into them is left to a test with real
//! servers (`tests/surface/deploy.rs`).
//!
//! The rule it keeps: what is a place to try things is reached from this machine only.

use std::path::Path;
use std::process::Command;

use anyhow::Context as _;
use serde_json::Value;

use super::rules;
use crate::workspace::output_of;

/// The file with everything in it resolved.
pub(super) fn resolve(tool: &Path, file: &Path) -> anyhow::Result<Value> {
    let text = output_of(
        Command::new(tool)
            .arg("-f")
            .arg(file)
            .args(["config", "--format", "json"]),
    )
    .with_context(|| format!("{} is not as compose files are", file.display()))?;
    serde_json::from_str(&text).context("docker-compose did not answer with JSON")
}

/// Everything that is wrong with the services.
pub(super) fn findings(compose: &Value) -> Vec<String> {
    let mut found = Vec::new();
    let services = compose["services"].as_object().into_iter().flatten();
    for (name, service) in services {
        let mut wrong = Vec::new();
        if rules::list(&service["healthcheck"]["test"]).is_empty() {
            wrong.push("it has no health check".to_owned());
        }
        for port in rules::list(&service["ports"]) {
            if port["host_ip"] != "127.0.0.1" {
                let port = &port["published"];
                wrong.push(format!("its port {port} is open to other machines"));
            }
        }
        for volume in rules::list(&service["volumes"]) {
            let source = volume["source"].as_str().unwrap_or_default();
            if volume["type"] == "bind" && !Path::new(source).is_file() {
                wrong.push(format!("it mounts {source}, which is no file"));
            }
        }
        let text = |value: &Value| rules::seconds(value.as_str().unwrap_or_default());
        let drain = text(&service["environment"]["SUPERSTEP_DRAIN_TIMEOUT"]);
        let grace = text(&service["stop_grace_period"]);
        if name == "worker" && (drain.is_none() || grace <= drain.map(rules::with_slack)) {
            wrong.push(format!(
                "stop_grace_period is {grace:?} s, too short for the drain of {drain:?} s"
            ));
        }
        found.extend(
            wrong
                .into_iter()
                .map(|wrong| format!("compose.yaml: {name}: {wrong}")),
        );
    }
    if !compose["services"]["worker"]["environment"].is_object() {
        found.push("compose.yaml has no worker with an environment".to_owned());
    }
    found
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_promise_of_a_service_is_held() {
        let good = json!({"services": {"worker": {
            "healthcheck": {"test": ["CMD", "true"]},
            "environment": {"SUPERSTEP_DRAIN_TIMEOUT": "25s"},
            "stop_grace_period": "1m0s",
            "ports": [{"host_ip": "127.0.0.1", "published": "1"}],
        }}});
        assert_eq!(findings(&good), Vec::<String>::new());
        for (key, value, expected) in [
            ("healthcheck", json!(null), "no health check"),
            (
                "ports",
                json!([{"published": "1"}]),
                "open to other machines",
            ),
            (
                "volumes",
                json!([{"type": "bind", "source": "/no/such"}]),
                "no file",
            ),
            ("stop_grace_period", json!("35s"), "too short"),
            ("stop_grace_period", json!(null), "too short"),
            ("environment", json!({}), "too short"),
            ("environment", json!(null), "no worker with an environment"),
        ] {
            let mut bad = good.clone();
            bad["services"]["worker"][key] = value;
            let found = findings(&bad).join("; ");
            assert!(found.contains(expected), "{key}: {found}");
        }
    }
}
