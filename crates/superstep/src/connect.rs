//! Connections: from plain settings to a thread log and a queue.
//!
//! [`ConnectSettings`] are what a person writes down: text and numbers from a file, the
//! environment or flags, with a default each. One function checks all of them and reports
//! every mistake at once; what it gives has no more options that "should be set". What the
//! servers do then is left to the adapters.
//!
//! The rule it keeps: a secret is never shown, neither by `Debug` nor in an error.

mod checked;
mod open;

#[cfg(test)]
mod tests;

use std::{env, fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

pub use checked::{Cluster, Mistake, Mistakes};
pub use open::{
    ConnectError, Connected, EmbeddedAccess, ServerFailure, connect_cluster, connect_log,
    connect_queue, connect_store, open_embedded,
};

/// Where the servers are and how to get in. A setting is named alike everywhere: `nats_url` is
/// `SUPERSTEP_NATS_URL` in the environment.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ConnectSettings {
    /// Addresses of NATS servers of one system, separated by commas, as `nats://host:port` or
    /// `tls://host:port`. Default `nats://127.0.0.1:4222`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_url: Option<String>,
    /// A NATS credentials file (JWT and seed). One way to get in may be given, or none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_credentials: Option<PathBuf>,
    /// A NATS user, with `nats_password`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_user: Option<String>,
    /// The NATS user's password. Secret.
    #[serde(skip_serializing)]
    pub nats_password: Option<String>,
    /// A NATS token. Secret.
    #[serde(skip_serializing)]
    pub nats_token: Option<String>,
    /// The seed of a NATS nkey, or a file that holds it. Secret.
    #[serde(skip_serializing)]
    pub nats_nkey: Option<String>,
    /// Certificates (PEM file) to trust for NATS in the place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_ca: Option<PathBuf>,
    /// This client's certificate (PEM file) for NATS, with `nats_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_cert: Option<PathBuf>,
    /// The key (PEM file) of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_key: Option<PathBuf>,
    /// Copies of each stream in a NATS cluster, 1 to 5, for streams that are created. Default 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nats_replicas: Option<usize>,
    /// The address of Redis or Valkey as `redis://host:port`, `rediss://` for TLS;
    /// `redis+cluster://` or `rediss+cluster://` for a node of a Cluster;
    /// `redis+sentinel://host:port/service` or `rediss+sentinel://` for a Sentinel and its name of
    /// the master. Several are separated by commas. Default `redis://127.0.0.1:6379`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_url: Option<String>,
    /// A Redis user, with `redis_password`; the default user without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_user: Option<String>,
    /// The Redis user's password. Secret.
    #[serde(skip_serializing)]
    pub redis_password: Option<String>,
    /// Certificates (PEM file) to trust for Redis in the place of the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_ca: Option<PathBuf>,
    /// This client's certificate (PEM file) for Redis, with `redis_key`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_cert: Option<PathBuf>,
    /// The key (PEM file) of that certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub redis_key: Option<PathBuf>,
    /// Keeps tenants apart, in keys and subjects: letters, digits, `_` and `-`. Default
    /// `default`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// How every key and subject begins; same characters. Default `superstep`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub prefix: Option<String>,
    /// How long a server may take to accept the connection, in milliseconds. Default 5,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connect_timeout_ms: Option<u64>,
}

impl ConnectSettings {
    /// The name of every setting. The variable of one is its name in capitals after
    /// `SUPERSTEP_`.
    pub const NAMES: [&str; 19] = [
        "nats_url",
        "nats_credentials",
        "nats_user",
        "nats_password",
        "nats_token",
        "nats_nkey",
        "nats_ca",
        "nats_cert",
        "nats_key",
        "nats_replicas",
        "redis_url",
        "redis_user",
        "redis_password",
        "redis_ca",
        "redis_cert",
        "redis_key",
        "namespace",
        "prefix",
        "connect_timeout_ms",
    ];

    /// Reads the variables of the environment; an empty one counts as unset.
    ///
    /// # Errors
    /// If a value is not of its setting's type; all such values are named.
    pub fn from_env() -> Result<Self, Mistakes> {
        let mut settings = Self::default();
        let mut mistakes = Vec::new();
        for name in Self::NAMES {
            let variable = format!("SUPERSTEP_{}", name.to_uppercase());
            match env::var(&variable) {
                Ok(value) if !value.is_empty() => {
                    mistakes.extend(settings.set(name, &value).err());
                }
                Ok(_) | Err(env::VarError::NotPresent) => {}
                Err(env::VarError::NotUnicode(_)) => {
                    mistakes.push(Mistake::new(name, "is not UTF-8"));
                }
            }
        }
        Mistakes::none_or(mistakes)?;
        Ok(settings)
    }

    /// Sets the setting `name` from text.
    ///
    /// # Errors
    /// If there is no such setting, or the text is not of its type.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), Mistake> {
        let text = || Some(value.to_owned());
        let path = || Some(PathBuf::from(value));
        match name {
            "nats_url" => self.nats_url = text(),
            "nats_credentials" => self.nats_credentials = path(),
            "nats_user" => self.nats_user = text(),
            "nats_password" => self.nats_password = text(),
            "nats_token" => self.nats_token = text(),
            "nats_nkey" => self.nats_nkey = text(),
            "nats_ca" => self.nats_ca = path(),
            "nats_cert" => self.nats_cert = path(),
            "nats_key" => self.nats_key = path(),
            "nats_replicas" => self.nats_replicas = Some(number("nats_replicas", value)?),
            "redis_url" => self.redis_url = text(),
            "redis_user" => self.redis_user = text(),
            "redis_password" => self.redis_password = text(),
            "redis_ca" => self.redis_ca = path(),
            "redis_cert" => self.redis_cert = path(),
            "redis_key" => self.redis_key = path(),
            "namespace" => self.namespace = text(),
            "prefix" => self.prefix = text(),
            "connect_timeout_ms" => {
                self.connect_timeout_ms = Some(number("connect_timeout_ms", value)?);
            }
            unknown => {
                return Err(Mistake::new(
                    unknown,
                    format!("is no setting; there are: {}", Self::NAMES.join(", ")),
                ));
            }
        }
        Ok(())
    }

    /// Checks everything that can be checked without a server.
    ///
    /// # Errors
    /// Every mistake at once.
    pub fn check(&self) -> Result<Cluster, Mistakes> {
        checked::check(self)
    }
}

fn number<T: std::str::FromStr>(name: &str, value: &str) -> Result<T, Mistake> {
    value.parse().map_err(|_| {
        Mistake::new(
            name,
            format!("is `{value}`; it must be a whole number of 0 or more"),
        )
    })
}

impl fmt::Debug for ConnectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secret = |value: &Option<String>| value.as_ref().map(|_| "***");
        let url = |url: &Option<String>| url.as_deref().map(checked::without_secrets);
        f.debug_struct("ConnectSettings")
            .field("nats_url", &url(&self.nats_url))
            .field("nats_credentials", &self.nats_credentials)
            .field("nats_user", &self.nats_user)
            .field("nats_password", &secret(&self.nats_password))
            .field("nats_token", &secret(&self.nats_token))
            .field("nats_nkey", &secret(&self.nats_nkey))
            .field("nats_ca", &self.nats_ca)
            .field("nats_cert", &self.nats_cert)
            .field("nats_key", &self.nats_key)
            .field("nats_replicas", &self.nats_replicas)
            .field("redis_url", &url(&self.redis_url))
            .field("redis_user", &self.redis_user)
            .field("redis_password", &secret(&self.redis_password))
            .field("redis_ca", &self.redis_ca)
            .field("redis_cert", &self.redis_cert)
            .field("redis_key", &self.redis_key)
            .field("namespace", &self.namespace)
            .field("prefix", &self.prefix)
            .field("connect_timeout_ms", &self.connect_timeout_ms)
            .finish()
    }
}
