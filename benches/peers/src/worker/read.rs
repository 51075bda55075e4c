//! Random reads, every answer checked.

use std::hint::black_box;
use std::time::Instant;

use anyhow::ensure;

use super::threads;
use crate::engine::{Engine, Reader};
use crate::population::Population;
use crate::protocol::{Read, ReadKind, Timed};

/// Keys of a `get_many` call.
const MANY: usize = 32;
/// Reads between two looks at the time.
const LOOK_EVERY: u64 = 256;

/// Reads on one or more threads. Fails if any answer is wrong.
pub fn read<E: Engine>(engine: &E, population: Population, request: Read) -> anyhow::Result<Timed> {
    let (span, done) = threads::run(request.threads, |thread, gate| {
        let random = fastrand::Rng::with_seed(request.seed.wrapping_add(thread << 32));
        // A transaction belongs to the thread that began it.
        let mut reader = engine.reader()?;
        let mut reading = Reading { population, request, random, begun: Instant::now(), done: 0, wrong: 0 };
        gate.pass(|| {
            reading.begun = Instant::now();
            match request.kind {
                ReadKind::Hits => reading.hits(&mut reader)?,
                ReadKind::Absent => reading.absent(&mut reader)?,
                ReadKind::Many => reading.many(&mut reader)?,
                ReadKind::Halved => reading.halved(&mut reader)?,
                ReadKind::Nothing => reading.nothing(),
            }
            Ok((reading.done, reading.wrong))
        })
    })?;
    let operations = done.iter().map(|(done, _)| done).sum();
    let wrong: u64 = done.iter().map(|(_, wrong)| wrong).sum();
    ensure!(wrong == 0, "{wrong} of {operations} answers are wrong");
    Ok(Timed { operations, seconds: span.as_secs_f64(), latency: None, peak: None })
}

/// The reads of a thread.
struct Reading {
    population: Population,
    request: Read,
    random: fastrand::Rng,
    begun: Instant,
    done: u64,
    wrong: u64,
}

impl Reading {
    /// Counts a read; false if it was the last one.
    #[inline]
    fn count(&mut self, is_right: bool) -> bool {
        self.wrong += u64::from(!is_right);
        self.done += 1;
        self.done < self.request.reads
            && (!self.done.is_multiple_of(LOOK_EVERY) || self.begun.elapsed().as_secs_f64() < self.request.seconds_max)
    }

    fn hits(&mut self, reader: &mut impl Reader) -> anyhow::Result<()> {
        let (population, mut key) = (self.population, self.population.key_buffer());
        loop {
            let counter = self.random.u64(0..self.request.records);
            population.key(counter, &mut key);
            let is_right = reader.get(&key, |value| value.is_some_and(|value| population.is_value(counter, value)))?;
            if !self.count(is_right) {
                return Ok(());
            }
        }
    }

    fn absent(&mut self, reader: &mut impl Reader) -> anyhow::Result<()> {
        let mut key = self.population.key_buffer();
        loop {
            self.population.key(Population::absent(self.random.u64(..)), &mut key);
            let is_right = reader.get(&key, |value| value.is_none())?;
            if !self.count(is_right) {
                return Ok(());
            }
        }
    }

    fn halved(&mut self, reader: &mut impl Reader) -> anyhow::Result<()> {
        let (population, mut key) = (self.population, self.population.key_buffer());
        loop {
            let counter = self.random.u64(0..self.request.records);
            population.key(counter, &mut key);
            let is_right = reader.get(&key, |value| match value {
                Some(value) => counter % 2 == 1 && population.is_value(counter, value),
                None => counter.is_multiple_of(2),
            })?;
            if !self.count(is_right) {
                return Ok(());
            }
        }
    }

    fn many(&mut self, reader: &mut impl Reader) -> anyhow::Result<()> {
        let population = self.population;
        let mut keys = vec![population.key_buffer(); MANY];
        let mut counters = [0; MANY];
        loop {
            for (counter, key) in counters.iter_mut().zip(&mut keys) {
                *counter = self.random.u64(0..self.request.records);
                population.key(*counter, key);
            }
            let mut right = 0;
            reader.get_many(&keys, |i, value| {
                let is_right = value.is_some_and(|value| population.is_value(counters[i], value));
                right += u64::from(is_right);
                is_right
            })?;
            self.wrong += MANY as u64 - right;
            self.done += MANY as u64;
            let looks = self.done.is_multiple_of(LOOK_EVERY);
            if self.done >= self.request.reads
                || looks && self.begun.elapsed().as_secs_f64() >= self.request.seconds_max
            {
                return Ok(());
            }
        }
    }

    /// Derives the key and compares a value in the cache: what is not the engine's in [`Reading::hits`].
    fn nothing(&mut self) {
        let (mut key, mut value) = (self.population.key_buffer(), self.population.value_buffer());
        self.population.value(0, 0, &mut value);
        loop {
            self.population.key(self.random.u64(0..self.request.records), &mut key);
            black_box(&key);
            let is_right = self.population.is_value(black_box(0), black_box(&value));
            if !self.count(is_right) {
                return;
            }
        }
    }
}
