//! Telemetry: a worker's spans, exported over OTLP as the standard variables say.
//!
//! `OTEL_EXPORTER_OTLP_ENDPOINT` (or that of traces alone) turns it on; headers, service, resource,
//! sampler, limits and batches are read where OpenTelemetry's own crates read them. Over HTTP with
//! protobuf bodies alone: gRPC would bring a second HTTP stack into every worker, and every collector
//! takes both. Which spans there are is the worker's affair.
//!
//! The rule it keeps: without the variables there is nothing, no thread and no cost; with them no
//! work ever waits for an export, and none fails for one.

mod client;
mod exporter;
mod spans;

use std::{env, sync::Arc, time::Duration};

use opentelemetry::{KeyValue, trace::TracerProvider as _};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Config, SdkTracer, SdkTracerProvider},
};
use superstep_worker::{SystemWorld, Tracer, World as _};
use tracing::{Level, Metadata, debug};
use tracing_subscriber::{Layer, Registry, filter::filter_fn};

use client::Client;
use exporter::Reported;
use spans::{Ids, Spans};

/// The target of spans that are exported and not logged.
pub(crate) const SPANS: &str = "superstep_spans";
/// How long the last export may take.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Whose spans stand for none of a graph's work: the worker's own are told through [`SPANS`].
const NOT_EXPORTED: [&str; 6] = [
    "superstep_worker",
    "async_nats",
    "redis",
    "hyper",
    "opentelemetry",
    "rustls",
];

/// Where spans go.
#[derive(Clone, Debug)]
pub(crate) struct Telemetry {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    system: &'static str,
}

impl Telemetry {
    /// What the variables ask for, nothing in most cases; or why that cannot be had. Messages are
    /// those of `system`.
    pub(crate) fn from_environment(system: &'static str) -> Result<Option<Self>, String> {
        if !is_wanted(said)? {
            return Ok(None);
        }
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client::from_environment(said)?)
            .build()
            .map_err(|error| error.to_string())?;
        let provider = SdkTracerProvider::builder()
            .with_id_generator(Ids::default())
            .with_batch_exporter(Reported::new(exporter))
            .with_resource(resource())
            .build();
        let tracer = provider.tracer("superstep");
        Ok(Some(Self {
            provider,
            tracer,
            system,
        }))
    }

    /// Takes the spans of this process that are to be exported, as a reader of its events.
    pub(crate) fn reader(&self) -> Box<dyn Layer<Registry> + Send + Sync> {
        tracing_opentelemetry::layer()
            .with_tracer(self.tracer.clone())
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            .with_filter(filter_fn(is_exported))
            .boxed()
    }

    /// Takes what the worker tells.
    pub(crate) fn tracer(&self) -> Arc<dyn Tracer> {
        let sampler = Config::default().sampler;
        Arc::new(Spans::new(self.tracer.clone(), sampler, self.system))
    }

    /// Exports what is left.
    pub(crate) async fn end(self) {
        let ended =
            tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(END_TIMEOUT));
        match ended.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!(%error, "the last spans may not be exported"),
            Err(error) => debug!(%error, "the export did not end well"),
        }
    }
}

/// A variable that is set.
fn said(name: &str) -> Option<String> {
    env::var(name)
        .ok()
        .map(|value| value.trim().to_owned())
        .filter(|value| !value.is_empty())
}

/// Whether the variables ask for an export; or why there can be none.
fn is_wanted(said: impl Fn(&str) -> Option<String>) -> Result<bool, String> {
    if said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Ok(false);
    }
    let endpoint = [
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
    ];
    let has_endpoint = endpoint.into_iter().any(|name| said(name).is_some());
    match said("OTEL_TRACES_EXPORTER").as_deref() {
        None if !has_endpoint => return Ok(false),
        Some("none") => return Ok(false),
        None | Some("otlp") => {}
        Some(other) => {
            return Err(format!(
                "OTEL_TRACES_EXPORTER is `{other}`; there are `otlp` and `none`"
            ));
        }
    }
    let protocol = [
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
    ];
    let given = protocol
        .into_iter()
        .find_map(|name| Some((name, said(name)?)));
    match given {
        Some((name, other)) if other != "http/protobuf" => Err(format!(
            "{name} is `{other}`; set `http/protobuf`, and the endpoint of the collector's HTTP \
             receiver, mostly on port 4318"
        )),
        _ => Ok(true),
    }
}

/// What the spans are of: what the variables say, and else this program.
fn resource() -> Resource {
    let given = said("OTEL_RESOURCE_ATTRIBUTES").unwrap_or_default();
    let says = |name: &str| given.split(',').any(|pair| pair.trim().starts_with(name));
    let mut own = Vec::new();
    if said("OTEL_SERVICE_NAME").is_none() && !says("service.name=") {
        own.push(KeyValue::new("service.name", "superstep"));
    }
    if !says("service.version=") {
        own.push(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    }
    if !says("service.instance.id=") {
        let (high, low) = (SystemWorld.nonce(), SystemWorld.nonce());
        own.push(KeyValue::new("service.instance.id", format!("{high}{low}")));
    }
    Resource::builder().with_attributes(own).build()
}

/// Spans of work, and no events: what a graph's author logs may hold what nobody else is to see.
fn is_exported(meta: &Metadata<'_>) -> bool {
    meta.is_span()
        && *meta.level() <= Level::INFO
        && (meta.target() == SPANS
            || !NOT_EXPORTED
                .iter()
                .any(|target| meta.target().starts_with(target)))
}

#[cfg(test)]
mod tests;
