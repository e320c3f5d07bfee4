//! Settings in manifests against the worker that was built: known by name, and right by value.
//!
//! The names come from `superstep worker --help`, where a test of its own holds them to the
//! settings that are read. The values are checked by the program itself: it is run with them, and
//! with a health endpoint that nobody answers at, so that it does nothing but read its settings.
//!
//! The rule it keeps: a variable that begins with SUPERSTEP_ and is no setting is a mistake, since
//! the worker would pass it over in silence.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value};

use super::rules;
use crate::workspace::output_of;

/// Variables that are read and are no settings: the file of them, and the example graphs' outbox.
const BESIDE: [&str; 2] = ["SUPERSTEP_CONFIG", "SUPERSTEP_OUTBOX"];

/// Settings that are no values of the chart: secrets, what it works out, and what has no servers.
const NOT_IN_CHART: [&str; 6] = [
    "data",
    "drain_timeout",
    "health_addr",
    "nats_password",
    "nats_token",
    "redis_password",
];

/// The exit code when nothing answers: every setting was right.
const UNREACHABLE: i32 = 4;

/// What the worker knows.
pub(super) struct Known {
    binary: PathBuf,
    settings: BTreeSet<String>,
}

impl Known {
    /// Asks the program for its settings.
    pub(super) fn ask(binary: &Path) -> anyhow::Result<Self> {
        let help = output_of(Command::new(binary).args(["worker", "--help"]))?;
        let settings = settings(&help);
        ensure!(
            settings.contains("nats_url") && settings.contains("health_addr"),
            "`{} worker --help` names no settings",
            binary.display()
        );
        Ok(Self {
            binary: binary.to_owned(),
            settings,
        })
    }

    /// What is wrong with the variables of the workers of one render.
    pub(super) fn findings(&self, objects: &[Value]) -> Vec<String> {
        let mut found = Vec::new();
        for pod in rules::pods(objects) {
            let Some(container) = rules::worker(&pod) else {
                continue;
            };
            let variables = rules::variables(container, objects);
            let wrong = self.unknown(&variables).into_iter().chain(
                self.refused(&variables)
                    .unwrap_or_else(|error| Some(format!("{error:#}"))),
            );
            found.extend(wrong.map(|wrong| format!("{}: {wrong}", pod.name)));
        }
        found
    }

    /// What is wrong with the variables of the services that run superstep.
    pub(super) fn of_compose(&self, compose: &Value) -> Vec<String> {
        let mut found = Vec::new();
        let services = compose["services"].as_object().into_iter().flatten();
        for (name, service) in services {
            let Some(variables) = service["environment"].as_object() else {
                continue;
            };
            let wrong = self.unknown(variables).into_iter().chain(
                self.refused(variables)
                    .unwrap_or_else(|error| Some(format!("{error:#}"))),
            );
            found.extend(wrong.map(|wrong| format!("compose.yaml: {name}: {wrong}")));
        }
        found
    }

    /// Whether the chart's values have every setting that they should have, and no other.
    pub(super) fn of_schema(&self, schema: &Value) -> Vec<String> {
        let listed = schema["properties"]["settings"]["properties"].as_object();
        let listed: BTreeSet<&str> = listed.into_iter().flatten().map(|(k, _)| &**k).collect();
        let expected: BTreeSet<&str> = self
            .settings
            .iter()
            .map(String::as_str)
            .filter(|name| !NOT_IN_CHART.contains(name))
            .collect();
        let missing = expected.difference(&listed).map(|name| {
            format!("values.schema.json lacks the setting {name}; add it, or say why not here")
        });
        let unknown = listed
            .difference(&expected)
            .map(|name| format!("values.schema.json has {name}, which is no setting for it"));
        missing.chain(unknown).collect()
    }

    fn unknown(&self, variables: &Map<String, Value>) -> Vec<String> {
        let is_known = |name: &str| {
            BESIDE.contains(&name)
                || name
                    .strip_prefix("SUPERSTEP_")
                    .is_none_or(|name| self.settings.contains(&name.to_lowercase()))
        };
        variables
            .keys()
            .filter(|name| !is_known(name))
            .map(|name| format!("{name} is no setting of the worker"))
            .collect()
    }

    /// Runs the program with these variables; what it says if it refuses them.
    fn refused(&self, variables: &Map<String, Value>) -> anyhow::Result<Option<String>> {
        let dir = scratch(&self.binary)?;
        let mut command = Command::new(&self.binary);
        command
            .args(["probe", "live", "--health-addr", "127.0.0.1:1"])
            .env_clear()
            .current_dir(&dir);
        for (name, value) in variables {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            // A file that is mounted in the cluster: any that can be read stands in for it.
            let is_file = text.starts_with('/') && name != "SUPERSTEP_OUTBOX";
            let stand_in = dir.join("file").display().to_string();
            command.env(name, if is_file { stand_in } else { text });
        }
        let output = command
            .output()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        if output.status.code() == Some(UNREACHABLE) {
            return Ok(None);
        }
        Ok(Some(format!(
            "the worker does not take its settings: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        )))
    }
}

/// A folder beside the binary with a file in it.
fn scratch(binary: &Path) -> anyhow::Result<PathBuf> {
    let dir = binary.with_file_name("deploy-check");
    std::fs::create_dir_all(&dir)?;
    std::fs::write(dir.join("file"), "")?;
    Ok(dir)
}

/// The settings behind the flags that a help text lists.
fn settings(help: &str) -> BTreeSet<String> {
    help.lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .filter_map(|line| line.split_once(" <"))
        .map(|(flag, _)| flag.replace('-', "_"))
        .filter(|name| name != "config")
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn known() -> Known {
        Known {
            binary: PathBuf::from("superstep"),
            settings: settings(
                "Options:\n      --json\n          JSON\n      --nats-url <URL>\n          \
                 Addresses\n      --config <FILE>\n  -h, --help\n",
            ),
        }
    }

    #[test]
    fn flags_with_a_value_are_settings() {
        let known = known().settings.into_iter().collect::<Vec<_>>();
        assert_eq!(known, ["nats_url"]);
    }

    #[test]
    fn a_misspelt_variable_is_found() {
        let variables = json!({"SUPERSTEP_NATS_URL": "", "SUPERSTEP_NATS_ULR": "",
            "SUPERSTEP_OUTBOX": "", "RUST_LOG": ""});
        assert_eq!(
            known().unknown(variables.as_object().expect("an object")),
            ["SUPERSTEP_NATS_ULR is no setting of the worker"]
        );
    }

    #[test]
    fn the_schema_must_list_all_settings() {
        let schema = |names: &[&str]| {
            let names: Map<String, Value> = names
                .iter()
                .map(|name| ((*name).to_owned(), json!({})))
                .collect();
            json!({"properties": {"settings": {"properties": names}}})
        };
        assert!(known().of_schema(&schema(&["nats_url"])).is_empty());
        assert_eq!(known().of_schema(&schema(&["nats_ulr"])).len(), 2);
    }
}
