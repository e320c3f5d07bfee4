//! `proto/README.md` is the reference for people in other languages; here it is kept true.

use std::collections::BTreeSet;

use superstep_wire::{EventKind, RefusalKind};

use super::{BODIES, proto, read_and_write};

fn readme() -> String {
    std::fs::read_to_string(proto().join("README.md")).expect("proto/README.md is there")
}

/// The words in the first column of the table under that heading.
fn words_under<'a>(text: &'a str, heading: &str) -> Vec<&'a str> {
    text.lines()
        .skip_while(|line| *line != heading)
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(word, _)| word)
        .collect()
}

#[test]
fn the_tables_list_every_kind_in_order() {
    let text = readme();
    let events: Vec<&str> = EventKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words_under(&text, "## Event kinds"), events);
    let refusals: Vec<&str> = RefusalKind::ALL.iter().map(|kind| kind.as_str()).collect();
    assert_eq!(words_under(&text, "## Refusal kinds"), refusals);
}

#[test]
fn every_example_is_a_body_of_its_heading() {
    let text = readme();
    let mut seen = BTreeSet::new();
    let mut heading = "";
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("### ") {
            heading = name.split_whitespace().next().unwrap_or_default();
        } else if line == "```json" {
            let body: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let body = body.join("\n");
            if let Err(error) = read_and_write(heading, body.as_bytes()) {
                panic!("the example under {heading}: {error}\n{body}");
            }
            seen.insert(heading);
        }
    }
    assert_eq!(seen, BTreeSet::from(BODIES));
}
