//! Makes everything that follows from `proto/`: Rust types, JSON Schemas, the AsyncAPI
//! document, and the lock that keeps the contract from breaking.
//!
//! The `.proto` files are compiled in process, so nothing has to be installed. JSON is the
//! wire, so the Rust types are plain serde structs rather than protobuf messages. What is
//! made depends on the `.proto` files alone, not on the crate it is made for: a broken
//! `superstep-wire` can always be made again. It leaves prose about the contract to
//! `proto/README.md`.
//!
//! The rule it keeps: `Mode::Check` writes nothing, `Mode::Write` never drops a promise.

mod asyncapi;
mod lock;
mod model;
mod rust;
mod schema;
mod tree;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use model::Model;

/// Folders that hold nothing but what is made here; anything else in them is stale.
const OWNED: [&str; 2] = ["proto/schemas", "crates/superstep-wire/src/generated"];

/// What to do with what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Write it into the repository at `root`.
    Write,
    /// Compare it with what is there and fail if it differs.
    Check,
}

/// Files by their path in the repository.
type Files = BTreeMap<PathBuf, String>;

/// Makes all files from `root`'s `proto/` and writes or checks them.
///
/// # Errors
/// If a `.proto` file does not compile or uses what the wire has no form for; if a field or
/// word that was promised is gone or changed; with `Mode::Check`, if a file is not up to date.
pub(crate) fn run(root: &Path, mode: Mode) -> anyhow::Result<()> {
    let model = Model::compile(&root.join("proto"))?;
    let locked = read_if_there(&root.join(lock::PATH))?.unwrap_or_default();
    let mut files = Files::new();
    files.insert(lock::PATH.into(), lock::advance(&locked, &model)?);
    files.insert(asyncapi::PATH.into(), asyncapi::document(&model)?);
    files.extend(schema::files(&model));
    files.extend(rust::files(&model)?);
    match mode {
        Mode::Write => write(root, &files),
        Mode::Check => check(root, &files),
    }
}

fn write(root: &Path, files: &Files) -> anyhow::Result<()> {
    for (path, text) in files {
        let to = root.join(path);
        // An untouched file keeps its time, so that cargo does not build its crate again.
        if read_if_there(&to)?.as_ref() != Some(text) {
            let folder = to.parent().expect("every file is in a folder");
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
            fs::write(&to, text).with_context(|| format!("cannot write {}", to.display()))?;
        }
    }
    for path in stale(root, files)? {
        let from = root.join(path);
        fs::remove_file(&from).with_context(|| format!("cannot remove {}", from.display()))?;
    }
    Ok(())
}

fn check(root: &Path, files: &Files) -> anyhow::Result<()> {
    let mut wrong = Vec::new();
    for (path, text) in files {
        match read_if_there(&root.join(path))? {
            Some(there) if there == *text => {}
            Some(_) => wrong.push(format!("{} differs", path.display())),
            None => wrong.push(format!("{} is missing", path.display())),
        }
    }
    for path in stale(root, files)? {
        wrong.push(format!("{} is not made any more", path.display()));
    }
    if wrong.is_empty() {
        return Ok(());
    }
    bail!(
        "what is made from proto/ is not up to date ({}); run `cargo xtask fix`",
        wrong.join(", ")
    )
}

/// Files in the owned folders that are not among `files`.
fn stale(root: &Path, files: &Files) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for folder in OWNED {
        let entries = match fs::read_dir(root.join(folder)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error).with_context(|| format!("cannot list {folder}")),
        };
        for entry in entries {
            let entry = entry.with_context(|| format!("cannot list {folder}"))?;
            let path = Path::new(folder).join(entry.file_name());
            if !files.contains_key(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_if_there(path: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", path.display())),
    }
}

#[cfg(test)]
mod tests;
