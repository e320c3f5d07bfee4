//! Every pattern through the facade, with its reject and edit paths, in memory and on SQLite.

use serde_json::json;
use superstep::Embedded;

#[tokio::test]
async fn basic_approves_what_a_person_approves() {
    let app = Embedded::memory()
        .graphs(superstep_guide::graphs())
        .build()
        .await
        .unwrap();
    let thread = app.thread("1").graph("basic");
    let run = thread.invoke(json!({"draft": "Dear Ada"})).await.unwrap();
    assert_eq!(
        run.interrupts[0].value,
        json!({"message": "Review this draft", "draft": "Dear Ada"})
    );
    let run = thread.resume(json!({"approved": true})).await.unwrap();
    assert_eq!(run.values["status"], "approved");
}
