//! The arguments of every subcommand, as clap reads them.
//!
//! Only their shape and help; what they mean is checked where they are used. Settings are read
//! as text, as they also come from the environment and a file. Each subcommand's help ends with
//! examples that can be copied.
//!
//! The rule it keeps: a flag that is a setting has the setting's name.

mod bench;
mod settings;

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use serde_json::Value;
use superstep_protocol::Strategy;

pub(crate) use bench::{BenchArgs, BenchCommand, BenchWorkerArgs, LimitArgs, LoadArgs};
pub(crate) use settings::{GlobalArgs, WorkerArgs, WorkerSettingsOnly};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "superstep",
    version,
    about = "Durable graphs with people in the loop, on NATS and Redis",
    disable_help_subcommand = true,
    after_help = AFTER_HELP
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: GlobalArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  superstep demo                                  see it run, nothing needed
  superstep dev                                   worker and store in this process
  superstep --data .superstep start email '{\"topic\": \"our delay\"}' --wait
  superstep --nats-url nats://n1:4222 --redis-url redis://r1:6379 worker

Settings:
  A flag counts over a variable, a variable over the file. --nats-url is SUPERSTEP_NATS_URL in
  the environment and nats_url in the file (superstep.toml, or the one that --config or
  SUPERSTEP_CONFIG names). --help of a subcommand lists all flags, -h the most used ones.

Exit codes:
    0  done; also a run that stopped at a question
    1  the operation failed, a run ended in an error, or `doctor`, `verify` or `bench` found
       something
    2  wrong arguments or settings, or credentials that a server refuses
    3  refused: nothing was changed, the message says why
    4  a server could not be reached, or cannot take it now
    5  what was waited for did not come in time; it may still come
    6  a worker handed back unfinished deliveries when it ended
  130  stopped from the keyboard";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a graph here and now: it asks, is answered, finishes, and shows its checkpoints
    Demo(DemoArgs),
    /// Run a worker with an embedded store in this process; the data folder is kept
    Dev(DevArgs),
    /// Run a worker of a cluster: pull from NATS, keep threads in Redis
    Worker(WorkerArgs),
    /// Start a run of a graph
    Start(StartArgs),
    /// Answer a question that a thread asks
    Resume(ResumeArgs),
    /// Give up what runs or waits on a thread
    Cancel(CancelArgs),
    /// Change a thread's state from outside, as if a node had returned it
    Update(UpdateArgs),
    /// Try again what failed or was cancelled on a thread
    Retry(RetryArgs),
    /// Follow what happens: runs, questions, answers
    Events(EventsArgs),
    /// Look at threads, their state and history
    #[command(subcommand, after_help = THREADS_HELP)]
    Threads(ThreadsCommand),
    /// Look at the questions that wait for an answer
    #[command(subcommand, after_help = INTERRUPTS_HELP)]
    Interrupts(InterruptsCommand),
    /// Look at graphs
    #[command(subcommand, after_help = GRAPH_HELP)]
    Graph(GraphCommand),
    /// Check the servers and what of them superstep relies on, and say what to fix
    #[command(after_help = "\
Examples:
  superstep doctor
  superstep --nats-url tls://n1:4222 --redis-url rediss://r1:6379 doctor
  superstep --data .superstep --json doctor | jq '.findings[] | select(.ok | not)'")]
    Doctor,
    /// Ask the health endpoint of a worker on this machine
    Probe(ProbeArgs),
    /// Read all that the store holds and check that it is as superstep writes it
    Verify(VerifyArgs),
    /// Put load on NATS and Redis, measure it, and check that every run ended right, once
    Bench(BenchArgs),
    /// A worker of a load, in a process of its own
    #[command(hide = true)]
    BenchWorker(BenchWorkerArgs),
}

/// Arguments of `probe`.
#[derive(Debug, Args)]
#[command(after_help = "\
It ends with 0 for a yes, 1 for a no with its reasons, 4 if nothing answers.

Examples:
  superstep probe
  superstep probe live --health-addr 127.0.0.1:8080")]
pub(crate) struct ProbeArgs {
    /// Which probe
    #[arg(value_enum, default_value_t = ProbeName::Ready)]
    pub(crate) probe: ProbeName,
    /// Where the worker answers; one that listens everywhere is asked on loopback
    #[arg(long, value_name = "ADDR")]
    pub(crate) health_addr: Option<String>,
}

/// The probes of a worker.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ProbeName {
    /// Whether it has begun
    Startup,
    /// Whether it takes work
    Ready,
    /// Whether it makes progress
    Live,
}

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
It is safe beside workers: what looks wrong is read again, and only what stays wrong counts.

Examples:
  superstep verify
  superstep verify --thread order-42
  superstep verify --repair
  superstep --data .superstep --json verify | jq 'select(.check)'")]
pub(crate) struct VerifyArgs {
    /// Only this thread
    #[arg(long, value_name = "ID")]
    pub(crate) thread: Option<String>,
    /// Rebuild the lists, timers and other hints that are wrong; records are never touched
    #[arg(long)]
    pub(crate) repair: bool,
}

/// Arguments of `demo`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep demo
  superstep demo email --answer '{\"approved\": false}'
  superstep demo multi --answer '{\"edited_draft\": \"b\"}' --answer '{\"approved_draft\": \"c\"}'
  superstep --json demo | jq .values")]
pub(crate) struct DemoArgs {
    /// The graph; the first example if left out
    pub(crate) graph: Option<String>,
    /// The graph's input: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    pub(crate) input: Option<String>,
    /// An answer, in the order of the questions: JSON, @FILE, or - for standard input
    #[arg(long, value_name = "JSON")]
    pub(crate) answer: Vec<String>,
}

/// Arguments of `dev`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep dev
  superstep --data /var/lib/superstep dev
  superstep dev --log debug")]
pub(crate) struct DevArgs {
    #[command(flatten)]
    pub(crate) worker: WorkerSettingsOnly,
}

/// How a command is sent and waited for.
#[derive(Debug, Args)]
pub(crate) struct SendArgs {
    /// The command's id: the same one again is the same command, and gets the same outcome
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<String>,
    /// How long to wait for the outcome [default: 10s], or with --wait for the run [default: 10m]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Option<Duration>,
}

fn time(text: &str) -> Result<Duration, String> {
    crate::settings::duration(text)
}

/// Arguments of `start`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep start basic '{\"draft\": \"hello\"}'
  superstep start email @input.json --thread order-42 --wait
  superstep start email --thread order-42 --checkpoint 01957f2e-6a3b-7c1d-8e4f-0123456789ab --interrupt-before send_reply,log
  echo '{\"topic\": \"delay\"}' | superstep start email - --id nightly-2026-11-22
  superstep start conditional '{\"confidence\": 0.5}' --recursion-limit 50 --metadata '{\"team\": \"a\"}'")]
pub(crate) struct StartArgs {
    /// The graph
    pub(crate) graph: String,
    /// The input: JSON, @FILE, or - for standard input; without it what the thread has left goes on
    #[arg(value_name = "JSON")]
    pub(crate) input: Option<String>,
    /// The thread; a new one if left out
    #[arg(long, value_name = "ID")]
    pub(crate) thread: Option<String>,
    /// The run's id; a new one if left out
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Only this version of the graph
    #[arg(long, value_name = "VERSION")]
    pub(crate) graph_version: Option<String>,
    /// At most so many supersteps [default: 25]
    #[arg(long, value_name = "N")]
    pub(crate) recursion_limit: Option<u32>,
    /// Values that nodes may read: a JSON object
    #[arg(long, value_name = "JSON")]
    pub(crate) configurable: Option<String>,
    /// What is to be found again with the thread: a JSON object
    #[arg(long, value_name = "JSON")]
    pub(crate) metadata: Option<String>,
    /// Go on from this checkpoint instead of the last one; what follows is a branch
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) checkpoint: Option<String>,
    /// If a run of the thread is not over: enqueue [default], reject, interrupt or rollback
    #[arg(long, value_name = "WORD")]
    pub(crate) strategy: Option<Strategy>,
    /// Begin so many seconds from now, not before
    #[arg(long, value_name = "SECONDS")]
    pub(crate) after: Option<u32>,
    #[command(flatten)]
    pub(crate) stops: StopArgs,
    /// Wait until the run ends or asks
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) send: SendArgs,
}

/// Where a run stops, beside where its graph asks.
#[derive(Debug, Args)]
pub(crate) struct StopArgs {
    /// Stop before these nodes, instead of where the graph says: names with commas, or '*'
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    interrupt_before: Option<Vec<String>>,
    /// Stop after these nodes, instead of where the graph says: names with commas, or '*'
    #[arg(long, value_name = "NODES", value_delimiter = ',')]
    interrupt_after: Option<Vec<String>>,
}

impl StopArgs {
    /// The `interrupt_before` of a command.
    pub(crate) fn before(&self) -> Option<Value> {
        nodes(self.interrupt_before.as_deref())
    }

    /// The `interrupt_after` of a command.
    pub(crate) fn after(&self) -> Option<Value> {
        nodes(self.interrupt_after.as_deref())
    }
}

fn nodes(names: Option<&[String]>) -> Option<Value> {
    match names? {
        [all] if all == "*" => Some(Value::from("*")),
        names => Some(Value::from(names)),
    }
}

/// Arguments of `resume`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep resume order-42 '{\"approved\": true}'
  superstep resume order-42 '{\"edited_draft\": \"Dear Ada\"}' --wait
  superstep resume order-42 @answer.json --interrupt 0123456789abcdef0123456789abcdef
  superstep resume order-42 '{\"0123456789abcdef0123456789abcdef\": \"yes\"}'
  superstep resume order-42 --update '{\"draft\": \"Dear Ada\"}' --goto send_reply --wait")]
pub(crate) struct ResumeArgs {
    /// The thread
    pub(crate) thread: String,
    /// The answer: JSON, @FILE, or - for standard input; or an object of answers by interrupt id
    #[arg(value_name = "JSON", required_unless_present_any = ["update", "goto", "checkpoint"])]
    pub(crate) answer: Option<String>,
    /// The question that is answered; if left out, the only one that is open
    #[arg(long, value_name = "ID", requires = "answer")]
    pub(crate) interrupt: Option<String>,
    /// Change the state before it goes on: an object by key
    #[arg(long, value_name = "JSON")]
    pub(crate) update: Option<String>,
    /// Run this node too, beside what waits; or a packet as JSON, {"node": ..., "input": ...}
    #[arg(long, value_name = "NODE")]
    pub(crate) goto: Vec<String>,
    /// At most so many supersteps [default: as the run before]
    #[arg(long, value_name = "N")]
    pub(crate) recursion_limit: Option<u32>,
    /// Go on from this checkpoint instead of the last one; what follows is a branch
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) checkpoint: Option<String>,
    #[command(flatten)]
    pub(crate) stops: StopArgs,
    /// Wait until the run ends or asks again
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) send: SendArgs,
}

/// Arguments of `cancel`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep cancel order-42
  superstep cancel order-42 --reason 'ordered twice'")]
pub(crate) struct CancelArgs {
    /// The thread
    pub(crate) thread: String,
    /// Why, for people
    #[arg(long, value_name = "TEXT")]
    pub(crate) reason: Option<String>,
    /// Only this run: the one under way, or one that waits for its turn; all of them if left out
    #[arg(long, value_name = "ID")]
    pub(crate) run: Option<String>,
    /// Undo what the run under way did
    #[arg(long)]
    pub(crate) rollback: bool,
    #[command(flatten)]
    pub(crate) send: SendArgs,
}

/// Arguments of `update`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep update order-42 '{\"draft\": \"Dear Ada\"}' --as-node draft_email
  superstep update order-42 @values.json
  superstep update order-42 '{\"draft\": \"\"}' --checkpoint 01957f2e-6a3b-7c1d-8e4f-0123456789ab")]
pub(crate) struct UpdateArgs {
    /// The thread
    pub(crate) thread: String,
    /// The values, an object by key: JSON, @FILE, or - for standard input
    #[arg(value_name = "JSON")]
    pub(crate) values: String,
    /// The node that is taken to have written them; the one that wrote last if left out
    #[arg(long, value_name = "NODE")]
    pub(crate) as_node: Option<String>,
    /// Update this checkpoint instead of the last one; what follows is a branch
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) checkpoint: Option<String>,
    /// Make the thread, of this graph, if it is not there
    #[arg(long, value_name = "NAME")]
    pub(crate) graph: Option<String>,
    #[command(flatten)]
    pub(crate) send: SendArgs,
}

/// Arguments of `retry`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep retry order-42
  superstep retry order-42 --wait --timeout 2m
  superstep threads retry order-42 --from 01957f2e-6a3b-7c1d-8e4f-0123456789ab")]
pub(crate) struct RetryArgs {
    /// The thread
    pub(crate) thread: String,
    /// Run again from this checkpoint, finished tasks too; what follows is a branch
    #[arg(long, value_name = "CHECKPOINT")]
    pub(crate) from: Option<String>,
    /// At most so many supersteps [default: as the run before]
    #[arg(long, value_name = "N")]
    pub(crate) recursion_limit: Option<u32>,
    /// Wait until the run ends or asks
    #[arg(long)]
    pub(crate) wait: bool,
    #[command(flatten)]
    pub(crate) send: SendArgs,
}

/// Arguments of `events`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  superstep events
  superstep events --kind interrupt
  superstep --json events --thread order-42 --from-start
  superstep events --kind run_completed --count 1 --timeout 1m")]
pub(crate) struct EventsArgs {
    /// Only this kind, such as interrupt or run_completed
    #[arg(long, value_name = "KIND")]
    pub(crate) kind: Option<String>,
    /// Only this graph
    #[arg(long, value_name = "NAME")]
    pub(crate) graph: Option<String>,
    /// Only this thread
    #[arg(long, value_name = "ID")]
    pub(crate) thread: Option<String>,
    /// Also what the stream still holds from before
    #[arg(long)]
    pub(crate) from_start: bool,
    /// End after so many events
    #[arg(long, value_name = "N")]
    pub(crate) count: Option<u64>,
    /// End after this time [default: never]
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub(crate) timeout: Option<Duration>,
}

const THREADS_HELP: &str = "\
Examples:
  superstep threads list --status interrupted
  superstep threads get order-42
  superstep threads history order-42
  superstep threads delete order-42";

#[derive(Debug, Subcommand)]
pub(crate) enum ThreadsCommand {
    /// List threads, the last changed first
    #[command(after_help = "\
Examples:
  superstep threads list
  superstep threads list --status error --graph email
  superstep --json threads list --limit 1000 | jq -r '.threads[].thread_id'")]
    List {
        /// Only this status: idle, busy, interrupted or error
        #[arg(long, value_name = "STATUS")]
        status: Option<String>,
        /// Only this graph
        #[arg(long, value_name = "NAME")]
        graph: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show a thread: its values, what is next, what it asks
    #[command(after_help = "\
Examples:
  superstep threads get order-42
  superstep --json threads get order-42 | jq .values")]
    Get {
        /// The thread
        thread: String,
    },
    /// Show a thread's checkpoints as a timeline
    #[command(after_help = "\
Examples:
  superstep threads history order-42
  superstep threads history order-42 --limit 5
  superstep --json threads history order-42 | jq '.history[0].values'")]
    History {
        /// The thread
        thread: String,
        /// At most so many checkpoints, the newest
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// Only those before this checkpoint
        #[arg(long, value_name = "CHECKPOINT")]
        before: Option<String>,
    },
    /// Delete a thread and all it holds
    #[command(after_help = "\
Examples:
  superstep threads delete order-42")]
    Delete {
        /// The thread
        thread: String,
    },
    /// Try again what failed or was cancelled; the same as `retry`
    Retry(RetryArgs),
}

/// Which page of a list.
#[derive(Debug, Args)]
pub(crate) struct PageArgs {
    /// At most so many rows
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub(crate) limit: u16,
    /// Go on where the page before ended
    #[arg(long, value_name = "CURSOR")]
    pub(crate) after: Option<String>,
}

const INTERRUPTS_HELP: &str = "\
Examples:
  superstep interrupts list
  superstep interrupts show 0123456789abcdef0123456789abcdef";

#[derive(Debug, Subcommand)]
pub(crate) enum InterruptsCommand {
    /// List open questions, the oldest first
    #[command(after_help = "\
Examples:
  superstep interrupts list
  superstep interrupts list --thread order-42
  superstep --json interrupts list | jq '.interrupts[0].value'")]
    List {
        /// Only this thread
        #[arg(long, value_name = "ID")]
        thread: Option<String>,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Show an open question
    #[command(after_help = "\
Examples:
  superstep interrupts show 0123456789abcdef0123456789abcdef
  superstep interrupts show order-42")]
    Show {
        /// The question's id, or the thread that asks
        #[arg(value_name = "INTERRUPT|THREAD")]
        id: String,
    },
}

const GRAPH_HELP: &str = "\
Examples:
  superstep graph list
  superstep graph draw email > email.mmd";

#[derive(Debug, Subcommand)]
pub(crate) enum GraphCommand {
    /// List the graphs of this program, or those that workers registered
    #[command(after_help = "\
Examples:
  superstep graph list
  superstep graph list --registered")]
    List {
        /// Those that workers registered
        #[arg(long)]
        registered: bool,
    },
    /// Draw a graph as Mermaid text
    #[command(after_help = "\
Examples:
  superstep graph draw email
  superstep graph draw email --registered > email.mmd")]
    Draw {
        /// The graph
        graph: String,
        /// As workers registered it
        #[arg(long)]
        registered: bool,
    },
}
