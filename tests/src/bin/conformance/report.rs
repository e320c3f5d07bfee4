//! Report: verdicts as failures to read, a table, and one line; or as JSON for a program.
//!
//! Cases that record what is probably a bug of LangGraph are counted apart and fail nothing.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::{Value, json};

use crate::{
    args::BackendKind,
    case::Found,
    compare::short,
    run::{Failure, Verdict, Why},
    script::canonical,
};

/// How many differences of a case are shown.
const DIFFERENCES_SHOWN: usize = 8;

/// Counts of a feature.
#[derive(Clone, Copy, Debug, Default)]
struct Count {
    passed: usize,
    failed: usize,
    quirks_alike: usize,
    quirks: usize,
}

/// Verdicts, and the cases they are on.
pub(crate) struct Report<'a> {
    pub(crate) backend: BackendKind,
    pub(crate) verdicts: &'a [Verdict],
    /// Each failed case's operations as they are in the file, by name.
    pub(crate) cases: BTreeMap<&'a str, &'a Found>,
    /// Whether everything is shown of what differs.
    pub(crate) whole: bool,
}

impl Report<'_> {
    /// How many cases passed and failed, without the quirks.
    pub(crate) fn totals(&self) -> (usize, usize) {
        let counted = self.verdicts.iter().filter(|verdict| !verdict.quirk);
        let (mut passed, mut failed) = (0, 0);
        for verdict in counted {
            if verdict.failure.is_some() {
                failed += 1;
            } else {
                passed += 1;
            }
        }
        (passed, failed)
    }

    /// The line that closes every report.
    pub(crate) fn last_line(&self) -> String {
        let (passed, failed) = self.totals();
        format!("{passed} passed, {failed} failed")
    }

    fn counts(&self) -> BTreeMap<&str, Count> {
        let mut counts: BTreeMap<&str, Count> = BTreeMap::new();
        for verdict in self.verdicts {
            let count = counts.entry(&verdict.feature).or_default();
            match (verdict.quirk, &verdict.failure) {
                (false, None) => count.passed += 1,
                (false, Some(_)) => count.failed += 1,
                (true, failure) => {
                    count.quirks += 1;
                    count.quirks_alike += usize::from(failure.is_none());
                }
            }
        }
        counts
    }

    /// Everything as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for verdict in self.verdicts {
            if let Some(failure) = &verdict.failure {
                let word = if verdict.quirk { "quirk" } else { "FAILED" };
                let _ = writeln!(text, "{word} {}", verdict.name);
                self.tell(&mut text, verdict, failure);
            }
        }
        self.tell_missing(&mut text);
        let width = self.counts().keys().map(|name| name.len()).max();
        let width = width.unwrap_or(0).max("feature".len());
        let _ = writeln!(
            text,
            "{:width$}  {:>6}  {:>6}  quirks as recorded",
            "feature", "passed", "failed"
        );
        for (feature, count) in self.counts() {
            let quirks = match count.quirks {
                0 => String::new(),
                all => format!("{} of {all}", count.quirks_alike),
            };
            let line = format!(
                "{feature:width$}  {:>6}  {:>6}  {quirks}",
                count.passed, count.failed
            );
            let _ = writeln!(text, "{}", line.trim_end());
        }
        let _ = writeln!(text, "\n{}", self.last_line());
        text
    }

    fn tell(&self, text: &mut String, verdict: &Verdict, failure: &Failure) {
        if let Some(index) = failure.op {
            let op = self.op(&verdict.name, index);
            let _ = writeln!(text, "  op {index}: {op}");
        }
        match &failure.why {
            Why::Unsupported(what) => {
                let _ = writeln!(text, "  not supported: {what}");
            }
            Why::Broken(reason) => {
                let _ = writeln!(text, "  {reason}");
            }
            Why::Differs {
                expected,
                got,
                differences,
            } => {
                let shown = if self.whole {
                    differences.len()
                } else {
                    DIFFERENCES_SHOWN
                };
                for difference in differences.iter().take(shown) {
                    let _ = writeln!(text, "  {difference}");
                }
                if let Some(more) = differences.len().checked_sub(shown).filter(|n| *n > 0) {
                    let _ = writeln!(text, "  and {more} more");
                }
                let size = if self.whole { usize::MAX } else { 400 };
                let _ = writeln!(text, "  expected {}", short(&canonical(expected), size));
                let _ = writeln!(text, "  got      {}", short(&canonical(got), size));
            }
        }
        text.push('\n');
    }

    /// What the library lacks, by how many cases need it.
    fn tell_missing(&self, text: &mut String) {
        let mut missing: BTreeMap<&str, usize> = BTreeMap::new();
        for verdict in self.verdicts {
            if let Some(Failure {
                why: Why::Unsupported(what),
                ..
            }) = &verdict.failure
            {
                *missing.entry(what).or_default() += 1;
            }
        }
        if missing.is_empty() {
            return;
        }
        let _ = writeln!(text, "not supported, and met first by so many cases:");
        let mut missing: Vec<(&str, usize)> = missing.into_iter().collect();
        missing.sort_by_key(|(_, cases)| std::cmp::Reverse(*cases));
        for (what, cases) in missing {
            let _ = writeln!(text, "{cases:>6}  {what}");
        }
        text.push('\n');
    }

    fn op(&self, name: &str, index: usize) -> String {
        let found = self.cases.get(name);
        let op = found.and_then(|found| found.ops.get(index));
        op.map_or_else(|| "?".to_owned(), |op| short(&canonical(op), 300))
    }

    /// Everything as JSON.
    pub(crate) fn json(&self) -> Value {
        let (passed, failed) = self.totals();
        let features: Vec<Value> = self
            .counts()
            .into_iter()
            .map(|(feature, count)| {
                json!({
                    "feature": feature,
                    "passed": count.passed,
                    "failed": count.failed,
                    "quirks": count.quirks,
                    "quirks_as_recorded": count.quirks_alike,
                })
            })
            .collect();
        let failures: Vec<Value> = self
            .verdicts
            .iter()
            .filter_map(|verdict| Some(self.failure_json(verdict, verdict.failure.as_ref()?)))
            .collect();
        json!({
            "backend": self.backend.name(),
            "passed": passed,
            "failed": failed,
            "features": features,
            "failures": failures,
        })
    }

    fn failure_json(&self, verdict: &Verdict, failure: &Failure) -> Value {
        let mut told = json!({"case": verdict.name, "quirk": verdict.quirk});
        if let Some(index) = failure.op {
            let found = self.cases.get(verdict.name.as_str());
            told["index"] = json!(index);
            told["op"] = json!(found.and_then(|found| found.ops.get(index)));
        }
        match &failure.why {
            Why::Unsupported(what) => told["reason"] = json!(format!("not supported: {what}")),
            Why::Broken(reason) => told["reason"] = json!(reason),
            Why::Differs {
                expected,
                got,
                differences,
            } => {
                told["reason"] = json!("differs");
                told["expected"] = expected.clone();
                told["got"] = got.clone();
                told["differences"] = differences.iter().map(ToString::to_string).collect();
            }
        }
        told
    }
}
