//! The folder of an embedded store: who may work on it, and where its file is.
//!
//! A worker locks the folder, so that two processes never run nodes on one store; clients open
//! it beside the worker. The lock is the operating system's, on an open file: it goes away
//! with the process, however that ends. It leaves the store's file to
//! [`Database`](crate::Database).

use std::{
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

/// The store's file in the folder.
const FILE_NAME: &str = "superstep.db";
/// The file that a worker locks. It holds nothing and is never removed: removing it would let
/// a second worker lock another file of the same name.
const LOCK_NAME: &str = "dev.lock";

/// What a process does with a folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It runs nodes: the only such process.
    Worker,
    /// It reads, and sends commands.
    Client,
}

/// Why a folder could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// The folder could not be made or looked at.
    #[error("cannot use {} as data folder; check that it is a folder that you may write to", path.display())]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process works on the folder.
    #[error("another process works on the data folder {}; stop it first, or name another folder", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A client named a folder that no worker ever worked on.
    #[error("there is no store in the data folder {}; start a worker on it first, or name another folder", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
}

/// An open data folder; a worker's lock on it ends when it is dropped.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: Option<File>,
}

impl DataDir {
    /// Opens the folder. A worker makes it if it is not there, and locks it.
    pub fn open(path: impl Into<PathBuf>, role: Role) -> Result<Self, DataDirError> {
        let path = path.into();
        let lock = match role {
            Role::Worker => Some(lock(&path)?),
            Role::Client if path.join(FILE_NAME).is_file() => None,
            Role::Client => return Err(DataDirError::Empty { path }),
        };
        Ok(Self { path, _lock: lock })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The store's file, which may not be there yet.
    pub fn file(&self) -> PathBuf {
        self.path.join(FILE_NAME)
    }
}

fn lock(path: &Path) -> Result<File, DataDirError> {
    let unusable = |source| DataDirError::Unusable {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(path).map_err(unusable)?;
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(path.join(LOCK_NAME))
        .map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::Locked {
            path: path.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(unusable(source)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_worker_is_refused_by_name() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("new/data");
        let first = DataDir::open(&path, Role::Worker).unwrap();
        assert_eq!(first.file(), path.join("superstep.db"));
        let error = DataDir::open(&path, Role::Worker).unwrap_err();
        assert!(matches!(error, DataDirError::Locked { .. }), "{error:?}");
        let message = error.to_string();
        assert!(message.contains(path.to_str().unwrap()), "{message}");
        drop(first);
        DataDir::open(&path, Role::Worker).unwrap();
    }

    #[test]
    fn a_client_opens_beside_the_worker() {
        let parent = tempfile::tempdir().unwrap();
        let worker = DataDir::open(parent.path(), Role::Worker).unwrap();
        let _store = crate::Database::open(worker.file()).unwrap();
        let client = DataDir::open(parent.path(), Role::Client).unwrap();
        assert_eq!(client.path(), worker.path());
    }

    #[test]
    fn a_client_makes_no_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("typo");
        let error = DataDir::open(&path, Role::Client).unwrap_err();
        assert!(matches!(error, DataDirError::Empty { .. }), "{error:?}");
        assert!(!path.exists());
    }

    #[test]
    fn a_file_is_no_data_folder() {
        let parent = tempfile::tempdir().unwrap();
        let path = parent.path().join("file");
        fs::write(&path, "").unwrap();
        let error = DataDir::open(&path, Role::Worker).unwrap_err();
        assert!(matches!(error, DataDirError::Unusable { .. }), "{error:?}");
    }
}
