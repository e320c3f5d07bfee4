//! Contract: claims on tasks, and how often tasks were begun again.
//!
//! A claim is a lease by the store's clock and needs nothing else to be there. A count belongs to
//! an open round, as results do, and goes with them.

use std::time::Duration;

use superstep_graph::TaskId;
use superstep_protocol::Nonce;
use tokio::task::JoinSet;

use super::{
    build::{Log, head, must, next_with, start_round, thread},
    clock::{MOMENT, ManualClock},
    delete::must_delete,
};
use crate::{CLAIM_LEASE_MAX, Claimed, ENDED_ROUND_TTL, IndexChange};

const LEASE: Duration = Duration::from_secs(5);
const MINE: Nonce = Nonce(u64::MAX);
const THEIRS: Nonce = Nonce(7);

/// Whoever comes first has it and may renew it; others are told how long it lives.
pub async fn a_claim_keeps_others_out(log: Log) {
    let t = thread("t");
    let round = head(1, 1);
    for _ in 0..2 {
        let mine = log.claim(&t, round, "a", MINE, LEASE).await.unwrap();
        assert_eq!(mine, Claimed::Mine);
    }
    let Claimed::Held { rest } = log.claim(&t, round, "a", THEIRS, LEASE).await.unwrap() else {
        panic!("the claim of another was taken");
    };
    assert!(!rest.is_zero() && rest <= LEASE, "{rest:?}");
    let claims = log.claims(&t, round).await.unwrap();
    assert_eq!(claims.len(), 1);
    assert_eq!(claims["a"].owner, MINE);
    assert!(claims["a"].rest <= LEASE, "{claims:?}");
}

/// Only its owner gives a claim up.
pub async fn a_claim_is_given_up_by_its_owner(log: Log) {
    let t = thread("t");
    let round = head(1, 1);
    let claim = async |owner, lease| log.claim(&t, round, "", owner, lease).await.unwrap();
    assert_eq!(claim(MINE, LEASE).await, Claimed::Mine);
    let refused = claim(THEIRS, Duration::ZERO).await;
    assert!(matches!(refused, Claimed::Held { .. }), "{refused:?}");
    assert_eq!(log.claims(&t, round).await.unwrap()[""].owner, MINE);
    assert_eq!(claim(MINE, Duration::ZERO).await, Claimed::Mine);
    assert!(log.claims(&t, round).await.unwrap().is_empty());
    assert_eq!(claim(THEIRS, LEASE).await, Claimed::Mine);
}

/// Names, rounds and threads are as many claims.
pub async fn claims_of_different_things_do_not_mix(log: Log) {
    let (t, u) = (thread("t"), thread("u"));
    let places = [
        (&t, head(1, 1), "a"),
        (&t, head(1, 1), ""),
        (&t, head(1, 1), "a:b"),
        (&t, head(2, 1), "a"),
        (&u, head(1, 1), "a"),
    ];
    for (n, (thread, round, name)) in (1..).zip(places) {
        let claimed = log.claim(thread, round, name, Nonce(n), LEASE).await;
        assert_eq!(claimed.unwrap(), Claimed::Mine, "{n}");
    }
    for (n, (thread, round, name)) in (1..).zip(places) {
        let claims = log.claims(thread, round).await.unwrap();
        assert_eq!(claims[name].owner, Nonce(n));
    }
    assert_eq!(log.claims(&t, head(1, 1)).await.unwrap().len(), 3);
    assert_eq!(log.head(&t).await.unwrap(), None, "a claim makes no thread");
}

/// Of many at one moment one has it.
pub async fn racing_claims_have_one_owner(log: Log) {
    let mut tasks = JoinSet::new();
    for n in 1..=32 {
        let log = Log::clone(&log);
        tasks.spawn(async move {
            let claimed = log
                .claim(&thread("t"), head(1, 1), "a", Nonce(n), LEASE)
                .await;
            claimed.unwrap() == Claimed::Mine
        });
    }
    let won = tasks.join_all().await;
    assert_eq!(won.into_iter().filter(|won| *won).count(), 1);
}

/// Attempts are counted by task and round, from 1, and taken back one by one down to none.
pub async fn attempts_are_counted_and_forgiven(log: Log) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let (a, b) = (TaskId::from("a"), TaskId::from("0:a"));
    let count = async |task| log.count_attempt(&t, round, task).await.unwrap();
    let forgive = async |task| log.forgive_attempt(&t, round, task).await.unwrap();
    forgive(&a).await;
    assert_eq!(count(&a).await, Some(1));
    assert_eq!(count(&a).await, Some(2));
    assert_eq!(count(&b).await, Some(1));
    forgive(&a).await;
    assert_eq!(count(&a).await, Some(2));
    for _ in 0..4 {
        forgive(&a).await;
    }
    assert_eq!(count(&a).await, Some(1));
    assert!(log.progress(&t, round, &a).await.unwrap().is_empty());
    assert!(log.results(&t, round).await.unwrap().is_empty());
}

/// Outside an open round nothing is counted.
pub async fn attempts_need_an_open_round(log: Log) {
    let (t, a) = (thread("t"), TaskId::from("a"));
    let count = async |round| log.count_attempt(&t, round, &a).await.unwrap();
    assert_eq!(count(head(1, 1)).await, None, "no thread");
    let round = start_round(&log, &t).await;
    assert_eq!(count(head(1, 9)).await, None);
    assert_eq!(count(round).await, Some(1));
    let index = IndexChange {
        rounds_closed: vec![round],
        ..IndexChange::default()
    };
    let now = must(&log, &t, &next_with(Some(round), 2, index)).await;
    assert_eq!(count(round).await, None);
    log.forgive_attempt(&t, round, &a).await.unwrap();
    must_delete(&log, &t, now).await;
    assert_eq!(count(round).await, None);
}

/// A claim that nobody renews is dead after its lease, and no lease is longer than the longest.
pub async fn a_claim_dies_with_its_lease(log: Log, clock: ManualClock) {
    let t = thread("t");
    let round = head(1, 1);
    let claim = async |owner, lease| log.claim(&t, round, "a", owner, lease).await.unwrap();
    for (lease, lives) in [(LEASE, LEASE), (CLAIM_LEASE_MAX * 5, CLAIM_LEASE_MAX)] {
        assert_eq!(claim(MINE, lease).await, Claimed::Mine);
        assert_eq!(claim(THEIRS, LEASE).await, Claimed::Held { rest: lives });
        assert_eq!(log.claims(&t, round).await.unwrap()["a"].rest, lives);
        clock.advance(lives.checked_sub(MOMENT).unwrap());
        assert_eq!(claim(THEIRS, LEASE).await, Claimed::Held { rest: MOMENT });
        clock.advance(MOMENT);
        assert!(log.claims(&t, round).await.unwrap().is_empty());
    }
    assert_eq!(claim(THEIRS, LEASE).await, Claimed::Mine);
}

/// A clock that was ahead leaves claims that seem to live long: they count as dead.
pub async fn a_claim_of_a_clock_ahead_is_dead(log: Log, clock: ManualClock) {
    let t = thread("t");
    let round = head(1, 1);
    let claim = async |owner| log.claim(&t, round, "a", owner, LEASE).await.unwrap();
    assert_eq!(claim(MINE).await, Claimed::Mine);
    clock.step_back(CLAIM_LEASE_MAX);
    assert!(log.claims(&t, round).await.unwrap().is_empty());
    assert_eq!(claim(THEIRS).await, Claimed::Mine);
}

/// Counts stay while their round is open, however long.
pub async fn attempts_live_as_long_as_results(log: Log, clock: ManualClock) {
    let t = thread("t");
    let round = start_round(&log, &t).await;
    let count = async || log.count_attempt(&t, round, &TaskId::from("a")).await;
    assert_eq!(count().await.unwrap(), Some(1));
    clock.advance(ENDED_ROUND_TTL * 1_000);
    assert_eq!(count().await.unwrap(), Some(2));
}
