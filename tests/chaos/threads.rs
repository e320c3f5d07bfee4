//! The threads: what each is started with, how its questions are answered, what it must come to.
//!
//! The graphs are the guide's and those of the tests' own worker. A thread's name says its graph.
//!
//! The rule it keeps: what a thread comes to follows from its input and its answers alone.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::draw::Draw;

/// One thread.
#[derive(Clone, Debug)]
pub(crate) struct Thread {
    pub(crate) id: String,
    pub(crate) graph: &'static str,
    pub(crate) input: Value,
    /// How many runs are started on it; those after the first are queued.
    pub(crate) runs: usize,
    /// Whether an answer is sent before there is a question.
    pub(crate) early: bool,
    /// Whether each question is answered twice.
    pub(crate) twice: bool,
}

/// So many threads of all graphs.
pub(crate) fn threads(draw: &mut Draw, count: usize) -> Vec<Thread> {
    const GRAPHS: [&str; 10] = [
        "mixed", "mixed", "mixed", "mixed", "email", "multi", "pair", "spread", "steps", "report",
    ];
    let thread = |n| {
        let graph = *draw.one_of(&GRAPHS);
        let asks = draw.chance(60);
        let input = match graph {
            "mixed" => json!({
                "items": draw.below(8) + 1,
                "fails": draw.below(3),
                "asks": asks,
                "nap_ms": draw.below(4_000),
                "slow_ms": draw.below(400),
            }),
            "email" => json!({"topic": "t"}),
            "multi" => json!({"draft": "d"}),
            "report" => json!({"data": {"sales": 7}}),
            "spread" => json!({"count": draw.below(12) + 1, "pause_ms": draw.below(300)}),
            "steps" => json!({"count": draw.below(20) + 1, "pause_ms": draw.below(150)}),
            _ => json!({}),
        };
        let queues = graph == "mixed" && draw.chance(30);
        Thread {
            id: format!("{graph}-{n}"),
            graph,
            input,
            runs: 1 + usize::from(queues),
            early: draw.chance(15),
            twice: draw.chance(20),
        }
    };
    (0..count).map(thread).collect()
}

impl Thread {
    fn given(&self, name: &str) -> u64 {
        self.input[name].as_u64().unwrap_or_default()
    }

    /// The answer to a question.
    pub(crate) fn answer(&self, question: &Value) -> Value {
        match self.graph {
            "email" => json!({"approved": true}),
            "multi" if question["value"]["message"] == "Review draft" => {
                json!({"edited_draft": "e"})
            }
            "multi" => json!({"approved_draft": "f"}),
            "report" => json!({"edited_report": "Seven."}),
            "pair" => question["value"]["from"].clone(),
            _ => json!("yes"),
        }
    }

    /// What is wrong with the values that it ended with.
    pub(crate) fn wrong(&self, values: &Map<String, Value>) -> Vec<String> {
        let mut expected = vec![match self.graph {
            "email" => ("status", json!("sent")),
            "multi" => ("final_draft", json!("f")),
            "report" => ("report", json!("Seven.")),
            "pair" => ("said", json!(["left", "right"])),
            "spread" => {
                let count = self.given("count");
                ("sum", json!((0..count).map(|n| n * n).sum::<u64>()))
            }
            "steps" => {
                let count = self.given("count");
                ("seen", json!((0..count).collect::<Vec<_>>()))
            }
            _ => ("trail", json!(self.trail())),
        }];
        if self.graph == "mixed" {
            let squares = (0..self.given("items")).map(|n| n * n);
            let squares: Vec<u64> = squares.collect();
            expected.push(("squares", json!(squares.repeat(self.runs))));
            if self.input["asks"] == true {
                expected.push(("answer", json!("yes")));
            }
        }
        let differs = |(name, expected): &(&str, Value)| values.get(*name) != Some(expected);
        expected.retain(differs);
        let tell = |(name, expected)| {
            let found = values.get(name);
            format!("{}: {name} is {found:?}, must be {expected}", self.id)
        };
        expected.into_iter().map(tell).collect()
    }

    fn trail(&self) -> Vec<&'static str> {
        let mut trail = vec!["first", "second", "gather", "flaky"];
        trail.extend((self.input["asks"] == true).then_some("ask"));
        trail.extend(["nap", "last"]);
        trail.repeat(self.runs)
    }

    /// How many keys each node acts under.
    pub(crate) fn effects(&self) -> BTreeMap<String, usize> {
        let mut effects = BTreeMap::new();
        if self.graph == "mixed" {
            for node in self.trail() {
                *effects.entry(node.to_owned()).or_default() += 1;
            }
            let items = usize::try_from(self.given("items")).expect("a few");
            effects.insert("item".to_owned(), items * self.runs);
        }
        effects
    }

    /// How many keys its mails go out under.
    pub(crate) fn mails(&self) -> usize {
        usize::from(self.graph == "email")
    }
}
