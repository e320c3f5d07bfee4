//! Backends: where the threads of a case live.
//!
//! A case has a backend of its own, so that no case sees another's threads. A composition root:
//! it opens stores and leaves everything that happens on them to the library.

use std::sync::Arc;

use serde_json::Value;
use superstep::{Embedded, Graph, Profile, WorkerSettings};
use tempfile::TempDir;

use crate::{args::BackendKind, graphs::Unsupported, handle::Handle, ops::Fault};

/// The store and the graph of a case.
#[derive(Debug)]
pub(crate) struct Backend {
    app: Embedded,
    _folder: Option<Arc<TempDir>>,
}

impl Backend {
    /// Opens a fresh one.
    pub(crate) async fn open(kind: BackendKind, graph: Graph<Value>) -> Result<Self, Fault> {
        let (builder, folder) = match kind {
            BackendKind::Memory => (Embedded::memory(), None),
            BackendKind::Sqlite => {
                let folder = tempfile::tempdir()
                    .map_err(|error| Fault::Broken(format!("no folder for the store: {error}")))?;
                (Embedded::sqlite(folder.path()), Some(Arc::new(folder)))
            }
            BackendKind::Cluster => return Err(Unsupported::new("the cluster as a backend").into()),
        };
        let settings = WorkerSettings {
            profile: Profile::Langgraph,
            ..WorkerSettings::default()
        };
        let app = builder.graph(graph).settings(settings).build().await;
        Ok(Self {
            app: app.map_err(|error| Fault::Broken(error.to_string()))?,
            _folder: folder,
        })
    }

    /// A thread by its name.
    pub(crate) fn thread(&self, name: &str) -> Handle {
        Handle::Embedded(self.app.thread(name))
    }
}
