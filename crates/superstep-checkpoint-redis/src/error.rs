//! What the client library and the server say went wrong, as the port's kinds.
//!
//! A script's error comes in the words of the server's version, so words are looked for, not only
//! codes. Trying again is left to the link. The rule it keeps: `Unavailable` is the only kind
//! after which a call may have happened.

use redis::{ErrorKind as RedisKind, RedisError, ServerErrorKind};
use superstep_checkpoint::{Error, ErrorKind};

/// The code of the error that a Sentinel does not watch the master it was asked for.
pub(crate) const NO_SUCH_MASTER: &str = "NOSUCHMASTER";

/// Whether the same call may be sent again soon, and on which connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// No: the answer would be the same, or the time is up.
    No,
    /// On this connection.
    Same,
    /// On a new one.
    Reconnect,
}

/// What to do after this error.
pub(crate) fn again(error: &RedisError) -> Again {
    if let Some(reason) = known(error) {
        return match reason {
            Reason::ReadOnly => Again::Reconnect,
            Reason::Busy | Reason::NoReplicas => Again::Same,
            _ => Again::No,
        };
    }
    match error.kind() {
        RedisKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown,
        ) => Again::Same,
        _ if error.is_timeout() || is_certificate(error) => Again::No,
        RedisKind::Io | RedisKind::ClusterConnectionNotFound => Again::Reconnect,
        _ => Again::No,
    }
}

/// Whether the connection that gave this error should not be used any more. One that let a call
/// time out may be deaf: nothing tells it from a slow one but a new connection.
pub(crate) fn is_lost(error: &RedisError) -> bool {
    again(error) == Again::Reconnect
        || matches!(error.kind(), RedisKind::Io | RedisKind::Parse)
        || error.is_unrecoverable_error()
}

/// The same of a connection to a Cluster, which makes those to its nodes anew by itself as long as
/// it knows any of them.
pub(crate) fn is_lost_cluster(error: &RedisError) -> bool {
    error.kind() == RedisKind::ClusterConnectionNotFound
}

/// The error of a call to the servers at `addresses`.
pub(crate) fn translate(addresses: &str, error: RedisError) -> Error {
    let (kind, message) = match known(&error) {
        Some(reason) => reason.explain(addresses),
        None => explain_kind(addresses, &error),
    };
    Error::new(kind, message).with_source(error)
}

/// Whether a Cluster says that a slot is elsewhere. Its client library follows, but only so often
/// while slots move or masters come back.
pub(crate) fn is_redirect(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        RedisKind::Server(ServerErrorKind::Moved | ServerErrorKind::Ask)
    )
}

/// Reasons that the server tells by a code or by words, depending on its version and on whether
/// the command ran in a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    OutOfMemory,
    DiskError,
    NotLoggedIn,
    WrongPassword,
    NotPermitted,
    WrongType,
    ReadOnly,
    NoReplicas,
    Busy,
    TooManyClients,
    IsACluster,
    NotACluster,
    NoSuchMaster,
}

fn known(error: &RedisError) -> Option<Reason> {
    // A code, or the words that follow it where a script has wrapped it.
    const WORDS: [(&str, &str, Reason); 14] = [
        ("OOM", "OOM command not allowed", Reason::OutOfMemory),
        ("MISCONF", "-MISCONF", Reason::DiskError),
        ("NOAUTH", "Authentication required", Reason::NotLoggedIn),
        ("WRONGPASS", "WRONGPASS", Reason::WrongPassword),
        ("NOPERM", "NOPERM", Reason::NotPermitted),
        (
            "NOPERM",
            "The user executing the script can't",
            Reason::NotPermitted,
        ),
        ("WRONGTYPE", "WRONGTYPE Operation", Reason::WrongType),
        ("READONLY", "-READONLY", Reason::ReadOnly),
        ("NOREPLICAS", "-NOREPLICAS", Reason::NoReplicas),
        ("BUSY", "-BUSY", Reason::Busy),
        ("", "max number of clients reached", Reason::TooManyClients),
        ("MOVED", "-MOVED", Reason::IsACluster),
        ("", "cluster support disabled", Reason::NotACluster),
        (NO_SUCH_MASTER, NO_SUCH_MASTER, Reason::NoSuchMaster),
    ];
    if error.kind() == RedisKind::AuthenticationFailed {
        return Some(Reason::WrongPassword);
    }
    let code = error.code().unwrap_or_default();
    let text = error.to_string();
    let (_, _, reason) = WORDS
        .iter()
        .find(|(known, words, _)| (!known.is_empty() && code == *known) || text.contains(words))?;
    Some(*reason)
}

impl Reason {
    fn explain(self, addresses: &str) -> (ErrorKind, String) {
        let (kind, what) = match self {
            Self::OutOfMemory => (
                ErrorKind::Full,
                "is out of memory and refuses writes; raise maxmemory, or delete or trim threads",
            ),
            Self::DiskError => (
                ErrorKind::Full,
                "cannot write to its disk and refuses writes; make room or repair the disk",
            ),
            Self::NotLoggedIn => (
                ErrorKind::Denied,
                "asks for a password; put it into the address, as redis://user:password@host:port",
            ),
            Self::WrongPassword => (
                ErrorKind::Denied,
                "refuses the user or the password; correct them in the address",
            ),
            Self::NotPermitted => (
                ErrorKind::Denied,
                "does not permit this user a command or a key; grant it the superstep keys and scripts (ACL)",
            ),
            Self::WrongType => (
                ErrorKind::Corrupt,
                "holds a key of another type under a name of superstep's; does another program use the same prefix and namespace?",
            ),
            Self::ReadOnly => (
                ErrorKind::Unavailable,
                "is a replica and takes no writes; a failover may be under way",
            ),
            Self::NoReplicas => (
                ErrorKind::Unavailable,
                "has fewer replicas than min-replicas-to-write and refuses writes",
            ),
            Self::Busy => (ErrorKind::Unavailable, "is busy with a slow script"),
            Self::TooManyClients => (
                ErrorKind::Unavailable,
                "has reached its number of clients; raise maxclients",
            ),
            Self::IsACluster => (
                ErrorKind::Denied,
                "is a node of a Cluster; use redis+cluster:// for its address",
            ),
            Self::NotACluster => (
                ErrorKind::Denied,
                "is not a node of a Cluster; use redis:// for its address",
            ),
            Self::NoSuchMaster => (
                ErrorKind::Denied,
                "is a Sentinel that watches no master of this name; correct it at the end of the address",
            ),
        };
        (kind, format!("redis at {addresses} {what}"))
    }
}

fn explain_kind(addresses: &str, error: &RedisError) -> (ErrorKind, String) {
    let at = |what: &str| format!("redis at {addresses} {what}");
    match error.kind() {
        RedisKind::Server(
            ServerErrorKind::BusyLoading
            | ServerErrorKind::TryAgain
            | ServerErrorKind::ClusterDown
            | ServerErrorKind::MasterDown
            | ServerErrorKind::Ask,
        ) => (
            ErrorKind::Unavailable,
            at("cannot serve the call now; try again"),
        ),
        _ if error.is_timeout() => (
            ErrorKind::Unavailable,
            at("did not answer in time; whether the call happened is not known"),
        ),
        _ if is_certificate(error) => (
            ErrorKind::Denied,
            at(
                "and this process do not agree on TLS; check the CA file, the certificates and that the port speaks TLS",
            ),
        ),
        RedisKind::Io | RedisKind::ClusterConnectionNotFound => (
            ErrorKind::Unavailable,
            format!("cannot reach redis at {addresses}; is it running, and is the address right?"),
        ),
        RedisKind::InvalidClientConfig => (
            ErrorKind::Invalid,
            format!("the settings for redis at {addresses} cannot be used"),
        ),
        RedisKind::Parse | RedisKind::UnexpectedReturnType => {
            (ErrorKind::Corrupt, at("gave an answer that cannot be read"))
        }
        _ => (
            ErrorKind::Invalid,
            at(
                "refused the call; this is a bug in superstep, or the server is not Redis 6.2 or newer",
            ),
        ),
    }
}

fn is_certificate(error: &RedisError) -> bool {
    let text = error.to_string().to_ascii_lowercase();
    [
        "certificate",
        "unknownissuer",
        "corrupt message",
        "fatal alert",
    ]
    .iter()
    .any(|word| error.is_io_error() && text.contains(word))
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn server(line: &str) -> RedisError {
        redis::parse_redis_value(format!("-{line}\r\n").as_bytes())
            .unwrap()
            .extract_error()
            .unwrap_err()
    }

    #[track_caller]
    fn check(error: RedisError, kind: ErrorKind, retry: Again) {
        assert_eq!(again(&error), retry, "{error}");
        let translated = translate("here:1", error);
        assert_eq!(translated.kind(), kind, "{translated}");
        assert!(translated.to_string().contains("here:1"), "{translated}");
    }

    #[test]
    fn an_error_has_the_kind_its_reader_acts_on() {
        use ErrorKind::{Corrupt, Denied, Full, Invalid, Unavailable};
        for (line, kind, retry) in [
            (
                "OOM command not allowed when used memory > 'maxmemory'.",
                Full,
                Again::No,
            ),
            (
                "ERR Error running script (call to f_0): @user_script:1: @user_script: 1: -OOM command not allowed when used memory > 'maxmemory'.",
                Full,
                Again::No,
            ),
            (
                "MISCONF Errors writing to the AOF file: No space left",
                Full,
                Again::No,
            ),
            ("NOAUTH Authentication required.", Denied, Again::No),
            (
                "WRONGPASS invalid username-password pair or user is disabled.",
                Denied,
                Again::No,
            ),
            (
                "NOPERM this user has no permissions to run the 'evalsha' command",
                Denied,
                Again::No,
            ),
            (
                "ERR The user executing the script can't run this command or subcommand script: 0",
                Denied,
                Again::No,
            ),
            (
                "WRONGTYPE Operation against a key holding the wrong kind of value script: 0",
                Corrupt,
                Again::No,
            ),
            (
                "LOADING Redis is loading the dataset in memory",
                Unavailable,
                Again::Same,
            ),
            (
                "TRYAGAIN Multiple keys request during rehashing of slot",
                Unavailable,
                Again::Same,
            ),
            ("CLUSTERDOWN The cluster is down", Unavailable, Again::Same),
            (
                "MASTERDOWN Link with MASTER is down",
                Unavailable,
                Again::Same,
            ),
            (
                "READONLY You can't write against a read only replica.",
                Unavailable,
                Again::Reconnect,
            ),
            (
                "NOREPLICAS Not enough good replicas to write.",
                Unavailable,
                Again::Same,
            ),
            (
                "BUSY Redis is busy running a script.",
                Unavailable,
                Again::Same,
            ),
            ("ERR max number of clients reached", Unavailable, Again::No),
            ("MOVED 3999 127.0.0.1:6381", Denied, Again::No),
            (
                "ERR This instance has cluster support disabled",
                Denied,
                Again::No,
            ),
            ("ERR unknown command 'EVALSHA'", Invalid, Again::No),
        ] {
            check(server(line), kind, retry);
        }
    }

    #[test]
    fn a_lost_connection_is_tried_again_and_a_timeout_is_not() {
        for (io, retry) in [
            (io::ErrorKind::ConnectionRefused, Again::Reconnect),
            (io::ErrorKind::BrokenPipe, Again::Reconnect),
            (io::ErrorKind::UnexpectedEof, Again::Reconnect),
            (io::ErrorKind::TimedOut, Again::No),
        ] {
            assert!(is_lost(&io::Error::from(io).into()));
            check(io::Error::from(io).into(), ErrorKind::Unavailable, retry);
        }
    }
}
