//! A note for later names the issue where it is kept.
//!
//! A note that no list knows is read by nobody. Whether the issue still stands is left to people.
//!
//! The rule it keeps: the two usual words for such notes are followed by a number, as in
//! `(#12)` or ` #12`.

use crate::repository::{Finding, Repository, check_row, expect_none, numbered};

/// The words, spelled so that this file does not trip over itself.
const WORDS: [&str; 2] = [concat!("TO", "DO"), concat!("FIX", "ME")];

fn findings(repository: &Repository) -> Vec<Finding> {
    let mut found = Vec::new();
    let extensions = [
        "rs", "toml", "proto", "lua", "sql", "yaml", "yml", "sh", "md",
    ];
    for (path, text) in repository.with_extension(&extensions) {
        for (number, line) in numbered(text) {
            for word in WORDS {
                if notes_without_issue(line, word) {
                    let message = format!(
                        "a {word} without an issue number: open an issue and write {word}(#number)"
                    );
                    found.push(Finding::new(path, number, message));
                }
            }
        }
    }
    found
}

fn notes_without_issue(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let rest = &line[at + word.len()..];
        let whole = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let issue = rest.trim_start_matches(['(', ' ']).strip_prefix('#');
        let numbered = issue.is_some_and(|number| number.starts_with(|c: char| c.is_ascii_digit()));
        // In backticks it is spoken of, not used.
        whole(before) && whole(rest.chars().next()) && before != Some('`') && !numbered
    })
}

#[test]
fn every_note_names_its_issue() {
    expect_none(&findings(Repository::this()));
}

#[test]
fn a_note_without_issue_is_found() {
    for word in WORDS {
        let check = |text: &str, lines: &[usize]| check_row(findings, "a.rs", text, lines);
        check(&format!("fn f() {{}}\n// {word}: later\n"), &[2]);
        check(&format!("// {word} later"), &[1]);
        check(&format!("// {word}(somebody): later"), &[1]);
        check(&format!("// {word}(#12): later"), &[]);
        check(&format!("// {word} #12: later"), &[]);
        check(&format!("// A{word} is a word of its own"), &[]);
        check(&format!("// the word `{word}` is spoken of"), &[]);
    }
}
