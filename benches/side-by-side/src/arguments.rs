//! The command line.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use crate::engine::EngineName;
use crate::population::Population;

/// Compares tophash with hashbrown's HashMap and LMDB (through heed): the same keys, values and checks, one process
/// per engine, rounds in turn. Markdown goes to stdout, progress to stderr.
#[derive(Debug, Parser)]
#[command(name = "tophash-side-by-side", version)]
pub struct Arguments {
    /// Records of a full store
    #[arg(long, default_value_t = 5_000_000, value_parser = clap::value_parser!(u64).range(1_000..1 << 40))]
    pub records: u64,

    /// Rounds of what is cheap to repeat; fills and durable writes are repeated at most three times
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000))]
    pub rounds: u64,

    /// Reads of a round and thread
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1_000..1 << 40))]
    pub reads: u64,

    /// Bytes of a key
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u64).range(8..=511))]
    pub key_bytes: u64,

    /// Bytes of a value
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(..=100_000))]
    pub value_bytes: u64,

    /// Records of a batch (LMDB: of a transaction) where inserts come in batches
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(2..=1_000_000))]
    pub batch: u64,

    /// A fill that is one transaction per insert stops after this time, if it is not done before
    #[arg(long, default_value_t = 30.0, value_parser = seconds)]
    pub fill_seconds_max: f64,

    /// How long durable writes are measured, each time
    #[arg(long, default_value_t = 3.0, value_parser = seconds)]
    pub durable_seconds: f64,

    /// Log bytes between checkpoints for opens after kill -9 [default: what tophash chooses for the full store]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1 << 20..1 << 40))]
    pub checkpoint_bytes: Option<u64>,

    /// An engine that takes longer than this for one step hangs, and the run ends
    #[arg(long, default_value_t = 1_800.0, value_parser = seconds)]
    pub step_seconds_max: f64,

    /// Opens LMDB with MDB_WRITEMAP
    #[arg(long)]
    pub lmdb_write_map: bool,

    /// Where a temporary folder for all files is made, and removed at the end
    #[arg(long, default_value = ".")]
    pub dir: PathBuf,

    /// Measures these sections only
    #[arg(long, value_delimiter = ',', value_name = "LIST")]
    pub only: Vec<Topic>,

    /// Writes all figures, those of single rounds too, to this file
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Serves requests on stdin for one engine
    #[arg(long, hide = true)]
    pub worker: Option<EngineName>,
}

/// A section of the report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Topic {
    /// Inserts from empty
    Inserts,
    /// Bytes in memory and on disk
    Bytes,
    /// Random reads
    Reads,
    /// Opening a store that was closed
    Open,
    /// Single writes that survive power loss
    Durable,
    /// Opening a store whose process was killed
    Recovery,
}

impl Arguments {
    /// The records that all engines get.
    pub fn population(&self) -> Population {
        Population::new(self.key_bytes, self.value_bytes)
    }

    /// True if the section is to be measured.
    pub fn wants(&self, topic: Topic) -> bool {
        self.only.is_empty() || self.only.contains(&topic)
    }

    /// When a step counts as a hang.
    pub fn timeout(&self) -> Duration {
        Duration::from_secs_f64(self.step_seconds_max)
    }

    /// Rounds of what is not cheap to repeat.
    pub fn dear_rounds(&self) -> u64 {
        self.rounds.min(3)
    }
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.001..=86_400.0).contains(&seconds) => Ok(seconds),
        Ok(_) => Err("it must be between 0.001 and 86400".to_string()),
        Err(error) => Err(error.to_string()),
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
    fn all_sections_unless_some_are_named() {
        let all = Arguments::parse_from(["x"]);
        let some = Arguments::parse_from(["x", "--only", "reads,open"]);
        for topic in Topic::value_variants() {
            assert!(all.wants(*topic));
            assert_eq!(some.wants(*topic), matches!(topic, Topic::Reads | Topic::Open));
        }
    }
}
