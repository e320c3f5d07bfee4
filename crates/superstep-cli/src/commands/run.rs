//! `worker` and `dev`: a worker in this process, until it is asked to end.
//!
//! The first signal drains: no more pulls, what is held is finished or handed back. The second
//! one ends the process at once; what it held is handed over after `ack_wait`. How work is done
//! is left to [`superstep_worker`].

use std::{path::PathBuf, sync::Arc};

use superstep::connect::{Connected, EmbeddedAccess, connect_cluster, open_embedded};
use superstep_worker::{Drained, SystemWorld, Worker};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    app::App,
    exit::{Exit, Failure},
    health::Endpoint,
    output::{BOLD, DIM, Output},
    reach::Session,
    settings::Place,
};

/// The folder that `dev` works on unless told.
const FOLDER: &str = ".superstep";

/// A worker of a cluster.
pub(crate) async fn worker(app: &App, session: &Session) -> Result<Exit, Failure> {
    if let Place::Folder(folder) = &session.settings.place {
        return Err(Failure::usage(format!(
            "`worker` works for servers, not on the folder {}",
            folder.display()
        ))
        .with_hint("superstep dev works on a folder"));
    }
    let endpoint = endpoint(session).await?;
    let opened = Box::pin(connect_cluster(&session.settings.connect)).await;
    let connected = opened.map_err(|error| session.failure(&error))?;
    work(app, session, connected, &endpoint).await
}

/// A worker with an embedded store.
pub(crate) async fn dev(app: &App, session: &Session) -> Result<Exit, Failure> {
    let folder = match &session.settings.place {
        Place::Folder(folder) => folder.clone(),
        Place::Cluster { .. } => PathBuf::from(FOLDER),
    };
    let endpoint = endpoint(session).await?;
    let access = EmbeddedAccess::Worker;
    let opened = Box::pin(open_embedded(&folder, access, &session.settings.connect)).await;
    let connected = opened.map_err(|error| session.failure(&error))?;
    tell_how(app, session.output, &folder.display().to_string())?;
    work(app, session, connected, &endpoint).await
}

/// The health endpoint; it answers before there is a worker, so that a start that waits for a
/// server can be seen.
async fn endpoint(session: &Session) -> Result<Endpoint, Failure> {
    let endpoint = Endpoint::new(&session.settings.worker);
    endpoint.listen(session.settings.health_addr).await?;
    Ok(endpoint)
}

fn tell_how(app: &App, output: Output, folder: &str) -> Result<(), Failure> {
    let example = app.examples().first();
    let graph = example.map(|example| example.graph.clone());
    let first = || app.graphs().iter().next().map(|g| g.id().name.to_string());
    let graph = graph.or_else(first).unwrap_or_else(|| "GRAPH".to_owned());
    let input = example.map_or_else(|| "{}".to_owned(), |example| example.input.to_string());
    output.line(format!(
        "{BOLD}superstep dev{BOLD:#}  threads live in {folder}, and stay there"
    ))?;
    output.line("from another terminal:")?;
    for line in [
        format!("start {graph} '{input}' --wait"),
        "interrupts list".to_owned(),
        "resume THREAD '{\"approved\": true}' --wait".to_owned(),
        "events".to_owned(),
    ] {
        output.line(format!("  superstep --data {folder} {line}"))?;
    }
    output.line(format!("{DIM}Ctrl-C ends it{DIM:#}"))
}

async fn work(
    app: &App,
    session: &Session,
    connected: Connected,
    endpoint: &Endpoint,
) -> Result<Exit, Failure> {
    let graphs: Vec<String> = app.graphs().iter().map(|g| g.id().to_string()).collect();
    if graphs.is_empty() {
        return Err(Failure::usage("this program holds no graph; register one"));
    }
    info!(
        namespace = connected.subjects.namespace(),
        graphs = graphs.join(", "),
        concurrency = session.settings.worker.concurrency,
        "worker starts"
    );
    let worker = Worker::new(
        app.graphs().clone(),
        Arc::clone(&connected.log),
        Arc::clone(&connected.queue),
        connected.subjects.clone(),
        Arc::new(SystemWorld),
        session.settings.worker.clone(),
    )
    .with_health(endpoint.health());
    let worker = match &session.telemetry {
        Some(telemetry) => worker.with_tracer(telemetry.tracer()),
        None => worker,
    };
    endpoint.counts_in(&connected.log);
    let shutdown = CancellationToken::new();
    let mut running = tokio::spawn(worker.run(shutdown.clone()));
    let mut signals = Signals::listen()?;
    let ended = tokio::select! {
        ended = &mut running => ended,
        name = signals.next() => {
            info!(signal = name, "worker drains; once more ends it at once");
            shutdown.cancel();
            tokio::select! {
                ended = &mut running => ended,
                name = signals.next() => {
                    warn!(signal = name, "worker ends at once");
                    return Ok(Exit::Stopped);
                }
            }
        }
    };
    let drained = ended
        .map_err(|error| Failure::failed(format!("the worker did not end well: {error}")))??;
    if let Err(error) = connected.flush().await {
        warn!(%error, "the last acks may be lost; their messages come again");
    }
    if let Some(telemetry) = session.telemetry.clone() {
        telemetry.end().await;
    }
    match drained {
        Drained::Clean => Ok(Exit::Done),
        Drained::HandedBack { .. } => Ok(Exit::HandedBack),
    }
}

/// The signals that ask a process to end.
pub(crate) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    #[cfg_attr(
        not(unix),
        expect(clippy::unnecessary_wraps, reason = "listening can fail on Unix")
    )]
    pub(crate) fn listen() -> Result<Self, Failure> {
        Ok(Self {
            #[cfg(unix)]
            terminate: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
                .map_err(|error| Failure::failed(format!("cannot listen for signals: {error}")))?,
        })
    }

    pub(crate) async fn next(&mut self) -> &'static str {
        #[cfg(unix)]
        tokio::select! {
            _ = tokio::signal::ctrl_c() => "SIGINT",
            _ = self.terminate.recv() => "SIGTERM",
        }
        #[cfg(not(unix))]
        {
            let _ = tokio::signal::ctrl_c().await;
            "Ctrl-C"
        }
    }
}
