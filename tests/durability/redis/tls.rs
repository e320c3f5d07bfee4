//! Servers that speak TLS, with certificates made for the test.
//!
//! The client trusts what its CA file says and nothing else, and shows a certificate where the
//! server asks for one.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
    time::Duration,
};

use superstep_checkpoint::ErrorKind;
use superstep_checkpoint_redis::{RedisLog, RedisSettings};
use superstep_tests::servers::{RedisOptions, RedisServer};
use tempfile::TempDir;

use super::{grow, refused, thread};

/// A server with a TLS port, and the files that a client needs for it.
struct TlsServer {
    _server: RedisServer,
    url: String,
    plain_url: String,
    files: TempDir,
}

impl TlsServer {
    fn start(ask_clients: bool) -> Self {
        let files = tempfile::tempdir().unwrap();
        let certificate = |name: &str| {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let of = |what: &str| files.path().join(format!("{name}.{what}"));
            fs::write(of("crt"), made.cert.pem()).unwrap();
            fs::write(of("key"), made.signing_key.serialize_pem()).unwrap();
            (of("crt"), of("key"))
        };
        let (crt, key) = certificate("server");
        let (client, _) = certificate("client");
        certificate("stranger");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let shown = |path: &Path| path.display().to_string();
        let server = RedisServer::start_with(RedisOptions {
            config: format!(
                "tls-port {port}\ntls-cert-file {}\ntls-key-file {}\ntls-ca-cert-file {}\ntls-auth-clients {}",
                shown(&crt),
                shown(&key),
                shown(&client),
                if ask_clients { "yes" } else { "no" },
            ),
            ..RedisOptions::default()
        });
        let server = server.unwrap();
        Self {
            url: format!("rediss://127.0.0.1:{port}"),
            plain_url: server.url(),
            _server: server,
            files,
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    fn settings(&self) -> RedisSettings {
        let mut settings = RedisSettings::new(&self.url);
        settings.tls_ca_file = Some(self.file("server.crt"));
        settings
    }
}

#[tokio::test]
async fn a_server_with_a_trusted_certificate_is_used() {
    let server = TlsServer::start(false);
    let log = RedisLog::connect(server.settings()).await.unwrap();
    grow(&log, &thread("t"), 3).await;
}

#[tokio::test]
async fn a_server_with_a_strange_certificate_is_not_trusted() {
    let server = TlsServer::start(false);
    let mut settings = server.settings();
    for ca in [Some(server.file("stranger.crt")), None] {
        settings.tls_ca_file = ca;
        let error = refused(settings.clone()).await;
        assert_eq!(error.kind(), ErrorKind::Denied, "{error}");
        assert!(error.to_string().contains("TLS"), "{error}");
    }
}

#[tokio::test]
async fn a_client_shows_its_certificate_where_asked() {
    let server = TlsServer::start(true);
    let mut settings = server.settings();
    settings.tls_cert_file = Some(server.file("client.crt"));
    settings.tls_key_file = Some(server.file("client.key"));
    let log = RedisLog::connect(settings.clone()).await.unwrap();
    grow(&log, &thread("t"), 3).await;

    // The server ends the connection; whether its alert comes first is a race.
    let error = refused(server.settings()).await;
    assert!(error.to_string().contains("certificate"), "{error:?}");
    settings.tls_cert_file = Some(server.file("stranger.crt"));
    settings.tls_key_file = Some(server.file("stranger.key"));
    let error = refused(settings).await;
    assert!(error.to_string().contains("certificate"), "{error:?}");
}

#[tokio::test]
async fn tls_to_a_plain_port_is_told() {
    let server = TlsServer::start(false);
    let mut settings = server.settings();
    settings.connect_timeout = Duration::from_secs(1);
    settings.urls = vec![server.plain_url.replace("redis://", "rediss://")];
    let error = refused(settings).await;
    assert!(
        matches!(error.kind(), ErrorKind::Denied | ErrorKind::Unavailable),
        "{error}"
    );
}
