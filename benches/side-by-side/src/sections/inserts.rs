//! Inserts from empty, growth included.

use super::Run;
use crate::engine::EngineName;
use crate::files;
use crate::latency::Summary;
use crate::progress::progress;
use crate::protocol::{Fill, Filled, Request};
use crate::report::{Measured, Section, Unit};

/// Rates of several fills.
#[derive(Default)]
struct Rates {
    inserts: Measured,
    with_sync: Measured,
}

impl Rates {
    fn add(&mut self, filled: &Filled, asked: u64) {
        let records = filled.records as f64;
        self.inserts.push(records / filled.seconds);
        self.with_sync.push(records / (filled.seconds + filled.sync_seconds));
        if filled.records < asked {
            self.inserts.remark(format!("first {}", Unit::Count.text(records)));
        }
    }
}

/// Fills new stores.
pub fn measure(run: &Run) -> anyhow::Result<Section> {
    let arguments = &run.arguments;
    let mut single: [Rates; 3] = Default::default();
    let mut batched: [Rates; 3] = Default::default();
    for round in 0..arguments.dear_rounds() {
        progress!("inserts: round {} of {}", round + 1, arguments.dear_rounds());
        for (i, engine) in EngineName::ALL.into_iter().enumerate() {
            single[i].add(&fill_new(run, engine, 1, false)?, arguments.records);
            if engine.is_persistent() {
                batched[i].add(&fill_new(run, engine, arguments.batch, false)?, arguments.records);
            }
        }
    }
    progress!("inserts: latencies");
    let mut latencies = Vec::new();
    for engine in EngineName::ALL {
        latencies.push(fill_new(run, engine, 1, true)?.latency);
    }

    let mut section = Section::engines("Inserts from empty");
    let [inserts, with_sync] = split(single);
    section.row("one by one", Unit::PerSecond, inserts);
    section.row("one by one, final sync included", Unit::PerSecond, with_sync);
    let [inserts, with_sync] = split(batched);
    section.row(format!("batches of {}", arguments.batch), Unit::PerSecond, inserts);
    section.row(format!("batches of {}, final sync included", arguments.batch), Unit::PerSecond, with_sync);
    for (i, (name, _)) in Summary::default().named().into_iter().enumerate() {
        let of =
            |latency: &Option<Summary>| latency.as_ref().map(|latency| Measured::once(latency.named()[i].1 as f64));
        section.row(format!("latency of one insert, {name}"), Unit::Nanos, latencies.iter().map(of));
    }
    section.note(format!(
        "one by one: survives kill -9 as soon as the call returns. tophash: SyncPolicy::Manual; heed: MDB_NOSYNC, one \
         transaction per insert, stopped after {} s (then it has grown less than the others); hashbrown keeps nothing",
        arguments.fill_seconds_max
    ));
    section.note("batches: tophash: Batch and apply; heed: one transaction per batch, MDB_NOSYNC; each atomic");
    section.note("latencies: another fill, one by one, measured once");
    Ok(section)
}

/// Fills a new store and removes it.
fn fill_new(run: &Run, engine: EngineName, batch: u64, is_timed: bool) -> anyhow::Result<Filled> {
    let is_slow = engine == EngineName::Heed && batch == 1;
    let opening = run.opening(engine, "fill");
    let path = opening.path.clone();
    let (mut worker, _) = run.start(engine, opening)?;
    let filled = worker.ask(&Request::Fill(Fill {
        records: run.arguments.records,
        batch,
        is_timed,
        is_watched: false,
        seconds_max: is_slow.then_some(run.arguments.fill_seconds_max),
    }))?;
    worker.close()?;
    if engine.is_persistent() {
        files::remove(&path)?;
    }
    Ok(filled)
}

/// Rates by engine → the same by kind.
fn split(rates: [Rates; 3]) -> [Vec<Option<Measured>>; 2] {
    let (inserts, with_sync) = rates.into_iter().map(|rates| (rates.inserts.some(), rates.with_sync.some())).unzip();
    [inserts, with_sync]
}
