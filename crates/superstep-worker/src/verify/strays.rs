//! Strays: nothing in the store belongs to no thread.

use superstep_checkpoint::Stray;

use super::{Check, PAGE, PAUSE, SEEN_MIN, Verifier, Wrong};
use crate::error::Error;

/// How often everything is gone through while mending turns up more.
const PASSES_MAX: usize = 3;

/// Looks for entries of no thread; removes those that stay so, if it mends.
pub(super) async fn check(verifier: &Verifier, mut tell: impl FnMut(Wrong)) -> Result<(), Error> {
    for _ in 0..PASSES_MAX {
        let mut removed = 0;
        let mut after = None;
        loop {
            let page = verifier.inspect.strays(after.as_deref(), PAGE).await;
            let page = page.map_err(Error::Store)?;
            for stray in page.rows {
                if !stays(verifier, &stray).await? {
                    continue;
                }
                let mut wrong = Wrong::new(
                    Check::Strays,
                    &stray.thread,
                    format!("{} {}", stray.kind, stray.name)
                        .trim_end()
                        .to_owned(),
                    "belongs to nothing that its thread has".to_owned(),
                );
                if verifier.repair {
                    let done = verifier.inspect.remove_stray(&stray).await;
                    wrong.repaired = done.map_err(Error::Store)?;
                    removed += usize::from(wrong.repaired);
                }
                tell(wrong);
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        // What hung on what was removed belongs to nothing only now.
        if removed == 0 {
            break;
        }
    }
    Ok(())
}

/// Whether an entry belongs to nothing at every look: one that was just made may be met before
/// what it belongs to.
async fn stays(verifier: &Verifier, stray: &Stray) -> Result<bool, Error> {
    for _ in 1..SEEN_MIN {
        let still = verifier.inspect.is_stray(stray).await;
        if !still.map_err(Error::Store)? {
            return Ok(false);
        }
        tokio::time::sleep(PAUSE).await;
    }
    verifier.inspect.is_stray(stray).await.map_err(Error::Store)
}
