//! Cursors of lists, as every log writes them: the sort key of the last row of a page.
//!
//! A cursor is opaque to callers, but all logs write the same one, so that a page asked of
//! one process can be continued by another. It leaves the query itself to the log.

use std::fmt::Write;

use superstep_protocol::UnixMillis;

use crate::{Error, ErrorKind};

/// The most rows that a page may have.
pub const PAGE_ROWS_MAX: usize = 1_000;

/// The number of rows that a query may get: its limit, from 1 to [`PAGE_ROWS_MAX`].
pub fn page_rows(limit: usize) -> usize {
    limit.clamp(1, PAGE_ROWS_MAX)
}

/// Where a page ended: the time and the ids that its list is ordered by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cursor {
    /// The time of the last row.
    pub at: UnixMillis,
    /// The ids of the last row, in the list's order.
    pub ids: Vec<String>,
}

impl Cursor {
    /// The cursor as text: the time, then each id after its length, so that no byte of an id
    /// can be taken for a separator.
    pub fn encode(&self) -> String {
        let mut text = self.at.0.to_string();
        for id in &self.ids {
            let _ = write!(text, ",{}:{id}", id.len());
        }
        text
    }

    /// Reads a cursor of `ids` ids.
    ///
    /// # Errors
    /// `Invalid` if `text` is not one.
    pub fn decode(text: &str, ids: usize) -> Result<Self, Error> {
        Self::parse(text)
            .filter(|cursor| cursor.ids.len() == ids)
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Invalid,
                    format!("`{text}` is not a cursor of this list; use the one that the page before gave, or none"),
                )
            })
    }

    fn parse(text: &str) -> Option<Self> {
        let (at, mut rest) = text.split_at(text.find(',').unwrap_or(text.len()));
        let at = UnixMillis(at.parse().ok()?);
        let mut ids = Vec::new();
        while !rest.is_empty() {
            let (length, after) = rest.strip_prefix(',')?.split_once(':')?;
            let (id, left) = after.split_at_checked(length.parse().ok()?)?;
            ids.push(id.to_owned());
            rest = left;
        }
        Some(Self { at, ids })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_as_it_was_written() {
        for ids in [
            vec![],
            vec!["a,1:b".to_owned()],
            vec!["ü".into(), String::new()],
        ] {
            let cursor = Cursor {
                at: UnixMillis(7),
                ids,
            };
            let read = Cursor::decode(&cursor.encode(), cursor.ids.len()).unwrap();
            assert_eq!(read, cursor);
        }
    }

    #[test]
    fn a_text_that_is_no_cursor_is_invalid() {
        for text in ["", "x", "1", "1,", "1,9:a", "1,1:ü", "1,1:a,", "1,1:a,1:b"] {
            let error = Cursor::decode(text, 1).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{text}");
        }
    }
}
