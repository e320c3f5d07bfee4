//! Semantics: what LangGraph was recorded doing, superstep does, wherever its threads live.
//!
//! Each test runs every recorded case on one kind of backend through the conformance runner, as
//! anyone would from a shell. What a case is and how it is compared is the runner's business.

use std::process::Command;

use superstep_tests::workspace_root;

/// Runs all recorded cases on `backend`; those marked as quirks do not count.
fn every_case_passes_on(backend: &str) {
    let cases = workspace_root().join("tests/conformance/cases");
    let run = Command::new(env!("CARGO_BIN_EXE_conformance"))
        .arg(cases)
        .args(["--backend", backend])
        .output()
        .expect("the runner starts");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "{said}\n{}",
        String::from_utf8_lossy(&run.stderr)
    );
    let passed = said.lines().last().and_then(|line| line.split(' ').next());
    let passed: usize = passed.and_then(|number| number.parse().ok()).unwrap_or(0);
    // The recorded cases only grow; a folder that is not found or read would pass none.
    assert!(passed >= 573, "{passed} cases passed: are they all read?");
}

#[test]
fn every_recorded_case_passes_in_memory() {
    every_case_passes_on("memory");
}

#[test]
fn every_recorded_case_passes_on_sqlite() {
    every_case_passes_on("sqlite");
}

#[test]
fn every_recorded_case_passes_on_a_cluster() {
    every_case_passes_on("cluster");
}
