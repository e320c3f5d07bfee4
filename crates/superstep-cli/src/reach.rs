//! Reaching what the settings name: the servers of a cluster, or the folder of a store.
//!
//! What a failure means for the exit code, and what to try next, is decided here. Opening is
//! left to [`superstep::connect`].

use superstep::connect::{ConnectError, Connected, EmbeddedAccess, connect_cluster, open_embedded};
use superstep_checkpoint_sqlite::DataDirError;
use superstep_worker::ErrorKind;

use crate::{
    exit::{Exit, Failure},
    output::Output,
    settings::{Place, Settings},
    telemetry::Telemetry,
};

/// What a subcommand is given.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) settings: Settings,
    pub(crate) output: Output,
    /// Where spans go, of a process that works.
    pub(crate) telemetry: Option<Telemetry>,
}

impl Session {
    /// Opens what the settings name, as a client.
    pub(crate) async fn connect(&self) -> Result<Connected, Failure> {
        let settings = &self.settings;
        let opened = match &settings.place {
            Place::Cluster { .. } => Box::pin(connect_cluster(&settings.connect)).await,
            Place::Folder(folder) => {
                Box::pin(open_embedded(
                    folder,
                    EmbeddedAccess::Client,
                    &settings.connect,
                ))
                .await
            }
        };
        opened.map_err(|error| self.failure(&error))
    }

    /// The failure that an error of opening is.
    pub(crate) fn failure(&self, error: &ConnectError) -> Failure {
        let exit = match (error, error.kind()) {
            (ConnectError::Folder(DataDirError::Locked { .. }), _) | (_, ErrorKind::Corrupt) => {
                Exit::Failed
            }
            (_, ErrorKind::Retry) => Exit::Unreachable,
            (_, ErrorKind::Invalid) => Exit::Usage,
        };
        let failure = Failure::new(exit, superstep_worker::chain(error));
        match (&self.settings.place, error) {
            (Place::Folder(folder), ConnectError::Folder(DataDirError::Empty { .. })) => {
                failure.with_hint(format!("superstep --data {} dev", folder.display()))
            }
            (Place::Cluster { said: false }, _) if exit == Exit::Unreachable => failure.with_hint(
                "name the servers with --nats-url and --redis-url, or the folder that \
                 `superstep dev` works on with --data",
            ),
            _ => failure,
        }
    }
}
