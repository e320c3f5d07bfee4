//! What a measurement came to, as tables for people and one JSON object for machines.
//!
//! The object's shape is public and described in `docs/benchmarks.md`; `format` grows if a field
//! changes its meaning or goes away, not if one is added. How figures come about is left to the
//! modules beside this one.
//!
//! The rule it keeps: no figure without the settings that it was reached with.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    bare::Dispatch,
    parts::Used,
    scenario::{Scenario, Size},
    servers::Fsync,
    verdict::Verdict,
    window::{Latency, Spread},
};
use crate::{
    exit::Failure,
    output::{BAD, BOLD, DIM, GOOD, Output, table},
};

/// The number of the shape.
pub(crate) const FORMAT: u32 = 1;

/// All of a command's results.
#[derive(Debug, Serialize)]
pub(crate) struct Report<R> {
    pub(crate) format: u32,
    /// `bench` or `bench limit`.
    pub(crate) command: &'static str,
    /// Whether every run ended right, once.
    pub(crate) ok: bool,
    pub(crate) machine: Machine,
    pub(crate) servers: ServersUsed,
    pub(crate) load: LoadUsed,
    pub(crate) results: Vec<R>,
}

/// Where it was measured.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Machine {
    pub(crate) superstep: &'static str,
    pub(crate) os: &'static str,
    pub(crate) architecture: &'static str,
    pub(crate) cpus: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory_bytes: Option<u64>,
    /// Of the last minute, before it began: what else ran there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) load_average: Option<f64>,
}

/// On which servers.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct ServersUsed {
    /// Whether they were started for it.
    pub(crate) private: bool,
    /// When they sync their files; absent for servers that were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fsync: Option<Fsync>,
}

/// Under which load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LoadUsed {
    pub(crate) threads_in_flight: u64,
    #[serde(flatten)]
    pub(crate) size: Size,
    pub(crate) warm_up_seconds: f64,
    pub(crate) duration_seconds: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) count: Option<u64>,
    pub(crate) workers: u8,
    pub(crate) processes: u8,
    pub(crate) concurrency: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rounds: Option<u16>,
}

/// One measurement.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    pub(crate) scenario: Scenario,
    pub(crate) dispatch: Dispatch,
    /// How long was measured.
    pub(crate) seconds: f64,
    /// Runs that ended meanwhile; of an interrupt with its resume.
    pub(crate) runs: u64,
    pub(crate) runs_per_second: f64,
    pub(crate) supersteps_per_second: f64,
    /// By what took so long: `run`; of an interrupt `ask`, `resume` and `resume_to_node`.
    pub(crate) latency: BTreeMap<&'static str, Latency>,
    pub(crate) parts: Vec<Used>,
    /// Absent for the bare loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) verdict: Option<Verdict>,
}

/// Superstep beside the limit.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Compared {
    pub(crate) scenario: Scenario,
    pub(crate) dispatch: Dispatch,
    /// Superstep's supersteps a second as part of the bare loop's, round by round.
    pub(crate) ratio: Spread,
    pub(crate) superstep: Figures,
    pub(crate) limit: Figures,
    /// Of every round.
    pub(crate) verdict: RoundsVerdict,
}

/// How all rounds ended.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RoundsVerdict {
    pub(crate) ok: bool,
    pub(crate) begun: u64,
    pub(crate) right: u64,
    pub(crate) findings: Vec<String>,
}

/// What several rounds came to.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) supersteps_per_second: Spread,
    pub(crate) runs_per_second: Spread,
    /// By what took so long.
    pub(crate) latency: BTreeMap<&'static str, RoundsLatency>,
    /// By part: the median of its processor time for each superstep.
    pub(crate) cpu_us_per_superstep: BTreeMap<String, f64>,
}

/// Times of several rounds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RoundsLatency {
    pub(crate) p50_ms: Spread,
    pub(crate) p99_ms: Spread,
}

impl Compared {
    /// Of rounds, each superstep's with that of the bare loop; `None` if there are none.
    pub(crate) fn of(rounds: &[(Measured, Measured)]) -> Option<Self> {
        let (first, _) = rounds.first()?;
        let rate = |of: &Measured| of.supersteps_per_second;
        let ratios: Vec<f64> = rounds
            .iter()
            .map(|(superstep, limit)| rate(superstep) / rate(limit).max(f64::MIN_POSITIVE))
            .collect();
        let verdicts = || {
            rounds
                .iter()
                .filter_map(|(superstep, _)| superstep.verdict.as_ref())
        };
        Some(Self {
            scenario: first.scenario,
            dispatch: first.dispatch,
            ratio: Spread::of(&ratios)?,
            superstep: Figures::of(
                &rounds
                    .iter()
                    .map(|(superstep, _)| superstep)
                    .collect::<Vec<_>>(),
            )?,
            limit: Figures::of(&rounds.iter().map(|(_, limit)| limit).collect::<Vec<_>>())?,
            verdict: RoundsVerdict {
                ok: verdicts().count() == rounds.len() && verdicts().all(|verdict| verdict.ok),
                begun: verdicts().map(|verdict| verdict.begun).sum(),
                right: verdicts().map(|verdict| verdict.right).sum(),
                findings: verdicts()
                    .flat_map(|verdict| verdict.findings.clone())
                    .collect(),
            },
        })
    }
}

impl Figures {
    fn of(rounds: &[&Measured]) -> Option<Self> {
        let spread = |figure: &dyn Fn(&Measured) -> Option<f64>| {
            let figures: Vec<f64> = rounds.iter().filter_map(|round| figure(round)).collect();
            Spread::of(&figures)
        };
        let mut latency = BTreeMap::new();
        let mut cpu = BTreeMap::new();
        for round in rounds {
            for what in round.latency.keys().copied() {
                let of = |round: &Measured| round.latency.get(what).copied();
                let p50_ms = spread(&|round| Some(of(round)?.p50_ms))?;
                let p99_ms = spread(&|round| Some(of(round)?.p99_ms))?;
                latency.insert(what, RoundsLatency { p50_ms, p99_ms });
            }
            for part in &round.parts {
                let of = |round: &Measured| {
                    let same = round.parts.iter().find(|other| other.part == part.part);
                    same.map(|used| used.cpu_us_per_superstep)
                };
                cpu.insert(part.part.clone(), spread(&of)?.median);
            }
        }
        Some(Self {
            supersteps_per_second: spread(&|round| Some(round.supersteps_per_second))?,
            runs_per_second: spread(&|round| Some(round.runs_per_second))?,
            latency,
            cpu_us_per_superstep: cpu,
        })
    }
}

/// Tells what was measured.
pub(crate) fn tell(output: Output, results: &[Measured]) -> Result<(), Failure> {
    let mut rows = table(
        [
            "scenario",
            "dispatch",
            "runs/s",
            "supersteps/s",
            "ms of",
            "p50",
            "p90",
            "p99",
            "max",
        ],
        &[],
    );
    for result in results {
        let mut head = [
            result.scenario.name().to_owned(),
            word(result.dispatch).to_owned(),
            rate(result.runs_per_second),
            rate(result.supersteps_per_second),
        ];
        for (what, latency) in &result.latency {
            let mut row: Vec<String> = head.to_vec();
            row.push((*what).to_owned());
            let times = [
                latency.p50_ms,
                latency.p90_ms,
                latency.p99_ms,
                latency.max_ms,
            ];
            row.extend(times.map(ms));
            rows.add_row(row);
            head = Default::default();
        }
    }
    output.table(&mut rows)?;
    output.line("")?;
    let mut rows = table(
        [
            "scenario",
            "part",
            "cpu us per superstep",
            "processors",
            "memory MiB",
        ],
        &[],
    );
    for result in results {
        for used in &result.parts {
            rows.add_row([
                result.scenario.name().to_owned(),
                used.part.clone(),
                rate(used.cpu_us_per_superstep),
                format!("{:.2}", used.cpu_share),
                mebibytes(used.memory_bytes_max),
            ]);
        }
    }
    output.rows(&mut rows, "no process of these could be looked at")?;
    output.line("")?;
    for result in results {
        let Some(verdict) = &result.verdict else {
            continue;
        };
        let name = result.scenario.name();
        let more = format!(
            "{DIM}{} threads read to the last record{DIM:#}",
            verdict.verified_threads
        );
        tell_verdict(
            output,
            name,
            verdict.ok,
            (verdict.right, verdict.begun),
            &verdict.findings,
            &more,
        )?;
    }
    Ok(())
}

/// Tells superstep beside the limit.
pub(crate) fn tell_compared(output: Output, results: &[Compared]) -> Result<(), Failure> {
    let mut rows = table(
        [
            "scenario",
            "dispatch",
            "ratio",
            "superstep/s",
            "limit/s",
            "run p50 ms",
            "limit p50 ms",
        ],
        &[],
    );
    for result in results {
        let p50 = |figures: &Figures| {
            let all: Vec<String> = figures
                .latency
                .iter()
                .map(|(what, latency)| match *what {
                    "run" => ms(latency.p50_ms.median),
                    what => format!("{what} {}", ms(latency.p50_ms.median)),
                })
                .collect();
            all.join(", ")
        };
        rows.add_row([
            result.scenario.name().to_owned(),
            word(result.dispatch).to_owned(),
            percent(result.ratio),
            rates(result.superstep.supersteps_per_second),
            rates(result.limit.supersteps_per_second),
            p50(&result.superstep),
            p50(&result.limit),
        ]);
    }
    output.table(&mut rows)?;
    output.line("")?;
    let mut rows = table(
        [
            "scenario",
            "dispatch",
            "part",
            "cpu us per superstep",
            "limit",
        ],
        &[],
    );
    for result in results {
        for (part, cpu) in &result.superstep.cpu_us_per_superstep {
            let limit = result.limit.cpu_us_per_superstep.iter();
            let limit = limit.filter(|(other, _)| name(other) == name(part));
            rows.add_row([
                result.scenario.name().to_owned(),
                word(result.dispatch).to_owned(),
                part.clone(),
                rate(*cpu),
                limit.map(|(_, cpu)| rate(*cpu)).collect(),
            ]);
        }
    }
    output.rows(&mut rows, "no process of these could be looked at")?;
    output.line("")?;
    for result in results {
        let verdict = &result.verdict;
        let name = format!("{}, {}", result.scenario.name(), word(result.dispatch));
        let counted = (verdict.right, verdict.begun);
        tell_verdict(output, &name, verdict.ok, counted, &verdict.findings, "")?;
    }
    Ok(())
}

fn tell_verdict(
    output: Output,
    name: &str,
    ok: bool,
    (right, begun): (u64, u64),
    findings: &[String],
    more: &str,
) -> Result<(), Failure> {
    if ok {
        return output.line(format!(
            "{GOOD}right{GOOD:#}  {BOLD}{name}{BOLD:#}: {right} runs of {begun} ended right, once  {more}"
        ));
    }
    output.line(format!(
        "{BAD}WRONG{BAD:#}  {BOLD}{name}{BOLD:#}: {right} runs of {begun} ended right, once"
    ))?;
    for finding in findings {
        output.line(format!("  {finding}"))?;
    }
    Ok(())
}

/// The process of the bench works in both, whatever else it does.
fn name(part: &str) -> &str {
    part.split(' ').next().unwrap_or(part)
}

fn word(dispatch: Dispatch) -> &'static str {
    match dispatch {
        Dispatch::RunAhead => "run-ahead",
        Dispatch::Full => "full",
    }
}

fn rate(rate: f64) -> String {
    if rate < 10.0 {
        format!("{rate:.1}")
    } else {
        format!("{rate:.0}")
    }
}

fn ms(ms: f64) -> String {
    if ms < 10.0 {
        format!("{ms:.2}")
    } else {
        format!("{ms:.1}")
    }
}

fn rates(spread: Spread) -> String {
    format!(
        "{} ({}-{})",
        rate(spread.median),
        rate(spread.min),
        rate(spread.max)
    )
}

fn percent(spread: Spread) -> String {
    let percent = |part: f64| format!("{:.0}", part * 100.0);
    format!(
        "{}% ({}-{})",
        percent(spread.median),
        percent(spread.min),
        percent(spread.max)
    )
}

#[expect(clippy::cast_precision_loss, reason = "nobody has so much memory")]
fn mebibytes(bytes: u64) -> String {
    rate(bytes as f64 / f64::from(1 << 20))
}
