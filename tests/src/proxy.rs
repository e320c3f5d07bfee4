//! A way to a server that can be cut, go deaf, and be mended.
//!
//! One stands between one client and one server, so that a cut concerns nobody else. What is cut
//! loses its connections and gets no new ones; what is deaf keeps them, and nothing comes through
//! until it is mended, as when packets are dropped. What went through before stays said.
//!
//! The rule it keeps: the port is the proxy's for as long as it lives, so clients that come back
//! come back here.

use std::net::Ipv4Addr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Open,
    Cut,
    Deaf,
}

/// A proxy to one loopback port; it ends with its value.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    way: watch::Sender<Way>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// A proxy to a loopback port.
    ///
    /// # Errors
    ///
    /// When no port can be listened on.
    pub async fn to(port: u16) -> std::io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let own_port = listener.local_addr()?.port();
        let (way, seen) = watch::channel(Way::Open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let way = seen.clone();
                tokio::spawn(async move {
                    if *way.borrow() == Way::Cut {
                        return;
                    }
                    if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await {
                        carry(client, server, way).await;
                    }
                });
            }
        });
        Ok(Self {
            port: own_port,
            way,
            accepting,
        })
    }

    /// The port on the loopback address.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends all connections and refuses new ones.
    pub fn cut(&self) {
        self.way.send_replace(Way::Cut);
    }

    /// Holds all back, in both directions.
    pub fn deafen(&self) {
        self.way.send_replace(Way::Deaf);
    }

    /// Lets all through again.
    pub fn mend(&self) {
        self.way.send_replace(Way::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(client: TcpStream, server: TcpStream, way: watch::Receiver<Way>) {
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let mut cuts = way.clone();
    tokio::select! {
        _ = cuts.wait_for(|way| *way == Way::Cut) => {}
        () = hand_on(from_client, to_server, way.clone()) => {}
        () = hand_on(from_server, to_client, way) => {}
    }
}

async fn hand_on(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, mut way: watch::Receiver<Way>) {
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer).await {
        if way.wait_for(|way| *way != Way::Deaf).await.is_err()
            || to.write_all(&buffer[..length]).await.is_err()
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A server that says back what it hears, and a proxy to it.
    async fn echo() -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        Proxy::to(port).await.unwrap()
    }

    async fn says_back(stream: &mut TcpStream) -> bool {
        let mut heard = [0; 1];
        stream.write_all(b"x").await.is_ok() && stream.read_exact(&mut heard).await.is_ok()
    }

    #[tokio::test]
    async fn a_cut_ends_connections_until_it_is_mended() {
        let proxy = echo().await;
        let address = (Ipv4Addr::LOCALHOST, proxy.port());
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(says_back(&mut stream).await);
        proxy.cut();
        assert!(!says_back(&mut stream).await);
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(!says_back(&mut stream).await);
        proxy.mend();
        let mut stream = TcpStream::connect(address).await.unwrap();
        assert!(says_back(&mut stream).await);
    }

    #[tokio::test]
    async fn a_deaf_way_holds_back_what_is_said() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))
            .await
            .unwrap();
        assert!(says_back(&mut stream).await);
        proxy.deafen();
        let held = tokio::time::timeout(Duration::from_millis(100), says_back(&mut stream)).await;
        assert!(held.is_err());
        proxy.mend();
        assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 1);
    }
}
