//! Inserts of new records, one by one or in batches, and removals in a batch.

use std::cell::RefCell;
use std::time::Instant;

use anyhow::ensure;

use super::threads;
use crate::engine::Engine;
use crate::latency::Latencies;
use crate::machine;
use crate::population::Population;
use crate::protocol::{Insert, Peak, Remove, Timed};

/// Single inserts between two looks at the time.
const LOOK_EVERY: u64 = 32;
/// Inserts between two looks at the size of the index.
const INDEX_EVERY: u64 = 4_096;
/// Inserts between two looks at the process's memory.
const MEMORY_EVERY: u64 = 65_536;
/// Below this the fixed parts of a file outweigh the records.
const PEAK_RECORDS_MIN: u64 = 1_000_000;
/// Counters between the threads' first records.
const THREAD_COUNTERS: u64 = 1 << 28;

/// What a thread did.
struct Done {
    records: u64,
    latencies: Option<Latencies>,
    peak: Option<Peak>,
}

/// Inserts records with consecutive counters.
pub fn insert<E: Engine>(engine: &E, population: Population, request: Insert) -> anyhow::Result<Timed> {
    let threads = request.threads.max(1);
    let (span, done) = threads::run(threads, |thread, gate| {
        let work = Work {
            engine,
            population,
            first: request.first + thread * THREAD_COUNTERS,
            records: request.records / threads,
            seconds_max: request.seconds_max.unwrap_or(f64::INFINITY),
            watch: request.is_watched.then(|| RefCell::new(Watch::new(request.records))),
        };
        let latencies = if request.is_timed { Some(Latencies::new()?) } else { None };
        gate.pass(|| match request.batch {
            1 => work.one_by_one(latencies),
            batch => work.in_batches(batch, latencies),
        })
    })?;
    let mut latencies: Option<Latencies> = None;
    for done in &done {
        match (&mut latencies, &done.latencies) {
            (Some(all), Some(one)) => all.add(one)?,
            (None, Some(_)) => {
                let mut all = Latencies::new()?;
                done.latencies.as_ref().map_or(Ok(()), |one| all.add(one))?;
                latencies = Some(all);
            }
            (_, None) => {}
        }
    }
    Ok(Timed {
        operations: done.iter().map(|done| done.records).sum(),
        seconds: span.as_secs_f64(),
        latency: latencies.and_then(|latencies| latencies.summary()),
        peak: done.iter().find_map(|done| done.peak),
    })
}

struct Work<'e, E> {
    engine: &'e E,
    population: Population,
    first: u64,
    records: u64,
    seconds_max: f64,
    watch: Option<RefCell<Watch>>,
}

impl<E: Engine> Work<'_, E> {
    fn one_by_one(self, mut latencies: Option<Latencies>) -> anyhow::Result<Done> {
        let (mut key, mut value) = (self.population.key_buffer(), self.population.value_buffer());
        let started = Instant::now();
        let mut records = 0;
        while records < self.records {
            self.population.key(self.first + records, &mut key);
            self.population.value(self.first + records, 0, &mut value);
            match &mut latencies {
                Some(latencies) => latencies.time(|| self.engine.insert(&key, &value))?,
                None => self.engine.insert(&key, &value)?,
            }
            records += 1;
            if let Some(watch) = &self.watch {
                watch.borrow_mut().look(self.engine, records);
            }
            if records.is_multiple_of(LOOK_EVERY) && started.elapsed().as_secs_f64() > self.seconds_max {
                break;
            }
        }
        Ok(self.done(records, latencies))
    }

    /// A batch of 0 is all of them in one.
    fn in_batches(self, batch: u64, mut latencies: Option<Latencies>) -> anyhow::Result<Done> {
        let batch = if batch == 0 { self.records } else { batch };
        let (mut key, mut value) = (self.population.key_buffer(), self.population.value_buffer());
        let started = Instant::now();
        let mut records = 0;
        while records < self.records && started.elapsed().as_secs_f64() <= self.seconds_max {
            let size = batch.min(self.records - records);
            let begun = Instant::now();
            self.engine.change_many(|changes| {
                for counter in self.first + records..self.first + records + size {
                    self.population.key(counter, &mut key);
                    self.population.value(counter, 0, &mut value);
                    changes.insert(&key, &value)?;
                }
                Ok(())
            })?;
            if let Some(latencies) = &mut latencies {
                latencies.record(begun.elapsed());
            }
            records += size;
        }
        Ok(self.done(records, latencies))
    }

    fn done(self, records: u64, latencies: Option<Latencies>) -> Done {
        let peak = self.watch.map(|watch| {
            let mut watch = watch.into_inner();
            watch.look_at_memory();
            watch.peak
        });
        Done { records, latencies, peak }
    }
}

/// Removes the even counters of a range, in one batch.
pub fn remove<E: Engine>(engine: &E, population: Population, request: Remove) -> anyhow::Result<Timed> {
    let mut key = population.key_buffer();
    let started = Instant::now();
    let mut removed = 0;
    engine.change_many(|changes| {
        for counter in (0..request.end).step_by(2) {
            population.key(counter, &mut key);
            ensure!(changes.remove(&key)? != Some(false), "record {counter} was not there");
            removed += 1;
        }
        Ok(())
    })?;
    Ok(Timed { operations: removed, seconds: started.elapsed().as_secs_f64(), latency: None, peak: None })
}

/// Watches sizes while records come in.
struct Watch {
    from: u64,
    peak: Peak,
}

impl Watch {
    fn new(records: u64) -> Self {
        Watch { from: PEAK_RECORDS_MIN.min(records / 2), peak: Peak::default() }
    }

    fn look_at_memory(&mut self) {
        self.peak.anonymous_bytes = self.peak.anonymous_bytes.max(machine::anonymous_bytes());
    }

    fn look(&mut self, engine: &impl Engine, inserted: u64) {
        if inserted.is_multiple_of(MEMORY_EVERY) {
            self.look_at_memory();
        }
        if inserted < self.from || !inserted.is_multiple_of(INDEX_EVERY) {
            return;
        }
        if let Some((bytes, records)) = engine.index() {
            let each = bytes as f64 / records.max(1) as f64;
            if each > self.peak.index_bytes_per_record {
                self.peak.index_bytes_per_record = each;
                self.peak.index_records = records;
            }
        }
    }
}
