//! Finding what the workspace has built: its root, its target folder, its binaries.
//!
//! Cluster tests run workers as processes of their own and need the real binary. `cargo xtask test`
//! builds all of them first and names their folder; a plain `cargo test` builds the one asked for.
//!
//! The rule it keeps: a test never runs a binary older than the sources it was started from.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context as _, ensure};

/// Binaries found so far in this process, by their place below the folder of binaries.
static FOUND: Mutex<BTreeMap<PathBuf, PathBuf>> = Mutex::new(BTreeMap::new());

/// The folder of the root `Cargo.toml`.
///
/// # Panics
///
/// Never: this crate lives one folder below it.
#[must_use]
pub fn workspace_root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("this crate is one folder below the root")
}

/// The target folder that this workspace builds into.
#[must_use]
pub fn target_dir() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(dir) if !dir.is_empty() => workspace_root().join(dir),
        _ => workspace_root().join("target"),
    }
}

/// The path of the workspace's binary `name`, such as `superstep`; builds it when nobody has.
///
/// # Errors
///
/// When the build fails or makes no binary of that name.
///
/// # Panics
///
/// Never: the map of found binaries is not poisoned, as nothing panics while it is held.
pub fn worker_binary(name: &str) -> anyhow::Result<PathBuf> {
    built("--bin", name, "")
}

/// The path of the example `name`, a program that tests run; builds it when nobody has.
///
/// # Errors
///
/// When the build fails or makes no example of that name.
///
/// # Panics
///
/// Never: the map of found binaries is not poisoned, as nothing panics while it is held.
pub fn example_binary(name: &str) -> anyhow::Result<PathBuf> {
    built("--example", name, "examples")
}

/// Finds the target of this kind in `folder` below the folder of binaries, or builds it.
fn built(kind: &str, name: &str, folder: &str) -> anyhow::Result<PathBuf> {
    let mut found = FOUND.lock().expect("nothing panics while the map is held");
    let file = Path::new(folder).join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    if let Some(path) = found.get(&file) {
        return Ok(path.clone());
    }
    let path = match std::env::var_os("SUPERSTEP_TEST_BIN_DIR") {
        Some(dir) if Path::new(&dir).join(&file).is_file() => Path::new(&dir).join(&file),
        _ => build(kind, name, &file)?,
    };
    found.insert(file, path.clone());
    Ok(path)
}

/// Builds the target with the cargo that built this test, into the same profile's folder.
fn build(kind: &str, name: &str, file: &Path) -> anyhow::Result<PathBuf> {
    let status = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", kind, name])
        .current_dir(workspace_root())
        .status()
        .with_context(|| format!("cannot run cargo to build {name}"))?;
    ensure!(status.success(), "building {name} failed: {status}");
    let path = target_dir().join("debug").join(file);
    ensure!(path.is_file(), "cargo built no {}", path.display());
    Ok(path)
}
