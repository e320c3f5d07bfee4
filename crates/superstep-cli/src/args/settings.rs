//! The flags that are settings.
//!
//! All are optional text here: the environment and a file may give them too, and one place
//! checks them. `-h` leaves out what few need.

use std::path::PathBuf;

use clap::Args;

/// What every subcommand takes.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Output")]
pub(crate) struct GlobalArgs {
    /// JSON for machines in the place of tables for people
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// What is logged: a level, or directives such as info,superstep_worker=debug
    #[arg(long, global = true, value_name = "FILTER", hide_short_help = true)]
    pub(crate) log: Option<String>,
    /// How logs look: text or json
    #[arg(long, global = true, value_name = "FORMAT", hide_short_help = true)]
    pub(crate) log_format: Option<String>,
    /// Who sends a command, kept with answers [default: the user's name]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) sender: Option<String>,
    #[command(flatten)]
    pub(crate) connect: ConnectArgs,
}

/// Where threads live.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Connection")]
pub(crate) struct ConnectArgs {
    /// A file of settings [default: superstep.toml if it is there]
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// A folder with an embedded store, in the place of servers
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data: Option<String>,
    /// Addresses of NATS [default: nats://127.0.0.1:4222]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) nats_url: Option<String>,
    /// Address of Redis or Valkey [default: redis://127.0.0.1:6379]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) redis_url: Option<String>,
    /// The tenant [default: default]
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// How subjects and keys begin [default: superstep]
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) prefix: Option<String>,
    /// How long a server may take to accept the connection [default: 5000]
    #[arg(long, global = true, value_name = "MS", hide_short_help = true)]
    pub(crate) connect_timeout_ms: Option<String>,
    /// NATS credentials file
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) nats_credentials: Option<String>,
    /// NATS user
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) nats_user: Option<String>,
    /// NATS password; better in the environment, as other users see flags
    #[arg(long, global = true, value_name = "SECRET", hide_short_help = true)]
    pub(crate) nats_password: Option<String>,
    /// NATS token; better in the environment
    #[arg(long, global = true, value_name = "SECRET", hide_short_help = true)]
    pub(crate) nats_token: Option<String>,
    /// File with the seed of a NATS nkey
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) nats_nkey: Option<String>,
    /// Certificates to trust for NATS
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) nats_ca: Option<String>,
    /// This client's certificate for NATS
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) nats_cert: Option<String>,
    /// The key of that certificate
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) nats_key: Option<String>,
    /// Copies of each stream that is created [default: 1]
    #[arg(long, global = true, value_name = "N", hide_short_help = true)]
    pub(crate) nats_replicas: Option<String>,
    /// Redis user
    #[arg(long, global = true, value_name = "NAME", hide_short_help = true)]
    pub(crate) redis_user: Option<String>,
    /// Redis password; better in the environment
    #[arg(long, global = true, value_name = "SECRET", hide_short_help = true)]
    pub(crate) redis_password: Option<String>,
    /// Certificates to trust for Redis
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) redis_ca: Option<String>,
    /// This client's certificate for Redis
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) redis_cert: Option<String>,
    /// The key of that certificate
    #[arg(long, global = true, value_name = "FILE", hide_short_help = true)]
    pub(crate) redis_key: Option<String>,
}

impl GlobalArgs {
    /// The flags that are settings, by the setting's name.
    pub(crate) fn settings(&self) -> Vec<(&'static str, Option<String>)> {
        let connect = &self.connect;
        [
            ("log", &self.log),
            ("log_format", &self.log_format),
            ("sender", &self.sender),
            ("data", &connect.data),
            ("nats_url", &connect.nats_url),
            ("redis_url", &connect.redis_url),
            ("namespace", &connect.namespace),
            ("prefix", &connect.prefix),
            ("connect_timeout_ms", &connect.connect_timeout_ms),
            ("nats_credentials", &connect.nats_credentials),
            ("nats_user", &connect.nats_user),
            ("nats_password", &connect.nats_password),
            ("nats_token", &connect.nats_token),
            ("nats_nkey", &connect.nats_nkey),
            ("nats_ca", &connect.nats_ca),
            ("nats_cert", &connect.nats_cert),
            ("nats_key", &connect.nats_key),
            ("nats_replicas", &connect.nats_replicas),
            ("redis_user", &connect.redis_user),
            ("redis_password", &connect.redis_password),
            ("redis_ca", &connect.redis_ca),
            ("redis_cert", &connect.redis_cert),
            ("redis_key", &connect.redis_key),
        ]
        .map(|(name, value)| (name, value.clone()))
        .into()
    }
}

/// Arguments of `worker`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep worker
  superstep --nats-url nats://n1:4222 --redis-url redis://r1:6379 worker --concurrency 64
  SUPERSTEP_LOG_FORMAT=json superstep --config /etc/superstep.toml worker")]
pub(crate) struct WorkerArgs {
    #[command(flatten)]
    pub(crate) worker: WorkerSettingsOnly,
}

/// How a worker works.
#[derive(Debug, Default, Args)]
#[command(next_help_heading = "Worker")]
pub(crate) struct WorkerSettingsOnly {
    /// How many deliveries are worked on at once [default: 32]
    #[arg(long, value_name = "N")]
    pub(crate) concurrency: Option<String>,
    /// How long one attempt of a node may take [default: 10m]
    #[arg(long, value_name = "TIME")]
    pub(crate) task_timeout: Option<String>,
    /// How long to finish what is held when asked to end [default: 25s]
    #[arg(long, value_name = "TIME")]
    pub(crate) drain_timeout: Option<String>,
    /// Where to answer health probes and metrics, such as 0.0.0.0:8080 [default: off]
    #[arg(long, value_name = "ADDR")]
    pub(crate) health_addr: Option<String>,
    /// How long without progress until the worker counts as deaf [default: 30s]
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub(crate) deaf_after: Option<String>,
    /// Keep only the last so many checkpoints of a thread [default: all]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) history_last: Option<String>,
    /// Keep only so much of a thread's past [default: all]
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub(crate) history_for: Option<String>,
    /// Delete a thread once it has ended and rested for so long [default: off]
    #[arg(long, value_name = "TIME", hide_short_help = true)]
    pub(crate) ended_ttl: Option<String>,
    /// How new threads decide: default, or as langgraph does
    #[arg(long, value_name = "NAME", hide_short_help = true)]
    pub(crate) profile: Option<String>,
    /// The most tasks in one superstep [default: 10000]
    #[arg(long, value_name = "N", hide_short_help = true)]
    pub(crate) tasks_max: Option<String>,
    /// The largest command [default: 983040]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) command_bytes_max: Option<String>,
    /// The largest record of a superstep [default: 8388608]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) record_bytes_max: Option<String>,
    /// The largest state of a thread [default: 16777216]
    #[arg(long, value_name = "BYTES", hide_short_help = true)]
    pub(crate) state_bytes_max: Option<String>,
}

impl WorkerSettingsOnly {
    /// The flags that are settings, by the setting's name.
    pub(crate) fn settings(&self) -> Vec<(&'static str, Option<String>)> {
        [
            ("concurrency", &self.concurrency),
            ("task_timeout", &self.task_timeout),
            ("drain_timeout", &self.drain_timeout),
            ("deaf_after", &self.deaf_after),
            ("health_addr", &self.health_addr),
            ("history_last", &self.history_last),
            ("history_for", &self.history_for),
            ("ended_ttl", &self.ended_ttl),
            ("profile", &self.profile),
            ("tasks_max", &self.tasks_max),
            ("command_bytes_max", &self.command_bytes_max),
            ("record_bytes_max", &self.record_bytes_max),
            ("state_bytes_max", &self.state_bytes_max),
        ]
        .map(|(name, value)| (name, value.clone()))
        .into()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_setting_has_a_flag() {
        let flags: BTreeSet<&str> = GlobalArgs::default()
            .settings()
            .into_iter()
            .chain(WorkerSettingsOnly::default().settings())
            .map(|(name, _)| name)
            .collect();
        let names: BTreeSet<&str> = crate::settings::names().collect();
        assert_eq!(flags, names);
    }
}
