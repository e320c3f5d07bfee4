//! Claims on tasks of a round, and how often tasks were begun again.
//!
//! Each change is one change of the writer. Claims are leases by the clock of the machine, and
//! need no round; counts need an open one and go with it.

use std::{collections::BTreeMap, time::Duration};

use rusqlite::{Connection, OptionalExtension, params};
use superstep_checkpoint::{CLAIM_LEASE_MAX, Claim, Claimed};
use superstep_graph::TaskId;
use superstep_protocol::{Dispatch, Nonce, ThreadId, UnixMillis};

use crate::{
    failure::Failure,
    value::{later, millis, millis_at, u64_at},
};

pub(super) fn claim(
    connection: &Connection,
    (thread, round, name): (&ThreadId, Dispatch, &str),
    owner: Nonce,
    lease: Duration,
    now: UnixMillis,
) -> Result<Claimed, Failure> {
    let (round, owner) = (round.to_string(), owner.to_string());
    let held = connection
        .prepare_cached(
            "SELECT expires_at FROM claims
             WHERE thread = ?1 AND round = ?2 AND name = ?3 AND owner <> ?4",
        )?
        .query_row([thread.as_str(), &round, name, &owner], |row| {
            Ok(millis_at(row, 0))
        })
        .optional()?
        .transpose()?;
    if let Some(rest) = held.and_then(|until| rest(until, now)) {
        return Ok(Claimed::Held { rest });
    }
    let until = later(now, lease.min(CLAIM_LEASE_MAX));
    if until > now {
        connection
            .prepare_cached(
                "INSERT OR REPLACE INTO claims (thread, round, name, owner, expires_at)
                 VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![thread.as_str(), round, name, owner, millis(until)])?;
    } else {
        connection
            .prepare_cached("DELETE FROM claims WHERE thread = ?1 AND round = ?2 AND name = ?3")?
            .execute([thread.as_str(), &round, name])?;
    }
    Ok(Claimed::Mine)
}

pub(super) fn claims(
    connection: &Connection,
    thread: &ThreadId,
    round: Dispatch,
    now: UnixMillis,
) -> Result<BTreeMap<String, Claim>, Failure> {
    let mut statement = connection.prepare_cached(
        "SELECT name, owner, expires_at FROM claims WHERE thread = ?1 AND round = ?2",
    )?;
    let mut rows = statement.query([thread.as_str(), &round.to_string()])?;
    let mut claims = BTreeMap::new();
    while let Some(row) = rows.next()? {
        let owner: String = row.get(1)?;
        let owner = u64::from_str_radix(&owner, 16)
            .map_err(|_| Failure::corrupt("the owner of a claim cannot be read"))?;
        if let Some(rest) = rest(millis_at(row, 2)?, now) {
            let owner = Nonce(owner);
            claims.insert(row.get(0)?, Claim { owner, rest });
        }
    }
    Ok(claims)
}

fn rest(until: UnixMillis, now: UnixMillis) -> Option<Duration> {
    let rest = Duration::from_millis(until.0.saturating_sub(now.0));
    (!rest.is_zero() && rest <= CLAIM_LEASE_MAX).then_some(rest)
}

pub(super) fn count_attempt(
    connection: &Connection,
    thread: &ThreadId,
    round: Dispatch,
    task: &TaskId,
) -> Result<Option<u64>, Failure> {
    let round = round.to_string();
    let open = connection
        .prepare_cached(
            "SELECT 1 FROM rounds WHERE thread = ?1 AND round = ?2 AND expires_at IS NULL",
        )?
        .exists([thread.as_str(), &round])?;
    if !open {
        return Ok(None);
    }
    let count = connection
        .prepare_cached(
            "INSERT INTO attempts (thread, round, task, attempts) VALUES (?1, ?2, ?3, 1)
             ON CONFLICT (thread, round, task) DO UPDATE SET attempts = attempts + 1
             RETURNING attempts",
        )?
        .query_row([thread.as_str(), &round, task.as_str()], |row| {
            Ok(u64_at(row, 0))
        })??;
    Ok(Some(count))
}

pub(super) fn forgive_attempt(
    connection: &Connection,
    thread: &ThreadId,
    round: Dispatch,
    task: &TaskId,
) -> Result<(), Failure> {
    connection
        .prepare_cached(
            "UPDATE attempts SET attempts = attempts - 1
             WHERE thread = ?1 AND round = ?2 AND task = ?3 AND attempts > 0",
        )?
        .execute([thread.as_str(), &round.to_string(), task.as_str()])?;
    Ok(())
}
