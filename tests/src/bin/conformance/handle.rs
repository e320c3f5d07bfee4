//! Handles: a thread of a case, wherever it lives, with what operations ask of threads.
//!
//! One type for all backends, so that `ops` says each operation once. An operation that a
//! backend has no word for is `Unsupported` here, by name, and nowhere else. What an answer means
//! for a case is left to `ops`.
//!
//! The rule it keeps: a refusal is told by its kind, whether it came as a value or over the wire.

use serde_json::Value;
use superstep::{
    CheckpointView, RunCommand, RunOptions, RunOutput, RunStream, StateView, StreamEvent, Thread,
    Update, WaitingSubgraph,
};
use superstep_graph::Target;

use crate::{cluster::ClusterThread, graphs::Unsupported, ops::Fault};

/// A thread on some backend.
#[derive(Clone, Debug)]
pub(crate) enum Handle {
    /// In this process.
    Embedded(Thread),
    /// On servers, through a client.
    Cluster(Box<ClusterThread>),
}

/// A subgraph of a thread, inside which a task waits.
#[derive(Clone, Debug)]
pub(crate) enum Inside {
    /// In this process.
    Embedded(WaitingSubgraph),
    /// On servers: the thread, and the place.
    Cluster(Box<ClusterThread>, Vec<String>),
}

impl Inside {
    /// Its state as it is now; `None` if there is no such thread.
    pub(crate) async fn state(&self) -> Result<Option<StateView>, Declined> {
        match self {
            Self::Embedded(inside) => Ok(inside.state().await?),
            Self::Cluster(thread, place) => thread.state_inside(place, false).await,
        }
    }

    /// Its newest checkpoints, at most `limit`.
    pub(crate) async fn history(&self, limit: usize) -> Result<Vec<CheckpointView>, Declined> {
        match self {
            Self::Embedded(inside) => Ok(inside.history(limit).await?),
            Self::Cluster(thread, place) => thread.history_inside(place, limit).await,
        }
    }

    /// Updates its state.
    pub(crate) async fn update_state(
        &self,
        values: Value,
        as_node: Option<&str>,
    ) -> Result<(), Declined> {
        match self {
            Self::Embedded(inside) => {
                inside.update_state(values, as_node).await?;
            }
            Self::Cluster(thread, place) => {
                thread.update_inside(place, values, as_node).await?;
            }
        }
        Ok(())
    }
}

/// A command as a run's input.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Commanded {
    /// The answer, or answers by id.
    pub(crate) resume: Option<Value>,
    /// The update; null for none.
    pub(crate) update: Value,
    /// Where to go.
    pub(crate) goto: Vec<Target>,
}

/// Why a thread did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Declined {
    /// It refuses, by a refusal of this kind.
    Refused(String),
    /// It could not be asked, or could not answer.
    Fault(Fault),
}

impl Handle {
    /// Starts a run and waits for its end; null goes on with what is left. What the run tells on
    /// the way is added to `events`.
    pub(crate) async fn invoke_with(
        &self,
        input: Value,
        options: RunOptions,
        events: &mut Vec<StreamEvent>,
    ) -> Result<RunOutput, Declined> {
        match self {
            Self::Embedded(thread) => follow(thread.stream_with(input, options), events).await,
            Self::Cluster(thread) => thread.invoke_with(input, options, events).await,
        }
    }

    /// The thread as of one of its checkpoints.
    pub(crate) fn at(&self, checkpoint: &str) -> Self {
        match self {
            Self::Embedded(thread) => Self::Embedded(thread.at(checkpoint)),
            Self::Cluster(thread) => Self::Cluster(Box::new(thread.at(checkpoint))),
        }
    }

    /// Goes on as the command says and waits for the run's end; `events` are as for
    /// [`invoke_with`](Self::invoke_with).
    pub(crate) async fn command_with(
        &self,
        command: Commanded,
        options: RunOptions,
        events: &mut Vec<StreamEvent>,
    ) -> Result<RunOutput, Declined> {
        match self {
            Self::Embedded(thread) => {
                let Commanded {
                    resume,
                    update,
                    goto,
                } = command;
                let mut command = RunCommand::new();
                if let Some(resume) = resume {
                    command = command.resume(resume);
                }
                command = command.update(update);
                for target in goto {
                    command = match target {
                        Target::Node(node) => command.goto(node),
                        Target::Send(packet) => {
                            command.send(superstep::Send::to(packet.node, packet.arg))
                        }
                    };
                }
                follow(thread.stream_command(command, options), events).await
            }
            Self::Cluster(thread) => thread.command_with(command, options, events).await,
        }
    }

    /// Updates the state, each superstep by several nodes at once.
    pub(crate) async fn update_state(
        &self,
        supersteps: Vec<Vec<Update>>,
    ) -> Result<StateView, Declined> {
        match self {
            Self::Embedded(thread) => Ok(thread.bulk_update_state(supersteps).await?),
            Self::Cluster(thread) => thread.update_state(supersteps).await,
        }
    }

    /// The subgraph at a place, inside which a task waits.
    pub(crate) fn subgraph(&self, place: &[String]) -> Inside {
        match self {
            Self::Embedded(thread) => {
                Inside::Embedded(thread.subgraph(place.iter().map(String::as_str)))
            }
            Self::Cluster(thread) => Inside::Cluster(thread.clone(), place.to_vec()),
        }
    }

    /// The thread as it is now, with the states of subgraphs.
    pub(crate) async fn state_with_subgraphs(&self) -> Result<Option<StateView>, Declined> {
        match self {
            Self::Embedded(thread) => Ok(thread.state_with_subgraphs().await?),
            Self::Cluster(thread) => thread.state_inside(&[], true).await,
        }
    }

    /// The thread as it is now; `None` if there is none.
    pub(crate) async fn state(&self) -> Result<Option<StateView>, Declined> {
        match self {
            Self::Embedded(thread) => Ok(thread.state().await?),
            Self::Cluster(thread) => thread.state().await,
        }
    }

    /// The newest checkpoints, at most `limit`.
    pub(crate) async fn history(&self, limit: usize) -> Result<Vec<CheckpointView>, Declined> {
        match self {
            Self::Embedded(thread) => Ok(thread.history(limit).await?),
            Self::Cluster(thread) => thread.history(limit).await,
        }
    }
}

impl Handle {
    /// The newest checkpoints that `wanted` picks, at most `limit`.
    pub(crate) async fn history_where(
        &self,
        limit: usize,
        wanted: impl Fn(&CheckpointView) -> bool,
    ) -> Result<Vec<CheckpointView>, Declined> {
        match self {
            Self::Embedded(thread) => Ok(thread.history_where(limit, wanted).await?),
            Self::Cluster(thread) => {
                let all = thread.history(usize::MAX).await?;
                Ok(all
                    .into_iter()
                    .filter(|view| wanted(view))
                    .take(limit)
                    .collect())
            }
        }
    }
}

async fn follow(
    mut stream: RunStream,
    events: &mut Vec<StreamEvent>,
) -> Result<RunOutput, Declined> {
    while let Some(event) = stream.next().await {
        events.push(event);
    }
    Ok(stream.output().await?)
}

impl Declined {
    /// As a fault, where a refusal is no observation.
    pub(crate) fn into_fault(self) -> Fault {
        match self {
            Self::Refused(kind) => Fault::Broken(format!("refused: {kind}")),
            Self::Fault(fault) => fault,
        }
    }
}

impl From<superstep::Error> for Declined {
    fn from(error: superstep::Error) -> Self {
        match error.refusal() {
            Some(refusal) => Self::Refused(refusal.kind().to_owned()),
            None => Self::Fault(broken(&error)),
        }
    }
}

impl From<superstep_worker::Error> for Declined {
    fn from(error: superstep_worker::Error) -> Self {
        superstep::Error::from(error).into()
    }
}

impl From<Unsupported> for Declined {
    fn from(unsupported: Unsupported) -> Self {
        Self::Fault(unsupported.into())
    }
}

/// A failure with all of its causes.
pub(crate) fn broken(error: &dyn std::error::Error) -> Fault {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    Fault::Broken(text)
}

#[cfg(test)]
mod tests {
    use superstep::{Refusal, ThreadId};

    use super::*;

    #[test]
    fn a_refusal_is_told_by_its_kind() {
        let refusal = Refusal::UnknownThread {
            thread: ThreadId::new("t"),
        };
        let declined = Declined::from(superstep::Error::from(refusal));
        assert_eq!(declined, Declined::Refused("unknown_thread".to_owned()));
        let fault = declined.into_fault();
        assert_eq!(fault, Fault::Broken("refused: unknown_thread".to_owned()));
    }

    #[test]
    fn a_failure_is_told_with_its_causes() {
        let lost = std::io::Error::other("the line is cut");
        let outer = std::io::Error::other(lost);
        assert_eq!(broken(&outer), Fault::Broken("the line is cut".to_owned()));
        let error = superstep::Error::Answer("a map".to_owned());
        let declined = Declined::from(error);
        let text = "the answer is no JSON: a map";
        assert_eq!(declined, Declined::Fault(Fault::Broken(text.to_owned())));
    }
}
