//! Skipping a test that this machine cannot run, in the open.
//!
//! The test harness of Rust knows no skip at run time: a test that returns early counts as passed.
//! So a skip is written down in the file named by `SUPERSTEP_TEST_SKIPS`, where `cargo xtask test`
//! counts it and repeats the reason. Which tests may skip, and why, is left to the tests.
//!
//! The rule it keeps: nothing passes silently. Without that file a missing server is a failure.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The environment variable that names the file of skips.
const SKIPS: &str = "SUPERSTEP_TEST_SKIPS";

/// Whether skips are counted in this run, so that skipping is allowed at all.
#[must_use]
pub fn may_skip() -> bool {
    std::env::var_os(SKIPS).is_some_and(|path| !path.is_empty())
}

/// Notes that `test` was skipped and `why`, as the line `superstep-skip: <test>: <why>`.
///
/// # Panics
///
/// When the file of skips cannot be written: an uncounted skip would look like a pass.
#[track_caller]
pub fn skip(test: &str, why: &str) {
    let line = format!("superstep-skip: {test}: {}", why.replace('\n', " "));
    eprintln!("{line}");
    if let Some(path) = std::env::var_os(SKIPS).filter(|path| !path.is_empty()) {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| writeln!(file, "{line}"))
            .expect("the file of skips can be appended to");
    }
}
