//! Interrupts: raised once, swallowed by nothing, answered in order.

use std::{
    future::ready,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use superstep::{Channel, Context, Graph, NodeError, RunStatus, START};

use crate::{app, in_time};

/// A graph of one node over channel `out`.
fn one<F, Fut>(node: F) -> Graph<Value>
where
    F: Fn(Value, Context) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Value, NodeError>> + Send + 'static,
{
    Graph::dynamic("one")
        .channel("in", Channel::Last)
        .channel("out", Channel::Last)
        .node("ask", node)
        .edge(START, "ask")
        .build()
        .unwrap()
}

#[tokio::test]
async fn questions_asked_together_are_both_raised() {
    let graph = one(|_, ctx| async move {
        let (a, b) = tokio::join!(ctx.interrupt::<i64>("a"), ctx.interrupt::<i64>("b"));
        Ok(json!({"out": [a?, b?]}))
    });
    let thread = app(graph).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    let questions: Vec<&Value> = asked.interrupts.iter().map(|i| &i.value).collect();
    assert_eq!(questions, [&json!("a"), &json!("b")]);

    // Answered in the other order than asked: each answer belongs to its question.
    let error = thread.resume(0).await.unwrap_err();
    assert_eq!(error.refusal().unwrap().kind(), "ambiguous");
    let half = thread.answer(&asked.interrupts[1].id, 2).await.unwrap();
    assert_eq!(half.interrupts, asked.interrupts[..1]);
    let done = thread.answer(&asked.interrupts[0].id, 1).await.unwrap();
    assert_eq!(done.values["out"], json!([1, 2]));
}

#[tokio::test]
async fn both_questions_can_be_answered_at_once() {
    let graph = one(|_, ctx| async move {
        let (a, b) = tokio::join!(ctx.interrupt::<i64>("a"), ctx.interrupt::<i64>("b"));
        Ok(json!({"out": [a?, b?]}))
    });
    let thread = app(graph).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    let [a, b] = asked.interrupts.as_slice() else {
        panic!("{asked:?}");
    };
    let answers = json!({a.id.as_str(): 1, b.id.as_str(): 2});
    let done = thread.resume(answers).await.unwrap();
    assert_eq!(done.values["out"], json!([1, 2]));
}

#[tokio::test]
async fn answers_in_sequence_keep_their_order() {
    let graph = one(|_, ctx| async move {
        let mut answers: Vec<String> = Vec::new();
        for question in ["first", "second", "third"] {
            answers.push(ctx.interrupt(question).await?);
        }
        Ok(json!({"out": answers}))
    });
    let thread = app(graph).await.thread("1");
    let mut run = thread.invoke(json!({})).await.unwrap();
    let mut ids = Vec::new();
    for (question, answer) in [("first", "1"), ("second", "2"), ("third", "3")] {
        assert_eq!(run.interrupts.len(), 1);
        assert_eq!(run.interrupts[0].value, question);
        ids.push(run.interrupts[0].id.clone());
        run = thread.resume(answer).await.unwrap();
    }
    assert_eq!(run.values["out"], json!(["1", "2", "3"]));
    ids.dedup();
    assert_eq!(ids.len(), 3, "each question has an id of its own");
}

#[tokio::test]
async fn error_handling_cannot_swallow_a_question() {
    let graph = one(|_, ctx| async move {
        let handled = match ctx.interrupt::<bool>("may I?").await {
            Ok(answer) => json!(answer),
            Err(_) => json!("swallowed"),
        };
        Ok(json!({"out": handled}))
    });
    let thread = app(graph).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    assert!(asked.is_interrupted());
    assert!(!asked.values.contains_key("out"));
    let done = thread.resume(true).await.unwrap();
    assert_eq!(done.values["out"], true);
}

#[tokio::test]
async fn a_ready_neighbour_cannot_hide_a_question() {
    let graph = one(|_, ctx| async move {
        tokio::select! {
            biased;
            answer = ctx.interrupt::<String>("which?") => Ok(json!({"out": answer?})),
            () = ready(()) => Ok(json!({"out": "went past the question"})),
        }
    });
    let thread = app(graph).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    assert_eq!(asked.interrupts[0].value, "which?");
    let done = thread.resume("this").await.unwrap();
    assert_eq!(done.values["out"], "this");
}

#[tokio::test]
async fn a_panic_beside_a_question_does_not_hide_it() {
    let graph = one(|_, ctx| async move {
        let panics = async { panic!("beside the question") };
        let (answer, ()) = tokio::join!(ctx.interrupt::<u8>("how many?"), panics);
        Ok(json!({"out": answer?}))
    });
    let thread = app(graph).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    assert_eq!(asked.interrupts[0].value, "how many?");
}

#[tokio::test]
async fn a_question_of_a_spawned_task_is_raised() {
    let graph = one(|_, ctx| async move {
        let asking = tokio::spawn(async move { ctx.interrupt::<u8>("how many?").await });
        Ok(json!({"out": asking.await??}))
    });
    let thread = app(graph).await.thread("1");
    let asked = in_time(thread.invoke(json!({}))).await.unwrap();
    assert_eq!(asked.interrupts[0].value, "how many?");
    let done = in_time(thread.resume(7)).await.unwrap();
    assert_eq!(done.values["out"], 7);
}

/// Counts that it was dropped.
struct Guard(Arc<AtomicUsize>);

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[tokio::test]
async fn destructors_run_when_a_question_is_raised() {
    let dropped = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&dropped);
    let graph = one(move |_, ctx| {
        let guard = Guard(Arc::clone(&counter));
        let beside = Guard(Arc::clone(&counter));
        async move {
            let _guard = guard;
            let never = async move {
                let _beside = beside;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                answer = ctx.interrupt::<bool>("?") => Ok(json!({"out": answer?})),
                () = never => Ok(json!({})),
            }
        }
    });
    let thread = app(graph).await.thread("1");
    let asked = in_time(thread.invoke(json!({}))).await.unwrap();
    assert!(asked.is_interrupted());
    assert_eq!(dropped.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn an_answer_of_another_form_fails_the_run() {
    let graph = one(|_, ctx| async move {
        let approved: bool = ctx.interrupt("approved?").await?;
        Ok(json!({"out": approved}))
    });
    let thread = app(graph).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    let failed = thread.resume("perhaps").await.unwrap();
    assert_eq!(failed.status, RunStatus::Error);
    let error = failed.error.unwrap();
    assert_eq!(error.kind, "InvalidAnswer");
    assert!(error.message.contains("expected a boolean"), "{error:?}");

    // The answer is in the log: a retry meets it again, and the question stays answered.
    let again = thread.retry().await.unwrap();
    assert_eq!(again.error.unwrap().kind, "InvalidAnswer");
    let id = &asked.interrupts[0].id;
    let refused = thread.answer(id, true).await.unwrap_err();
    assert_eq!(refused.refusal().unwrap().kind(), "already_answered");

    // A person decides for the node, and the thread goes on.
    let state = thread.update_state(json!({"out": true}), Some("ask")).await;
    let state = state.unwrap();
    assert_eq!(state.values["out"], true);
    assert!(state.next.is_empty());
}

#[tokio::test]
async fn siblings_of_a_question_run_once() {
    let runs = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&runs);
    let graph = Graph::dynamic("siblings")
        .channel("answer", Channel::Last)
        .channel("runs", Channel::Last)
        .node("ask", |_: Value, ctx: Context| async move {
            let answer: Value = ctx.interrupt("?").await?;
            Ok(json!({"answer": answer}))
        })
        .node("work", move |_: Value| {
            let runs = counter.fetch_add(1, Ordering::SeqCst) + 1;
            async move { Ok(json!({"runs": runs})) }
        })
        .edge(START, "ask")
        .edge(START, "work")
        .build()
        .unwrap();
    let thread = app(graph).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    assert!(asked.is_interrupted());
    let done = thread.resume("yes").await.unwrap();
    assert_eq!(
        Value::Object(done.values),
        json!({"answer": "yes", "runs": 1})
    );
    assert_eq!(runs.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_payload_that_is_no_json_fails_the_run() {
    let graph = one(|_, ctx| async move {
        let odd = std::collections::BTreeMap::from([((1, 2), "a key that is no text")]);
        let answer: Value = ctx.interrupt(odd).await?;
        Ok(answer)
    });
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    assert_eq!(run.error.unwrap().kind, "InvalidPayload");
}

#[tokio::test]
async fn null_is_an_answer() {
    let graph = one(|_, ctx| async move {
        let answer: Option<u8> = ctx.interrupt(()).await?;
        Ok(json!({"out": answer.is_none()}))
    });
    let thread = app(graph).await.thread("1");
    let asked = thread.invoke(json!({})).await.unwrap();
    assert_eq!(asked.interrupts[0].value, Value::Null);
    let done = thread.resume(()).await.unwrap();
    assert_eq!(done.values["out"], true);
}

#[tokio::test]
async fn a_question_that_is_never_awaited_is_not_asked() {
    let graph = one(|_, ctx| async move {
        let _unasked = ctx.interrupt::<bool>("never awaited");
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(json!({"out": "done"}))
    });
    let run = app(graph)
        .await
        .thread("1")
        .invoke(json!({}))
        .await
        .unwrap();
    assert_eq!(run.values["out"], "done");
}
