//! The contract, held against what is written down about it.
//!
//! `golden` reads every stored body back and writes it again; `schema` holds the golden files
//! against the JSON Schemas; `readme` holds the reference for people against the types. They
//! see only the crate's public face and the files in `proto/`.

mod golden;
mod readme;
mod schema;

use std::path::PathBuf;

use superstep_wire::{decode, encode};

/// Any body of these tests is allowed this much.
const BYTES_MAX: usize = 1 << 20;

/// Every body on the wire, by its name in the contract.
const BODIES: [&str; 9] = [
    "StartCommand",
    "ResumeCommand",
    "CancelCommand",
    "UpdateCommand",
    "RetryCommand",
    "Work",
    "Reply",
    "Event",
    "Output",
];

/// Reads a body of that name and writes it again.
fn read_and_write(name: &str, body: &[u8]) -> Result<Vec<u8>, decode::Error> {
    match name {
        "StartCommand" => decode::start(body, BYTES_MAX).map(|m| encode::body(&m)),
        "ResumeCommand" => decode::resume(body, BYTES_MAX).map(|m| encode::body(&m)),
        "CancelCommand" => decode::cancel(body, BYTES_MAX).map(|m| encode::body(&m)),
        "UpdateCommand" => decode::update(body, BYTES_MAX).map(|m| encode::body(&m)),
        "RetryCommand" => decode::retry(body, BYTES_MAX).map(|m| encode::body(&m)),
        "Work" => decode::work(body).map(|m| encode::body(&m)),
        "Reply" => decode::reply(body).map(|m| encode::body(&m)),
        "Event" => decode::event(body).map(|m| encode::body(&m)),
        "Output" => decode::output(body).map(|m| encode::body(&m)),
        other => panic!("{other} is no body of the contract"),
    }
}

/// The folder of the contract.
fn proto() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto")
}

/// Every golden file: the body's name, the case, the text.
fn golden_files() -> Vec<(String, String, String)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden/v1");
    let mut files: Vec<(String, String, String)> = folder
        .read_dir()
        .expect("the golden files are there")
        .map(|entry| {
            let path = entry.expect("the folder can be listed").path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let (name, case) = stem
                .and_then(|stem| stem.split_once('.'))
                .expect("a golden file is named <body>.<case>.json");
            let text = std::fs::read_to_string(&path).expect("a golden file can be read");
            (name.to_owned(), case.to_owned(), text)
        })
        .collect();
    files.sort();
    files
}
