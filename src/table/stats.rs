//! The figures of a table.

use super::Table;
use crate::stats::IndexStats;
use crate::sync::{AtomicU64, Ordering};

/// Counters of a table since the store was opened.
#[derive(Debug, Default)]
pub(super) struct IndexCounters {
    pub(super) growths: AtomicU64,
    pub(super) splits: AtomicU64,
    pub(super) shrinks: AtomicU64,
    pub(super) merges: AtomicU64,
    pub(super) given_back: AtomicU64,
    pub(super) refills: AtomicU64,
    pub(super) rewrites: AtomicU64,
    pub(super) repairs: AtomicU64,
    pub(super) into_empty_one: AtomicU64,
    pub(super) into_new_overflow: AtomicU64,
    pub(super) reader_locks: AtomicU64,
}

impl Table {
    /// The figures. `file_bytes` are those of the index file on the disk.
    pub(crate) fn stats(&self, file_bytes: u64) -> IndexStats {
        let growth = self.growth();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.counters;
        let into_empty_one = get(&counters.into_empty_one);
        let into_new_overflow = get(&counters.into_new_overflow);
        IndexStats {
            level: u32::from(growth.level()),
            pages: growth.pages(),
            growing: growth.is_resizing() && !growth.is_shrinking(),
            shrinking: growth.is_shrinking(),
            evacuated_pages: growth.cursor(),
            overflow_pages: self.overflow_pages(),
            overflow_pages_free: self.pool.len(),
            file_bytes,
            slots: growth.pages() * self.geometry.slots() as u64,
            growths: get(&counters.growths),
            splits: get(&counters.splits),
            shrinks: get(&counters.shrinks),
            merges: get(&counters.merges),
            pages_given_back: get(&counters.given_back),
            refills: get(&counters.refills),
            rewrites: get(&counters.rewrites),
            repairs: get(&counters.repairs),
            inserts_into_empty_rest: self.inserts().saturating_sub(into_empty_one + into_new_overflow),
            inserts_into_empty_one: into_empty_one,
            inserts_into_new_overflow: into_new_overflow,
        }
    }

    /// Lookups that took a stripe's lock because writers were too fast for them.
    pub(crate) fn reader_locks(&self) -> u64 {
        self.counters.reader_locks.load(Ordering::Relaxed)
    }
}

impl IndexStats {
    /// Adds the pages and counters of another table.
    pub(crate) fn add(&mut self, other: &IndexStats) {
        self.pages += other.pages;
        self.overflow_pages += other.overflow_pages;
        self.overflow_pages_free += other.overflow_pages_free;
        self.slots += other.slots;
        self.growths += other.growths;
        self.splits += other.splits;
        self.shrinks += other.shrinks;
        self.merges += other.merges;
        self.pages_given_back += other.pages_given_back;
        self.refills += other.refills;
        self.rewrites += other.rewrites;
        self.repairs += other.repairs;
        self.inserts_into_empty_rest += other.inserts_into_empty_rest;
        self.inserts_into_empty_one += other.inserts_into_empty_one;
        self.inserts_into_new_overflow += other.inserts_into_new_overflow;
    }
}
