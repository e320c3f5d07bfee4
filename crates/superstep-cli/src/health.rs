//! The health endpoint of a worker: three probes and the metrics, over plain HTTP.
//!
//! It answers from the same runtime that nodes run on, so a worker whose threads are all blocked
//! does not answer, which is the truth. What a probe says is left to
//! [`superstep_worker::verdict`], what is measured to `metrics`.
//!
//! The rule it keeps: it tells states and numbers, never what threads hold, and a client of it
//! can neither change anything nor keep more than a bounded part of the process busy.

mod metrics;

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, OnceLock},
    time::Duration,
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use superstep_checkpoint::ThreadLog;
use superstep_worker::{
    Health, HealthSettings, Probe, Snapshot, Stage, Verdict, WorkerSettings, verdict,
};
use tokio::{net::TcpListener, sync::Semaphore, time::Instant};
use tracing::{debug, info};

use crate::exit::Failure;
use metrics::Metrics;

/// How many connections are served at once; further ones wait.
const CONNECTIONS_MAX: usize = 32;
/// How long a client may take for its request, and its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The pause after a connection could not be accepted: file handles may be short.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// What there is.
const PATHS: &str = "/startup, /ready, /live, /healthz, /metrics";

/// The health of this process and what is told of it.
#[derive(Clone)]
pub(crate) struct Endpoint {
    shared: Arc<Shared>,
}

struct Shared {
    health: Health,
    bounds: HealthSettings,
    metrics: Arc<Metrics>,
    log: OnceLock<Arc<dyn ThreadLog>>,
}

impl Endpoint {
    /// An endpoint of a worker with these settings, which has not begun.
    pub(crate) fn new(settings: &WorkerSettings) -> Self {
        let metrics = Arc::new(Metrics::new());
        Self {
            shared: Arc::new(Shared {
                health: Health::new(Some(Arc::clone(&metrics) as _)),
                bounds: HealthSettings::from(settings),
                metrics,
                log: OnceLock::new(),
            }),
        }
    }

    /// What the worker touches.
    pub(crate) fn health(&self) -> Health {
        self.shared.health.clone()
    }

    /// The store is reached: what is counted there is told from now on.
    pub(crate) fn counts_in(&self, log: &Arc<dyn ThreadLog>) {
        // A second store would be a second worker; the first one stays.
        let _ = self.shared.log.set(Arc::clone(log));
    }

    /// Answers at `address`, if one is given, for as long as the process lives.
    pub(crate) async fn listen(&self, address: Option<SocketAddr>) -> Result<(), Failure> {
        let Some(address) = address else {
            return Ok(());
        };
        let cannot = |error| {
            Failure::usage(format!(
                "health_addr is `{address}`, where nothing can listen: {error}; name a free \
                 address, or leave it out"
            ))
        };
        let listener = TcpListener::bind(address).await.map_err(cannot)?;
        let address = listener.local_addr().map_err(cannot)?;
        info!(%address, "health endpoint listens");
        tokio::spawn(accept(listener, self.clone()));
        Ok(())
    }

    fn judged(&self) -> (Snapshot, Verdict) {
        let facts = self.shared.health.snapshot();
        let verdict = verdict(&facts, Instant::now(), &self.shared.bounds);
        (facts, verdict)
    }

    async fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
            let allow = hyper::header::HeaderValue::from_static("GET, HEAD");
            refused.headers_mut().insert(ALLOW, allow);
            return refused;
        }
        let (facts, verdict) = self.judged();
        match request.uri().path() {
            "/startup" => probed(&facts, &verdict.startup),
            "/ready" => probed(&facts, &verdict.readiness),
            "/live" | "/healthz" => probed(&facts, &verdict.liveness),
            "/metrics" => {
                let metrics = &self.shared.metrics;
                metrics.look_at(&facts, &verdict);
                if let Some(log) = self.shared.log.get() {
                    metrics.count_questions(log.as_ref()).await;
                }
                body(StatusCode::OK, metrics::CONTENT_TYPE, metrics.text())
            }
            _ => text(StatusCode::NOT_FOUND, format!("there are: {PATHS}\n")),
        }
    }
}

async fn accept(listener: TcpListener, endpoint: Endpoint) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let slot = Arc::clone(&connections).acquire_owned().await;
        let slot = slot.expect("nobody closes the semaphore");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "a connection to the health endpoint was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let endpoint = endpoint.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                let endpoint = endpoint.clone();
                async move { Ok::<_, Infallible>(endpoint.answer(&request).await) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            match tokio::time::timeout(REQUEST_TIMEOUT * 2, served).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "a request to the health endpoint failed"),
                Err(_) => debug!("a request to the health endpoint took too long"),
            }
            drop(slot);
        });
    }
}

/// What a probe is told, beside its status.
#[derive(Debug, Serialize)]
struct Told<'a> {
    ok: bool,
    reasons: &'a [String],
    stage: &'static str,
    slots: usize,
    slots_used: usize,
    /// Since any pull was answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_since_pull: Option<u64>,
    /// Since a record was appended.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_since_commit: Option<u64>,
}

fn probed(facts: &Snapshot, probe: &Probe) -> Response<Full<Bytes>> {
    let now = Instant::now();
    let ago = |at: Instant| now.saturating_duration_since(at).as_secs();
    let told = Told {
        ok: probe.is_ok(),
        reasons: &probe.reasons,
        stage: name(facts.stage),
        slots: facts.slots,
        slots_used: facts.slots_used,
        seconds_since_pull: facts.loops.values().filter_map(|l| l.pulled).max().map(ago),
        seconds_since_commit: facts.appended.map(ago),
    };
    let status = if probe.is_ok() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    let mut told = serde_json::to_string(&told).expect("plain data");
    told.push('\n');
    body(status, "application/json", told)
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Connecting => "connecting",
        Stage::Connected => "connected",
        Stage::StreamsVerified => "streams_verified",
        Stage::Working => "working",
        Stage::Draining => "draining",
    }
}

fn text(status: StatusCode, told: impl Into<String>) -> Response<Full<Bytes>> {
    body(status, "text/plain; charset=utf-8", told.into())
}

fn body(status: StatusCode, kind: &'static str, told: String) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header(CONTENT_TYPE, kind)
        .header(CACHE_CONTROL, "no-store")
        .body(Full::new(Bytes::from(told)))
        .expect("fixed headers are valid")
}

#[cfg(test)]
mod tests;
