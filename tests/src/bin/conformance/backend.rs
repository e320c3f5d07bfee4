//! Backends: where the threads of a case live.
//!
//! A case has a backend of its own, so that no case sees another's threads; servers, where there
//! are any, are started once and shared. A composition root: it opens stores and leaves
//! everything that happens on them to the library.

use std::num::NonZeroUsize;

use serde_json::Value;
use superstep::{Embedded, EmbeddedBuilder, Graph, Profile, RunOptions, RunOutput, WorkerSettings};
use tempfile::TempDir;

use crate::{
    args::BackendKind,
    cluster::{Cluster, Servers},
    handle::{Declined, Handle, broken},
    ops::Fault,
};

/// What the cases of a run share.
#[derive(Debug)]
pub(crate) struct Backends {
    kind: BackendKind,
    servers: Option<Servers>,
}

impl Backends {
    /// Starts what is shared.
    ///
    /// # Errors
    /// If servers are needed and do not come up.
    pub(crate) fn start(kind: BackendKind) -> anyhow::Result<Self> {
        let servers = match kind {
            BackendKind::Memory | BackendKind::Sqlite => None,
            BackendKind::Cluster => Some(Servers::start()?),
        };
        Ok(Self { kind, servers })
    }

    /// Opens a fresh backend with the graph of a case.
    pub(crate) async fn open(&self, graph: Graph<Value>) -> Result<Backend, Fault> {
        if let Some(servers) = &self.servers {
            let cluster = Box::pin(Cluster::open(servers, graph)).await?;
            return Ok(Backend::Cluster(Box::new(cluster)));
        }
        let folder = match self.kind {
            BackendKind::Sqlite => Some(
                tempfile::tempdir()
                    .map_err(|error| Fault::Broken(format!("no folder for the store: {error}")))?,
            ),
            BackendKind::Memory | BackendKind::Cluster => None,
        };
        let builder = match &folder {
            Some(folder) => Embedded::sqlite(folder.path()),
            None => Embedded::memory(),
        };
        let app = embedded(builder, graph).await?;
        Ok(Backend::Embedded {
            app: Box::new(app),
            _folder: folder,
        })
    }
}

async fn embedded(builder: EmbeddedBuilder, graph: Graph<Value>) -> Result<Embedded, Fault> {
    let settings = WorkerSettings {
        profile: Profile::Langgraph,
        tasks_at_once: Some(NonZeroUsize::MIN),
        ..WorkerSettings::default()
    };
    let app = builder.graph(graph).settings(settings).build().await;
    app.map_err(|error| broken(&error))
}

/// The store and the graph of a case.
#[derive(Debug)]
pub(crate) enum Backend {
    /// In this process.
    Embedded {
        app: Box<Embedded>,
        _folder: Option<TempDir>,
    },
    /// On servers.
    Cluster(Box<Cluster>),
}

impl Backend {
    /// Runs the graph and keeps nothing.
    pub(crate) async fn run_once(
        &self,
        input: Value,
        options: RunOptions,
    ) -> Result<RunOutput, Declined> {
        match self {
            Self::Embedded { app, .. } => Ok(Box::pin(app.run_once(input, options)).await?),
            Self::Cluster(cluster) => cluster.run_once(input, options).await,
        }
    }

    /// Whether each task of a superstep is a delivery of its own.
    pub(crate) fn spreads_tasks(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }

    /// A thread by its name.
    pub(crate) fn thread(&self, name: &str) -> Handle {
        match self {
            Self::Embedded { app, .. } => Handle::Embedded(app.thread(name)),
            Self::Cluster(cluster) => Handle::Cluster(Box::new(cluster.thread(name))),
        }
    }
}
