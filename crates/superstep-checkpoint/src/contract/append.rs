//! Contract: the compare of `append`, its lost answers, its outcomes, and its races.

use bytes::Bytes;
use superstep_protocol::ThreadStatus;
use tokio::task::JoinSet;

use super::build::{
    EARLIER, LATER, Log, any_interrupt, any_thread, command, grow, head, interrupt, must, next,
    next_with, record, row, thread,
};
use crate::{Append, Appended, ErrorKind, IndexChange};

/// A thread begins with its first append.
pub async fn a_first_append_makes_a_log(log: Log) {
    let t = thread("t");
    let first = must(&log, &t, &next(None, 7)).await;
    assert_eq!(log.head(&t).await.unwrap(), Some(first));
    assert_eq!(first, head(1, 7));
}

/// Versions grow by one with each append.
pub async fn an_append_after_the_head_is_done(log: Log) {
    let t = thread("t");
    assert_eq!(grow(&log, &t, 5).await, head(5, 5));
    assert_eq!(log.head(&t).await.unwrap(), Some(head(5, 5)));
}

/// The compare is on the whole head, or a writer from before a step back would go on.
pub async fn a_stale_nonce_with_the_right_version_is_refused(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 3).await;
    let stale = next(Some(head(3, 99)), 4);
    let answer = log.append(&t, &stale).await.unwrap();
    assert_eq!(answer, Appended::Moved { head: Some(now) });
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
}

/// A writer that decided on an older head is told the new one.
pub async fn an_older_head_is_refused(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 3).await;
    let answer = log.append(&t, &next(Some(head(2, 2)), 50)).await.unwrap();
    assert_eq!(answer, Appended::Moved { head: Some(now) });
    // A head from the future is one from before a step back.
    let answer = log.append(&t, &next(Some(head(9, 9)), 50)).await.unwrap();
    assert_eq!(answer, Appended::Moved { head: Some(now) });
    assert_eq!(log.record(&t, 10).await.unwrap(), None);
}

/// `after: None` means that the thread must not be there.
pub async fn a_first_append_to_a_known_thread_is_refused(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 2).await;
    let answer = log.append(&t, &next(None, 50)).await.unwrap();
    assert_eq!(answer, Appended::Moved { head: Some(now) });
}

/// Nothing but a first append makes a log.
pub async fn an_append_to_an_unknown_thread_is_refused(log: Log) {
    let t = thread("t");
    let answer = log.append(&t, &next(Some(head(4, 4)), 5)).await.unwrap();
    assert_eq!(answer, Appended::Moved { head: None });
    assert_eq!(log.head(&t).await.unwrap(), None);
}

/// What comes with a refused append leaves no trace in any index.
pub async fn a_refused_append_changes_nothing(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 2).await;
    let listed = log.threads(&any_thread(10)).await.unwrap();
    let index = IndexChange {
        row: Some(row(ThreadStatus::Error, "other", 9_000)),
        watched: Some(true),
        opened: vec![interrupt("q", 1)],
        due_set: [("d".to_owned(), LATER)].into(),
        rounds_opened: vec![head(3, 50)],
        ..IndexChange::default()
    };
    let stale = next_with(Some(head(2, 99)), 50, index);
    let answer = log.append(&t, &stale).await.unwrap();
    assert_eq!(answer, Appended::Moved { head: Some(now) });
    assert_eq!(log.threads(&any_thread(10)).await.unwrap(), listed);
    assert_eq!(log.watched(EARLIER, LATER, 10).await.unwrap(), []);
    assert_eq!(log.due(LATER, 10).await.unwrap(), []);
    let open = log.interrupts(&any_interrupt(10)).await.unwrap();
    assert_eq!(open.rows, []);
    assert_eq!(log.history(&t, None, 10).await.unwrap().len(), 2);
}

/// A gap is a bug in the caller, not a moved head.
pub async fn a_version_gap_is_an_invalid_call(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 1).await;
    for (after, version) in [(Some(now), 3), (Some(now), 1), (None, 2), (None, 0)] {
        let mut append = next(after, 60);
        append.record = record(head(version, 60), 1);
        let error = log.append(&t, &append).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{append:?}");
    }
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
}

/// A thread that is in the store is in the list, from its first record on.
pub async fn a_first_record_without_a_row_is_invalid(log: Log) {
    let t = thread("t");
    let mut append = next(None, 1);
    append.index.row = None;
    let error = log.append(&t, &append).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(log.head(&t).await.unwrap(), None);
}

/// An answer that was lost is settled by sending the same append again, however late.
pub async fn the_same_append_again_is_done(log: Log) {
    let t = thread("t");
    let first = Append {
        outcome: Some((command("c"), Bytes::from("accepted"))),
        ..next(None, 1)
    };
    must(&log, &t, &first).await;
    must(&log, &t, &first).await;
    let index = IndexChange {
        watched: Some(true),
        opened: vec![interrupt("q", 5)],
        ..IndexChange::default()
    };
    let second = next_with(Some(head(1, 1)), 2, index);
    must(&log, &t, &second).await;
    let closing = IndexChange {
        watched: Some(false),
        closed: vec!["q".into()],
        ..IndexChange::default()
    };
    let third = next_with(Some(head(2, 2)), 3, closing);
    let now = must(&log, &t, &third).await;
    for again in [&first, &second, &third] {
        must(&log, &t, again).await;
    }
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
    // The repeated second append did not enter its index changes again.
    assert_eq!(log.watched(EARLIER, LATER, 10).await.unwrap(), []);
    assert_eq!(log.interrupts(&any_interrupt(10)).await.unwrap().rows, []);
}

/// Only the very nonce settles a lost answer.
pub async fn another_record_of_the_same_version_is_refused(log: Log) {
    let t = thread("t");
    let now = grow(&log, &t, 3).await;
    for version in 1..=2 {
        let other = next(Some(head(version, version)), 70);
        let answer = log.append(&t, &other).await.unwrap();
        assert_eq!(answer, Appended::Moved { head: Some(now) });
    }
}

/// The outcome of the command that an append accepts is there with it.
pub async fn an_accepting_append_keeps_its_outcome(log: Log) {
    let t = thread("t");
    let append = Append {
        outcome: Some((command("c"), Bytes::from("accepted"))),
        ..next(None, 1)
    };
    must(&log, &t, &append).await;
    let kept = log.outcome(&t, &command("c")).await.unwrap();
    assert_eq!(kept, Some(Bytes::from("accepted")));
    let before = log
        .put_outcome(&t, &command("c"), Bytes::from("refused"))
        .await;
    assert_eq!(before.unwrap(), Some(Bytes::from("accepted")));
}

/// A command that was decided is not decided again: neither refused nor accepted ones.
pub async fn an_append_for_a_decided_command_changes_nothing(log: Log) {
    let t = thread("t");
    let refused = log
        .put_outcome(&t, &command("early"), Bytes::from("refused"))
        .await;
    assert_eq!(refused.unwrap(), None);
    let start = Append {
        outcome: Some((command("early"), Bytes::from("accepted"))),
        ..next(None, 1)
    };
    let answer = log.append(&t, &start).await.unwrap();
    let outcome = Bytes::from("refused");
    assert_eq!(answer, Appended::Decided { outcome });
    assert_eq!(log.head(&t).await.unwrap(), None);
    assert_eq!(log.threads(&any_thread(10)).await.unwrap().rows, []);

    let start = Append {
        outcome: Some((command("start"), Bytes::from("started"))),
        ..next(None, 2)
    };
    let now = must(&log, &t, &start).await;
    let again = Append {
        outcome: Some((command("start"), Bytes::from("other"))),
        ..next(Some(now), 3)
    };
    let answer = log.append(&t, &again).await.unwrap();
    let outcome = Bytes::from("started");
    assert_eq!(answer, Appended::Decided { outcome });
    assert_eq!(log.head(&t).await.unwrap(), Some(now));
}

/// The order of checks: whoever comes late with a decided command learns its outcome.
pub async fn a_decided_command_is_told_before_a_moved_head(log: Log) {
    let t = thread("t");
    let start = Append {
        outcome: Some((command("c"), Bytes::from("accepted"))),
        ..next(None, 1)
    };
    let now = must(&log, &t, &start).await;
    must(&log, &t, &next(Some(now), 2)).await;
    let late = Append {
        outcome: Some((command("c"), Bytes::from("mine"))),
        ..next(Some(now), 3)
    };
    let answer = log.append(&t, &late).await.unwrap();
    let outcome = Bytes::from("accepted");
    assert_eq!(answer, Appended::Decided { outcome });
}

/// A command whose append lost is still undecided.
pub async fn a_refused_append_keeps_no_outcome(log: Log) {
    let t = thread("t");
    grow(&log, &t, 2).await;
    let stale = Append {
        outcome: Some((command("c"), Bytes::from("accepted"))),
        ..next(Some(head(1, 1)), 50)
    };
    let answer = log.append(&t, &stale).await.unwrap();
    assert!(matches!(answer, Appended::Moved { .. }), "{answer:?}");
    assert_eq!(log.outcome(&t, &command("c")).await.unwrap(), None);
}

/// Sends the appends all at once; gives each with its answer.
async fn race(log: &Log, appends: Vec<Append>) -> Vec<(Append, Appended)> {
    let mut tasks = JoinSet::new();
    for append in appends {
        let log = Log::clone(log);
        tasks.spawn(async move {
            let answer = log.append(&thread("t"), &append).await.unwrap();
            (append, answer)
        });
    }
    tasks.join_all().await
}

#[track_caller]
fn one_winner(answers: &[(Append, Appended)]) -> &Append {
    let winners: Vec<_> = answers
        .iter()
        .filter(|(_, answer)| *answer == Appended::Done)
        .collect();
    assert_eq!(winners.len(), 1, "exactly one append wins");
    let winner = &winners[0].0;
    for (_, answer) in answers.iter().filter(|(append, _)| append != winner) {
        let head = Some(winner.record.head);
        assert_eq!(
            *answer,
            Appended::Moved { head },
            "the others learn the head"
        );
    }
    winner
}

/// Of 64 writers on one head one wins, and the others learn its record.
pub async fn one_of_many_racing_appends_wins(log: Log) {
    let t = thread("t");
    let start = grow(&log, &t, 1).await;
    let appends = (100..164).map(|nonce| next(Some(start), nonce)).collect();
    let answers = race(&log, appends).await;
    let winner = one_winner(&answers);
    let stored = log.record(&t, 2).await.unwrap();
    assert_eq!(stored.as_ref(), Some(&winner.record));
    assert_eq!(log.head(&t).await.unwrap(), Some(winner.record.head));
}

/// Of 64 starts of one thread one wins.
pub async fn one_of_many_racing_first_appends_wins(log: Log) {
    let appends = (100..164).map(|nonce| next(None, nonce)).collect();
    let answers = race(&log, appends).await;
    let winner = one_winner(&answers);
    let now = log.head(&thread("t")).await.unwrap();
    assert_eq!(now, Some(winner.record.head));
}

/// Retries that overtake each other leave one record, and each is told `Done`.
pub async fn the_same_append_sent_many_times_is_one_record(log: Log) {
    let t = thread("t");
    let start = grow(&log, &t, 1).await;
    let answers = race(&log, vec![next(Some(start), 9); 16]).await;
    for (append, answer) in &answers {
        super::build::done(append, answer);
    }
    assert_eq!(log.history(&t, None, 10).await.unwrap().len(), 2);
}

/// Eight writers, each adding eight records and deciding again when it lost.
pub async fn writers_that_decide_again_build_one_chain(log: Log) {
    let t = thread("t");
    grow(&log, &t, 1).await;
    let mut tasks = JoinSet::new();
    for writer in 1..=8_u64 {
        let (log, t) = (Log::clone(&log), t.clone());
        tasks.spawn(async move {
            let mut at = log.head(&t).await.unwrap();
            for turn in 0..8 {
                loop {
                    let append = next(at, writer * 1_000 + turn);
                    match log.append(&t, &append).await.unwrap() {
                        Appended::Done => break at = Some(append.record.head),
                        Appended::Moved { head } => at = head,
                        Appended::Decided { .. } => panic!("no command was named"),
                    }
                }
            }
        });
    }
    tasks.join_all().await;
    let mut chain = log.history(&t, None, 1_000).await.unwrap();
    chain.reverse();
    let versions: Vec<_> = chain.iter().map(|record| record.head.version).collect();
    assert_eq!(versions, (1..=65).collect::<Vec<_>>());
    for writer in 1..=8 {
        let of_writer = chain.iter().map(|record| record.head.nonce.0);
        let turns: Vec<_> = of_writer.filter(|nonce| nonce / 1_000 == writer).collect();
        let expected: Vec<_> = (0..8).map(|turn| writer * 1_000 + turn).collect();
        assert_eq!(turns, expected, "records of writer {writer}, in order");
    }
}

/// One command delivered to many workers at once is accepted once.
pub async fn accepting_appends_of_one_command_race_to_one_record(log: Log) {
    let t = thread("t");
    let start = grow(&log, &t, 1).await;
    let accept = |nonce: u64| Append {
        outcome: Some((command("c"), Bytes::from(format!("by {nonce}")))),
        ..next(Some(start), nonce)
    };
    let answers = race(&log, (100..132).map(accept).collect()).await;
    let winners: Vec<_> = answers
        .iter()
        .filter(|(_, answer)| *answer == Appended::Done)
        .collect();
    assert_eq!(winners.len(), 1);
    let outcome = winners[0].0.outcome.clone().unwrap().1;
    for (_, answer) in answers.iter().filter(|(_, a)| *a != Appended::Done) {
        let outcome = outcome.clone();
        assert_eq!(*answer, Appended::Decided { outcome });
    }
    assert_eq!(log.outcome(&t, &command("c")).await.unwrap(), Some(outcome));
}
