//! The rules of versions: which is the newest, who is live, when a thread is to go.

use bytes::Bytes;
use serde_json::json;
use superstep_protocol::{
    Cancel, CommandRef, Head, Nonce, Record, RecordBody, Start, Stays, Strategy, Terms, Verdict,
    decide, fold,
};

use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000);

fn graph(version: &str) -> GraphId {
    GraphId {
        name: "g".into(),
        version: version.into(),
    }
}

fn version(name: &str, registered_at: u64, live: bool, policy: &str) -> Version {
    let workers = if live { json!({"w": NOW}) } else { json!({}) };
    let about = json!({
        "versions": policy, "topology_hash": format!("t{name}"),
        "registered_at": registered_at, "workers": workers,
    });
    let registration = Registration {
        graph: graph(name),
        about: Bytes::from(about.to_string()),
        renewed_at: NOW,
    };
    Version::of(&registration, NOW)
}

/// A thread of `g@1` whose input waits for a worker, or that rests if it was cancelled.
fn thread(busy: bool) -> ThreadState {
    let command = |id: &str| CommandRef {
        id: id.into(),
        sent_at: NOW,
        sender: None,
        trace: None,
        tracestate: None,
    };
    let start = superstep_protocol::Event::Start(Box::new(Start {
        command: command("s"),
        run: "r".into(),
        graph: graph("1"),
        topology: None,
        profile: superstep_protocol::Profile::Default,
        input: json!({}),
        recursion_limit: 25,
        config: Map::new(),
        metadata: Map::new(),
        terms: Terms::default(),
        at: None,
        strategy: Strategy::Reject,
        not_before: None,
        before: None,
    }));
    let cancel = Cancel::new(command("c"), None);
    let cancel = superstep_protocol::Event::Cancel(Box::new(cancel));
    let mut state = None;
    for (at, event) in (1..).zip([start, cancel].into_iter().take(if busy { 1 } else { 2 })) {
        append(&mut state, at, &event);
    }
    state.unwrap()
}

fn append(state: &mut Option<ThreadState>, at: u64, event: &superstep_protocol::Event) {
    let id = "t".into();
    let Verdict::Append(body) = decide(&id, state.as_ref(), event, NOW) else {
        panic!("{event:?} calls for no record");
    };
    push(state, at, body);
}

fn push(state: &mut Option<ThreadState>, at: u64, body: RecordBody) {
    let record = Record {
        head: Head {
            version: at,
            nonce: Nonce(at),
        },
        time: NOW,
        told: 0,
        body,
        snapshot: None,
    };
    *state = Some(fold(&"t".into(), state.take(), &record).unwrap());
}

fn to<'a>(versions: &'a [Version], state: &ThreadState) -> Option<&'a str> {
    needs_move(versions, state).map(|version| version.graph.version.as_str())
}

#[test]
fn the_newest_version_is_the_last_that_came() {
    let names = |versions: &[Version]| newest(versions, "g").unwrap().graph.version.to_string();
    let blue = version("blue", 200, true, "pinned");
    let green = version("green", 100, true, "pinned");
    assert_eq!(names(&[blue.clone(), green.clone()]), "blue");
    // A deploy was rolled back: what is live counts.
    let gone = version("blue", 200, false, "pinned");
    assert_eq!(names(&[gone, green.clone()]), "green");
    // Version 10 and version 9 of one process, in the same moment.
    let both = [version("10", 7, true, ""), version("9", 7, true, "")];
    assert_eq!(names(&both), "10");
    assert_eq!(newest(&both, "other"), None);
}

#[test]
fn a_version_is_live_while_a_worker_of_it_is() {
    let about = |at: u64| json!({"workers": {"a": at}});
    let live = |about: &Value| seen_lately(about, NOW, NOW);
    assert!(live(&about(NOW.0)));
    assert!(live(&about(NOW.0 - 29_000)));
    assert!(!live(&about(NOW.0 - 31_000)));
    assert!(!live(&json!({"workers": {}})));
    // Registered by a worker that names no workers.
    assert!(live(&json!({})));
}

#[test]
fn a_thread_moves_only_when_its_own_workers_are_gone() {
    let busy = thread(true);
    let new = version("2", 200, true, "latest");
    let live = [version("1", 100, true, "pinned"), new.clone()];
    assert_eq!(to(&live, &busy), None);
    let gone = [version("1", 100, false, "pinned"), new.clone()];
    assert_eq!(to(&gone, &busy), Some("2"));
    assert_eq!(to(&gone, &thread(false)), None);
    let migrates = [version("2", 200, true, "migrate")];
    assert_eq!(to(&migrates, &busy), Some("2"));
    let pinned = [version("2", 200, true, "pinned")];
    assert_eq!(to(&pinned, &busy), None);
    let gone_too = [version("2", 200, false, "latest")];
    assert_eq!(to(&gone_too, &busy), None);
}

#[test]
fn a_version_that_declined_is_not_asked_again() {
    let mut busy = thread(true);
    let versions = [version("2", 200, true, "latest")];
    busy.stays = Some(Box::new(Stays {
        to: graph("2"),
        topology: Some("t2".to_owned()),
        command: None,
        refusal: missing(),
    }));
    assert_eq!(to(&versions, &busy), None);
    let newer = [versions[0].clone(), version("3", 300, true, "latest")];
    assert_eq!(to(&newer, &busy), Some("3"));
}

fn missing() -> Refusal {
    Refusal::MissingNode {
        thread: "t".into(),
        node: "n".into(),
        from: graph("1"),
        to: graph("2"),
    }
}

#[test]
fn a_move_to_workers_that_are_gone_is_turned() {
    let mut state = Some(thread(true));
    let asked = RecordBody::MoveAsked {
        to: graph("2"),
        topology: None,
        command: None,
        results: BTreeMap::new(),
    };
    push(&mut state, 2, asked);
    let moving = state.unwrap();
    let old = version("1", 100, true, "pinned");
    let second = |live| version("2", 200, live, "latest");
    assert_eq!(to(&[old.clone(), second(true)], &moving), None);
    assert_eq!(to(&[old, second(false)], &moving), Some("1"));
    let third = version("3", 300, true, "latest");
    assert_eq!(to(&[second(false), third], &moving), Some("3"));
}

#[test]
fn a_command_asks_for_the_newest_version_first() {
    let rests = thread(false);
    let versions = [
        version("1", 100, true, "pinned"),
        version("2", 200, true, "latest"),
    ];
    let first = |state: &ThreadState, command: &str, needs| {
        let first = before_command(&versions, state, &command.into(), needs);
        match first {
            First::Nothing => "nothing",
            First::Move(_) => "move",
            First::MoveFor(_) => "move for it",
            First::Refuse(_) => "refuse",
        }
    };
    let waits = Needs::WhatWaits(None);
    assert_eq!(first(&rests, "r", waits), "move for it");
    assert_eq!(first(&rests, "r", Needs::Nothing), "nothing");
    assert_eq!(first(&thread(true), "r", waits), "nothing");
    // The command names the version that it is for.
    let (one, two) = (graph("1"), graph("2"));
    assert_eq!(first(&rests, "r", Needs::WhatWaits(Some(&one))), "nothing");
    assert_eq!(first(&rests, "r", Needs::Values(&two)), "nothing");
    let mut declined = rests.clone();
    declined.stays = Some(Box::new(Stays {
        to: two.clone(),
        topology: Some("t2".to_owned()),
        command: Some("r".into()),
        refusal: missing(),
    }));
    assert_eq!(first(&declined, "r", waits), "nothing");
    assert_eq!(first(&declined, "other", waits), "nothing");
}

#[test]
fn only_the_command_that_waited_is_refused() {
    let mut rests = thread(false);
    rests.stays = Some(Box::new(Stays {
        to: graph("2"),
        topology: Some("t2".to_owned()),
        command: Some("r".into()),
        refusal: missing(),
    }));
    let versions = [
        version("1", 100, false, "pinned"),
        version("2", 200, true, "latest"),
    ];
    let waits = Needs::WhatWaits(None);
    let first = |command: &str| before_command(&versions, &rests, &command.into(), waits);
    assert_eq!(first("r"), First::Refuse(missing()));
    // A person may have seen to it that the version can take it now.
    assert_eq!(first("r2"), First::MoveFor(&versions[1]));
}

#[test]
fn new_input_waits_for_a_migration_of_the_values() {
    let rests = thread(false);
    let migrates = [version("2", 200, true, "migrate")];
    let two = graph("2");
    let first = before_command(&migrates, &rests, &"s2".into(), Needs::Values(&two));
    assert_eq!(first, First::MoveFor(&migrates[0]));
}
