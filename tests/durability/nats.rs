//! The queue on real NATS servers: Debian's 2.9, the oldest that is supported, and a current one.
//!
//! The contract runs on both, and so does what a server can do to a queue: die, come back empty,
//! freeze, lose a consumer, refuse. Every test has a server of its own. Where a stranger's hand is
//! needed (deleting, making a wrong stream), a bare client of NATS is that stranger.

mod cluster;
mod contract;
mod faults;
mod gone;
mod refusals;
mod tls;

use std::{ops::Range, time::Duration};

use async_nats::jetstream;
use bytes::Bytes;
use superstep_protocol::GraphId;
use superstep_queue::{
    CommandKind, CommandMessage, Consumer, Delivery, ErrorKind, EventMessage, Headers, Queue,
    WorkMessage, header,
};
use superstep_queue_nats::{NatsQueue, NatsSettings};
use superstep_tests::servers::{NatsOptions, NatsServer, ServerBinary};

/// How long anything in these tests may take that should happen soon: a lost connection is
/// noticed in under 20 s, a silent consumer in under 10.
const SOON: Duration = Duration::from_secs(60);

/// One test on each server for each of the named functions.
macro_rules! on_both_servers {
    ($($name:ident)+) => {
        mod oldest {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(superstep_tests::servers::ServerBinary::Nats).await;
            })+
        }

        mod current {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                super::$name(superstep_tests::servers::ServerBinary::NatsModern).await;
            })+
        }
    };
}
use on_both_servers;

fn server(binary: ServerBinary) -> NatsServer {
    server_with(binary, "", "")
}

fn server_with(binary: ServerBinary, jetstream: &str, config: &str) -> NatsServer {
    NatsServer::start_with(NatsOptions {
        binary,
        jetstream_config: jetstream.to_owned(),
        config: config.to_owned(),
        ..NatsOptions::default()
    })
    .expect("a private server")
}

/// Settings with short waits.
fn settings(server: &NatsServer) -> NatsSettings {
    NatsSettings {
        urls: vec![server.url()],
        ack_wait: Duration::from_secs(2),
        command_ack_wait: Duration::from_secs(2),
        request_timeout: Duration::from_secs(2),
        ..NatsSettings::default()
    }
}

/// A queue that is set up.
async fn queue_on(server: &NatsServer) -> NatsQueue {
    let queue = NatsQueue::connect(settings(server)).await.expect("connect");
    queue.setup().await.expect("setup");
    queue
}

/// JetStream as any client has it.
async fn stranger(server: &NatsServer) -> jetstream::Context {
    let client = async_nats::connect(server.url()).await.expect("connect");
    jetstream::new(client)
}

fn email() -> GraphId {
    GraphId {
        name: "email".into(),
        version: "1".into(),
    }
}

fn work(body: &str) -> WorkMessage {
    WorkMessage {
        graph: email(),
        headers: Headers::new(),
        body: Bytes::from(body.to_owned()),
    }
}

fn works(bodies: Range<usize>) -> Vec<WorkMessage> {
    bodies.map(|n| work(&n.to_string())).collect()
}

fn resume(id: &str) -> CommandMessage {
    CommandMessage {
        kind: CommandKind::Resume,
        target: "order-42".to_owned(),
        headers: Headers::from([(header::MSG_ID.to_owned(), id.to_owned())]),
        body: Bytes::from(id.to_owned()),
    }
}

fn interrupt(id: &str) -> EventMessage {
    EventMessage {
        kind: "interrupt".to_owned(),
        graph: Some("email".into()),
        thread: "order-42".into(),
        headers: Headers::from([(header::MSG_ID.to_owned(), id.to_owned())]),
        body: Bytes::from(id.to_owned()),
    }
}

fn text(body: &Bytes) -> String {
    String::from_utf8_lossy(body).into_owned()
}

/// Calls again as long as the servers are unavailable, as callers of the port do.
async fn insist<T>(
    what: &str,
    mut call: impl AsyncFnMut() -> Result<T, superstep_queue::Error>,
) -> T {
    let insisting = async {
        loop {
            match call().await {
                Ok(done) => return done,
                Err(error) if error.kind() == ErrorKind::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Err(error) => panic!("{what}: {error}"),
            }
        }
    };
    let done = tokio::time::timeout(SOON, insisting).await;
    done.unwrap_or_else(|_| panic!("{what}: the servers stayed unavailable"))
}

/// Pulls until a delivery comes, over all that goes wrong meanwhile.
async fn pull_one(consumer: &mut dyn Consumer) -> Delivery {
    let pulling = async {
        loop {
            match consumer.pull(1, SOON).await {
                Ok(mut pulled) => {
                    if let Some(delivery) = pulled.pop() {
                        return delivery;
                    }
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        }
    };
    let pulled = tokio::time::timeout(SOON, pulling).await;
    pulled.expect("a delivery comes in time")
}
