//! Every Rust file opens with a header that says what it is for.
//!
//! Headers are the map that one meets on foot: what a file is for, what it leaves to others, the
//! rule it keeps. Whether the words are good is left to reviews.
//!
//! The rule it keeps: the first line of a file is a `//!` with words in it.

use crate::repository::{Finding, Repository, check_row, expect_none};

fn findings(repository: &Repository) -> Vec<Finding> {
    repository
        .with_extension(&["rs"])
        .filter(|(_, text)| {
            let first = text
                .lines()
                .next()
                .and_then(|line| line.strip_prefix("//!"));
            first.is_none_or(|words| words.trim().is_empty())
        })
        .map(|(path, _)| {
            let message = "no header: begin the file with `//!` lines that say what it is for, \
                           what it leaves to others and the rule it keeps";
            Finding::new(path, 1, message)
        })
        .collect()
}

#[test]
fn every_rust_file_opens_with_a_header() {
    expect_none(&findings(Repository::this()));
}

#[test]
fn a_missing_header_is_found() {
    let check = |path: &str, text: &str, lines: &[usize]| check_row(findings, path, text, lines);
    check("a.rs", "//! Words.\n\nfn f() {}\n", &[]);
    check("a.rs", "fn f() {}\n", &[1]);
    check("a.rs", "\n//! Too late.\n//! Really.\n", &[1]);
    check("a.rs", "// Not that kind.\n// Really.\n", &[1]);
    check("a.rs", "//!\n//! Words.\n", &[1]);
    check("a.rs", "", &[1]);
    check("a.md", "no header needed", &[]);
}
