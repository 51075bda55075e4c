//! Deadlines, as the rest of the store asks the log for them. How they are counted is known to
//! [`AllDeadlines`](super::deadlines::AllDeadlines) alone.

use super::deadlines::{Expiring, Reading};
use super::segment::Segment;
use super::segments::Log;
use crate::address::Address;
use crate::expiry::Deadline;

impl Log {
    /// Milliseconds since 1970.
    pub(crate) fn now(&self) -> u64 {
        self.disk().now()
    }

    /// A record was appended. One without a deadline is nothing to keep.
    #[inline]
    pub(crate) fn add_deadline(&self, address: Address, deadline: Deadline, bytes: u64) {
        if let Some(millis) = deadline.millis() {
            self.count_deadline(address, millis, bytes);
        }
    }

    #[cold]
    fn count_deadline(&self, address: Address, millis: u64, bytes: u64) {
        self.deadlines.lock().add(address.segment(), millis, bytes);
    }

    /// A record is dead: its bytes are no longer counted by its deadline.
    #[inline]
    pub(crate) fn bury(&self, address: Address, deadline: Deadline, bytes: u64) {
        self.add_dead(address, bytes);
        if let Some(millis) = deadline.millis() {
            self.discount_deadline(address, millis, bytes);
        }
    }

    #[cold]
    fn discount_deadline(&self, address: Address, millis: u64, bytes: u64) {
        self.deadlines.lock().take(address.segment(), address.offset(), millis, bytes);
    }

    /// Forgets those of a segment, whose records are all dead.
    pub(super) fn forget_deadlines(&self, slot: u32) {
        self.deadlines.lock().forget(slot);
    }

    /// Bytes of a segment's records that are dead or expired.
    pub(crate) fn gone(&self, segment: &Segment) -> u64 {
        let gone = self.dead(segment.slot).saturating_add(self.expired(segment.slot));
        gone.min(self.record_bytes(segment))
    }

    /// Bytes of a segment's expired records that no later record has superseded. The clock is looked at only if one of its
    /// records has a deadline.
    pub(crate) fn expired(&self, slot: u32) -> u64 {
        self.deadlines.lock().over(slot, || self.now())
    }

    /// Bytes of all records with a deadline that no later record has superseded.
    pub(crate) fn expiring_bytes(&self) -> u64 {
        self.deadlines.lock().sum()
    }

    /// The moments to come at which bytes expire, in order.
    pub(crate) fn moments_to_come(&self) -> Vec<(u64, u64)> {
        let all = self.deadlines.lock();
        if all.is_empty() { Vec::new() } else { all.moments_after(self.now()) }
    }

    /// What a checkpoint keeps of a segment.
    pub(crate) fn kept_deadlines(&self, slot: u32) -> Option<Expiring> {
        self.deadlines.lock().kept(slot)
    }

    /// What a checkpoint has kept of a segment, whose records end there.
    pub(crate) fn open_deadlines(&self, slot: u32, end: u64, kept: Expiring) {
        self.deadlines.lock().open(slot, end, kept);
    }

    /// The segment slots of which a guess from an open may hide what is over, and how many bytes of each. The clock is looked at
    /// only if there is a guess.
    pub(crate) fn doubtful_deadlines(&self) -> Vec<(u32, u64)> {
        self.deadlines.lock().doubtful(|| self.now())
    }

    /// Bytes of records that may be over although nothing says so.
    pub(crate) fn doubtful_bytes(&self) -> u64 {
        self.doubtful_deadlines().into_iter().map(|(_, bytes)| bytes).sum()
    }

    /// Begins to read a segment's deadlines, or goes on. Returns where the next record begins, and where to end. `None` if there
    /// is nothing to read, or another thread does.
    pub(crate) fn begin_reading(&self, slot: u32) -> Option<(u64, u64)> {
        self.deadlines.lock().begin_reading(slot)
    }

    /// A record with a deadline was read that a slot names: the caller holds its key's stripe. It ends at `next`.
    pub(crate) fn found_deadline(&self, slot: u32, next: u64, deadline: Deadline, bytes: u64) {
        if let Some(millis) = deadline.millis() {
            self.deadlines.lock().found(slot, next, millis, bytes);
        }
    }

    /// Ends what was begun.
    pub(crate) fn end_reading(&self, slot: u32, reading: Reading) {
        self.deadlines.lock().end_reading(slot, reading);
    }

    /// Records that are over at `now` are about to be removed from the index.
    pub(crate) fn sweep(&self, now: u64) {
        let mut all = self.deadlines.lock();
        all.swept = all.swept.max(now);
    }

    /// The highest moment for which that was done, in this process or before.
    pub(crate) fn swept(&self) -> u64 {
        self.deadlines.lock().swept
    }
}
