//! Threads: refusals, turns, and what outlives a process.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::{Value, json};
use superstep::{Channel, Context, Embedded, Error, Graph, Refusal, START, ThreadStatus};
use tokio::sync::Semaphore;

use crate::{a_later_millisecond, app, in_time};

/// Asks as many questions in a row as `questions` says.
fn asking(name: &str) -> Graph<Value> {
    Graph::dynamic(name)
        .channel("questions", Channel::Last)
        .channel("answers", Channel::Last)
        .node("ask", |state: Value, ctx: Context| async move {
            let mut answers = Vec::new();
            for number in 0..state["questions"].as_u64().unwrap_or(1) {
                answers.push(ctx.interrupt::<Value>(number).await?);
            }
            Ok(json!({"answers": answers}))
        })
        .edge(START, "ask")
        .build()
        .unwrap()
}

fn kind(result: Result<impl std::fmt::Debug, Error>) -> &'static str {
    let error = result.unwrap_err();
    error.refusal().expect("it is refused").kind()
}

#[tokio::test]
async fn answers_that_cannot_be_taken_are_refused() {
    let app = app(asking("asking")).await;
    let thread = app.thread("1");
    assert_eq!(kind(thread.resume(1).await), "unknown_thread");
    let asked = thread.invoke(json!({})).await.unwrap();
    let id = asked.interrupts[0].id.clone();
    assert_eq!(kind(thread.invoke(json!({})).await), "busy");
    let other = "0".repeat(32).into();
    assert_eq!(kind(thread.answer(&other, 1).await), "unknown_interrupt");

    let done = thread.answer(&id, "yes").await.unwrap();
    assert_eq!(done.values["answers"], json!(["yes"]));
    a_later_millisecond().await;
    assert_eq!(kind(thread.resume("yes").await), "not_waiting");
    for (answer, expected) in [("yes", true), ("no", false)] {
        let error = thread.answer(&id, answer).await.unwrap_err();
        match error.refusal().unwrap() {
            Refusal::AlreadyAnswered { same, .. } => assert_eq!(*same, expected),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(kind(thread.retry().await), "nothing_to_retry");
    assert_eq!(kind(thread.cancel().await), "nothing_to_cancel");
}

#[tokio::test]
async fn a_cancelled_question_cannot_be_answered() {
    let thread = app(asking("asking")).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    thread.cancel().await.unwrap();
    let id = &asked.interrupts[0].id;
    assert_eq!(kind(thread.answer(id, 1).await), "cancelled");
    // What was cancelled can be run again, and asks the same question.
    let again = thread.retry().await.unwrap();
    assert_eq!(again.interrupts, asked.interrupts);
}

#[tokio::test]
async fn a_deleted_thread_can_be_started_anew() {
    let thread = app(asking("asking")).await.thread("1");
    let first = thread.invoke(json!({})).await.unwrap();
    thread.delete().await.unwrap();
    assert_eq!(thread.state().await.unwrap(), None);
    assert_eq!(kind(thread.delete().await), "unknown_thread");
    let second = thread.invoke(json!({})).await.unwrap();
    assert_ne!(first.interrupts[0].id, second.interrupts[0].id);
}

#[tokio::test]
async fn a_person_can_change_the_state_between_runs() {
    let thread = app(asking("asking")).await.thread("1");
    let _ = thread.invoke(json!({"questions": 2})).await.unwrap();
    let state = thread
        .update_state(json!({"answers": ["mine"]}), Some("ask"))
        .await;
    let state = state.unwrap();
    assert_eq!(state.values["answers"], json!(["mine"]));
    assert!(state.interrupts.is_empty() && state.next.is_empty());
    let odd = thread.update_state(json!({"answer": 1}), Some("ask")).await;
    assert_eq!(kind(odd), "invalid_update");
    let nobody = thread.update_state(json!({}), Some("nobody")).await;
    assert_eq!(kind(nobody), "invalid_update");
}

#[tokio::test]
async fn history_has_every_superstep_with_its_parent() {
    let thread = app(asking("asking")).await.thread("1");
    let _ = thread.invoke(json!({})).await.unwrap();
    let _ = thread.resume(1).await.unwrap();
    let history = thread.history(10).await.unwrap();
    let steps: Vec<i64> = history.iter().map(|checkpoint| checkpoint.step).collect();
    assert_eq!(steps, [1, 0, -1]);
    for pair in history.windows(2) {
        let parent = pair[0].parent_checkpoint_id.as_ref();
        assert_eq!(parent, Some(&pair[1].checkpoint_id));
    }
    assert_eq!(thread.history(1).await.unwrap(), history[..1]);
}

#[tokio::test]
async fn a_new_thread_of_many_graphs_must_say_which() {
    let app = Embedded::memory().graph(asking("a")).graph(asking("b"));
    let app = app.build().await.unwrap();
    let thread = app.thread("1");
    let error = thread.invoke(json!({})).await.unwrap_err();
    assert!(error.to_string().contains("a@1, b@1"), "{error}");
    assert_eq!(
        kind(thread.clone().graph("c").invoke(json!({})).await),
        "unknown_graph"
    );
    let _ = thread.clone().graph("b").invoke(json!({})).await.unwrap();
    // From now on the thread knows.
    let _ = thread.resume(1).await.unwrap();
    let _ = thread.invoke(json!({})).await.unwrap();
    assert_eq!(
        kind(thread.graph("a").invoke(json!({})).await),
        "wrong_graph"
    );
}

#[tokio::test]
async fn calls_on_one_thread_take_turns() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let graph = Graph::dynamic("slow")
        .channel("runs", Channel::Last)
        .node("count", move |_: Value| {
            let runs = counter.fetch_add(1, Ordering::SeqCst) + 1;
            async move {
                tokio::task::yield_now().await;
                Ok(json!({"runs": runs}))
            }
        })
        .edge(START, "count")
        .build()
        .unwrap();
    let thread = app(graph).await.thread("1");
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let thread = thread.clone();
            tokio::spawn(async move { thread.invoke(json!({})).await })
        })
        .collect();
    for call in calls {
        let run = in_time(call).await.unwrap().unwrap();
        assert_eq!(run.error, None);
    }
    assert_eq!(runs.load(Ordering::SeqCst), 8, "each run ran its node once");
}

/// A graph whose node waits for a permit before each of its two questions.
fn gated(gate: Arc<Semaphore>, begun: tokio::sync::mpsc::UnboundedSender<()>) -> Graph<Value> {
    Graph::dynamic("gated")
        .channel("answers", Channel::Last)
        .node("ask", move |_: Value, ctx: Context| {
            let (gate, begun) = (Arc::clone(&gate), begun.clone());
            async move {
                begun.send(()).expect("the test listens");
                gate.acquire().await?.forget();
                let first: Value = ctx.interrupt("first").await?;
                let second: Value = ctx.interrupt("second").await?;
                Ok(json!({"answers": [first, second]}))
            }
        })
        .edge(START, "ask")
        .build()
        .unwrap()
}

#[tokio::test]
async fn a_double_click_does_not_answer_the_next_question() {
    let gate = Arc::new(Semaphore::new(1));
    let (begun, mut running) = tokio::sync::mpsc::unbounded_channel();
    let thread = app(gated(Arc::clone(&gate), begun)).await.thread("1");
    let _ = thread.invoke(json!({})).await.unwrap();
    in_time(running.recv()).await.unwrap();
    let click = || {
        let thread = thread.clone();
        tokio::spawn(async move { thread.resume("yes").await })
    };
    let first = click();
    in_time(running.recv()).await.unwrap();
    let second = click();
    tokio::task::yield_now().await;
    // The next question opens later than the second click.
    a_later_millisecond().await;
    gate.add_permits(1);
    let asked = in_time(first).await.unwrap().unwrap();
    assert_eq!(asked.interrupts[0].value, "second");
    assert_eq!(kind(in_time(second).await.unwrap()), "stale");
}

#[tokio::test]
async fn a_call_that_was_dropped_is_taken_up() {
    let gate = Arc::new(Semaphore::new(0));
    let (begun, mut running) = tokio::sync::mpsc::unbounded_channel();
    let thread = app(gated(Arc::clone(&gate), begun)).await.thread("1");
    tokio::select! {
        run = thread.invoke(json!({})) => panic!("the gate is shut: {run:?}"),
        begun = running.recv() => begun.unwrap(),
    }
    assert_eq!(thread.status().await.unwrap(), Some(ThreadStatus::Busy));
    gate.add_permits(2);
    // Any call that needs the thread takes it up, here to its first question.
    assert_eq!(kind(in_time(thread.retry()).await), "nothing_to_retry");
    let state = thread.state().await.unwrap().unwrap();
    assert_eq!(state.interrupts[0].value, "first");
    let asked = in_time(thread.resume("yes")).await.unwrap();
    assert_eq!(asked.interrupts[0].value, "second");
}

#[tokio::test]
async fn an_interrupted_thread_outlives_its_process() {
    let parent = tempfile::tempdir().unwrap();
    let folder = parent.path().join("data");
    let open = || async {
        let app = Embedded::sqlite(&folder).graph(asking("asking"));
        app.build().await.unwrap()
    };
    let before = open().await;
    let asked = before
        .thread("1")
        .invoke(json!({"questions": 2}))
        .await
        .unwrap();
    drop(before);

    let after = open().await;
    let thread = after.thread("1");
    let state = thread.state().await.unwrap().unwrap();
    assert_eq!(state.next, ["ask"]);
    assert_eq!(state.interrupts, asked.interrupts);
    let _ = thread.answer(&asked.interrupts[0].id, "one").await.unwrap();
    drop((after, thread));

    let last = open().await;
    let done = last.thread("1").resume("two").await.unwrap();
    assert_eq!(done.values["answers"], json!(["one", "two"]));
    assert_eq!(last.thread("1").history(10).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_data_folder_has_one_process() {
    let parent = tempfile::tempdir().unwrap();
    let open = || {
        Embedded::sqlite(parent.path())
            .graph(asking("asking"))
            .build()
    };
    let first = open().await.unwrap();
    let error = open().await.unwrap_err();
    assert!(matches!(error, Error::DataDir(_)), "{error:?}");
    assert!(error.to_string().contains("another process"), "{error}");
    // A handle of a thread holds the folder as the app does.
    let thread = first.thread("1");
    drop(first);
    open().await.unwrap_err();
    drop(thread);
    open().await.unwrap();
}

#[tokio::test]
async fn a_command_that_does_not_fit_is_declined() {
    let mut settings = superstep::WorkerSettings::default();
    settings.limits.state_bytes_max = 20_000;
    let app = Embedded::memory().graph(asking("asking"));
    let app = app.settings(settings).build().await.unwrap();
    let thread = app.thread("1");
    let _ = thread.invoke(json!({})).await.unwrap();
    let before = thread.state().await.unwrap();
    let large = json!({"answers": "x".repeat(12_000)});
    let command = superstep::RunCommand::new().resume("yes").update(large);
    assert_eq!(kind(thread.command(command).await), "invalid_update");
    assert_eq!(thread.state().await.unwrap(), before, "nothing changed");
    assert_eq!(
        thread.status().await.unwrap(),
        Some(ThreadStatus::Interrupted)
    );
    let done = thread.resume("yes").await.unwrap();
    assert_eq!(done.values["answers"], json!(["yes"]), "it is still asked");
}
