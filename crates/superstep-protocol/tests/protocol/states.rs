//! One story for each kind of state a thread can be in.

use superstep_protocol::{Stop, Strategy};

use crate::story::{End, Story};

/// Every kind of state, by name.
pub(crate) const STATES: [&str; 37] = [
    "none",
    "tombstone",
    "input_asked",
    "starting",
    "running_one",
    "running_several",
    "asked_one",
    "asked_two",
    "asked_twice_by_one",
    "two_rounds",
    "round_over_a_failure",
    "failed",
    "failed_path",
    "failed_beside_a_question",
    "timed_out",
    "cancelled",
    "update_asked",
    "updated",
    "command_asked",
    "amended",
    "moving",
    "moving_at_work",
    "moved_at_work",
    "moving_in_its_sleep",
    "moving_with_a_queue",
    "stopped",
    "over_the_limit",
    "completed",
    "sleeping",
    "sleeping_twice",
    "sleeping_beside_a_question",
    "asking_in_its_sleep",
    "queued",
    "queued_at_a_question",
    "next_asked",
    "delayed",
    "displaced",
];

/// The story that leads there. Its last questions are of node `a`, then `b`, then `c`.
pub(crate) fn state(name: &str) -> Story {
    let mut story = Story::new();
    story.expire_ms = Some(60_000);
    let asks = End::Asks(&[0]);
    match name {
        "none" => {}
        "tombstone" => {
            story.start("s1").enter(&["a"]).delete("d1");
        }
        "input_asked" => {
            story.start("s1");
        }
        "starting" => {
            story.start("s1");
            let event = story.input_taken();
            story.happens(&event);
        }
        "running_one" => {
            story.start("s1").enter(&["a"]);
        }
        "running_several" => {
            story.start("s1").enter(&["a", "b", "c"]);
        }
        "asked_one" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", End::Done)], &[]);
        }
        "asked_two" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", asks)], &[]);
        }
        "asked_twice_by_one" => {
            story.start("s1").enter(&["a"]);
            story.round(&[("a", End::Asks(&[0, 1]))], &[]);
        }
        // The questions of a and b were answered one after the other; that of c waits.
        "two_rounds" => {
            story.start("s1").enter(&["a", "b", "c"]);
            story.round(&[("a", asks), ("b", asks), ("c", asks)], &[]);
            story.answer("r1", "a", 0).answer("r2", "b", 0);
        }
        // a failed in its own round while b still runs in another one.
        "round_over_a_failure" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", asks)], &[]);
            story.answer("r1", "a", 0).answer("r2", "b", 0);
            story.round(&[("a", End::Fails)], &[]);
        }
        "failed" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", End::Fails), ("b", End::Done)], &[]);
        }
        "failed_path" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", End::PathFails), ("b", End::Done)], &[]);
        }
        "failed_beside_a_question" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", End::Fails)], &[]);
        }
        "timed_out" => {
            story.start("s1").enter(&["a"]);
            story.round(&[("a", asks)], &[]).deadline("a", 0);
        }
        "cancelled" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", asks)], &[]).cancel("c1");
        }
        "update_asked" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", End::Done)], &[]);
            story.ask_update("u1");
        }
        "updated" => {
            story.start("s1").enter(&["a"]).round(&[("a", asks)], &[]);
            story.update("u1", &["a", "b"]);
        }
        "command_asked" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", End::Done)], &[]);
            story.ask_command("k1", None);
        }
        // The question of a is open still; the node that the command added runs beside it.
        "amended" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", End::Done)], &[]);
            story.ask_command("k1", None).command_applied("c");
        }
        // The question of a is open; a command waits for the move.
        "moving" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", End::Done)], &[]);
            story.ask_move("2", Some("r1"));
        }
        "moving_at_work" => {
            story.start("s1").enter(&["a", "b"]).ask_move("2", None);
        }
        // a sleeps, b ran when it was asked for.
        "moving_in_its_sleep" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", End::Sleeps(60_000)), ("b", asks)], &[]);
            story.answer("r1", "b", 0).ask_move("2", None);
        }
        "moving_with_a_queue" => {
            story.start("s1").enter(&["a"]);
            let event = story.start_with("s2", Strategy::Enqueue);
            story.happens(&event).ask_move("2", None);
        }
        "moved_at_work" => {
            story.start("s1").enter(&["a", "b"]).ask_move("2", None);
            story.make_move("2", true);
        }
        "stopped" => {
            story.start("s1").enter(&["a"]);
            story.stop = Stop::Before;
            story.round(&[("a", End::Done)], &["a", "b"]);
        }
        "over_the_limit" => {
            story.limit = 1;
            story.start("s1").enter(&["a"]);
            story.round(&[("a", End::Done)], &["a"]);
        }
        "completed" => {
            story.start("s1").enter(&["a"]);
            story.round(&[("a", asks)], &[]).answer("r1", "a", 0);
            story.round(&[("a", End::Done)], &[]);
        }
        "sleeping" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", End::Sleeps(60_000)), ("b", End::Done)], &[]);
        }
        // b goes on later than a.
        "sleeping_twice" => {
            story.start("s1").enter(&["a", "b"]);
            let ends = [("a", End::Sleeps(60_000)), ("b", End::TriesAgain(300_000))];
            story.round(&ends, &[]);
        }
        "sleeping_beside_a_question" => {
            story.start("s1").enter(&["a", "b"]);
            story.round(&[("a", asks), ("b", End::Sleeps(300_000))], &[]);
        }
        "asking_in_its_sleep" => {
            story.start("s1").enter(&["a"]);
            story.round(&[("a", End::AsksAndSleeps(30_000))], &[]);
        }
        "queued" | "next_asked" => {
            story.start("s1").enter(&["a"]);
            for id in ["s2", "s3"] {
                let event = story.start_with(id, Strategy::Enqueue);
                story.happens(&event);
            }
            if name == "next_asked" {
                story.round(&[("a", End::Done)], &[]);
            }
        }
        "queued_at_a_question" => {
            story.start("s1").enter(&["a"]).round(&[("a", asks)], &[]);
            let event = story.start_with("s2", Strategy::Enqueue);
            story.happens(&event);
        }
        "delayed" => {
            story.start("s1").enter(&["a"]);
            story.round(&[("a", End::Done)], &[]);
            let event = story.start_later("s2");
            story.happens(&event);
        }
        "displaced" => {
            story.start("s1").enter(&["a"]);
            let event = story.start_with("s2", Strategy::Interrupt);
            story.happens(&event);
        }
        other => panic!("no story of {other}"),
    }
    story
}
