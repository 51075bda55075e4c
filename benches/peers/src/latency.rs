//! Latencies: a histogram of single operations, and what reading the clock costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::pauses::{Causes, Watch};

/// Ten minutes: anything longer is counted as that. The exact maximum is kept beside.
const NANOS_MAX: u64 = 600_000_000_000;

/// An operation that takes as long as this is a pause.
const PAUSE_NANOS: u64 = 1_000_000;

/// The points of the curve in the pictures.
pub const QUANTILES: [f64; 7] = [0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999, 0.999999];

/// Times of single operations.
pub struct Latencies {
    histogram: Histogram<u64>,
    max: u64,
    pauses: u64,
    paused: u64,
    watch: Watch,
}

impl Latencies {
    /// Nothing yet. Three digits, up to ten minutes, in about 200 KiB.
    pub fn new() -> anyhow::Result<Self> {
        let histogram = Histogram::new_with_bounds(1, NANOS_MAX, 3)?;
        Ok(Latencies { histogram, max: 0, pauses: 0, paused: 0, watch: Watch::default() })
    }

    /// Carries out and times one operation.
    #[inline]
    pub fn time<R>(&mut self, call: impl FnOnce() -> R) -> R {
        self.watch.before();
        let started = Instant::now();
        let result = call();
        let time = started.elapsed();
        if time.as_nanos() >= u128::from(PAUSE_NANOS) {
            self.watch.after_pause(time);
        }
        self.record(time);
        result
    }

    /// Adds one operation. If it was a pause, its cause is not known.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.max = self.max.max(nanos);
        if nanos >= PAUSE_NANOS {
            self.pauses += 1;
            self.paused = self.paused.saturating_add(nanos);
        }
        self.histogram.saturating_record(nanos);
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &Latencies) -> anyhow::Result<()> {
        self.max = self.max.max(other.max);
        self.pauses += other.pauses;
        self.paused = self.paused.saturating_add(other.paused);
        self.watch.causes.add(&other.watch.causes);
        Ok(self.histogram.add(&other.histogram)?)
    }

    /// The figures to publish; none if nothing was recorded.
    pub fn summary(&self) -> Option<Summary> {
        // A bucket's upper end can lie beyond the slowest operation there was.
        let at = |quantile| self.histogram.value_at_quantile(quantile).min(self.max);
        (!self.histogram.is_empty()).then(|| Summary {
            operations: self.histogram.len(),
            quantiles: QUANTILES.map(at),
            max: self.max,
            pauses: self.pauses,
            paused: self.paused,
            causes: self.watch.causes,
        })
    }
}

/// Nanoseconds of single operations, the cost of reading the clock included.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Summary {
    /// How many were timed.
    pub operations: u64,
    /// What they took at most, for each of [`QUANTILES`].
    pub quantiles: [u64; 7],
    /// The slowest one, exactly.
    pub max: u64,
    /// Operations of 1 ms and more.
    pub pauses: u64,
    /// Their times together.
    pub paused: u64,
    /// The same by cause, of those whose cause is known.
    pub causes: Causes,
}

impl Summary {
    /// With the names that the tables use.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        let [p50, _, p99, p999, p9999, ..] = self.quantiles;
        [("p50", p50), ("p99", p99), ("p99.9", p999), ("p99.99", p9999), ("max", self.max)]
    }
}

/// What timing adds to each operation: the median of timing nothing, in nanoseconds.
pub fn clock_cost_nanos() -> anyhow::Result<u64> {
    let mut latencies = Latencies::new()?;
    for _ in 0..100_000 {
        latencies.time(|| black_box(()));
    }
    Ok(latencies.summary().map_or(0, |summary| summary.quantiles[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_times() {
        let mut latencies = Latencies::new().unwrap();
        assert!(latencies.summary().is_none());
        for nanos in 1..=10_000 {
            latencies.record(Duration::from_nanos(nanos));
        }
        let summary = latencies.summary().unwrap();
        for ((name, found), exact) in summary.named().into_iter().zip([5_000, 9_900, 9_990, 9_999, 10_000]) {
            assert!(found.abs_diff(exact) <= exact / 500, "{name}: {found} for {exact}");
        }
        assert_eq!((summary.operations, summary.max, summary.pauses), (10_000, 10_000, 0));
    }

    #[test]
    fn threads_add_up_and_pauses_are_counted() {
        let (mut one, mut two) = (Latencies::new().unwrap(), Latencies::new().unwrap());
        one.record(Duration::from_millis(2));
        two.record(Duration::from_secs(3_600));
        two.record(Duration::from_micros(999));
        one.add(&two).unwrap();
        let summary = one.summary().unwrap();
        assert_eq!((summary.operations, summary.pauses), (3, 2));
        assert_eq!((summary.max, summary.paused), (3_600_000_000_000, 3_600_002_000_000));
    }
}
