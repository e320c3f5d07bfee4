//! Golden files: what any version wrote is read, and written the same.

use std::collections::BTreeSet;

use superstep_wire::EventKind;

use super::{BODIES, golden_files, read_and_write};

#[test]
fn golden_bodies_come_back_as_they_were() {
    for (name, case, text) in golden_files() {
        let written = read_and_write(&name, text.as_bytes())
            .unwrap_or_else(|error| panic!("{name}.{case}: {error}"));
        let compact: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
        let again: serde_json::Value = serde_json::from_slice(&written).expect("it is JSON");
        assert_eq!(again, compact, "{name}.{case}");
    }
}

#[test]
fn fields_are_written_in_the_contracts_order() {
    let text = golden_files()
        .into_iter()
        .find(|(name, case, _)| name == "Event" && case == "interrupt")
        .expect("the golden file is there")
        .2;
    let written = read_and_write("Event", text.as_bytes()).expect("it is an event");
    let written = String::from_utf8(written).expect("JSON is UTF-8");
    let squeezed: String = text.split_whitespace().collect();
    assert_eq!(written, squeezed);
}

#[test]
fn every_body_and_event_kind_has_a_golden_file() {
    let files = golden_files();
    let bodies: BTreeSet<&str> = files.iter().map(|(name, _, _)| name.as_str()).collect();
    assert_eq!(bodies, BTreeSet::from(BODIES));
    for kind in EventKind::ALL {
        assert!(
            files
                .iter()
                .any(|(name, case, _)| name == "Event" && case == kind.as_str()),
            "golden/v1/Event.{kind}.json is missing"
        );
    }
}
