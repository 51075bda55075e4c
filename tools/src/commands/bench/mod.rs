//! `tophash bench`: what a store does on this machine.

mod environment;
mod latency;
mod operations;
mod phases;
mod population;
mod report;
mod runner;

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::ValueEnum;
use serde::Serialize;
use tophash::SyncPolicy;

use crate::exit::Outcome;
use crate::trace::record::Recorder;
use crate::{argument, interrupt, output};

use environment::Environment;
use phases::Bench;
use population::Population;
use report::{Report, Settings};

/// Measure throughput and latency
///
/// Fills a new store with records that a counter determines, reads, updates and churns it, and makes durable writes;
/// every answer is checked. Prints throughput and the latencies p50 to p99.99 and max for each phase, with the
/// settings and the machine that they depend on. Exit code 1 if an answer was wrong.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLE)]
pub struct Args {
    /// Where the store is made (in a new folder, removed at the end)
    #[arg(long, default_value = ".")]
    dir: PathBuf,
    /// Records in the store
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    records: u64,
    /// Length of a key, at least 8
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(8..=65_535))]
    key_bytes: u32,
    /// Length of a value
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(..=1 << 30))]
    value_bytes: u32,
    /// Threads that work at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1024))]
    threads: u64,
    /// Operations of a pass
    #[arg(long, value_name = "N", default_value_t = 1_000_000)]
    ops: u64,
    /// Keys of a get-many call
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batch: u32,
    /// When writes are synced, durable writes apart: manual, always, or every=MILLISECONDS
    #[arg(long, value_name = "POLICY", default_value = "every=100", value_parser = argument::sync_policy)]
    sync: SyncPolicy,
    /// How long durable writes are made
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(..=3600))]
    durable_seconds: u64,
    /// Only these phases (what they need is done, but not measured)
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum)]
    only: Vec<Phase>,
    /// Where random numbers begin
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Write the calls of the throughput passes and of durable writes to this file, for `tophash doctor --trace`
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    /// Keep the store
    #[arg(long)]
    keep: bool,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

const EXAMPLE: &str = "\
Example:
  tophash bench --records 10000000 --threads 2
  tophash bench --only fill,read-hit --json > figures.json
  tophash bench --only update --record trace && tophash doctor --trace trace";

/// A phase of the benchmark, in the order in which they run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Insert all records into an empty store
    Fill,
    /// Get records that are there
    ReadHit,
    /// Get keys that are not there
    ReadMiss,
    /// Get records that are there, several in a call
    GetMany,
    /// Replace values
    Update,
    /// Remove a record and insert a fresh one
    Churn,
    /// Insert with SyncPolicy::Always, each durable when it returns
    Durable,
}

impl Phase {
    /// The name on the command line and in the report.
    pub fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_string())
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Outcome> {
    interrupt::install();
    if !args.dir.is_dir() {
        bail!("--dir {} is not a folder", args.dir.display());
    }
    let environment = Environment::look(&args.dir);
    warn(args, &environment);
    let folder = tempfile::Builder::new().prefix("tophash-bench-").tempdir_in(&args.dir);
    let folder = folder.with_context(|| format!("create a folder in {}", args.dir.display()))?;

    let (key_bytes, value_bytes) = (args.key_bytes as usize, args.value_bytes as usize);
    let settings = Settings {
        records: args.records,
        key_bytes,
        value_bytes,
        threads: args.threads,
        operations: args.ops,
        get_many_keys: args.batch as usize,
        sync: sync_name(args.sync),
        seed: args.seed,
    };
    let mut bench = Bench {
        folder: folder.path().to_path_buf(),
        population: Population::new(args.records, key_bytes, value_bytes, args.seed),
        sync: args.sync,
        durable_seconds: args.durable_seconds,
        only: args.only.clone(),
        report: Report::new(settings, environment),
        recorder: args.record.as_deref().map(Recorder::create).transpose()?,
    };
    bench.run()?;
    if let Some(recorder) = bench.recorder.take() {
        recorder.finish()?;
    }

    let mut report = bench.report;
    if args.keep {
        report.kept = Some(folder.keep().to_string_lossy().into_owned());
    }
    if args.json {
        output::emit_json(&report)?;
    } else {
        output::emit(&report.text())?;
    }
    Ok(if report.wrong() == 0 { Outcome::Yes } else { Outcome::No })
}

/// Says beforehand what would make the figures worthless.
fn warn(args: &Args, environment: &Environment) {
    if !environment.optimized {
        output::note(format_args!("tophash: this is a debug build; its figures mean nothing (cargo build --release)"));
    }
    if args.record.is_some() {
        output::note(format_args!("tophash: recording is part of the throughput that is shown (--record)"));
    }
    if environment.is_in_memory() {
        let dir = args.dir.display();
        output::note(format_args!("tophash: {dir} lies in memory; durable writes mean nothing there (--dir)"));
    }
    if args.threads > environment.cores {
        let (threads, cores) = (args.threads, output::some(environment.cores, "core"));
        output::note(format_args!("tophash: {threads} threads share {cores}; latencies include waiting for a core"));
    }
}

fn sync_name(policy: SyncPolicy) -> String {
    match policy {
        SyncPolicy::Manual => "manual".to_string(),
        SyncPolicy::Always => "always".to_string(),
        SyncPolicy::Every(interval) => format!("every={}", interval.as_millis()),
        other => format!("{other:?}"),
    }
}
