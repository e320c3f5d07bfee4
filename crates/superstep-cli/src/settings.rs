//! Settings from flags, the environment and a file, in this order.
//!
//! A setting has one name everywhere: `nats_url` is the flag `--nats-url`, the variable
//! `SUPERSTEP_NATS_URL`, and a key of the file. Here is which value counts and where it came
//! from; [`checked`] makes what the program works with. What connection settings mean is left
//! to [`superstep::connect`].
//!
//! The rule it keeps: a mistake names the place where it was written, and all are named at once.

mod checked;

use std::{
    collections::BTreeMap,
    env, fmt, fs, io,
    path::{Path, PathBuf},
};

use superstep::connect::ConnectSettings;

use crate::exit::Failure;

pub(crate) use checked::{LogFormat, Logging, Place, Settings, duration};

/// The file that is read from the working folder if no other is named.
const FILE: &str = "superstep.toml";

/// What can be set beside the connection.
const OWN_NAMES: [&str; 17] = [
    "data",
    "sender",
    "concurrency",
    "task_timeout",
    "drain_timeout",
    "deaf_after",
    "history_last",
    "history_for",
    "ended_ttl",
    "health_addr",
    "profile",
    "tasks_max",
    "command_bytes_max",
    "record_bytes_max",
    "state_bytes_max",
    "log",
    "log_format",
];

/// Every setting's name.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ConnectSettings::NAMES.into_iter().chain(OWN_NAMES)
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Source {
    File(PathBuf),
    Environment,
    Flag,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Given {
    value: String,
    source: Source,
}

/// The value of each setting that was given, and what could not be read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layers {
    given: BTreeMap<&'static str, Given>,
    mistakes: Vec<String>,
}

impl Layers {
    /// Reads the file (`config`, else the variable `SUPERSTEP_CONFIG`, else `superstep.toml` if
    /// it is there), then the environment over it, then `flags` over both.
    pub(crate) fn read(
        config: Option<&Path>,
        flags: Vec<(&'static str, Option<String>)>,
    ) -> Result<Self, Failure> {
        let mut layers = Self::default();
        let named = config.map(Path::to_owned).or_else(|| {
            let named = env::var_os("SUPERSTEP_CONFIG").filter(|path| !path.is_empty());
            named.map(PathBuf::from)
        });
        let path = named.clone().unwrap_or_else(|| PathBuf::from(FILE));
        match fs::read_to_string(&path) {
            Ok(text) => layers.add_file(&path, &text)?,
            Err(error) if named.is_none() && error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::usage(format!(
                    "the settings file {} cannot be read: {error}",
                    path.display()
                )));
            }
        }
        for name in names() {
            match env::var(variable(name)) {
                Ok(value) if !value.is_empty() => layers.add(name, value, Source::Environment),
                Ok(_) | Err(env::VarError::NotPresent) => {}
                Err(env::VarError::NotUnicode(_)) => {
                    layers.wrong(format!("{} is not UTF-8", variable(name)));
                }
            }
        }
        for (name, value) in flags {
            if let Some(value) = value {
                layers.add(name, value, Source::Flag);
            }
        }
        Ok(layers)
    }

    fn add(&mut self, name: &'static str, value: String, source: Source) {
        self.given.insert(name, Given { value, source });
    }

    fn add_file(&mut self, path: &Path, text: &str) -> Result<(), Failure> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            Failure::usage(format!(
                "the settings file {} is not TOML: {}",
                path.display(),
                error.to_string().trim_end()
            ))
        })?;
        for (key, value) in table {
            let Some(name) = names().find(|name| *name == key) else {
                let known: Vec<&str> = names().collect();
                self.wrong(format!(
                    "{key} in {} is no setting; there are: {}",
                    path.display(),
                    known.join(", ")
                ));
                continue;
            };
            match text_of(&value) {
                Some(text) => self.add(name, text, Source::File(path.to_owned())),
                None => self.wrong(format!(
                    "{key} in {} is a {}; write a text, a number, or a list of texts",
                    path.display(),
                    value.type_str()
                )),
            }
        }
        Ok(())
    }

    fn wrong(&mut self, mistake: String) {
        self.mistakes.push(mistake);
    }

    fn value(&self, name: &str) -> Option<&str> {
        self.given.get(name).map(|given| given.value.as_str())
    }

    fn source(&self, name: &str) -> Option<&Source> {
        self.given.get(name).map(|given| &given.source)
    }

    /// The setting as its writer knows it: the flag, the variable, the key of the file.
    fn called(&self, name: &str) -> String {
        match self.source(name) {
            Some(Source::Flag) => flag(name),
            Some(Source::Environment) => variable(name),
            Some(Source::File(path)) => format!("{name} in {}", path.display()),
            None => name.to_owned(),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("flags"),
            Self::Environment => f.write_str("the environment"),
            Self::File(path) => write!(f, "{}", path.display()),
        }
    }
}

fn flag(name: &str) -> String {
    format!("--{}", name.replace('_', "-"))
}

pub(crate) fn variable(name: &str) -> String {
    format!("SUPERSTEP_{}", name.to_uppercase())
}

/// A value of the file as it would stand in a variable.
fn text_of(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        toml::Value::Array(items) => {
            let items: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
            items.map(|items| items.join(","))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests;
