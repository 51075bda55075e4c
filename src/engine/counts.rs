//! How often callers asked for what. Changes of keys are counted by the table, under the stripe that each holds anyway.
//!
//! Reads hold nothing, so each would pay for its count: they are counted with the feature `metrics` alone, by counters
//! that are sharded by thread.

use crate::stats::OperationStats;
use crate::sync::{AtomicU64, Ordering};
#[cfg(feature = "metrics")]
use crate::sync::{Sharded, shard};
use crate::table::Table;
use crate::table::stripes::Tally;

#[derive(Debug, Default)]
pub(crate) struct Counts {
    batches: AtomicU64,
    /// Reads that found their key, and those that did not.
    #[cfg(feature = "metrics")]
    reads: [Sharded; 2],
}

impl Counts {
    /// A batch was applied.
    pub(super) fn count_batch(&self) {
        self.batches.fetch_add(1, Ordering::Relaxed);
    }

    /// A key was looked up.
    #[inline]
    pub(crate) fn count_read(&self, found: bool) {
        self.count_reads(u64::from(found), u64::from(!found));
    }

    /// Keys were looked up.
    #[inline]
    pub(crate) fn count_reads(&self, hits: u64, misses: u64) {
        #[cfg(feature = "metrics")]
        for (counter, by) in self.reads.iter().zip([hits, misses]) {
            if by > 0 {
                counter.of(shard()).fetch_add(by, Ordering::Relaxed);
            }
        }
        #[cfg(not(feature = "metrics"))]
        let _ = (hits, misses);
    }

    #[cfg(feature = "metrics")]
    fn reads(&self) -> [u64; 2] {
        self.reads.each_ref().map(Sharded::sum)
    }

    #[cfg(not(feature = "metrics"))]
    fn reads(&self) -> [u64; 2] {
        [0; 2]
    }

    pub(super) fn stats(&self, table: &Table) -> OperationStats {
        let [hits, misses] = self.reads();
        let mut stats =
            OperationStats { hits, misses, batches: self.batches.load(Ordering::Relaxed), ..OperationStats::default() };
        stats.add(table);
        stats
    }
}

impl OperationStats {
    /// Adds the changes of a table's keys.
    pub(super) fn add(&mut self, table: &Table) {
        self.inserts += table.tally(Tally::Inserted);
        self.replaced += table.tally(Tally::Replaced);
        self.removes += table.tally(Tally::Removed);
    }
}
