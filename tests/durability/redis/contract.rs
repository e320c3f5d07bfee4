//! The port's contract on every server that is supported.
//!
//! On Debian's Redis each promise is a test of its own; on the others the whole suite is one test
//! a server, which is skipped, and counted as such, where the server is not to be had.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use superstep_checkpoint::{
    ThreadLog,
    contract::{self, Inspected},
};
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_tests::servers::{RedisCluster, RedisOptions, RedisServer, ServerBinary};

use std::sync::atomic::{AtomicU32, Ordering};

/// A log in a namespace that no other test has.
async fn log_at(urls: &str) -> Arc<dyn ThreadLog> {
    store_at(urls).await
}

async fn store_at(urls: &str) -> Arc<RedisLog> {
    static NAMESPACES: AtomicU32 = AtomicU32::new(0);
    let mut settings = RedisSettings::new(urls);
    let number = NAMESPACES.fetch_add(1, Ordering::Relaxed);
    settings.namespace = format!("test-{number}");
    Arc::new(RedisLog::connect(settings).await.unwrap())
}

/// The server that tests running at the same time share; it ends with the last of them.
fn shared_server() -> Arc<RedisServer> {
    static SHARED: Mutex<Weak<RedisServer>> = Mutex::new(Weak::new());
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(server) = shared.upgrade() {
        return server;
    }
    let server = Arc::new(RedisServer::start().unwrap());
    *shared = Arc::downgrade(&server);
    server
}

async fn on_redis() -> (Arc<dyn ThreadLog>, Arc<RedisServer>) {
    let server = shared_server();
    (log_at(&server.url()).await, server)
}

superstep_checkpoint::contract_tests!(on_redis);

async fn both_on_redis() -> Inspected<Arc<RedisServer>> {
    let server = shared_server();
    Inspected::new(store_at(&server.url()).await, server)
}

superstep_checkpoint::contract_inspect_tests!(both_on_redis);

async fn holds_on(binary: ServerBinary) {
    let server = RedisServer::start_with(RedisOptions {
        binary,
        ..RedisOptions::default()
    });
    let server = server.unwrap();
    contract::run(async || log_at(&server.url()).await).await;
    contract::run_inspect(async || Inspected::new(store_at(&server.url()).await, ())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_redis_6_2() {
    if ServerBinary::Redis62.available_to("the_contract_holds_on_redis_6_2") {
        holds_on(ServerBinary::Redis62).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_valkey() {
    if ServerBinary::Valkey.available_to("the_contract_holds_on_valkey") {
        holds_on(ServerBinary::Valkey).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_contract_holds_on_a_cluster() {
    let cluster = RedisCluster::start().unwrap();
    let urls = cluster
        .urls()
        .join(",")
        .replace("redis://", "redis+cluster://");
    contract::run(async || log_at(&urls).await).await;
    contract::run_inspect(async || Inspected::new(store_at(&urls).await, ())).await;
}
