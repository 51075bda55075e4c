//! Churn: remove one live record, insert a fresh one, over and over.
//!
//! A record is a slot and a generation: a step replaces slot s of generation g by slot s of generation g + 1. Each round of
//! steps visits every slot once, in another pseudo-random order, so that what goes is neither the oldest nor the newest.

use std::time::Instant;

use anyhow::ensure;
use tophash_bench_support::order::Order;

use super::threads;
use crate::engine::{Engine, Reader};
use crate::population::Population;
use crate::protocol::{Churn, Timed};

/// Steps between two looks at the time.
const LOOK_EVERY: u64 = 32;
/// Live records that a check looks for.
const CHECKED_MAX: u64 = 200_000;

/// The counter of the live record with this number (below `records`), after so many steps.
fn live_counter(records: u64, seed: u64, done: u64, number: u64) -> u64 {
    let (round, visited) = (done / records, done % records);
    let slot = Order::new(records, seed, round).slot(number);
    (round + u64::from(number < visited)) * records + slot
}

/// Makes steps. Fails if a record that should be there is not, as far as the engine tells.
pub fn churn<E: Engine>(engine: &E, population: Population, request: Churn) -> anyhow::Result<Timed> {
    let Churn { records, seed, .. } = request;
    let (span, done) = threads::run(1, |_, gate| {
        let (mut key, mut value) = (population.key_buffer(), population.value_buffer());
        gate.pass(|| {
            let begun = Instant::now();
            let mut order = Order::new(records, seed, request.done / records);
            for step in request.done..request.done + request.steps {
                let (round, visit) = (step / records, step % records);
                if visit == 0 {
                    order = Order::new(records, seed, round);
                }
                let old = round * records + order.slot(visit);
                population.key(old, &mut key);
                ensure!(engine.remove(&key)? != Some(false), "record {old} was not there");
                population.key(old + records, &mut key);
                population.value(old + records, 0, &mut value);
                engine.insert(&key, &value)?;
                if (step + 1) % LOOK_EVERY == 0 && begun.elapsed().as_secs_f64() >= request.seconds_max {
                    return Ok(step + 1 - request.done);
                }
            }
            Ok(request.steps)
        })
    })?;
    Ok(Timed { operations: done.iter().sum(), seconds: span.as_secs_f64(), latency: None, peak: None })
}

/// Looks for live records, and for the ones that they replaced. Fails if any answer is wrong.
pub fn check<E: Engine>(engine: &E, population: Population, request: Churn) -> anyhow::Result<()> {
    let mut reader = engine.reader()?;
    let mut key = population.key_buffer();
    for number in 0..request.records.min(CHECKED_MAX) {
        let live = live_counter(request.records, request.seed, request.done, number);
        population.key(live, &mut key);
        let is_right = reader.get(&key, |value| value.is_some_and(|value| population.is_value(live, value)))?;
        ensure!(is_right, "record {live} is not there, or wrong");
        if let Some(gone) = live.checked_sub(request.records) {
            population.key(gone, &mut key);
            ensure!(reader.get(&key, |value| value.is_none())?, "record {gone} is still there");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// The oracle: a set of counters, replaced one by one.
    #[test]
    fn live_records_are_exactly_those_that_churn_has_left() {
        for records in [1, 2, 3, 7, 64, 100] {
            let mut live: HashSet<u64> = (0..records).collect();
            for step in 0..3 * records {
                let said: HashSet<u64> = (0..records).map(|number| live_counter(records, 5, step, number)).collect();
                assert_eq!(said, live, "{records} records, step {step}");
                let old = step / records * records + Order::new(records, 5, step / records).slot(step % records);
                assert!(live.remove(&old) && live.insert(old + records), "{records} records, step {step}");
            }
        }
    }
}
