//! Every Rust file is part of a crate.
//!
//! A file that no `mod` names is not compiled, not tested and not linted, and looks as if it were.
//! Cargo says which files the crates begin with; from there the `mod` lines are followed as the
//! compiler would. Modules written inline and holding files of their own are not followed: here
//! nobody writes them.
//!
//! The rule it keeps: what cannot be reached is deleted.

use std::collections::BTreeSet;

use superstep_tests::workspace_root;

use crate::repository::{Finding, Repository, expect_none, numbered};

fn findings(repository: &Repository, roots: &[String]) -> Vec<Finding> {
    let mut reached = BTreeSet::new();
    for root in roots {
        follow(repository, root, folder(root), &mut reached);
    }
    repository
        .with_extension(&["rs"])
        .filter(|(path, _)| !reached.contains(*path))
        .map(|(path, _)| Finding::new(path, 0, "no `mod` leads here: name it, or delete it"))
        .collect()
}

/// Marks a file and all that its `mod` lines lead to; those lie in `children`.
fn follow(repository: &Repository, file: &str, children: &str, reached: &mut BTreeSet<String>) {
    let Some(text) = repository.text(file) else {
        return;
    };
    if !reached.insert(file.to_owned()) {
        return;
    }
    let mut named = None;
    for (_, line) in numbered(text) {
        let line = line.trim();
        if let Some(path) = quoted_after(line, "#[path = ") {
            named = Some(format!("{}/{path}", folder(file)));
        } else if let Some(path) = quoted_after(line, "include!(") {
            follow(
                repository,
                &format!("{}/{path}", folder(file)),
                folder(file),
                reached,
            );
        } else if let Some(module) = declared(line) {
            let flat = format!("{children}/{module}.rs");
            let nested = format!("{children}/{module}/mod.rs");
            if let Some(path) = named.take() {
                follow(repository, &path, folder(&path), reached);
            } else {
                let below = format!("{children}/{module}");
                follow(repository, &flat, &below, reached);
                follow(repository, &nested, &below, reached);
            }
        }
    }
}

/// The module that a line such as `pub(crate) mod name;` declares.
fn declared(line: &str) -> Option<&str> {
    let line = line.strip_suffix(';')?;
    let (visibility, name) = match line.strip_prefix("mod ") {
        Some(name) => ("", name),
        None => line.split_once(" mod ")?,
    };
    let visible = visibility.is_empty() || visibility.starts_with("pub");
    (visible && name.chars().all(|c| c.is_alphanumeric() || c == '_')).then_some(name)
}

/// The quoted text that follows `before` at the beginning of a line.
fn quoted_after<'a>(line: &'a str, before: &str) -> Option<&'a str> {
    line.strip_prefix(before)?
        .strip_prefix('"')?
        .split('"')
        .next()
}

/// The folder of a file.
fn folder(file: &str) -> &str {
    file.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// The first files of all crates, tests and examples, as cargo sees them.
fn roots() -> Vec<String> {
    let metadata = crate::arrows::metadata();
    let targets = metadata
        .packages
        .iter()
        .flat_map(|package| &package.targets);
    targets
        .filter_map(|target| {
            target
                .src_path
                .as_std_path()
                .strip_prefix(workspace_root())
                .ok()
        })
        .map(|path| path.to_string_lossy().into_owned())
        .collect()
}

#[test]
fn every_rust_file_belongs_to_a_crate() {
    expect_none(&findings(Repository::this(), &roots()));
}

#[test]
fn a_dead_file_is_found() {
    let files = [
        (
            "a/src/lib.rs",
            "mod one;\npub(crate) mod two;\n#[path = \"odd/three.rs\"]\nmod three;\n",
        ),
        (
            "a/src/one.rs",
            "#[cfg(test)]\nmod tests;\ninclude!(\"table.rs\");\n",
        ),
        ("a/src/one/tests.rs", ""),
        ("a/src/two/mod.rs", "pub mod deep;"),
        ("a/src/two/deep.rs", "// mod spoken_of;"),
        ("a/src/two/spoken_of.rs", ""),
        ("a/src/odd/three.rs", ""),
        ("a/src/table.rs", ""),
        ("a/src/three.rs", ""),
        ("a/src/tests.rs", ""),
        ("a/tests/own.rs", ""),
    ];
    let roots = ["a/src/lib.rs".to_owned(), "a/tests/own.rs".to_owned()];
    let found = findings(&Repository::of(&files), &roots);
    let found: Vec<&str> = found.iter().map(|finding| finding.file.as_str()).collect();
    assert_eq!(
        found,
        ["a/src/tests.rs", "a/src/three.rs", "a/src/two/spoken_of.rs"]
    );
}
