//! No Rust file is longer than a reader can hold.
//!
//! One concept a file, named for it. What is generated is not read by people and is left out; it
//! lies in folders of that name.
//!
//! The rule it keeps: 600 lines is the aim, 700 is the wall.

use crate::repository::{Finding, Repository, expect_none};

/// The wall.
const LINES_MAX: usize = 700;

fn findings(repository: &Repository) -> Vec<Finding> {
    repository
        .with_extension(&["rs"])
        .filter(|(path, _)| !path.split('/').any(|part| part == "generated"))
        .filter_map(|(path, text)| {
            let lines = text.lines().count();
            (lines > LINES_MAX).then(|| {
                let message = format!(
                    "{lines} lines, {LINES_MAX} are allowed: split it by concept, or move its tests \
                     to a file of their own"
                );
                Finding::new(path, lines, message)
            })
        })
        .collect()
}

#[test]
fn no_rust_file_is_over_long() {
    expect_none(&findings(Repository::this()));
}

#[test]
fn an_over_long_file_is_found() {
    let (wall, over) = ("//\n".repeat(LINES_MAX), "//\n".repeat(LINES_MAX + 1));
    let files = [
        ("crates/a/src/wall.rs", wall.as_str()),
        ("crates/a/src/over.rs", &over),
        ("crates/a/src/generated/over.rs", &over),
        ("crates/a/over.md", &over),
    ];
    let found = findings(&Repository::of(&files));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(
        (found[0].file.as_str(), found[0].line),
        ("crates/a/src/over.rs", LINES_MAX + 1)
    );
}
