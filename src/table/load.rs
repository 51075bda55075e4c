//! How full the table is: when it grows, when it shrinks, and how much it can hold.

use super::Table;
use super::growth::Growth;
use super::page::Geometry;
use crate::sync::Ordering;
use crate::tuning::Tuning;

/// The highest level of a table: the pages of each extent are numbered in 32 bits.
pub(super) const LEVEL_LIMIT: u8 = 31;
/// Entries that a store can hold: the log has 4 TiB, and a record of a key of its own takes 16 bytes.
pub(crate) const RECORDS_MAX: u64 = 1 << 38;

/// The extent for the next growth is added this fraction of the threshold before growth starts.
const EXTEND_AHEAD: u64 = 12;

/// Entries are expected, for which the table has grown or is growing.
#[derive(Debug)]
pub(crate) struct Expected<'t> {
    table: &'t Table,
    entries: u64,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.table.expected.fetch_sub(self.entries, Ordering::SeqCst);
        // They have come, and then it is too full to shrink; or they have not.
        if self.table.shrink_put_off.swap(false, Ordering::SeqCst) {
            self.table.want_shrink();
        }
    }
}

impl Table {
    /// Entries at which growth starts.
    pub(crate) fn threshold(&self, level: u8) -> u64 {
        threshold(self.geometry, &self.tuning, level)
    }

    /// Entries that the table can have room for.
    pub(crate) fn records_max(&self) -> u64 {
        self.threshold(LEVEL_LIMIT).min(RECORDS_MAX)
    }

    /// The level at which that many entries fit without growth.
    pub(crate) fn level_for(&self, records: u64) -> u8 {
        level_for(self.geometry, &self.tuning, records)
    }

    /// Slots of so many pages.
    pub(crate) fn slots_of(&self, pages: u64) -> u64 {
        pages * self.geometry.slots() as u64
    }

    /// Called after an insert with the stripe's new count: true if growth should start, or is so near that its
    /// extent should be added.
    #[inline]
    pub(super) fn is_crowded(&self, growth: Growth, stripe_count: i64) -> bool {
        if growth.is_resizing() && !growth.is_shrinking() {
            return false;
        }
        let threshold = self.threshold(growth.level());
        // The stripe's share hints at the whole; the exact sum is taken only near the threshold.
        let hint = (stripe_count.max(0) as u64) << growth.stripes_log2();
        if hint < threshold - threshold / 8 || (growth.stripes_log2() > 4 && stripe_count % 16 != 0) {
            return false;
        }
        self.nears_growth(growth)
    }

    /// True if there are nearly as many entries as the table grows at, or more.
    pub(super) fn nears_growth(&self, growth: Growth) -> bool {
        let threshold = self.threshold(growth.level());
        self.len() > threshold - threshold / EXTEND_AHEAD
    }

    /// Growth should start: by the resize job, or by the next change.
    pub(super) fn want_growth(&self) {
        self.growth_wanted.store(true, Ordering::Relaxed);
        self.ring_growth();
    }

    /// The table should shrink: by the resize job, or by the next change.
    pub(super) fn want_shrink(&self) {
        self.shrink_wanted.store(true, Ordering::Relaxed);
        self.ring_growth();
    }

    /// Asks for another size if the entries call for one. Called where they can have come or gone without a word: a resize was
    /// under way, or the store was closed.
    pub(crate) fn mind_size(&self) {
        let (growth, len) = (self.growth(), self.len());
        if growth.is_resizing() {
            return;
        }
        if len > self.threshold(growth.level()) {
            self.want_growth();
        } else if growth.level() > self.tuning.level_min && len < self.shrink_threshold(growth.level()) {
            self.want_shrink();
        }
    }

    /// Wakes the resize job: the table asks for another size, or a resize has begun. It may have been begun by a call, after
    /// which no other one comes.
    pub(super) fn ring_growth(&self) {
        if self.tuning.background {
            self.growth_bell.ring();
        }
    }

    /// While the value lives, the table does not shrink below the entries that it has and so many more.
    pub(crate) fn expect_entries(&self, entries: u64) -> Expected<'_> {
        self.expected.fetch_add(entries, Ordering::SeqCst);
        Expected { table: self, entries }
    }

    /// Entries that there are or that are expected.
    pub(super) fn len_to_come(&self) -> u64 {
        self.len().saturating_add(self.expected.load(Ordering::SeqCst))
    }

    /// True if the extent for the next growth is so small that a writer adds it by the way. A store of some hundred records
    /// can be closed before the resize job had a turn, and would stay overfull.
    pub(crate) fn is_tiny(&self) -> bool {
        self.growth().pages() < self.tuning.tiny_pages
    }

    /// True if the extent for the next growth is there: growth can start at once.
    pub(crate) fn is_extended(&self) -> bool {
        let growth = self.growth();
        // Extent k + 1 holds the pages from 2^(base + k) on.
        let extent = (growth.level() + 1).saturating_sub(self.primary.base_log2());
        self.primary.extent(extent.into()).is_some()
    }
}

/// Entries of a table at which it grows. Cannot overflow: 504 slots, level 38, factor 1000 are below 2^57.
fn threshold(geometry: Geometry, tuning: &Tuning, level: u8) -> u64 {
    ((geometry.slots() as u64) << level) * u64::from(tuning.grow_permille.min(1000)) / 1000
}

/// The level of a table in which `records` entries fit without growth.
pub(crate) fn level_for(geometry: Geometry, tuning: &Tuning, records: u64) -> u8 {
    (tuning.level_min..LEVEL_LIMIT)
        .find(|&level| threshold(geometry, tuning, level) >= records)
        .unwrap_or(LEVEL_LIMIT.max(tuning.level_min))
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    /// A batch made a table of two pages larger, and the resize job took it for one that is too large, because the batch was not
    /// in it yet: 1,000 records were put into 1,008 slots. Found by a run of the tests beside six busy loops.
    #[test]
    fn a_table_does_not_shrink_below_what_is_expected() {
        let dir = tempfile::tempdir().unwrap();
        let tuning = crate::Tuning { background: false, ..crate::Tuning::default() };
        let store = crate::Options::new().tuning(tuning).open(dir.path().join("s")).unwrap();
        let engine = store.engine();
        let level = engine.tables.main().growth().level();
        let expected = engine.tables.main().expect_entries(1_000);
        engine.grow_for(engine.tables.main(), 1_000).unwrap();
        assert!(
            !engine.tables.main().start_shrink(false).unwrap() && !engine.tables.main().start_shrink(true).unwrap()
        );
        drop(expected);
        assert!(engine.tables.main().growth().level() > level && engine.tables.main().start_shrink(false).unwrap());
        store.close().unwrap();
    }

    /// A change asked for growth, and waited for a processor while the resize job grew the table. The job took the late wish for
    /// another one, and added the extent of the next level to a table that was half empty. A test that had its disk refuse that
    /// extent waited for a refusal that never came.
    #[test]
    fn a_wish_that_comes_late_adds_no_extent() {
        let dir = tempfile::tempdir().unwrap();
        let tuning = crate::Tuning { background: false, ..crate::Tuning::default() };
        let store = crate::Options::new().tuning(tuning).open(dir.path().join("s")).unwrap();
        let (engine, table) = (store.engine(), store.engine().tables.main());
        store.reserve(10_000).unwrap();
        table.want_growth();
        engine.retry(|| table.prepare_growth()).unwrap();
        assert!(!table.is_extended(), "{:?}", table.growth());
        let near = table.threshold(table.growth().level());
        (0..near).for_each(|n| store.set(n.to_le_bytes(), "v").unwrap());
        engine.retry(|| table.prepare_growth()).unwrap();
        assert!(table.is_extended(), "{:?}", table.growth());
        store.close().unwrap();
    }
}
