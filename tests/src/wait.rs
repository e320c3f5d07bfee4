//! Waiting for a condition, with a deadline.
//!
//! A test never sleeps and hopes: it names what it waits for and how long that may take. What the
//! condition looks at is left to the caller; it is asked again every few milliseconds.
//!
//! The rule it keeps: a wait that fails says what did not come, and points at the line that waited.

use std::time::{Duration, Instant};

use anyhow::ensure;

/// How long to pause between two looks.
const PAUSE: Duration = Duration::from_millis(10);

/// Asks `look` until it gives a value, and returns it.
///
/// # Panics
///
/// When `within` has passed without a value; the message carries `what`.
#[track_caller]
pub fn eventually<T>(what: &str, within: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + within;
    loop {
        if let Some(value) = look() {
            return value;
        }
        assert!(
            Instant::now() < deadline,
            "{what}: did not happen within {within:?}"
        );
        std::thread::sleep(PAUSE);
    }
}

/// Asks `holds` until it says yes: for what servers need to come up, where no test fails yet.
///
/// # Errors
///
/// When `within` has passed before; the message carries `what`.
pub fn until(what: &str, within: Duration, mut holds: impl FnMut() -> bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + within;
    while !holds() {
        ensure!(
            Instant::now() < deadline,
            "{what}: did not happen within {within:?}"
        );
        std::thread::sleep(PAUSE);
    }
    Ok(())
}

/// Asks `look` until it gives a value, and returns it, on a tokio runtime with time enabled.
///
/// A look that hangs is cut off by the deadline as well.
///
/// # Panics
///
/// When `within` has passed without a value; the message carries `what`.
pub async fn eventually_async<T>(
    what: &str,
    within: Duration,
    mut look: impl AsyncFnMut() -> Option<T>,
) -> T {
    let found = tokio::time::timeout(within, async {
        loop {
            if let Some(value) = look().await {
                return value;
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    found
        .await
        .unwrap_or_else(|_| panic!("{what}: did not happen within {within:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_is_asked_until_it_holds() {
        let mut asked = 0;
        let seen = eventually("the third look", Duration::from_secs(5), || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(seen, 3);
    }

    #[test]
    #[should_panic(expected = "what never comes: did not happen")]
    fn a_condition_that_never_holds_panics() {
        eventually("what never comes", Duration::from_millis(30), || None::<()>);
    }

    #[tokio::test]
    #[should_panic(expected = "what hangs: did not happen")]
    async fn a_look_that_hangs_is_cut_off() {
        eventually_async("what hangs", Duration::from_millis(30), async || {
            std::future::pending::<Option<()>>().await
        })
        .await;
    }
}
