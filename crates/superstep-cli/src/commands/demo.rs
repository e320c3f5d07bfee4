//! `demo`: a graph runs, asks, is answered, finishes and shows its checkpoints, in memory.
//!
//! No server, no file, no question on set-up. It runs the embedded mode on a log in memory, so
//! nothing is left afterwards but what the graph's own nodes did. The answers come from
//! `--answer`, else from the person at the terminal, else from the graph's example.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Map, Value, json};
use superstep_checkpoint::memory::MemoryLog;
use superstep_protocol::{RunStatus, ThreadId};
use superstep_worker::{
    CheckpointView, InterruptView, Local, RunOptions, RunOutput, RunnableGraph, SystemWorld,
    WorkerSettings, answers,
};

use crate::{
    app::App,
    args::DemoArgs,
    example::Example,
    exit::{Exit, Failure},
    json_arg,
    output::{ASKS, BAD, BOLD, DIM, GOOD, Output},
    prompt,
    timeline::{Columns, timeline},
};

/// The most checkpoints that the timeline shows.
const CHECKPOINTS_MAX: usize = 1_000;

pub(crate) async fn run(app: &App, args: DemoArgs, output: Output) -> Result<Exit, Failure> {
    let graph = pick(app, args.graph.as_deref())?;
    let example = app.example(graph.id().name.as_str());
    let input = match (&args.input, example) {
        (Some(text), _) => json_arg::read("--input", text)?,
        (None, Some(example)) => example.input.clone(),
        (None, None) => Value::Object(Map::new()),
    };
    let mut given = VecDeque::new();
    for text in &args.answer {
        given.push_back(json_arg::read("--answer", text)?);
    }
    let mut demo = Demo {
        local: Local::new(
            app.demo_graphs().clone(),
            Arc::new(MemoryLog::new()),
            Arc::new(SystemWorld),
            WorkerSettings::default(),
        ),
        thread: ThreadId::new("demo"),
        output,
        given,
        example,
        asked: 0,
        said: Vec::new(),
    };
    demo.play(graph, input).await
}

/// The graph that was asked for, or the one with an example, or the only one.
fn pick<'a>(app: &'a App, name: Option<&str>) -> Result<&'a RunnableGraph, Failure> {
    let graphs = app.demo_graphs();
    let names = || {
        let names: Vec<&str> = graphs
            .iter()
            .map(|graph| graph.id().name.as_str())
            .collect();
        names.join(", ")
    };
    let name = match name {
        Some(name) => name,
        None => app
            .examples()
            .first()
            .map(|example| example.graph.as_str())
            .or_else(|| graphs.iter().next().map(|graph| graph.id().name.as_str()))
            .ok_or_else(|| Failure::usage("this program holds no graph; register one"))?,
    };
    graphs.by_name(name).map(AsRef::as_ref).ok_or_else(|| {
        Failure::usage(format!("there is no graph `{name}`"))
            .with_hint(format!("choose one of: {}", names()))
    })
}

struct Demo<'a> {
    local: Local,
    thread: ThreadId,
    output: Output,
    /// Answers of the command line that were not used yet.
    given: VecDeque<Value>,
    example: Option<&'a Example>,
    /// How many questions were answered.
    asked: usize,
    /// Questions and their answers, for machines.
    said: Vec<Value>,
}

impl Demo<'_> {
    async fn play(&mut self, graph: &RunnableGraph, input: Value) -> Result<Exit, Failure> {
        let output = self.output;
        output.line(format!(
            "{BOLD}graph {}{BOLD:#}  {DIM}{}{DIM:#}",
            graph.id(),
            graph.description()
        ))?;
        output.line(format!(
            "{DIM}everything in this process, checkpoints in memory: no server{DIM:#}"
        ))?;
        output.line("")?;
        output.line(format!("{BOLD}start{BOLD:#}  input {input}"))?;
        let thread = self.thread.clone();
        let options = RunOptions::default();
        let mut ran = self
            .local
            .invoke(graph.id(), &thread, input, options)
            .await?;
        while let Some(question) = ran.interrupts.first() {
            let answer = self.answer(question)?;
            self.said
                .push(json!({"interrupt": question, "resume": answer}));
            let answers = answers(answer, Some(question.id.clone()));
            ran = self.local.resume(&thread, answers).await?;
        }
        let history = self.local.history(&thread, CHECKPOINTS_MAX).await?;
        self.end(graph, &ran, &history)
    }

    /// Shows what is asked and gives an answer.
    fn answer(&mut self, question: &InterruptView) -> Result<Value, Failure> {
        let output = self.output;
        output.line("")?;
        output.line(format!(
            "{ASKS}interrupt{ASKS:#}  {DIM}the thread waits; it would wait for months, at no cost{DIM:#}"
        ))?;
        output.fields(&question.value)?;
        let choices = self.example.map_or(&[][..], |example| {
            let questions = &example.questions;
            let last = questions.len().saturating_sub(1);
            questions
                .get(self.asked.min(last))
                .map_or(&[][..], Vec::as_slice)
        });
        self.asked += 1;
        if let Some(answer) = self.given.pop_front() {
            output.line(format!("{BOLD}resume{BOLD:#}  {answer}"))?;
            return Ok(answer);
        }
        if output.can_ask() {
            let answer = prompt::ask(output, &question.value, choices)?;
            output.line(format!("{BOLD}resume{BOLD:#}  {answer}"))?;
            return Ok(answer);
        }
        let Some(choice) = choices.first() else {
            return Err(Failure::usage(format!(
                "the graph asks {} and nobody can be asked here",
                question.value
            ))
            .with_hint("give an answer for each question: --answer '{\"approved\": true}'"));
        };
        let answer = choice.unasked(&question.value);
        output.line(format!(
            "{BOLD}resume{BOLD:#}  {answer}  {DIM}(not a terminal, so: {}; choose with --answer JSON){DIM:#}",
            choice.label
        ))?;
        Ok(answer)
    }

    fn end(
        &self,
        graph: &RunnableGraph,
        ran: &RunOutput,
        history: &[CheckpointView],
    ) -> Result<Exit, Failure> {
        let output = self.output;
        output.line("")?;
        let exit = match (&ran.error, ran.status) {
            (Some(error), _) => {
                output.line(format!(
                    "{BAD}failed{BAD:#}  {}: {}",
                    error.kind, error.message
                ))?;
                Exit::Failed
            }
            (None, RunStatus::Success) => {
                output.line(format!("{GOOD}finished{GOOD:#}"))?;
                Exit::Done
            }
            (None, status) => {
                output.line(format!("{BAD}{status}{BAD:#}"))?;
                Exit::Failed
            }
        };
        output.fields(&Value::Object(ran.values.clone()))?;
        output.line("")?;
        output.line(format!(
            "{BOLD}checkpoints{BOLD:#}  {DIM}one for each superstep, oldest first{DIM:#}"
        ))?;
        output.table(&mut timeline(history, None, Columns::Story))?;
        if let (Exit::Done, Some(note)) = (exit, self.example.and_then(|e| e.note.as_ref())) {
            output.line("")?;
            output.line(format!("{DIM}{note}{DIM:#}"))?;
        }
        if !self.given.is_empty() {
            output.note(format!(
                "{} answer(s) were left over: the graph asked no more",
                self.given.len()
            ));
        }
        output.value(&json!({
            "graph": graph.id().name,
            "graph_version": graph.id().version,
            "thread_id": self.thread,
            "run_id": ran.run,
            "status": ran.status,
            "error": ran.error,
            "answers": self.said,
            "values": ran.values,
            "history": history,
        }))?;
        Ok(exit)
    }
}
