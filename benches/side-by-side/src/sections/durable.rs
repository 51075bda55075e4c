//! Single durable writes beside the disk's own limit, measured right before and after.

use super::Run;
use super::base::PURPOSE;
use crate::engine::EngineName;
use crate::latency::Summary;
use crate::process::Worker;
use crate::progress::progress;
use crate::protocol::{Durable, Opening, Request, Timed};
use crate::raw::{APPEND_BYTES, RawFile, Way};
use crate::report::{Measured, Section, Unit};

/// Counters of records that only this section inserts; each measurement has 2^28.
const FIRST: u64 = 1 << 40;
/// Threads that share syncs.
const MANY_THREADS: u64 = 8;
/// A raw measurement lasts this part of an engine's.
const RAW_PART: f64 = 1.0 / 3.0;

/// An engine's two stores.
struct Stores {
    new: Worker,
    base: Worker,
}

/// An engine's figures.
#[derive(Default)]
struct Figures {
    new: Measured,
    base: Measured,
    many: Measured,
    latencies: Vec<Summary>,
}

/// The raw limit of both ways.
#[derive(Default)]
struct Raw {
    before: [Measured; 2],
    after: [Measured; 2],
    around_new: [Measured; 2],
    around_base: [Measured; 2],
}

/// Writes to new stores and to the base stores.
pub fn measure(run: &Run) -> anyhow::Result<Section> {
    let seconds = run.arguments.durable_seconds;
    let mut raw_files = Vec::new();
    for way in Way::ALL {
        raw_files.push(RawFile::prepare(run.dir(), way)?);
    }
    let mut tophash = open(run, EngineName::Tophash)?;
    let mut heed = open(run, EngineName::Heed)?;
    let (mut tophash_figures, mut heed_figures) = (Figures::default(), Figures::default());
    let mut raw = Raw::default();
    let mut counters = Counters(FIRST);
    for round in 0..run.arguments.dear_rounds() {
        progress!("durable writes: round {} of {}", round + 1, run.arguments.dear_rounds());
        let before = measure_raw(&mut raw_files, seconds * RAW_PART)?;
        tophash_figures.measure_new(&mut tophash, seconds, &mut counters)?;
        let between = measure_raw(&mut raw_files, seconds * RAW_PART)?;
        tophash_figures.measure_base(&mut tophash, seconds, &mut counters)?;
        let after = measure_raw(&mut raw_files, seconds * RAW_PART)?;
        raw.add(before, between, after);
        heed_figures.measure_new(&mut heed, seconds, &mut counters)?;
        heed_figures.measure_base(&mut heed, seconds, &mut counters)?;
        tophash_figures.measure_many(&mut tophash, seconds, &mut counters)?;
        heed_figures.measure_many(&mut heed, seconds, &mut counters)?;
    }
    for worker in [tophash.new, tophash.base, heed.new, heed.base] {
        worker.close()?;
    }
    Ok(section(run, tophash_figures, heed_figures, raw))
}

fn section(run: &Run, tophash: Figures, heed: Figures, raw: Raw) -> Section {
    let mut section = Section {
        title: "Single durable writes",
        columns: vec!["tophash", "heed", "raw pwrite", "raw mapping"],
        ratios: vec![(0, 1), (0, 2), (0, 3)],
        rows: Vec::new(),
        notes: Vec::new(),
    };
    let speedups = [&tophash, &heed].map(|figures| Measured::ratios(&figures.many, &figures.new));
    let latencies: Vec<_> = tophash.latencies().into_iter().zip(heed.latencies()).collect();
    let with_raw = |tophash: Measured, heed: Measured, [pwrite, mapping]: [Measured; 2]| {
        [tophash, heed, pwrite, mapping].map(Measured::some)
    };
    section.row("1 thread, new store", Unit::PerSecond, with_raw(tophash.new, heed.new, raw.around_new));
    section.row("1 thread, full store", Unit::PerSecond, with_raw(tophash.base, heed.base, raw.around_base));
    for ((name, tophash), (_, heed)) in latencies {
        section.row(format!("1 thread, new store, latency {name}"), Unit::Nanos, [Some(tophash), Some(heed)]);
    }
    section.row(format!("{MANY_THREADS} threads, new store"), Unit::PerSecond, [tophash.many.some(), heed.many.some()]);
    section.row(format!("... {MANY_THREADS} threads / 1 thread"), Unit::Ratio, speedups);
    let only_raw = |[pwrite, mapping]: [Measured; 2]| [None, None, pwrite.some(), mapping.some()];
    section.row("raw limit before tophash, new store", Unit::PerSecond, only_raw(raw.before));
    section.row("raw limit after it", Unit::PerSecond, only_raw(raw.after));
    section.note(format!(
        "{} s each, raw {:.2} s each; SyncPolicy::Always, heed: one transaction per write, no MDB_NOSYNC",
        run.arguments.durable_seconds,
        run.arguments.durable_seconds * RAW_PART
    ));
    section.note(format!(
        "raw: {APPEND_BYTES} bytes and fdatasync, over and over, into a file of zeroes that was written in 4 KiB pieces \
         and synced; beside an engine's row: the mean of right before and right after tophash's"
    ));
    section.note(format!(
        "full store: {} records, filled with SyncPolicy::Manual and opened again with Always",
        run.arguments.records
    ));
    section
}

/// Hands out counters that were never used.
struct Counters(u64);

impl Counters {
    fn next(&mut self) -> u64 {
        let first = self.0;
        self.0 += 1 << 28;
        first
    }
}

impl Figures {
    fn measure_new(&mut self, stores: &mut Stores, seconds: f64, counters: &mut Counters) -> anyhow::Result<()> {
        let timed = write(&mut stores.new, 1, seconds, counters)?;
        self.new.push(timed.rate());
        self.latencies.extend(timed.latency);
        Ok(())
    }

    fn measure_base(&mut self, stores: &mut Stores, seconds: f64, counters: &mut Counters) -> anyhow::Result<()> {
        self.base.push(write(&mut stores.base, 1, seconds, counters)?.rate());
        Ok(())
    }

    fn measure_many(&mut self, stores: &mut Stores, seconds: f64, counters: &mut Counters) -> anyhow::Result<()> {
        self.many.push(write(&mut stores.new, MANY_THREADS, seconds, counters)?.rate());
        Ok(())
    }

    /// Each percentile with the rounds' figures.
    fn latencies(&self) -> Vec<(&'static str, Measured)> {
        let names = Summary::default().named().map(|(name, _)| name);
        let mut measured = names.map(|name| (name, Measured::default()));
        for latency in &self.latencies {
            for ((_, measured), (_, nanos)) in measured.iter_mut().zip(latency.named()) {
                measured.push(nanos as f64);
            }
        }
        measured.into()
    }
}

impl Raw {
    fn add(&mut self, before: [f64; 2], between: [f64; 2], after: [f64; 2]) {
        for way in 0..2 {
            self.before[way].push(before[way]);
            self.after[way].push(between[way]);
            self.around_new[way].push(f64::midpoint(before[way], between[way]));
            self.around_base[way].push(f64::midpoint(between[way], after[way]));
        }
    }
}

fn open(run: &Run, engine: EngineName) -> anyhow::Result<Stores> {
    let start = |purpose| {
        let opening = Opening { is_durable: true, ..run.opening(engine, purpose) };
        run.start(engine, opening).map(|(worker, _)| worker)
    };
    Ok(Stores { new: start("durable")?, base: start(PURPOSE)? })
}

fn write(worker: &mut Worker, threads: u64, seconds: f64, counters: &mut Counters) -> anyhow::Result<Timed> {
    worker.ask(&Request::Durable(Durable { threads, seconds, first: counters.next() }))
}

fn measure_raw(files: &mut [RawFile], seconds: f64) -> anyhow::Result<[f64; 2]> {
    let mut rates = [0.0; 2];
    for (rate, file) in rates.iter_mut().zip(files) {
        *rate = file.measure(seconds)?.rate();
    }
    Ok(rates)
}
