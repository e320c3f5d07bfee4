//! What the documents at the root name is there.
//!
//! A map is worth less than none when its places have moved. Every path in backticks in
//! ARCHITECTURE.md must exist, in whole or as the end of one; so must every relative link of every
//! document. Records of the past, the changelog and the ADRs, may name in backticks what is gone.
//!
//! The rule it keeps: something counts as a path if it ends like a file of ours, or begins with a
//! folder at the root; subjects, keys and commands in backticks are none.

use std::collections::BTreeSet;

use crate::repository::{Finding, Repository, expect_none, extension, numbered};

/// The documents whose backticks are a map.
const MAPS: &[&str] = &["ARCHITECTURE.md", "CONTRIBUTING.md", "README.md"];

/// How the names of our files end.
const ENDINGS: &[&str] = &["rs", "md", "toml", "proto", "lua", "yaml", "json", "sql"];

fn findings(repository: &Repository) -> Vec<Finding> {
    let places = places(repository);
    let folders: BTreeSet<&str> = repository
        .paths()
        .filter_map(|path| path.split_once('/'))
        .map(|(top, _)| top)
        .collect();
    let mut found = Vec::new();
    for (path, text) in repository.with_extension(&["md"]) {
        let mut fenced = false;
        for (number, line) in numbered(text) {
            fenced ^= line.trim_start().starts_with("```");
            if fenced {
                continue;
            }
            if MAPS.contains(&path) {
                for named in in_backticks(line).filter(|named| is_path(named, &folders)) {
                    if !exists(&places, named) {
                        let message = format!("names `{named}`, which is not in the repository");
                        found.push(Finding::new(path, number, message));
                    }
                }
            }
            for link in links(line) {
                if !places.contains(&resolve(path, link)) {
                    let message = format!("links to {link}, which is not in the repository");
                    found.push(Finding::new(path, number, message));
                }
            }
        }
    }
    found
}

/// All files and folders, without a slash at the end.
fn places(repository: &Repository) -> BTreeSet<String> {
    let mut places = BTreeSet::from([String::new()]);
    for path in repository.paths() {
        places.insert(path.to_owned());
        places.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
    }
    places
}

/// What stands in backticks on a line.
fn in_backticks(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

/// Whether something in backticks means a file or folder of the repository.
fn is_path(named: &str, folders: &BTreeSet<&str>) -> bool {
    let plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    let top = named.split_once('/').map(|(top, _)| top);
    // A name that is only an ending, such as `.rs`, speaks of a kind of file.
    named.chars().all(plain)
        && (top.is_some_and(|top| folders.contains(top))
            || extension(named).is_some_and(|ending| ENDINGS.contains(&ending)))
}

/// Whether a path is one of the places, or the end of one.
fn exists(places: &BTreeSet<String>, named: &str) -> bool {
    let named = named.trim_end_matches('/');
    let end = format!("/{named}");
    places.contains(named) || places.iter().any(|place| place.ends_with(&end))
}

/// The targets of a line's links that stay in the repository, without their anchors.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("](")
        .filter_map(|(at, _)| line[at + 2..].split_once(')'))
        .map(|(target, _)| target.split('#').next().unwrap_or_default())
        .filter(|target| !target.is_empty() && !target.contains(':') && !target.contains(' '))
}

/// The place that a relative link in the document `from` leads to.
fn resolve(from: &str, link: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in link.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[test]
fn what_the_documents_name_is_there() {
    expect_none(&findings(Repository::this()));
}

#[test]
fn a_name_that_leads_nowhere_is_found() {
    let files = [
        ("crates/a/src/lib.rs", ""),
        (
            "docs/guide.md",
            "[up](../ARCHITECTURE.md) [gone](gone.md) [out](https://a.example/x)",
        ),
        ("docs/adr/0001-a.md", "`crates/gone` was dropped"),
        (
            "ARCHITECTURE.md",
            "`crates/a` and `crates/a/` and `crates/a/src/lib.rs` and `a/src/lib.rs`\n\
             `crates/b` is gone\n\
             `src/other.rs` and `lost.rs` too\n\
             `superstep.default.work.<graph>` and `a/b` and `cargo xtask test` are no paths\n\
             see [the guide](docs/guide.md#part) and [none](docs/none.md)\n\
             ```\n`crates/fenced`\n```\n",
        ),
    ];
    let found = findings(&Repository::of(&files));
    let found: Vec<String> = found.iter().map(ToString::to_string).collect();
    let expected = [
        "ARCHITECTURE.md:2: names `crates/b`, which is not in the repository",
        "ARCHITECTURE.md:3: names `src/other.rs`, which is not in the repository",
        "ARCHITECTURE.md:3: names `lost.rs`, which is not in the repository",
        "ARCHITECTURE.md:5: links to docs/none.md, which is not in the repository",
        "docs/guide.md:1: links to gone.md, which is not in the repository",
    ];
    assert_eq!(found, expected);
}
