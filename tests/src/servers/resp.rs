//! As much of the Redis protocol as a test harness needs: send one command, read one reply.
//!
//! The harness checks readiness, builds clusters and looks at servers with it, without a client
//! library whose own reconnecting would hide what is being tested. Speed is left to real clients.
//!
//! The rule it keeps: every read has a timeout, so a frozen server fails a test and never hangs it.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// How long a reply may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a Redis server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status or a string; bytes that are not UTF-8 are replaced.
    Text(String),
    /// An error, as the server words it.
    Error(String),
    /// A number.
    Integer(i64),
    /// A string or array that is not there.
    Nil,
    /// A list of replies.
    List(Vec<Reply>),
}

impl Reply {
    /// The text of a status or string.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

/// Connects to the loopback `port`, logs in if asked to, sends `command` and reads the reply.
pub(super) fn call(port: u16, password: Option<&str>, command: &[&str]) -> anyhow::Result<Reply> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let mut reader = BufReader::new(stream);
    if let Some(password) = password {
        exchange(&mut reader, &["AUTH", password])?;
    }
    exchange(&mut reader, command)
}

fn exchange(reader: &mut BufReader<TcpStream>, command: &[&str]) -> anyhow::Result<Reply> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for part in command {
        write!(bytes, "${}\r\n{part}\r\n", part.len())?;
    }
    reader.get_mut().write_all(&bytes)?;
    read_reply(reader).with_context(|| format!("no reply to {}", command.join(" ")))
}

fn read_reply(reader: &mut BufReader<TcpStream>) -> anyhow::Result<Reply> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let line = line.trim_end();
    let Some(kind) = line.chars().next() else {
        bail!("the server closed the connection")
    };
    let rest = &line[kind.len_utf8()..];
    Ok(match kind {
        '+' => Reply::Text(rest.to_owned()),
        '-' => Reply::Error(rest.to_owned()),
        ':' => Reply::Integer(rest.parse()?),
        '$' => match usize::try_from(rest.parse::<i64>()?) {
            Ok(length) => {
                let mut bytes = vec![0; length + 2];
                reader.read_exact(&mut bytes)?;
                Reply::Text(String::from_utf8_lossy(&bytes[..length]).into_owned())
            }
            Err(_) => Reply::Nil,
        },
        '*' => match usize::try_from(rest.parse::<i64>()?) {
            Ok(length) => Reply::List(
                (0..length)
                    .map(|_| read_reply(reader))
                    .collect::<Result<_, _>>()?,
            ),
            Err(_) => Reply::Nil,
        },
        _ => bail!("not a reply of the Redis protocol: {line}"),
    })
}
