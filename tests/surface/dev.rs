//! `dev`: a worker on a folder, and other processes that talk to it.

use std::time::Duration;

use serde_json::{Value, json};
use superstep_tests::{Program, eventually};

use crate::run::{Ran, Shell};

/// How long anything may take that should happen soon.
const SOON: Duration = Duration::from_secs(60);

struct Dev {
    shell: Shell,
    worker: Program,
}

impl Dev {
    fn start() -> Self {
        let shell = Shell::new();
        let worker = shell.spawn("dev", &["dev"]);
        let dev = Self { shell, worker };
        dev.ready();
        dev
    }

    /// Waits until there is a store to talk to.
    fn ready(&self) {
        let store = self.shell.dir().join(".superstep/superstep.db");
        eventually("the store of dev", SOON, || store.is_file().then_some(()));
    }

    /// Kills the worker as a power cut would, and starts another one.
    fn kill_and_restart(&mut self) {
        self.worker.kill();
        self.worker = self.shell.spawn("dev", &["dev"]);
    }

    #[track_caller]
    fn run(&self, args: &[&str]) -> Ran {
        self.shell.run(&[&["--data", ".superstep"], args].concat())
    }

    #[track_caller]
    fn json(&self, args: &[&str]) -> Value {
        self.run(&[&["--json"], args].concat()).code(0).json()
    }
}

#[test]
fn a_thread_is_started_asked_and_answered() {
    let dev = Dev::start();
    let topic = "{\"topic\": \"delay\"}";
    let started = dev.json(&["start", "email", topic, "--thread", "order-42", "--wait"]);
    assert_eq!(started["outcome"], "accepted");
    assert_eq!(started["thread_id"], "order-42");
    assert_eq!(started["end"]["status"], "interrupted");
    let interrupt = &started["end"]["interrupts"][0];
    assert_eq!(interrupt["value"]["message"], "Approve email?");

    let listed = dev.json(&["interrupts", "list"]);
    assert_eq!(listed["interrupts"][0], *interrupt);
    let id = interrupt["interrupt_id"].as_str().unwrap();
    assert_eq!(
        dev.json(&["interrupts", "show", id])["interrupts"][0],
        *interrupt
    );
    let thread = dev.json(&["threads", "get", "order-42"]);
    assert_eq!(thread["status"], "interrupted");
    assert_eq!(thread["next"], json!(["review_email"]));
    assert_eq!(thread["interrupts"][0]["id"], id);

    let answer = "{\"edited_draft\": \"Dear Ada\"}";
    let resumed = dev.json(&["resume", "order-42", answer, "--wait"]);
    assert_eq!(resumed["end"]["status"], "completed");
    assert_eq!(resumed["end"]["values"]["draft"], "Dear Ada");
    let again = dev.run(&["resume", "order-42", answer]);
    again.code(3).says(&["not_waiting", "order-42"]);
    let again = dev.run(&["resume", "order-42", answer, "--interrupt", id]);
    again.code(3).says(&["already_answered", "by ann"]);

    let history = dev.json(&["threads", "history", "order-42"]);
    let steps: Vec<&Value> = history["history"]
        .as_array()
        .unwrap()
        .iter()
        .map(|checkpoint| &checkpoint["step"])
        .collect();
    assert_eq!(steps, [3, 2, 1, 0, -1]);
    let events = dev.run(&["--json", "events", "--from-start", "--count", "5"]);
    let kinds: Vec<String> = events
        .code(0)
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["kind"].to_string())
        .collect();
    assert_eq!(
        kinds,
        [
            "\"run_started\"",
            "\"interrupt\"",
            "\"run_stopped\"",
            "\"resume_accepted\"",
            "\"run_completed\""
        ]
    );
    assert_eq!(dev.json(&["doctor"])["ok"], true);
}

#[test]
fn the_same_command_id_is_the_same_command() {
    let dev = Dev::start();
    let args = ["start", "basic", "{\"draft\": \"a\"}", "--id", "nightly"];
    let first = dev.json(&args);
    let second = dev.json(&args);
    assert_eq!(first, second);
    let threads = dev.json(&["threads", "list"]);
    assert_eq!(threads["threads"].as_array().unwrap().len(), 1);
    let thread = first["thread_id"].as_str().unwrap();
    let answer = ["resume", thread, "{\"approved\": true}", "--id", "answer-1"];
    let wait = [&answer[..], &["--wait"]].concat();
    let first = dev.json(&wait);
    let second = dev.json(&wait);
    assert_eq!(first, second);
    assert_eq!(first["end"]["values"]["status"], "approved");
}

#[test]
fn a_second_worker_is_kept_from_the_folder() {
    let dev = Dev::start();
    let second = dev.shell.run(&["dev"]);
    second.code(1).says(&["another process", ".superstep"]);
    dev.json(&["threads", "list"]);
}

#[test]
fn a_killed_worker_leaves_nothing_lost() {
    let mut dev = Dev::start();
    let input = "{\"count\": 6, \"sleep_ms\": 700}";
    dev.json(&["start", "fanout", input, "--thread", "fan"]);
    let waiting = [
        "start",
        "basic",
        "{\"draft\": \"a\"}",
        "--thread",
        "asks",
        "--wait",
    ];
    dev.json(&waiting);
    eventually("the fan-out to be at work", SOON, || {
        let thread = dev.json(&["threads", "get", "fan"]);
        (thread["next"][0] == "work").then_some(())
    });
    dev.kill_and_restart();
    let done = eventually("the fan-out to be done", SOON, || {
        let thread = dev.json(&["threads", "get", "fan"]);
        (thread["status"] == "idle").then_some(thread)
    });
    assert_eq!(done["values"]["results"], json!([0, 1, 2, 3, 4, 5]));
    let answered = dev.json(&["resume", "asks", "{\"approved\": true}", "--wait"]);
    assert_eq!(answered["end"]["values"]["status"], "approved");
    // A step that was done before the kill was not done again: the history has each once.
    let history = dev.json(&["threads", "history", "fan"]);
    let steps = history["history"].as_array().unwrap().len();
    assert_eq!(steps, 5, "{history}");
}

#[test]
fn a_failed_run_is_told_and_can_be_retried() {
    let dev = Dev::start();
    let outbox = dev.shell.dir().join("outbox.jsonl");
    std::fs::create_dir(&outbox).unwrap();
    let topic = "{\"topic\": \"x\"}";
    dev.json(&["start", "email", topic, "--thread", "t", "--wait"]);
    let failed = dev.run(&["resume", "t", "{\"approved\": true}", "--wait"]);
    let failed = failed.code(1);
    assert!(failed.stdout.contains("send_email"), "{failed:?}");
    assert!(failed.stdout.contains("SUPERSTEP_OUTBOX"), "{failed:?}");
    std::fs::remove_dir(&outbox).unwrap();
    let retried = dev.json(&["threads", "retry", "t", "--wait"]);
    assert_eq!(retried["end"]["values"]["status"], "sent");
    dev.run(&["retry", "t"]).code(3).says(&["nothing_to_retry"]);
}

#[test]
fn cancel_update_and_delete_do_what_they_say() {
    let dev = Dev::start();
    let start = [
        "start",
        "email",
        "{\"topic\": \"x\"}",
        "--thread",
        "t",
        "--wait",
    ];
    dev.json(&start);
    let again = [&start[..], &["--strategy", "reject"]].concat();
    dev.run(&again).code(3).says(&["busy"]);
    dev.json(&["cancel", "t", "--reason", "changed my mind"]);
    let thread = dev.json(&["threads", "get", "t"]);
    assert_eq!(thread["interrupts"], json!([]));
    dev.json(&[
        "update",
        "t",
        "{\"draft\": \"by hand\"}",
        "--as-node",
        "draft_email",
    ]);
    let thread = eventually("the update", SOON, || {
        let thread = dev.json(&["threads", "get", "t"]);
        (thread["values"]["draft"] == "by hand").then_some(thread)
    });
    assert_eq!(thread["next"], json!(["review_email"]));
    dev.json(&["threads", "delete", "t"]);
    dev.run(&["threads", "get", "t"])
        .code(1)
        .says(&["no thread"]);
    dev.run(&["threads", "delete", "t"])
        .code(3)
        .says(&["unknown_thread"]);
    assert_eq!(dev.json(&["threads", "list"])["threads"], json!([]));
}

#[test]
fn a_thread_goes_on_elsewhere_and_from_before() {
    let dev = Dev::start();
    let start = ["start", "email", "--thread", "t", "--wait"];
    let input = [
        "{\"topic\": \"x\"}",
        "--interrupt-before",
        "review_email,send_email",
    ];
    let stopped = dev.json(&[&start[..], &input].concat());
    assert_eq!(stopped["end"]["status"], "interrupted");
    assert_eq!(stopped["end"]["interrupts"], json!([]));
    let thread = dev.json(&["threads", "get", "t"]);
    assert_eq!(thread["next"], json!(["review_email"]));
    let before = thread["checkpoint_id"].as_str().unwrap();

    let update = [
        "resume",
        "t",
        "--update",
        "{\"draft\": \"Dear Ada\"}",
        "--wait",
    ];
    let asked = dev.json(&update);
    assert_eq!(asked["end"]["interrupts"].as_array().unwrap().len(), 1);
    let declined = dev.run(&["resume", "t", "--goto", "nowhere", "--wait"]);
    declined.code(3).says(&["invalid_update", "nowhere"]);
    let sent = dev.json(&["resume", "t", "{\"approved\": true}", "--wait"]);
    assert_eq!(sent["end"]["values"]["draft"], "Dear Ada");

    let again = dev.json(&[&start[..], &["--checkpoint", before]].concat());
    assert_eq!(again["end"]["status"], "interrupted");
    assert_eq!(again["end"]["interrupts"].as_array().unwrap().len(), 1);
    let unknown = ["--checkpoint", "01957f2e-6a3b-7c1d-8e4f-0123456789ab"];
    let unknown = dev.run(&[&start[..], &unknown].concat());
    unknown.code(3).says(&["invalid_input", "history"]);
    dev.run(&["resume", "t"]).code(2).says(&["<JSON>"]);
}

#[test]
fn lists_go_on_where_the_page_ended() {
    let dev = Dev::start();
    for n in 0..3 {
        let thread = format!("t{n}");
        let start = [
            "start",
            "basic",
            "{\"draft\": \"a\"}",
            "--thread",
            &thread,
            "--wait",
        ];
        dev.json(&start);
    }
    for (list, rows, id) in [
        ("threads", "threads", "thread_id"),
        ("interrupts", "interrupts", "thread_id"),
    ] {
        let first = dev.json(&[list, "list", "--limit", "2"]);
        assert_eq!(first[rows].as_array().unwrap().len(), 2);
        let next = first["next"].as_str().unwrap();
        let second = dev.json(&[list, "list", "--limit", "2", "--after", next]);
        assert_eq!(second[rows].as_array().unwrap().len(), 1);
        assert_eq!(second["next"], Value::Null);
        assert_ne!(second[rows][0][id], first[rows][0][id]);
    }
    let page = dev.json(&["threads", "history", "t0", "--limit", "1"]);
    assert_eq!(page["more"], true);
    let before = page["history"][0]["checkpoint_id"].as_str().unwrap();
    let older = dev.json(&["threads", "history", "t0", "--before", before]);
    assert_eq!(older["more"], false);
    assert_eq!(older["history"][0]["step"], -1);
    dev.run(&["threads", "list", "--after", "nonsense"]).code(2);
}

#[test]
fn a_worker_that_is_asked_to_end_drains() {
    let mut dev = Dev::start();
    dev.json(&["start", "basic", "{\"draft\": \"a\"}", "--wait"]);
    dev.worker.terminate();
    let status = dev.worker.wait(SOON).unwrap();
    assert_eq!(status.code(), Some(0));
    assert!(dev.worker.log().contains("drained"), "{}", dev.worker.log());
    let stored = dev.run(&["start", "basic", "{\"draft\": \"b\"}", "--timeout", "200ms"]);
    stored.code(5).says(&["stored", "is a worker running?"]);
}
