//! What a command says, in the words of the protocol.
//!
//! The counterpart of [`outward`](crate::outward): fields whose shape JSON leaves open become
//! the protocol's types here and nowhere else, for whoever decides a command and for whoever
//! looks ahead at what it would do. Whether a command may be obeyed is decided elsewhere.
//!
//! The rule it keeps: what has another shape is refused by its field's name, never guessed at.

use serde_json::{Map, Value};
use superstep_graph::{Breakpoints, NodeName, Send};
use superstep_protocol::{Durability, Goto, Strategy, StreamMode, Streams, Terms, Update};

use crate::{CancelCommand, ResumeCommand, StartCommand, UpdateCommand, decode::Error};

impl StartCommand {
    /// What the run is given beside its input.
    ///
    /// # Errors
    /// If a field has a value that it cannot have.
    pub fn terms(&self) -> Result<Terms, Error> {
        let Self {
            interrupt_before: before,
            interrupt_after: after,
            durability,
            ..
        } = self;
        let terms = terms("start command", [before, after], durability.as_deref())?;
        Ok(Terms {
            streams: streams(&self.stream_mode, self.stream_subgraphs),
            ..terms
        })
    }
}

impl StartCommand {
    /// What becomes of a run that is not over.
    ///
    /// # Errors
    /// If the word is no strategy.
    pub fn strategy(&self) -> Result<Strategy, Error> {
        let Some(word) = &self.multitask_strategy else {
            return Ok(Strategy::default());
        };
        word.parse().map_err(|_| Error::WrongValue {
            what: "start command",
            field: "multitask_strategy",
            problem: "is none; send `enqueue`, `reject`, `interrupt` or `rollback`, or leave it \
                      out",
        })
    }
}

impl CancelCommand {
    /// Whether what the run did is undone.
    ///
    /// # Errors
    /// If the word is no action.
    pub fn rolls_back(&self) -> Result<bool, Error> {
        match self.action.as_deref() {
            None | Some("interrupt") => Ok(false),
            Some("rollback") => Ok(true),
            Some(_) => Err(Error::WrongValue {
                what: "cancel command",
                field: "action",
                problem: "is none; send `interrupt` or `rollback`, or leave it out",
            }),
        }
    }
}

impl ResumeCommand {
    /// What the run that goes on is given.
    ///
    /// # Errors
    /// If a field has a value that it cannot have.
    pub fn terms(&self) -> Result<Terms, Error> {
        let Self {
            interrupt_before: before,
            interrupt_after: after,
            durability,
            ..
        } = self;
        let terms = terms("resume command", [before, after], durability.as_deref())?;
        Ok(Terms {
            streams: streams(&self.stream_mode, self.stream_subgraphs),
            ..terms
        })
    }

    /// Where it goes, in the order in which it says so; empty if it does not.
    ///
    /// # Errors
    /// If `goto` is neither a name, nor a packet, nor a list of these.
    pub fn targets(&self) -> Result<Vec<Goto>, Error> {
        let targets = match &self.goto {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(Value::Array(targets)) => targets.iter().map(target).collect(),
            Some(one) => target(one).map(|target| vec![target]),
        };
        targets.ok_or(Error::WrongValue {
            what: "resume command",
            field: "goto",
            problem: "is no target; send a node's name, a packet such as \
                      {\"node\": \"send\", \"input\": {\"mail\": 1}}, or a list of both",
        })
    }
}

impl UpdateCommand {
    /// The updates of its superstep, in order.
    pub fn into_updates(self) -> Vec<Update> {
        if self.updates.is_empty() {
            return vec![Update {
                values: self.values.unwrap_or_default(),
                as_node: self.as_node.map(NodeName::from),
            }];
        }
        let updates = self.updates.into_iter();
        updates
            .map(|update| Update {
                values: update.values,
                as_node: update.as_node.map(NodeName::from),
            })
            .collect()
    }
}

fn terms(
    what: &'static str,
    [before, after]: [&Option<Value>; 2],
    durability: Option<&str>,
) -> Result<Terms, Error> {
    let wrong = |field, problem| Error::WrongValue {
        what,
        field,
        problem,
    };
    let at = |field, value: &Option<Value>| match value {
        None | Some(Value::Null) => Ok(None),
        Some(value) => breakpoints(value).map(Some).ok_or_else(|| {
            wrong(
                field,
                "names no nodes; send a list of names, or \"*\" for each node",
            )
        }),
    };
    Ok(Terms {
        interrupt_before: at("interrupt_before", before)?,
        interrupt_after: at("interrupt_after", after)?,
        durability: match durability {
            None | Some("sync" | "async") => Durability::Sync,
            Some("exit") => Durability::Exit,
            Some(_) => {
                let problem = "is none; send `sync`, `async` or `exit`, or leave it out";
                return Err(wrong("durability", problem));
            }
        },
        streams: Streams::default(),
        ttl_ms: None,
    })
}

/// What a run sends while it runs; words that are no modes are refused before.
fn streams(modes: &[String], subgraphs: bool) -> Streams {
    let modes = modes.iter().filter_map(|word| StreamMode::of(word));
    Streams {
        modes: modes.collect(),
        subgraphs,
    }
}

/// The form of a target: a name, or a node and its input and nothing else.
fn target(target: &Value) -> Option<Goto> {
    match target {
        Value::String(node) => name(node).map(Goto::Node),
        Value::Object(packet) if packet.len() == 2 => packet_of(packet).map(Goto::Send),
        _ => None,
    }
}

fn packet_of(packet: &Map<String, Value>) -> Option<Send> {
    let node = name(packet.get("node")?.as_str()?)?;
    Some(Send::new(node, packet.get("input")?.clone()))
}

fn name(node: &str) -> Option<NodeName> {
    (!node.is_empty()).then(|| NodeName::from(node))
}

fn breakpoints(at: &Value) -> Option<Breakpoints> {
    match at {
        Value::String(all) if all == "*" => Some(Breakpoints::All),
        Value::Array(nodes) if nodes.is_empty() => Some(Breakpoints::None),
        Value::Array(nodes) => {
            let nodes = nodes.iter().map(|node| name(node.as_str()?));
            nodes.collect::<Option<_>>().map(Breakpoints::Nodes)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn going(goto: Value) -> Result<Vec<Goto>, Error> {
        let resume = ResumeCommand {
            goto: Some(goto),
            ..ResumeCommand::default()
        };
        resume.targets()
    }

    fn stopping(before: Value) -> Result<Option<Breakpoints>, Error> {
        let start = StartCommand {
            interrupt_before: Some(before),
            ..StartCommand::default()
        };
        start.terms().map(|terms| terms.interrupt_before)
    }

    #[test]
    fn a_goto_is_a_name_a_packet_or_both() {
        let name = Goto::Node("log".into());
        let packet = Goto::Send(Send::new("send", json!({"mail": 1})));
        let sent = json!({"node": "send", "input": {"mail": 1}});
        assert_eq!(ResumeCommand::default().targets(), Ok(Vec::new()));
        assert_eq!(going(Value::Null), Ok(Vec::new()));
        assert_eq!(going(json!("log")), Ok(vec![name.clone()]));
        assert_eq!(going(sent.clone()), Ok(vec![packet.clone()]));
        assert_eq!(going(json!([sent, "log"])), Ok(vec![packet, name]));
        assert_eq!(
            outward(&going(json!(["a", {"node": "b", "input": null}]))),
            json!(["a", {"node": "b", "input": null}])
        );
    }

    fn outward(targets: &Result<Vec<Goto>, Error>) -> Value {
        crate::outward::goto(targets.as_ref().expect("they are targets"))
    }

    #[test]
    fn a_goto_of_another_shape_is_refused() {
        for goto in [
            json!(1),
            json!(""),
            json!({}),
            json!({"node": "send"}),
            json!({"node": 1, "input": 1}),
            json!({"node": "send", "inputs": 1}),
            json!({"node": "send", "input": 1, "more": 1}),
            json!([["log"]]),
            json!(["log", null]),
        ] {
            let error = going(goto.clone()).expect_err("it is no target");
            assert!(error.to_string().starts_with("`goto` of the"), "{goto}");
        }
    }

    #[test]
    fn breakpoints_are_a_list_or_each_node() {
        let nodes = Breakpoints::Nodes(["a".into(), "b".into()].into());
        assert_eq!(stopping(Value::Null), Ok(None));
        for (json, at) in [
            (json!("*"), Breakpoints::All),
            (json!([]), Breakpoints::None),
            (json!(["a", "b"]), nodes),
        ] {
            assert_eq!(crate::outward::breakpoints(&at), json);
            assert_eq!(stopping(json), Ok(Some(at)));
        }
        for wrong in [json!("a"), json!([1]), json!([""]), json!({}), json!(true)] {
            let error = stopping(wrong.clone()).expect_err("it names no nodes");
            assert!(error.to_string().contains("interrupt_before"), "{wrong}");
        }
    }

    #[test]
    fn strategies_and_actions_are_words() {
        let strategy = |word: Option<&str>| {
            let start = StartCommand {
                multitask_strategy: word.map(str::to_owned),
                ..StartCommand::default()
            };
            start.strategy()
        };
        assert_eq!(strategy(None), Ok(Strategy::Enqueue));
        for strategy_of in [
            Strategy::Reject,
            Strategy::Enqueue,
            Strategy::Interrupt,
            Strategy::Rollback,
        ] {
            assert_eq!(strategy(Some(strategy_of.as_str())), Ok(strategy_of));
        }
        assert!(strategy(Some("Enqueue")).is_err());
        let action = |word: Option<&str>| {
            let cancel = CancelCommand {
                action: word.map(str::to_owned),
                ..CancelCommand::default()
            };
            cancel.rolls_back()
        };
        assert_eq!(action(None), Ok(false));
        assert_eq!(action(Some("interrupt")), Ok(false));
        assert_eq!(action(Some("rollback")), Ok(true));
        assert!(action(Some("")).is_err());
    }

    #[test]
    fn durability_is_one_of_three_words() {
        let of = |word: &str| {
            let resume = ResumeCommand {
                durability: Some(word.to_owned()),
                ..ResumeCommand::default()
            };
            resume.terms().map(|terms| terms.durability)
        };
        assert_eq!(of("sync"), Ok(Durability::Sync));
        assert_eq!(of("async"), Ok(Durability::Sync));
        assert_eq!(of("exit"), Ok(Durability::Exit));
        assert!(of("never").is_err());
        for durability in [Durability::Sync, Durability::Exit] {
            assert_eq!(of(crate::outward::durability(durability)), Ok(durability));
        }
    }

    #[test]
    fn updates_stand_for_values_of_their_own() {
        let one = UpdateCommand {
            values: Some(json!(1)),
            as_node: Some("a".to_owned()),
            ..UpdateCommand::default()
        };
        let update = |values, as_node: Option<&str>| Update {
            values,
            as_node: as_node.map(Into::into),
        };
        assert_eq!(one.into_updates(), [update(json!(1), Some("a"))]);
        let of = |values: Value, as_node: Option<&str>| crate::StateUpdate {
            values,
            as_node: as_node.map(str::to_owned),
        };
        let several = UpdateCommand {
            updates: vec![of(json!(1), Some("a")), of(Value::Null, None)],
            ..UpdateCommand::default()
        };
        let both = [update(json!(1), Some("a")), update(Value::Null, None)];
        assert_eq!(several.into_updates(), both);
    }
}
