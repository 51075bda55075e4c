//! Inserts from empty.

use std::time::Instant;

use crate::engine::{Engine, Writer};
use crate::latency::Latencies;
use crate::machine;
use crate::population::Population;
use crate::protocol::{Fill, Filled, Peak};

/// Inserts between two looks at the time.
const LOOK_EVERY: u64 = 256;
/// Inserts between two looks at the size of the index.
const INDEX_EVERY: u64 = 4_096;
/// Inserts between two looks at the process's memory.
const MEMORY_EVERY: u64 = 65_536;
/// Below this the fixed parts of a file outweigh the records.
const PEAK_RECORDS_MIN: u64 = 1_000_000;

/// Inserts the records 0, 1, 2, ...
pub fn fill<E: Engine>(engine: &mut E, population: Population, request: Fill) -> anyhow::Result<Filled> {
    let mut latencies = if request.is_timed { Some(Latencies::new()?) } else { None };
    let mut watch = request.is_watched.then(|| Watch::new(request.records));
    let (mut key, mut value) = (population.key_buffer(), population.value_buffer());
    let mut writer = engine.writer(request.batch)?;
    let started = Instant::now();
    let mut records = 0;
    while records < request.records {
        population.key(records, &mut key);
        population.value(records, &mut value);
        if let Some(latencies) = &mut latencies {
            let started = Instant::now();
            writer.insert(&key, &value)?;
            latencies.record(started.elapsed());
        } else {
            writer.insert(&key, &value)?;
        }
        records += 1;
        if let Some(watch) = &mut watch {
            watch.look::<E>(&writer, records);
        }
        if records.is_multiple_of(LOOK_EVERY)
            && request.seconds_max.is_some_and(|seconds| started.elapsed().as_secs_f64() > seconds)
        {
            break;
        }
    }
    writer.finish()?;
    let seconds = started.elapsed().as_secs_f64();
    if let Some(watch) = &mut watch {
        watch.look_at_memory();
    }
    let started = Instant::now();
    engine.sync()?;
    Ok(Filled {
        records,
        seconds,
        sync_seconds: started.elapsed().as_secs_f64(),
        latency: latencies.map(|latencies| latencies.summary()),
        peak: watch.map(|watch| watch.peak),
    })
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

    fn look<E: Engine>(&mut self, writer: &E::Writer<'_>, inserted: u64) {
        if inserted.is_multiple_of(MEMORY_EVERY) {
            self.look_at_memory();
        }
        if inserted < self.from || !inserted.is_multiple_of(INDEX_EVERY) {
            return;
        }
        if let Some((bytes, records)) = E::index(writer) {
            let each = bytes as f64 / records.max(1) as f64;
            if each > self.peak.index_bytes_per_record {
                self.peak.index_bytes_per_record = each;
                self.peak.index_records = records;
            }
        }
    }
}
