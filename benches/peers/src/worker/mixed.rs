//! Readers beside one durable writer. What the writer's call has returned from must be found.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use anyhow::ensure;

use super::threads;
use crate::engine::Engine;
use crate::latency::Latencies;
use crate::population::Population;
use crate::protocol::{Mixed, ReadersAndWriter, Timed};

/// Reads between two looks at the time.
const LOOK_EVERY: u64 = 64;

/// Reads and writes for so long. Fails if any answer is wrong.
pub fn run<E: Engine>(engine: &E, population: Population, request: ReadersAndWriter) -> anyhow::Result<Mixed> {
    let acknowledged = AtomicU64::new(0);
    // A writer that fails must not leave the readers waiting, nor the other way round.
    let is_over = AtomicBool::new(false);
    let threads = request.readers + u64::from(request.is_written);
    let (span, done) = threads::run(threads, |thread, gate| {
        let (mut key, mut value) = (population.key_buffer(), population.value_buffer());
        let mut latencies = Latencies::new()?;
        gate.pass(|| {
            let begun = Instant::now();
            if thread == request.readers {
                while begun.elapsed().as_secs_f64() < request.seconds && !is_over.load(Ordering::Relaxed) {
                    let written = acknowledged.load(Ordering::Relaxed);
                    population.key(request.first + written, &mut key);
                    population.value(request.first + written, 0, &mut value);
                    let inserted = latencies.time(|| engine.insert(&key, &value));
                    is_over.fetch_or(inserted.is_err(), Ordering::Relaxed);
                    inserted?;
                    acknowledged.store(written + 1, Ordering::Release);
                }
                return Ok((latencies, 0));
            }
            let mut random = fastrand::Rng::with_seed(request.seed.wrapping_add(thread << 32));
            let (mut done, mut wrong) = (0_u64, 0_u64);
            while !done.is_multiple_of(LOOK_EVERY)
                || begun.elapsed().as_secs_f64() < request.seconds && !is_over.load(Ordering::Relaxed)
            {
                // Half of the reads are of what was written just now, as far as there is any.
                let new = acknowledged.load(Ordering::Acquire);
                let counter = if new > 0 && random.bool() {
                    request.first + new - 1 - random.u64(0..new.min(1_000))
                } else {
                    random.u64(0..request.records)
                };
                population.key(counter, &mut key);
                let check = |value: Option<&[u8]>| value.is_some_and(|value| population.is_value(counter, value));
                wrong += u64::from(!latencies.time(|| engine.get(&key, check))?);
                done += 1;
            }
            Ok((latencies, wrong))
        })
    })?;
    let wrong: u64 = done.iter().map(|(_, wrong)| wrong).sum();
    ensure!(wrong == 0, "{wrong} answers are wrong");
    let (mut reads, mut writes) = (Latencies::new()?, Latencies::new()?);
    for (thread, (latencies, _)) in done.iter().enumerate() {
        if thread as u64 == request.readers { writes.add(latencies)? } else { reads.add(latencies)? }
    }
    let timed = |latencies: &Latencies| {
        let latency = latencies.summary();
        let operations = latency.map_or(0, |latency| latency.operations);
        Timed { operations, seconds: span.as_secs_f64(), latency, peak: None }
    };
    Ok(Mixed { reads: timed(&reads), writes: timed(&writes) })
}
