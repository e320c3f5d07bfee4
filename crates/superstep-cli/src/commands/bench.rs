//! `bench`: load on NATS and Redis, measured, with a verdict; `bench limit`: beside the least.
//!
//! Here is which servers, which measurements in which order, and what comes of a verdict. How a
//! load is driven and counted is left to [`crate::bench`].
//!
//! The rule it keeps: whatever a measurement made is taken away before the next one begins, also
//! when it is stopped from the keyboard.

use std::time::Duration;

use superstep::connect::ConnectSettings;
use superstep_worker::{Graphs, WorkerSettings};
use tokio_util::sync::CancellationToken;

use crate::{
    args::{BenchArgs, BenchCommand, BenchWorkerArgs, LimitArgs, LoadArgs},
    bench::{
        bare::{Dispatch, bare},
        drive::{Driven, Load, drive},
        parts::{self, Meters, Part},
        place::Place,
        progress::{Progress, per_second},
        report::{self, Compared, FORMAT, LoadUsed, Machine, Measured, Report, ServersUsed},
        scenario::{Scenario, Size},
        servers::{Fsync, PrivateServers},
        window::{Span, Window},
        workers::{Crew, Workers, work_until_input_ends},
    },
    commands::run::Signals,
    exit::{Exit, Failure},
    output::Output,
    reach::Session,
    settings,
};

/// The most runs of one measurement that is bounded by time.
const RUNS_MAX: u64 = 200_000;
/// How long `bench` measures unless told, and how long it warms up before.
const LOAD: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(2));
/// The same of `bench limit`, each time.
const LIMIT: (Duration, Duration) = (Duration::from_secs(3), Duration::from_secs(1));
/// How long runs may take to end once no more are begun.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) async fn run(session: &Session, args: BenchArgs) -> Result<Exit, Failure> {
    match args.command {
        None => load(session, args.load).await,
        Some(BenchCommand::Limit(args)) => limit(session, args).await,
    }
}

/// A worker in a process of its own.
pub(crate) async fn worker(session: &Session, args: &BenchWorkerArgs) -> Result<Exit, Failure> {
    let mut graphs = Graphs::new();
    for scenario in Scenario::ALL {
        graphs.add(scenario.graph());
    }
    let worker = WorkerSettings {
        concurrency: args.concurrency,
        run_ahead_supersteps: args.run_ahead,
        ..WorkerSettings::default()
    };
    work_until_input_ends(session.settings.connect.clone(), graphs, worker).await
}

async fn load(session: &Session, args: LoadArgs) -> Result<Exit, Failure> {
    let bench = Bench::new(session, args, LOAD).await?;
    let dispatch = bench.args.dispatch.unwrap_or(Dispatch::RunAhead);
    let mut results = Vec::new();
    for scenario in bench.scenarios() {
        let what = format!("{}, {} threads", scenario.name(), bench.args.threads);
        results.push(bench.superstep(scenario, dispatch, what).await?);
    }
    let ok = results.iter().all(is_right);
    report::tell(session.output, &results)?;
    session
        .output
        .value(&bench.report("bench", ok, None, results))?;
    Ok(if ok { Exit::Done } else { Exit::Failed })
}

async fn limit(session: &Session, args: LimitArgs) -> Result<Exit, Failure> {
    let bench = Bench::new(session, args.load, LIMIT).await?;
    let dispatches = match bench.args.dispatch {
        Some(dispatch) => vec![dispatch],
        None => vec![Dispatch::RunAhead, Dispatch::Full],
    };
    let mut cases = Vec::new();
    for scenario in bench.scenarios() {
        for dispatch in &dispatches {
            cases.push((scenario, *dispatch, Vec::new()));
        }
    }
    for round in 0..args.rounds {
        for (scenario, dispatch, rounds) in &mut cases {
            let what = |who| {
                format!(
                    "round {} of {}, {}, {who}",
                    round + 1,
                    args.rounds,
                    scenario.name()
                )
            };
            // Neither is always the one that finds the servers as the other left them.
            let (superstep, limit) = if round % 2 == 0 {
                let limit = bench.bare(*scenario, *dispatch, what("limit")).await?;
                (
                    bench
                        .superstep(*scenario, *dispatch, what("superstep"))
                        .await?,
                    limit,
                )
            } else {
                let superstep = bench
                    .superstep(*scenario, *dispatch, what("superstep"))
                    .await?;
                (
                    superstep,
                    bench.bare(*scenario, *dispatch, what("limit")).await?,
                )
            };
            rounds.push((superstep, limit));
        }
    }
    let results: Vec<Compared> = cases
        .iter()
        .filter_map(|(_, _, rounds)| Compared::of(rounds))
        .collect();
    let ok = results.iter().all(|result| result.verdict.ok);
    report::tell_compared(session.output, &results)?;
    let rounds = Some(args.rounds);
    session
        .output
        .value(&bench.report("bench limit", ok, rounds, results))?;
    Ok(if ok { Exit::Done } else { Exit::Failed })
}

fn is_right(measured: &Measured) -> bool {
    measured.verdict.as_ref().is_some_and(|verdict| verdict.ok)
}

/// What all measurements of a command share.
struct Bench {
    args: LoadArgs,
    span: Span,
    output: Output,
    settings: ConnectSettings,
    /// Held for as long as anything is measured.
    private: Option<PrivateServers>,
    parts: Vec<Part>,
    machine: Machine,
    stop: CancellationToken,
}

impl Bench {
    async fn new(
        session: &Session,
        args: LoadArgs,
        (duration, warm_up): (Duration, Duration),
    ) -> Result<Self, Failure> {
        if args.workers == 0 && args.processes == 0 {
            return Err(Failure::usage(
                "there is no worker: --workers and --processes are 0",
            ));
        }
        let settings = &session.settings;
        let connect = &settings.connect;
        let is_named = [&connect.nats_url, &connect.redis_url].map(Option::is_some);
        if let settings::Place::Folder(folder) = &settings.place
            && !args.private
        {
            return Err(Failure::usage(format!(
                "`bench` measures servers, not the folder {}",
                folder.display()
            ))
            .with_hint("superstep bench --private starts servers of its own"));
        }
        if !args.private && is_named[0] != is_named[1] {
            return Err(Failure::usage("one server is named and the other is not")
                .with_hint("name both with --nats-url and --redis-url, or give --private"));
        }
        let is_private = args.private || !is_named[0];
        if !is_private && args.fsync.is_some() {
            return Err(Failure::usage(
                "--fsync is for servers that are started here; those that are named keep theirs",
            ));
        }
        let (cpus, memory_bytes) = parts::machine();
        let machine = Machine {
            superstep: env!("CARGO_PKG_VERSION"),
            os: std::env::consts::OS,
            architecture: std::env::consts::ARCH,
            cpus,
            memory_bytes,
            load_average: parts::load_average(),
        };
        let private = if is_private {
            let fsync = args.fsync.unwrap_or(Fsync::Everysec);
            Some(PrivateServers::start(fsync).await?)
        } else {
            None
        };
        let stop = CancellationToken::new();
        let (mut signals, told) = (Signals::listen()?, stop.clone());
        tokio::spawn(async move {
            signals.next().await;
            told.cancel();
        });
        Ok(Self {
            span: Span {
                warm_up: args.warm_up.unwrap_or(warm_up),
                duration: args.duration.unwrap_or(duration),
                count: args.count,
            },
            output: session.output,
            parts: match &private {
                Some(servers) => servers.parts(),
                None => listeners(connect),
            },
            settings: match &private {
                Some(servers) => servers.settings(),
                None => connect.clone(),
            },
            private,
            args,
            machine,
            stop,
        })
    }

    fn scenarios(&self) -> Vec<Scenario> {
        match self.args.scenario.as_slice() {
            [] => Scenario::ALL.to_vec(),
            some => some.to_vec(),
        }
    }

    fn load(&self, scenario: Scenario) -> Load {
        Load {
            scenario,
            size: self.size(),
            in_flight: self.args.threads,
            span: self.span,
            runs_max: self
                .args
                .count
                .map_or(RUNS_MAX, |count| count.max(RUNS_MAX)),
            patience: PATIENCE,
        }
    }

    fn size(&self) -> Size {
        Size {
            payload_bytes: usize::try_from(self.args.payload).unwrap_or(usize::MAX),
            width: self.args.width,
        }
    }

    /// Measures superstep in a namespace of its own.
    async fn superstep(
        &self,
        scenario: Scenario,
        dispatch: Dispatch,
        what: String,
    ) -> Result<Measured, Failure> {
        let place = Place::open(&self.settings).await?;
        let measured = self.superstep_at(&place, scenario, dispatch, what).await;
        let removed = place.remove().await;
        let measured = measured?;
        removed?;
        Ok(measured)
    }

    async fn superstep_at(
        &self,
        place: &Place,
        scenario: Scenario,
        dispatch: Dispatch,
        what: String,
    ) -> Result<Measured, Failure> {
        let crew = Crew {
            in_process: usize::from(self.args.workers),
            processes: usize::from(self.args.processes),
            settings: WorkerSettings {
                concurrency: usize::try_from(self.args.concurrency).unwrap_or(usize::MAX),
                run_ahead_supersteps: match dispatch {
                    Dispatch::RunAhead => WorkerSettings::default().run_ahead_supersteps,
                    Dispatch::Full => 0,
                },
                ..WorkerSettings::default()
            },
        };
        let workers = Workers::start(place, &scenario.graph(), &crew).await?;
        let here = if crew.in_process > 0 {
            "bench with workers"
        } else {
            "bench"
        };
        let mut parts = vec![Part::here(here)];
        parts.extend(workers.parts());
        parts.extend(self.parts.iter().cloned());
        let mut meters = Meters::new(parts);
        let progress = Progress::new(self.output, what);
        let (load, queue) = (self.load(scenario), place.queue());
        let subjects = place.subjects();
        let driven = drive(queue, subjects, &load, &progress, &mut meters, &self.stop).await;
        drop(progress);
        // Also those that were stopped: the namespace goes away behind them.
        let ended = workers.end().await;
        let Driven {
            window,
            mut tally,
            seconds,
        } = driven?;
        ended?;
        let runs = tally.begun_so_far();
        let verified = place.verify(runs, &mut tally).await?;
        let verdict = Some(tally.verdict(verified));
        Ok(Measured {
            verdict,
            ..measured(scenario, dispatch, &window, seconds, &meters)
        })
    }

    /// Measures the bare loop in a namespace of its own.
    async fn bare(
        &self,
        scenario: Scenario,
        dispatch: Dispatch,
        what: String,
    ) -> Result<Measured, Failure> {
        let place = Place::open(&self.settings).await?;
        let mut parts = vec![Part::here("bench")];
        parts.extend(self.parts.iter().cloned());
        let mut meters = Meters::new(parts);
        let progress = Progress::new(self.output, what);
        let load = self.load(scenario);
        let ran = bare(&place, &load, dispatch, &progress, &mut meters, &self.stop).await;
        drop(progress);
        let removed = place.remove().await;
        let (window, seconds) = ran?;
        removed?;
        Ok(measured(scenario, dispatch, &window, seconds, &meters))
    }

    fn report<R>(
        &self,
        command: &'static str,
        ok: bool,
        rounds: Option<u16>,
        results: Vec<R>,
    ) -> Report<R> {
        let fsync = self.args.fsync.unwrap_or(Fsync::Everysec);
        Report {
            format: FORMAT,
            command,
            ok,
            machine: self.machine.clone(),
            servers: ServersUsed {
                private: self.private.is_some(),
                fsync: self.private.is_some().then_some(fsync),
            },
            load: LoadUsed {
                threads_in_flight: self.args.threads,
                size: self.size(),
                warm_up_seconds: self.span.warm_up.as_secs_f64(),
                duration_seconds: self.span.duration.as_secs_f64(),
                count: self.args.count,
                workers: self.args.workers,
                processes: self.args.processes,
                concurrency: self.args.concurrency,
                rounds,
            },
            results,
        }
    }
}

fn measured(
    scenario: Scenario,
    dispatch: Dispatch,
    window: &Window,
    seconds: f64,
    meters: &Meters,
) -> Measured {
    let supersteps = window.runs() * scenario.supersteps();
    Measured {
        scenario,
        dispatch,
        seconds,
        runs: window.runs(),
        runs_per_second: per_second(window.runs(), seconds),
        supersteps_per_second: per_second(supersteps, seconds),
        latency: window.latency(),
        parts: meters.used(supersteps),
        verdict: None,
    }
}

/// The processes of servers that are named and run on this machine.
fn listeners(connect: &ConnectSettings) -> Vec<Part> {
    let part = |name: &str, urls: &Option<String>, default_port| {
        let url = urls.as_deref()?.split(',').next()?;
        let address = url.split_once("://")?.1.split('/').next()?;
        let address = address.rsplit('@').next()?;
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().ok()?),
            None => (address, default_port),
        };
        parts::listener(name, host, port)
    };
    let nats = part("nats-server", &connect.nats_url, 4222);
    let redis = part("redis-server", &connect.redis_url, 6379);
    nats.into_iter().chain(redis).collect()
}
