//! What a Redis log is told: addresses, namespace, time limits.
//!
//! Settings are plain values; `check` turns them into what the link needs and reports every
//! mistake that can be seen without a server. Where the settings come from is left to the caller.
//!
//! The rule it keeps: a password is never shown, neither by `Debug` nor in an error.

use std::{fmt, fs, path::PathBuf, time::Duration};

use redis::{
    ClientTlsConfig, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    TlsCertificates,
};
use superstep_checkpoint::{Error, ErrorKind};

/// How many shards a namespace is created with unless told.
pub const DEFAULT_SHARDS: u16 = 16;

/// The most shards that a namespace may have: lists ask every one.
const SHARDS_MAX: u16 = 1_024;

/// How a thread log in Redis or Valkey is reached, and what of it is ours.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisSettings {
    /// Addresses as `redis://[user:password@]host:port`; `rediss://` for TLS, and
    /// `redis+cluster://` or `rediss+cluster://` for a node of a Cluster, and
    /// `redis+sentinel://[user:password@]host:port/service` or `rediss+sentinel://` for a Sentinel
    /// and its name of the master; user and password are the server's. Of a Cluster several nodes
    /// may be named and of a service all its Sentinels should be; of a standalone server, several
    /// addresses are tried in turn until one takes writes.
    pub urls: Vec<String>,
    /// Keeps tenants apart; letters, digits, `-`, `_` and `.`. Default `default`.
    pub namespace: String,
    /// How every key begins; same characters. Default `superstep`.
    pub prefix: String,
    /// How many shards the namespace gets when it is created, 1 to 1,024; fixed from then on, so
    /// that of an existing namespace its own number counts. At least as many as a Cluster may
    /// ever have masters. Default 16.
    pub shards: u16,
    /// Whether the server is a Cluster; also so with `redis+cluster://`. Default no.
    pub cluster: bool,
    /// A file of certificates (PEM) to trust in the place of the system's.
    pub tls_ca_file: Option<PathBuf>,
    /// A file with the client's certificate chain (PEM), with `tls_key_file`.
    pub tls_cert_file: Option<PathBuf>,
    /// A file with the client's private key (PEM).
    pub tls_key_file: Option<PathBuf>,
    /// How long an answer may take. After it the call's effect is unknown, so it is long enough
    /// for a server that waits for its disk. Default 10 s.
    pub response_timeout: Duration,
    /// How long `connect`, and each later reconnect, may take. Default 5 s.
    pub connect_timeout: Duration,
    /// How long after its append a record is taken to be on disk. Default 2.5 s, as the
    /// append-only file is synced every second and may be a second late; 20 s of a Cluster,
    /// above its node timeout of 15 s. A single server that offers WAITAOF (Redis 7.2, Valkey) is
    /// asked instead, and this is how long it may take.
    pub durable_after: Option<Duration>,
}

impl RedisSettings {
    /// The defaults, at one address or several separated by commas.
    pub fn new(urls: &str) -> Self {
        Self {
            urls: urls.split(',').map(|url| url.trim().to_owned()).collect(),
            namespace: "default".to_owned(),
            prefix: "superstep".to_owned(),
            shards: DEFAULT_SHARDS,
            cluster: false,
            tls_ca_file: None,
            tls_cert_file: None,
            tls_key_file: None,
            response_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            durable_after: None,
        }
    }

    /// Everything that can be found out without a server.
    pub(crate) fn check(&self) -> Result<Checked, Error> {
        check_name("namespace", &self.namespace)?;
        check_name("prefix", &self.prefix)?;
        if self.shards == 0 || self.shards > SHARDS_MAX {
            return Err(invalid(format!(
                "a namespace cannot have {} shards; choose 1 to {SHARDS_MAX}",
                self.shards
            )));
        }
        let tls = self.certificates()?;
        let mut nodes = Vec::new();
        let mut cluster = self.cluster;
        let mut services = Vec::new();
        for url in &self.urls {
            let (node, kind) = node(url)?;
            cluster |= kind == Kind::Cluster;
            services.push(match kind {
                Kind::Sentinel(service) => Some(service),
                Kind::Single | Kind::Cluster => None,
            });
            nodes.push(node);
        }
        let sentinel = services.first().cloned().flatten();
        if services.iter().any(|service| *service != sentinel) || (cluster && sentinel.is_some()) {
            return Err(invalid(
                "the addresses of redis do not fit together; give Sentinels of one service, nodes of one Cluster, or servers".to_owned(),
            ));
        }
        let Some(first) = nodes.first() else {
            return Err(invalid(
                "no address of redis is given; set one such as redis://127.0.0.1:6379".to_owned(),
            ));
        };
        let is_tls = matches!(first.addr(), ConnectionAddr::TcpTls { .. });
        if tls.is_some() && !is_tls {
            return Err(invalid(format!(
                "certificates are given, but the address {} is not rediss://; use rediss:// or leave them out",
                first.addr()
            )));
        }
        Ok(Checked {
            nodes,
            cluster,
            sentinel,
            is_tls,
            tls,
        })
    }

    fn certificates(&self) -> Result<Option<TlsCertificates>, Error> {
        let read = |path: &PathBuf| {
            fs::read(path).map_err(|error| {
                invalid(format!("cannot read the TLS file {}", path.display())).with_source(error)
            })
        };
        let client_tls = match (&self.tls_cert_file, &self.tls_key_file) {
            (Some(cert), Some(key)) => Some(ClientTlsConfig {
                client_cert: read(cert)?,
                client_key: read(key)?,
            }),
            (None, None) => None,
            _ => {
                return Err(invalid(
                    "a client certificate needs its key and a key its certificate; give both files or none".to_owned(),
                ));
            }
        };
        let root_cert = self.tls_ca_file.as_ref().map(read).transpose()?;
        let any = client_tls.is_some() || root_cert.is_some();
        Ok(any.then_some(TlsCertificates {
            client_tls,
            root_cert,
        }))
    }
}

impl fmt::Debug for RedisSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let urls: Vec<_> = self.urls.iter().map(|url| without_password(url)).collect();
        f.debug_struct("RedisSettings")
            .field("urls", &urls)
            .field("namespace", &self.namespace)
            .field("prefix", &self.prefix)
            .field("shards", &self.shards)
            .field("cluster", &self.cluster)
            .field("tls_ca_file", &self.tls_ca_file)
            .field("tls_cert_file", &self.tls_cert_file)
            .field("tls_key_file", &self.tls_key_file)
            .field("response_timeout", &self.response_timeout)
            .field("connect_timeout", &self.connect_timeout)
            .field("durable_after", &self.durable_after)
            .finish()
    }
}

/// Settings that a link can be opened with.
#[derive(Debug)]
pub(crate) struct Checked {
    /// At least one.
    pub(crate) nodes: Vec<ConnectionInfo>,
    pub(crate) cluster: bool,
    /// The name of the master, where the addresses are those of Sentinels.
    pub(crate) sentinel: Option<String>,
    pub(crate) is_tls: bool,
    pub(crate) tls: Option<TlsCertificates>,
}

impl Checked {
    /// The addresses, without users and passwords.
    pub(crate) fn addresses(&self) -> String {
        let addresses: Vec<_> = self.nodes.iter().map(|n| n.addr().to_string()).collect();
        addresses.join(", ")
    }
}

/// What an address says that it leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Single,
    Cluster,
    /// A Sentinel that watches the master of this name.
    Sentinel(String),
}

/// The port of a Sentinel that its address does not name.
const SENTINEL_PORT: u16 = 26_379;

/// One address, and what it says that it leads to.
fn node(url: &str) -> Result<(ConnectionInfo, Kind), Error> {
    let malformed = || {
        invalid(format!(
            "`{}` is not an address of redis; use redis://[user:password@]host:port, rediss:// for TLS, redis+cluster:// for a Cluster, redis+sentinel://host:port/service for a Sentinel",
            without_password(url)
        ))
    };
    let (plain, kind) = if let Some((scheme, rest)) = url.split_once("+cluster://") {
        (format!("{scheme}://{rest}"), Kind::Cluster)
    } else if let Some((scheme, rest)) = url.split_once("+sentinel://") {
        let (authority, service) = rest.rsplit_once('/').ok_or_else(malformed)?;
        check_name("name of a master", service)?;
        let host = authority.rsplit('@').next().unwrap_or_default();
        let has_port = host.rsplit(']').next().is_some_and(|end| end.contains(':'));
        let plain = if has_port {
            format!("{scheme}://{authority}")
        } else {
            format!("{scheme}://{authority}:{SENTINEL_PORT}")
        };
        (plain, Kind::Sentinel(service.to_owned()))
    } else {
        (url.to_owned(), Kind::Single)
    };
    let info = plain
        .as_str()
        .into_connection_info()
        .map_err(|error| malformed().with_source(error))?;
    if matches!(info.addr(), ConnectionAddr::Unix(_)) {
        return Err(malformed());
    }
    if info.redis_settings().db() != 0 {
        return Err(invalid(format!(
            "`{}` names a database number, which a Cluster does not have; leave it out and tell tenants apart by namespace",
            without_password(url)
        )));
    }
    let redis = info.redis_settings().clone();
    let info = info.set_redis_settings(redis.set_protocol(ProtocolVersion::RESP2));
    Ok((info, kind))
}

/// The address with everything between `//` and `@` left out.
fn without_password(url: &str) -> String {
    match (url.find("://"), url.rfind('@')) {
        (Some(scheme), Some(at)) if scheme < at => {
            format!("{}{}", &url[..scheme + 3], &url[at + 1..])
        }
        _ => url.to_owned(),
    }
}

fn check_name(what: &str, name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Err(invalid(format!(
            "`{name}` cannot be a {what}; use 1 to 64 letters, digits, `-`, `_` and `.`"
        )));
    }
    Ok(())
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::Invalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(settings: &RedisSettings, expected: &str) {
        let error = settings.check().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!format!("{error} {settings:?}").contains("secret"));
    }

    #[test]
    fn a_mistake_in_the_settings_is_named() {
        let with = |change: fn(&mut RedisSettings)| {
            let mut settings = RedisSettings::new("redis://bob:secret@localhost");
            change(&mut settings);
            settings
        };
        refused(&RedisSettings::new("http://a:secret@b"), "not an address");
        refused(&RedisSettings::new("unix:///tmp/redis"), "not an address");
        refused(
            &RedisSettings::new("redis://a:secret@b/3"),
            "database number",
        );
        for url in [
            "redis+sentinel://a:secret@b",
            "redis+sentinel://a:secret@b/",
        ] {
            refused(&RedisSettings::new(url), "`");
        }
        for mixed in ["redis://b", "redis+sentinel://b/two", "redis+cluster://b"] {
            let urls = format!("redis+sentinel://a:secret@b/one,{mixed}");
            refused(&RedisSettings::new(&urls), "do not fit together");
        }
        refused(&with(|s| s.urls.clear()), "no address");
        refused(&with(|s| s.namespace = "a{b}".into()), "namespace");
        refused(&with(|s| s.prefix = String::new()), "prefix");
        refused(&with(|s| s.shards = 0), "0 shards");
        refused(&with(|s| s.tls_key_file = Some("k".into())), "give both");
        refused(&with(|s| s.tls_ca_file = Some("/none".into())), "/none");
    }

    #[test]
    fn an_address_tells_cluster_and_tls() {
        for (url, cluster, is_tls) in [
            ("redis://localhost:6380", false, false),
            ("rediss://localhost", false, true),
            ("redis+cluster://a:1,redis+cluster://b:2", true, false),
            ("rediss+cluster://u:p%40@a:1", true, true),
        ] {
            let checked = RedisSettings::new(url).check().unwrap();
            assert_eq!(
                (checked.cluster, checked.is_tls),
                (cluster, is_tls),
                "{url}"
            );
        }
    }

    #[test]
    fn an_address_of_a_sentinel_names_its_master() {
        let urls = "rediss+sentinel://u:p@a:1/main,rediss+sentinel://[::1]/main";
        let checked = RedisSettings::new(urls).check().unwrap();
        assert_eq!(checked.sentinel.as_deref(), Some("main"));
        assert!(checked.is_tls && !checked.cluster);
        assert_eq!(checked.addresses(), "a:1, ::1:26379");
        let plain = RedisSettings::new("redis://a/").check().unwrap();
        assert_eq!(plain.sentinel, None);
    }

    #[test]
    fn settings_never_show_a_password() {
        let settings = RedisSettings::new("redis://bob:sec@ret@localhost:1");
        let shown = format!("{settings:?}");
        assert!(shown.contains("redis://localhost:1"), "{shown}");
        assert!(!shown.contains("ret@"), "{shown}");
    }
}
