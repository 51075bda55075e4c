//! The coordinator's plan: what is asked of which engine, and in which order.
//!
//! For each workload and round every engine carries out the whole workload by itself, in a process of its own, on files of
//! its own, while no other engine's process exists: background threads, caches and the memory of one are not another's.
//! The engine that begins is another one in each round.

mod churn;
mod growth;
mod limits;
mod mixed;
mod open;
mod redb;
mod small;
mod threads;
mod ycsb;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::arguments::{Arguments, Workload};
use crate::engine::EngineName;
use crate::machine::Machine;
use crate::population::Population;
use crate::process::Worker;
use crate::progress::progress;
use crate::protocol::{Figures, Insert, Mode, Opened, Opening, Read, ReadKind, Request, Timed};
use crate::report::Report;
use crate::section::{Section, Unit, row};
use crate::{files, interrupt, latency, raw, targets};

/// Records of a batch where a store is filled before something else is measured.
const FILL_BATCH: u64 = 10_000;

/// What all workloads need.
pub struct Run {
    arguments: Arguments,
    dir: TempDir,
}

impl Run {
    /// Makes the temporary folder.
    pub fn new(arguments: Arguments) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("tophash-peers-").tempdir_in(&arguments.dir)?;
        Ok(Run { arguments, dir })
    }

    /// Measures all workloads that were asked for.
    pub fn all(self) -> anyhow::Result<Report> {
        let machine = Machine::look(self.dir.path());
        progress!("{}", machine.line());
        let mut sections = Vec::new();
        for workload in Workload::value_variants() {
            if self.arguments.wants(*workload) {
                sections.push(self.measure(*workload)?);
            }
        }
        let report = Report {
            machine,
            settings: self.settings()?,
            seed: self.arguments.seed,
            engines: self.engines_settings(),
            targets: targets::evaluate(&sections),
            sections,
        };
        self.dir.close()?;
        Ok(report)
    }

    fn measure(&self, workload: Workload) -> anyhow::Result<Section> {
        if workload == Workload::Limits {
            return limits::measure(self);
        }
        let engines: Vec<_> =
            self.arguments.engines().into_iter().filter(|engine| applies(workload, *engine)).collect();
        let mut section = Section::new(workload, &engines);
        for round in 0..self.arguments.rounds() {
            let mut turn = engines.clone();
            turn.rotate_left(round as usize % engines.len().max(1));
            for engine in turn {
                progress!("{}, round {} of {}: {engine}", workload.name(), round + 1, self.arguments.rounds());
                let result = Turn::new(self, workload, engine, round, &mut section).and_then(Turn::measure);
                interrupt::check()?;
                if let Err(error) = result {
                    // The others have not failed; the run as a whole has, at its end.
                    progress!("{}: {engine} FAILED: {error:#}", workload.name());
                    section.fail(engine, &format!("{error:#}"));
                }
                self.remove_stores()?;
            }
        }
        section.note_first(format!("{} records", self.arguments.records(workload)));
        Ok(section)
    }

    fn remove_stores(&self) -> anyhow::Result<()> {
        for entry in std::fs::read_dir(self.dir.path())? {
            let path = entry?.path();
            if path.is_dir() { files::remove(&path)? } else { std::fs::remove_file(&path)? }
        }
        Ok(())
    }

    fn settings(&self) -> anyhow::Result<String> {
        let arguments = &self.arguments;
        Ok(format!(
            "Medians of {} rounds, engines in turn within each, one process per engine; a ratio is the median of the \
             rounds' ratios. Phases are cut off after {} s, durable writes last {} s, a phase has {} reads a thread. \
             `/ best` compares with the best persistent peer, which is named; ratios of rates are better when larger, \
             of times and bytes when smaller. Seed {}. Deriving keys and values is inside every throughput, outside every \
             latency; reading the clock adds {} ns to a latency. Every value that was read was compared. What each row means: \
             benches/README.md.",
            arguments.rounds(),
            arguments.seconds(),
            arguments.durable_seconds(),
            arguments.reads(),
            arguments.seed,
            latency::clock_cost_nanos()?,
        ))
    }

    fn engines_settings(&self) -> Vec<(EngineName, String, String)> {
        let (cache, is_write_map) = (self.arguments.cache_bytes, self.arguments.lmdb_write_map);
        let of = |engine: EngineName| (engine, engine.version(), engine.settings(cache, is_write_map));
        self.arguments.engines().into_iter().map(of).collect()
    }
}

/// What has nothing to measure in a workload is left out of it.
fn applies(workload: Workload, engine: EngineName) -> bool {
    match workload {
        Workload::Growth => true,
        Workload::Open | Workload::Threads | Workload::Mixed => {
            engine.is_persistent() && engine != EngineName::TophashEvery
        }
        _ => engine != EngineName::TophashEvery,
    }
}

/// An engine's turn: a workload, in one round.
struct Turn<'r> {
    run: &'r Run,
    workload: Workload,
    engine: EngineName,
    round: u64,
    records: u64,
    section: &'r mut Section,
}

impl<'r> Turn<'r> {
    fn new(
        run: &'r Run,
        workload: Workload,
        engine: EngineName,
        round: u64,
        section: &'r mut Section,
    ) -> anyhow::Result<Self> {
        let asked = run.arguments.records(workload);
        let records = asked.min(engine.records_max());
        if records < asked {
            section.note(format!("{engine}: {records} records only; more are too many for it"));
        }
        Ok(Turn { run, workload, engine, round, records, section })
    }

    fn measure(self) -> anyhow::Result<()> {
        match self.workload {
            Workload::Limits => Ok(()),
            Workload::Redb => redb::measure(self),
            Workload::Small => small::measure(self),
            Workload::Ycsb => ycsb::measure(self),
            Workload::Growth => growth::measure(self),
            Workload::Churn => churn::measure(self),
            Workload::Open => open::measure(self),
            Workload::Mixed => mixed::measure(self),
            Workload::Threads => threads::measure(self),
        }
    }

    fn arguments(&self) -> &'r Arguments {
        &self.run.arguments
    }

    fn population(&self) -> Population {
        let (key_bytes, value_bytes) = self.workload.shape();
        Population::new(key_bytes, value_bytes, self.arguments().seed)
    }

    /// Another seed in each round, the same for all engines.
    fn seed(&self) -> u64 {
        self.arguments().seed.wrapping_mul(1_000_003).wrapping_add(self.round)
    }

    /// The folder of the engine's store.
    fn path(&self) -> PathBuf {
        self.run.dir.path().join(self.engine.name())
    }

    /// The run's own folder.
    fn dir(&self) -> &Path {
        self.run.dir.path()
    }

    /// How a store is opened unless a workload wants something else.
    fn opening(&self, mode: Mode) -> Opening {
        let population = self.population();
        let data_bytes = self.records * population.record_bytes();
        Opening {
            path: self.path(),
            population,
            mode,
            checkpoint_bytes: None,
            map_bytes: (data_bytes * 16 + (16 << 30)).next_multiple_of(1 << 30),
            is_write_map: self.arguments().lmdb_write_map,
            cache_bytes: self.arguments().cache_bytes,
            first_answer: None,
        }
    }

    /// A new process with an open store.
    fn start(&self, opening: Opening) -> anyhow::Result<(Worker, Opened)> {
        let mut worker = Worker::start(self.engine, self.arguments().timeout())?;
        let opened = worker.ask(&Request::Open(opening))?;
        Ok((worker, opened))
    }

    /// Fills a store in batches, from a record on, before something else is measured.
    fn fill(&self, worker: &mut Worker, first: u64) -> anyhow::Result<Timed> {
        let records = self.records.saturating_sub(first);
        worker.ask(&Request::Insert(Insert { first, records, batch: FILL_BATCH, ..Insert::default() }))
    }

    /// Waits for the background and looks at the sizes; the number of records must be right, if the engine knows it.
    fn settle(&self, worker: &mut Worker, records: u64) -> anyhow::Result<Figures> {
        let figures: Figures = worker.ask(&Request::Settle)?;
        let has = figures.records.unwrap_or(records);
        anyhow::ensure!(has == records, "{records} records should be there, it says that it has {has}");
        Ok(figures)
    }

    fn read(&self, worker: &mut Worker, kind: ReadKind, threads: u64, records: u64) -> anyhow::Result<Timed> {
        worker.ask(&Request::Read(Read {
            kind,
            records,
            threads,
            reads: self.arguments().reads(),
            seconds_max: self.arguments().seconds(),
            seed: self.seed(),
        }))
    }

    /// Measures hits and absent keys. What it costs to derive a key is noted, for tophash's process.
    fn measure_reads(&mut self, worker: &mut Worker, threads: &[u64]) -> anyhow::Result<()> {
        // Warms caches and TLBs, and does not count.
        self.read(worker, ReadKind::Hits, 1, self.records)?;
        for threads in threads {
            let timed = self.read(worker, ReadKind::Hits, *threads, self.records)?;
            let plural = if *threads == 1 { "" } else { "s" };
            self.put(&format!("random hits, {threads} thread{plural}"), Unit::PerSecond, timed.rate());
        }
        let timed = self.read(worker, ReadKind::Absent, 1, self.records)?;
        self.put(row::ABSENT, Unit::PerSecond, timed.rate());
        if self.engine.is_tophash() {
            let timed = self.read(worker, ReadKind::Many, 1, self.records)?;
            self.put(row::MANY, Unit::PerSecond, timed.rate());
            let nothing = self.read(worker, ReadKind::Nothing, 1, self.records)?;
            self.put("... the benchmark's own part of each read", Unit::Nanos, 1e9 / nothing.rate());
        }
        Ok(())
    }

    /// Adds a figure to a row.
    fn put(&mut self, row: &str, unit: Unit, value: f64) {
        self.section.push(row, unit, self.engine.name(), value);
    }

    /// Adds a rate; if the phase was cut off, how far it got.
    fn put_rate(&mut self, row: &str, timed: &Timed, asked: u64) {
        self.put(row, Unit::PerSecond, timed.rate());
        if timed.operations < asked {
            let remark = format!("first {}", Unit::Count.text(timed.operations as f64));
            self.section.remark(row, self.engine.name(), remark);
        }
    }

    /// Adds the percentiles of a row, and its pauses.
    fn put_latency(&mut self, row: &str, timed: &Timed) {
        let Some(latency) = timed.latency else { return };
        for (name, nanos) in latency.named() {
            self.put(&format!("{row} {name}"), Unit::Nanos, nanos as f64);
        }
        self.put(&format!("{row} of 1 ms and more"), Unit::Count, latency.pauses as f64);
        self.put(&format!("{row} of 1 ms and more, in all"), Unit::Nanos, latency.paused as f64);
        for (cause, nanos) in latency.causes.named().into_iter().filter(|(_, nanos)| *nanos > 0) {
            self.put(&format!("{row} of 1 ms and more, {cause}"), Unit::Nanos, nanos as f64);
        }
    }

    /// Memory, and what of it is not the index.
    fn put_memory(&mut self, figures: &Figures) {
        self.put("anonymous memory", Unit::Bytes, figures.anonymous_bytes as f64);
        if self.engine.is_tophash() {
            let beyond = figures.anonymous_bytes.saturating_sub(figures.index_bytes.unwrap_or_default());
            self.put(row::BEYOND_INDEX, Unit::Bytes, beyond as f64);
        }
    }

    /// The same divided by the bytes of live keys and values: engines that wrote faster have more records by now.
    fn put_size_of(&mut self, row: &str, times_row: &str, figures: &Figures, records: u64) {
        self.put_size(row, figures);
        if self.engine.is_persistent() {
            let live_bytes = (records * self.population().record_bytes()) as f64;
            self.put(times_row, Unit::TimesLive, figures.disk_bytes as f64 / live_bytes);
        }
    }

    /// A size on disk, of engines that have one.
    fn put_size(&mut self, row: &str, figures: &Figures) {
        if self.engine.is_persistent() {
            self.put(row, Unit::Bytes, figures.disk_bytes as f64);
        }
    }

    /// Measures single durable writes. Beside tophash's, and so in the same round, stands what the disk can do: appends
    /// with fdatasync, the mean of right before and right after.
    fn measure_durable(&mut self, worker: &mut Worker, row: &str, insert: Insert) -> anyhow::Result<Timed> {
        let seconds = self.arguments().durable_seconds();
        let has_limit = self.engine == EngineName::Tophash;
        let limit = |turn: &Self| raw::appends_per_second(turn.dir(), seconds / 3.0);
        let before = if has_limit { limit(self)? } else { 0.0 };
        let insert = Insert { records: u64::MAX, batch: 1, is_timed: true, seconds_max: Some(seconds), ..insert };
        let timed: Timed = worker.ask(&Request::Insert(insert))?;
        self.put(row, Unit::PerSecond, timed.rate());
        if has_limit {
            let rate = f64::midpoint(before, limit(self)?);
            self.section.push(row, Unit::PerSecond, Section::LIMIT, rate);
        }
        Ok(timed)
    }
}

/// Asks for something whose answer does not matter.
fn tell(worker: &mut Worker, request: &Request) -> anyhow::Result<()> {
    ask::<serde_json::Value>(worker, request).map(drop)
}

fn ask<T: DeserializeOwned>(worker: &mut Worker, request: &Request) -> anyhow::Result<T> {
    worker.ask(request)
}
