//! Logs: on standard error, as text for people or JSON lines for machines.
//!
//! Which events there are is left to the crates that log them. The rule it keeps: logs never
//! mix with a command's output.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::EnvFilter;

use crate::settings::{LogFormat, Logging};

/// Starts logging; `default` is the filter if none is set.
pub(crate) fn start(logging: &Logging, default: &str) {
    let filter = logging.filter.as_deref().unwrap_or(default);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new(filter))
        .with_writer(io::stderr);
    // In a program that has a subscriber already, that one stays.
    let _ = match logging.format {
        LogFormat::Json => subscriber.json().flatten_event(true).try_init(),
        LogFormat::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            let ansi = io::stderr().is_terminal() && !no_color;
            subscriber.with_ansi(ansi).try_init()
        }
    };
}
