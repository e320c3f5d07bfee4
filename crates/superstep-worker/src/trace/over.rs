//! Spans that are told when they are over: what a record ended.
//!
//! Whoever appends a record tells the superstep that it answers and the part of the run that ends
//! with it; both may have begun on another worker. One that dies right after its append tells them
//! never: they are missing, and nothing is there twice.

use superstep_protocol::{
    Dispatch, Record, RecordBody, Run, Segment, Then, ThreadState, UnixMillis,
};

use super::{AttributeValue, Outcome, Over, SpanName, TraceContext, Traces, of_run, text};

/// What a record that is about to be appended finds.
pub(crate) struct Before {
    run: Run,
    segment: Option<Segment>,
    number: i64,
    dispatches: Vec<(Dispatch, Option<UnixMillis>)>,
}

impl Before {
    /// What there is to tell of `state`, if workers are at its run.
    pub(crate) fn of(state: &ThreadState) -> Option<Self> {
        let dispatches: Vec<_> = state
            .run_dispatches()
            .map(|dispatch| (dispatch, state.dispatched_at(dispatch)))
            .collect();
        if dispatches.is_empty() {
            return None;
        }
        Some(Self {
            run: state.run.clone()?,
            segment: state.segment.clone(),
            number: state.next_step(),
            dispatches,
        })
    }
}

impl Traces {
    /// A record was appended: tells what is over with it.
    pub(crate) fn appended(&self, before: &Before, record: &Record, after: &ThreadState) {
        let still: Vec<Dispatch> = after.run_dispatches().collect();
        let began = |at: Option<UnixMillis>| {
            let segment = before.segment.as_ref().map(|segment| segment.at);
            at.or(segment).unwrap_or(record.time).0
        };
        let run = &before.run;
        let parent = before
            .segment
            .as_ref()
            .map(|segment| self.run(after, run, segment));
        for (dispatch, at) in &before.dispatches {
            if still.contains(dispatch) {
                continue;
            }
            let mut attributes = of_run(after, Some(run));
            attributes.push(("superstep.number", AttributeValue::Number(before.number)));
            attributes.push(("superstep.dispatch", text(&dispatch.to_string())));
            self.tracer.over(&Over {
                name: SpanName::Superstep,
                context: &self.superstep(after, run, *dispatch),
                parent: parent.as_ref().map(|(context, _)| context),
                links: &[],
                began: began(*at),
                attributes,
                outcome: superstep_outcome(&record.body, *dispatch),
            });
        }
        let goes_on = !still.is_empty() && after.run.as_ref().is_some_and(|now| now.id == run.id);
        let (Some(segment), Some((context, root)), false) = (&before.segment, &parent, goes_on)
        else {
            return;
        };
        let first = (!segment.first).then(|| root.first(after));
        let by = &run.command;
        // The sender of a resume has a trace of its own, or none.
        let sender = by.trace.as_deref().filter(|_| run.origin.is_some());
        let sender = sender.and_then(|sent| TraceContext::parse(sent, by.tracestate.as_deref()));
        self.tracer.over(&Over {
            name: SpanName::Run,
            context,
            parent: root.sent.as_ref().or(first.as_ref()),
            links: sender.as_slice(),
            began: segment.at.0,
            attributes: of_run(after, Some(run)),
            outcome: run_outcome(record, run, after),
        });
    }
}

fn superstep_outcome(body: &RecordBody, dispatch: Dispatch) -> Outcome<'_> {
    match body {
        RecordBody::Committed(committed) if committed.closes == dispatch => {
            Outcome::Ended("committed")
        }
        RecordBody::Interrupted(parked) if parked.closes == dispatch => {
            Outcome::Ended("interrupted")
        }
        RecordBody::Paused(parked) if parked.closes == dispatch => Outcome::Ended("paused"),
        RecordBody::Failed(parked) if parked.closes == dispatch => match &parked.error {
            Some(error) => Outcome::Failed(&error.kind),
            None => Outcome::Ended("parked"),
        },
        RecordBody::Failed(_) => Outcome::Ended("parked"),
        _ => Outcome::Ended("given_up"),
    }
}

fn run_outcome<'a>(record: &'a Record, run: &Run, after: &'a ThreadState) -> Outcome<'a> {
    match &record.body {
        RecordBody::Committed(committed) => match &committed.then {
            Then::Fail(error) => Outcome::Failed(&error.kind),
            Then::Complete => Outcome::Ended("completed"),
            Then::Run | Then::Wait | Then::Break => Outcome::Ended("stopped"),
        },
        RecordBody::Interrupted(_) => Outcome::Ended("interrupted"),
        RecordBody::Paused(_) => Outcome::Ended("paused"),
        RecordBody::Failed(parked) => match &parked.error {
            Some(error) => Outcome::Failed(&error.kind),
            None => Outcome::Ended("stopped"),
        },
        RecordBody::Cancelled { .. } | RecordBody::Displaced(_) | RecordBody::Deleted { .. } => {
            Outcome::Ended("cancelled")
        }
        RecordBody::DeadlinePassed { .. } => {
            let error = after.run.as_ref().filter(|now| now.id == run.id);
            match error.and_then(|run| run.error.as_ref()) {
                Some(error) => Outcome::Failed(&error.kind),
                None => Outcome::Ended("stopped"),
            }
        }
        _ if after.run.as_ref().is_some_and(|now| now.id != run.id) => Outcome::Ended("displaced"),
        _ => Outcome::Ended("stopped"),
    }
}
