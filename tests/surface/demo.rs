//! `demo`: the first thing that anyone sees.

use serde_json::json;

use crate::run::Shell;

#[test]
fn the_demo_asks_is_answered_and_shows_its_checkpoints() {
    let shell = Shell::new();
    let ran = shell.run(&["demo"]).code(0);
    assert_eq!(ran.stderr, "");
    insta::assert_snapshot!("demo", ran.stdout);
    let outbox = std::fs::read_to_string(shell.dir().join("outbox.jsonl")).unwrap();
    assert_eq!(outbox.lines().count(), 1, "{outbox}");
}

#[test]
fn a_rejected_demo_sends_nothing() {
    let shell = Shell::new();
    let args = [
        "--json",
        "demo",
        "email",
        "--answer",
        "{\"approved\": false}",
    ];
    let ran = shell.run(&args).code(0);
    assert_eq!(ran.json()["values"]["status"], "rejected");
    assert!(!shell.dir().join("outbox.jsonl").exists());
}

#[test]
fn every_example_of_the_demo_finishes() {
    let shell = Shell::new();
    let graphs = shell.run(&["--json", "graph", "list"]).code(0).json();
    let graphs: Vec<&str> = graphs["graphs"]
        .as_array()
        .unwrap()
        .iter()
        .map(|graph| graph["graph"].as_str().unwrap())
        .collect();
    assert_eq!(
        graphs,
        [
            "basic",
            "conditional",
            "email",
            "fanout",
            "multi",
            "report",
            "tools"
        ]
    );
    for graph in graphs {
        let ran = shell.run(&["--json", "demo", graph]).code(0).json();
        assert_eq!(ran["status"], "success", "{ran}");
        assert!(ran["history"].as_array().unwrap().len() > 2, "{ran}");
    }
}

#[test]
fn answers_are_used_in_the_order_of_the_questions() {
    let shell = Shell::new();
    std::fs::write(shell.dir().join("first.json"), "{\"edited_draft\": \"b\"}").unwrap();
    let ran = shell.run_with(
        &[
            "--json",
            "demo",
            "multi",
            "--input",
            "{\"draft\": \"a\"}",
            "--answer",
            "@first.json",
            "--answer",
            "-",
        ],
        &[],
        "{\"approved_draft\": \"c\"}",
    );
    let ran = ran.code(0).json();
    assert_eq!(ran["values"]["final_draft"], "c");
    let second = &ran["answers"][1]["interrupt"]["value"];
    assert_eq!(*second, json!({"message": "Final approval", "draft": "b"}));
}

#[test]
fn colours_appear_on_terminals_only() {
    let shell = Shell::new();
    let ran = shell.run_with(&["demo", "basic"], &[("TERM", "xterm-256color")], "");
    assert!(!ran.code(0).stdout.contains('\x1b'));
    let forced = [("CLICOLOR_FORCE", "1"), ("TERM", "xterm-256color")];
    let ran = shell.run_with(&["demo", "basic"], &forced, "");
    assert!(ran.code(0).stdout.contains('\x1b'));
    let ran = shell.run_with(&["demo", "basic"], &[("NO_COLOR", "1")], "");
    assert!(!ran.code(0).stdout.contains('\x1b'));
}

#[test]
fn what_the_demo_cannot_do_is_said() {
    let shell = Shell::new();
    shell
        .run(&["demo", "nothing"])
        .code(2)
        .says(&["no graph `nothing`", "basic"]);
    shell
        .run(&["demo", "--answer", "{approved: true}"])
        .code(2)
        .says(&["--answer", "line 1 column 2"]);
    shell
        .run(&["demo", "basic", "--input", "{\"drft\": 1}"])
        .code(3)
        .says(&["draft"]);
}

#[test]
fn a_drawing_is_mermaid_text() {
    let shell = Shell::new();
    let ran = shell.run(&["graph", "draw", "email"]).code(0);
    insta::assert_snapshot!("email.mermaid", ran.stdout);
    shell
        .run(&["graph", "draw", "nothing"])
        .code(1)
        .says(&["no graph `nothing`", "email"]);
}
