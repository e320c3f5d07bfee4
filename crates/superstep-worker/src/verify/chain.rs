//! Chain: the records are one chain, each following the one before it.

use superstep_checkpoint::{Kept, StoredRecord};
use superstep_protocol::{Dispatch, Record, RecordBody, ThreadState};

use super::{
    Check,
    walk::{Walk, Walked},
};

/// A record and the one after it have versions without a gap between them.
pub(super) fn dense(walk: &mut Walk<'_>, older: &StoredRecord, newer: &StoredRecord) {
    if older.head.version + 1 != newer.head.version {
        let detail = format!("follows {}: versions are dense", older.head);
        walk.wrong(Check::Chain, newer.head.version, "version", detail);
    }
}

/// A record is the one that it is stored as, on the snapshot that it names.
pub(super) fn names(walk: &mut Walk<'_>, stored: &StoredRecord, begins: u64, record: &Record) {
    let version = stored.head.version;
    if record.head != stored.head {
        let detail = format!(
            "is stored as {} and says it is {}",
            stored.head, record.head
        );
        walk.wrong(Check::Chain, version, "name", detail);
    }
    let expected = if stored.is_snapshot() {
        version
    } else {
        begins
    };
    if stored.snapshot != expected {
        let detail = format!(
            "names the snapshot at {} and builds on that at {expected}",
            stored.snapshot
        );
        walk.wrong(Check::Snapshots, version, "named", detail);
    }
    if stored.is_snapshot() != record.snapshot.is_some() {
        let detail = "carries a snapshot and does not say so, or the other way".to_owned();
        walk.wrong(Check::Snapshots, version, "carried", detail);
    }
}

/// What answers a dispatch comes while the thread waits for it. Answers whether it follows.
pub(super) fn answers(walk: &mut Walk<'_>, before: &ThreadState, record: &Record) -> bool {
    if let Some(closes) = answered(&record.body)
        && !before.waits_for(closes)
    {
        let detail = format!("answers dispatch {closes}, which the thread did not wait for");
        walk.wrong(Check::Chain, record.head.version, "dispatch", detail);
        return false;
    }
    record.head.version == before.head.version + 1
}

fn answered(body: &RecordBody) -> Option<Dispatch> {
    match body {
        RecordBody::Committed(committed) => Some(committed.closes),
        RecordBody::Amended(amended) => Some(amended.closes),
        RecordBody::Interrupted(parked) | RecordBody::Failed(parked) => Some(parked.closes),
        RecordBody::ChildUpdated { closes, .. } | RecordBody::Declined { closes, .. } => {
            Some(*closes)
        }
        _ => None,
    }
}

/// The walk met all that there is, from the head to where a log may begin.
pub(super) fn whole(walk: &mut Walk<'_>, walked: &Walked, kept: &Kept) {
    if walked.newest != kept.head {
        let said = |head: Option<superstep_protocol::Head>| {
            head.map_or_else(|| "none".to_owned(), |head| head.to_string())
        };
        let detail = format!(
            "appends compare {}, the last record is {}",
            said(kept.head),
            said(walked.newest)
        );
        let version = kept.head.map_or(0, |head| head.version);
        walk.wrong(Check::Chain, version, "head", detail);
    }
    if walked.count != kept.records || walked.oldest != kept.oldest {
        let detail = format!(
            "{} records down to {} can be read, there are {} down to {}: some between are gone",
            walked.count, walked.oldest, kept.records, kept.oldest
        );
        walk.wrong(Check::Chain, walked.oldest, "gap", detail);
    } else if !walked.ends_well {
        let detail = "is the oldest record and carries no snapshot".to_owned();
        walk.wrong(Check::Chain, walked.oldest, "begin", detail);
    }
}
