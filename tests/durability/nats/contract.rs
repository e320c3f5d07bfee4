//! The port's contract on both servers.
//!
//! Each test starts a private server of its own, so that tests share nothing.

use std::sync::Arc;

use superstep_queue::{
    Queue,
    contract::{ContractQueue, ContractSettings},
};
use superstep_queue_nats::{NatsQueue, NatsSettings};
use superstep_tests::servers::{NatsOptions, NatsServer, ServerBinary};

async fn make_queue(binary: ServerBinary, settings: ContractSettings) -> ContractQueue {
    let server = NatsServer::start_with(NatsOptions {
        binary,
        ..NatsOptions::default()
    })
    .expect("a private server");
    let defaults = NatsSettings::default();
    let work_messages_max = match settings.work_messages_max {
        Some(max) => max as u64,
        None => defaults.work_messages_max,
    };
    let settings = NatsSettings {
        urls: vec![server.url()],
        ack_wait: settings.ack_wait,
        command_ack_wait: settings.command_ack_wait,
        work_messages_max,
        ..defaults
    };
    let url = server.url();
    let queue: Arc<dyn Queue> =
        Arc::new(NatsQueue::connect(settings.clone()).await.expect("connect"));
    let peer: Arc<dyn Queue> = Arc::new(NatsQueue::connect(settings).await.expect("connect"));
    ContractQueue::new(queue)
        .with_peer(peer)
        .with_raw(move |subject, headers, body| publish_plain(url.clone(), subject, headers, body))
        .with_guard(server)
}

/// Publishes as any NATS client would, and waits for the stream's ack.
async fn publish_plain(
    url: String,
    subject: String,
    headers: superstep_queue::Headers,
    body: bytes::Bytes,
) {
    let client = async_nats::connect(url).await.expect("connect");
    let mut map = async_nats::HeaderMap::new();
    for (name, value) in headers {
        map.insert(name, value);
    }
    let ack = client
        .request_with_headers(subject, map, body)
        .await
        .expect("an ack");
    assert!(!ack.payload.starts_with(b"{\"error"), "{:?}", ack.payload);
}

mod oldest {
    use super::*;

    async fn make_oldest(settings: ContractSettings) -> ContractQueue {
        make_queue(ServerBinary::Nats, settings).await
    }

    superstep_queue::contract_tests!(make_oldest);
}

mod current {
    use super::*;

    async fn make_current(settings: ContractSettings) -> ContractQueue {
        make_queue(ServerBinary::NatsModern, settings).await
    }

    superstep_queue::contract_tests!(make_current);
}
