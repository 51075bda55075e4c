//! The phases, one after another on one store. Each is two passes: throughput, then latency.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tophash::{Options, Store, SyncPolicy};

use super::Phase;
use super::latency::clock_cost_nanos;
use super::operations::{Churn, Derive, Fill, GetMany, ReadHit, ReadMiss, Target, Update};
use super::population::Population;
use super::report::{PhaseReport, Report};
use super::runner::{self, Operation, Pass, Until};
use crate::trace::record::Recorder;
use crate::trace::{Call, Syncs};
use crate::{output, progress};

/// A benchmark under way.
pub struct Bench {
    /// The folder for its stores.
    pub folder: PathBuf,
    /// What is in the store.
    pub population: Population,
    /// When the store syncs.
    pub sync: SyncPolicy,
    /// How long durable writes are made.
    pub durable_seconds: u64,
    /// The phases to measure; all if there are none.
    pub only: Vec<Phase>,
    /// What was measured so far.
    pub report: Report,
    /// Where the calls of the passes for throughput are noted.
    pub recorder: Option<Recorder>,
}

impl Bench {
    /// Runs the phases.
    pub fn run(&mut self) -> anyhow::Result<()> {
        self.report.clock_cost_nanos = clock_cost_nanos();
        let derive = runner::throughput(&Derive(&self.population), 1, Until::Operations(200_000))?;
        self.report.derive_cost_nanos =
            u64::try_from(derive.time.as_nanos() / u128::from(derive.operations.max(1))).unwrap_or(u64::MAX);

        let needs_store = [Phase::Fill, Phase::ReadHit, Phase::ReadMiss, Phase::GetMany, Phase::Update, Phase::Churn];
        if needs_store.into_iter().any(|phase| self.measures(phase)) {
            self.run_on_one_store()?;
        }
        if self.measures(Phase::Durable) {
            self.durable()?;
        }
        Ok(())
    }

    fn measures(&self, phase: Phase) -> bool {
        self.only.is_empty() || self.only.contains(&phase)
    }

    fn run_on_one_store(&mut self) -> anyhow::Result<()> {
        let store = self.fill()?;
        // A checkpoint of the fill should not run beside the first reads and be counted as theirs.
        store.checkpoint()?;
        let keys = self.report.settings.get_many_keys;
        for phase in [Phase::ReadHit, Phase::ReadMiss, Phase::GetMany, Phase::Update, Phase::Churn] {
            if !self.measures(phase) {
                continue;
            }
            let bar = self.bar(phase);
            self.remark(phase);
            let target = self.target(&store);
            let (throughput, latency) = match phase {
                Phase::ReadHit => self.two_passes(&ReadHit(target), 1)?,
                Phase::ReadMiss => self.two_passes(&ReadMiss(target), 1)?,
                Phase::GetMany => self.two_passes(&GetMany { target, batch: keys }, keys as u64)?,
                Phase::Update => self.two_passes(&Update(target), 1)?,
                _ => {
                    let throughput =
                        self.churn(&store, |churn, threads, until| runner::throughput(churn, threads, until))?;
                    self.record(false);
                    (throughput, self.churn(&store, |churn, threads, until| runner::latency(churn, threads, until))?)
                }
            };
            bar.finish_and_clear();
            let keys = if phase == Phase::GetMany { keys as u64 } else { 1 };
            self.add(PhaseReport::new(phase, &throughput, &latency, keys, store.disk_bytes()?));
        }
        self.report.stats = Some(store.stats());
        store.close()?;
        Ok(())
    }

    /// Fills the store that the other phases work on; before it another one for the latencies, if they are wanted:
    /// a fill cannot be repeated.
    fn fill(&mut self) -> anyhow::Result<Store> {
        let threads = self.report.settings.threads;
        let until = Until::Operations(self.population.records());
        let bar = self.bar(Phase::Fill);
        let mut latency = None;
        if self.measures(Phase::Fill) {
            let path = self.folder.join("fill-latency.tophash");
            let store = self.create(&path, self.sync)?;
            let pass = runner::latency(&Fill(self.target(&store)), threads, until)?;
            latency = Some(pass);
            store.close()?;
            fs::remove_dir_all(&path).with_context(|| format!("remove {}", path.display()))?;
        }
        let store = self.create(&self.folder.join("bench.tophash"), self.sync)?;
        self.remark(Phase::Fill);
        self.note_open(self.sync);
        let pass = runner::throughput(&Fill(self.target(&store)), threads, until)?;
        self.record(false);
        bar.finish_and_clear();
        if let Some(latency) = latency {
            self.add(PhaseReport::new(Phase::Fill, &pass, &latency, 1, store.disk_bytes()?));
        }
        Ok(store)
    }

    fn two_passes<O: Operation>(&self, operation: &O, keys: u64) -> anyhow::Result<(Pass, Pass)> {
        let settings = &self.report.settings;
        let until = Until::Operations(settings.operations.div_ceil(keys));
        let throughput = runner::throughput(operation, settings.threads, until)?;
        self.record(false);
        Ok((throughput, runner::latency(operation, settings.threads, until)?))
    }

    /// A pass of churn, cut where a round of the population ends: beyond it a slot could be visited by two threads.
    fn churn(
        &mut self,
        store: &Store,
        run: impl Fn(&Churn<'_>, u64, Until) -> anyhow::Result<Pass>,
    ) -> anyhow::Result<Pass> {
        let settings = &self.report.settings;
        let mut all = Pass::empty();
        while all.operations < settings.operations {
            let section = (settings.operations - all.operations).min(self.population.left_in_round());
            let pass = run(&Churn(self.target(store)), settings.threads, Until::Operations(section))?;
            self.population.replace(pass.operations);
            all.append(&pass);
        }
        Ok(all)
    }

    /// Inserts into a store of its own whose every write is durable when it returns.
    fn durable(&mut self) -> anyhow::Result<()> {
        let bar = self.bar(Phase::Durable);
        let store = self.create(&self.folder.join("durable.tophash"), SyncPolicy::Always)?;
        let until = Until::Time(Duration::from_secs(self.durable_seconds));
        self.remark(Phase::Durable);
        self.note_open(SyncPolicy::Always);
        let syncs_before = store.stats().commit.syncs;
        let pass = runner::latency(&Fill(self.target(&store)), self.report.settings.threads, until)?;
        let syncs = store.stats().commit.syncs - syncs_before;
        bar.finish_and_clear();
        let mut report = PhaseReport::new(Phase::Durable, &pass, &pass, 1, store.disk_bytes()?);
        // Both figures come from the same pass here, and so do its wrong answers.
        report.wrong = pass.wrong;
        report.syncs = Some(syncs);
        self.add(report);
        store.close()?;
        Ok(())
    }

    fn create(&self, path: &Path, sync: SyncPolicy) -> anyhow::Result<Store> {
        Ok(Options::new().create_new(true).sync(sync).open(path)?)
    }

    fn target<'a>(&'a self, store: &'a Store) -> Target<'a> {
        Target { store, population: &self.population, recorder: self.recorder.as_ref() }
    }

    /// Calls are noted from here on, or not.
    fn record(&self, active: bool) {
        if let Some(recorder) = &self.recorder {
            recorder.set_active(active);
        }
    }

    /// What is noted from here on is a phase's.
    fn remark(&self, phase: Phase) {
        self.record(true);
        if let Some(recorder) = &self.recorder {
            recorder.remark(&format!("phase {}", phase.name()));
        }
    }

    fn note_open(&self, sync: SyncPolicy) {
        if let Some(recorder) = &self.recorder {
            let syncs = if sync == SyncPolicy::Always { Syncs::Always } else { Syncs::Later };
            recorder.add(0, Call::Open { syncs, records: 0 });
        }
    }

    fn add(&mut self, phase: PhaseReport) {
        self.report.phases.push(phase);
    }

    /// Only says what is going on: a bar that moves would be work inside what is measured.
    fn bar(&self, phase: Phase) -> indicatif::ProgressBar {
        let bar = progress::waiting(format!("{}, {}", phase.name(), output::records(self.population.records())));
        bar.tick();
        bar
    }
}
