//! How many round trips a look over all shards takes: as the server counts them.
//!
//! What is asked of each shard is a command of its own, as shards may be on different masters of a
//! Cluster. The rule it keeps: commands to one server are sent together, not one after the other.

use superstep_checkpoint::ThreadLog as _;
use superstep_protocol::UnixMillis;
use superstep_tests::servers::RedisServer;

use super::log_on;

/// A number that the server's `INFO` has behind these words.
fn count(server: &RedisServer, section: &str, begins: &str) -> u64 {
    let reply = server.command(&["INFO", section]).unwrap();
    let info = reply.text().unwrap().to_owned();
    let rest = info.split_once(begins).map_or("0", |(_, rest)| rest);
    let digits = rest.split(|c: char| !c.is_ascii_digit()).next();
    digits.unwrap().parse().unwrap()
}

#[tokio::test]
async fn timers_of_all_shards_are_asked_for_together() {
    let server = RedisServer::start().unwrap();
    let log = log_on(&server).await;
    let commands = || count(&server, "commandstats", "cmdstat_zrangebyscore:calls=");
    let reads = || count(&server, "stats", "total_reads_processed:");
    log.due(UnixMillis(99), 9).await.unwrap();
    let before = (commands(), reads());
    log.due(UnixMillis(99), 9).await.unwrap();
    let read = reads() - before.1;
    assert_eq!(commands() - before.0, 16, "one for each shard");
    // One of them is that of asking how many there were.
    assert!(read <= 4, "the server read {read} times");
    println!("16 commands in {} reads", read - 1);
}
