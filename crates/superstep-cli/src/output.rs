//! Where output goes: text and tables for people, one JSON value a line for machines.
//!
//! Colours appear on terminals only and not with `NO_COLOR`; the stream takes them away. A
//! reader that has closed the pipe ends the command quietly. What is said is left to the
//! commands.

use std::io::{self, IsTerminal as _, Write as _};

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, ColumnConstraint, ContentArrangement, Row, Table, Width, presets};
use serde::Serialize;
use serde_json::Value;

use crate::exit::{Exit, Failure};

/// How wide a table is where nobody looks at it.
const WIDTH_ELSEWHERE: u16 = 140;
/// Tables do not grow wider than this.
const WIDTH_MAX: u16 = 180;
/// A column of texts is at least so wide.
const WRAPPED_WIDTH_MIN: u16 = 24;

pub(crate) const BOLD: Style = Style::new().bold();
pub(crate) const DIM: Style = Style::new().dimmed();
pub(crate) const GOOD: Style = AnsiColor::Green.on_default();
pub(crate) const BAD: Style = AnsiColor::Red.on_default();
pub(crate) const ASKS: Style = AnsiColor::Yellow.on_default();

/// The two output streams of a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    json: bool,
    width: u16,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let width = match terminal_size::terminal_size() {
            Some((width, _)) if terminal => width.0.clamp(40, WIDTH_MAX),
            _ => WIDTH_ELSEWHERE,
        };
        Self { json, width }
    }

    /// Whether a machine reads it.
    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether a person can be asked: both directions are a terminal.
    pub(crate) fn can_ask(self) -> bool {
        !self.json && io::stdin().is_terminal() && io::stdout().is_terminal()
    }

    /// A line for people; a machine does not get it.
    pub(crate) fn line(self, text: impl AsRef<str>) -> Result<(), Failure> {
        if self.json {
            return Ok(());
        }
        writeln!(anstream::stdout().lock(), "{}", text.as_ref()).map_err(|error| closed(&error))
    }

    /// A value for machines; people do not get it.
    pub(crate) fn value(self, value: &impl Serialize) -> Result<(), Failure> {
        if !self.json {
            return Ok(());
        }
        let text = serde_json::to_string(value)
            .map_err(|error| Failure::failed(format!("the output is no JSON: {error}")))?;
        let mut stdout = io::stdout().lock();
        writeln!(stdout, "{text}")
            .and_then(|()| stdout.flush())
            .map_err(|error| closed(&error))
    }

    /// A table for people, wrapped to the terminal.
    pub(crate) fn table(self, table: &mut Table) -> Result<(), Failure> {
        let text = table.set_width(self.width).to_string();
        // Columns are padded; blanks at the end of a line are noise in files and snapshots.
        for line in text.lines() {
            self.line(line.trim_end())?;
        }
        Ok(())
    }

    /// A table for people, or what to say if it has no rows.
    pub(crate) fn rows(self, table: &mut Table, empty: &str) -> Result<(), Failure> {
        if table.is_empty() {
            self.line(empty)
        } else {
            self.table(table)
        }
    }

    /// An object as `key  value` lines; texts as they are, indented.
    pub(crate) fn fields(self, value: &Value) -> Result<(), Failure> {
        let Value::Object(fields) = value else {
            return self.line(format!("  {value}"));
        };
        let width = fields.keys().map(|key| key.chars().count()).max();
        let width = width.unwrap_or(0);
        // What is asked comes before what it is about.
        let (first, rest): (Vec<_>, Vec<_>) = fields.iter().partition(|(key, _)| *key == "message");
        for (key, value) in first.into_iter().chain(rest) {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let mut lines = text.lines();
            let first = lines.next().unwrap_or_default();
            self.line(format!("  {DIM}{key:width$}{DIM:#}  {first}"))?;
            for line in lines {
                self.line(format!("  {:width$}  {line}", ""))?;
            }
        }
        Ok(())
    }

    /// A remark on standard error, so that it never mixes with the output.
    pub(crate) fn note(self, text: impl AsRef<str>) {
        if !self.json {
            // Nobody may be listening there; the command goes on all the same.
            let _ = writeln!(anstream::stderr().lock(), "{}", text.as_ref());
        }
    }

    /// What went wrong, on standard error.
    pub(crate) fn failure(self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        let mut stderr = anstream::stderr().lock();
        let text = if self.json {
            failure.to_json().to_string()
        } else {
            let hint = failure.hint.as_ref();
            let hint = hint.map(|hint| format!("\n{BOLD}hint:{BOLD:#} {hint}"));
            let hint = hint.unwrap_or_default();
            format!("{BAD}error:{BAD:#} {}{hint}", failure.message)
        };
        let _ = writeln!(stderr, "{text}");
    }
}

/// Text without a line's end, such as a prompt.
pub(crate) fn prompt(text: &str) -> Result<(), Failure> {
    let mut stdout = anstream::stdout().lock();
    write!(stdout, "{text}")
        .and_then(|()| stdout.flush())
        .map_err(|error| closed(&error))
}

/// A table without lines, its head in capitals. Texts are wrapped in the columns named in
/// `wrapped`; ids, times and words stay whole, so that they can be copied.
pub(crate) fn table<const N: usize>(head: [&str; N], wrapped: &[&str]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(Row::from(head.map(|name| Cell::new(name.to_uppercase()))));
    for (column, name) in table.column_iter_mut().zip(head) {
        column.set_padding((0, 2));
        let constraint = if wrapped.contains(&name) {
            ColumnConstraint::LowerBoundary(Width::Fixed(WRAPPED_WIDTH_MIN))
        } else {
            ColumnConstraint::ContentWidth
        };
        column.set_constraint(constraint);
    }
    table
}

/// A time for people: to the second.
pub(crate) fn seconds(time: &str) -> String {
    match time.split_once('.') {
        Some((whole, _)) => format!("{whole}Z"),
        None => time.to_owned(),
    }
}

/// JSON in one line, cut to about `max` characters.
pub(crate) fn short_json(value: &Value, max: usize) -> String {
    shorten(&value.to_string(), max)
}

/// Text cut to about `max` characters.
pub(crate) fn shorten(text: &str, max: usize) -> String {
    if text.chars().count() <= max {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(max.saturating_sub(1)).collect();
    short.push('…');
    short
}

fn closed(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        Failure::silent(Exit::Done)
    } else {
        Failure::failed(format!("cannot write to standard output: {error}"))
    }
}
