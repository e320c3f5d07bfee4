//! The paths that manifests ask are those that a worker answers.
//!
//! A worker is started with an embedded store, which answers the same probes as one of a cluster,
//! and asked for each path, and by each health command of the compose file. What a probe means is
//! left to the worker's own tests.
//!
//! The rule it keeps: the worker is ended before this returns, whatever came of it.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::rules;

/// How long the worker may take to begin.
const BEGINS_WITHIN: Duration = Duration::from_secs(30);
/// How long an answer may take.
const ANSWERS_WITHIN: Duration = Duration::from_secs(5);
/// What the worker logs before its address.
const LISTENS: &str = "health endpoint listens address=";

/// What is asked: a path over HTTP, or a subcommand.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asked {
    /// With GET.
    Path(String),
    /// The arguments behind `superstep`.
    Command(Vec<String>),
}

/// What the workers of a render are asked.
pub(super) fn of_objects(objects: &[Value]) -> BTreeSet<Asked> {
    let mut asked = BTreeSet::new();
    for object in objects {
        let annotations = &object["spec"]["template"]["metadata"]["annotations"];
        if let Some(path) = annotations["prometheus.io/path"].as_str() {
            asked.insert(Asked::Path(path.to_owned()));
        }
    }
    for pod in rules::pods(objects) {
        let Some(container) = rules::worker(&pod) else {
            continue;
        };
        for probe in ["startupProbe", "readinessProbe", "livenessProbe"] {
            if let Some(path) = container[probe]["httpGet"]["path"].as_str() {
                asked.insert(Asked::Path(path.to_owned()));
            }
        }
    }
    asked
}

/// What the compose file asks its worker.
pub(super) fn of_compose(compose: &Value) -> anyhow::Result<BTreeSet<Asked>> {
    let test = &compose["services"]["worker"]["healthcheck"]["test"];
    let words: Vec<&str> = rules::list(test).iter().filter_map(Value::as_str).collect();
    let ["CMD", "superstep", arguments @ ..] = words.as_slice() else {
        bail!("the worker of compose.yaml has the health check {test}, which is none of superstep");
    };
    let arguments = arguments.iter().map(|&word| word.to_owned()).collect();
    Ok(BTreeSet::from([Asked::Command(arguments)]))
}

/// Starts a worker and asks it all of that.
pub(super) fn ask(binary: &Path, asked: &BTreeSet<Asked>) -> anyhow::Result<()> {
    ensure!(asked.len() > 4, "too little is asked: {asked:?}");
    let data = binary.with_file_name("deploy-check").join("data");
    let mut child = Command::new(binary)
        .args(["dev", "--health-addr", "127.0.0.1:0", "--data"])
        .arg(&data)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}", binary.display()))?;
    let outcome = ask_all(binary, &mut child, asked);
    let _ = child.kill();
    let _ = child.wait();
    let _ = std::fs::remove_dir_all(&data);
    outcome
}

fn ask_all(binary: &Path, child: &mut Child, asked: &BTreeSet<Asked>) -> anyhow::Result<()> {
    let log = child.stderr.take().expect("the log is piped");
    let (told, hears) = mpsc::channel();
    std::thread::spawn(move || {
        // Read to its end, so that the worker never waits for somebody to read.
        for line in BufReader::new(log).lines().map_while(Result::ok) {
            if let Some((_, address)) = line.split_once(LISTENS) {
                let _ = told.send(address.trim().to_owned());
            }
        }
    });
    let address = hears
        .recv_timeout(BEGINS_WITHIN)
        .context("the worker did not say where its health endpoint listens")?;
    let deadline = Instant::now() + BEGINS_WITHIN;
    while get(&address, "/startup")? != 200 {
        ensure!(Instant::now() < deadline, "the worker does not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    for asked in asked {
        match asked {
            Asked::Path(path) => {
                let status = get(&address, path)?;
                ensure!(status == 200, "the worker answers {path} with {status}");
            }
            Asked::Command(arguments) => {
                let status = Command::new(binary)
                    .args(arguments)
                    .env("SUPERSTEP_HEALTH_ADDR", &address)
                    .stdout(Stdio::null())
                    .status()?;
                ensure!(status.success(), "{arguments:?} ended with {status}");
            }
        }
    }
    Ok(())
}

/// The status of an answer.
fn get(address: &str, path: &str) -> anyhow::Result<u16> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(ANSWERS_WITHIN))?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).context("no answer in HTTP")?;
    Ok(status.parse()?)
}
