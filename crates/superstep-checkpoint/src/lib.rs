//! The thread log: the port, the in-memory log, and the contract suite that every log passes.
//!
//! The port knows no vendor and no rule of the protocol. An implementation is right if it
//! passes [`contract`]; the doc of each method says what is atomic and what a retry does.

pub mod contract;
mod error;
mod inspect;
mod log;
pub mod memory;
mod page;

use std::time::Duration;

pub use error::{Error, ErrorKind};
pub use inspect::{Inspect, Kept, Reindex, Stray, StrayKind};
pub use log::{
    Append, Appended, Claim, Claimed, Due, Finding, IndexChange, InterruptQuery, InterruptRow,
    Loaded, Page, PutProgress, PutResult, Registration, StoredRecord, ThreadLog, ThreadQuery,
    ThreadRow, Trimmed, Watched,
};
pub use memory::MemoryLog;
pub use page::{Cursor, PAGE_ROWS_MAX, page_rows};

/// How long outcomes of commands are remembered at least: the bounded memory of commands.
pub const OUTCOME_TTL: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a blob without a record is kept.
pub const BLOB_TTL: Duration = Duration::from_secs(60 * 60);
/// How long a tombstone stands after a delete.
pub const TOMBSTONE_TTL: Duration = Duration::from_secs(60 * 60);
/// How long the results of an ended round are kept.
pub const ENDED_ROUND_TTL: Duration = Duration::from_secs(10 * 60);
/// The longest lease of a claim: more is cut to it.
pub const CLAIM_LEASE_MAX: Duration = Duration::from_secs(60);
/// How long a registration counts as live without renewal.
pub const REGISTRATION_TTL: Duration = Duration::from_secs(30);
