//! Tidy: reads the repository and fails on what reviews should not have to look for.
//!
//! Forbidden arrows between crates, missing headers, over-long or dead files, a map that names what
//! is not there, decisions that no index lists, notes without an issue, silenced lints. What the
//! compiler, clippy or cargo-deny can say is left to them.
//!
//! The rule it keeps: a rule is one file here, a pure function from the repository to findings,
//! beside a table that proves on made-up input that it bites. A finding names file and line.

mod adr;
mod arrows;
mod code_map;
mod dead_files;
mod headers;
mod lengths;
mod lints;
mod notes;
mod pure_bans;
mod repository;
mod silenced;
