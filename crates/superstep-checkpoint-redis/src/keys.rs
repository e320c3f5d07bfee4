//! The names of keys.
//!
//! Every key of a thread and of its shard's indexes carries the hash tag `{namespace:shard}`, so
//! they share one slot of a Cluster and can be changed by one script. What concerns the whole
//! namespace carries `{namespace}`. The rule it keeps: two different things never share a name,
//! whatever bytes ids are made of, so an id that is followed by another is preceded by its length.

use superstep_protocol::{CommandId, Dispatch, GraphName, ThreadId};
use xxhash_rust::xxh3::xxh3_64;

/// The keys of a namespace.
#[derive(Debug)]
pub(crate) struct Keys {
    namespace: String,
    shards_begin: String,
    shards: Vec<Shard>,
}

/// A key of a thread, read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ThreadKey<'a> {
    Log { thread: &'a str },
    Open { thread: &'a str },
    Results { thread: &'a str, round: Dispatch },
    Progress { thread: &'a str, round: Dispatch },
    Blob { thread: &'a str, id: &'a str },
}

/// The keys of one shard, all in one slot.
#[derive(Debug)]
pub(crate) struct Shard(String);

impl Keys {
    /// The keys of a namespace of so many shards.
    pub(crate) fn new(prefix: &str, namespace: &str, shards: u16) -> Self {
        Self {
            namespace: namespace_keys(prefix, namespace),
            shards_begin: format!("{prefix}:{{{namespace}:"),
            shards: (0..shards)
                .map(|shard| Shard(format!("{prefix}:{{{namespace}:{shard}}}:")))
                .collect(),
        }
    }

    /// How many shards there are.
    pub(crate) fn shard_count(&self) -> usize {
        self.shards.len()
    }

    /// Every shard.
    pub(crate) fn shards(&self) -> &[Shard] {
        &self.shards
    }

    /// The shard that a thread is in: a stable hash of its id.
    pub(crate) fn shard(&self, thread: &ThreadId) -> &Shard {
        let hash = xxh3_64(thread.as_str().as_bytes());
        let index = hash % self.shards.len() as u64;
        &self.shards[usize::try_from(index).expect("an index below the number of shards")]
    }

    /// How every key of a shard begins, up to the shard's number.
    pub(crate) fn shard_keys(&self) -> &str {
        &self.shards_begin
    }

    /// What a key is and of which thread, if it is one of a thread.
    pub(crate) fn read<'a>(&self, key: &'a str) -> Option<ThreadKey<'a>> {
        let (number, rest) = key.strip_prefix(&self.shards_begin)?.split_once("}:")?;
        number.parse::<u16>().ok()?;
        let (kind, rest) = rest.split_once(':')?;
        let sized = |rest: &'a str| {
            let (length, rest) = rest.split_once(':')?;
            rest.split_at_checked(length.parse().ok()?)
        };
        Some(match kind {
            "t" => ThreadKey::Log { thread: rest },
            "x" => ThreadKey::Open { thread: rest },
            "r" | "p" => {
                let (round, thread) = rest.split_once(':')?;
                let round = round.parse().ok()?;
                if kind == "r" {
                    ThreadKey::Results { thread, round }
                } else {
                    ThreadKey::Progress { thread, round }
                }
            }
            "b" => {
                let (thread, id) = sized(rest)?;
                ThreadKey::Blob { thread, id }
            }
            _ => return None,
        })
    }

    /// What the namespace was created with.
    pub(crate) fn meta(&self) -> String {
        format!("{}meta", self.namespace)
    }

    /// What is written to have something to wait for.
    pub(crate) fn mark(&self) -> String {
        format!("{}mark", self.namespace)
    }

    /// The registered graphs.
    pub(crate) fn registrations(&self) -> String {
        format!("{}graphs", self.namespace)
    }
}

/// How the keys begin that concern a whole namespace.
pub(crate) fn namespace_keys(prefix: &str, namespace: &str) -> String {
    format!("{prefix}:{{{namespace}}}:")
}

impl Shard {
    /// How the keys of threads begin.
    pub(crate) fn threads(&self) -> String {
        format!("{}t:", self.0)
    }

    /// A thread's log: `h` head and its snapshot, `i` row, `w` head of the watch entry, `r:..`
    /// open rounds, and one field a version.
    pub(crate) fn thread(&self, thread: &ThreadId) -> String {
        format!("{}t:{thread}", self.0)
    }

    /// A thread's open questions and timers.
    pub(crate) fn open(&self, thread: &ThreadId) -> String {
        format!("{}x:{thread}", self.0)
    }

    /// The results of a round.
    pub(crate) fn results(&self, thread: &ThreadId, round: Dispatch) -> String {
        format!("{}r:{round}:{thread}", self.0)
    }

    /// What the tasks of a round have done so far: one field an entry, its index, `:` and the task;
    /// and of each task that was begun again how often: `a:` and the task.
    pub(crate) fn progress(&self, thread: &ThreadId, round: Dispatch) -> String {
        format!("{}p:{round}:{thread}", self.0)
    }

    /// The claims on tasks of a round: one field a name, `owner:until`.
    pub(crate) fn claims(&self, thread: &ThreadId, round: Dispatch) -> String {
        format!("{}c:{round}:{thread}", self.0)
    }

    /// The outcome of a command.
    pub(crate) fn outcome(&self, thread: &ThreadId, command: &CommandId) -> String {
        format!("{}o:{}:{thread}{command}", self.0, thread.as_str().len())
    }

    /// A value out of line.
    pub(crate) fn blob(&self, thread: &ThreadId, id: &str) -> String {
        format!("{}b:{}:{thread}{id}", self.0, thread.as_str().len())
    }

    /// Which values out of line a thread has.
    pub(crate) fn blob_index(&self, thread: &ThreadId) -> String {
        format!("{}bi:{thread}", self.0)
    }

    /// A log that is only measured with: `h` head, and one field a version.
    pub(crate) fn bare(&self, thread: &ThreadId) -> String {
        format!("{}bare:{thread}", self.0)
    }

    /// The results of one that is only measured with.
    pub(crate) fn bare_results(&self, thread: &ThreadId) -> String {
        format!("{}bare_r:{thread}", self.0)
    }

    /// The watch index.
    pub(crate) fn watched(&self) -> String {
        format!("{}w", self.0)
    }

    /// The index of timers.
    pub(crate) fn due(&self) -> String {
        format!("{}d", self.0)
    }

    /// The index of open questions.
    pub(crate) fn questions(&self) -> String {
        format!("{}q", self.0)
    }

    /// The names of graphs that threads of this shard have had.
    pub(crate) fn graphs(&self) -> String {
        format!("{}g", self.0)
    }

    /// How the keys of thread lists begin.
    pub(crate) fn lists(&self) -> String {
        format!("{}l:", self.0)
    }

    /// The list of a graph's threads with the status of this digit.
    pub(crate) fn list(&self, status_digit: char, graph: &GraphName) -> String {
        format!("{}l:{status_digit}:{graph}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_of_a_thread_has_one_hash_tag() {
        let keys = Keys::new("superstep", "team", 16);
        let thread = ThreadId::new("order-{42}");
        let shard = keys.shard(&thread);
        let tag = |key: String| {
            let (_, rest) = key.split_once('{').unwrap();
            rest.split_once('}').unwrap().0.to_owned()
        };
        let expected = tag(shard.watched());
        assert!(expected.starts_with("team:"));
        for key in [
            shard.thread(&thread),
            shard.open(&thread),
            shard.results(&thread, "7-00c0ffee00c0ffee".parse().unwrap()),
            shard.progress(&thread, "7-00c0ffee00c0ffee".parse().unwrap()),
            shard.claims(&thread, "7-00c0ffee00c0ffee".parse().unwrap()),
            shard.outcome(&thread, &CommandId::new("c")),
            shard.blob(&thread, "b"),
            shard.blob_index(&thread),
            shard.due(),
            shard.questions(),
            shard.graphs(),
            shard.list('1', &GraphName::new("g")),
        ] {
            assert_eq!(tag(key.clone()), expected, "{key}");
        }
    }

    #[test]
    fn the_keys_of_a_thread_read_back() {
        let keys = Keys::new("superstep", "team", 16);
        let id = ThreadId::new("a}:t:b:{3}");
        let (shard, thread) = (keys.shard(&id), id.as_str());
        let round: Dispatch = "7-00c0ffee00c0ffee".parse().unwrap();
        for (key, read) in [
            (shard.thread(&id), ThreadKey::Log { thread }),
            (shard.open(&id), ThreadKey::Open { thread }),
            (
                shard.results(&id, round),
                ThreadKey::Results { thread, round },
            ),
            (
                shard.progress(&id, round),
                ThreadKey::Progress { thread, round },
            ),
            (
                shard.blob(&id, "b:1"),
                ThreadKey::Blob { thread, id: "b:1" },
            ),
        ] {
            assert_eq!(keys.read(&key), Some(read), "{key}");
        }
        for key in [shard.watched(), shard.graphs(), keys.meta(), "x".to_owned()] {
            assert_eq!(keys.read(&key), None, "{key}");
        }
    }

    #[test]
    fn a_thread_stays_in_its_shard_for_ever() {
        // Stored data depends on these: a change of the hash would lose every thread.
        let keys = Keys::new("superstep", "default", 16);
        let shard = |id: &str| keys.shard(&ThreadId::new(id)).watched();
        for (id, number) in [("order-1", 6), ("order-42", 12), ("", 2), ("ü", 14)] {
            assert_eq!(
                shard(id),
                format!("superstep:{{default:{number}}}:w"),
                "{id}"
            );
        }
    }

    #[test]
    fn ids_that_only_differ_in_their_split_have_distinct_keys() {
        let keys = Keys::new("superstep", "default", 1);
        let shard = &keys.shards()[0];
        let key = |thread: &str, id: &str| shard.blob(&ThreadId::new(thread), id);
        assert_ne!(key("ab", "c"), key("a", "bc"));
    }
}
