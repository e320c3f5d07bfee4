//! The worker's spans as OpenTelemetry has them.
//!
//! Spans under way are `tracing` spans of a target of their own, so that spans of a node's own code
//! stand below them. Spans that are over come with their ids, which the log determines; the id
//! generator is told them for the one call that makes the span.

use std::{
    cell::Cell,
    str::FromStr as _,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{
        Link, Span as _, SpanBuilder, SpanContext, SpanKind, Status, TraceContextExt as _,
        TraceState, Tracer as _,
    },
};
use opentelemetry_sdk::trace::{
    IdGenerator, RandomIdGenerator, SamplingDecision, SdkTracer, ShouldSample,
};
use superstep_worker::{
    AttributeValue, Begins, Live, Outcome, Over, SpanName, TraceContext, Tracer,
};
use tracing::{Span, info_span};
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

thread_local! {
    /// The ids of the span that is made on this OS thread now.
    static GIVEN: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Draws ids, but for spans that come with theirs.
#[derive(Debug, Default)]
pub(super) struct Ids {
    random: RandomIdGenerator,
}

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        let given = GIVEN.get().map(|(trace, _)| trace);
        given.unwrap_or_else(|| self.random.new_trace_id())
    }

    fn new_span_id(&self) -> SpanId {
        let given = GIVEN.get().map(|(_, span)| span);
        given.unwrap_or_else(|| self.random.new_span_id())
    }
}

/// Takes the worker's spans.
pub(super) struct Spans {
    tracer: SdkTracer,
    sampler: Box<dyn ShouldSample>,
    system: &'static str,
}

impl Spans {
    pub(super) fn new(
        tracer: SdkTracer,
        sampler: Box<dyn ShouldSample>,
        system: &'static str,
    ) -> Self {
        Self {
            tracer,
            sampler,
            system,
        }
    }
}

impl Tracer for Spans {
    fn samples(&self, trace: u128, parent: Option<&TraceContext>) -> bool {
        let (cx, trace) = (below(parent), TraceId::from(trace));
        let (name, kind) = (SpanName::Run.as_str(), SpanKind::Internal);
        let result = self
            .sampler
            .should_sample(Some(&cx), trace, name, &kind, &[], &[]);
        result.decision == SamplingDecision::RecordAndSample
    }

    fn begin(&self, begins: &Begins<'_>) -> Live {
        let span = match begins.name {
            SpanName::Delivery => {
                let span = info_span!(target: super::SPANS, "delivery", otel.kind = "consumer");
                span.set_attribute("messaging.system", self.system);
                span
            }
            SpanName::Task => info_span!(target: super::SPANS, "task"),
            SpanName::Superstep => info_span!(target: super::SPANS, "superstep"),
            SpanName::Run => info_span!(target: super::SPANS, "run"),
        };
        if begins.parent.is_some() {
            // It was made just now, so it can be put anywhere.
            let _ = span.set_parent(below(begins.parent));
        }
        for link in begins.links {
            span.add_link(context_of(link));
        }
        for (name, value) in &begins.attributes {
            span.set_attribute(*name, value_of(value));
        }
        let context = span.context();
        let context = told(context.span().span_context());
        Live { span, context }
    }

    fn link(&self, span: &Span, to: &TraceContext) {
        span.add_link(context_of(to));
    }

    fn came_out(&self, live: &Live, outcome: &Outcome<'_>) {
        match outcome {
            Outcome::Ended(how) => live
                .span
                .set_attribute("superstep.outcome", (*how).to_owned()),
            Outcome::Failed(kind) => {
                live.span.set_attribute("superstep.outcome", "failed");
                live.span.set_attribute("error.type", (*kind).to_owned());
                live.span.set_status(Status::error((*kind).to_owned()));
            }
        }
    }

    fn over(&self, over: &Over<'_>) {
        let now = SystemTime::now();
        let began = SystemTime::UNIX_EPOCH + Duration::from_millis(over.began);
        let mut attributes: Vec<KeyValue> = over
            .attributes
            .iter()
            .map(|(name, value)| KeyValue::new(*name, value_of(value)))
            .collect();
        let (how, failed) = match over.outcome {
            Outcome::Ended(how) => (how, None),
            Outcome::Failed(kind) => ("failed", Some(kind.to_owned())),
        };
        attributes.push(KeyValue::new("superstep.outcome", how.to_owned()));
        attributes.extend(failed.clone().map(|kind| KeyValue::new("error.type", kind)));
        let links = over.links.iter();
        let builder = SpanBuilder::from_name(over.name.as_str())
            .with_kind(SpanKind::Internal)
            // Where clocks disagree it takes no time.
            .with_start_time(began.min(now))
            .with_attributes(attributes)
            .with_links(
                links
                    .map(|link| Link::with_context(context_of(link)))
                    .collect(),
            );
        let context = over.context;
        GIVEN.set(Some((
            TraceId::from(context.trace),
            SpanId::from(context.span),
        )));
        let mut span = self.tracer.build_with_context(builder, &below(over.parent));
        GIVEN.set(None);
        if let Some(kind) = failed {
            span.set_status(Status::error(kind));
        }
        span.end_with_timestamp(now);
    }
}

/// Below this span of another process, or below none.
fn below(parent: Option<&TraceContext>) -> Context {
    let cx = Context::new();
    match parent {
        Some(parent) => cx.with_remote_span_context(context_of(parent)),
        None => cx,
    }
}

fn context_of(context: &TraceContext) -> SpanContext {
    let state = context.state.as_deref().map(TraceState::from_str);
    SpanContext::new(
        TraceId::from(context.trace),
        SpanId::from(context.span),
        TraceFlags::default().with_sampled(context.sampled),
        true,
        // Vendors' own words that cannot be read are nobody's.
        state.and_then(Result::ok).unwrap_or_default(),
    )
}

fn told(context: &SpanContext) -> Option<TraceContext> {
    let state = context.trace_state().header();
    context.is_valid().then(|| TraceContext {
        trace: u128::from_be_bytes(context.trace_id().to_bytes()),
        span: u64::from_be_bytes(context.span_id().to_bytes()),
        sampled: context.is_sampled(),
        state: (!state.is_empty()).then_some(state),
    })
}

fn value_of(value: &AttributeValue) -> Value {
    match value {
        AttributeValue::Text(text) => Value::from(text.clone()),
        AttributeValue::Number(number) => Value::from(*number),
    }
}
