//! Takes a program out of a Debian package without installing it.
//!
//! The package and those of its dependencies that the system lacks are downloaded and unpacked
//! under the target folder. That needs no root, starts no service and leaves the system as it was.
//! Whether the program then works is checked by the caller.
//!
//! The rule it keeps: the system's own package lists are used where they are there and current;
//! otherwise private ones are fetched beside the packages.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::workspace::{on_path, output_of};

/// Gets `program` from the package of the same name, unpacked below `dir`, as a file to run.
pub(crate) fn program(program: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    let root = unpack(program, dir)?;
    wrapper(program, dir, &root)
}

/// Unpacks a package, and what it needs beyond what is installed, and returns where.
pub(crate) fn unpack(package: &str, dir: &Path) -> anyhow::Result<PathBuf> {
    for tool in ["apt-get", "dpkg"] {
        ensure!(
            on_path(tool).is_some(),
            "there is no {tool}: this is not a Debian-like system"
        );
    }
    if dir.exists() {
        std::fs::remove_dir_all(dir)?;
    }
    let packages = dir.join("packages");
    std::fs::create_dir_all(&packages)?;

    if let Err(first) = download(package, &packages, &[]) {
        let private = private_lists(&dir.join("apt"))?;
        download(package, &packages, &private).with_context(|| {
            format!("with the system's package lists: {first:#}; with fresh ones")
        })?;
    }
    let root = dir.join("root");
    extract(&packages, &root)?;
    // What was unpacked is kept; the archives and lists it came from are not.
    std::fs::remove_dir_all(&packages)?;
    let _ = std::fs::remove_dir_all(dir.join("apt"));
    Ok(root)
}

/// Unpacks exactly these packages, whether they are installed or not, and returns where.
pub(crate) fn root_of(names: &[&str], dir: &Path) -> anyhow::Result<PathBuf> {
    for tool in ["apt-get", "dpkg"] {
        ensure!(
            on_path(tool).is_some(),
            "there is no {tool}: this is not a Debian-like system"
        );
    }
    let packages = dir.join("packages");
    std::fs::create_dir_all(&packages)?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    if fetch(&names, &packages, &[]).is_err() {
        let private = private_lists(&dir.join("apt"))?;
        fetch(&names, &packages, &private)?;
    }
    let root = dir.join("root");
    extract(&packages, &root)?;
    Ok(root)
}

/// Downloads the package and what it needs beyond what is installed.
fn download(package: &str, into: &Path, options: &[String]) -> anyhow::Result<()> {
    let plan = output_of(
        Command::new("apt-get")
            .args(options)
            .args([
                "--simulate",
                "--yes",
                "--no-install-recommends",
                "install",
                package,
            ])
            .env("LC_ALL", "C"),
    )?;
    let needed = new_packages(&plan);
    ensure!(
        !needed.is_empty(),
        "apt-get would install nothing for {package}"
    );
    fetch(&needed, into, options)
}

/// Downloads exactly these packages.
fn fetch(names: &[String], into: &Path, options: &[String]) -> anyhow::Result<()> {
    output_of(
        Command::new("apt-get")
            .args(options)
            .args(["-o", "APT::Sandbox::User=root", "download"])
            .args(names)
            .current_dir(into),
    )?;
    Ok(())
}

/// Unpacks all packages of a folder over each other.
fn extract(packages: &Path, root: &Path) -> anyhow::Result<()> {
    for file in std::fs::read_dir(packages)? {
        let file = file?.path();
        if file.extension().is_some_and(|extension| extension == "deb") {
            output_of(Command::new("dpkg").arg("-x").arg(&file).arg(root))?;
        }
    }
    Ok(())
}

/// The packages that a simulated installation would add; those that it would only upgrade work as
/// they are, and a newer libc beside the system's loader would not.
fn new_packages(plan: &str) -> Vec<String> {
    plan.lines()
        .filter_map(|line| line.strip_prefix("Inst "))
        .filter_map(|line| line.split_once(' '))
        .filter(|(_, rest)| !rest.starts_with('['))
        .map(|(name, _)| name.to_owned())
        .collect()
}

/// Fetches package lists of our own, and returns the options that make apt-get use them.
fn private_lists(dir: &Path) -> anyhow::Result<Vec<String>> {
    let state = dir.join("state");
    let cache = dir.join("cache");
    std::fs::create_dir_all(state.join("lists/partial"))?;
    std::fs::create_dir_all(cache.join("archives/partial"))?;
    let mut options = Vec::new();
    for setting in [
        format!("Dir::State={}", state.display()),
        format!("Dir::State::lists={}", state.join("lists").display()),
        "Dir::State::status=/var/lib/dpkg/status".to_owned(),
        format!("Dir::Cache={}", cache.display()),
        "APT::Sandbox::User=root".to_owned(),
    ] {
        options.extend(["-o".to_owned(), setting]);
    }
    // A foreign source that cannot be reached fails the update and hurts nothing: the download
    // that follows tells whether what we need is there.
    let _ = output_of(Command::new("apt-get").args(&options).arg("update"));
    Ok(options)
}

/// A script that runs the unpacked program with the unpacked libraries.
fn wrapper(program: &str, dir: &Path, root: &Path) -> anyhow::Result<PathBuf> {
    let binary = ["usr/bin", "usr/sbin", "bin", "sbin"]
        .map(|folder| root.join(folder).join(program))
        .into_iter()
        .find(|path| path.is_file());
    let Some(binary) = binary else {
        bail!("the packages for {program} hold no such program")
    };
    let mut libraries = Vec::new();
    library_folders(root, &mut libraries)?;

    let mut script = String::from("#!/bin/sh\n");
    if !libraries.is_empty() {
        let folders: Vec<String> = libraries
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        writeln!(script, "export LD_LIBRARY_PATH='{}'", folders.join(":"))?;
    }
    writeln!(script, "exec '{}' \"$@\"", binary.display())?;
    let path = dir.join(program);
    std::fs::write(&path, script)?;
    Ok(path)
}

/// Collects the folders below `dir` that hold shared libraries.
pub(crate) fn library_folders(dir: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() && !path.is_symlink() {
            library_folders(&path, found)?;
        } else if path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().contains(".so."))
            && !found.iter().any(|folder| folder == dir)
        {
            found.push(dir.to_owned());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_packages_that_are_new_are_downloaded() {
        let plan = "Reading package lists...\n\
            Inst libc6 [2.36-9] (2.36-10 Debian:12/stable [amd64])\n\
            Inst libjemalloc2 (5.3.0-1 Debian:12/stable [amd64])\n\
            Inst redis-server (5:7.0.15-1 Debian:12/stable [amd64])\n\
            Conf redis-server (5:7.0.15-1 Debian:12/stable [amd64])\n";
        assert_eq!(new_packages(plan), ["libjemalloc2", "redis-server"]);
    }
}
