//! Single writes that are durable when they return.

use std::time::Instant;

use super::threads;
use crate::engine::Engine;
use crate::latency::Latencies;
use crate::population::Population;
use crate::protocol::{Durable, Timed};

/// Counters between the threads' first records.
const THREAD_COUNTERS: u64 = 1 << 24;

/// Inserts new records, one by one, on one or more threads.
pub fn write<E: Engine>(engine: &E, population: Population, request: Durable) -> anyhow::Result<Timed> {
    let (span, done) = threads::run(request.threads, |thread, gate| {
        let (mut key, mut value) = (population.key_buffer(), population.value_buffer());
        let mut latencies = Latencies::new()?;
        gate.pass(|| {
            let begin = Instant::now();
            let mut counter = request.first + thread * THREAD_COUNTERS;
            let mut operations = 0;
            while begin.elapsed().as_secs_f64() < request.seconds {
                population.key(counter, &mut key);
                population.value(counter, &mut value);
                let started = Instant::now();
                engine.insert_durably(&key, &value)?;
                latencies.record(started.elapsed());
                counter += 1;
                operations += 1;
            }
            Ok((operations, latencies.summary()))
        })
    })?;
    Ok(Timed {
        operations: done.iter().map(|(operations, _)| operations).sum(),
        seconds: span.as_secs_f64(),
        latency: done.first().map(|(_, latency)| *latency),
    })
}
