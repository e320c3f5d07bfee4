//! Snapshots: each equals the fold of what was before it.

use serde_json::Value;
use superstep_protocol::ThreadState;

use super::{Check, walk::Walk};

/// Compares a snapshot with the fold up to its record.
pub(super) fn check(walk: &mut Walk<'_>, snapshot: &ThreadState, folded: &ThreadState) {
    if snapshot == folded {
        return;
    }
    let json = |state| serde_json::to_value(state).unwrap_or(Value::Null);
    let (snapshot_json, folded_json) = (json(snapshot), json(folded));
    let mut differs: Vec<&str> = Vec::new();
    if let (Value::Object(one), Value::Object(other)) = (&snapshot_json, &folded_json) {
        let names = one.keys().chain(other.keys());
        differs.extend(
            names
                .filter(|name| one.get(*name) != other.get(*name))
                .map(String::as_str),
        );
        differs.sort_unstable();
        differs.dedup();
    }
    let detail = format!(
        "its snapshot differs from the fold of the records before it in {}",
        differs.join(", ")
    );
    walk.wrong(Check::Snapshots, folded.head.version, "fold", detail);
}
