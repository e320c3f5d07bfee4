//! The outbox: a file that stands for a mail service.
//!
//! Each send adds one line of JSON with the task's idempotency key, so that a mail that went out
//! twice is there twice for everyone to see. A real service would be given the key and drop the
//! second one.

use std::{fs::File, io::Write as _, path::PathBuf};

use serde_json::json;
use superstep::{Context, NodeError};

/// Where mails go.
#[derive(Clone, Debug)]
pub struct Outbox {
    path: PathBuf,
}

impl Outbox {
    /// The file that `SUPERSTEP_OUTBOX` names, else `outbox.jsonl` in the working folder.
    pub fn from_env() -> Self {
        let named = std::env::var_os("SUPERSTEP_OUTBOX").filter(|path| !path.is_empty());
        Self::at(named.unwrap_or_else(|| "outbox.jsonl".into()))
    }

    /// This file; it is made by the first mail.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Sends a mail on behalf of a task.
    ///
    /// # Errors
    /// If the file cannot be written.
    ///
    /// # Cancel safety
    /// A mail whose sending began is sent.
    ///
    /// # Panics
    /// Never: writing a file does not panic.
    pub async fn send(&self, ctx: &Context, body: &str) -> Result<(), NodeError> {
        let mail = json!({
            "idempotency_key": ctx.idempotency_key(),
            "thread_id": ctx.thread_id(),
            "body": body,
        });
        // One write for the line and its end: lines of several workers never mix.
        let line = format!("{mail}\n");
        let path = self.path.clone();
        let written = tokio::task::spawn_blocking(move || {
            let mut file = File::options().append(true).create(true).open(&path)?;
            file.write_all(line.as_bytes())
        });
        let written: std::io::Result<()> = written.await.expect("writing a file does not panic");
        written.map_err(|error| {
            let place = self.path.display();
            let message = format!(
                "the mail could not be written to {place}: {error}; set SUPERSTEP_OUTBOX to a \
                 file that can be written, then retry the thread"
            );
            NodeError::new("OutboxFailed", message)
        })
    }
}
