//! What a check reports.

#[cfg(feature = "serde")]
use serde::{Deserialize, Serialize};

/// One thing that is not as it must be.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Finding {
    /// A stable name of the kind of finding, as in `page-checksum`.
    pub kind: String,
    /// The file.
    pub path: String,
    /// Byte offset in the file.
    pub offset: Option<u64>,
    /// Page number in the index file.
    pub page: Option<u64>,
    /// Slot number in the page.
    pub slot: Option<u32>,
    /// The name of the table that it concerns. `None` for the main one, and for what belongs to no table. In parentheses where
    /// there is no name: `(catalog)` for the names of the tables themselves, `(table 7)` for one whose name is not known.
    pub table: Option<String>,
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
    /// No stored value is affected and the store works: a counter that only steers housekeeping is wrong, or a
    /// file is left that nobody needs.
    pub harmless: bool,
}

/// What a check looked at and what it found.
///
/// What a crash leaves behind (a torn end of the log, prepared segments, a journal that is still to be applied)
/// is no finding: the next writable open mends it. It is counted here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(Serialize, Deserialize), serde(default))]
#[non_exhaustive]
pub struct Report {
    /// The findings, up to a bound.
    pub findings: Vec<Finding>,
    /// All findings, those beyond the bound included.
    pub findings_total: u64,
    /// How many of them are harmless.
    pub harmless_total: u64,
    /// Generation of the checkpoint that was checked.
    pub generation: u64,
    /// True if the store was closed cleanly.
    pub closed_cleanly: bool,
    /// The journal holds a checkpoint that was not carried to its end; its pages were checked in the place of
    /// the index file's.
    pub journal_pending: bool,
    /// Tables with a name, those included that were made since the checkpoint.
    pub tables: u64,
    /// Primary pages of all tables.
    pub pages: u64,
    /// Overflow pages in use.
    pub overflow_pages: u64,
    /// Live slots of all tables. The names of the tables are not counted.
    pub live_slots: u64,
    /// `emptyOne` slots.
    pub tombstones: u64,
    /// Slots whose record could not be read when their page was split.
    pub marked_slots: u64,
    /// Records of all tables that live slots point to, checked. The names of the tables are not counted.
    pub records: u64,
    /// Their bytes.
    pub record_bytes: u64,
    /// Records of the log up to the checkpoint, live or not, checked one after another.
    pub log_records: u64,
    /// Records in the log after the checkpoint.
    pub tail_records: u64,
    /// Segments that hold records.
    pub segments: u64,
    /// Blobs that records link, checked.
    pub blobs: u64,
    /// Bytes of their values.
    pub blob_bytes: u64,
    /// Bytes behind the end of the log that look written: a torn end, never acknowledged as durable.
    pub torn_bytes: u64,
    /// Header slots and journal heads that an interrupted write explains.
    pub torn_blocks: u64,
    /// Segment files that the next open unlinks.
    pub leftover_segments: u64,
    /// Blob files that the next open unlinks.
    pub leftover_blobs: u64,
    /// Other files and directories of the store that it does not need.
    pub leftover_files: u64,
    /// Bytes read from the disk.
    pub bytes_read: u64,
}

impl Report {
    /// True if nothing was found that affects what is stored.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// # tophash::Store::open(&path)?.close()?;
    /// let report = tophash::verify::verify(&path)?;
    /// assert!(report.is_clean());
    /// println!("{} records are right", report.records);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings_total == self.harmless_total
    }
}
