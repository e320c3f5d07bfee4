//! `probe`: asks the health endpoint of a worker on this machine, once.
//!
//! For whoever can run a command beside a worker but has no HTTP client there: the image holds
//! nothing but this program. What a probe says is the endpoint's affair.
//!
//! The rule it keeps: only a 200 is a yes, and a no is told with the endpoint's own words.

use std::{net::IpAddr, net::Ipv4Addr, net::Ipv6Addr, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    args::{ProbeArgs, ProbeName},
    exit::{Exit, Failure},
    reach::Session,
};

/// How long the endpoint may take. Its own answers take milliseconds.
const TIMEOUT: Duration = Duration::from_secs(3);
/// The most that is read of an answer.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

pub(crate) async fn run(session: &Session, args: ProbeArgs) -> Result<Exit, Failure> {
    let Some(address) = session.settings.health_addr else {
        return Err(
            Failure::usage("health_addr is not set, so there is no endpoint to ask")
                .with_hint("give --health-addr, or set SUPERSTEP_HEALTH_ADDR as the worker has it"),
        );
    };
    let address = reachable(address);
    let path = match args.probe {
        ProbeName::Startup => "/startup",
        ProbeName::Ready => "/ready",
        ProbeName::Live => "/live",
    };
    let asked = tokio::time::timeout(TIMEOUT, ask(address, path)).await;
    let answer = match asked {
        Ok(Ok(answer)) => answer,
        Ok(Err(error)) => return Err(unreachable(address, &error.to_string())),
        Err(_) => {
            let why = format!("no answer within {} s", TIMEOUT.as_secs());
            return Err(unreachable(address, &why));
        }
    };
    let Some((status, body)) = parts(&answer) else {
        return Err(Failure::failed(format!(
            "what listens at {address} does not speak HTTP; is it a worker's health_addr?"
        )));
    };
    let told: Value = serde_json::from_str(body).unwrap_or_else(|_| json!(body.trim()));
    session
        .output
        .value(&json!({"ok": status == 200, "status": status, "told": told}))?;
    session.output.line(format!("{path}: {}", body.trim()))?;
    Ok(if status == 200 {
        Exit::Done
    } else {
        Exit::Failed
    })
}

async fn ask(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .await?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// The status and the body of an answer.
fn parts(answer: &str) -> Option<(u16, &str)> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let status = head.strip_prefix("HTTP/1.")?.split(' ').nth(1)?;
    Some((status.parse().ok()?, body))
}

/// Where one that listens everywhere is asked.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

fn unreachable(address: SocketAddr, why: &str) -> Failure {
    Failure::new(
        Exit::Unreachable,
        format!("the health endpoint at {address} cannot be asked: {why}"),
    )
    .with_hint("is a worker running here with that health_addr?")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_has_a_status_and_body() {
        let answer = "HTTP/1.1 503 Service Unavailable\r\na: b\r\n\r\n{\"ok\":false}\n";
        assert_eq!(parts(answer), Some((503, "{\"ok\":false}\n")));
        assert_eq!(parts("HTTP/1.0 200\r\n\r\n"), Some((200, "")));
        for wrong in [
            "",
            "HTTP/1.1 200 OK",
            "SSH-2.0-x\r\n\r\n",
            "HTTP/1.1 x\r\n\r\n",
        ] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn listening_everywhere_is_asked_on_loopback() {
        for (given, asked) in [
            ("0.0.0.0:8080", "127.0.0.1:8080"),
            ("[::]:8080", "[::1]:8080"),
            ("10.1.2.3:8080", "10.1.2.3:8080"),
        ] {
            let given: SocketAddr = given.parse().unwrap();
            assert_eq!(reachable(given).to_string(), asked);
        }
    }
}
