//! From settings as they were written to settings that a connection can be opened with.
//!
//! Pure but for looking whether files are there. The rule it keeps: it never stops at the
//! first mistake, and a mistake names the setting, what is wrong with it and what would be
//! right.

use std::{fmt, fs, path::PathBuf, time::Duration};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use superstep_checkpoint_redis::RedisSettings;
use superstep_queue::subject::Subjects;
use superstep_queue_nats::{NatsAuth, NatsSettings, NatsTls};

use super::ConnectSettings;

/// Settings of NATS and Redis that passed the check.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How NATS is reached.
    pub nats: NatsSettings,
    /// How Redis is reached.
    pub redis: RedisSettings,
    /// The names of the messages.
    pub subjects: Subjects,
}

/// A setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The setting.
    pub setting: String,
    /// What is wrong with it and what to do.
    pub what: String,
}

impl Mistake {
    pub(super) fn new(setting: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            setting: setting.into(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.setting, self.what)
    }
}

/// Every setting that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Mistakes(pub Vec<Mistake>);

impl Mistakes {
    /// An error if there is one.
    ///
    /// # Errors
    /// Those mistakes.
    pub fn none_or(mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() {
            Ok(())
        } else {
            Err(Self(mistakes))
        }
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_slice() {
            [one] => write!(f, "the setting {one}"),
            several => {
                write!(f, "{} settings are wrong:", several.len())?;
                several
                    .iter()
                    .try_for_each(|mistake| write!(f, "\n  {mistake}"))
            }
        }
    }
}

/// The longest that `connect_timeout_ms` may be: a person is waiting.
const CONNECT_TIMEOUT_MS_MAX: u64 = 600_000;

pub(super) fn check(settings: &ConnectSettings) -> Result<Cluster, Mistakes> {
    let mut check = Check {
        mistakes: Vec::new(),
    };
    let timeout = check.timeout(settings.connect_timeout_ms);
    let prefix = settings.prefix.as_deref().unwrap_or("superstep").to_owned();
    let namespace = settings
        .namespace
        .as_deref()
        .unwrap_or("default")
        .to_owned();
    let subjects = check.names(&prefix, &namespace);
    let nats = NatsSettings {
        urls: check.nats_urls(settings),
        auth: check.nats_auth(settings),
        tls: NatsTls {
            ca_file: check.file("nats_ca", settings.nats_ca.as_ref()),
            client_cert: check.file("nats_cert", settings.nats_cert.as_ref()),
            client_key: check.file("nats_key", settings.nats_key.as_ref()),
            ..NatsTls::default()
        },
        replicas: check.replicas(settings.nats_replicas),
        prefix: prefix.clone(),
        namespace: namespace.clone(),
        connect_timeout: timeout,
        ..NatsSettings::default()
    };
    check.pair(
        "nats",
        settings.nats_cert.as_ref(),
        settings.nats_key.as_ref(),
    );
    let redis = RedisSettings {
        urls: check.redis_urls(settings),
        tls_ca_file: check.file("redis_ca", settings.redis_ca.as_ref()),
        tls_cert_file: check.file("redis_cert", settings.redis_cert.as_ref()),
        tls_key_file: check.file("redis_key", settings.redis_key.as_ref()),
        prefix,
        namespace,
        connect_timeout: timeout,
        ..RedisSettings::new("")
    };
    check.pair(
        "redis",
        settings.redis_cert.as_ref(),
        settings.redis_key.as_ref(),
    );
    match subjects {
        Some(subjects) if check.mistakes.is_empty() => Ok(Cluster {
            nats,
            redis,
            subjects,
        }),
        _ => Err(Mistakes(check.mistakes)),
    }
}

struct Check {
    mistakes: Vec<Mistake>,
}

impl Check {
    fn wrong(&mut self, setting: &str, what: impl Into<String>) {
        self.mistakes.push(Mistake::new(setting, what));
    }

    fn timeout(&mut self, ms: Option<u64>) -> Duration {
        let ms = ms.unwrap_or(5_000);
        if !(1..=CONNECT_TIMEOUT_MS_MAX).contains(&ms) {
            self.wrong(
                "connect_timeout_ms",
                format!("is {ms}; it must be 1 to {CONNECT_TIMEOUT_MS_MAX}"),
            );
        }
        Duration::from_millis(ms)
    }

    fn replicas(&mut self, replicas: Option<usize>) -> usize {
        let replicas = replicas.unwrap_or(1);
        if !(1..=5).contains(&replicas) {
            self.wrong("nats_replicas", format!("is {replicas}; it must be 1 to 5"));
        }
        replicas
    }

    fn names(&mut self, prefix: &str, namespace: &str) -> Option<Subjects> {
        let prefix_fits = Subjects::new(prefix, "default");
        let namespace_fits = Subjects::new("superstep", namespace);
        for (setting, fits) in [("prefix", &prefix_fits), ("namespace", &namespace_fits)] {
            if let Err(error) = fits {
                self.wrong(setting, format!("is wrong: {error}"));
            }
        }
        Subjects::new(prefix, namespace).ok()
    }

    fn nats_urls(&mut self, settings: &ConnectSettings) -> Vec<String> {
        let urls = listed(settings.nats_url.as_deref(), "nats://127.0.0.1:4222");
        if urls.is_empty() {
            self.wrong("nats_url", "is empty; write it as nats://host:port");
        }
        for url in &urls {
            let has_host = ["nats://", "tls://"]
                .iter()
                .any(|scheme| url.strip_prefix(scheme).is_some_and(names_a_host));
            if !has_host {
                let shown = without_secrets(url);
                self.wrong(
                    "nats_url",
                    format!(
                        "has `{shown}`, which is not an address of NATS; write it as \
                         nats://host:port, or tls://host:port for TLS"
                    ),
                );
            }
        }
        urls
    }

    fn nats_auth(&mut self, settings: &ConnectSettings) -> NatsAuth {
        let given: Vec<&str> = [
            ("nats_credentials", settings.nats_credentials.is_some()),
            ("nats_user", settings.nats_user.is_some()),
            ("nats_token", settings.nats_token.is_some()),
            ("nats_nkey", settings.nats_nkey.is_some()),
        ]
        .into_iter()
        .filter_map(|(name, given)| given.then_some(name))
        .collect();
        if let [first, .., last] = given.as_slice() {
            self.wrong(
                first,
                format!("is given beside {last}; keep one way to get in"),
            );
        }
        if settings.nats_user.is_some() != settings.nats_password.is_some() {
            let (there, missing) = match settings.nats_user {
                Some(_) => ("nats_user", "nats_password"),
                None => ("nats_password", "nats_user"),
            };
            self.wrong(there, format!("is given without {missing}; give both"));
        }
        if let Some(path) = self.file("nats_credentials", settings.nats_credentials.as_ref()) {
            return NatsAuth::CredentialsFile(path);
        }
        if let (Some(user), Some(password)) = (&settings.nats_user, &settings.nats_password) {
            return NatsAuth::User {
                user: user.clone(),
                password: password.clone(),
            };
        }
        if let Some(token) = &settings.nats_token {
            return NatsAuth::Token(token.clone());
        }
        settings
            .nats_nkey
            .as_deref()
            .and_then(|nkey| self.nkey(nkey))
            .map_or(NatsAuth::None, NatsAuth::Nkey)
    }

    /// A seed as it is, or what the file of that name holds.
    fn nkey(&mut self, nkey: &str) -> Option<String> {
        let is_seed = |text: &str| {
            text.len() == 58
                && text.starts_with('S')
                && text.bytes().all(|b| b.is_ascii_alphanumeric())
        };
        if is_seed(nkey) {
            return Some(nkey.to_owned());
        }
        let seed = fs::read_to_string(nkey).ok().and_then(|text| {
            let found = text.lines().map(str::trim).find(|line| is_seed(line));
            found.map(str::to_owned)
        });
        if seed.is_none() {
            // What it is is not repeated: it may be a mistyped seed.
            self.wrong(
                "nats_nkey",
                "is neither the seed of an nkey (58 characters from `S`) nor a file that holds \
                 one",
            );
        }
        seed
    }

    fn redis_urls(&mut self, settings: &ConnectSettings) -> Vec<String> {
        const SCHEMES: [&str; 6] = [
            "redis://",
            "rediss://",
            "redis+cluster://",
            "rediss+cluster://",
            "redis+sentinel://",
            "rediss+sentinel://",
        ];
        let urls = listed(settings.redis_url.as_deref(), "redis://127.0.0.1:6379");
        if urls.is_empty() {
            self.wrong("redis_url", "is empty; write it as redis://host:port");
        }
        if settings.redis_user.is_some() && settings.redis_password.is_none() {
            self.wrong("redis_user", "is given without redis_password; give both");
        }
        let mut complete = Vec::new();
        for url in urls {
            let scheme = SCHEMES.iter().find(|scheme| url.starts_with(*scheme));
            let rest = scheme.map(|scheme| &url[scheme.len()..]);
            let (Some(scheme), Some(rest)) = (scheme, rest.filter(|rest| names_a_host(rest)))
            else {
                let shown = without_secrets(&url);
                self.wrong(
                    "redis_url",
                    format!(
                        "has `{shown}`, which is not an address of Redis; write it as \
                         redis://host:port, rediss:// for TLS, redis+cluster:// for a Cluster, \
                         redis+sentinel://host:port/service for a Sentinel"
                    ),
                );
                continue;
            };
            if settings.redis_ca.is_some() && !scheme.starts_with("rediss") {
                self.wrong(
                    "redis_ca",
                    "is given, but redis_url is not rediss://; use rediss:// or leave it out",
                );
            }
            complete.push(match &settings.redis_password {
                None => url.clone(),
                Some(_) if rest.contains('@') => {
                    self.wrong(
                        "redis_password",
                        "is given, but redis_url has one too; keep one of them",
                    );
                    continue;
                }
                Some(password) => {
                    let encode =
                        |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
                    let user = settings.redis_user.as_deref().map(encode);
                    format!(
                        "{scheme}{}:{}@{rest}",
                        user.unwrap_or_default(),
                        encode(password)
                    )
                }
            });
        }
        complete
    }

    fn file(&mut self, setting: &str, path: Option<&PathBuf>) -> Option<PathBuf> {
        let path = path?;
        match fs::File::open(path) {
            Ok(_) => Some(path.clone()),
            Err(error) => {
                self.wrong(
                    setting,
                    format!(
                        "is the file {}, which cannot be read: {error}",
                        path.display()
                    ),
                );
                None
            }
        }
    }

    fn pair(&mut self, of: &str, cert: Option<&PathBuf>, key: Option<&PathBuf>) {
        let (there, missing) = match (cert, key) {
            (Some(_), None) => ("cert", "key"),
            (None, Some(_)) => ("key", "cert"),
            _ => return,
        };
        self.wrong(
            &format!("{of}_{there}"),
            format!("is given without {of}_{missing}; give both"),
        );
    }
}

fn listed(urls: Option<&str>, default: &str) -> Vec<String> {
    urls.unwrap_or(default)
        .split(',')
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Whether what follows the scheme begins with a host, after a user if there is one.
fn names_a_host(rest: &str) -> bool {
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    !host.is_empty() && !host.starts_with([':', '/']) && !host.contains(char::is_whitespace)
}

/// Addresses without what stands before their `@`.
pub(super) fn without_secrets(urls: &str) -> String {
    let shown: Vec<String> = urls
        .split(',')
        .map(|url| match (url.find("://"), url.rfind('@')) {
            (Some(scheme), Some(at)) if scheme < at => {
                format!("{}{}", &url[..scheme + 3], &url[at + 1..])
            }
            (None, Some(at)) => url[at + 1..].to_owned(),
            _ => url.to_owned(),
        })
        .collect();
    shown.join(",")
}
