//! Asking Sentinels which server is the master.
//!
//! All of them are asked at once and the newest configuration counts: a Sentinel that is cut off
//! together with the old master goes on naming it. Connecting to the server that they name, and
//! making sure that it is a master, is left to the link.
//!
//! The rule it keeps: a Sentinel that hangs holds nobody up for longer than [`ASK_WITHIN`].

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::join_all;
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, RedisConnectionInfo, RedisError,
    RedisResult, TlsCertificates, Value, aio::ConnectionLike as _, aio::MultiplexedConnection,
};
use tokio::time::timeout;

use crate::{error::NO_SUCH_MASTER, link::text_of};

/// How long one Sentinel may take to answer.
const ASK_WITHIN: Duration = Duration::from_secs(1);

/// The Sentinels of one master.
#[derive(Debug)]
pub(crate) struct Sentinels {
    service: String,
    nodes: Vec<Node>,
    config: AsyncConnectionConfig,
    /// What a server is connected to with: user, password, TLS; the address is that of a Sentinel.
    template: ConnectionInfo,
    tls: Option<TlsCertificates>,
}

/// One Sentinel, and the connection to it if there is one.
struct Node {
    open: Client,
    with_password: Option<Client>,
    connection: Mutex<Option<MultiplexedConnection>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Sentinels {
    /// The Sentinels at these addresses, whose user and password are those of the servers.
    pub(crate) fn new(
        service: String,
        addresses: Vec<ConnectionInfo>,
        tls: Option<TlsCertificates>,
    ) -> RedisResult<Self> {
        let template = addresses.first().cloned();
        let nodes = addresses.into_iter().map(|address| {
            let has_password = address.redis_settings().password().is_some();
            let settings =
                RedisConnectionInfo::default().set_protocol(address.redis_settings().protocol());
            let stranger = address.clone().set_redis_settings(settings);
            Ok(Node {
                open: client(stranger, tls.as_ref())?,
                with_password: has_password
                    .then(|| client(address, tls.as_ref()))
                    .transpose()?,
                connection: Mutex::default(),
            })
        });
        Ok(Self {
            service,
            nodes: nodes.collect::<RedisResult<_>>()?,
            config: AsyncConnectionConfig::new()
                .set_connection_timeout(Some(ASK_WITHIN))
                .set_response_timeout(Some(ASK_WITHIN)),
            template: template.expect("there is at least one address"),
            tls,
        })
    }

    /// The address of the master, as the Sentinel with the newest configuration has it.
    pub(crate) async fn master(&self) -> RedisResult<ConnectionAddr> {
        let answers = join_all(self.nodes.iter().map(|node| async {
            match timeout(ASK_WITHIN, node.ask(&self.config, &self.service)).await {
                Ok(answer) => answer,
                Err(_) => Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()),
            }
        }));
        let mut newest: Option<Named> = None;
        let mut failed: Option<RedisError> = None;
        for answer in answers.await {
            match answer {
                Ok(named) if newest.as_ref().is_none_or(|n| n.epoch < named.epoch) => {
                    newest = Some(named);
                }
                Ok(_) => {}
                // One that does not know the master says more than one that is away.
                Err(error) if error.code() == Some(NO_SUCH_MASTER) => failed = Some(error),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        match (newest, failed) {
            (Some(named), _) => Ok(self.address(named)),
            (None, failed) => Err(failed.expect("every Sentinel has answered or failed")),
        }
    }

    /// A client of the server at this address.
    pub(crate) fn client(&self, address: ConnectionAddr) -> RedisResult<Client> {
        client(self.template.clone().set_addr(address), self.tls.as_ref())
    }

    fn address(&self, named: Named) -> ConnectionAddr {
        let (host, port) = (named.host, named.port);
        match self.template.addr() {
            ConnectionAddr::TcpTls {
                insecure,
                tls_params,
                ..
            } => ConnectionAddr::TcpTls {
                host,
                port,
                insecure: *insecure,
                tls_params: tls_params.clone(),
            },
            _ => ConnectionAddr::Tcp(host, port),
        }
    }
}

fn client(address: ConnectionInfo, tls: Option<&TlsCertificates>) -> RedisResult<Client> {
    match tls {
        Some(tls) => Client::build_with_tls(address, tls.clone()),
        None => Client::open(address),
    }
}

/// What a Sentinel says of the master.
#[derive(Debug, PartialEq, Eq)]
struct Named {
    host: String,
    port: u16,
    epoch: u64,
}

impl Node {
    async fn ask(&self, config: &AsyncConnectionConfig, service: &str) -> RedisResult<Named> {
        let mut cmd = redis::cmd("SENTINEL");
        cmd.arg("MASTER").arg(service);
        let kept = self.kept().take();
        let mut connection = match kept {
            Some(connection) => connection,
            None => {
                self.open
                    .get_multiplexed_async_connection_with_config(config)
                    .await?
            }
        };
        let mut answer = send(&mut connection, &cmd).await;
        if let (Err(error), Some(client)) = (&answer, &self.with_password)
            && error.code() == Some("NOAUTH")
        {
            connection = client
                .get_multiplexed_async_connection_with_config(config)
                .await?;
            answer = send(&mut connection, &cmd).await;
        }
        match answer {
            Ok(value) => {
                *self.kept() = Some(connection);
                read(&value)
                    .ok_or_else(|| redis::make_extension_error(NO_SUCH_MASTER.to_owned(), None))
            }
            Err(error) if error.to_string().contains("No such master") => {
                *self.kept() = Some(connection);
                Err(redis::make_extension_error(NO_SUCH_MASTER.to_owned(), None))
            }
            Err(error) => Err(error),
        }
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, Option<MultiplexedConnection>> {
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

async fn send(connection: &mut MultiplexedConnection, cmd: &redis::Cmd) -> RedisResult<Value> {
    let answer = connection.req_packed_command(cmd).await;
    answer.and_then(Value::extract_error)
}

/// Reads the names and values that `SENTINEL MASTER` answers with.
fn read(answer: &Value) -> Option<Named> {
    let Value::Array(told) = answer else {
        return None;
    };
    let get = |name: &str| {
        let mut pairs = told.chunks_exact(2);
        pairs.find_map(|pair| (text_of(&pair[0]) == name).then(|| text_of(&pair[1])))
    };
    Some(Named {
        host: get("ip").filter(|host| !host.is_empty())?,
        port: get("port")?.parse().ok()?,
        epoch: get("config-epoch")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_of_a_sentinel_is_read() {
        let text = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let mut told = vec![text("name"), text("ip"), text("ip"), text("10.0.0.1")];
        told.extend([text("port"), text("6379")]);
        assert_eq!(read(&Value::Array(told.clone())), None);
        told.extend([text("config-epoch"), text("7")]);
        let named = Named {
            host: "10.0.0.1".to_owned(),
            port: 6379,
            epoch: 7,
        };
        assert_eq!(read(&Value::Array(told)), Some(named));
        assert_eq!(read(&Value::Nil), None);
    }
}
