//! From text to what the program works with.
//!
//! One pass over all settings. The rule it keeps: it never stops at the first mistake, and what
//! it gives has no option left that should be set.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use jiff::SignedDuration;
use superstep::{Limits, Profile, Retention, WorkerSettings, connect::ConnectSettings};
use tracing_subscriber::EnvFilter;

use super::{Layers, Source};
use crate::exit::Failure;

/// The most deliveries that a worker may work on at once.
const CONCURRENCY_MAX: usize = 100_000;
/// The most checkpoints that history may be kept by: they are counted as a thread goes on.
const HISTORY_LAST_MAX: usize = 100_000;
/// The longest time that may be written: a year.
const DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// Where threads live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// On NATS and Redis; whether anything says so, or only the defaults.
    Cluster { said: bool },
    /// In a folder.
    Folder(PathBuf),
}

/// How logs look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Logging {
    /// Directives as `RUST_LOG` knows them; `None` leaves it to the command.
    pub(crate) filter: Option<String>,
    pub(crate) format: LogFormat,
}

/// All settings, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) place: Place,
    /// As they were written; checked when the cluster is reached.
    pub(crate) connect: ConnectSettings,
    pub(crate) worker: WorkerSettings,
    /// Where the health endpoint listens; nowhere if `None`.
    pub(crate) health_addr: Option<SocketAddr>,
    pub(crate) sender: Option<String>,
    pub(crate) logging: Logging,
}

impl Layers {
    /// Checks every setting.
    ///
    /// # Errors
    /// Every mistake at once, each with the place where it was written.
    pub(crate) fn check(mut self) -> Result<Settings, Failure> {
        let connect = self.connect();
        let place = self.place();
        if let Place::Cluster { .. } = place
            && let Err(mistakes) = connect.check()
        {
            for mistake in mistakes.0 {
                self.wrong(format!(
                    "{} {}",
                    self.called(&mistake.setting),
                    mistake.what
                ));
            }
        }
        let defaults = WorkerSettings::default();
        let limits = Limits::default();
        let settings = Settings {
            place,
            connect,
            worker: WorkerSettings {
                concurrency: self.number("concurrency", defaults.concurrency, CONCURRENCY_MAX),
                task_timeout: self.duration("task_timeout", defaults.task_timeout),
                drain_timeout: self.duration("drain_timeout", defaults.drain_timeout),
                deaf_after: self.deaf_after(&defaults),
                retention: self.retention(),
                ended_ttl: self.time_or_off("ended_ttl"),
                profile: self.word(
                    "profile",
                    Profile::Default,
                    &[
                        ("default", Profile::Default),
                        ("langgraph", Profile::Langgraph),
                    ],
                ),
                limits: Limits {
                    tasks_max: self.number("tasks_max", limits.tasks_max, 1 << 20),
                    command_bytes_max: self.number(
                        "command_bytes_max",
                        limits.command_bytes_max,
                        64 << 20,
                    ),
                    record_bytes_max: self.number(
                        "record_bytes_max",
                        limits.record_bytes_max,
                        512 << 20,
                    ),
                    state_bytes_max: self.number(
                        "state_bytes_max",
                        limits.state_bytes_max,
                        512 << 20,
                    ),
                    ..limits
                },
                ..defaults
            },
            health_addr: self.address("health_addr"),
            sender: self.value("sender").map(str::to_owned),
            logging: Logging {
                filter: self.filter(),
                format: self.word(
                    "log_format",
                    LogFormat::Text,
                    &[("text", LogFormat::Text), ("json", LogFormat::Json)],
                ),
            },
        };
        match self.mistakes.as_slice() {
            [] => Ok(settings),
            [one] => Err(Failure::usage(one.as_str())),
            several => Err(Failure::usage(format!(
                "{} settings are wrong:\n  {}",
                several.len(),
                several.join("\n  ")
            ))),
        }
    }

    fn connect(&mut self) -> ConnectSettings {
        let mut connect = ConnectSettings::default();
        for name in ConnectSettings::NAMES {
            let set = self.value(name).map(|value| connect.set(name, value));
            if let Some(Err(mistake)) = set {
                self.wrong(format!("{} {}", self.called(name), mistake.what));
            }
        }
        connect
    }

    /// What the nearest layer says: a flag for a folder counts over a variable for a server.
    fn place(&mut self) -> Place {
        let servers = ["nats_url", "redis_url"].map(|name| self.source(name).map(|s| (s, name)));
        let nearest = servers.into_iter().flatten().max();
        let Some(folder) = self.value("data") else {
            return Place::Cluster {
                said: nearest.is_some(),
            };
        };
        if folder.is_empty() {
            self.wrong(format!("{} is empty; name a folder", self.called("data")));
            return Place::Cluster { said: false };
        }
        let place = Place::Folder(PathBuf::from(folder));
        match (self.source("data"), nearest) {
            (Some(data), Some((server, name))) if rank(server) == rank(data) => {
                let mistake = format!(
                    "{} is given beside {}; a thread lives in a folder or on servers, keep one",
                    self.called("data"),
                    self.called(name)
                );
                self.wrong(mistake);
                place
            }
            (Some(data), Some((server, _))) if rank(server) > rank(data) => {
                Place::Cluster { said: true }
            }
            _ => place,
        }
    }

    fn number(&mut self, name: &'static str, default: usize, max: usize) -> usize {
        let Some(text) = self.value(name) else {
            return default;
        };
        match text.parse() {
            Ok(number) if (1..=max).contains(&number) => number,
            _ => {
                let mistake = format!(
                    "{} is `{text}`; it must be a whole number from 1 to {max}",
                    self.called(name)
                );
                self.wrong(mistake);
                default
            }
        }
    }

    fn duration(&mut self, name: &'static str, default: Duration) -> Duration {
        let Some(text) = self.value(name) else {
            return default;
        };
        match duration(text) {
            Ok(duration) => duration,
            Err(why) => {
                self.wrong(format!("{} {why}", self.called(name)));
                default
            }
        }
    }

    /// A time; `off` is none.
    fn time_or_off(&mut self, name: &'static str) -> Option<Duration> {
        let text = self.value(name).filter(|text| *text != "off")?;
        match duration(text) {
            Ok(time) => Some(time),
            Err(why) => {
                self.wrong(format!("{} {why}, or off", self.called(name)));
                None
            }
        }
    }

    /// By number or by age: what both would keep is more than either asks for, so only one counts.
    fn retention(&mut self) -> Retention {
        let is_set = |text: &str| text != "all";
        let by_number = self.value("history_last").is_some_and(is_set);
        let by_age = self.value("history_for").is_some_and(is_set);
        if by_number && by_age {
            self.wrong(format!(
                "{} is given beside {}; history is kept by number or by age, keep one",
                self.called("history_last"),
                self.called("history_for")
            ));
        }
        if by_number {
            let last = self.number("history_last", 1, HISTORY_LAST_MAX);
            Retention::Last(u64::try_from(last).unwrap_or(u64::MAX))
        } else if by_age {
            Retention::For(self.duration("history_for", DURATION_MAX))
        } else {
            Retention::Whole
        }
    }

    /// Below two whole pulls a worker that only waits for messages would count as deaf.
    fn deaf_after(&mut self, defaults: &WorkerSettings) -> Duration {
        let given = self.duration("deaf_after", defaults.deaf_after);
        let least = defaults.pull_wait * 2;
        if given < least {
            let mistake = format!(
                "{} is `{}`; it must be {} s or more, as a quiet pull takes half of that",
                self.called("deaf_after"),
                self.value("deaf_after").unwrap_or_default(),
                least.as_secs()
            );
            self.wrong(mistake);
        }
        given
    }

    /// An address to listen on; `off` is none.
    fn address(&mut self, name: &'static str) -> Option<SocketAddr> {
        let text = self.value(name).filter(|text| *text != "off")?;
        let address = text.parse();
        if address.is_err() {
            let mistake = format!(
                "{} is `{text}`; write an address with a port, such as 0.0.0.0:8080 or \
                 127.0.0.1:8080, or off",
                self.called(name)
            );
            self.wrong(mistake);
        }
        address.ok()
    }

    fn word<T: Copy>(&mut self, name: &'static str, default: T, words: &[(&str, T)]) -> T {
        let Some(text) = self.value(name) else {
            return default;
        };
        if let Some((_, value)) = words.iter().find(|(word, _)| *word == text) {
            return *value;
        }
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let mistake = format!(
            "{} is `{text}`; it must be {}",
            self.called(name),
            known.join(" or ")
        );
        self.wrong(mistake);
        default
    }

    fn filter(&mut self) -> Option<String> {
        let text = self.value("log")?.to_owned();
        if let Err(error) = EnvFilter::builder().parse(&text) {
            self.wrong(format!(
                "{} is `{text}`, which is no filter ({error}); write a level such as info, or \
                 directives such as info,superstep_worker=debug",
                self.called("log")
            ));
        }
        Some(text)
    }
}

fn rank(source: &Source) -> u8 {
    match source {
        Source::File(_) => 0,
        Source::Environment => 1,
        Source::Flag => 2,
    }
}

/// Reads a time such as `30s`, `10m` or `1h 30m`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let read: Option<Duration> = text
        .parse::<SignedDuration>()
        .ok()
        .and_then(|signed| Duration::try_from(signed).ok());
    match read {
        Some(read) if !read.is_zero() && read <= DURATION_MAX => Ok(read),
        _ => Err(format!(
            "is `{text}`; write a time with its unit, such as 500ms, 30s, 10m or 1h"
        )),
    }
}
