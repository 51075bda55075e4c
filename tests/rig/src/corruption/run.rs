//! Runs many cases.

use std::fmt::{self, Display};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::base::Base;
use super::exercise::{Effort, exercise};
use super::plain::{Bits, cut};
use super::{Licence, mutants};
use crate::random::{Random, mix};

/// A case that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);

/// How many cases of each kind to run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Flipped bits.
    pub flips: u64,
    /// Truncated files, over all lengths with an even step.
    pub cuts: u64,
    /// Structures with mended checksums.
    pub mutants: u64,
    /// Of every random choice.
    pub seed: u64,
    /// Threads.
    pub threads: u64,
    /// More memory than this is too much for one case.
    pub memory_bytes: usize,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Cases by kind.
    pub flips: u64,
    /// See [`flips`](Self::flips).
    pub truncations: u64,
    /// See [`flips`](Self::flips).
    pub mutants: u64,
    /// Stores that could be opened for writing.
    pub opened: u64,
    /// Stores that could not.
    pub refused: u64,
    /// Stores in which all was there and nothing was found.
    pub harmless: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        self.flips += other.flips;
        self.truncations += other.truncations;
        self.mutants += other.mutants;
        self.opened += other.opened;
        self.refused += other.refused;
        self.harmless += other.harmless;
    }
}

impl Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { flips, truncations, mutants, opened, refused, harmless } = self;
        write!(f, "flips {flips}, truncations {truncations}, mutants {mutants}, ")?;
        write!(f, "opened {opened}, refused {refused}, harmless {harmless}")
    }
}

/// What the memory of a thread is measured with.
pub trait Meter: Sync {
    /// Begins to measure on this thread.
    fn begin(&self);
    /// The most that was in use since, beyond what was in use then.
    fn peak(&self) -> usize;
}

/// A worker's present case, for the watchdog.
#[derive(Default)]
struct Seat {
    case: AtomicU64,
    /// Milliseconds since the start; 0 if idle.
    since: AtomicU64,
}

/// Runs cases over all bases, and tells what went wrong. `only` is the number of the one case to run.
pub fn run(bases: &[Base], settings: &Settings, meter: &dyn Meter, only: Option<u64>) -> (Tally, Vec<String>) {
    let bits: Vec<Bits> = bases.iter().map(Bits::of).collect();
    let cuts: Vec<_> = bits.iter().map(Bits::cuts).collect();
    let total = settings.flips + settings.cuts + settings.mutants;
    let next = AtomicU64::new(only.unwrap_or(0));
    let end = only.map_or(total, |case| case + 1);
    let started = Instant::now();
    let seats: Vec<Seat> = (0..settings.threads).map(|_| Seat::default()).collect();
    let result = Mutex::new((Tally::default(), Vec::new()));
    let over = Mutex::new(false);
    let cases = Cases { bases, bits: &bits, cuts: &cuts, settings };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !*over.lock() {
                std::thread::sleep(Duration::from_millis(20));
                for seat in &seats {
                    let since = Duration::from_millis(seat.since.load(Ordering::Relaxed));
                    if !since.is_zero() && started.elapsed() > since + PATIENCE {
                        let case = seat.case.load(Ordering::Relaxed);
                        eprintln!("corruption: case {case} hangs (seed {})", settings.seed);
                        std::process::abort();
                    }
                }
            }
        });
        let workers: Vec<_> = seats
            .iter()
            .map(|seat| {
                let (next, result, cases) = (&next, &result, &cases);
                scope.spawn(move || {
                    let mut tally = Tally::default();
                    loop {
                        let case = next.fetch_add(1, Ordering::Relaxed);
                        if case >= end {
                            break;
                        }
                        seat.case.store(case, Ordering::Relaxed);
                        seat.since.store(started.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
                        let outcome = catch_unwind(AssertUnwindSafe(|| cases.run(case, meter, &mut tally)));
                        let broken = |_| Err(format!("case {case}: the layer itself is broken"));
                        if let Err(violation) = outcome.unwrap_or_else(broken) {
                            let mut result = result.lock();
                            if result.1.len() < 40 {
                                result.1.push(violation);
                            }
                        }
                    }
                    seat.since.store(0, Ordering::Relaxed);
                    result.lock().0.add(&tally);
                })
            })
            .collect();
        for worker in workers {
            let _ = worker.join();
        }
        *over.lock() = true;
    });
    result.into_inner()
}

struct Cases<'c> {
    bases: &'c [Base],
    bits: &'c [Bits],
    cuts: &'c [Vec<(String, u64)>],
    settings: &'c Settings,
}

/// The n-th of a number of points that are spread evenly over a range that can be shorter or longer.
fn spread(n: u64, of: u64, range: u64, seed: u64) -> u64 {
    if of >= range {
        return n % range;
    }
    let (from, to) = (n * range / of, (n + 1) * range / of);
    (from + mix(seed ^ n) % (to - from).max(1)).min(range - 1)
}

impl Cases<'_> {
    fn run(&self, case: u64, meter: &dyn Meter, tally: &mut Tally) -> Result<(), String> {
        let Settings { flips, cuts, mutants: count, seed, .. } = *self.settings;
        let n = self.bases.len() as u64;
        let at = (case % n) as usize;
        let base = &self.bases[at];
        let mut random = Random::new(seed ^ mix(case));
        let mut image = base.image.clone();
        let nth = case / n;
        let mut effort = Effort { change: nth.is_multiple_of(2), repair: nth % 8 == 1, reopen: nth.is_multiple_of(4) };
        let (what, licence) = if case < flips {
            tally.flips += 1;
            // One in ten hits bytes that mean nothing, or should.
            let what = if case / n % 10 == 9 {
                self.bits[at].flip_any(&mut random, &mut image)
            } else {
                let bit = spread(case / n, flips / n, self.bits[at].bytes * 8, seed);
                self.bits[at].flip(bit, &mut image)
            };
            (what, Licence::default())
        } else if case < flips + cuts {
            tally.truncations += 1;
            let at_cut = spread((case - flips) / n, cuts / n, self.cuts[at].len() as u64, seed);
            let (file, len) = &self.cuts[at][at_cut as usize];
            cut(&mut image, file, *len)
        } else {
            debug_assert!(case < flips + cuts + count);
            tally.mutants += 1;
            effort = Effort { change: true, repair: nth % 4 == 1, reopen: nth.is_multiple_of(4) };
            mutants::mutate(&base.anatomy, &mut image, &mut random)
        };
        let told = || format!("case {case} (seed {seed}), {}: {what}", base.name);
        meter.begin();
        let outcome = catch_unwind(AssertUnwindSafe(|| exercise(base, &image, &licence, effort)));
        let peak = meter.peak();
        let outcome = match outcome {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => return Err(format!("{}: {error}", told())),
            Err(_) => return Err(format!("{}: a panic (see above)", told())),
        };
        if peak > self.settings.memory_bytes {
            return Err(format!("{}: {peak} bytes of memory", told()));
        }
        tally.opened += u64::from(outcome.opened);
        tally.refused += u64::from(!outcome.opened);
        tally.harmless += u64::from(outcome.harmless);
        Ok(())
    }
}
