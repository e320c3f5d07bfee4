//! Nothing is silenced for good: no ignored tests, and `expect` in place of `allow`.
//!
//! An ignored test is one that nobody runs. An `allow` stays when its reason is gone, an `expect`
//! complains then. Doc examples marked as ignored are tests that nobody runs as well.
//!
//! The rule it keeps: an attribute is judged where it stands at the head of a line, which is where
//! rustfmt puts it; strings that speak of one are not met.

use crate::repository::{Finding, Repository, check_row, expect_none, numbered};

fn findings(repository: &Repository) -> Vec<Finding> {
    let mut found = Vec::new();
    for (path, text) in repository.with_extension(&["rs"]) {
        for (number, line) in numbered(text) {
            if let Some(message) = objection(line.trim_start()) {
                found.push(Finding::new(path, number, message));
            }
        }
    }
    found
}

fn objection(line: &str) -> Option<&'static str> {
    let attribute = line.strip_prefix("#![").or_else(|| line.strip_prefix("#["));
    if let Some(attribute) = attribute {
        if attribute.starts_with("ignore") {
            return Some(
                "an ignored test: delete it, or skip at run time with `superstep_tests::skip`",
            );
        }
        let inner = attribute.starts_with("cfg_attr(") && attribute.contains(" allow(");
        if attribute.starts_with("allow(") || inner {
            return Some("`allow` hides a lint for good: use `expect(lint, reason = \"...\")`");
        }
    }
    let doc = line
        .strip_prefix("///")
        .or_else(|| line.strip_prefix("//!"))?
        .trim_start();
    let marks = doc.strip_prefix("```")?;
    marks
        .split([',', ' '])
        .any(|mark| mark == "ignore")
        .then_some(
            "an ignored example: make it compile (`no_run` where it must not run), or use `text`",
        )
}

#[test]
fn no_test_is_ignored_and_no_lint_allowed() {
    expect_none(&findings(Repository::this()));
}

#[test]
fn what_is_silenced_is_found() {
    let check = |text: &str, lines: &[usize]| check_row(findings, "a.rs", text, lines);
    check("#[test]\n#[ignore]\nfn f() {}\n", &[2]);
    check("    #[ignore = \"slow\"]\n", &[1]);
    check("#[allow(dead_code)]\n", &[1]);
    check("#![allow(\n    dead_code\n)]\n", &[1]);
    check("#[cfg_attr(test, allow(dead_code))]\n", &[1]);
    check(
        "#[expect(dead_code, reason = \"it is shown below\")]\n",
        &[],
    );
    check("fn allow(who: u8) {}\nallow(1);\n", &[]);
    check("/// ```ignore\n/// f();\n/// ```\n", &[1]);
    check("/// ```no_run\n/// f();\n/// ```\n", &[]);
}
