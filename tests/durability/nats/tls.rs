//! Servers that speak TLS, with certificates made for the test.
//!
//! The client trusts what its CA file says and nothing else, shows a certificate where the
//! server asks for one, and says what is wrong with a handshake that fails.

use std::{
    fs,
    path::{Path, PathBuf},
};

use superstep_queue::Error;
use superstep_tests::servers::ServerBinary;
use tempfile::TempDir;

use super::*;

on_both_servers! {
    a_trusted_server_is_spoken_to
    an_untrusted_server_is_denied
    a_client_shows_its_certificate_when_asked
    a_server_without_tls_is_refused_if_required
}

struct TlsServer {
    server: NatsServer,
    files: TempDir,
}

impl TlsServer {
    fn start(binary: ServerBinary, more: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        for name in ["server", "client", "stranger"] {
            let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
            let file = |what: &str| files.path().join(format!("{name}.{what}"));
            fs::write(file("crt"), made.cert.pem()).unwrap();
            fs::write(file("key"), made.signing_key.serialize_pem()).unwrap();
        }
        let shown = |name: &str| format!("{:?}", shown(&files.path().join(name)));
        let config = format!(
            "tls {{ cert_file: {}, key_file: {}, ca_file: {}, {more} }}",
            shown("server.crt"),
            shown("server.key"),
            shown("client.crt"),
        );
        let server = server_with(binary, "", &config);
        Self { server, files }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.files.path().join(name)
    }

    /// Settings that trust this server.
    fn settings(&self) -> NatsSettings {
        let mut settings = settings(&self.server);
        settings.tls.ca_file = Some(self.file("server.crt"));
        settings
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

fn error(connected: Result<NatsQueue, Error>) -> (ErrorKind, String) {
    let error = connected.map(drop).expect_err("to be refused");
    (error.kind(), error.to_string())
}

async fn a_trusted_server_is_spoken_to(binary: ServerBinary) {
    let tls = TlsServer::start(binary, "");
    let url = tls.server.url();
    for url in [url.clone(), url.replace("nats://", "tls://")] {
        let settings = NatsSettings {
            urls: vec![url],
            ..tls.settings()
        };
        let queue = NatsQueue::connect(settings).await.unwrap();
        queue.setup().await.unwrap();
        queue.publish_work(&[work("a")]).await.unwrap();
    }
}

async fn an_untrusted_server_is_denied(binary: ServerBinary) {
    let tls = TlsServer::start(binary, "");
    let mut wrong = tls.settings();
    wrong.tls.ca_file = Some(tls.file("stranger.crt"));
    let (kind, said) = error(NatsQueue::connect(wrong).await);
    assert_eq!(kind, ErrorKind::Denied, "{said}");
    assert!(
        said.contains("TLS handshake") && said.contains("CA file"),
        "{said}"
    );

    let mut missing = tls.settings();
    missing.tls.ca_file = Some(tls.file("nowhere.crt"));
    let (kind, said) = error(NatsQueue::connect(missing).await);
    assert_eq!(kind, ErrorKind::Denied, "{said}");
    assert!(
        said.contains("No such file") && said.contains("CA file"),
        "{said}"
    );
}

async fn a_client_shows_its_certificate_when_asked(binary: ServerBinary) {
    let tls = TlsServer::start(binary, "verify: true");
    let with = |name: &str| {
        let mut settings = tls.settings();
        settings.tls.client_cert = Some(tls.file(&format!("{name}.crt")));
        settings.tls.client_key = Some(tls.file(&format!("{name}.key")));
        settings
    };
    let queue = NatsQueue::connect(with("client")).await.unwrap();
    queue.setup().await.unwrap();
    for settings in [with("stranger"), tls.settings()] {
        let (kind, said) = error(NatsQueue::connect(settings).await);
        assert_eq!(kind, ErrorKind::Denied, "{said}");
    }
}

async fn a_server_without_tls_is_refused_if_required(binary: ServerBinary) {
    let plain = server(binary);
    let mut settings = settings(&plain);
    settings.tls.required = true;
    let (kind, said) = error(NatsQueue::connect(settings).await);
    assert_eq!(kind, ErrorKind::Denied, "{said}");
}

#[tokio::test]
async fn a_handshake_can_come_first() {
    let binary = ServerBinary::NatsModern;
    let tls = TlsServer::start(binary, "handshake_first: auto");
    let mut settings = tls.settings();
    settings.tls.first = true;
    let queue = NatsQueue::connect(settings).await.unwrap();
    queue.setup().await.unwrap();
}
