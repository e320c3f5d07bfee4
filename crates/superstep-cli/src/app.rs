//! The program: graphs and examples in, an exit code out.
//!
//! It reads the arguments, starts the runtime and hands over to the subcommand. What a
//! subcommand does is left to [`crate::commands`].

use std::{ffi::OsString, process::ExitCode};

use clap::Parser as _;
use superstep_worker::{Graphs, RunnableGraph};

use crate::{
    args::{Cli, Command},
    commands,
    example::Example,
    exit::{Exit, Failure},
    output::Output,
};

/// Runs the command line of this process with `graphs`.
///
/// ```no_run
/// # use superstep_cli::RunnableGraph;
/// # fn my_graphs() -> Vec<RunnableGraph> { Vec::new() }
/// fn main() -> std::process::ExitCode {
///     superstep_cli::main(my_graphs())
/// }
/// ```
pub fn main<G: Into<RunnableGraph>>(graphs: impl IntoIterator<Item = G>) -> ExitCode {
    App::new(graphs).main()
}

/// The command line with graphs of one's own.
#[derive(Clone, Debug, Default)]
pub struct App {
    graphs: Graphs,
    demo_graphs: Option<Graphs>,
    examples: Vec<Example>,
}

impl App {
    /// A command line that holds `graphs`.
    pub fn new<G: Into<RunnableGraph>>(graphs: impl IntoIterator<Item = G>) -> Self {
        Self {
            graphs: collect(graphs),
            demo_graphs: None,
            examples: Vec::new(),
        }
    }

    /// Runs these in `demo`, such as the same ones with outside effects that harm nobody.
    #[must_use]
    pub fn with_demo_graphs<G: Into<RunnableGraph>>(
        mut self,
        graphs: impl IntoIterator<Item = G>,
    ) -> Self {
        self.demo_graphs = Some(collect(graphs));
        self
    }

    /// Lets `demo` run this example; the first one is the default.
    #[must_use]
    pub fn with_example(mut self, example: Example) -> Self {
        self.examples.push(example);
        self
    }

    /// Runs the arguments of this process.
    pub fn main(&self) -> ExitCode {
        self.run(std::env::args_os()).into()
    }

    /// Runs `args`, of which the first is the program's name.
    pub fn run(&self, args: impl IntoIterator<Item = OsString>) -> Exit {
        let cli = match Cli::try_parse_from(args) {
            Ok(cli) => cli,
            Err(error) => {
                // Help and version come this way too; clap knows which stream they go to.
                let _ = error.print();
                return if error.use_stderr() {
                    Exit::Usage
                } else {
                    Exit::Done
                };
            }
        };
        let output = Output::new(cli.global.json);
        match self.dispatch(cli, output) {
            Ok(exit) => exit,
            Err(failure) => {
                output.failure(&failure);
                failure.exit
            }
        }
    }

    fn dispatch(&self, cli: Cli, output: Output) -> Result<Exit, Failure> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .map_err(|error| Failure::failed(format!("the runtime did not start: {error}")))?;
        match cli.command {
            Command::Demo(args) => runtime.block_on(commands::demo::run(self, args, output)),
        }
    }

    pub(crate) fn graphs(&self) -> &Graphs {
        &self.graphs
    }

    pub(crate) fn demo_graphs(&self) -> &Graphs {
        self.demo_graphs.as_ref().unwrap_or(&self.graphs)
    }

    pub(crate) fn examples(&self) -> &[Example] {
        &self.examples
    }

    pub(crate) fn example(&self, graph: &str) -> Option<&Example> {
        self.examples.iter().find(|example| example.graph == graph)
    }
}

fn collect<G: Into<RunnableGraph>>(graphs: impl IntoIterator<Item = G>) -> Graphs {
    let mut all = Graphs::new();
    for graph in graphs {
        all.add(graph.into());
    }
    all
}
