//! Examples: what `demo` feeds a graph with, and how its questions may be answered.
//!
//! A graph does not say what a good answer looks like, so whoever registers it may. Plain
//! data; the demo asks by it at a terminal and answers by its first choice elsewhere.

use serde_json::{Map, Value};

/// An input for a graph, and answers to the questions that it asks then.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    pub(crate) graph: String,
    pub(crate) input: Value,
    pub(crate) questions: Vec<Vec<Choice>>,
    pub(crate) note: Option<String>,
}

impl Example {
    /// Runs the graph of this name with `input`.
    pub fn new(graph: impl Into<String>, input: Value) -> Self {
        Self {
            graph: graph.into(),
            input,
            questions: Vec::new(),
            note: None,
        }
    }

    /// The next question may be answered by one of `choices`. The first is taken where nobody
    /// can be asked.
    #[must_use]
    pub fn with_question(mut self, choices: impl IntoIterator<Item = Choice>) -> Self {
        self.questions.push(choices.into_iter().collect());
        self
    }

    /// Says this after the run, such as where its effects can be seen.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.note = Some(note.into());
        self
    }
}

/// One way to answer a question.
#[derive(Clone, Debug, PartialEq)]
pub struct Choice {
    pub(crate) key: char,
    pub(crate) label: String,
    pub(crate) answer: Answer,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Answer {
    /// This value.
    Value(Value),
    /// An object with the text under this field; the question's own text under `from` is the
    /// text to begin with.
    Text { field: String, from: String },
}

impl Choice {
    /// Answers with `answer`; `key` is what a person types.
    pub fn new(key: char, label: impl Into<String>, answer: Value) -> Self {
        Self {
            key,
            label: label.into(),
            answer: Answer::Value(answer),
        }
    }

    /// Answers with an object whose `field` is a text that the person types. Where nobody can
    /// be asked it is the text that the question holds under `from`.
    pub fn text(
        key: char,
        label: impl Into<String>,
        field: impl Into<String>,
        from: impl Into<String>,
    ) -> Self {
        Self {
            key,
            label: label.into(),
            answer: Answer::Text {
                field: field.into(),
                from: from.into(),
            },
        }
    }

    /// The answer to `question` without asking anyone.
    pub(crate) fn unasked(&self, question: &Value) -> Value {
        match &self.answer {
            Answer::Value(value) => value.clone(),
            Answer::Text { field, from } => {
                let text = question.get(from).cloned().unwrap_or(Value::Null);
                Value::Object(Map::from_iter([(field.clone(), text)]))
            }
        }
    }
}
