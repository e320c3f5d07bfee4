//! How a load goes on, while it does: a line that moves on a terminal, plain lines elsewhere.
//!
//! On standard error, and not at all where machines read the output. What came of it is told by
//! `report`. The rule it keeps: telling costs next to nothing, whatever the rate of runs.

use std::{
    io::IsTerminal as _,
    sync::Mutex,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::window::Window;
use crate::output::Output;

/// How often a plain line is told.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// Tells how it goes.
#[derive(Debug)]
pub(crate) struct Progress {
    what: String,
    how: How,
}

#[derive(Debug)]
enum How {
    Bar(ProgressBar),
    Lines {
        output: Output,
        last: Mutex<Instant>,
    },
}

impl Progress {
    /// Begins to tell of `what`.
    pub(crate) fn new(output: Output, what: String) -> Self {
        let how = if std::io::stderr().is_terminal() && !output.is_json() {
            let style = ProgressStyle::with_template("{spinner} {msg}");
            let bar = ProgressBar::new_spinner();
            bar.set_style(style.expect("the template is right"));
            How::Bar(bar)
        } else {
            output.note(&what);
            How::Lines {
                output,
                last: Mutex::new(Instant::now()),
            }
        };
        Self { what, how }
    }

    /// Where it stands.
    pub(crate) fn told(&self, window: &Window, now: Instant) {
        match &self.how {
            How::Bar(bar) => {
                bar.set_message(format!("{}: {}", self.what, stands(window, now)));
                bar.tick();
            }
            How::Lines { output, last } => {
                let mut last = last.lock().expect("no holder panics");
                if now.duration_since(*last) >= LINE_EVERY {
                    *last = now;
                    output.note(format!("  {}", stands(window, now)));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let How::Bar(bar) = &self.how {
            bar.finish_and_clear();
        }
    }
}

fn stands(window: &Window, now: Instant) -> String {
    if now < window.opens() {
        let left = window.opens().duration_since(now);
        return format!("warming up, {:.0} s to go", left.as_secs_f64());
    }
    let (runs, seconds) = (window.runs(), window.seconds(now));
    let left = window.closes().saturating_duration_since(now);
    format!(
        "{runs} runs, {:.0} a second, {:.0} s to go",
        per_second(runs, seconds),
        left.as_secs_f64()
    )
}

/// So many in so long, a second.
#[expect(clippy::cast_precision_loss, reason = "no load counts so far")]
pub(crate) fn per_second(count: u64, seconds: f64) -> f64 {
    if seconds <= 0.0 {
        return 0.0;
    }
    count as f64 / seconds
}
