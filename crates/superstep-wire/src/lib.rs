//! Bytes: what crosses a process and what is stored.
//!
//! The messages of the contract in `proto/` (its Rust types are [`generated`], re-exported
//! here), how a body is read and refused ([`decode`]) and written ([`encode`]), what the
//! protocol says in the contract's words ([`outward`]) and what a command says in the protocol's
//! ([`inward`]), the headers of an event ([`headers`]),
//! times as text ([`time`]), and the stored form of records ([`record`]). It knows no server
//! and decides nothing: what a message means is `superstep-protocol`'s, where it goes the
//! queue's.
//!
//! The rule it keeps: what an older version wrote, a newer one reads; a golden file per
//! version says so.

pub mod decode;
pub mod encode;
mod field;
pub mod generated;
pub mod headers;
pub mod inward;
pub mod outward;
pub mod record;
pub mod time;

pub use generated::*;
