//! Where NATS is, how to get in, and the bounds of what is made there.
//!
//! Plain values; files are read and servers reached in `connect`. Secrets never show: not in
//! `Debug`, not in an address that an error names.

use std::{fmt, path::PathBuf, time::Duration};

/// Settings of a [`crate::NatsQueue`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NatsSettings {
    /// Addresses of servers of one system, as `nats://host:port` or `tls://host:port`; any
    /// that answers will do, and the others are tried when it fails. A user and password, or
    /// a token as the user, may stand in an address.
    pub urls: Vec<String>,
    /// The first token of subjects and first part of stream names.
    pub prefix: String,
    /// The second token of subjects, which keeps tenants apart.
    pub namespace: String,
    /// How to get in.
    pub auth: NatsAuth,
    /// How the connection is encrypted.
    pub tls: NatsTls,
    /// How long one server may take to accept the connection. 5 s.
    pub connect_timeout: Duration,
    /// How long the server may take for an answer, such as the ack of a publish. 5 s.
    pub request_timeout: Duration,
    /// The lease of a work delivery: how fast a dead worker is noticed. 6 s, constant, so that
    /// a thread whose worker is killed goes on within 8 s. A
    /// consumer that exists keeps the one it was made with.
    pub ack_wait: Duration,
    /// The lease of a command. 12 s: commands are acked late, so it must be above twice the
    /// time until their record is durable.
    pub command_ack_wait: Duration,
    /// Unanswered work deliveries of one graph version, over all workers. 10,000.
    pub work_ack_pending_max: u32,
    /// Unanswered commands, over all workers. 100,000: above the peak rate times the time
    /// until an ack.
    pub command_ack_pending_max: u32,
    /// Work messages in the stream; more are refused. 1,000,000.
    pub work_messages_max: u64,
    /// Bytes in the work stream; not bounded on a NATS older than 2.10.5. 1 GiB.
    pub work_bytes_max: u64,
    /// Commands in their stream; more are refused. 1,000,000.
    pub command_messages_max: u64,
    /// Bytes in the stream of commands; not bounded on a NATS older than 2.10.5. 1 GiB.
    pub command_bytes_max: u64,
    /// How long events are kept. 7 days.
    pub event_age_max: Duration,
    /// Bytes of events kept; the oldest make room. 2 GiB.
    pub event_bytes_max: u64,
    /// How long a stream remembers a message id. 2 min.
    pub duplicate_window: Duration,
    /// Copies of each stream in a cluster of servers, 1 to 5. 1.
    pub replicas: usize,
}

impl Default for NatsSettings {
    fn default() -> Self {
        const GIB: u64 = 1 << 30;
        Self {
            urls: vec!["nats://127.0.0.1:4222".to_owned()],
            prefix: "superstep".to_owned(),
            namespace: "default".to_owned(),
            auth: NatsAuth::None,
            tls: NatsTls::default(),
            connect_timeout: Duration::from_secs(5),
            request_timeout: Duration::from_secs(5),
            ack_wait: Duration::from_secs(6),
            command_ack_wait: Duration::from_secs(12),
            work_ack_pending_max: 10_000,
            command_ack_pending_max: 100_000,
            work_messages_max: 1_000_000,
            work_bytes_max: GIB,
            command_messages_max: 1_000_000,
            command_bytes_max: GIB,
            event_age_max: Duration::from_secs(7 * 24 * 60 * 60),
            event_bytes_max: 2 * GIB,
            duplicate_window: Duration::from_secs(120),
            replicas: 1,
        }
    }
}

/// How to get in.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum NatsAuth {
    /// With what an address carries, if it carries anything.
    #[default]
    None,
    /// As a user with a password.
    User {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// With a token.
    Token(String),
    /// With a credentials file (JWT and seed), as the `nsc` tool writes it.
    CredentialsFile(PathBuf),
    /// With the seed of an nkey.
    Nkey(String),
}

impl fmt::Debug for NatsAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::User { user, .. } => write!(f, "User({user})"),
            Self::Token(_) => f.write_str("Token"),
            Self::CredentialsFile(path) => write!(f, "CredentialsFile({})", path.display()),
            Self::Nkey(_) => f.write_str("Nkey"),
        }
    }
}

/// How the connection is encrypted. A server that requires TLS gets it without any of these.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NatsTls {
    /// Refuse to speak to a server without TLS, as a `tls://` address does.
    pub required: bool,
    /// Begin with TLS instead of waiting for the server's greeting, for servers set up so.
    pub first: bool,
    /// The certificates (PEM) to trust instead of the system's.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate (PEM).
    pub client_cert: Option<PathBuf>,
    /// The key (PEM) of this client's certificate.
    pub client_key: Option<PathBuf>,
}
