//! How values stand in the tables: so that a person with any SQLite tool can read them.
//!
//! Bytes that are text are stored as text, others as a blob; numbers that SQLite cannot hold
//! stop at the largest that it can; heads, nonces and statuses are their text forms. Reading
//! accepts either form of bytes, and calls anything else corrupt.

use std::time::Duration;

use bytes::Bytes;
use rusqlite::{
    Row,
    types::{ToSqlOutput, Value, ValueRef},
};
use superstep_protocol::{Head, Nonce, UnixMillis};

use crate::failure::Failure;

/// A number as SQLite holds it.
pub(crate) fn int(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A time as SQLite holds it.
pub(crate) fn millis(at: UnixMillis) -> i64 {
    int(at.0)
}

/// Bytes as SQLite holds them. Text with a NUL goes in as a blob, because tools cut it there.
pub(crate) fn content(bytes: &[u8]) -> ToSqlOutput<'_> {
    match std::str::from_utf8(bytes) {
        Ok(text) if !bytes.contains(&0) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
        _ => ToSqlOutput::Borrowed(ValueRef::Blob(bytes)),
    }
}

/// The bytes of a column, text or blob.
pub(crate) fn bytes_at(row: &Row<'_>, column: usize) -> Result<Bytes, Failure> {
    match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok(Bytes::copy_from_slice(bytes)),
        other => Err(Failure::corrupt(format!(
            "a {} stands where a value was written; restore the file from a backup",
            other.data_type()
        ))),
    }
}

/// The number of a column.
pub(crate) fn u64_at(row: &Row<'_>, column: usize) -> Result<u64, Failure> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| {
        Failure::corrupt(format!(
            "{number} stands where a count was written; restore the file from a backup"
        ))
    })
}

/// The time of a column.
pub(crate) fn millis_at(row: &Row<'_>, column: usize) -> Result<UnixMillis, Failure> {
    Ok(UnixMillis(u64_at(row, column)?))
}

/// The head whose version and nonce stand in two columns from `column` on.
pub(crate) fn head_at(row: &Row<'_>, column: usize) -> Result<Head, Failure> {
    let nonce: String = row.get(column + 1)?;
    let nonce = u64::from_str_radix(&nonce, 16).map_err(|_| {
        Failure::corrupt(format!(
            "`{nonce}` stands where a nonce was written; restore the file from a backup"
        ))
    })?;
    Ok(Head {
        version: u64_at(row, column)?,
        nonce: Nonce(nonce),
    })
}

/// The time `length` after `now`.
pub(crate) fn later(now: UnixMillis, length: Duration) -> UnixMillis {
    now.plus_ms(u64::try_from(length.as_millis()).unwrap_or(u64::MAX))
}

/// Text that is stored in its own form, such as a head or a status.
pub(crate) fn parsed_at<T>(row: &Row<'_>, column: usize) -> Result<T, Failure>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let text: String = row.get(column)?;
    text.parse()
        .map_err(|error: T::Err| Failure::corrupt(error.to_string()))
}

/// A list of parameters made as a query is put together.
pub(crate) type Parameters = Vec<Value>;
