//! The pure crates keep their bans.
//!
//! A crate's `clippy.toml` is what makes the compiler refuse a clock, a thread or an unordered map
//! in it; without the file nothing would be refused, and nothing would say so. What else is in it
//! is left to the crate.
//!
//! The rule it keeps: each pure crate has the file, and it bans at least these.

use crate::arrows::PURE;
use crate::repository::{Finding, Repository, expect_none};

/// What none of them may use.
const BANNED: &[&str] = &[
    "std::collections::HashMap",
    "std::collections::HashSet",
    "std::thread::sleep",
    "std::thread::spawn",
    "std::time::Instant::now",
    "std::time::SystemTime::now",
];

fn findings(repository: &Repository) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, _) in PURE {
        let path = format!("crates/{name}/clippy.toml");
        let text = repository.text(&path).unwrap_or_default();
        for banned in BANNED {
            if !text.contains(&format!("path = \"{banned}\"")) {
                let message = format!("does not ban {banned}: a pure crate must");
                found.push(Finding::new(&path, 0, message));
            }
        }
    }
    found
}

#[test]
fn the_pure_crates_keep_their_bans() {
    expect_none(&findings(Repository::this()));
}

#[test]
fn a_missing_ban_is_found() {
    let lines: Vec<String> = BANNED
        .iter()
        .map(|ban| format!("{{ path = \"{ban}\" }},\n"))
        .collect();
    let all = lines.concat();
    let (paths, last) = (
        PURE.map(|(name, _)| format!("crates/{name}/clippy.toml")),
        BANNED.len(),
    );
    let whole = Repository::of(&[(&paths[0], &all), (&paths[1], &all)]);
    assert_eq!(findings(&whole), []);
    assert_eq!(findings(&Repository::of(&[(&paths[0], &all)])).len(), last);
    let one_less = all.replace("HashSet", "BTreeSet");
    let short = Repository::of(&[(&paths[0], &all), (&paths[1], &one_less)]);
    assert_eq!(findings(&short).len(), 1);
}
