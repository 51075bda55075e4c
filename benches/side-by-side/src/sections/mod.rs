//! The coordinator's plan: what is asked of which engine, and in which order.

mod base;
mod bytes;
mod durable;
mod inserts;
mod open;
mod reads;
mod recovery;

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::arguments::{Arguments, Topic};
use crate::engine::EngineName;
use crate::latency;
use crate::machine::Machine;
use crate::process::Worker;
use crate::progress::progress;
use crate::protocol::{Opened, Opening, Request};
use crate::report::{Report, Section};
use base::Base;

/// What all sections need.
pub struct Run {
    arguments: Arguments,
    dir: TempDir,
}

impl Run {
    /// Makes the temporary folder.
    pub fn new(arguments: Arguments) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tophash-side-by-side-").tempdir_in(&arguments.dir)?;
        Ok(Run { arguments, dir })
    }

    /// Measures all sections that were asked for.
    pub fn all(self) -> anyhow::Result<Report> {
        let machine = Machine::look(self.dir.path());
        progress!("{}", machine.line());
        let mut sections = Vec::new();
        if self.arguments.wants(Topic::Inserts) {
            sections.push(inserts::measure(&self)?);
        }
        let wants_base = [Topic::Bytes, Topic::Reads, Topic::Open, Topic::Durable, Topic::Recovery];
        if wants_base.into_iter().any(|topic| self.arguments.wants(topic)) {
            self.measure_base(&mut sections)?;
        }
        let report = Report { machine, settings: self.settings(), notes: notes()?, sections };
        self.dir.close()?;
        Ok(report)
    }

    /// The sections that look at full stores.
    fn measure_base(&self, sections: &mut Vec<Section>) -> anyhow::Result<()> {
        let mut base = Base::fill(self)?;
        if self.arguments.wants(Topic::Reads) {
            sections.push(reads::measure(self, &mut base)?);
        }
        let sizes = base.close(self)?;
        if self.arguments.wants(Topic::Bytes) {
            sections.push(bytes::report(self, &sizes));
        }
        if self.arguments.wants(Topic::Open) {
            sections.push(open::measure(self)?);
        }
        if self.arguments.wants(Topic::Durable) {
            sections.push(durable::measure(self)?);
        }
        if self.arguments.wants(Topic::Recovery) {
            sections.push(recovery::measure(self, &sizes)?);
        }
        Ok(())
    }

    /// The folder of an engine's store; `purpose` keeps several of one engine apart.
    fn path(&self, engine: EngineName, purpose: &str) -> PathBuf {
        self.dir.path().join(format!("{}-{purpose}", engine.name()))
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// How a store is opened unless a section wants something else.
    fn opening(&self, engine: EngineName, purpose: &str) -> Opening {
        let arguments = &self.arguments;
        let data_bytes = arguments.records * (arguments.key_bytes + arguments.value_bytes);
        Opening {
            path: self.path(engine, purpose),
            is_durable: false,
            checkpoint_bytes: None,
            map_bytes: (data_bytes * 16 + (16 << 30)).next_multiple_of(1 << 30),
            is_write_map: arguments.lmdb_write_map,
            first_answer: None,
        }
    }

    /// A new process with an open store.
    fn start(&self, engine: EngineName, opening: Opening) -> anyhow::Result<(Worker, Opened)> {
        let mut worker = Worker::start(engine, self.arguments.population(), self.arguments.timeout())?;
        let opened = worker.ask(&Request::Open(opening))?;
        Ok((worker, opened))
    }

    fn settings(&self) -> String {
        let arguments = &self.arguments;
        format!(
            "{} records of {} + {} bytes; medians of {} rounds that alternate between the engines ({} for fills and \
             durable writes), one process per engine; a ratio is the median of the rounds' ratios. `x / y` divides \
             the column x by the column y, rates (/s), times and bytes alike.",
            arguments.records,
            arguments.key_bytes,
            arguments.value_bytes,
            arguments.rounds,
            arguments.dear_rounds(),
        )
    }
}

fn notes() -> anyhow::Result<Vec<String>> {
    Ok(vec![format!(
        "Deriving keys and values is inside every throughput, outside every latency; reading the clock adds {} ns to a \
         latency. What each row means: benches/README.md.",
        latency::clock_cost_nanos()?
    )])
}
