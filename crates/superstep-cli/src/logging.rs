//! Logs: on standard error, as text for people or JSON lines for machines.
//!
//! Which events there are is left to the crates that log them. Spans that are exported are handed
//! over here too, as a second reader of the same events. The rule it keeps: logs never mix with a
//! command's output.

use std::io::{self, IsTerminal as _};

use tracing_subscriber::{
    EnvFilter, Layer, Registry, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

use crate::{
    settings::{LogFormat, Logging},
    telemetry::{SPANS, Telemetry},
};

type Reader = Box<dyn Layer<Registry> + Send + Sync>;

/// Starts logging; `default` is the filter if none is set.
pub(crate) fn start(logging: &Logging, default: &str, telemetry: Option<&Telemetry>) {
    let filter = EnvFilter::new(logging.filter.as_deref().unwrap_or(default));
    let lines = tracing_subscriber::fmt::layer().with_writer(io::stderr);
    let lines: Reader = match logging.format {
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
        LogFormat::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            lines
                .with_ansi(io::stderr().is_terminal() && !no_color)
                .boxed()
        }
    };
    let Some(telemetry) = telemetry else {
        // In a program that has a subscriber already, that one stays.
        let _ = tracing_subscriber::registry()
            .with(lines.with_filter(filter))
            .try_init();
        return;
    };
    // Lines carry the ids of spans; spans that are only exported would double theirs.
    let only_exported = format!("{SPANS}=off").parse();
    let filter = filter.add_directive(only_exported.expect("a target and a level"));
    let readers: Vec<Reader> = vec![lines.with_filter(filter).boxed(), telemetry.reader()];
    let _ = tracing_subscriber::registry().with(readers).try_init();
}
