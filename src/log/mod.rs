//! The log: every record, in the order in which it was acknowledged.
//!
//! ```text
//! store of segments (segments.rs): which exist, their mappings, preparing the next one
//! ├── append   one record or frame behind the other, under a short lock
//! ├── frame    a segment of its own for a large frame
//! ├── space    live and dead bytes, freeing segments
//! ├── commit   group commit: one fdatasync for all who wait
//! ├── blob     values too large for a segment
//! ├── reader   a segment's records by mapping or by pread
//! ├── segment  one segment file: name, header
//! └── record   one record: header, checksum, limits
//! ```

pub(crate) mod append;
pub(crate) mod blob;
pub(crate) mod commit;
pub(crate) mod frame;
pub(crate) mod mapped;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod segment;
pub(crate) mod segments;
pub(crate) mod space;

use std::fmt;

/// A point in the log: segment sequence and byte offset. Never reused; gives the order of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Position(u64);

impl Position {
    pub(crate) fn new(sequence: u32, offset: u64) -> Self {
        assert!(offset <= u64::from(u32::MAX), "no offset in a segment: {offset}");
        Position(u64::from(sequence) << 32 | offset)
    }

    pub(crate) fn from_raw(raw: u64) -> Self {
        Position(raw)
    }

    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    /// The segment's sequence number.
    pub(crate) fn sequence(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The byte offset in the segment.
    pub(crate) fn offset(self) -> u64 {
        self.0 & 0xffff_ffff
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} byte {}", self.sequence(), self.offset())
    }
}
