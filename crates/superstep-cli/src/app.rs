//! The program: graphs and examples in, an exit code out.
//!
//! It reads the arguments, starts the runtime and hands over to the subcommand. What a
//! subcommand does is left to [`crate::commands`].

use std::{ffi::OsString, path::Path, process::ExitCode};

use clap::{CommandFactory as _, FromArgMatches as _};
use superstep_worker::{Graphs, RunnableGraph};
use tracing::{info, warn};

use crate::{
    args::{Cli, Command, DevArgs, GraphCommand, WorkerArgs},
    commands,
    example::Example,
    exit::{Exit, Failure},
    logging,
    output::Output,
    reach::Session,
    settings::Layers,
    telemetry::Telemetry,
};

/// What the program is called in its help's examples.
const OWN_NAME: &str = "superstep";

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
        let args: Vec<OsString> = args.into_iter().collect();
        let mut command = named(Cli::command(), args.first());
        let matches = command.try_get_matches_from_mut(args);
        let cli = match matches.and_then(|matches| Cli::from_arg_matches(&matches)) {
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
        let Cli { global, command } = cli;
        // What needs no server needs no settings either.
        let command = match command {
            Command::Demo(args) => {
                return block_on(Runtime::Small, commands::demo::run(self, args, output));
            }
            Command::Graph(
                command @ (GraphCommand::List { registered: false }
                | GraphCommand::Draw {
                    registered: false, ..
                }),
            ) => return commands::graph::own(self, &command, output),
            command => command,
        };
        let mut flags = global.settings();
        let (runtime, filter) = match &command {
            Command::Dev(DevArgs { worker }) | Command::Worker(WorkerArgs { worker }) => {
                flags.extend(worker.settings());
                (Runtime::Large, "info,async_nats=warn")
            }
            Command::Probe(args) => {
                flags.push(("health_addr", args.health_addr.clone()));
                (Runtime::Small, "error")
            }
            Command::Bench(_) | Command::BenchWorker(_) => (Runtime::Large, "error"),
            _ => (Runtime::Small, "error"),
        };
        let settings = Layers::read(global.connect.config.as_deref(), flags)?.check()?;
        let telemetry = match command {
            Command::Worker(_) => Telemetry::from_environment("nats"),
            Command::Dev(_) => Telemetry::from_environment("superstep"),
            _ => Ok(None),
        };
        let (telemetry, wrong) = match telemetry {
            Ok(telemetry) => (telemetry, None),
            Err(wrong) => (None, Some(wrong)),
        };
        logging::start(&settings.logging, filter, telemetry.as_ref());
        if telemetry.is_some() {
            info!("spans are exported");
        }
        if let Some(wrong) = wrong {
            // What tells of the work is no reason not to do it.
            warn!("no traces are exported: {wrong}");
        }
        let session = Session {
            settings,
            output,
            telemetry,
        };
        block_on(runtime, self.command(command, &session))
    }

    async fn command(&self, command: Command, session: &Session) -> Result<Exit, Failure> {
        match command {
            Command::Demo(args) => commands::demo::run(self, args, session.output).await,
            Command::Dev(_) => commands::run::dev(self, session).await,
            Command::Worker(_) => commands::run::worker(self, session).await,
            Command::Start(args) => commands::send::start(session, args).await,
            Command::Resume(args) => commands::send::resume(session, args).await,
            Command::Cancel(args) => commands::send::cancel(session, args).await,
            Command::Update(args) => commands::send::update(session, args).await,
            Command::Retry(args) => commands::send::retry(session, args).await,
            Command::Events(args) => commands::events::run(session, args).await,
            Command::Threads(command) => commands::threads::run(session, command).await,
            Command::Interrupts(command) => commands::interrupts::run(session, command).await,
            Command::Graph(command) => commands::graph::registered(session, &command).await,
            Command::Doctor => commands::doctor::run(session).await,
            Command::Probe(args) => commands::probe::run(session, args).await,
            Command::Verify(args) => commands::verify::run(session, args).await,
            Command::Bench(args) => commands::bench::run(session, args).await,
            Command::BenchWorker(args) => commands::bench::worker(session, &args).await,
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

/// The command line with the name that the program goes by in its examples too.
fn named(command: clap::Command, program: Option<&OsString>) -> clap::Command {
    let name = program
        .and_then(|program| Path::new(program).file_stem())
        .map(|name| name.to_string_lossy().into_owned());
    match name {
        Some(name) if name != OWN_NAME => renamed(command, &format!("{name} ")),
        _ => command,
    }
}

fn renamed(mut command: clap::Command, name: &str) -> clap::Command {
    if let Some(help) = command.get_after_help() {
        let help = help.to_string().replace(&format!("{OWN_NAME} "), name);
        command = command.after_help(help);
    }
    command.mut_subcommands(|below| renamed(below, name))
}

/// What a subcommand runs on.
#[derive(Clone, Copy, Debug)]
enum Runtime {
    /// One OS thread: it only waits for servers.
    Small,
    /// All cores: it runs nodes.
    Large,
}

fn block_on(
    runtime: Runtime,
    command: impl Future<Output = Result<Exit, Failure>>,
) -> Result<Exit, Failure> {
    let mut builder = match runtime {
        Runtime::Small => tokio::runtime::Builder::new_current_thread(),
        Runtime::Large => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = builder
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("the runtime did not start: {error}")))?;
    let ended = runtime.block_on(Box::pin(command));
    // A node that blocks its OS thread must not keep the process.
    runtime.shutdown_background();
    ended
}
