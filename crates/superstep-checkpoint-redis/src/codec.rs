//! What fields and members hold, as text where people may look, and back.
//!
//! A record's field is `nonce:snapshot:bytes`, so that a script can compare the nonce and a trim
//! the snapshot without reading further. A row begins with a digit for the status and the graph's
//! name after its length: the list that the thread is in. The rule it keeps: what does not read
//! back is an error that names the key, never a guess.

use bytes::Bytes;
use superstep_checkpoint::{Error, ErrorKind, StoredRecord, ThreadRow};
use superstep_protocol::{GraphId, Head, Nonce, ThreadId, ThreadStatus, UnixMillis};

/// Ends the first of two ids in a member of an index.
const END: &str = "\0\u{1}";
/// A zero byte within the first id: more than `END`, so that members sort as pairs of ids do.
const ZERO: &str = "\0\u{2}";

/// The field of a record.
pub(crate) fn record_field(record: &StoredRecord) -> Vec<u8> {
    let mut field = format!("{}:{}:", record.head.nonce, record.snapshot).into_bytes();
    field.extend_from_slice(&record.bytes);
    field
}

/// The head of a thread with the version of its snapshot, as field `h` has it.
pub(crate) fn head_field(record: &StoredRecord) -> String {
    format!("{}:{}", record.head, record.snapshot)
}

/// Reads the record of `version` from its field, without copying its bytes.
pub(crate) fn read_record(version: u64, field: Vec<u8>) -> Option<StoredRecord> {
    let field = Bytes::from(field);
    let nonce = std::str::from_utf8(field.get(..16)?).ok()?;
    let nonce = Nonce(u64::from_str_radix(nonce, 16).ok()?);
    let rest = field.get(16..)?.strip_prefix(b":")?;
    let end = rest.iter().position(|byte| *byte == b':')?;
    let snapshot = std::str::from_utf8(&rest[..end]).ok()?.parse().ok()?;
    Some(StoredRecord {
        head: Head { version, nonce },
        snapshot,
        bytes: field.slice(16 + 1 + end + 1..),
    })
}

/// The head in field `h`.
pub(crate) fn read_head(field: &str) -> Option<Head> {
    field.split(':').next()?.parse().ok()
}

/// The digit of a status: its place among all of them, from 1.
pub(crate) fn status_digit(status: ThreadStatus) -> char {
    match status {
        ThreadStatus::Idle => '1',
        ThreadStatus::Busy => '2',
        ThreadStatus::Interrupted => '3',
        ThreadStatus::Error => '4',
    }
}

/// A row as field `i` has it, and how much of it names the list that the thread is in.
pub(crate) fn row_field(row: &ThreadRow) -> (String, usize) {
    let (name, version) = (row.graph.name.as_str(), row.graph.version.as_str());
    let list = format!("{}{}:{name}", status_digit(row.status), name.len());
    let text = format!(
        "{list}{}:{version}{},{}",
        version.len(),
        row.created_at.0,
        row.updated_at.0
    );
    (text, list.len())
}

/// Reads a row.
pub(crate) fn read_row(text: &str) -> Option<ThreadRow> {
    let digit = text.chars().next()?;
    let status = ThreadStatus::ALL
        .into_iter()
        .find(|status| status_digit(*status) == digit)?;
    let (name, rest) = read_sized(&text[1..])?;
    let (version, rest) = read_sized(rest)?;
    let (created_at, updated_at) = rest.split_once(',')?;
    Some(ThreadRow {
        status,
        graph: GraphId {
            name: name.into(),
            version: version.into(),
        },
        created_at: UnixMillis(created_at.parse().ok()?),
        updated_at: UnixMillis(updated_at.parse().ok()?),
    })
}

/// A graph as a field of the registrations.
pub(crate) fn graph_field(graph: &GraphId) -> String {
    let name = graph.name.as_str();
    format!("{}:{name}{}", name.len(), graph.version)
}

/// Reads a graph.
pub(crate) fn read_graph(field: &str) -> Option<GraphId> {
    let (name, version) = read_sized(field)?;
    Some(GraphId {
        name: name.into(),
        version: version.into(),
    })
}

/// A member of an index over many threads: an id or name, then the thread. Members are in the
/// order of the pairs, by bytes.
pub(crate) fn member(id: &str, thread: &ThreadId) -> String {
    format!("{}{END}{thread}", id.replace('\0', ZERO))
}

/// Reads a member.
pub(crate) fn read_member(member: &str) -> Option<(String, ThreadId)> {
    let (id, thread) = member.split_once(END)?;
    Some((id.replace(ZERO, "\0"), thread.into()))
}

/// The error of a key that does not hold what this crate writes.
pub(crate) fn corrupt(what: &str) -> Error {
    Error::new(
        ErrorKind::Corrupt,
        format!(
            "{what} is not what superstep writes; was it changed by another program, or written by a newer superstep?"
        ),
    )
}

fn read_sized(text: &str) -> Option<(&str, &str)> {
    let (length, rest) = text.split_once(':')?;
    rest.split_at_checked(length.parse().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_back_as_it_was_written() {
        for bytes in ["", "x", "a:b:c", "\0"] {
            let record = StoredRecord {
                head: "12-00c0ffee00c0ffee".parse().unwrap(),
                snapshot: 7,
                bytes: Bytes::copy_from_slice(bytes.as_bytes()),
            };
            let field = record_field(&record);
            assert!(field.starts_with(b"00c0ffee00c0ffee:7:"));
            assert_eq!(read_record(12, field), Some(record));
        }
    }

    #[test]
    fn a_damaged_record_is_not_read() {
        for field in [
            "",
            "00c0ffee00c0ffee",
            "00c0ffee00c0ffee:7",
            "00c0ffee00c0fxxx:7:a",
        ] {
            assert_eq!(read_record(1, field.into()), None, "{field}");
        }
    }

    #[test]
    fn a_row_reads_back_as_it_was_written() {
        for (status, name) in ThreadStatus::ALL.into_iter().zip(["g", "", "1:2,3", "ü"]) {
            let row = ThreadRow {
                status,
                graph: GraphId {
                    name: name.into(),
                    version: "1.0,2:3".into(),
                },
                created_at: UnixMillis(1),
                updated_at: UnixMillis(u64::MAX),
            };
            let (text, list) = row_field(&row);
            assert_eq!(read_row(&text), Some(row));
            assert!(text[..list].ends_with(name));
        }
    }

    #[test]
    fn members_read_back_and_sort_as_pairs_of_ids() {
        let ids = [
            "", "\0", "\0\u{1}", "\0b", "\u{1}", "a", "a\0", "a\0b", "a\u{1}", "ab", "ü",
        ];
        let mut pairs = Vec::new();
        for id in ids {
            for thread in ids {
                let member = member(id, &ThreadId::new(thread));
                assert_eq!(read_member(&member), Some((id.to_owned(), thread.into())));
                pairs.push(((id, thread), member));
            }
        }
        pairs.sort();
        assert!(pairs.is_sorted_by(|a, b| a.1 < b.1));
    }

    #[test]
    fn a_digit_of_a_status_is_its_place() {
        let digits: String = ThreadStatus::ALL.into_iter().map(status_digit).collect();
        assert_eq!(digits, "1234");
    }
}
