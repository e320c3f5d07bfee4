//! Events and obligations: what a record tells the world, and what a state still owes it.

use serde_json::json;
use superstep_protocol::{
    CommandId, EventData, Obligation, Record, RecordBody, TASK_POISONED, TaskResult, events,
    obligations,
};

use crate::{
    states::{STATES, state},
    story::{End, Story},
};

/// The kinds of events of each record of a story.
fn told(story: &Story) -> Vec<(String, Vec<&'static str>)> {
    let mut again = Story::new();
    story
        .records
        .iter()
        .map(|record| {
            again.append_record(record.clone());
            let kinds = events(record, again.state())
                .iter()
                .map(|e| e.data.kind())
                .collect();
            (record.body.kind().to_owned(), kinds)
        })
        .collect()
}

fn last_told(story: &Story) -> Vec<&'static str> {
    told(story).pop().unwrap().1
}

#[test]
fn each_kind_of_record_tells_its_events() {
    let rows: [(&str, &[&str]); 21] = [
        ("tombstone", &["thread_deleted"]),
        ("input_asked", &["run_started"]),
        ("starting", &[]),
        ("running_one", &[]),
        ("asked_one", &["interrupt", "run_stopped"]),
        ("asked_two", &["interrupt", "interrupt", "run_stopped"]),
        (
            "asked_twice_by_one",
            &["interrupt", "interrupt", "run_stopped"],
        ),
        ("two_rounds", &["resume_accepted"]),
        // The other round's run goes on; this one's is over.
        ("round_over_a_failure", &["run_failed"]),
        ("failed", &["run_failed"]),
        ("failed_beside_a_question", &["interrupt", "run_failed"]),
        ("timed_out", &["interrupt_expired", "run_failed"]),
        ("cancelled", &["run_cancelled"]),
        ("update_asked", &[]),
        ("updated", &["state_updated"]),
        ("over_the_limit", &["run_failed"]),
        ("completed", &["run_completed"]),
        ("sleeping", &[]),
        ("sleeping_twice", &[]),
        // The run goes on by itself.
        ("sleeping_beside_a_question", &["interrupt"]),
        ("asking_in_its_sleep", &["interrupt"]),
    ];
    for (name, expected) in rows {
        assert_eq!(last_told(&state(name)), expected, "{name}");
    }
}

#[test]
fn a_task_that_kills_is_a_dead_letter() {
    let mut story = state("failed");
    let task = story.task("a");
    let failed = story.records.last_mut().unwrap();
    let RecordBody::Failed(parked) = &mut failed.body else {
        panic!("{failed:?}");
    };
    let Some(TaskResult::Failed { error, .. }) = parked.results.get_mut(&task) else {
        panic!("{parked:?}");
    };
    error.kind = TASK_POISONED.to_owned();
    assert_eq!(last_told(&story), ["dead_letter", "run_failed"]);
    let letter = events(story.last(), story.state()).remove(0);
    assert!(matches!(letter.data, EventData::DeadLetter { task: of, .. } if of == task));
}

#[test]
fn every_event_belongs_to_an_untold_record() {
    for name in STATES {
        let story = state(name);
        let mut again = Story::new();
        for record in &story.records {
            again.append_record(record.clone());
            let events = events(record, again.state());
            let untold = again.state().untold.contains(&record.head.version);
            assert!(untold || events.is_empty(), "{name}, {:?}", record.body);
            for (index, event) in events.iter().enumerate() {
                assert!(event.id.ends_with(&format!("-{}-{index}", record.head)));
                assert_eq!((event.record, event.time), (record.head, record.time));
            }
        }
    }
}

#[test]
fn each_failed_run_tells_so_once() {
    let mut story = state("round_over_a_failure");
    story.round(&[("b", End::Asks(&[1]))], &[]);
    assert_eq!(last_told(&story), ["interrupt", "run_failed"]);
    let mut again = Story::new();
    let mut failed = Vec::new();
    for record in &story.records {
        again.append_record(record.clone());
        let told = events(record, again.state());
        let told = told
            .into_iter()
            .filter(|event| event.data.kind() == "run_failed");
        failed.extend(told.map(|event| event.run.unwrap()));
    }
    assert_eq!(failed.len(), 2);
    assert_ne!(
        failed[0], failed[1],
        "two rounds, two runs, an end for each"
    );
}

#[test]
fn only_newly_opened_questions_are_told() {
    let mut story = state("asked_two");
    story.answer("r1", "a", 0);
    // a asks a second question; that of b is still open and is not told again.
    story.round(&[("a", End::Asks(&[1]))], &[]);
    let events = events(story.last(), story.state());
    assert_eq!(events.len(), 2);
    assert_eq!(events[1].data, EventData::RunStopped);
    let EventData::Interrupt {
        interrupt,
        index,
        node,
        payload,
        ..
    } = &events[0].data
    else {
        panic!("not an interrupt: {events:?}");
    };
    assert_eq!((*index, node.as_str()), (1, "a"));
    assert_eq!(payload, &json!({"question": 1}));
    assert_eq!(*interrupt, story.question("a", 1));
}

#[test]
fn events_name_the_command_behind_them() {
    for (name, id) in [
        ("input_asked", "s1"),
        ("two_rounds", "r2"),
        ("cancelled", "c1"),
        ("tombstone", "d1"),
    ] {
        let story = state(name);
        let events = events(story.last(), story.state());
        let expected = (CommandId::from(id), Some("ann".to_owned()));
        assert_eq!(events[0].command, Some(expected), "{name}");
    }
    assert_eq!(
        events(state("completed").last(), state("completed").state())[0].command,
        None
    );
}

#[test]
fn a_completed_run_shows_the_values_of_the_state() {
    let story = state("completed");
    let events = events(story.last(), story.state());
    let values = json!({"log": ["__start__", "a"]});
    let expected = EventData::RunCompleted {
        values: values.as_object().unwrap().clone(),
    };
    assert_eq!(events[0].data, expected);
}

#[test]
fn a_state_owes_the_events_of_every_untold_record() {
    let mut story = state("completed");
    let versions = |story: &Story| -> Vec<u64> {
        obligations(story.state())
            .into_iter()
            .filter_map(|owed| match owed {
                Obligation::Events { version } => Some(version),
                Obligation::Work { .. } => None,
            })
            .collect()
    };
    // Started, interrupted, resumed, completed; what lies between tells nothing.
    assert_eq!(versions(&story), [1, 4, 5, 6]);
    // A later record that knows some to be told takes those off, and no other.
    let body = RecordBody::Started {
        command: story.command("s2"),
        run: "run-s2".into(),
        graph: crate::story::graph("g"),
        topology: None,
        profile: superstep_protocol::Profile::Default,
        input: json!({}),
        recursion_limit: 25,
        config: serde_json::Map::new(),
        metadata: serde_json::Map::new(),
        terms: superstep_protocol::Terms::default(),
        at: None,
        discards: Vec::new(),
    };
    let head = superstep_protocol::Head {
        version: 7,
        nonce: superstep_protocol::Nonce(99),
    };
    story.append_record(Record {
        head,
        time: story.now,
        told: 5,
        body,
        snapshot: None,
    });
    assert_eq!(versions(&story), [6, 7]);
}

/// A story, and the version and nodes of each dispatch that it owes.
type Owed = (&'static str, &'static [(u64, &'static [&'static str])]);

#[test]
fn a_state_owes_the_work_that_it_waits_for() {
    let work = |story: &Story| -> Vec<(u64, Vec<String>)> {
        obligations(story.state())
            .into_iter()
            .filter_map(|owed| match owed {
                Obligation::Work { dispatch, tasks } => Some((dispatch, tasks)),
                Obligation::Events { .. } => None,
            })
            .map(|(dispatch, tasks)| {
                assert!(story.state().waits_for(dispatch));
                let node = |id| story.state().task(id).unwrap().task.node.to_string();
                (dispatch.version, tasks.iter().map(node).collect())
            })
            .collect()
    };
    let rows: [Owed; 8] = [
        ("tombstone", &[]),
        ("input_asked", &[(1, &[])]),
        ("starting", &[(2, &["__start__"])]),
        ("running_several", &[(3, &["a", "b", "c"])]),
        ("asked_one", &[]),
        ("two_rounds", &[(5, &["a"]), (6, &["b"])]),
        ("update_asked", &[(5, &[])]),
        ("completed", &[]),
    ];
    for (name, expected) in rows {
        let found = work(&state(name));
        let found: Vec<(u64, Vec<&str>)> = found
            .iter()
            .map(|(version, nodes)| (*version, nodes.iter().map(String::as_str).collect()))
            .collect();
        let expected: Vec<(u64, Vec<&str>)> = expected
            .iter()
            .map(|(v, nodes)| (*v, nodes.to_vec()))
            .collect();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn records_that_come_between_owe_no_less() {
    // The author of the question dies before its event is out, and an answer is appended.
    let mut story = state("asked_two");
    let asked = story.state().head.version;
    story.answer("r1", "a", 0);
    let owed = obligations(story.state());
    assert!(owed.contains(&Obligation::Events { version: asked }));
    // The round of one answer stays owed when another record raises the version.
    let round = story.state().head;
    story.answer("r2", "b", 0);
    let still = obligations(story.state())
        .iter()
        .any(|owed| matches!(owed, Obligation::Work { dispatch, .. } if *dispatch == round));
    assert!(still);
}

#[test]
fn a_thread_with_work_owes_it_and_others_none() {
    for name in STATES.iter().filter(|name| **name != "none") {
        let story = state(name);
        let works = obligations(story.state())
            .iter()
            .any(|owed| matches!(owed, Obligation::Work { .. }));
        assert_eq!(works, story.state().has_work(), "{name}");
        let waits = works || story.state().is_paused();
        assert_eq!(waits, story.state().is_busy(), "{name}");
    }
}
