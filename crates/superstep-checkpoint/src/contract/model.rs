//! Contract: random operations, answered by the log under test and by the in-memory log alike.
//!
//! The same seed gives the same operations. A difference prints the seed, the step and the
//! operation. Times that come from the store's clock are left out of the comparison.

use std::sync::Arc;

use bytes::Bytes;
use superstep_graph::TaskId;
use superstep_protocol::{Head, Nonce, ThreadId, ThreadStatus, UnixMillis};

use super::build::{
    EARLIER, LATER, Log, any_interrupt, any_thread, command, graph, interrupt, thread,
};
use crate::{
    Append, Error, ErrorKind, IndexChange, MemoryLog, StoredRecord, ThreadQuery, ThreadRow,
};

const SEEDS: std::ops::Range<u64> = 1..5;
const STEPS: u64 = 250;

/// A sequence of numbers from a seed (splitmix64); good enough to pick operations with, and
/// the same on every machine for ever.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.roll() % bound
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let bound = from.len().max(1) as u64;
        from.get(usize::try_from(self.below(bound)).unwrap())
    }

    pub(super) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// One call, with its arguments.
#[derive(Debug)]
enum Operation {
    Append(ThreadId, Box<Append>),
    PutResult(ThreadId, Head, TaskId, Bytes),
    PutProgress(ThreadId, Head, TaskId, u64, Bytes),
    PutOutcome(ThreadId, String, Bytes),
    PutBlob(ThreadId, String, Bytes),
    Unwatch(ThreadId, Head),
    Trim(ThreadId, Head),
    Delete(ThreadId, Head, StoredRecord),
}

/// What an operation answered, comparable; of an error only its kind is promised.
async fn perform(log: &Log, operation: &Operation) -> String {
    fn say<T: std::fmt::Debug>(answer: &Result<T, Error>) -> String {
        match answer {
            Ok(answer) => format!("{answer:?}"),
            Err(error) => format!("{:?}", error.kind()),
        }
    }
    match operation {
        Operation::Append(t, append) => say(&log.append(t, append).await),
        Operation::PutResult(t, round, task, value) => {
            say(&log.put_result(t, *round, task, value.clone()).await)
        }
        Operation::PutProgress(t, round, task, index, value) => {
            let put = log.put_progress(t, *round, task, *index, value.clone());
            say(&put.await)
        }
        Operation::PutOutcome(t, id, value) => {
            say(&log.put_outcome(t, &command(id), value.clone()).await)
        }
        Operation::PutBlob(t, id, value) => say(&log.put_blob(t, id, value.clone()).await),
        Operation::Unwatch(t, head) => say(&log.unwatch(t, *head).await),
        Operation::Trim(t, head) => say(&log.trim(t, *head).await),
        Operation::Delete(t, after, tombstone) => {
            say(&log.delete(t, *after, tombstone.clone()).await)
        }
    }
}

/// Everything that can be seen of one thread.
async fn look(log: &Log, t: &ThreadId) -> Vec<String> {
    let mut seen = vec![
        format!("{:?}", log.head(t).await.unwrap()),
        format!("{:?}", log.load(t).await.unwrap()),
        format!("{:?}", log.history(t, None, 1_000).await.unwrap()),
    ];
    for record in log.history(t, None, 20).await.unwrap() {
        seen.push(format!("{:?}", log.results(t, record.head).await.unwrap()));
        for n in 0..3 {
            let task = TaskId::from(format!("task{n}"));
            let progress = log.progress(t, record.head, &task).await.unwrap();
            seen.push(format!("{progress:?}"));
        }
    }
    for n in 0..4 {
        let outcome = log.outcome(t, &command(&format!("c{n}"))).await.unwrap();
        seen.push(format!("{outcome:?}"));
        let blob = log.blobs(t, &[format!("b{n}")]).await;
        let blob = blob.map_err(|error| error.kind());
        assert!(blob.is_ok() || blob == Err(ErrorKind::Corrupt));
        seen.push(format!("{blob:?}"));
    }
    seen
}

/// Everything that can be seen over all threads.
async fn look_around(log: &Log) -> Vec<String> {
    let mut seen = vec![format!(
        "{:?}",
        log.interrupts(&any_interrupt(1_000)).await.unwrap()
    )];
    for status in ThreadStatus::ALL {
        let query = ThreadQuery {
            status: Some(status),
            ..any_thread(1_000)
        };
        seen.push(format!("{:?}", log.threads(&query).await.unwrap()));
    }
    for name in ["g0", "g1"] {
        let query = ThreadQuery {
            graph: Some(name.into()),
            ..any_thread(1_000)
        };
        seen.push(format!("{:?}", log.threads(&query).await.unwrap()));
    }
    let mut due: Vec<_> = log.due(LATER, 1_000).await.unwrap();
    due.sort_by(|a, b| (a.at, &a.thread, &a.name).cmp(&(b.at, &b.thread, &b.name)));
    seen.push(format!("{due:?}"));
    let watched = log
        .watched(EARLIER, LATER, 1_000)
        .await
        .unwrap()
        .into_iter();
    let mut watched: Vec<_> = watched.map(|entry| (entry.thread, entry.head)).collect();
    watched.sort();
    seen.push(format!("{watched:?}"));
    seen
}

/// Picks operations that mostly fit the thread as it is, and sometimes do not.
struct Player {
    dice: Dice,
    /// Heads that some thread has or had.
    heads: Vec<Head>,
    sent: Vec<(ThreadId, Append)>,
}

impl Player {
    fn head_near(&mut self, now: Option<Head>) -> Option<Head> {
        match self.dice.below(10) {
            0 => None,
            1 => self.dice.pick(&self.heads).copied(),
            2 => now.map(|now| Head {
                nonce: Nonce(now.nonce.0 ^ 1),
                ..now
            }),
            _ => now,
        }
    }

    fn value(&mut self) -> Bytes {
        Bytes::from(format!("value {}", self.dice.below(1_000)))
    }

    fn some<T>(&mut self, from: &[T]) -> Vec<T>
    where
        T: Clone,
    {
        let mut picked: Vec<T> = Vec::new();
        for item in from {
            if self.dice.one_in(3) {
                picked.push(item.clone());
            }
        }
        picked
    }

    fn index(&mut self, own: Head, first: bool) -> IndexChange {
        let time = |dice: &mut Dice| UnixMillis(1_000 + dice.below(20));
        let questions = ["q0", "q1", "q2", "q3"];
        let timers = ["d0", "d1", "d2"].map(str::to_owned);
        let row = ThreadRow {
            status: *self.dice.pick(&ThreadStatus::ALL).unwrap(),
            graph: graph(["g0", "g1"][usize::from(self.dice.one_in(2))], "1"),
            created_at: UnixMillis(1),
            updated_at: time(&mut self.dice),
        };
        let opened = self.some(&questions);
        let closed = self.some(&questions);
        let set = self.some(&timers);
        let removed = self.some(&timers);
        IndexChange {
            row: (first || self.dice.one_in(2)).then_some(row),
            watched: [None, Some(true), Some(false)][usize::try_from(self.dice.below(3)).unwrap()],
            closed: closed
                .iter()
                .filter(|id| !opened.contains(id))
                .map(|id| (*id).into())
                .collect(),
            opened: opened
                .iter()
                .map(|id| interrupt(id, 1_000 + self.dice.below(20)))
                .collect(),
            due_removed: removed
                .into_iter()
                .filter(|name| !set.contains(name))
                .collect(),
            due_set: set
                .into_iter()
                .map(|name| (name, time(&mut self.dice)))
                .collect(),
            rounds_opened: self.dice.one_in(2).then_some(own).into_iter().collect(),
            rounds_closed: {
                let known = self.heads.clone();
                self.some(&known[known.len().saturating_sub(3)..])
            },
        }
    }

    fn append(&mut self, t: ThreadId, now: Option<Head>) -> Operation {
        if self.dice.one_in(8)
            && let Some((t, append)) = self.dice.pick(&self.sent)
        {
            return Operation::Append(t.clone(), Box::new(append.clone()));
        }
        let after = self.head_near(now);
        let mut version = after.map_or(1, |after| after.version + 1);
        if self.dice.one_in(20) {
            version += 1;
        }
        let own = Head {
            version,
            nonce: Nonce(self.dice.roll()),
        };
        // Only a record that carries a snapshot itself, or that builds on the first one of
        // its thread, is always readable; a thread goes on from a tombstone with a snapshot.
        let append = Append {
            after,
            record: StoredRecord {
                head: own,
                snapshot: version,
                bytes: self.value(),
            },
            index: self.index(own, true),
            outcome: self
                .dice
                .one_in(4)
                .then(|| (command(&format!("c{}", self.dice.below(4))), self.value())),
            blobs: self
                .dice
                .one_in(4)
                .then(|| "b1".to_owned())
                .into_iter()
                .collect(),
        };
        self.heads.push(own);
        self.sent.push((t.clone(), append.clone()));
        Operation::Append(t, Box::new(append))
    }

    fn next(&mut self, t: ThreadId, now: Option<Head>) -> Operation {
        let any_head = self.head_near(now).unwrap_or(Head {
            version: 1,
            nonce: Nonce(0),
        });
        match self.dice.below(20) {
            0..=8 => self.append(t, now),
            9..=12 => {
                let round = self.dice.pick(&self.heads).copied().unwrap_or(any_head);
                let task = TaskId::from(format!("task{}", self.dice.below(3)));
                if self.dice.one_in(2) {
                    let index = self.dice.below(3);
                    return Operation::PutProgress(t, round, task, index, self.value());
                }
                Operation::PutResult(t, round, task, self.value())
            }
            13 | 14 => {
                let id = format!("c{}", self.dice.below(4));
                Operation::PutOutcome(t, id, self.value())
            }
            15 | 16 => {
                let id = format!("b{}", self.dice.below(4));
                Operation::PutBlob(t, id, self.value())
            }
            17 => Operation::Unwatch(t, any_head),
            18 => Operation::Trim(t, any_head),
            _ => {
                let version = any_head.version + 1;
                let head = Head {
                    version,
                    nonce: Nonce(self.dice.roll()),
                };
                let tombstone = StoredRecord {
                    head,
                    snapshot: version,
                    bytes: Bytes::from("deleted"),
                };
                Operation::Delete(t, any_head, tombstone)
            }
        }
    }
}

/// Whatever is called in whatever order, the log answers as the in-memory log does, and
/// everything that can be read of it is the same.
pub async fn random_operations_agree_with_the_model(log: Log) {
    let model: Log = Arc::new(MemoryLog::new());
    let mut threads = Vec::new();
    for seed in SEEDS {
        let mut player = Player {
            dice: Dice(seed),
            heads: Vec::new(),
            sent: Vec::new(),
        };
        let of_seed: Vec<_> = (0..3).map(|n| thread(&format!("s{seed}-t{n}"))).collect();
        threads.extend(of_seed.clone());
        for step in 0..STEPS {
            let t = player.dice.pick(&of_seed).unwrap().clone();
            let now = model.head(&t).await.unwrap();
            let operation = player.next(t.clone(), now);
            let expected = perform(&model, &operation).await;
            let answered = perform(&log, &operation).await;
            let place = format!("seed {seed} step {step}: {operation:?}");
            assert_eq!(answered, expected, "{place}");
            assert_eq!(look(&log, &t).await, look(&model, &t).await, "{place}");
            if step % 10 == 0 {
                let around = look_around(&model).await;
                assert_eq!(look_around(&log).await, around, "{place}");
            }
        }
    }
    for t in &threads {
        assert_eq!(look(&log, t).await, look(&model, t).await, "{t}");
    }
    assert_eq!(look_around(&log).await, look_around(&model).await);
}
