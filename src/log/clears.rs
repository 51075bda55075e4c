//! The last clear-record, and what it makes unneeded.
//!
//! A clear-record hides every record before it. The last one hides whatever earlier ones do, and whatever removals before it
//! do. As long as it stays, a repair from the log alone needs none of those. So only the segment of the last clear-record
//! must stay until it is the oldest.
//!
//! *Crash:* a segment is emptied for the sake of a clear-record only after that was appended. The file is unlinked only when a
//! checkpoint is durable whose cut lies behind both, so the clear-record is durable by then. Should the log end before the
//! clear-record, that checkpoint was not durable, and the file is there.
//!
//! *After an open* the log knows the last clear-record if that stands in the tail. Else it is met when its segment is read
//! for compaction. Until then an earlier one counts as the last: it hides less.

use super::record::{CLEAR_BYTES, Kind};
use super::segment::Segment;
use super::segments::Log;
use crate::address::{Address, Lsn};
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sync::Ordering;

impl Log {
    /// Where the last clear-record stands, as far as is known. Zero for none.
    pub(crate) fn last_clear(&self) -> Lsn {
        Lsn::from_raw(self.clear.load(Ordering::Acquire))
    }

    /// A clear-record stands in the log.
    pub(crate) fn note_clear(&self, at: Lsn) {
        self.clear.fetch_max(at.raw(), Ordering::AcqRel);
    }

    /// A clear-record that ends there was appended or replayed.
    pub(crate) fn note_clear_before(&self, end: Lsn) {
        self.note_clear(Lsn::new(end.sequence(), end.offset().saturating_sub(CLEAR_BYTES)));
    }

    /// True if the segment must stay until it is the oldest: the last clear-record stands in it, which cannot be moved behind
    /// later puts.
    pub(crate) fn keeps_clear(&self, segment: &Segment) -> bool {
        segment.sequence == self.last_clear().sequence() && !broken(Mutant::ClearsDropped)
    }

    /// True if the last clear-record hides all that the segment's records could bring back. It speaks of the main table alone.
    pub(crate) fn is_hidden(&self, segment: &Segment) -> bool {
        segment.sequence < self.last_clear().sequence() && !self.has_tables.load(Ordering::Relaxed)
    }

    /// There can be records of other tables than the main one.
    pub(crate) fn note_tables(&self) {
        self.has_tables.store(true, Ordering::Relaxed);
    }

    /// The same as [`last_clear`](Self::last_clear), after a look at it. One that is rotten hides nothing: the log forgets it,
    /// and goes on with what it meets of the earlier ones.
    pub(crate) fn readable_clear(&self) -> Lsn {
        let at = self.last_clear();
        let Some(segment) = self.segment(at.sequence()) else { return Lsn::default() };
        let address = Address::new(segment.slot, at.offset());
        // Without a mapping it was freed this moment, and so was all before it.
        let Some(pinned) = self.pin(address) else { return Lsn::default() };
        if self.record(&pinned, address).is_ok_and(|record| record.header.kind == Kind::Clear) {
            return at;
        }
        segment.set_damaged();
        observe::victim_damaged(&segment.path);
        // Unless there is a later one by now.
        let _ = self.clear.compare_exchange(at.raw(), 0, Ordering::AcqRel, Ordering::Relaxed);
        Lsn::default()
    }
}
