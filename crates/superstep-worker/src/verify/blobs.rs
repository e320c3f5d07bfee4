//! Blobs: every value that a record names is there, and none stays that no record names.

use superstep_checkpoint::{ErrorKind, Kept};
use superstep_wire::record::Decoded;

use super::{
    Check,
    walk::{Values, Walk},
};
use crate::error::Error;

/// Reads the values of a range; `None` if one is missing, which is told.
pub(super) async fn read(
    walk: &mut Walk<'_>,
    decoded: &[(u64, Decoded)],
) -> Result<Option<Values>, Error> {
    let mut values = Values::new();
    let mut is_whole = true;
    for (version, record) in decoded {
        for id in record.blob_ids() {
            walk.named.insert(id.clone());
            if values.contains_key(&id) {
                continue;
            }
            match walk.log.blobs(walk.thread, std::slice::from_ref(&id)).await {
                Ok(mut found) => {
                    values.extend(found.pop().map(|value| (id, value)));
                }
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    is_whole = false;
                    let subject = format!("value {id}");
                    let detail = format!("names value `{id}`, which is not in the store");
                    walk.wrong(Check::Blobs, *version, &subject, detail);
                }
                Err(source) => {
                    return Err(Error::Log {
                        thread: walk.thread.clone(),
                        source,
                    });
                }
            }
        }
    }
    Ok(Some(values).filter(|_| is_whole))
}

/// No value stays for good that no record names.
pub(super) fn none_left_over(walk: &mut Walk<'_>, kept: &Kept) {
    // What could not be read may name them.
    if walk.wrong.iter().any(|wrong| wrong.check == Check::Chain) {
        return;
    }
    let left: Vec<&String> = kept.blobs.difference(&walk.named).collect();
    if let (Some(first), Some(head)) = (left.first(), kept.head) {
        let detail = format!(
            "{} values stay in the store that no record names, `{first}` first",
            left.len()
        );
        walk.wrong(Check::Blobs, head.version, "left over", detail);
    }
}
