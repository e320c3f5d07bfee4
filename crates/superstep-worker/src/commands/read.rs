//! Reading: from a command's bytes to the protocol's event.
//!
//! What a command says beside its thread is looked up here: the graph's version, the checkpoint
//! that it names, the bounds of this worker. Whether it may be obeyed is the protocol's to say,
//! and what is told of it, `commands`'.
//!
//! The rule it keeps: the same command is read as the same event wherever it is decided, and
//! nothing that was sent is passed over.

use std::collections::BTreeMap;

use serde_json::{Map, Value};
use superstep_graph::command_input;
use superstep_protocol::{
    Answers, Cancel, CommandRef, Event, Profile, RECURSION_LIMIT, Refusal, Resume, RunId, Start,
    StateUpdate, Strategy, Terms, ThreadId,
};
use superstep_queue::CommandKind;
use superstep_wire::{ResumeCommand, RunConfig, decode, outward};

use super::{Commands, made_run, made_thread};
use crate::{error::Error, registry::Chosen, threads::Threads};

/// What is told of a command that cannot be taken.
type Told = superstep_wire::Refusal;

/// A command as it was read: what it is about, and what it asks.
pub(super) struct Asked {
    pub(super) thread: ThreadId,
    pub(super) graph: Option<String>,
    pub(super) event: Result<Event, Told>,
    pub(super) run: Option<RunId>,
    /// What is to be done on a thread that is not there and does not come.
    pub(super) absent: Option<Absent>,
}

/// What a command does on a thread that is not there.
pub(super) enum Absent {
    /// This makes the thread; then it is as if it had been there.
    Made(Event),
    /// This begins the thread, in the command's place.
    Begun(Event),
}

impl Asked {
    fn of(thread: &ThreadId, event: Result<Event, Told>, run: Option<RunId>) -> Self {
        Self {
            thread: thread.clone(),
            graph: None,
            event,
            run,
            absent: None,
        }
    }
}

/// The protocol's event of a resume, for the thread as it is now.
pub(crate) async fn resume_event(
    threads: &Threads,
    thread: &ThreadId,
    command: CommandRef,
    run: RunId,
    resume: ResumeCommand,
) -> Result<Result<Resume, Told>, Error> {
    let (terms, goto) = match (resume.terms(), resume.targets()) {
        (Ok(terms), Ok(goto)) => (terms, goto),
        (Err(error), _) | (_, Err(error)) => return Ok(Err(error.refusal())),
    };
    let checkpoint = resume.checkpoint_id.as_deref();
    let at = match threads.named_base(thread, checkpoint, true).await? {
        Ok(at) => at,
        Err(refusal) => return Ok(Err(outward::refusal(&refusal))),
    };
    let named = resume.interrupt_id;
    Ok(Ok(Resume {
        command,
        run,
        answers: resume
            .resume
            .map(|resume| Answers::of(resume, named.map(Into::into))),
        update: resume.update.unwrap_or_default(),
        goto,
        recursion_limit: resume.config.and_then(|config| config.recursion_limit),
        terms,
        at,
    }))
}

impl Commands {
    pub(super) async fn read(
        &self,
        kind: CommandKind,
        target: &str,
        body: &[u8],
        command: &CommandRef,
    ) -> Result<Asked, Error> {
        let bytes_max = self.settings.limits.command_bytes_max;
        let thread = ThreadId::new(target);
        Ok(match kind {
            CommandKind::Start => return self.read_start(target, body, command).await,
            CommandKind::Resume => return self.read_resume(&thread, body, command).await,
            CommandKind::Update => return self.read_update(&thread, body, command).await,
            CommandKind::Cancel => {
                let event = decode::cancel(body, bytes_max)
                    .and_then(|cancel| {
                        let rollback = cancel.rolls_back()?;
                        Ok(Event::Cancel(Box::new(Cancel {
                            run: cancel.run_id.map(RunId::from),
                            rollback,
                            ..Cancel::new(command.clone(), cancel.reason)
                        })))
                    })
                    .map_err(|error| error.refusal());
                Asked::of(&thread, event, None)
            }
            CommandKind::Retry => return self.read_retry(&thread, body, command).await,
        })
    }

    async fn read_resume(
        &self,
        thread: &ThreadId,
        body: &[u8],
        command: &CommandRef,
    ) -> Result<Asked, Error> {
        let bytes_max = self.settings.limits.command_bytes_max;
        let resume = match decode::resume(body, bytes_max) {
            Ok(resume) => resume,
            Err(error) => return Ok(Asked::of(thread, Err(error.refusal()), None)),
        };
        let run = named(resume.run_id.clone(), command);
        let refused = |told| Ok(Asked::of(thread, Err(told), Some(run.clone())));
        if resume.key.is_some() {
            let instead = "name the interrupt by its id";
            return refused(unsupported("a resume by key", instead));
        }
        let limit = match self.limit_of(resume.config.as_ref()) {
            Ok(limit) => limit,
            Err(told) => return refused(told),
        };
        let graph = resume.graph.clone();
        let threads = &self.engine.threads;
        let event = resume_event(threads, thread, command.clone(), run.clone(), resume);
        let mut resume = match event.await? {
            Ok(resume) => resume,
            Err(told) => return refused(told),
        };
        resume.recursion_limit = self.limit_of_next(limit);
        let absent = match &graph {
            None => Ok(None),
            Some(graph) => match self.is_of(thread, graph).await? {
                Ok(true) => Ok(None),
                Ok(false) => self.begun(graph, &resume).await?,
                Err(refusal) => Err(refusal),
            },
        };
        let absent = match absent {
            Ok(absent) => absent,
            Err(refusal) => return refused(outward::refusal(&refusal)),
        };
        Ok(Asked {
            graph,
            absent,
            ..Asked::of(thread, Ok(Event::Resume(Box::new(resume))), Some(run))
        })
    }

    /// LangGraph takes a command on a thread that is not there for its input: an answer has no
    /// question and is lost, the update and the targets are those of the start. By default it is
    /// refused.
    async fn begun(
        &self,
        graph: &str,
        resume: &Resume,
    ) -> Result<Result<Option<Absent>, Refusal>, Error> {
        if self.settings.profile == Profile::Default {
            return Ok(Ok(None));
        }
        let Some(input) = begins_with(resume) else {
            return Ok(Err(Refusal::InvalidInput {
                reason: "the command is empty; give an answer, an update or a target".to_owned(),
            }));
        };
        let threads = &self.engine.threads;
        let chosen = self.registry.choose(threads, graph, None, &input).await?;
        Ok(chosen.map(|(graph, topology)| {
            Some(Absent::Begun(Event::Start(Box::new(Start {
                command: resume.command.clone(),
                run: resume.run.clone(),
                graph,
                topology,
                profile: self.settings.profile,
                input,
                recursion_limit: resume.recursion_limit.unwrap_or(RECURSION_LIMIT),
                config: Map::new(),
                metadata: Map::new(),
                terms: resume.terms.clone(),
                at: None,
                strategy: Strategy::Enqueue,
                not_before: None,
                before: None,
            }))))
        }))
    }

    /// A retry from a checkpoint is a start without input at it; of a thread that is not there it
    /// is a retry all the same, and refused as one.
    async fn read_retry(
        &self,
        thread: &ThreadId,
        body: &[u8],
        command: &CommandRef,
    ) -> Result<Asked, Error> {
        let retry = match decode::retry(body, self.settings.limits.command_bytes_max) {
            Ok(retry) => retry,
            Err(error) => return Ok(Asked::of(thread, Err(error.refusal()), None)),
        };
        let run = named(retry.run_id, command);
        let asked = |event| Ok(Asked::of(thread, event, Some(run.clone())));
        let limit = match self.limit_of(retry.config.as_ref()) {
            Ok(limit) => limit,
            Err(told) => return asked(Err(told)),
        };
        let threads = &self.engine.threads;
        let found = match retry.checkpoint_id {
            Some(_) => threads.load(thread).await?,
            None => None,
        };
        let Some(found) = found.filter(|found| !found.state.deleted) else {
            return asked(Ok(Event::Retry {
                command: command.clone(),
                run: run.clone(),
                recursion_limit: self.limit_of_next(limit),
            }));
        };
        let checkpoint = retry.checkpoint_id.as_deref();
        let at = match threads.named_base(thread, checkpoint, true).await? {
            Ok(at) => at,
            Err(refusal) => return asked(Err(outward::refusal(&refusal))),
        };
        asked(Ok(Event::Start(Box::new(Start {
            command: command.clone(),
            run: run.clone(),
            graph: found.state.graph.clone(),
            topology: found.state.topology.clone(),
            profile: found.state.profile,
            input: Value::Null,
            recursion_limit: limit.unwrap_or(RECURSION_LIMIT),
            config: Map::new(),
            metadata: Map::new(),
            terms: Terms::default(),
            at,
            strategy: Strategy::Reject,
            not_before: None,
            before: None,
        }))))
    }

    async fn read_update(
        &self,
        thread: &ThreadId,
        body: &[u8],
        command: &CommandRef,
    ) -> Result<Asked, Error> {
        let bytes_max = self.settings.limits.command_bytes_max;
        let refused = |told| Ok(Asked::of(thread, Err(told), None));
        let update = match decode::update(body, bytes_max) {
            Ok(update) => update,
            Err(error) => return refused(error.refusal()),
        };
        let threads = &self.engine.threads;
        let checkpoint = update.checkpoint_id.as_deref();
        let at = match threads.base_of_update(thread, checkpoint).await? {
            Ok(at) => at,
            Err(refusal) => return refused(outward::refusal(&refusal)),
        };
        let graph = update.graph.clone();
        let absent = match &graph {
            None => Ok(None),
            Some(graph) => match self.is_of(thread, graph).await? {
                Ok(true) => Ok(None),
                Ok(false) => {
                    let newest = self.registry.newest(threads, graph).await?;
                    newest.map(|chosen| Some(self.made(chosen, command)))
                }
                Err(refusal) => Err(refusal),
            },
        };
        let absent = match absent {
            Ok(absent) => absent,
            Err(refusal) => return refused(outward::refusal(&refusal)),
        };
        let subgraph = update.subgraph.iter().map(|node| node.as_str().into());
        let subgraph = subgraph.collect();
        let mut updates = update.into_updates().into_iter();
        let update = updates.next().expect("a command has an update at least");
        let event = Event::Update(Box::new(StateUpdate {
            command: command.clone(),
            update,
            more: updates.collect(),
            subgraph,
            at,
        }));
        Ok(Asked {
            graph,
            absent,
            ..Asked::of(thread, Ok(event), None)
        })
    }

    fn made(&self, (graph, topology): Chosen, command: &CommandRef) -> Absent {
        Absent::Made(Event::Create {
            command: command.clone(),
            graph,
            topology,
            profile: self.settings.profile,
            ttl_ms: self.settings.ended_ttl_ms(),
        })
    }

    /// Whether the thread is there; refused if it is of another graph than the command says.
    async fn is_of(&self, thread: &ThreadId, graph: &str) -> Result<Result<bool, Refusal>, Error> {
        let found = self.engine.threads.load(thread).await?;
        Ok(match found.filter(|found| !found.state.deleted) {
            None => Ok(false),
            Some(found) if found.state.graph.name == *graph => Ok(true),
            Some(found) => Err(Refusal::WrongGraph {
                thread: thread.clone(),
                graph: found.state.graph.name.clone(),
            }),
        })
    }

    async fn read_start(
        &self,
        graph: &str,
        body: &[u8],
        command: &CommandRef,
    ) -> Result<Asked, Error> {
        let made_thread = || made_thread(&command.id);
        let limits = &self.settings.limits;
        let asked = |thread: &ThreadId, event, run| Asked {
            graph: Some(graph.to_owned()),
            ..Asked::of(thread, event, run)
        };
        let start = match decode::start(body, limits.command_bytes_max) {
            Ok(start) => start,
            Err(error) => return Ok(asked(&made_thread(), Err(error.refusal()), None)),
        };
        let terms = start
            .terms()
            .and_then(|terms| Ok((terms, start.strategy()?)));
        let thread = start.thread_id.map_or_else(made_thread, ThreadId::from);
        let run = named(start.run_id, command);
        let refused = |told| Ok(asked(&thread, Err(told), Some(run.clone())));
        let (mut terms, strategy) = match terms {
            Ok(read) => read,
            Err(error) => return refused(error.refusal()),
        };
        terms.ttl_ms = self.settings.ended_ttl_ms();
        // From when it was sent, so that it is the same time whenever the command is decided.
        let not_before = start.after_seconds.filter(|seconds| *seconds > 0);
        let not_before =
            not_before.map(|seconds| command.sent_at.plus_ms(u64::from(seconds) * 1_000));
        let limit = match self.limit_of(start.config.as_ref()) {
            Ok(limit) => limit,
            Err(told) => return refused(told),
        };
        let threads = &self.engine.threads;
        let input = start.input.unwrap_or_default();
        let version = start.graph_version.as_deref();
        let chosen = self.registry.choose(threads, graph, version, &input);
        let (graph, topology) = match chosen.await? {
            Ok(chosen) => chosen,
            Err(refusal) => return refused(outward::refusal(&refusal)),
        };
        let checkpoint = start.checkpoint_id.as_deref();
        let at = match threads.named_base(&thread, checkpoint, true).await? {
            Ok(at) => at,
            Err(refusal) => return refused(outward::refusal(&refusal)),
        };
        let config: RunConfig = start.config.unwrap_or_default();
        let event = Event::Start(Box::new(Start {
            command: command.clone(),
            run: run.clone(),
            graph,
            topology,
            profile: self.settings.profile,
            input,
            recursion_limit: limit.unwrap_or(RECURSION_LIMIT),
            config: object(config.configurable),
            metadata: object(start.metadata),
            terms,
            at,
            strategy,
            not_before,
            before: None,
        }));
        Ok(asked(&thread, Ok(event), Some(run.clone())))
    }

    /// The recursion limit that a command asks for, if it may.
    fn limit_of(&self, config: Option<&RunConfig>) -> Result<Option<u32>, Told> {
        let limit = config.and_then(|config| config.recursion_limit);
        let limit_max = self.settings.limits.recursion_limit_max;
        match limit {
            Some(limit) if limit > limit_max => Err(outward::refusal(&Refusal::InvalidInput {
                reason: format!("config.recursion_limit is {limit} and may be at most {limit_max}"),
            })),
            limit => Ok(limit),
        }
    }

    /// The limit of a run that goes on: LangGraph knows of no run before.
    fn limit_of_next(&self, limit: Option<u32>) -> Option<u32> {
        match self.settings.profile {
            Profile::Default => limit,
            Profile::Langgraph => Some(limit.unwrap_or(RECURSION_LIMIT)),
        }
    }
}

/// The input that a resume is to a thread that is not there; `None` if it says nothing.
pub(crate) fn begins_with(resume: &Resume) -> Option<Value> {
    if !resume.update.is_null() || !resume.goto.is_empty() {
        let goto = resume.goto.iter().cloned().map(Into::into).collect();
        return Some(command_input(&resume.update, goto));
    }
    resume.answers.is_some().then(|| Value::Object(Map::new()))
}

fn named(run: Option<String>, command: &CommandRef) -> RunId {
    run.map_or_else(|| made_run(&command.id), RunId::from)
}

fn object(map: BTreeMap<String, Value>) -> Map<String, Value> {
    map.into_iter().collect()
}

pub(super) fn unsupported(what: &str, instead: &str) -> Told {
    outward::refusal(&Refusal::Unsupported {
        what: what.to_owned(),
        instead: instead.to_owned(),
    })
}
