//! A way to the server on which answers get lost.
//!
//! It hands on what the client sends, and cuts the connection in the place of every so-manieth
//! answer: the call has happened, and the client cannot know. The rule it keeps: no randomness,
//! so a failing test fails again.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// A proxy that loses answers; it ends with its value.
#[derive(Debug)]
pub(super) struct LossyProxy {
    port: u16,
    lost: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl LossyProxy {
    /// A proxy to a loopback port that loses one answer in `every`.
    pub(super) async fn to(port: u16, every: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own_port = listener.local_addr().unwrap().port();
        let answers = Arc::new(AtomicU64::new(0));
        let lost = Arc::new(AtomicU64::new(0));
        let accepting = tokio::spawn({
            let lost = Arc::clone(&lost);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let (answers, lost) = (Arc::clone(&answers), Arc::clone(&lost));
                    tokio::spawn(async move {
                        if let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await {
                            carry(client, server, every, &answers, &lost).await;
                        }
                    });
                }
            }
        });
        Self {
            port: own_port,
            lost,
            accepting,
        }
    }

    /// The address of the proxy.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}/", self.port)
    }

    /// How many answers were lost so far.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

impl Drop for LossyProxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(
    client: TcpStream,
    server: TcpStream,
    every: u64,
    answers: &AtomicU64,
    lost: &AtomicU64,
) {
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let asking = tokio::spawn(async move {
        drop(tokio::io::copy(&mut from_client, &mut to_server).await);
    });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from_server.read(&mut buffer).await {
        if answers.fetch_add(1, Ordering::Relaxed) % every == every - 1 {
            lost.fetch_add(1, Ordering::Relaxed);
            break;
        }
        if to_client.write_all(&buffer[..length]).await.is_err() {
            break;
        }
    }
    asking.abort();
}
