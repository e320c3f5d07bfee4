//! Free loopback ports.
//!
//! A port is tried by binding it and given back at once, so a clash stays possible: who starts a
//! server on it tries again with another when the server says that the address is taken.
//!
//! The rule it keeps: ports lie below the range from which systems take ports for outgoing
//! connections. A client that reconnects to a server that is down would otherwise meet itself, or
//! hold the very port that the server is restarted on.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::bail;

/// The first port that is handed out.
const FIRST: u16 = 11_000;

/// How many are handed out; a Redis Cluster node also takes its port plus 10,000.
const COUNT: u16 = 10_000;

/// How many ports this process has tried.
static TRIED: AtomicU16 = AtomicU16::new(0);

/// A port that was free a moment ago, together with the port 10,000 above it.
pub(super) fn free_port() -> anyhow::Result<u16> {
    // Where to begin differs between processes, so that those running side by side rarely meet.
    let nanos = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |now| now.subsec_nanos());
    let begin = (nanos / 1_000).wrapping_add(std::process::id().wrapping_mul(7_919));
    for _ in 0..COUNT {
        let step = u32::from(TRIED.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from(begin.wrapping_add(step) % u32::from(COUNT))?;
        let port = FIRST + offset;
        if is_free(port) && is_free(port + 10_000) {
            return Ok(port);
        }
    }
    bail!(
        "no free loopback port between {FIRST} and {}",
        FIRST + COUNT
    )
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
