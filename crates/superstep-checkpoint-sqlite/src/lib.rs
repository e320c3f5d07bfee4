//! The embedded store: the thread log, and the queue beside it, in one SQLite file.
//!
//! [`DataDir`] is the folder that a person names, locked for the one worker process that works
//! on it; [`Database`] is the file in it, open; [`SqliteLog`] is the thread log in the file,
//! [`SqliteQueue`] the commands, work and events. Other processes may open the same file
//! beside the worker, to read, to send commands and to follow events.
//!
//! The ports' contracts are the rule it keeps; the tables are meant to be read with any SQLite
//! tool. It leaves to others what the records mean.

mod data_dir;
mod database;
mod failure;
mod log;
mod queue;
mod schema;
mod sweeps;
mod value;

pub use data_dir::{DataDir, DataDirError, Role};
pub use database::Database;
pub use log::SqliteLog;
pub use queue::{SqliteQueue, SqliteQueueSettings};
