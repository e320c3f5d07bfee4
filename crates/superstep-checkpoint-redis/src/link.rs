//! The connection: one, shared by all calls, made anew when it is lost.
//!
//! Every call of this crate may be sent again as it is (an append is settled by its nonce, the
//! rest reads or sets if absent), so a lost connection costs a caller a short wait and not an
//! error. Waiting for a server that stays away is left to the caller: the link gives up after a
//! second or two. A call that timed out is not repeated, but a connection to a single server is given
//! up after it, as it may be deaf. That to a Cluster looks after its nodes itself, so that one that
//! hangs does not hold up calls to the others; but it would ask a hanging master for ever, so the
//! masters are looked for anew beside it. Where Sentinels name the master, they are asked again
//! and again, and a connection to a server that is not it any more is given up. The rule it keeps:
//! at most one connection is being made at a time.

use std::{
    sync::{Arc, PoisonError, RwLock, Weak},
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, Cmd, ConnectionAddr, RedisError, RedisResult, ServerErrorKind,
    Value,
    aio::{ConnectionLike as _, MultiplexedConnection},
    cluster::{ClusterClient, ClusterClientBuilder},
    cluster_async::ClusterConnection,
    cluster_routing::{MultipleNodeRoutingInfo, RoutingInfo, SingleNodeRoutingInfo},
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};
use superstep_checkpoint::{Error, ErrorKind};
use tokio::{sync::Mutex, time::timeout};

use crate::{
    error::{Again, again, is_lost, is_lost_cluster, is_redirect, translate},
    scripts,
    sentinel::Sentinels,
    settings::{Checked, RedisSettings},
};

/// How long to wait before each further attempt of a call.
const BACKOFF_MS: [u64; 5] = [20, 100, 300, 600, 1_000];

/// How long a connection may be idle before the kernel asks whether the peer is there.
const KEEPALIVE: Duration = Duration::from_secs(15);

/// How often Sentinels are asked whether the master is still the same.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// How many calls may be queued towards the connection before the next one waits.
const CALLS_QUEUED_MAX: usize = 1_024;

/// A connection to a server or Cluster.
#[derive(Debug)]
pub(crate) struct Link {
    connector: Arc<Connector>,
    addresses: String,
    is_tls: bool,
    connect_timeout: Duration,
    current: Arc<RwLock<Current>>,
    connecting: Mutex<()>,
}

#[derive(Debug)]
enum Connector {
    Single {
        clients: Vec<Client>,
        config: AsyncConnectionConfig,
    },
    Cluster(Box<ClusterClient>),
    Sentinel {
        sentinels: Arc<Sentinels>,
        config: AsyncConnectionConfig,
    },
}

/// The connection in use; the number tells it from those before it.
#[derive(Default)]
struct Current {
    number: u64,
    connection: Option<Connection>,
    /// Whether another is being made that will take its place.
    renewing: bool,
}

#[derive(Clone)]
enum Connection {
    Single(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl std::fmt::Debug for Current {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Current")
            .field("number", &self.number)
            .field("connected", &self.connection.is_some())
            .field("renewing", &self.renewing)
            .finish()
    }
}

impl Link {
    /// A link that is not connected yet.
    pub(crate) fn new(settings: &RedisSettings, checked: Checked) -> Result<Self, Error> {
        let (addresses, is_tls) = (checked.addresses(), checked.is_tls);
        if is_tls {
            // Whichever provider the process has chosen stays; if none, the one built in here.
            drop(rustls::crypto::ring::default_provider().install_default());
        }
        let connector =
            Connector::new(settings, checked).map_err(|error| translate(&addresses, error))?;
        Ok(Self {
            connector: Arc::new(connector),
            addresses,
            is_tls,
            connect_timeout: settings.connect_timeout,
            current: Arc::default(),
            connecting: Mutex::default(),
        })
    }

    /// Connects, without trying again.
    pub(crate) async fn connect(&self) -> Result<(), Error> {
        match self.connection().await {
            Ok(_) => Ok(()),
            Err(error) if error.is_timeout() => Err(self.silent()),
            Err(error) => Err(self.error(error)),
        }
    }

    /// The error of a server that does not answer to a connect.
    pub(crate) fn silent(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            format!(
                "redis at {} does not answer; is it running, and is the address right?",
                self.addresses
            ),
        )
    }

    /// Whether this is a link to a Cluster.
    pub(crate) fn is_cluster(&self) -> bool {
        matches!(*self.connector, Connector::Cluster(_))
    }

    /// The one server that this leads to, if no other can take its place.
    pub(crate) fn only(&self) -> Option<&Client> {
        match &*self.connector {
            Connector::Single { clients, .. } if clients.len() == 1 => clients.first(),
            _ => None,
        }
    }

    /// Sends a command that may be sent again, and gives its answer.
    pub(crate) async fn call(&self, cmd: &Cmd) -> Result<Value, Error> {
        match self.attempts(cmd, None).await {
            Ok(value) => Ok(value),
            Err(error) => Err(self.error(error)),
        }
    }

    /// Sends a command to every master; a standalone server is the only one.
    pub(crate) async fn call_all(&self, cmd: &Cmd) -> Result<Vec<(String, Value)>, Error> {
        let routing = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
        let answer = match self.attempts(cmd, Some(routing)).await {
            Ok(value) => value,
            Err(error) => return Err(self.error(error)),
        };
        match answer {
            Value::Map(nodes) if self.is_cluster() => Ok(nodes
                .into_iter()
                .map(|(node, value)| (text_of(&node), value))
                .collect()),
            value => Ok(vec![(self.addresses.clone(), value)]),
        }
    }

    /// The masters, in a fixed order; a standalone server is the only one.
    pub(crate) async fn masters(&self) -> Result<Vec<String>, Error> {
        let answers = self.call_all(&redis::cmd("PING")).await?;
        let mut masters: Vec<String> = answers.into_iter().map(|(node, _)| node).collect();
        masters.sort();
        Ok(masters)
    }

    /// Sends a command to this master.
    pub(crate) async fn call_at(&self, master: &str, cmd: &Cmd) -> Result<Value, Error> {
        let at = master.rsplit_once(':').filter(|_| self.is_cluster());
        let at = at.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
        let routing = at.map(|(host, port)| {
            RoutingInfo::SingleNode(SingleNodeRoutingInfo::ByAddress { host, port })
        });
        let answer = self.attempts(cmd, routing).await;
        answer.map_err(|error| self.error(error))
    }

    /// An error of this crate's client library as the port's.
    pub(crate) fn error(&self, error: RedisError) -> Error {
        if self.is_tls && error.is_connection_dropped() && !error.is_connection_refusal() {
            // A certificate that is refused may show as nothing more than this.
            let message = format!(
                "redis at {} ends the TLS connection; is it stopping, or does it ask for another client certificate?",
                self.addresses
            );
            return Error::new(ErrorKind::Unavailable, message).with_source(error);
        }
        if self.is_cluster() && is_redirect(&error) {
            let message = format!(
                "the Cluster at {} is moving slots; try again",
                self.addresses
            );
            return Error::new(ErrorKind::Unavailable, message).with_source(error);
        }
        translate(&self.addresses, error)
    }

    async fn attempts(&self, cmd: &Cmd, routing: Option<RoutingInfo>) -> RedisResult<Value> {
        let mut backoff = BACKOFF_MS.into_iter();
        loop {
            let error = match self.attempt(cmd, routing.as_ref()).await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let again = match again(&error) {
                _ if self.is_cluster() && is_redirect(&error) => Again::Same,
                again => again,
            };
            match (again, backoff.next()) {
                (Again::No, _) | (_, None) => return Err(error),
                (Again::Same | Again::Reconnect, Some(ms)) => {
                    tracing::debug!(%error, wait_ms = ms, "redis call is tried again");
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                }
            }
        }
    }

    async fn attempt(&self, cmd: &Cmd, routing: Option<&RoutingInfo>) -> RedisResult<Value> {
        let (connection, number) = self.connection().await?;
        let mut answer = connection.send(cmd, routing).await;
        if let Err(error) = &answer
            && error.kind() == ServerErrorKind::NoScript.into()
            && let Some(with_text) = scripts::with_text(cmd)
        {
            answer = connection.send(&with_text, routing).await;
        }
        if let Err(error) = &answer
            && connection.is_lost(error)
        {
            give_up(&self.current, number);
        } else if let Err(error) = &answer
            && self.is_cluster()
            && error.is_timeout()
        {
            self.renew(number);
        }
        answer
    }

    /// Connects to the Cluster anew, beside a connection in which a node hangs; that one is used
    /// until then.
    fn renew(&self, number: u64) {
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.number != number || current.renewing {
                return;
            }
            current.renewing = true;
        }
        let (connector, link) = (Arc::clone(&self.connector), Arc::downgrade(&self.current));
        let within = self.connect_timeout * 2;
        tokio::spawn(async move {
            let connected = timeout(within, connector.connect()).await;
            let Some(current) = link.upgrade() else {
                return;
            };
            let mut current = current.write().unwrap_or_else(PoisonError::into_inner);
            current.renewing = false;
            match connected {
                Ok(Ok((connection, _))) if current.number == number => {
                    current.number += 1;
                    current.connection = Some(connection);
                    tracing::debug!(number = current.number, "connected to the Cluster anew");
                }
                Ok(Err(error)) => tracing::debug!(%error, "the Cluster cannot be reached"),
                Ok(Ok(_)) | Err(_) => {}
            }
        });
    }

    async fn connection(&self) -> RedisResult<(Connection, u64)> {
        if let Some(found) = self.connected() {
            return Ok(found);
        }
        let _connecting = self.connecting.lock().await;
        if let Some(found) = self.connected() {
            return Ok(found);
        }
        let connected = match timeout(self.connect_timeout, self.connector.connect()).await {
            Ok(connected) => connected?,
            Err(_) => return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
        };
        let (connection, named) = connected;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.number += 1;
        current.connection = Some(connection.clone());
        tracing::debug!(redis = %self.addresses, number = current.number, "connected");
        if let (Connector::Sentinel { sentinels, .. }, Some(named)) = (&*self.connector, named) {
            let (sentinels, link) = (Arc::clone(sentinels), Arc::downgrade(&self.current));
            tokio::spawn(leave_a_displaced(sentinels, named, link, current.number));
        }
        Ok((connection, current.number))
    }

    fn connected(&self) -> Option<(Connection, u64)> {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        Some((current.connection.clone()?, current.number))
    }
}

/// Stops using a connection, unless another has taken its place.
fn give_up(current: &RwLock<Current>, number: u64) {
    let mut current = current.write().unwrap_or_else(PoisonError::into_inner);
    if current.number == number {
        current.connection = None;
    }
}

/// Gives up the connection to a master when Sentinels name another: one that was frozen or cut off
/// goes on taking writes until it hears that it is none any more, and they would be lost.
async fn leave_a_displaced(
    sentinels: Arc<Sentinels>,
    named: ConnectionAddr,
    link: Weak<RwLock<Current>>,
    number: u64,
) {
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let Some(current) = link.upgrade() else {
            return;
        };
        let is_in_use = {
            let current = current.read().unwrap_or_else(PoisonError::into_inner);
            current.number == number && current.connection.is_some()
        };
        if !is_in_use {
            return;
        }
        match sentinels.master().await {
            Ok(master) if master != named => {
                tracing::warn!(was = %named, is = %master, "redis has another master");
                give_up(&current, number);
                return;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "no Sentinel tells which server is the master"),
        }
    }
}

impl Connector {
    fn new(settings: &RedisSettings, checked: Checked) -> RedisResult<Self> {
        if checked.cluster {
            let mut builder = ClusterClientBuilder::new(checked.nodes)
                // Of one node: one that hangs must not use up the time for all.
                .connection_timeout(settings.connect_timeout / 3)
                .response_timeout(settings.response_timeout)
                .retries(4)
                .min_retry_wait(20)
                .max_retry_wait(400)
                .tcp_settings(tcp_settings(settings.response_timeout));
            if let Some(tls) = checked.tls {
                builder = builder.certs(tls);
            }
            return Ok(Self::Cluster(Box::new(builder.build()?)));
        }
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(settings.connect_timeout))
            .set_response_timeout(Some(settings.response_timeout))
            .set_pipeline_buffer_size(CALLS_QUEUED_MAX);
        if let Some(service) = checked.sentinel {
            let tcp = tcp_settings(settings.response_timeout);
            let nodes = checked.nodes.into_iter();
            let nodes = nodes.map(|node| node.set_tcp_settings(tcp.clone()));
            let sentinels = Sentinels::new(service, nodes.collect(), checked.tls)?;
            return Ok(Self::Sentinel {
                sentinels: Arc::new(sentinels),
                config,
            });
        }
        let clients = checked.nodes.into_iter().map(|node| {
            let node = node.set_tcp_settings(tcp_settings(settings.response_timeout));
            match &checked.tls {
                Some(tls) => Client::build_with_tls(node, tls.clone()),
                None => Client::open(node),
            }
        });
        Ok(Self::Single {
            clients: clients.collect::<RedisResult<_>>()?,
            config,
        })
    }

    /// A connection to the Cluster, to the master that Sentinels name (with its address), or to
    /// the first of the servers that is a master.
    async fn connect(&self) -> RedisResult<(Connection, Option<ConnectionAddr>)> {
        match self {
            Self::Cluster(client) => {
                let connection = client.get_async_connection().await?;
                Ok((Connection::Cluster(connection), None))
            }
            Self::Sentinel { sentinels, config } => {
                let master = sentinels.master().await?;
                let client = sentinels.client(master.clone())?;
                let connection = connect_single(&client, config, true).await?;
                Ok((Connection::Single(connection), Some(master)))
            }
            Self::Single { clients, config } => {
                let mut failed = None;
                for client in clients {
                    match connect_single(client, config, clients.len() > 1).await {
                        Ok(connection) => return Ok((Connection::Single(connection), None)),
                        Err(error) => failed = failed.or(Some(error)),
                    }
                }
                Err(failed.expect("there is at least one address"))
            }
        }
    }
}

/// Small calls go out at once, and a peer that is gone without a word is noticed by the kernel.
fn tcp_settings(response_timeout: Duration) -> TcpSettings {
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE);
    let settings = TcpSettings::default()
        .set_nodelay(true)
        .set_keepalive(keepalive);
    #[cfg(target_os = "linux")]
    let settings = settings.set_user_timeout(response_timeout);
    #[cfg(not(target_os = "linux"))]
    let _ = response_timeout;
    settings
}

async fn connect_single(
    client: &Client,
    config: &AsyncConnectionConfig,
    must_be_master: bool,
) -> RedisResult<MultiplexedConnection> {
    let mut connection = client
        .get_multiplexed_async_connection_with_config(config)
        .await?;
    if must_be_master {
        // A server that refuses to tell its role is taken as it is.
        if let Ok(Value::Array(role)) = connection.send_packed_command(&redis::cmd("ROLE")).await
            && role.first().is_some_and(|role| text_of(role) != "master")
        {
            return Err(redis::make_extension_error("READONLY".to_owned(), None));
        }
    }
    Ok(connection)
}

impl Connection {
    fn is_lost(&self, error: &RedisError) -> bool {
        match self {
            Self::Single(_) => is_lost(error),
            Self::Cluster(_) => is_lost_cluster(error),
        }
    }

    async fn send(&self, cmd: &Cmd, routing: Option<&RoutingInfo>) -> RedisResult<Value> {
        match self.clone() {
            Self::Single(mut connection) => connection.send_packed_command(cmd).await,
            Self::Cluster(mut connection) => match routing {
                Some(routing) => connection.route_command(cmd.clone(), routing.clone()).await,
                None => connection.req_packed_command(cmd).await,
            },
        }
        .and_then(Value::extract_error)
    }
}

/// The text of a string or status; empty if it is neither.
pub(crate) fn text_of(value: &Value) -> String {
    match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    }
}
