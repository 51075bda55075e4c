//! A store's shape: counted before a compaction, and reckoned for a dry run.

use std::collections::BTreeMap;

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use crate::checkpoint::header::FIRST_META_PAGE;
use crate::checkpoint::meta::Meta;
use crate::engine::Engine;
use crate::engine::scan::Scan;
use crate::error::Result;
use crate::log::blob_header::BLOB_HEADER_BYTES;
use crate::log::sizes::Planned;
use crate::store::Store;
use crate::sys::PAGE_BYTES;
use crate::table::Table;
use crate::table::index::Listed;
use crate::table::region::ExtentBlocks;
use crate::table::slot::Slot;
use crate::table_id::TableId;
use crate::tuning::Tuning;

/// A table is filled to this many thousandths at most: beyond it, one page in some thousands would overflow. (A
/// table between two levels would not do: the pages that are not yet divided hold twice as much as the others.)
pub(crate) const FILL_PERMILLE: u64 = 740;
const PAGE: u64 = PAGE_BYTES as u64;
/// Pages of a journal without images: its head and its trailer.
pub(super) const JOURNAL_PAGES_LEFT: u64 = 2;

/// A store's shape: what its slots and files hold.
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Shape {
    /// Records in all tables.
    pub records: u64,
    /// Tables that have a name.
    pub tables: u64,
    /// Primary pages of all tables.
    pub pages: u64,
    /// Overflow pages in use.
    pub overflow_pages: u64,
    /// Slots that hold an entry. The names of tables take some too.
    pub live_slots: u64,
    /// Tombstones: empty slots whose path goes on.
    pub empty_one_slots: u64,
    /// Empty slots whose path ends there.
    pub empty_rest_slots: u64,
    /// Segments of the log.
    pub segments: u64,
    /// Bytes of records in them, dead ones included.
    pub log_bytes: u64,
    /// Bytes of dead records, removals and log overhead.
    pub dead_bytes: u64,
    /// Bytes of values in files of their own.
    pub blob_bytes: u64,
    /// Disk blocks of all files, in bytes.
    pub disk_bytes: u64,
}

/// The shape of an open store that nobody changes.
pub(super) fn shape(store: &Store) -> Result<Shape> {
    let engine = store.engine();
    let stats = store.stats();
    let mut shape = Shape {
        records: stats.records,
        tables: stats.tables,
        pages: stats.index.pages,
        overflow_pages: stats.index.overflow_pages,
        segments: stats.log.segments,
        log_bytes: stats.log.bytes,
        dead_bytes: stats.log.dead_bytes,
        blob_bytes: stats.log.blob_bytes,
        disk_bytes: store.disk_bytes()?,
        ..Shape::default()
    };
    for table in engine.tables.all() {
        table.each_slot(&mut |slot: Slot| {
            let count = if slot.is_live() {
                &mut shape.live_slots
            } else if slot.is_empty_one() {
                &mut shape.empty_one_slots
            } else {
                &mut shape.empty_rest_slots
            };
            *count += 1;
        })?;
    }
    Ok(shape)
}

/// The capacity of a new table that will hold a number of records.
pub(super) fn capacity_for(records: u64, tuning: &Tuning) -> u64 {
    let grow = u64::from(tuning.grow_permille.clamp(1, 1000));
    if grow > FILL_PERMILLE { records * grow / FILL_PERMILLE } else { records }
}

/// What a compaction would leave. Goes through the keys, as it would: the sizes of the records decide where segments end, and the
/// hashes which pages of the tables are used. `tell` is called before each record.
pub(super) fn estimate(store: &Store, before: &Shape, tell: &mut dyn FnMut() -> Result<()>) -> Result<Shape> {
    let engine = store.engine();
    let (log, after) = (Planned::new(engine.log.fixed_segment_bytes()), Shape::default());
    let mut plan = Plan { engine, tell, log, listed: Listed::default(), after, blob_disk_bytes: 0, index_pages: 0 };
    plan.copy(engine.tables.main())?;
    let names = names(store)?;
    let mut catalog = PlannedTable::new(engine.tables.main(), capacity_for(names.len() as u64, &engine.tuning), false);
    for (name, &(hash, bytes)) in &names {
        // The record that makes a table comes before those that are in it.
        catalog.add(hash);
        plan.log.append(bytes);
        plan.after.log_bytes += bytes;
        plan.copy(store.existing_table(name)?.map())?;
    }
    if !names.is_empty() {
        plan.finish(&catalog, engine.tables.main(), names.len() as u64);
    }
    let index =
        FIRST_META_PAGE + Meta::pages_for(plan.log.segments as usize, plan.listed.with_slack(), 0) + plan.index_pages;
    // A journal without images, and LOCK.
    let files = (index + JOURNAL_PAGES_LEFT + 1) * PAGE;
    Ok(Shape {
        tables: names.len() as u64,
        segments: plan.log.segments,
        blob_bytes: before.blob_bytes,
        disk_bytes: (files + plan.log.disk_bytes() + plan.blob_disk_bytes).min(before.disk_bytes),
        ..plan.after
    })
}

/// The names of the tables in the order in which they are copied, with the hash and the bytes of the record that makes each.
fn names(store: &Store) -> Result<BTreeMap<String, (u64, u64)>> {
    let engine = store.engine();
    let mut names = BTreeMap::new();
    let Some(catalog) = engine.tables.get(TableId::CATALOG) else { return Ok(names) };
    let mut scan = Scan::new(engine, &catalog);
    while let Some(scanned) = scan.next_scanned() {
        let scanned = scanned?;
        let (hash, bytes, _) = scanned.shape();
        names.insert(String::from_utf8_lossy(scanned.key()).into_owned(), (hash, bytes));
    }
    Ok(names)
}

/// The new store as far as it is reckoned.
struct Plan<'p> {
    engine: &'p Engine,
    tell: &'p mut dyn FnMut() -> Result<()>,
    log: Planned,
    listed: Listed,
    after: Shape,
    /// Blocks of the files of large values.
    blob_disk_bytes: u64,
    /// Pages of the index that have blocks, in all tables.
    index_pages: u64,
}

/// A table of the new store.
struct PlannedTable {
    pages: u64,
    blocks: ExtentBlocks,
}

impl PlannedTable {
    /// A table like another one, of this capacity. The store is made with its main table; others come later.
    fn new(like: &Table, capacity: u64, is_main: bool) -> Self {
        let pages = 1 << like.level_for(capacity);
        let blocks = if is_main { ExtentBlocks::new(pages) } else { ExtentBlocks::appended(pages) };
        PlannedTable { pages, blocks }
    }

    /// An entry comes into it.
    fn add(&mut self, hash: u64) {
        self.blocks.use_page(hash & (self.pages - 1));
    }
}

impl Plan<'_> {
    /// Copies a table.
    fn copy(&mut self, table: &Table) -> Result<()> {
        let records = table.records();
        let mut made =
            PlannedTable::new(table, capacity_for(records, &self.engine.tuning), table.id() == TableId::MAIN);
        let mut scan = Scan::new(self.engine, table);
        while let Some(scanned) = scan.next_scanned() {
            (self.tell)()?;
            // Damaged records are left out, or would have ended the check.
            let Ok(scanned) = scanned else { continue };
            let (hash, bytes, link) = scanned.shape();
            self.log.append(bytes);
            self.after.log_bytes += bytes;
            made.add(hash);
            if let Some(link) = link {
                self.blob_disk_bytes += (BLOB_HEADER_BYTES as u64 + link.len).next_multiple_of(PAGE);
            }
        }
        // Expired records are not copied, but the table is made for them too.
        let records = records.saturating_sub(scan.expired());
        self.after.records += records;
        self.finish(&made, table, records);
        Ok(())
    }

    /// Counts a table that holds all of its entries.
    fn finish(&mut self, made: &PlannedTable, like: &Table, entries: u64) {
        self.listed.tables += 1;
        self.listed.extents += 1;
        self.index_pages += made.blocks.pages();
        self.after.pages += made.pages;
        self.after.live_slots += entries;
        self.after.empty_rest_slots += like.slots_of(made.pages).saturating_sub(entries);
    }
}
