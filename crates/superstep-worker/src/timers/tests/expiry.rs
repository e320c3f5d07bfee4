//! Threads that go away once they have rested for their time, and those that do not.

use superstep_checkpoint::Inspect as _;

use super::*;

fn asks_if_told() -> Body {
    body(|ctx| async move {
        let answer: Value = ctx.interrupt("?").await?;
        if answer == "fail" {
            return Err(NodeError::new("Told", "it was told to fail"));
        }
        Ok(answer)
    })
}

impl Rig {
    fn ending(body: Body) -> Self {
        let mut rig = Self::new(body);
        rig.settings.ended_ttl = Some(MINUTE);
        rig
    }

    async fn answer(&self, thread: &str, value: &str) {
        let body = json!({"resume": value});
        self.send(CommandKind::Resume, thread, body).await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_ended_thread_goes_away_as_a_whole() {
    let rig = Rig::ending(asks_if_told());
    let workers = [rig.worker(), rig.worker()];
    for thread in ["done", "failed", "asks"] {
        rig.start(thread).await;
        rig.until(thread, |state| state.open_questions().next().is_some())
            .await;
    }
    rig.answer("done", "x").await;
    let ended = rig.until("done", completed).await;
    rig.answer("failed", "fail").await;
    rig.until("failed", failed).await;
    let gone = rig.until("done", |state| state.deleted).await;
    let rested = Duration::from_millis(gone.time.0 - ended.time.0);
    assert!(rested >= MINUTE && rested < MINUTE + Duration::from_secs(3));
    rig.until("failed", |state| state.deleted).await;
    for thread in ["done", "failed"] {
        let kept = rig.log.kept(&thread.into()).await.unwrap().unwrap();
        assert!(kept.expires && kept.records == 1 && kept.row.is_none());
        assert!(kept.due.is_empty() && kept.blobs.is_empty());
    }
    // Somebody is waited for, however long.
    tokio::time::sleep(MINUTE * 10).await;
    assert!(!rig.state("asks").await.unwrap().deleted);
    rig.answer("asks", "x").await;
    rig.until("asks", |state| state.deleted).await;
    for worker in workers {
        worker.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_goes_on_begins_its_time_anew() {
    let rig = Rig::ending(body(|_| async { Ok(json!("done")) }));
    let worker = rig.worker();
    rig.start("t").await;
    let first = rig.until("t", completed).await;
    tokio::time::sleep(MINUTE / 2).await;
    rig.start("t").await;
    let second = rig
        .until("t", |state| completed(state) && state.head != first.head)
        .await;
    let gone = rig.until("t", |state| state.deleted).await;
    assert!(gone.time >= second.time.plus_ms(60_000));
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn a_thread_without_a_time_stays() {
    let rig = Rig::new(body(|_| async { Ok(json!("done")) }));
    let worker = rig.worker();
    rig.start("t").await;
    rig.until("t", completed).await;
    tokio::time::sleep(MINUTE * 10).await;
    assert!(completed(&rig.state("t").await.unwrap()));
    worker.abort();
}
