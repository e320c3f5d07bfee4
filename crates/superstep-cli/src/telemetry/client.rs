//! The client that spans are exported with: blocking, as exports have an OS thread of their own.
//!
//! The one that the guide's graphs use already; what is sent is the exporter's affair. The rule it
//! keeps: an answer is bounded in time and size.

use std::{fs, sync::Arc, time::Duration};

use async_trait::async_trait;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use ureq::{
    Agent,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

/// How long an export may take unless told.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How much of an answer is read: a collector says little.
const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// A client.
#[derive(Clone, Debug)]
pub(super) struct Client(Agent);

impl Client {
    /// One as the variables ask for, or why it cannot be had.
    pub(super) fn from_environment(said: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let of_traces = |name: &str| {
            let of_traces = said(&format!("OTEL_EXPORTER_OTLP_TRACES_{name}"));
            of_traces.or_else(|| said(&format!("OTEL_EXPORTER_OTLP_{name}")))
        };
        let timeout = of_traces("TIMEOUT").and_then(|ms| ms.parse().ok());
        let mut tls = TlsConfig::builder();
        if let Some(path) = of_traces("CERTIFICATE") {
            tls = tls.root_certs(roots(&path)?);
        }
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(timeout.map_or(TIMEOUT, Duration::from_millis)))
            .tls_config(tls.build())
            .build();
        Ok(Self(config.into()))
    }
}

fn roots(path: &str) -> Result<RootCerts, String> {
    let cannot = |why: String| {
        format!("the certificates in `{path}` (OTEL_EXPORTER_OTLP_CERTIFICATE) {why}")
    };
    let pem = fs::read(path).map_err(|error| cannot(format!("cannot be read: {error}")))?;
    let mut roots: Vec<Certificate<'static>> = Vec::new();
    for item in parse_pem(&pem) {
        if let PemItem::Certificate(root) =
            item.map_err(|error| cannot(format!("are no PEM: {error}")))?
        {
            roots.push(root);
        }
    }
    if roots.is_empty() {
        return Err(cannot("are none; name a PEM file".to_owned()));
    }
    Ok(RootCerts::Specific(Arc::new(roots)))
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let answer = self.0.run(Request::from_parts(head, &body[..]))?;
        let (head, mut body) = answer.into_parts();
        let body = body.with_config().limit(ANSWER_BYTES_MAX).read_to_vec()?;
        Ok(Response::from_parts(head, Bytes::from(body)))
    }
}
