//! How large the segments of a log are.

use super::record::MARK_BYTES;
use super::segment::SEGMENT_HEADER_BYTES;
use crate::address::Place;
use crate::sys::PAGE_BYTES;

const PAGE: u64 = PAGE_BYTES as u64;

/// The smallest and the largest segment that the store chooses by itself.
pub(super) const SEGMENT_BYTES_FIRST: u64 = 256 << 10;
pub(super) const SEGMENT_BYTES_LAST: u64 = Place::SEGMENT_BYTES_MAX;

/// What part of the log a segment is: there are never many then, and little is unused.
const SHARE: u64 = 32;
/// The same up to [`URGENT_BYTES_MIN`], unless much of the log is dead: a writer that fills smaller segments would wait for
/// each.
const SHARE_OF_SMALL: u64 = 8;
/// The smallest segment, if the store is large enough for it, that is prepared while somebody waits.
const URGENT_BYTES_MIN: u64 = 4 << 20;

/// The smallest segment with room for so many bytes.
pub(super) fn needed(room: u64) -> u64 {
    (room + SEGMENT_HEADER_BYTES).next_multiple_of(PAGE)
}

/// The usual size of the next segment. `fixed`: the size that the options want; `log`: bytes of the segments that there are;
/// `dead`: bytes of dead records in them.
pub(super) fn usual(fixed: Option<u64>, log: u64, dead: u64, room: u64) -> u64 {
    let needed = needed(room);
    let choose = || {
        let share = log / SHARE;
        let size = if dead > log / 10 {
            // Compaction needs room for some segments beside the records.
            share.next_power_of_two()
        } else {
            let small = (log / SHARE_OF_SMALL).min(URGENT_BYTES_MIN);
            share.max(small).next_multiple_of(SEGMENT_BYTES_FIRST)
        };
        let size = size.clamp(SEGMENT_BYTES_FIRST, SEGMENT_BYTES_LAST);
        // Records should be small against the segment, lest its end stay empty.
        size.max((needed * 2).next_power_of_two().min(SEGMENT_BYTES_LAST))
    };
    fixed.map_or_else(choose, |bytes| bytes.next_multiple_of(PAGE)).max(needed)
}

/// The size of a segment that somebody waits for, where `usual` is the usual one.
pub(super) fn urgent(fixed: Option<u64>, usual: u64, room: u64) -> u64 {
    let urgent = (usual / 8).max(URGENT_BYTES_MIN).max(needed(room));
    if fixed.is_some() { usual } else { usual.min(urgent) }
}

/// The segments of a log that is yet to be written, by one writer that waits for each segment. No record in it dies.
#[derive(Debug)]
pub(crate) struct Planned {
    fixed: Option<u64>,
    /// Segments, and bytes of all of them.
    pub(crate) segments: u64,
    bytes: u64,
    /// The last one, and where its records end.
    last: u64,
    end: u64,
}

impl Planned {
    /// A log without records. `fixed`: the size of segments that the options want.
    pub(crate) fn new(fixed: Option<u64>) -> Self {
        let first = usual(fixed, 0, 0, 0);
        Planned { fixed, segments: 1, bytes: first, last: first, end: SEGMENT_HEADER_BYTES }
    }

    /// Adds a record of so many bytes.
    pub(crate) fn append(&mut self, bytes: u64) {
        let room = bytes + MARK_BYTES as u64;
        if self.last - self.end < room {
            let next = urgent(self.fixed, usual(self.fixed, self.bytes, 0, room), room);
            // The one before is cut to its end once it is sealed.
            self.bytes = self.disk_bytes() + next;
            self.last = next;
            self.segments += 1;
            self.end = SEGMENT_HEADER_BYTES;
        }
        self.end += bytes;
    }

    /// Bytes on the disk, if the last segment is cut off behind its records.
    pub(crate) fn disk_bytes(&self) -> u64 {
        self.bytes - self.last + self.end.next_multiple_of(PAGE)
    }
}
