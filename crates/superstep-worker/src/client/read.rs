//! Reading: threads, their history, open questions, registered graphs, events.
//!
//! Views for people and programs outside, with times as text. The store is the truth: a row of
//! a list whose thread has moved on meanwhile is left out.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
};

use bytes::Bytes;
use serde_json::{Map, Value};
use superstep_checkpoint::{InterruptQuery, Page, ThreadQuery, ThreadRow};
use superstep_graph::{Graph, InterruptId, NodeName, TaskId};
use superstep_protocol::{
    GraphName, GraphVersion, QueuedRun, RunError, RunId, RunStatus, StreamMode, ThreadId,
    ThreadState, ThreadStatus,
};
use superstep_queue::{EventFilter, Subscription};
use superstep_wire::{Event, decode, time::to_rfc3339};

use super::Client;
use crate::{
    error::Error,
    graphs::RunnableGraph,
    inside,
    shown::can_be_shown,
    stream::StreamEvent,
    versions::seen_lately,
    view::{CheckpointView, StateView},
};

/// How many event ids a feed remembers to drop repeats.
const SEEN_MAX: usize = 4_096;

/// A thread as it is now, with what identifies it.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ThreadDetail {
    /// Its id.
    pub thread_id: ThreadId,
    /// How it stands.
    pub status: ThreadStatus,
    /// Its graph.
    pub graph: GraphName,
    /// The graph's version.
    pub graph_version: GraphVersion,
    /// The topology of that, as it was registered when the thread came to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub topology: Option<String>,
    /// Why nothing of it runs although it is busy: its version has no worker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// When it was created.
    pub created_at: String,
    /// When it last changed.
    pub updated_at: String,
    /// What its starts said of it.
    #[serde(skip_serializing_if = "Map::is_empty")]
    pub metadata: Map<String, Value>,
    /// The last run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunDetail>,
    /// The runs that wait for their turn, in the order in which they were queued.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub queue: Vec<QueuedDetail>,
    /// Its values, tasks and open questions.
    #[serde(flatten)]
    pub state: StateView,
}

/// The last run of a thread.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RunDetail {
    /// Its id.
    pub run_id: RunId,
    /// How it stands.
    pub status: RunStatus,
    /// Why it failed, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
}

/// A run that waits for its turn.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct QueuedDetail {
    /// Its id.
    pub run_id: RunId,
    /// How it stands: pending.
    pub status: RunStatus,
    /// When it was queued.
    pub queued_at: String,
    /// Not before this time, if it was given one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
}

impl QueuedDetail {
    fn of(queued: &QueuedRun) -> Self {
        Self {
            run_id: queued.run.clone(),
            status: RunStatus::Pending,
            queued_at: to_rfc3339(queued.queued_at),
            not_before: queued.not_before.map(to_rfc3339),
        }
    }
}

impl ThreadDetail {
    pub(super) fn of(state: &ThreadState, graph: Option<&Graph>) -> Self {
        Self {
            thread_id: state.thread.clone(),
            status: state.status(),
            graph: state.graph.name.clone(),
            graph_version: state.graph.version.clone(),
            created_at: to_rfc3339(state.created_at),
            updated_at: to_rfc3339(state.time),
            metadata: state.metadata.clone(),
            run: state.run.as_ref().map(|run| RunDetail {
                run_id: run.id.clone(),
                status: run.status,
                error: run.error.clone(),
            }),
            queue: state.queue.iter().map(QueuedDetail::of).collect(),
            topology: state.topology.clone(),
            waits_for: None,
            state: StateView::of(state, graph),
        }
    }
}

/// A question that waits for an answer.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct OpenInterrupt {
    /// Its id: what an answer names.
    pub interrupt_id: InterruptId,
    /// The thread that waits.
    pub thread_id: ThreadId,
    /// The thread's graph.
    pub graph: GraphName,
    /// The node that asks.
    pub node: NodeName,
    /// The task that asks.
    pub task_id: TaskId,
    /// What it asks.
    pub value: Value,
    /// When it opened.
    pub opened_at: String,
    /// Until when it can be answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<String>,
}

impl OpenInterrupt {
    pub(super) fn all_of(state: &ThreadState) -> Vec<Self> {
        state
            .open_questions()
            .map(|(task, question)| Self {
                interrupt_id: question.id.clone(),
                thread_id: state.thread.clone(),
                graph: state.graph.name.clone(),
                node: task.task.node.clone(),
                task_id: task.task.id.clone(),
                value: question.payload.clone(),
                opened_at: to_rfc3339(question.opened_at),
                expires_at: question.expires_at.map(to_rfc3339),
            })
            .collect()
    }
}

/// A graph that workers registered.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct RegisteredGraph {
    /// Its name.
    pub graph: GraphName,
    /// Its version.
    pub version: GraphVersion,
    /// Whether a worker renewed it lately.
    pub live: bool,
    /// When a worker last did.
    pub renewed_at: String,
    /// What workers say of it: description, topology, Mermaid text, input schema.
    pub about: Value,
}

impl Client {
    /// The thread as it is now; `None` if there is none.
    ///
    /// # Errors
    /// If the store fails. With the graph of a thread of the `langgraph` profile `Refused` if a
    /// superstep failed because its writes cannot be applied together: LangGraph has no state to
    /// show then.
    pub async fn thread(&self, thread: &ThreadId) -> Result<Option<ThreadDetail>, Error> {
        let Some(state) = self.state_of(thread).await? else {
            return Ok(None);
        };
        let graph = self.graph_of(&state);
        can_be_shown(&state, graph).map_err(Error::Refused)?;
        let mut detail = ThreadDetail::of(&state, graph);
        detail.waits_for = self.waits_for(&state).await?;
        Ok(Some(detail))
    }

    /// The thread as its history shows it at a checkpoint, by that one's id; `None` if there is
    /// no such thread.
    ///
    /// # Errors
    /// `Refused` if the thread has no such checkpoint; or if the store fails.
    pub async fn thread_at(
        &self,
        thread: &ThreadId,
        checkpoint_id: &str,
    ) -> Result<Option<StateView>, Error> {
        self.threads
            .state_at(thread, checkpoint_id, &self.graphs)
            .await
    }

    /// The thread as it is now inside the subgraph at `place`, nodes from the outside in, or as a
    /// whole if that is empty; with the states of subgraphs if `subgraphs`. `None` if there is no
    /// such thread.
    ///
    /// # Errors
    /// `Refused` if no task waits inside it; `NoSuchGraph` if the client was not given the
    /// thread's graph; or if the store fails.
    pub async fn thread_inside(
        &self,
        thread: &ThreadId,
        place: &[NodeName],
        subgraphs: bool,
    ) -> Result<Option<StateView>, Error> {
        let Some(state) = self.state_of(thread).await? else {
            return Ok(None);
        };
        let graph = self.held(&state)?;
        let view = inside::state(graph, &state, place, subgraphs);
        view.map(Some).map_err(Error::Refused)
    }

    /// The checkpoints of the subgraph at `place` in the call that waits, newest first, at most
    /// `limit`; `None` if there is no such thread.
    ///
    /// # Errors
    /// As [`thread_inside`](Self::thread_inside).
    pub async fn history_inside(
        &self,
        thread: &ThreadId,
        place: &[NodeName],
        limit: usize,
    ) -> Result<Option<Vec<CheckpointView>>, Error> {
        let Some(state) = self.state_of(thread).await? else {
            return Ok(None);
        };
        let graph = self.held(&state)?;
        let history = inside::history(graph, &state, place, limit);
        history.map(Some).map_err(Error::Refused)
    }

    /// Why nothing of a busy thread runs, if no worker of its version is there.
    async fn waits_for(&self, state: &ThreadState) -> Result<Option<String>, Error> {
        let decision = state.decision.as_ref().map(|decision| decision.dispatch);
        let dispatch = decision.or_else(|| state.rounds.keys().next().copied());
        let Some(graph) = dispatch.map(|dispatch| state.graph_for(dispatch)) else {
            return Ok(None);
        };
        let graphs = self.graphs().await?;
        let mut of_graph = graphs
            .iter()
            .filter(|known| known.graph == graph.name && known.version == graph.version);
        let since = match of_graph.next() {
            Some(known) if known.live => return Ok(None),
            Some(known) => format!("no worker of {graph} since {}", known.renewed_at),
            None => format!("no worker of {graph} ever registered"),
        };
        let stays = state.stays.as_ref();
        let why =
            stays.map(|stays| format!("; {} cannot take it over: {}", stays.to, stays.refusal));
        Ok(Some(since + &why.unwrap_or_default()))
    }

    fn held(&self, state: &ThreadState) -> Result<&RunnableGraph, Error> {
        match self.graphs.get(&state.graph) {
            Some(graph) => Ok(graph),
            None => Err(self.graphs.lacks(state)),
        }
    }

    /// The thread's graph, if it is held here.
    pub(super) fn graph_of(&self, state: &ThreadState) -> Option<&Graph> {
        self.graphs.get(&state.graph).map(|graph| graph.topology())
    }

    /// The open questions of one thread; empty if there is none.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn interrupts_of(&self, thread: &ThreadId) -> Result<Vec<OpenInterrupt>, Error> {
        let state = self.state_of(thread).await?;
        Ok(state
            .as_ref()
            .map(OpenInterrupt::all_of)
            .unwrap_or_default())
    }

    pub(super) async fn state_of(&self, thread: &ThreadId) -> Result<Option<ThreadState>, Error> {
        let found = self.threads.load(thread).await?;
        Ok(found
            .map(|found| Arc::unwrap_or_clone(found.state))
            .filter(|state| !state.deleted))
    }

    /// The thread's checkpoints, newest first, at most `limit`, older than record `before`.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn history(
        &self,
        thread: &ThreadId,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<CheckpointView>, Error> {
        self.threads
            .history_of(thread, before, limit, &self.graphs)
            .await
    }

    /// A page of the thread list.
    ///
    /// # Errors
    /// If the store fails, or the cursor is none.
    pub async fn threads(&self, query: &ThreadQuery) -> Result<Page<(ThreadId, ThreadRow)>, Error> {
        self.log().threads(query).await.map_err(Error::Store)
    }

    /// A page of the open questions, oldest first, with what they ask.
    ///
    /// # Errors
    /// If the store fails, or the cursor is none.
    pub async fn interrupts(&self, query: &InterruptQuery) -> Result<Page<OpenInterrupt>, Error> {
        let page = self.log().interrupts(query).await.map_err(Error::Store)?;
        let mut open: HashMap<ThreadId, Vec<OpenInterrupt>> = HashMap::new();
        let mut rows = Vec::with_capacity(page.rows.len());
        for (thread, row) in page.rows {
            if !open.contains_key(&thread) {
                open.insert(thread.clone(), self.interrupts_of(&thread).await?);
            }
            let found = open[&thread]
                .iter()
                .find(|open| open.interrupt_id == row.id);
            rows.extend(found.cloned());
        }
        Ok(Page {
            rows,
            next: page.next,
        })
    }

    /// Every graph that workers registered, by name and version.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn graphs(&self) -> Result<Vec<RegisteredGraph>, Error> {
        let now = self.log().now().await.map_err(Error::Store)?;
        let registered = self.log().registrations().await.map_err(Error::Store)?;
        let mut graphs: Vec<RegisteredGraph> = registered
            .into_iter()
            .map(|registration| {
                // A description that cannot be read is none; the name still is one.
                let about = serde_json::from_slice(&registration.about).unwrap_or_default();
                RegisteredGraph {
                    live: seen_lately(&about, registration.renewed_at, now),
                    renewed_at: to_rfc3339(registration.renewed_at),
                    about,
                    graph: registration.graph.name,
                    version: registration.graph.version,
                }
            })
            .collect();
        graphs.sort_by(|a, b| (&a.graph, &a.version).cmp(&(&b.graph, &b.version)));
        Ok(graphs)
    }

    /// Follows stored events; active when this returns.
    ///
    /// # Errors
    /// If the queue fails.
    pub async fn events(&self, filter: &EventFilter) -> Result<EventFeed, Error> {
        Ok(EventFeed {
            subscription: self.queue.events(filter).await?,
            seen: HashSet::new(),
            order: VecDeque::new(),
        })
    }

    /// Follows the live output of a thread from now on; what its runs send is said by the
    /// `stream_mode` of their commands.
    ///
    /// # Errors
    /// If the queue fails.
    pub async fn outputs(&self, thread: &ThreadId) -> Result<OutputFeed, Error> {
        Ok(OutputFeed {
            subscription: self.queue.outputs(thread).await?,
        })
    }
}

/// What a run told, as [`OutputFeed`] gives it.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    /// An event of this run.
    Event(RunId, StreamEvent),
    /// This run is over: nothing of it follows.
    End(RunId),
}

/// The live output of a thread's runs, in the order in which each worker sent it. It is not
/// stored, and may be lost or come again.
pub struct OutputFeed {
    subscription: Box<dyn Subscription>,
}

impl std::fmt::Debug for OutputFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OutputFeed").finish_non_exhaustive()
    }
}

impl OutputFeed {
    /// Waits for what is told next; modes that this version does not know are passed over.
    /// `None` if the subscription ended.
    ///
    /// # Errors
    /// If the queue fails, or a message is no output.
    ///
    /// # Cancel safety
    /// Nothing is lost by dropping the future.
    pub async fn next(&mut self) -> Result<Option<Told>, Error> {
        while let Some(received) = self.subscription.next().await? {
            let output = decode::output(&received.body).map_err(Error::Reply)?;
            let run = RunId::from(output.run_id);
            if output.mode == "end" {
                return Ok(Some(Told::End(run)));
            }
            let Some(mode) = StreamMode::of(&output.mode) else {
                continue;
            };
            let path = output
                .checkpoint_ns
                .split('|')
                .filter(|node| !node.is_empty());
            let event = StreamEvent {
                path: path.map(NodeName::from).collect(),
                step: i64::from(output.step),
                mode,
                data: output.data,
            };
            return Ok(Some(Told::Event(run, event)));
        }
        Ok(None)
    }
}

/// Stored events as they come, each once.
pub struct EventFeed {
    subscription: Box<dyn Subscription>,
    seen: HashSet<String>,
    order: VecDeque<String>,
}

impl std::fmt::Debug for EventFeed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EventFeed").finish_non_exhaustive()
    }
}

impl EventFeed {
    /// Waits for the next event; with it its body, which may say more than this version knows.
    /// `None` if the subscription ended.
    ///
    /// # Errors
    /// If the queue fails, or a message is no event.
    ///
    /// # Cancel safety
    /// No event is lost by dropping the future.
    pub async fn next(&mut self) -> Result<Option<(Event, Bytes)>, Error> {
        while let Some(received) = self.subscription.next().await? {
            let event = decode::event(&received.body).map_err(Error::Reply)?;
            if self.is_new(&event.event_id) {
                return Ok(Some((event, received.body)));
            }
        }
        Ok(None)
    }

    fn is_new(&mut self, id: &str) -> bool {
        if !self.seen.insert(id.to_owned()) {
            return false;
        }
        self.order.push_back(id.to_owned());
        if self.order.len() > SEEN_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.seen.remove(&oldest);
        }
        true
    }
}
