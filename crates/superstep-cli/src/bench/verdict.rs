//! How every run ended, and whether that was right, and once.
//!
//! Pure: facts come in one by one, in any order and maybe twice, as events do. A run is right if
//! it ended exactly once, with the values that its number calls for. What the store says of its
//! threads is added at the end.
//!
//! The rule it keeps: what is not known to be right is wrong.

use std::collections::BTreeMap;

use serde::Serialize;

/// How many of the wrong ones are told by their words.
const TOLD_MAX: usize = 20;

/// What became of runs so far.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    begun: u64,
    /// The event that each run's end was told by.
    ended: BTreeMap<u64, String>,
    repeated_events: u64,
    wrong: u64,
    told: Vec<String>,
}

/// What all came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Verdict {
    /// Whether every run ended right, and once.
    pub(crate) ok: bool,
    /// Runs that were begun, those of the warm-up too.
    pub(crate) begun: u64,
    /// Runs that ended with the right values.
    pub(crate) right: u64,
    /// What was wrong.
    pub(crate) wrong: u64,
    /// The first of it, in words.
    pub(crate) findings: Vec<String>,
    /// Events that came more than once, which they may.
    pub(crate) repeated_events: u64,
    /// Threads of which every record was read and checked.
    pub(crate) verified_threads: u64,
}

impl Tally {
    /// A run was begun.
    pub(crate) fn begun(&mut self) {
        self.begun += 1;
    }

    /// Event `event` says that run `number` ended; `values` is what its values came to. Answers
    /// whether it is news.
    pub(crate) fn ended(&mut self, number: u64, event: &str, values: Result<(), String>) -> bool {
        match self.ended.get(&number) {
            Some(known) if known == event => {
                self.repeated_events += 1;
                return false;
            }
            Some(known) => {
                let why = format!("it ended twice, by the events {known} and {event}");
                self.wrong(Some(number), &why);
                return false;
            }
            None => {}
        }
        self.ended.insert(number, event.to_owned());
        if let Err(why) = values {
            self.wrong(Some(number), &why);
        }
        true
    }

    /// Something is wrong, with this run or with all of it.
    pub(crate) fn wrong(&mut self, number: Option<u64>, why: &str) {
        self.wrong += 1;
        if self.told.len() < TOLD_MAX {
            self.told.push(match number {
                Some(number) => format!("run {number}: {why}"),
                None => why.to_owned(),
            });
        }
    }

    /// How many runs were begun so far.
    pub(crate) fn begun_so_far(&self) -> u64 {
        self.begun
    }

    /// How much is wrong so far.
    pub(crate) fn wrong_so_far(&self) -> u64 {
        self.wrong
    }

    /// The verdict, with so many threads read to the last record.
    pub(crate) fn verdict(mut self, verified_threads: u64) -> Verdict {
        let ended = u64::try_from(self.ended.len()).unwrap_or(u64::MAX);
        if ended != self.begun && self.wrong == 0 {
            let why = format!("{} runs were begun and {ended} ended", self.begun);
            self.wrong(None, &why);
        }
        if self.begun == 0 {
            self.wrong(None, "no run was begun");
        }
        Verdict {
            ok: self.wrong == 0,
            begun: self.begun,
            right: ended.saturating_sub(self.wrong),
            wrong: self.wrong,
            findings: self.told,
            repeated_events: self.repeated_events,
            verified_threads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_end_once_are_right() {
        let mut tally = Tally::default();
        for number in 0..3 {
            tally.begun();
            assert!(tally.ended(number, &format!("e{number}"), Ok(())));
        }
        assert!(!tally.ended(1, "e1", Ok(())), "an event may come again");
        let verdict = tally.verdict(3);
        assert!(verdict.ok, "{verdict:?}");
        assert_eq!((verdict.right, verdict.repeated_events), (3, 1));
    }

    #[test]
    fn whatever_is_not_right_is_wrong() {
        let wrong = |disturb: fn(&mut Tally)| {
            let mut tally = Tally::default();
            tally.begun();
            tally.ended(0, "e0", Ok(()));
            disturb(&mut tally);
            let verdict = tally.verdict(0);
            assert!(!verdict.ok, "{verdict:?}");
            verdict.findings.join("; ")
        };
        let twice = wrong(|tally| assert!(!tally.ended(0, "another", Ok(()))));
        assert!(twice.contains("run 0: it ended twice"), "{twice}");
        let values = wrong(|tally| {
            tally.begun();
            tally.ended(1, "e1", Err("sum is 1, not 2".to_owned()));
        });
        assert_eq!(values, "run 1: sum is 1, not 2");
        let lost = wrong(Tally::begun);
        assert_eq!(lost, "2 runs were begun and 1 ended");
        let unasked = wrong(|tally| {
            tally.ended(7, "e7", Ok(()));
        });
        assert_eq!(unasked, "1 runs were begun and 2 ended");
        assert!(!Tally::default().verdict(0).ok, "nothing is not a success");
    }
}
