//! How large the segments of a log are.

use super::record::MARK_BYTES;
use super::segment::SEGMENT_HEADER_BYTES;
use crate::address::Address;
use crate::sys::PAGE_BYTES;

const PAGE: u64 = PAGE_BYTES as u64;

/// The first segment of a store. The next ones are as large as two logs, up to [`SEGMENT_BYTES_FIRST`].
const SEGMENT_BYTES_NEW: u64 = 16 << 10;
/// The smallest segment of a log that is larger than that, and the largest one that the store chooses by itself.
pub(super) const SEGMENT_BYTES_FIRST: u64 = 256 << 10;
pub(super) const SEGMENT_BYTES_LAST: u64 = Address::SEGMENT_BYTES_MAX;

/// Larger segments are multiples of this, because the kernel maps such a part of a file by one entry. A sync takes the right
/// to write away from each entry that has changed, and interrupts all processors for it.
const HUGE_BYTES: u64 = 2 << 20;

/// What part of the log a segment is: there are never many then, and little is unused.
const SHARE: u64 = 32;
/// The same up to [`URGENT_BYTES_MIN`], unless much of the log is dead: a writer that fills smaller segments would wait for
/// each.
const SHARE_OF_SMALL: u64 = 8;
/// What part of the usual size a segment has that somebody waits for: as a rule, and if much of the log is dead.
const URGENT_SHARE: u64 = 2;
const URGENT_SHARE_OF_CHURNED: u64 = 8;
/// The smallest segment, if the store is large enough for it, that is prepared while somebody waits.
const URGENT_BYTES_MIN: u64 = 4 << 20;

/// The smallest segment with room for so many bytes.
pub(super) fn needed(room: u64) -> u64 {
    (room + SEGMENT_HEADER_BYTES).next_multiple_of(PAGE)
}

/// What the sizes follow from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The size that the options want.
    pub(super) fixed: Option<u64>,
    /// Bytes of the segments that there are.
    pub(super) log: u64,
    /// Bytes of dead records in them.
    pub(super) dead: u64,
}

impl Sizes {
    fn is_churned(self) -> bool {
        self.dead > self.log / 10
    }

    /// The usual size of the next segment.
    pub(super) fn usual(self, room: u64) -> u64 {
        let needed = needed(room);
        let choose = || {
            let share = self.log / SHARE;
            let least = (2 * self.log).next_power_of_two().clamp(SEGMENT_BYTES_NEW, SEGMENT_BYTES_FIRST);
            let size = if self.is_churned() {
                // Compaction needs room for some segments beside the records.
                share.next_power_of_two()
            } else {
                let small = (self.log / SHARE_OF_SMALL).min(URGENT_BYTES_MIN);
                let size = share.max(small);
                size.next_multiple_of(if size > HUGE_BYTES { HUGE_BYTES } else { least })
            };
            let size = size.clamp(least, SEGMENT_BYTES_LAST);
            // Records should be small against the segment, lest its end stay empty.
            size.max((needed * 2).next_power_of_two().min(SEGMENT_BYTES_LAST))
        };
        self.fixed.map_or_else(choose, |bytes| bytes.next_multiple_of(PAGE)).max(needed)
    }

    /// What part of the usual size a segment has that somebody waits for.
    fn urgent_share(self) -> u64 {
        if self.is_churned() { URGENT_SHARE_OF_CHURNED } else { URGENT_SHARE }
    }

    /// The size of a segment that somebody waits for.
    pub(super) fn urgent(self, room: u64) -> u64 {
        let usual = self.usual(room);
        let urgent = (usual / self.urgent_share()).next_multiple_of(HUGE_BYTES).max(URGENT_BYTES_MIN).max(needed(room));
        if self.fixed.is_some() { usual } else { usual.min(urgent) }
    }

    /// A sealed segment with fewer bytes of records is a small one.
    ///
    /// It is smaller than any that is prepared now, also if somebody waits for it. If it were not, putting small segments
    /// together would make small ones again, and never end.
    pub(super) fn small(self) -> u64 {
        self.usual(0) / if self.fixed.is_some() { 4 } else { 2 * self.urgent_share() }
    }
}

/// The segments of a log that is yet to be written, without background threads. No record in it dies.
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
        let first = Sizes { fixed, log: 0, dead: 0 }.usual(0);
        Planned { fixed, segments: 1, bytes: first, last: first, end: SEGMENT_HEADER_BYTES }
    }

    /// Adds a record of so many bytes.
    pub(crate) fn append(&mut self, bytes: u64) {
        let room = bytes + MARK_BYTES as u64;
        if self.last - self.end < room {
            let next = Sizes { fixed: self.fixed, log: self.bytes, dead: 0 }.usual(room);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Sizes of a log that grows to `bytes`, one segment after the other.
    fn grown(bytes: u64, next: impl Fn(u64) -> u64) -> Vec<u64> {
        let (mut sizes, mut log) = (Vec::new(), 0);
        while log < bytes {
            sizes.push(next(log));
            log += sizes[sizes.len() - 1];
        }
        sizes
    }

    /// Segments of an eighth of the usual size, for which a writer waits, counted as small ones at once. An offline compaction
    /// made only such, and the next open put them together: into the same ones again, without end from 32 GiB on.
    #[test]
    fn a_segment_is_not_small_when_it_is_made() {
        for log in (0..60).map(|n| 3 << n) {
            for dead in [0, log / 5] {
                let sizes = Sizes { fixed: None, log, dead };
                assert!(sizes.urgent(0) > sizes.small(), "{log}");
            }
        }
    }

    /// Small segments are put together beyond 256 of them, and by an open beyond 320.
    #[test]
    fn growth_alone_leaves_few_small_segments() {
        let of = |log| Sizes { fixed: None, log, dead: 0 };
        for log in (0..12).map(|n| (1 << 30) << n) {
            let small_ones = |sizes: &[u64]| sizes.iter().filter(|&&size| size < of(log).small()).count();
            let sizes = grown(log, |log| of(log).usual(0));
            assert!(small_ones(&sizes) < 200 && sizes.len() < 4096, "{log}: {} of {}", small_ones(&sizes), sizes.len());
            let sizes = grown(log.min(1 << 40), |log| of(log).urgent(0));
            assert!(small_ones(&sizes) < 400 && sizes.len() < 4096, "{log}: {} of {}", small_ones(&sizes), sizes.len());
        }
    }
}
