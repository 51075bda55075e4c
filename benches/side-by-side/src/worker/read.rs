//! Random reads, every answer checked.

use std::hint::black_box;

use anyhow::ensure;

use super::threads;
use crate::engine::{Engine, Reader};
use crate::population::Population;
use crate::protocol::{Read, ReadKind, Timed};

/// Keys of a `get_many` call.
pub const MANY: usize = 32;

/// Reads on one or more threads. Fails if any answer is wrong.
pub fn read<E: Engine>(engine: &E, population: Population, request: Read) -> anyhow::Result<Timed> {
    let (span, wrong) = threads::run(request.threads, |thread, gate| {
        let random = fastrand::Rng::with_seed(request.seed.wrapping_add(thread << 32));
        // A transaction belongs to the thread that began it.
        let mut reader = engine.reader()?;
        gate.pass(|| match request.kind {
            ReadKind::Hits => hits(&mut reader, population, request, random),
            ReadKind::Absent => absent(&mut reader, population, request, random),
            ReadKind::Many => many(&mut reader, population, request, random),
            ReadKind::Nothing => nothing(population, request, random),
        })
    })?;
    let wrong: u64 = wrong.into_iter().sum();
    let operations = request.threads * request.reads;
    ensure!(wrong == 0, "{wrong} of {operations} answers are wrong");
    Ok(Timed { operations, seconds: span.as_secs_f64(), latency: None })
}

fn hits(
    reader: &mut impl Reader,
    population: Population,
    request: Read,
    mut random: fastrand::Rng,
) -> anyhow::Result<u64> {
    let (mut wrong, mut key) = (0, population.key_buffer());
    for _ in 0..request.reads {
        let counter = random.u64(0..request.records);
        population.key(counter, &mut key);
        let is_right = reader.get(&key, |value| value.is_some_and(|value| population.is_value(counter, value)))?;
        wrong += u64::from(!is_right);
    }
    Ok(wrong)
}

fn absent(
    reader: &mut impl Reader,
    population: Population,
    request: Read,
    mut random: fastrand::Rng,
) -> anyhow::Result<u64> {
    let (mut wrong, mut key) = (0, population.key_buffer());
    for _ in 0..request.reads {
        population.key(Population::absent(random.u64(..)), &mut key);
        wrong += u64::from(!reader.get(&key, |value| value.is_none())?);
    }
    Ok(wrong)
}

fn many(
    reader: &mut impl Reader,
    population: Population,
    request: Read,
    mut random: fastrand::Rng,
) -> anyhow::Result<u64> {
    let mut wrong = 0;
    let mut keys = vec![population.key_buffer(); MANY];
    let mut counters = [0; MANY];
    let mut left = request.reads;
    while left > 0 {
        let size = left.min(MANY as u64) as usize;
        for (counter, key) in counters.iter_mut().zip(&mut keys[..size]) {
            *counter = random.u64(0..request.records);
            population.key(*counter, key);
        }
        let mut right = 0;
        reader.get_many(&keys[..size], |i, value| {
            let is_right = value.is_some_and(|value| population.is_value(counters[i], value));
            right += u64::from(is_right);
            is_right
        })?;
        wrong += size as u64 - right;
        left -= size as u64;
    }
    Ok(wrong)
}

/// Derives the key and compares a value in the cache: what is not the engine's in [`hits`].
fn nothing(population: Population, request: Read, mut random: fastrand::Rng) -> anyhow::Result<u64> {
    let (mut key, mut value) = (population.key_buffer(), population.value_buffer());
    population.value(0, &mut value);
    for _ in 0..request.reads {
        population.key(random.u64(0..request.records), &mut key);
        black_box(&key);
        black_box(population.is_value(black_box(0), black_box(&value)));
    }
    Ok(0)
}
