//! The operations that are measured. Deriving the key is outside the timed part; what a caller would do with the
//! answer (comparing the value's bytes) is inside.

use fastrand::Rng;
use tophash::{Result, Store};

use super::latency::Clock;
use super::population::Population;
use super::runner::Operation;
use crate::trace::record::Recorder;
use crate::trace::{Call, Print};

/// A thread's buffers and random numbers.
pub struct Scratch {
    thread: u64,
    random: Rng,
    key: Vec<u8>,
    other_key: Vec<u8>,
    value: Vec<u8>,
}

impl Scratch {
    fn new(thread: u64) -> Self {
        Scratch {
            thread,
            random: Rng::with_seed(thread + 1),
            key: Vec::new(),
            other_key: Vec::new(),
            value: Vec::new(),
        }
    }
}

/// Where an operation works.
#[derive(Clone, Copy)]
pub struct Target<'a> {
    /// The store.
    pub store: &'a Store,
    /// What is in it.
    pub population: &'a Population,
    /// Where calls are noted, outside the timed part.
    pub recorder: Option<&'a Recorder>,
}

impl Target<'_> {
    fn note(&self, thread: u64, call: impl FnOnce() -> Call) {
        if let Some(recorder) = self.recorder.filter(|recorder| recorder.is_active()) {
            recorder.add(thread, call());
        }
    }
}

fn put(key: &[u8], value: &[u8]) -> Call {
    let (key_bytes, value_bytes) = (key.len() as u64, value.len() as u64);
    Call::Put { key: Print::of(key), key_bytes, value_bytes, value: Print::of(value) }
}

/// Inserts the first filling's records.
pub struct Fill<'a>(pub Target<'a>);

impl Operation for Fill<'_> {
    type State = Scratch;

    fn state(&self, thread: u64) -> Scratch {
        Scratch::new(thread)
    }

    fn run(&self, scratch: &mut Scratch, i: u64, clock: &mut impl Clock) -> Result<bool> {
        let Target { store, population, .. } = self.0;
        let counter = population.initial(i);
        population.key(counter, &mut scratch.key);
        population.value(counter, 0, &mut scratch.value);
        self.0.note(scratch.thread, || put(&scratch.key, &scratch.value));
        clock.time(|| Ok(store.insert(&scratch.key, &scratch.value)?.is_none()))
    }
}

/// Gets random live records and compares every byte.
pub struct ReadHit<'a>(pub Target<'a>);

impl Operation for ReadHit<'_> {
    type State = Scratch;

    fn state(&self, thread: u64) -> Scratch {
        Scratch::new(thread)
    }

    fn run(&self, scratch: &mut Scratch, _i: u64, clock: &mut impl Clock) -> Result<bool> {
        let Target { store, population, .. } = self.0;
        let counter = population.live(scratch.random.u64(..));
        population.key(counter, &mut scratch.key);
        self.0.note(scratch.thread, || Call::Get { key: Print::of(&scratch.key) });
        clock.time(|| Ok(store.get(&scratch.key)?.is_some_and(|value| population.is_value(counter, &value))))
    }
}

/// Gets keys that are not there.
pub struct ReadMiss<'a>(pub Target<'a>);

impl Operation for ReadMiss<'_> {
    type State = Scratch;

    fn state(&self, thread: u64) -> Scratch {
        Scratch::new(thread)
    }

    fn run(&self, scratch: &mut Scratch, _i: u64, clock: &mut impl Clock) -> Result<bool> {
        let Target { store, population, .. } = self.0;
        population.key(population.absent(scratch.random.u64(..)), &mut scratch.key);
        self.0.note(scratch.thread, || Call::Get { key: Print::of(&scratch.key) });
        clock.time(|| Ok(store.get(&scratch.key)?.is_none()))
    }
}

/// Gets random live records, several in one call. An operation is a call.
pub struct GetMany<'a> {
    /// Where.
    pub target: Target<'a>,
    /// Keys a call.
    pub batch: usize,
}

/// The keys of a call beside the usual things.
pub struct ManyScratch {
    thread: u64,
    random: Rng,
    counters: Vec<u64>,
    keys: Vec<Vec<u8>>,
}

impl Operation for GetMany<'_> {
    type State = ManyScratch;

    fn state(&self, thread: u64) -> ManyScratch {
        let keys = vec![Vec::new(); self.batch];
        ManyScratch { thread, random: Rng::with_seed(thread + 1), counters: vec![0; self.batch], keys }
    }

    fn run(&self, scratch: &mut ManyScratch, _i: u64, clock: &mut impl Clock) -> Result<bool> {
        let Target { store, population, .. } = self.target;
        for (counter, key) in scratch.counters.iter_mut().zip(&mut scratch.keys) {
            *counter = population.live(scratch.random.u64(..));
            population.key(*counter, key);
        }
        self.target.note(scratch.thread, || Call::GetMany { keys: scratch.keys.len() as u64 });
        clock.time(|| {
            let values = store.get_many(&scratch.keys)?;
            let is_right = |(value, &counter): (&Option<tophash::Value<'_>>, &u64)| {
                value.as_ref().is_some_and(|value| population.is_value(counter, value))
            };
            Ok(values.len() == scratch.counters.len() && values.iter().zip(&scratch.counters).all(is_right))
        })
    }
}

/// Gives random live records a new value.
pub struct Update<'a>(pub Target<'a>);

impl Operation for Update<'_> {
    type State = Scratch;

    fn state(&self, thread: u64) -> Scratch {
        Scratch::new(thread)
    }

    fn run(&self, scratch: &mut Scratch, i: u64, clock: &mut impl Clock) -> Result<bool> {
        let Target { store, population, .. } = self.0;
        let counter = population.live(scratch.random.u64(..));
        population.key(counter, &mut scratch.key);
        population.value(counter, i + 1, &mut scratch.value);
        self.0.note(scratch.thread, || put(&scratch.key, &scratch.value));
        clock.time(|| Ok(store.insert(&scratch.key, &scratch.value)?.is_some()))
    }
}

/// Removes a live record and inserts a fresh one. An operation is both.
pub struct Churn<'a>(pub Target<'a>);

impl Operation for Churn<'_> {
    type State = Scratch;

    fn state(&self, thread: u64) -> Scratch {
        Scratch::new(thread)
    }

    fn run(&self, scratch: &mut Scratch, i: u64, clock: &mut impl Clock) -> Result<bool> {
        let Target { store, population, .. } = self.0;
        let (gone, fresh) = population.replacement(i);
        population.key(gone, &mut scratch.key);
        population.key(fresh, &mut scratch.other_key);
        population.value(fresh, 0, &mut scratch.value);
        self.0.note(scratch.thread, || Call::Remove { key: Print::of(&scratch.key) });
        self.0.note(scratch.thread, || put(&scratch.other_key, &scratch.value));
        clock.time(|| {
            let removed = store.remove(&scratch.key)?.is_some();
            Ok(store.insert(&scratch.other_key, &scratch.value)?.is_none() && removed)
        })
    }
}

/// Derives key and value of a live record and compares it with itself: what every operation costs without a store.
pub struct Derive<'a>(pub &'a Population);

impl Operation for Derive<'_> {
    type State = Scratch;

    fn state(&self, thread: u64) -> Scratch {
        Scratch::new(thread)
    }

    fn run(&self, scratch: &mut Scratch, _i: u64, clock: &mut impl Clock) -> Result<bool> {
        let counter = self.0.live(scratch.random.u64(..));
        self.0.key(counter, &mut scratch.key);
        self.0.value(counter, 0, &mut scratch.value);
        std::hint::black_box(&scratch.key);
        clock.time(|| Ok(self.0.is_value(counter, std::hint::black_box(&scratch.value))))
    }
}
