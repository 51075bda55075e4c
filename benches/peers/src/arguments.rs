//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::engine::EngineName;

/// Compares tophash with other embedded key-value stores: the same keys, values and checks for all, one process per
/// engine, engines in turn within each round.
///
/// Markdown goes to stdout, progress to stderr. Only ratios within one run mean anything. What each row means, and what is
/// fair about it, is in benches/README.md.
#[derive(Debug, Parser)]
#[command(name = "tophash-peers", version, after_help = EXAMPLES)]
pub struct Arguments {
    /// Measures these workloads only
    #[arg(long, value_delimiter = ',', value_name = "LIST", help_heading = "What to measure")]
    pub only: Vec<Workload>,

    /// Measures these engines only, in this order
    #[arg(long, value_delimiter = ',', value_name = "LIST", help_heading = "What to measure")]
    pub engines: Vec<EngineName>,

    /// Everything on the smallest scale, in seconds: to see that it works. The figures mean nothing
    #[arg(long, help_heading = "What to measure")]
    pub smoke: bool,

    /// Records of a full store, in all workloads [default: each workload's own, 2 to 10 million]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..1 << 32), help_heading = "How much")]
    pub records: Option<u64>,

    /// Rounds; a figure is their median [default: 3]
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..=1_000), help_heading = "How much")]
    pub rounds: Option<u64>,

    /// A phase is cut off after this time, done or not [default: 10]
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "How much")]
    pub seconds: Option<f64>,

    /// Phases of single durable writes last so long [default: 3]
    #[arg(long, value_name = "S", value_parser = seconds, help_heading = "How much")]
    pub durable_seconds: Option<f64>,

    /// Reads of a phase and thread [default: 1,000,000]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1_000..1 << 40), help_heading = "How much")]
    pub reads: Option<u64>,

    /// Windows of churn; each replaces as many records as there are
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000), help_heading = "How much")]
    pub windows: u64,

    /// Where all random numbers begin
    #[arg(long, value_name = "N", default_value_t = 1, help_heading = "How much")]
    pub seed: u64,

    /// An engine that takes longer than this for one step hangs, and is given up
    #[arg(long, value_name = "S", default_value_t = 900.0, value_parser = seconds, help_heading = "How much")]
    pub step_seconds_max: f64,

    /// A temporary folder for all files is made in this one, and removed at the end
    #[arg(long, default_value = ".", help_heading = "Where")]
    pub dir: PathBuf,

    /// Writes all figures, those of single rounds too, to this file
    #[arg(long, value_name = "FILE", help_heading = "Where")]
    pub json: Option<PathBuf>,

    /// Draws a picture for each workload into this folder
    #[arg(long, value_name = "DIR", help_heading = "Where")]
    pub svg: Option<PathBuf>,

    /// Cache of the engines that have one of their own (redb, fjall, sled, rocksdb)
    #[arg(long, value_name = "BYTES", default_value_t = 4 << 30, value_parser = clap::value_parser!(u64).range(1 << 20..1 << 40), help_heading = "Settings of engines")]
    pub cache_bytes: u64,

    /// Opens LMDB with MDB_WRITEMAP
    #[arg(long, help_heading = "Settings of engines")]
    pub lmdb_write_map: bool,

    /// Serves requests on stdin for one engine
    #[arg(long, hide = true)]
    pub worker: Option<EngineName>,
}

const EXAMPLES: &str = "\
Examples:
  tophash-peers --smoke                                    does everything work here?
  tophash-peers --dir /mnt/disk --json f.json --svg pictures > figures.md
  tophash-peers --only redb,growth --engines tophash,heed,redb --records 1000000 --rounds 5";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, ValueEnum)]
pub enum Workload {
    /// The machine alone: memory accesses, appends with fdatasync
    Limits,
    /// The shape of redb's public benchmark, 24/150: loads, durable and other writes, reads, removals, sizes
    Redb,
    /// 8-byte keys and values: inserts, reads, sizes
    Small,
    /// YCSB C, B, A and F, 16/100, zipfian, 2 threads
    Ycsb,
    /// Growth from empty, 16/100, one by one, each insert timed
    Growth,
    /// Removes a record and inserts another, over and over: rates and sizes
    Churn,
    /// Opens after a clean close, and after kill -9 of a writer
    Open,
    /// Readers beside one durable writer
    Mixed,
    /// Durable writes on 8 threads and on 1
    Threads,
}

impl Workload {
    /// For command lines and reports.
    pub fn name(self) -> &'static str {
        match self {
            Workload::Limits => "limits",
            Workload::Redb => "redb",
            Workload::Small => "small",
            Workload::Ycsb => "ycsb",
            Workload::Growth => "growth",
            Workload::Churn => "churn",
            Workload::Open => "open",
            Workload::Mixed => "mixed",
            Workload::Threads => "threads",
        }
    }

    /// Bytes of keys and values.
    pub fn shape(self) -> (usize, usize) {
        match self {
            Workload::Redb => (24, 150),
            Workload::Small => (8, 8),
            _ => (16, 100),
        }
    }

    fn records(self) -> u64 {
        match self {
            Workload::Small | Workload::Growth | Workload::Open => 10_000_000,
            Workload::Ycsb => 5_000_000,
            _ => 2_000_000,
        }
    }
}

impl Arguments {
    /// True if the workload is to be measured.
    pub fn wants(&self, workload: Workload) -> bool {
        self.only.is_empty() || self.only.contains(&workload)
    }

    /// The engines to be measured.
    pub fn engines(&self) -> Vec<EngineName> {
        if self.engines.is_empty() { EngineName::all().to_vec() } else { self.engines.clone() }
    }

    /// Records of a full store.
    pub fn records(&self, workload: Workload) -> u64 {
        self.records.unwrap_or(if self.smoke { 2_000 } else { workload.records() })
    }

    /// How often everything is measured.
    pub fn rounds(&self) -> u64 {
        self.rounds.unwrap_or(if self.smoke { 1 } else { 3 })
    }

    /// When a phase is cut off.
    pub fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.smoke { 0.2 } else { 10.0 })
    }

    /// How long durable writes are measured.
    pub fn durable_seconds(&self) -> f64 {
        self.durable_seconds.unwrap_or(if self.smoke { 0.05 } else { 3.0 })
    }

    /// Reads of a phase and thread.
    pub fn reads(&self) -> u64 {
        self.reads.unwrap_or(if self.smoke { 2_000 } else { 1_000_000 })
    }

    /// When a step counts as a hang.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.step_seconds_max)
    }

    /// What clap cannot see.
    pub fn check(&self) -> Result<(), String> {
        for (i, engine) in self.engines.iter().enumerate() {
            if self.engines[..i].contains(engine) {
                return Err(format!("--engines names {engine} twice"));
            }
        }
        if !self.dir.is_dir() {
            return Err(format!("--dir {}: there is no such folder; make it first", self.dir.display()));
        }
        Ok(())
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        Ok(_) => Err("it must be between 0.001 and 86400 seconds".to_string()),
        Err(_) => Err("it must be a number of seconds, like 10 or 0.5".to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn all_workloads_unless_some_are_named() {
        let all = Arguments::parse_from(["x"]);
        let some = Arguments::parse_from(["x", "--only", "redb,open", "--engines", "heed,tophash"]);
        for workload in Workload::value_variants() {
            assert!(all.wants(*workload));
            assert_eq!(some.wants(*workload), matches!(workload, Workload::Redb | Workload::Open));
            assert_eq!(Workload::from_str(workload.name(), false), Ok(*workload));
        }
        assert_eq!(all.engines(), EngineName::all());
        assert_eq!(some.engines(), [EngineName::Heed, EngineName::Tophash]);
    }

    #[test]
    fn an_engine_twice_is_refused() {
        let error = Arguments::parse_from(["x", "--engines", "heed,redb,heed"]).check().unwrap_err();
        assert!(error.contains("heed twice"), "{error}");
    }
}
