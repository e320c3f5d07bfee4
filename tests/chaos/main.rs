//! Everything at once: many threads, and for a while anything that can fail does.
//!
//! Five workers on one NATS and one Redis, hundreds of threads of mixed graphs, and a plain NATS
//! client that starts and answers them, also early and twice. Meanwhile workers are killed and
//! frozen, both servers are killed and come back, NATS also with an empty disk, and the ways
//! between single workers and a server are cut. Then all faults stop. Every thread must end, with
//! the values, the history and the effects that it would have had.
//!
//! `SUPERSTEP_CHAOS_SECONDS` (90) says for how long, `SUPERSTEP_CHAOS_SEED` draws the same faults
//! and threads again; when they meet is up to the machine. The rule it keeps: the person in it
//! knows only subjects and JSON.

mod check;
mod draw;
mod faults;
mod person;
mod site;
mod threads;

use std::time::{Duration, Instant, SystemTime};

use superstep_tests::eventually_async;

use draw::Draw;
use faults::Faults;
use person::Person;
use site::Site;

/// How long faults happen unless the environment says otherwise.
const SECONDS: u64 = 90;
/// How many threads there are.
const THREADS: usize = 500;
/// How long everything may take to end once nothing fails any more. On a quiet machine it is a
/// fifth.
const ENDS_WITHIN: Duration = Duration::from_secs(180);

fn told(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} is a number, not `{text}`")),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_thread_ends_right_whatever_fails() {
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let clock = clock.expect("a clock after 1970").as_secs();
    let seed = told("SUPERSTEP_CHAOS_SEED").unwrap_or(clock);
    let lasts = Duration::from_secs(told("SUPERSTEP_CHAOS_SECONDS").unwrap_or(SECONDS));
    eprintln!("SUPERSTEP_CHAOS_SEED={seed}, {lasts:?}, {THREADS} threads");
    let mut draw = Draw::new(seed);

    let site = Site::start().await;
    eprintln!("logs: {}", site.logs());
    let threads = threads::threads(&mut draw, THREADS);
    let person = Person::begin(&site, threads.clone(), lasts * 9 / 10, draw.split());
    let faults = Faults::new(site);
    let (mut site, counts) = faults.disturb(draw, lasts).await;
    eprintln!("{counts}");
    site.heal();

    let healed = Instant::now();
    let store = site.store().await;
    let mut last = Vec::new();
    let ended = eventually_async("every thread ends", ENDS_WITHIN, async || {
        // What could not start while a server was away is started now.
        site.heal();
        let left = check::unended(&store, &threads).await;
        let given_up = healed.elapsed() + Duration::from_secs(2) > ENDS_WITHIN;
        if left.is_empty() || given_up {
            return Some(left);
        }
        last = left;
        None
    })
    .await;
    eprintln!(
        "{} of {THREADS} ended {:?} after",
        THREADS - ended.len(),
        healed.elapsed()
    );
    eprintln!("the last to end: {last:?}");
    eprintln!("{}", person.counts());
    let mut wrong = Vec::new();
    for (thread, why) in ended {
        wrong.push(format!("{thread} has not ended: {why}"));
    }
    wrong.extend(check::ended_right(&site, &store, &threads).await);
    wrong.extend(check::verified(&site).await);
    if !wrong.is_empty() {
        let kept = site.keep();
        panic!(
            "seed {seed}, logs and data in {}:\n{}",
            kept.display(),
            wrong.join("\n")
        );
    }
}
