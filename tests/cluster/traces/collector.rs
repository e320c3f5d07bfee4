//! A collector: takes what workers export over OTLP, as HTTP with protobuf bodies, and keeps it.
//!
//! It reads requests with OpenTelemetry's own types and nothing of superstep. The rule it keeps: a
//! span that is exported twice is kept twice, and what it cannot read fails the test.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span as Exported, span::SpanKind, status::StatusCode};
use prost::Message as _;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// A span as a test looks at it: ids as hex, attributes as text.
#[derive(Clone, Debug)]
pub(super) struct Span {
    pub(super) name: String,
    pub(super) trace: String,
    pub(super) id: String,
    /// Empty for none.
    pub(super) parent: String,
    pub(super) links: Vec<(String, String)>,
    pub(super) tracestate: String,
    pub(super) consumer: bool,
    /// The message of an error; `None` if it is none.
    pub(super) error: Option<String>,
    pub(super) began: u64,
    pub(super) ended: u64,
    pub(super) attributes: BTreeMap<String, String>,
    pub(super) resource: BTreeMap<String, String>,
}

impl Span {
    /// An attribute; empty if it is not there.
    pub(super) fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Which worker exported it.
    pub(super) fn worker(&self) -> &str {
        let id = self.resource.get("service.instance.id");
        id.map_or("", String::as_str)
    }
}

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<Span>,
    requests: Vec<String>,
}

/// The collector.
pub(super) struct Collector {
    address: String,
    kept: Arc<Mutex<Kept>>,
    taking: JoinHandle<()>,
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.taking.abort();
    }
}

impl Collector {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let kept = Arc::<Mutex<Kept>>::default();
        let taking = tokio::spawn({
            let kept = Arc::clone(&kept);
            async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(serve(stream, Arc::clone(&kept)));
                }
            }
        });
        Self {
            address,
            kept,
            taking,
        }
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was exported so far.
    pub(super) fn spans(&self) -> Vec<Span> {
        self.kept.lock().expect("no one panics here").spans.clone()
    }

    /// The heads of the requests so far.
    pub(super) fn requests(&self) -> Vec<String> {
        let kept = self.kept.lock().expect("no one panics here");
        kept.requests.clone()
    }
}

/// Takes requests until the exporter closes the connection.
async fn serve(stream: TcpStream, kept: Arc<Mutex<Kept>>) {
    let mut stream = BufReader::new(stream);
    while let Some((head, body)) = request(&mut stream).await {
        let request = ExportTraceServiceRequest::decode(&body[..]).expect("OTLP as protobuf");
        {
            let mut kept = kept.lock().expect("no one panics here");
            kept.requests.push(head);
            kept.spans.extend(spans_of(request));
        }
        let answer =
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n";
        if stream.write_all(answer).await.is_err() {
            return;
        }
    }
}

/// The head, in lower case, and the body.
async fn request(stream: &mut BufReader<TcpStream>) -> Option<(String, Vec<u8>)> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if stream.read_line(&mut head).await.ok()? == 0 {
            return None;
        }
    }
    let head = head.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .expect("a length");
    let mut body = vec![0; length.trim().parse().expect("a number")];
    stream.read_exact(&mut body).await.ok()?;
    Some((head, body))
}

fn spans_of(request: ExportTraceServiceRequest) -> Vec<Span> {
    let mut spans = Vec::new();
    for of_resource in request.resource_spans {
        let resource = of_resource.resource.unwrap_or_default();
        let resource = attributes_of(&resource.attributes);
        for scope in of_resource.scope_spans {
            spans.extend(scope.spans.iter().map(|span| read(span, &resource)));
        }
    }
    spans
}

fn read(span: &Exported, resource: &BTreeMap<String, String>) -> Span {
    let status = span.status.clone().unwrap_or_default();
    let links = span.links.iter();
    assert!(
        span.events.is_empty(),
        "events may hold what others may not see: {span:?}"
    );
    Span {
        name: span.name.clone(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        links: links
            .map(|link| (hex(&link.trace_id), hex(&link.span_id)))
            .collect(),
        tracestate: span.trace_state.clone(),
        consumer: span.kind() == SpanKind::Consumer,
        error: (status.code() == StatusCode::Error).then_some(status.message),
        began: span.start_time_unix_nano,
        ended: span.end_time_unix_nano,
        attributes: attributes_of(&span.attributes),
        resource: resource.clone(),
    }
}

fn attributes_of(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let attributes = attributes.iter().filter_map(|attribute| {
        let value = match attribute.value.clone()?.value? {
            Value::StringValue(text) => text,
            Value::IntValue(number) => number.to_string(),
            Value::BoolValue(yes) => yes.to_string(),
            other => format!("{other:?}"),
        };
        Some((attribute.key.clone(), value))
    });
    attributes.collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("text can be written");
        text
    })
}
