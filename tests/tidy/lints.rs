//! Every crate takes the lints of the workspace.
//!
//! Cargo does not hand them down by itself: a crate that forgets the two lines is not linted at
//! all, and nothing says so. Which lints there are is left to the root manifest.
//!
//! The rule it keeps: each member has `[lints]` with `workspace = true`.

use crate::repository::{Finding, Repository, check_row, expect_none};

fn findings(repository: &Repository) -> Vec<Finding> {
    repository
        .with_extension(&["toml"])
        .filter(|(path, _)| path.ends_with("/Cargo.toml"))
        .filter(|(_, text)| !inherits(text))
        .map(|(path, _)| {
            let message = "the crate takes no lints: add `[lints]` with `workspace = true`";
            Finding::new(path, 0, message)
        })
        .collect()
}

fn inherits(manifest: &str) -> bool {
    let mut lines = manifest
        .lines()
        .map(str::trim)
        .skip_while(|line| *line != "[lints]")
        .skip(1);
    lines
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .any(|line| line == "workspace = true")
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    expect_none(&findings(Repository::this()));
}

#[test]
fn a_crate_without_lints_is_found() {
    let check = |path: &str, text: &str, lines: &[usize]| check_row(findings, path, text, lines);
    check(
        "crates/a/Cargo.toml",
        "[package]\nname = \"a\"\n\n[lints]\nworkspace = true\n",
        &[],
    );
    check("crates/a/Cargo.toml", "[package]\nname = \"a\"\n", &[0]);
    check(
        "crates/a/Cargo.toml",
        "[lints]\n\n[x]\nworkspace = true\n",
        &[0],
    );
    check("Cargo.toml", "[workspace]\n", &[]);
    check("deny.toml", "[bans]\n", &[]);
}
