//! YCSB's mixes: zipfian reads, updates and read-modify-writes, each an operation of its own.

use std::time::Instant;

use anyhow::ensure;

use super::threads;
use crate::engine::Engine;
use crate::latency::Latencies;
use crate::population::Population;
use crate::protocol::{Mixed, Timed, Ycsb};
use crate::zipf::Zipf;

/// Operations between two looks at the time.
const LOOK_EVERY: u64 = 64;

/// Runs a mix on one or more threads. Fails if any answer is wrong.
pub fn run<E: Engine>(engine: &E, population: Population, request: Ycsb) -> anyhow::Result<Mixed> {
    let zipf = Zipf::new(request.records, request.seed);
    let (span, done) = threads::run(request.threads, |thread, gate| {
        let mut random = fastrand::Rng::with_seed(request.seed.wrapping_add(thread << 32));
        let (mut reads, mut updates) = (Latencies::new()?, Latencies::new()?);
        let (mut key, mut value) = (population.key_buffer(), population.value_buffer());
        gate.pass(|| {
            let begun = Instant::now();
            let (mut done, mut wrong) = (0, 0);
            loop {
                let counter = zipf.record(&mut random);
                population.key(counter, &mut key);
                let check = |value: Option<&[u8]>| value.is_some_and(|value| population.is_value(counter, value));
                let is_update = random.u64(0..100) < request.update_percent;
                let is_right = if is_update {
                    // A version that nobody has written before: the thread and its operation.
                    population.value(counter, (thread + 1) << 48 | done, &mut value);
                    updates.time(|| -> anyhow::Result<bool> {
                        let is_right = !request.is_read_modify_write || engine.get(&key, check)?;
                        engine.insert(&key, &value)?;
                        Ok(is_right)
                    })?
                } else {
                    reads.time(|| engine.get(&key, check))?
                };
                wrong += u64::from(!is_right);
                done += 1;
                if done == request.operations
                    || done % LOOK_EVERY == 0 && begun.elapsed().as_secs_f64() >= request.seconds_max
                {
                    return Ok((wrong, reads, updates));
                }
            }
        })
    })?;
    let (mut reads, mut updates) = (Latencies::new()?, Latencies::new()?);
    let mut wrong = 0;
    for (of_thread, read, update) in &done {
        wrong += of_thread;
        reads.add(read)?;
        updates.add(update)?;
    }
    ensure!(wrong == 0, "{wrong} answers are wrong");
    let timed = |latencies: Latencies| {
        let latency = latencies.summary();
        let operations = latency.map_or(0, |latency| latency.operations);
        Timed { operations, seconds: span.as_secs_f64(), latency, peak: None }
    };
    Ok(Mixed { reads: timed(reads), writes: timed(updates) })
}
