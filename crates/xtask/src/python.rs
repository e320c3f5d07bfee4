//! Private Pythons with pinned packages, one for each purpose, under the target folder.
//!
//! A Python of the machine makes a virtual environment, and pip, its own or a borrowed one, fills
//! it with wheels. What is there and was made from the same pins by the same Python is used again.
//! What runs in it is left to the caller.
//!
//! The rule it keeps: the note of what the environment holds is written last, so that a half-made
//! one is made anew.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::wheel;
use crate::workspace::{Workspace, on_path, output_of};

/// What LangGraph needs, and the Helm library too.
const OLDEST: (u32, u32) = (3, 10);

/// Where a Python is looked for: the usual name first, then the newest that LangGraph knows.
const NAMES: [&str; 6] = [
    "python3",
    "python3.13",
    "python3.12",
    "python3.11",
    "python3.10",
    "python",
];

/// What a private Python is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose {
    /// Its name in messages, and that of its folder.
    pub(crate) name: &'static str,
    /// The file of pinned packages, from the root of the workspace.
    pub(crate) pins: &'static str,
}

/// The private Python.
#[derive(Debug)]
pub(crate) struct Python {
    /// The program to run scripts with.
    pub(crate) program: PathBuf,
    /// Its version, such as `3.12.1`.
    pub(crate) version: String,
}

/// Makes the private Python, or finds the one that was made before.
pub(crate) fn bring_up(
    workspace: &Workspace,
    purpose: Purpose,
    chosen: Option<&Path>,
) -> anyhow::Result<Python> {
    let Purpose { name, pins } = purpose;
    let pins = workspace.root.join(pins);
    let pinned = std::fs::read_to_string(&pins)
        .with_context(|| format!("cannot read the pins at {}", pins.display()))?;
    let (base, version) = find(purpose, chosen)?;

    let dir = workspace.target.join(name);
    std::fs::create_dir_all(&dir)?;
    // Two runs at once must not install over each other.
    let lock = File::create(dir.join(".lock"))?;
    lock.lock()
        .with_context(|| format!("cannot lock the folder of the Python for {name}"))?;
    let venv = dir.join("venv");
    let (program, note) = (venv.join("bin/python"), venv.join("made-from"));
    let made_from = format!("python {version}\n{pinned}");
    let there = std::fs::read_to_string(&note).is_ok_and(|noted| noted == made_from);
    if !there || answer(&program).is_err() {
        eprintln!(
            "making the Python {version} for {name}, with {}",
            list(&pinned)
        );
        if venv.exists() {
            std::fs::remove_dir_all(&venv)?;
        }
        install(workspace, purpose, &base, &venv)?;
        std::fs::write(&note, made_from)?;
    }
    eprintln!("python {version}: {}", list(&pinned));
    Ok(Python { program, version })
}

/// The chosen Python, else the first that is new enough, with its version.
fn find(purpose: Purpose, chosen: Option<&Path>) -> anyhow::Result<(PathBuf, String)> {
    let candidates: Vec<PathBuf> = match chosen {
        Some(path) => vec![path.to_owned()],
        None => NAMES.into_iter().filter_map(on_path).collect(),
    };
    let mut refused = Vec::new();
    for path in candidates {
        match answer(&path).and_then(|version| check(&version).map(|()| version)) {
            Ok(version) => return Ok((path, version)),
            Err(why) => refused.push(format!("{}: {why:#}", path.display())),
        }
    }
    if refused.is_empty() {
        refused.push("none is on the PATH".to_owned());
    }
    bail!(
        "{} needs a Python {}.{} or newer ({}): install one (Debian: `apt-get install python3`), \
         or name it with --python",
        purpose.name,
        OLDEST.0,
        OLDEST.1,
        refused.join("; ")
    )
}

/// The version that a Python gives of itself; some names on the PATH only look like one.
fn answer(program: &Path) -> anyhow::Result<String> {
    let ask = "import platform; print(platform.python_version())";
    let version = output_of(Command::new(program).args(["-I", "-c", ask]))?;
    Ok(version.trim().to_owned())
}

/// Refuses a Python that is too old.
fn check(version: &str) -> anyhow::Result<()> {
    let mut parts = version.split('.').map(str::parse::<u32>);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        bail!("says that its version is {version:?}");
    };
    ensure!((major, minor) >= OLDEST, "is {version}, which is too old");
    Ok(())
}

/// Makes a virtual environment and puts the pinned wheels into it.
fn install(
    workspace: &Workspace,
    purpose: Purpose,
    base: &Path,
    venv: &Path,
) -> anyhow::Result<()> {
    let make = |options: &[&str]| {
        let mut command = Command::new(base);
        output_of(command.args(["-I", "-m", "venv"]).args(options).arg(venv))
    };
    let mut pip = if make(&[]).is_ok() {
        let mut pip = Command::new(venv.join("bin/python"));
        pip.args(["-m", "pip"]);
        pip
    } else {
        // Debian splits pip off its Python; then one from elsewhere installs into the new one.
        make(&["--clear", "--without-pip"]).context("cannot make a virtual environment")?;
        let mut pip = wheel::pip(workspace, base)?;
        pip.arg("--python").arg(venv.join("bin/python"));
        pip
    };
    output_of(
        pip.args(["install", "--quiet", "--disable-pip-version-check"])
            .args(["--only-binary=:all:", "--timeout", "30", "--retries", "1"])
            .arg("--requirement")
            .arg(workspace.root.join(purpose.pins)),
    )
    .with_context(|| {
        format!(
            "cannot install the packages of {}: check that pip reaches PyPI, or name a mirror of \
             it in PIP_INDEX_URL",
            purpose.name
        )
    })?;
    Ok(())
}

/// The pinned packages on one line.
fn list(pinned: &str) -> String {
    pinned.split_whitespace().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_python_that_is_too_old_is_refused() {
        for (version, fits) in [
            ("3.10.0", true),
            ("3.14.0rc1", true),
            ("4.0.0", true),
            ("3.9.18", false),
            ("2.7.18", false),
            ("", false),
            ("pyenv: not found", false),
        ] {
            assert_eq!(check(version).is_ok(), fits, "{version:?}");
        }
    }

    #[test]
    fn a_missing_python_is_named_with_advice() {
        let missing = tempfile::tempdir()
            .expect("a folder")
            .path()
            .join("python3");
        let purpose = Purpose {
            name: "tests",
            pins: "pins.txt",
        };
        let error = find(purpose, Some(&missing)).expect_err("nothing is there");
        let text = format!("{error:#}");
        assert!(text.contains(&missing.display().to_string()), "{text}");
        assert!(text.contains("--python"), "{text}");
    }
}
