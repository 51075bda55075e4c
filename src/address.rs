//! Where a record is: its address in the files, and its LSN (log sequence number) in the order of the log.

use std::fmt;

/// The address of a record: segment slot (12 bits) and offset in units of 8 bytes (27 bits).
///
/// Addresses are recycled when a segment is freed; the order of the log is told by [`Lsn`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Address(u64);

impl Address {
    /// The number of segment slots.
    pub(crate) const SEGMENTS: usize = 1 << 12;
    /// The size limit of a segment in bytes.
    pub(crate) const SEGMENT_BYTES_MAX: u64 = 1 << 30;

    /// The address of a record.
    ///
    /// # Panics
    /// If there is no such address. Segments are no larger than [`SEGMENT_BYTES_MAX`](Self::SEGMENT_BYTES_MAX), and
    /// numbers from files are checked when they are decoded.
    #[inline]
    pub(crate) fn new(segment: u32, offset: u64) -> Self {
        // Also in release builds: an address that overflows names another record.
        assert!(
            (segment as usize) < Self::SEGMENTS && offset < Self::SEGMENT_BYTES_MAX && offset.is_multiple_of(8),
            "no record address: segment slot {segment}, offset {offset}"
        );
        Address(u64::from(segment) << 27 | offset >> 3)
    }

    /// The 39 bits as they stand in a slot.
    pub(crate) fn raw(self) -> u64 {
        self.0
    }

    /// The address with these 39 bits. One more than the last is allowed, as the end of a range.
    pub(crate) fn from_raw(raw: u64) -> Self {
        debug_assert!(raw <= 1 << 39);
        Address(raw)
    }

    /// The segment slot.
    #[inline]
    pub(crate) fn segment(self) -> u32 {
        (self.0 >> 27) as u32
    }

    /// The byte offset inside the segment.
    #[inline]
    pub(crate) fn offset(self) -> u64 {
        (self.0 & ((1 << 27) - 1)) << 3
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment slot {} offset {}", self.segment(), self.offset())
    }
}

/// A point in the log: segment sequence and byte offset. Never reused; gives the order of the log.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Lsn(u64);

impl Lsn {
    pub(crate) fn new(sequence: u32, offset: u64) -> Self {
        assert!(offset <= u64::from(u32::MAX), "no offset in a segment: {offset}");
        Lsn(u64::from(sequence) << 32 | offset)
    }

    pub(crate) fn from_raw(raw: u64) -> Self {
        Lsn(raw)
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

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "segment {} byte {}", self.sequence(), self.offset())
    }
}
