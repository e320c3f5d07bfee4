//! Traces: the spans of a thread's runs, named alike by every worker that holds the thread.
//!
//! A run that waits, and goes on elsewhere, is one trace. So spans that outlive a delivery (`run`,
//! `superstep`) are told once, when the record that ends them is appended, and their ids are digests
//! of what the log says: children that other workers told before name them rightly. Spans of work
//! under way (`delivery`, `task`) begin and end here. Where they go is a [`Tracer`]'s affair.
//!
//! The rule it keeps: nothing of a thread's data is in a span, and nothing waits for one. Without a
//! tracer the context that came with the start is handed on as it is.

mod context;
mod over;

use std::sync::Arc;

use superstep_graph::{Task, digest};
use superstep_protocol::{Dispatch, Origin, Run, Segment, TaskResult, ThreadState};
use superstep_queue::{Delivery, DeliveryBody, Headers, header};
use tracing::Span;

pub use context::TraceContext;
pub(crate) use over::Before;

/// Takes spans. It is called where the work is done, so it must not wait.
pub trait Tracer: Send + Sync + 'static {
    /// Whether the spans of a trace are kept that begins with `trace`, or below `parent`.
    fn samples(&self, trace: u128, parent: Option<&TraceContext>) -> bool;
    /// Begins a span now, below `parent`, or below the one that is entered here.
    fn begin(&self, begins: &Begins<'_>) -> Live;
    /// Says that a span under way has to do with another.
    fn link(&self, span: &Span, to: &TraceContext);
    /// Says how a span that was begun came out; it ends when it is dropped.
    fn came_out(&self, live: &Live, outcome: &Outcome<'_>);
    /// Tells a span that is over.
    fn over(&self, over: &Over<'_>);
}

/// What a span is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanName {
    /// A run, from a record that gave workers something to do to where it ends or waits.
    Run,
    /// A superstep, from its dispatch to the record that answers it.
    Superstep,
    /// A task, with all its attempts.
    Task,
    /// A message in one worker's hands.
    Delivery,
}

impl SpanName {
    /// The name in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Superstep => "superstep",
            Self::Task => "task",
            Self::Delivery => "delivery",
        }
    }
}

/// A value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttributeValue {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
}

/// Attributes by name.
pub type Attributes = Vec<(&'static str, AttributeValue)>;

/// A span that begins.
#[derive(Clone, Debug)]
pub struct Begins<'a> {
    /// Its name.
    pub name: SpanName,
    /// The span it belongs to; the one that is entered otherwise.
    pub parent: Option<&'a TraceContext>,
    /// What else it has to do with.
    pub links: &'a [TraceContext],
    /// What is known of it.
    pub attributes: Attributes,
}

/// A span that is over.
#[derive(Clone, Debug)]
pub struct Over<'a> {
    /// Its name.
    pub name: SpanName,
    /// Which it is.
    pub context: &'a TraceContext,
    /// The span it belongs to; none if the trace begins with it.
    pub parent: Option<&'a TraceContext>,
    /// What else it has to do with.
    pub links: &'a [TraceContext],
    /// When it began, in milliseconds since the Unix epoch; it ends now.
    pub began: u64,
    /// What is known of it.
    pub attributes: Attributes,
    /// How it came out.
    pub outcome: Outcome<'a>,
}

/// How a span came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// So, which is no error: to ask, to pause and to be cancelled are none.
    Ended(&'a str),
    /// With an error of this kind.
    Failed(&'a str),
}

/// A span under way.
#[derive(Clone, Debug)]
pub struct Live {
    /// What the work is to be done in.
    pub span: Span,
    /// Which it is, if it is kept.
    pub context: Option<TraceContext>,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            span: Span::none(),
            context: None,
        }
    }
}

/// What a worker tells of its threads.
#[derive(Clone)]
pub(crate) struct Traces {
    tracer: Arc<dyn Tracer>,
}

impl std::fmt::Debug for Traces {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Traces").finish_non_exhaustive()
    }
}

impl Traces {
    pub(crate) fn new(tracer: Arc<dyn Tracer>) -> Self {
        Self { tracer }
    }

    /// The context that the trace of `run` came with, and the id of the trace.
    fn origin(&self, state: &ThreadState, run: &Run) -> Root {
        let origin = run.origin();
        let sent = origin.trace.as_deref().and_then(|trace| {
            let state = origin.tracestate.as_deref();
            TraceContext::parse(trace, state)
        });
        let trace = match &sent {
            Some(sent) => sent.trace,
            None => id_of(&[
                "trace",
                state.thread.as_str(),
                incarnation(state),
                origin.run.as_str(),
            ]),
        };
        let sampled = self.tracer.samples(trace, sent.as_ref());
        Root {
            sent,
            origin,
            trace,
            sampled,
        }
    }

    /// The span of the part of `run` that workers are at.
    fn run(&self, state: &ThreadState, run: &Run, segment: &Segment) -> (TraceContext, Root) {
        let root = self.origin(state, run);
        let context = if segment.first {
            root.first(state)
        } else {
            let began = segment.began.to_string();
            root.span(&["run", state.thread.as_str(), incarnation(state), &began])
        };
        (context, root)
    }

    /// The span of the run that `state` is in, or was in last.
    pub(crate) fn run_of(&self, state: &ThreadState) -> Option<TraceContext> {
        let (run, segment) = (state.run.as_ref()?, state.segment.as_ref()?);
        Some(self.run(state, run, segment).0)
    }

    /// The span of the superstep that `dispatch` called for.
    fn superstep(&self, state: &ThreadState, run: &Run, dispatch: Dispatch) -> TraceContext {
        let dispatch = dispatch.to_string();
        let root = self.origin(state, run);
        root.span(&[
            "superstep",
            state.thread.as_str(),
            incarnation(state),
            &dispatch,
        ])
    }

    /// Begins the span of a message in hand.
    pub(crate) fn delivery(&self, delivery: &Delivery) -> Live {
        let number =
            |number: u64| AttributeValue::Number(i64::try_from(number).unwrap_or(i64::MAX));
        let mut attributes = vec![
            ("messaging.operation.type", text("process")),
            ("messaging.message.id", text(&delivery.id)),
            (
                "messaging.message.body.size",
                number(delivery.body.len() as u64),
            ),
            ("superstep.attempt", number(delivery.attempt)),
        ];
        match &delivery.kind {
            DeliveryBody::Command { kind, target } => {
                attributes.push(("messaging.operation.name", text("decide")));
                attributes.push(("messaging.destination.name", text("commands")));
                attributes.push(("superstep.command", text(kind.as_str())));
                let named = if *kind == superstep_queue::CommandKind::Start {
                    "superstep.graph"
                } else {
                    "superstep.thread_id"
                };
                attributes.push((named, text(target)));
            }
            DeliveryBody::Work { graph } => {
                attributes.push(("messaging.operation.name", text("work")));
                attributes.push(("messaging.destination.name", text("work")));
                attributes.push(("messaging.consumer.group.name", text(&graph.to_string())));
                attributes.push(("superstep.graph", text(graph.name.as_str())));
            }
            DeliveryBody::Unknown { .. } => {}
        }
        let parent = context_in(&delivery.headers);
        self.tracer.begin(&Begins {
            name: SpanName::Delivery,
            parent: parent.as_ref(),
            links: &[],
            attributes,
        })
    }

    /// Begins the span of a task; one of a subgraph stands below the task that called it.
    pub(crate) fn task(
        &self,
        state: &ThreadState,
        task: &Task,
        attempt: u64,
        place: &Place,
    ) -> Live {
        let parent = match (place, &state.run) {
            (Place::Root { dispatch, .. }, Some(run)) => {
                Some(self.superstep(state, run, *dispatch))
            }
            _ => None,
        };
        let mut attributes = of_run(state, state.run.as_ref());
        let attempt = i64::try_from(attempt).unwrap_or(i64::MAX);
        attributes.push((
            "superstep.number",
            AttributeValue::Number(state.next_step()),
        ));
        attributes.push(("superstep.node", text(task.node.as_str())));
        attributes.push(("superstep.task_id", text(task.id.as_str())));
        attributes.push(("superstep.attempt", AttributeValue::Number(attempt)));
        let links: Vec<TraceContext> = match place {
            Place::Root { delivery, .. } => delivery.iter().cloned().collect(),
            Place::Inside => Vec::new(),
        };
        self.tracer.begin(&Begins {
            name: SpanName::Task,
            parent: parent.as_ref(),
            links: &links,
            attributes,
        })
    }

    /// Says how a task ended; without a result it was told to stop.
    pub(crate) fn task_ended(&self, live: &Live, result: Option<&TaskResult>) {
        let outcome = match result {
            Some(TaskResult::Failed { error, .. }) => Outcome::Failed(&error.kind),
            Some(result) => Outcome::Ended(crate::meter::ended(result)),
            None => Outcome::Ended("stopped"),
        };
        self.tracer.came_out(live, &outcome);
    }

    /// Says that what is done here is about the run of `state`.
    pub(crate) fn link_here(&self, state: &ThreadState) {
        if let Some(run) = self.run_of(state) {
            self.tracer.link(&Span::current(), &run);
        }
    }

    /// Says how the work on a message came out.
    pub(crate) fn delivery_ended(&self, live: &Live, outcome: &Outcome<'_>) {
        self.tracer.came_out(live, outcome);
    }

    /// The headers that name the run of `state`.
    fn headers_of(&self, state: &ThreadState) -> Option<Headers> {
        let context = self.run_of(state)?;
        Some(headers(&context.traceparent(), context.state.as_deref()))
    }
}

/// Where a task runs.
#[derive(Clone, Debug)]
pub(crate) enum Place {
    /// In a superstep of the thread, for a delivery.
    Root {
        /// What called for it.
        dispatch: Dispatch,
        /// The span of the delivery.
        delivery: Option<TraceContext>,
    },
    /// In a subgraph, inside another task.
    Inside,
}

/// What all spans of a trace have in common.
struct Root {
    /// The span that it was sent from.
    sent: Option<TraceContext>,
    origin: Origin,
    trace: u128,
    sampled: bool,
}

impl Root {
    fn span(&self, parts: &[&str]) -> TraceContext {
        let state = self.sent.as_ref().and_then(|sent| sent.state.clone());
        TraceContext {
            trace: self.trace,
            // Of a digest any half is as good; zero is no id.
            span: u64::try_from(id_of(parts) >> 64).unwrap_or_default().max(1),
            sampled: self.sampled,
            state,
        }
    }

    /// The span that the trace begins with here.
    fn first(&self, state: &ThreadState) -> TraceContext {
        let run = self.origin.run.as_str();
        self.span(&["first run", state.thread.as_str(), incarnation(state), run])
    }
}

fn incarnation(state: &ThreadState) -> &str {
    state.incarnation.as_str()
}

fn id_of(parts: &[&str]) -> u128 {
    u128::from_str_radix(&digest(parts), 16).map_or(1, |id| id.max(1))
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::Text(text.to_owned())
}

/// What names a run in every span of it.
fn of_run(state: &ThreadState, run: Option<&Run>) -> Attributes {
    let mut attributes = vec![
        ("superstep.thread_id", text(state.thread.as_str())),
        ("superstep.graph", text(state.graph.name.as_str())),
        (
            "superstep.graph_version",
            text(state.graph.version.as_str()),
        ),
    ];
    if let Some(run) = run {
        attributes.push(("superstep.run_id", text(run.id.as_str())));
    }
    attributes
}

/// The context that a message came with.
fn context_in(headers: &Headers) -> Option<TraceContext> {
    let state = headers.get(header::TRACESTATE).map(String::as_str);
    TraceContext::parse(headers.get(header::TRACEPARENT)?, state)
}

fn headers(trace: &str, state: Option<&str>) -> Headers {
    let mut headers = Headers::from([(header::TRACEPARENT.to_owned(), trace.to_owned())]);
    if let Some(state) = state {
        headers.insert(header::TRACESTATE.to_owned(), state.to_owned());
    }
    headers
}

/// The context that goes with a message about the thread's run: that of the run's span, or what its
/// start came with where nobody traces.
pub(crate) fn headers_for(traces: Option<&Traces>, state: &ThreadState) -> Headers {
    if let Some(headers) = traces.and_then(|traces| traces.headers_of(state)) {
        return headers;
    }
    let origin = state.run.as_ref().map(Run::origin);
    let sent = origin.and_then(|origin| Some((origin.trace?, origin.tracestate)));
    sent.map(|(trace, state)| headers(&trace, state.as_deref()))
        .unwrap_or_default()
}

/// The context of a command, as it is kept: what is none is left out.
pub(crate) fn sent_with(sent: &Headers) -> (Option<String>, Option<String>) {
    match context_in(sent) {
        Some(context) => (sent.get(header::TRACEPARENT).cloned(), context.state),
        None => (None, None),
    }
}

#[cfg(test)]
mod tests;
