//! What a check reports.

use serde::{Deserialize, Serialize};

/// One thing that is not as it must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
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
    /// What should be there.
    pub expected: String,
    /// What is there.
    pub found: String,
}

/// What a check looked at and what it found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Report {
    /// The findings, up to a bound.
    pub findings: Vec<Finding>,
    /// All findings, those beyond the bound included.
    pub findings_total: u64,
    /// Generation of the checkpoint that was checked.
    pub generation: u64,
    /// True if the store was closed cleanly.
    pub clean: bool,
    /// Primary pages.
    pub pages: u64,
    /// Overflow pages in use.
    pub overflow_pages: u64,
    /// Live slots.
    pub live_slots: u64,
    /// `emptyOne` slots.
    pub tombstones: u64,
    /// Records that live slots point to, checked.
    pub records: u64,
    /// Their bytes.
    pub record_bytes: u64,
    /// Records in the log after the checkpoint.
    pub tail_records: u64,
    /// Segment files.
    pub segments: u64,
    /// Blob files.
    pub blobs: u64,
    /// Bytes read from the disk.
    pub bytes_read: u64,
}

impl Report {
    /// True if nothing was found.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings_total == 0
    }
}
