//! What a diagnosis says: figures, and the advice that the rules draw from them.

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

use super::advice::{Advice, Severity};
use crate::check::Finding;
use crate::stats::Stats;

/// How a store's space is used, and what can be done about it. Made by [`diagnose`](crate::doctor::diagnose).
///
/// The figures of a store that was closed are those of its last checkpoint. Of one that was not, records and log are
/// current, and those of pages and slots are of the last checkpoint: see [`index_is_current`](Self::index_is_current).
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Diagnosis {
    /// What should be looked at, the worst first.
    pub advice: Vec<Advice>,
    /// The store's uuid.
    pub uuid: String,
    /// Generation of the checkpoint that the figures are of.
    pub generation: u64,
    /// True if the store was closed cleanly: then the figures are all there is.
    pub closed_cleanly: bool,
    /// Changes in the log behind the checkpoint, which records and log count.
    pub tail_records: u64,
    /// Bytes of the log behind the checkpoint.
    pub tail_bytes: u64,
    /// Why the log behind the checkpoint could not be read: records and log are those of the checkpoint then.
    pub tail_problem: Option<String>,
    /// Records in the store, those of all tables.
    pub records: u64,
    /// Size and state of the table. In a store of several: pages, slots and removals of all of them, and size and state of the
    /// main one.
    pub table: TableFigures,
    /// Each table, the main one first, then by name.
    pub tables: Vec<TableFigures>,
    /// Slots of all pages in use, by state.
    pub slots: SlotCounts,
    /// Primary pages by load: the n-th figure counts pages whose live slots are n/20 to (n+1)/20 of all.
    pub load: Vec<u64>,
    /// Primary pages by the number of overflow pages that continue them; the last figure counts all longer chains.
    pub chains: Vec<u64>,
    /// The most overflow pages that a chain has.
    pub chain_longest: u64,
    /// Home buckets by the number of buckets that a lookup of an absent key reads there; the n-th figure is for
    /// n + 1 buckets, the last one for all longer ways.
    pub absent: Vec<u64>,
    /// Buckets that a lookup of an absent key reads on average.
    pub absent_mean: f64,
    /// What that would be in pages of the same loads that had only been filled.
    pub absent_expected: f64,
    /// The pages of all tables, one table after the other, many to a cell.
    pub heat: HeatMap,
    /// Pages with few live slots, full of tombstones and not rewritten for long.
    pub pseudo_full_pages: u64,
    /// The worst of them.
    pub pseudo_full: Vec<PageNote>,
    /// Overflow pages.
    pub overflow: OverflowFigures,
    /// The log as a whole.
    pub log: LogFigures,
    /// The segments, in the order in which they were written.
    pub segments: Vec<SegmentFigures>,
    /// Blob files.
    pub blobs: BlobFigures,
    /// Bytes on the disk.
    pub disk: DiskBytes,
    /// What offline compaction would give back.
    pub reclaimable: Reclaimable,
    /// The figures of a running store, where they were given.
    pub stats: Option<Stats>,
    /// Damage that was met on the way; [`verify`](crate::verify::verify) looks for all of it.
    pub damage: Vec<Finding>,
    /// Bytes read from the disk.
    pub bytes_read: u64,
}

impl Diagnosis {
    /// True if the figures of pages and slots are those of now: nothing was changed since the last checkpoint.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// // Of a store that was closed.
    /// assert!(tophash::doctor::diagnose(&path)?.index_is_current());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn index_is_current(&self) -> bool {
        self.closed_cleanly || (self.tail_records == 0 && self.log_is_current())
    }

    /// True if the figures of records and log are those of now.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// let diagnosis = tophash::doctor::diagnose(&path)?;
    /// if !diagnosis.log_is_current() {
    ///     println!("as of the last checkpoint: {:?}", diagnosis.tail_problem);
    /// }
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn log_is_current(&self) -> bool {
        self.closed_cleanly || self.tail_problem.is_none()
    }

    /// The severity of the worst advice.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// use tophash::doctor::{Severity, diagnose};
    /// if diagnose(&path)?.worst() >= Some(Severity::Warning) {
    ///     println!("somebody should look at it");
    /// }
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn worst(&self) -> Option<Severity> {
        self.advice.iter().map(|advice| advice.severity).max()
    }
}

/// Size and state of the table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct TableFigures {
    /// Its name. `None` for the main one, and for the figures of all.
    pub name: Option<String>,
    /// Its records.
    pub records: u64,
    /// Overflow pages that its chains have.
    pub overflow_pages: u64,
    /// Those of its pages that are pseudo-full: see [`Diagnosis::pseudo_full_pages`].
    pub pseudo_full_pages: u64,
    /// log2 of the number of primary pages, without those that a resize under way has added.
    pub level: u32,
    /// The level at which the records have room without growth.
    pub level_needed: u32,
    /// The level below which [`Store::reserve`](crate::Table::reserve) or
    /// [`Options::capacity`](crate::Options::capacity) keep the table from shrinking; 0 if nothing was reserved.
    pub level_floor: u32,
    /// Records that the table was asked to have room for.
    pub floor: u64,
    /// Primary pages that hashes are led to.
    pub pages: u64,
    /// Those of them that were ever written to; the others are holes in the file.
    pub pages_in_use: u64,
    /// Slots of one page.
    pub page_slots: u64,
    /// Slots of all primary pages, holes included.
    pub slots: u64,
    /// True while the table is being doubled.
    pub growing: bool,
    /// True while the table is being halved.
    pub shrinking: bool,
    /// Pages that the resize under way has divided, or not yet merged.
    pub evacuated_pages: u64,
    /// Removals since the pages were last rewritten, of all pages.
    pub removals: u64,
}

/// Slots by state.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct SlotCounts {
    /// Slots of entries.
    pub live: u64,
    /// Slots of entries whose record could not be read when their page was split.
    pub marked: u64,
    /// Tombstones: empty, but a lookup has to go on.
    pub empty_one: u64,
    /// Empty, and a lookup ends there.
    pub empty_rest: u64,
    /// Empty slots of overflow pages (part of the two above): only keys of one page can use them.
    pub stranded: u64,
}

impl SlotCounts {
    /// All slots.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// let diagnosis = tophash::doctor::diagnose(&path)?;
    /// println!("{} of {} slots are live", diagnosis.slots.live, diagnosis.slots.all());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn all(&self) -> u64 {
        self.live + self.marked + self.empty_one + self.empty_rest
    }
}

/// The pages of the tables as a map, many to a cell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct HeatMap {
    /// Primary pages to a cell.
    pub pages_per_cell: u64,
    /// The cells, in the order of the pages.
    pub cells: Vec<HeatCell>,
}

/// What the pages of a cell have together, overflow pages included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct HeatCell {
    /// Slots.
    pub slots: u64,
    /// Live slots.
    pub live: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Removals since the pages were last rewritten.
    pub removals: u64,
    /// Overflow pages.
    pub overflow: u64,
}

/// One page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct PageNote {
    /// The table's name. `None` for the main one.
    pub table: Option<String>,
    /// Page number in the index file.
    pub page: u64,
    /// The primary page whose chain it belongs to.
    pub owner: u64,
    /// 0 for the primary page itself, n for the n-th overflow page.
    pub chain_position: u64,
    /// Live slots.
    pub live: u64,
    /// Tombstones.
    pub tombstones: u64,
    /// Removals since it was last rewritten.
    pub removals: u64,
}

/// Overflow pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct OverflowFigures {
    /// Pages that the index file has for them.
    pub pages: u64,
    /// Pages that chains have.
    pub used: u64,
    /// Pages that are free for use.
    pub free: u64,
    /// Pages that chains have and would not need if they were packed.
    pub needless: u64,
}

/// The log as a whole.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct LogFigures {
    /// Segments that hold records.
    pub segments: u64,
    /// Bytes of records in them.
    pub bytes: u64,
    /// Bytes of records that nothing refers to any more.
    pub dead_bytes: u64,
    /// Bytes of records with a deadline, expired or not, that no later record has superseded. Not part of the dead ones.
    pub expiring_bytes: u64,
    /// Those of them whose deadline had passed when the diagnosis was made: compaction takes them for dead. An estimate, as
    /// the checkpoint has them.
    pub expired_bytes: u64,
    /// Remove- and clear-records, which are part of the dead ones.
    pub removals: u64,
    /// Files that no checkpoint names: prepared segments, what was written since, and emptied ones not yet unlinked.
    pub other_files: u64,
    /// Their bytes on the disk.
    pub other_bytes: u64,
}

/// One segment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct SegmentFigures {
    /// Its sequence, as in the file's name.
    pub sequence: u64,
    /// Bytes that the file has room for.
    pub capacity: u64,
    /// Bytes of records.
    pub bytes: u64,
    /// Bytes of records that nothing refers to any more.
    pub dead_bytes: u64,
    /// Bytes of records with a deadline, expired or not, that no later record has superseded. Not part of the dead ones.
    pub expiring_bytes: u64,
    /// Those of them whose deadline has passed, as the checkpoint estimates it.
    pub expired_bytes: u64,
    /// Remove- and clear-records.
    pub removals: u64,
}

/// Blob files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct BlobFigures {
    /// Blobs that records link.
    pub count: u64,
    /// Bytes of their values.
    pub bytes: u64,
    /// Blobs that the next checkpoint or open unlinks.
    pub dying: u64,
}

/// Bytes that the store's files occupy on the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct DiskBytes {
    /// The index.
    pub index: u64,
    /// The journal.
    pub journal: u64,
    /// Segments, prepared ones included.
    pub log: u64,
    /// Blobs.
    pub blobs: u64,
}

impl DiskBytes {
    /// All of it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// let diagnosis = tophash::doctor::diagnose(&path)?;
    /// println!("the log has {} of {} bytes", diagnosis.disk.log, diagnosis.disk.all());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn all(&self) -> u64 {
        self.index + self.journal + self.log + self.blobs
    }
}

/// What offline compaction would give back, by the checkpoint's counters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Reclaimable {
    /// Disk blocks of the log beyond what the live records need: dead records, prepared files, unwritten ends.
    pub log_bytes: u64,
    /// Disk blocks of the index beyond what the records need in a fresh one.
    pub index_bytes: u64,
    /// Disk blocks of the journal.
    pub journal_bytes: u64,
    /// Overflow pages that a fresh index would not have.
    pub overflow_pages: u64,
    /// Tombstones that it would not have.
    pub tombstones: u64,
}

impl Reclaimable {
    /// All bytes.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// let diagnosis = tophash::doctor::diagnose(&path)?;
    /// if diagnosis.reclaimable.bytes() > diagnosis.disk.all() / 2 {
    ///     tophash::compact::compact(&path)?;
    /// }
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.log_bytes + self.index_bytes + self.journal_bytes
    }
}
