//! Attempts over worker processes that come and go: whoever tries next knows of those before, those
//! that failed and those that died with their worker.

use super::*;

#[tokio::test(start_paused = true)]
async fn attempts_count_when_every_worker_is_replaced() {
    let mut rig = Rig::new(body(|ctx| async move {
        Err(NodeError::new(
            "Flaky",
            format!("attempt {}", ctx.attempt()),
        ))
    }));
    let policy = RetryPolicy::new(3)
        .initial_interval(LONG)
        .max_interval(2 * LONG);
    rig.policies.retry = Some(policy.without_jitter());
    let mut worker = rig.worker();
    rig.start("t").await;
    let began = Instant::now();
    for attempt in 1..3 {
        let counted = |state: &ThreadState| state.tasks[0].attempts == attempt && sleeps(state);
        let asleep = rig
            .until("t", |state| !state.tasks.is_empty() && counted(state))
            .await;
        assert!(asleep.tasks[0].tried_since.is_some());
        worker.abort();
        worker = rig.worker();
    }
    let state = rig.until("t", failed).await;
    let error = state.run.unwrap().error.unwrap();
    assert_eq!(
        (error.kind.as_str(), error.message.as_str()),
        ("Flaky", "attempt 3")
    );
    assert_eq!(rig.runs(), 3);
    assert!(began.elapsed() >= 3 * LONG);
    worker.abort();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_died_with_its_worker_counts() {
    let mut rig = Rig::new(body(|ctx| async move {
        if ctx.attempt() == 1 {
            std::future::pending::<()>().await;
        }
        let message = format!("attempt {}", ctx.attempt());
        Err(NodeError::new("Flaky", message))
    }));
    for (thread, pause, runs) in [("short", 1, 3), ("long", 600, 6)] {
        let policy = RetryPolicy::new(3).initial_interval(Duration::from_secs(pause));
        rig.policies.retry = Some(policy.without_jitter());
        let first = rig.worker();
        rig.start(thread).await;
        rig.until(thread, |_| rig.runs() == runs - 2).await;
        first.abort();
        let second = rig.worker();
        let state = rig.until(thread, failed).await;
        let error = state.run.unwrap().error.unwrap();
        assert_eq!(
            (error.kind.as_str(), error.message.as_str()),
            ("Flaky", "attempt 3")
        );
        assert_eq!(rig.runs(), runs, "one died, two failed");
        second.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_time_bounds_all_attempts_together() {
    let mut rig = Rig::new(body(|_| async { Err(NodeError::new("Flaky", "again")) }));
    let policy = RetryPolicy::new(100)
        .initial_interval(LONG)
        .max_interval(LONG);
    rig.policies.retry = Some(policy.without_jitter().total(5 * LONG + MINUTE));
    let began = Instant::now();
    let ran = invoke(rig.local());
    assert_eq!(ran.await.unwrap().status, RunStatus::Error);
    assert_eq!(rig.runs(), 6);
    assert!(began.elapsed() < 6 * LONG);
}

#[tokio::test(start_paused = true)]
async fn errors_that_are_never_retried_fail_at_once() {
    let mut rig = Rig::new(body(|_| async { Err(NodeError::new("Fatal", "no use")) }));
    rig.policies.retry = Some(RetryPolicy::new(5).never_on(["Fatal"]));
    let ran = invoke(rig.local());
    assert_eq!(ran.await.unwrap().status, RunStatus::Error);
    assert_eq!(rig.runs(), 1);
}
