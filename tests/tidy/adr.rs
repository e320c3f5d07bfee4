//! Decisions are short and are listed in the index.
//!
//! An ADR that the index does not name is not found again; one that is long is not read. Its words
//! are left to reviews.
//!
//! The rule it keeps: files are named `NNNN-title.md`, each number once, each linked from
//! `docs/adr/README.md`, none over 80 lines.

use std::collections::BTreeMap;

use crate::repository::{Finding, Repository, expect_none};

/// Where decisions are kept.
const FOLDER: &str = "docs/adr/";

/// How long one may be.
const LINES_MAX: usize = 80;

fn findings(repository: &Repository) -> Vec<Finding> {
    let index_path = format!("{FOLDER}README.md");
    let index = repository.text(&index_path).unwrap_or_default();
    let mut found = Vec::new();
    let mut numbers: BTreeMap<&str, &str> = BTreeMap::new();
    for (path, text) in repository.with_extension(&["md"]) {
        let Some(name) = path
            .strip_prefix(FOLDER)
            .filter(|name| *name != "README.md")
        else {
            continue;
        };
        let number = name.split('-').next().unwrap_or_default();
        if number.len() != 4 || number.parse::<u16>().is_err() {
            found.push(Finding::new(path, 0, "not named `NNNN-title.md`"));
        } else if let Some(other) = numbers.insert(number, name) {
            found.push(Finding::new(path, 0, format!("has the number of {other}")));
        }
        let lines = text.lines().count();
        if lines > LINES_MAX {
            let message = format!("{lines} lines, {LINES_MAX} are allowed: keep the decision only");
            found.push(Finding::new(path, lines, message));
        }
        if !index.contains(&format!("]({name})")) {
            found.push(Finding::new(
                path,
                0,
                format!("not linked from {index_path}"),
            ));
        }
    }
    found
}

#[test]
fn every_decision_is_short_and_listed() {
    expect_none(&findings(Repository::this()));
}

#[test]
fn an_unlisted_or_long_decision_is_found() {
    let long = "words\n".repeat(LINES_MAX + 1);
    let found = findings(&Repository::of(&[
        (
            "docs/adr/README.md",
            "- [one](0001-one.md)\n- [long](0003-long.md)\n- [x](title.md)\n",
        ),
        ("docs/adr/0001-one.md", "short\n"),
        ("docs/adr/0001-again.md", "short\n"),
        ("docs/adr/0003-long.md", &long),
        ("docs/adr/title.md", "short\n"),
        ("docs/other.md", &long),
    ]));
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected = [
        "docs/adr/0001-again.md: not linked from docs/adr/README.md",
        "docs/adr/0001-one.md: has the number of 0001-again.md",
        "docs/adr/0003-long.md:81: 81 lines, 80 are allowed: keep the decision only",
        "docs/adr/title.md: not named `NNNN-title.md`",
    ];
    assert_eq!(found, expected);
}
