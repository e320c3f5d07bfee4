//! Run: a case from its graph to its verdict.
//!
//! A case stops at the first operation that differs: what comes after it compares nothing but the
//! consequences. A case that hangs or panics fails, and takes no other with it.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use serde_json::Value;

use crate::{
    backend::Backends,
    case::{Case, Found},
    compare::{Difference, Labels, compare, compare_loosely},
    graphs,
    observe::Classes,
    ops::{Fault, Session},
    recorder::Recorder,
};

/// How many cases run at once: most of them wait for a disk, or a server.
const CASES_AT_ONCE: usize = 8;

/// How long a case may take.
const CASE_MAX: Duration = Duration::from_secs(30);

/// What became of a case.
#[derive(Debug)]
pub(crate) struct Verdict {
    pub(crate) name: String,
    pub(crate) feature: String,
    pub(crate) quirk: bool,
    /// Why it failed; `None` if it passed.
    pub(crate) failure: Option<Failure>,
}

/// Why a case failed, and at which operation.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its place among the operations, from 0; `None` before the first.
    pub(crate) op: Option<usize>,
    pub(crate) why: Why,
}

/// Why a case failed.
#[derive(Debug)]
pub(crate) enum Why {
    /// The library cannot do what it needs.
    Unsupported(String),
    /// It could not be run.
    Broken(String),
    /// Something else was seen than expected.
    Differs {
        expected: Value,
        /// With labels for ids.
        got: Value,
        differences: Vec<Difference>,
    },
}

impl From<Fault> for Why {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unsupported(what) => Self::Unsupported(what),
            Fault::Broken(reason) => Self::Broken(reason),
        }
    }
}

/// Runs cases, some at once; the verdicts are in the order of the cases.
pub(crate) async fn run_all(cases: &[Arc<Found>], backends: &Arc<Backends>) -> Vec<Verdict> {
    futures_util::stream::iter(cases.iter().cloned())
        .map(|found| run(found, Arc::clone(backends)))
        .buffered(CASES_AT_ONCE)
        .collect()
        .await
}

/// Runs a case on a backend of its own.
async fn run(found: Arc<Found>, backends: Arc<Backends>) -> Verdict {
    let task = tokio::spawn({
        let found = Arc::clone(&found);
        async move {
            match &found.case {
                Ok(case) => run_case(case, &backends).await,
                Err(reason) => Some(Failure {
                    op: None,
                    why: Why::Unsupported(format!("a case that cannot be read: {reason}")),
                }),
            }
        }
    });
    let stop = task.abort_handle();
    let broken = |reason: String| {
        Some(Failure {
            op: None,
            why: Why::Broken(reason),
        })
    };
    let failure = match tokio::time::timeout(CASE_MAX, task).await {
        Ok(Ok(failure)) => failure,
        Ok(Err(error)) => broken(format!("the case panicked: {error}")),
        Err(_) => {
            stop.abort();
            broken(format!("not over after {} s", CASE_MAX.as_secs()))
        }
    };
    Verdict {
        name: found.name.clone(),
        feature: found.feature().to_owned(),
        quirk: found.quirk,
        failure,
    }
}

async fn run_case(case: &Case, backends: &Backends) -> Option<Failure> {
    let at = |op, why| Some(Failure { op, why });
    let recorder = Arc::new(Recorder::default());
    let classes = Classes::of(case);
    let graph = match graphs::build(case, &recorder) {
        Ok(graph) => graph,
        Err(graphs::Unsupported(what)) => return at(None, Why::Unsupported(what)),
    };
    let backend = match backends.open(graph).await {
        Ok(backend) => backend,
        Err(fault) => return at(None, fault.into()),
    };
    let mut labels = Labels::default();
    let mut session = Session::new(case, &backend, &recorder, &classes);
    for (index, (op, expected)) in case.ops.iter().zip(&case.expect).enumerate() {
        let got = match Box::pin(session.perform(op, &labels)).await {
            Ok(got) => got,
            Err(fault) => return at(Some(index), fault.into()),
        };
        let mut strictly = labels.clone();
        let mut differences = compare(expected, &got, &mut strictly);
        if !differences.is_empty() && backend.spreads_tasks() {
            let mut loosely = labels.clone();
            let left = compare_loosely(expected, &got, &mut loosely);
            if left.is_empty() {
                (differences, strictly) = (left, loosely);
            }
        }
        labels = strictly;
        if !differences.is_empty() {
            let why = Why::Differs {
                expected: expected.clone(),
                got: labels.label(&got),
                differences,
            };
            return at(Some(index), why);
        }
    }
    None
}

#[cfg(test)]
mod tests;
