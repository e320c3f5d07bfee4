//! Bytes: what crosses a process and what is stored.
//!
//! The messages of the contract in `proto/` (its Rust types are [`generated`], re-exported
//! here), how a body is read and refused ([`decode`]) and written ([`encode`]), the headers of
//! an event ([`headers`]), and times as text ([`time`]). It knows no server and decides
//! nothing: what a message means is `superstep-protocol`'s, where it goes the queue's.
//!
//! The rule it keeps: what an older version wrote, a newer one reads; a golden file per
//! version says so.

pub mod decode;
pub mod encode;
mod field;
pub mod generated;
pub mod headers;
pub mod record;
pub mod time;

pub use generated::*;
