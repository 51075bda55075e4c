//! Latencies: a histogram of single operations, and what reading the clock costs.

use std::hint::black_box;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// Ten minutes: anything longer is counted as that. The exact maximum is kept beside.
const NANOS_MAX: u64 = 600_000_000_000;

/// Times of single operations.
pub struct Latencies {
    histogram: Histogram<u64>,
    max: u64,
}

impl Latencies {
    /// Nothing yet. Three digits, up to ten minutes, in about 200 KiB.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Latencies { histogram: Histogram::new_with_bounds(1, NANOS_MAX, 3)?, max: 0 })
    }

    /// Adds one operation.
    pub fn record(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.max = self.max.max(nanos);
        self.histogram.saturating_record(nanos);
    }

    /// The figures to publish.
    pub fn summary(&self) -> Summary {
        // A bucket's upper end can lie beyond the slowest operation there was.
        let at = |quantile| self.histogram.value_at_quantile(quantile).min(self.max);
        Summary { p50: at(0.5), p99: at(0.99), p999: at(0.999), p9999: at(0.9999), max: self.max }
    }
}

/// Nanoseconds that so many operations of 100, 1,000, ... took at most, the cost of reading the clock included.
#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
pub struct Summary {
    /// Half of them.
    pub p50: u64,
    /// 99 of 100.
    pub p99: u64,
    /// 999 of 1,000.
    pub p999: u64,
    /// 9,999 of 10,000.
    pub p9999: u64,
    /// All, exactly.
    pub max: u64,
}

impl Summary {
    /// With the names that the tables use.
    pub fn named(&self) -> [(&'static str, u64); 5] {
        [("p50", self.p50), ("p99", self.p99), ("p99.9", self.p999), ("p99.99", self.p9999), ("max", self.max)]
    }
}

/// What timing adds to each operation: the median of timing nothing, in nanoseconds.
pub fn clock_cost_nanos() -> anyhow::Result<u64> {
    let mut latencies = Latencies::new()?;
    for _ in 0..100_000 {
        let started = Instant::now();
        black_box(());
        latencies.record(started.elapsed());
    }
    Ok(latencies.summary().p50)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_of_known_times() {
        let mut latencies = Latencies::new().unwrap();
        for nanos in 1..=10_000 {
            latencies.record(Duration::from_nanos(nanos));
        }
        let summary = latencies.summary();
        for (found, exact) in [(summary.p50, 5_000), (summary.p99, 9_900), (summary.p999, 9_990)] {
            assert!(found.abs_diff(exact) <= exact / 500, "{found} for {exact}");
        }
        assert_eq!(summary.max, 10_000);
        assert!(summary.p9999 <= summary.max);
    }
}
