//! The connection: getting in, and knowing how it stands.
//!
//! The client reconnects by itself, for ever, and subscribes again. What it does not tell the
//! rest of this crate is kept in [`Link`]: how often it has connected (a pull request does not
//! outlive a connection) and what the server forbade (a forbidden publish gets no answer).

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_nats::{Client, ConnectOptions, Event, ServerAddr, ServerError, rustls};
use percent_encoding::percent_decode_str;
use superstep_queue::{Error, ErrorKind};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, info, warn};

use crate::{
    error,
    settings::{NatsAuth, NatsSettings, NatsTls},
};

/// How often an idle connection is probed; two unanswered probes and it counts as lost. So a
/// frozen server or a cut network is noticed in under 20 s.
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// The longest pause between attempts to reconnect.
const RECONNECT_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How long the note of the first connection may take.
const FIRST_NOTE_WAIT: Duration = Duration::from_secs(1);
/// How many refusals of the server are remembered, and for how long.
const VIOLATIONS_MAX: usize = 16;
const VIOLATION_MEMORY: Duration = Duration::from_secs(30);

/// What is known of the connection.
#[derive(Clone, Debug)]
pub(crate) struct Link {
    /// Where it leads, without secrets.
    pub(crate) addresses: String,
    connections: watch::Receiver<u64>,
    violations: Arc<Mutex<VecDeque<(Instant, String)>>>,
}

impl Link {
    /// Changes each time the client has connected again.
    pub(crate) fn connections(&self) -> watch::Receiver<u64> {
        let mut connections = self.connections.clone();
        connections.mark_unchanged();
        connections
    }

    /// What the server lately said about `subject` being forbidden.
    pub(crate) fn violation(&self, subject: &str) -> Option<String> {
        let violations = self.violations.lock().expect("no holder panics");
        let fresh = |at: &Instant| at.elapsed() < VIOLATION_MEMORY;
        violations
            .iter()
            .find(|(at, text)| fresh(at) && text.contains(subject))
            .map(|(_, text)| text.clone())
    }

    /// Waits until `client` is connected, at most until `deadline`.
    pub(crate) async fn connected(&self, client: &Client, deadline: Instant) -> Result<(), Error> {
        use async_nats::connection::State;
        let mut connections = self.connections();
        while client.connection_state() != State::Connected {
            if timeout_at(deadline, connections.changed()).await.is_err() {
                return Err(Error::new(
                    ErrorKind::Unavailable,
                    format!(
                        "the connection to NATS at {} is lost and being restored; retry",
                        self.addresses
                    ),
                ));
            }
        }
        Ok(())
    }
}

/// Connects, within [`NatsSettings::connect_timeout`] for each address.
pub(crate) async fn connect(settings: &NatsSettings) -> Result<(Client, Link), Error> {
    let servers = parse(&settings.urls)?;
    let addresses = named(&servers);
    let (connected, connections) = watch::channel(0_u64);
    let violations = Arc::new(Mutex::new(VecDeque::new()));
    let link = Link {
        addresses: addresses.clone(),
        connections,
        violations: Arc::clone(&violations),
    };
    let mut options = ConnectOptions::new()
        .name("superstep")
        .connection_timeout(settings.connect_timeout)
        .request_timeout(Some(settings.request_timeout))
        .ping_interval(PING_INTERVAL)
        .reconnect_delay_callback(|attempts| {
            let doublings = u32::try_from(attempts.saturating_sub(1))
                .unwrap_or(u32::MAX)
                .min(10);
            match attempts {
                0 | 1 => Duration::ZERO,
                _ => (Duration::from_millis(10) * 2_u32.pow(doublings)).min(RECONNECT_PAUSE_MAX),
            }
        })
        .event_callback(move |event| {
            note(&event, &connected, &violations);
            async {}
        });
    options = authenticated(options, settings, &servers).await?;
    options = encrypted(options, &settings.tls)?;
    // Also bounds what the client does not: the look-up of names.
    let attempts = u32::try_from(servers.len()).unwrap_or(u32::MAX);
    let bound = settings
        .connect_timeout
        .saturating_mul(attempts)
        .saturating_mul(2);
    match timeout(bound, options.connect(servers)).await {
        Ok(Ok(client)) => {
            // The first connection is noted a moment later; only the next ones are news.
            let mut connections = link.connections.clone();
            let _ = timeout(FIRST_NOTE_WAIT, connections.wait_for(|count| *count > 0)).await;
            Ok((client, link))
        }
        Ok(Err(failed)) => Err(error::connecting(&addresses, failed)),
        Err(_) => Err(Error::new(
            ErrorKind::Unavailable,
            format!("NATS at {addresses} did not answer in time; is it running and reachable?"),
        )),
    }
}

fn note(
    event: &Event,
    connected: &watch::Sender<u64>,
    violations: &Mutex<VecDeque<(Instant, String)>>,
) {
    match event {
        Event::Connected => {
            connected.send_modify(|count| *count += 1);
            info!("connected to NATS");
        }
        Event::Disconnected => warn!("lost the connection to NATS; connecting again"),
        Event::SlowConsumer(_) => warn!("a subscription is read too slowly; messages were dropped"),
        Event::ServerError(ServerError::Other(text)) => {
            warn!(error = text, "NATS reports an error");
            let mut violations = violations.lock().expect("no holder panics");
            if violations.len() == VIOLATIONS_MAX {
                violations.pop_front();
            }
            violations.push_back((Instant::now(), text.clone()));
        }
        other => debug!(event = %other, "connection event"),
    }
}

fn parse(urls: &[String]) -> Result<Vec<ServerAddr>, Error> {
    // One setting may carry several addresses, separated by commas, as NATS tools take them.
    let servers: Result<Vec<ServerAddr>, _> = urls
        .iter()
        .flat_map(|url| url.split(','))
        .map(str::trim)
        .filter(|url| !url.is_empty())
        .map(str::parse)
        .collect();
    match servers {
        Ok(servers) if !servers.is_empty() => Ok(servers),
        Ok(_) => Err(Error::new(
            ErrorKind::Invalid,
            "no NATS address is given; name one as nats://host:port",
        )),
        Err(bad) => Err(Error::new(
            ErrorKind::Invalid,
            "a NATS address cannot be read; write it as nats://host:port or tls://host:port",
        )
        .with_source(bad)),
    }
}

/// The addresses for messages, without what may be secret in them.
fn named(servers: &[ServerAddr]) -> String {
    let named: Vec<String> = servers
        .iter()
        .map(|server| format!("{}:{}", server.host(), server.port()))
        .collect();
    named.join(", ")
}

async fn authenticated(
    options: ConnectOptions,
    settings: &NatsSettings,
    servers: &[ServerAddr],
) -> Result<ConnectOptions, Error> {
    Ok(match &settings.auth {
        NatsAuth::User { user, password } => {
            options.user_and_password(user.clone(), password.clone())
        }
        NatsAuth::Token(token) => options.token(token.clone()),
        NatsAuth::Nkey(seed) => options.nkey(seed.clone()),
        NatsAuth::CredentialsFile(path) => options.credentials_file(path).await.map_err(|bad| {
            Error::new(
                ErrorKind::Denied,
                format!(
                    "the NATS credentials file {} cannot be used: {bad}; check its path and \
                         that it holds a JWT and a seed",
                    path.display()
                ),
            )
        })?,
        NatsAuth::None => {
            let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
            let inline = servers.iter().find(|server| server.has_user_pass());
            match inline.map(|server| (server.username(), server.password())) {
                Some((Some(user), Some(password))) => {
                    options.user_and_password(decoded(user), decoded(password))
                }
                Some((Some(token), None)) => options.token(decoded(token)),
                _ => options,
            }
        }
    })
}

fn encrypted(mut options: ConnectOptions, tls: &NatsTls) -> Result<ConnectOptions, Error> {
    // A program with several TLS back ends compiled in must name one; whoever did so keeps it.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // Lost only to a concurrent install, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
    if tls.required {
        options = options.require_tls(true);
    }
    if tls.first {
        options = options.tls_first();
    }
    if let Some(ca_file) = &tls.ca_file {
        options = options.add_root_certificates(ca_file.clone());
    }
    match (&tls.client_cert, &tls.client_key) {
        (Some(cert), Some(key)) => Ok(options.add_client_certificate(cert.clone(), key.clone())),
        (None, None) => Ok(options),
        _ => Err(Error::new(
            ErrorKind::Invalid,
            "a TLS client certificate for NATS needs its key, and the key its certificate; give \
             both or neither",
        )),
    }
}
