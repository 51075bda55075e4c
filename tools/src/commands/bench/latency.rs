//! Latencies: a histogram of single operations, and what reading the clock costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::Serialize;

/// Ten minutes: anything longer is counted as that. The exact maximum is kept beside.
const NANOS_MAX: u64 = 600_000_000_000;

/// Times single operations, or does not: the loop is the same, and compiled once for each.
pub trait Clock {
    /// Carries out the part of an operation that is the store's.
    fn time<R>(&mut self, call: impl FnOnce() -> R) -> R;
}

/// No clock is read: for throughput.
pub struct NoClock;

impl Clock for NoClock {
    #[inline]
    fn time<R>(&mut self, call: impl FnOnce() -> R) -> R {
        call()
    }
}

/// Collects the time of each operation.
#[derive(Debug)]
pub struct Latencies {
    /// None only if the bounds below made no histogram; then the maximum is all there is.
    histogram: Option<Histogram<u64>>,
    max: u64,
}

impl Latencies {
    /// Nothing yet. Three digits, up to ten minutes, in about 200 KiB.
    pub fn new() -> Self {
        Latencies { histogram: Histogram::new_with_bounds(1, NANOS_MAX, 3).ok(), max: 0 }
    }

    /// Adds one operation.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.max = self.max.max(nanos);
        if let Some(histogram) = &mut self.histogram {
            histogram.saturating_record(nanos);
        }
    }

    /// Adds those of another thread.
    pub fn add(&mut self, other: &Latencies) {
        self.max = self.max.max(other.max);
        if let (Some(histogram), Some(other)) = (&mut self.histogram, &other.histogram) {
            // Both have the same bounds, so this cannot fail.
            let _ = histogram.add(other);
        }
    }

    /// The figures to publish; none if nothing was recorded.
    pub fn summary(&self) -> Option<Summary> {
        let histogram = self.histogram.as_ref().filter(|histogram| !histogram.is_empty())?;
        // A bucket's upper end can lie beyond the slowest operation there was.
        let at = |quantile| histogram.value_at_quantile(quantile).min(self.max);
        Some(Summary {
            operations: histogram.len(),
            mean_nanos: histogram.mean().round() as u64,
            p50_nanos: at(0.5),
            p99_nanos: at(0.99),
            p999_nanos: at(0.999),
            p9999_nanos: at(0.9999),
            max_nanos: self.max,
        })
    }
}

impl Clock for Latencies {
    #[inline]
    fn time<R>(&mut self, call: impl FnOnce() -> R) -> R {
        let started = Instant::now();
        let result = call();
        self.record(started.elapsed());
        result
    }
}

/// Latencies of single operations in nanoseconds, the cost of reading the clock included.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// Operations timed.
    pub operations: u64,
    /// Their mean.
    pub mean_nanos: u64,
    /// Half took no longer.
    pub p50_nanos: u64,
    /// 99 of 100 took no longer.
    pub p99_nanos: u64,
    /// 999 of 1,000 took no longer.
    pub p999_nanos: u64,
    /// 9,999 of 10,000 took no longer.
    pub p9999_nanos: u64,
    /// The slowest one, exactly.
    pub max_nanos: u64,
}

/// What timing adds to each operation: the median of timing nothing, in nanoseconds.
pub fn clock_cost_nanos() -> u64 {
    let mut latencies = Latencies::new();
    for _ in 0..100_000 {
        latencies.time(|| black_box(()));
    }
    latencies.summary().map_or(0, |summary| summary.p50_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_times() {
        let mut latencies = Latencies::new();
        assert!(latencies.summary().is_none());
        for nanos in 1..=10_000 {
            latencies.record(Duration::from_nanos(nanos));
        }
        let summary = latencies.summary().unwrap();
        assert_eq!(summary.operations, 10_000);
        for (found, exact) in [(summary.p50_nanos, 5_000), (summary.p99_nanos, 9_900), (summary.p999_nanos, 9_990)] {
            assert!(found.abs_diff(exact) <= exact / 500, "{found} for {exact}");
        }
        assert_eq!(summary.max_nanos, 10_000);
        assert!(summary.p9999_nanos <= summary.max_nanos);
    }

    #[test]
    fn threads_add_up_and_nothing_is_too_long() {
        let (mut one, mut two) = (Latencies::new(), Latencies::new());
        one.record(Duration::ZERO);
        two.record(Duration::from_secs(3_600));
        one.add(&two);
        let summary = one.summary().unwrap();
        assert_eq!(summary.operations, 2);
        assert_eq!(summary.max_nanos, 3_600_000_000_000);
    }

    #[test]
    fn the_clock_costs_something_bounded() {
        assert!(clock_cost_nanos() < 100_000);
    }
}
