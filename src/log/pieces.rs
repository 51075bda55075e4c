//! In which pieces the zeroes of a segment are written when it is prepared.
//!
//! The page cache keeps a file in pieces as large as it was written in, and a sync writes whole pieces back. Small pieces
//! make small syncs fast, but each sync interrupts later writers once for each piece. Large pieces are mapped by huge
//! pages and suit bulk writing, but a small sync of them writes megabytes. So the writes decide:
//!
//! * `Always` syncs each write: small pieces.
//! * `Manual` begins with large ones, `Every` with small ones.
//! * After some small syncs in a row the next segment has small pieces. An active one of large pieces is then replaced,
//!   and so is one that was prepared before and becomes active later.
//! * A segment that was filled in a hurry is followed by one of large pieces, unless small syncs filled it.

use crate::sync::{AtomicBool, AtomicU32, Ordering};
use crate::tuning::SyncPolicy;

/// A sync of fewer bytes is small.
const SMALL_SYNC_BYTES: u64 = 1 << 20;
/// After so many small syncs in a row a segment of large pieces is not wanted any more.
const SMALL_SYNCS: u32 = 20;

#[derive(Debug)]
pub(crate) struct Pieces {
    policy: SyncPolicy,
    /// The next segment is for bulk writing.
    bulk: AtomicBool,
    /// Small syncs since the last one that was not.
    small_syncs: AtomicU32,
    /// The active segment has large pieces, and small syncs follow each other.
    unsuited: AtomicBool,
}

impl Pieces {
    pub(super) fn new(policy: SyncPolicy) -> Self {
        Pieces {
            policy,
            bulk: AtomicBool::new(policy == SyncPolicy::Manual),
            small_syncs: AtomicU32::new(0),
            unsuited: AtomicBool::new(false),
        }
    }

    /// True if the next segment is for bulk writing.
    pub(super) fn wants_bulk(&self) -> bool {
        self.bulk.load(Ordering::Relaxed)
    }

    /// Bytes of the zeroes that a segment is prepared with.
    pub(super) fn bytes(&self, bulk: bool) -> usize {
        match self.policy {
            _ if bulk => 4 << 20,
            SyncPolicy::Always => 4 << 10,
            SyncPolicy::Every(_) | SyncPolicy::Manual => 16 << 10,
        }
    }

    /// A segment was filled in a hurry.
    pub(super) fn hurried(&self) {
        if self.policy != SyncPolicy::Always && self.small_syncs.load(Ordering::Relaxed) <= SMALL_SYNCS {
            self.bulk.store(true, Ordering::Relaxed);
        }
    }

    /// A sync covered so many bytes. True if small pieces are wanted from now on: the caller looks at the active segment
    /// ([`look_at`](Self::look_at)).
    pub(super) fn synced(&self, bytes: u64) -> bool {
        if bytes >= SMALL_SYNC_BYTES {
            self.small_syncs.store(0, Ordering::Relaxed);
            return false;
        }
        let is_enough = self.small_syncs.fetch_add(1, Ordering::Relaxed) == SMALL_SYNCS;
        if is_enough {
            self.bulk.store(false, Ordering::Relaxed);
        }
        is_enough
    }

    /// Looks whether the active segment is suited: at each new one, because it may have been prepared before small syncs
    /// asked for small pieces. The caller holds the append lock, so that the last look is at the last segment.
    pub(super) fn look_at(&self, active_is_bulk: bool) {
        let small = self.small_syncs.load(Ordering::Relaxed) > SMALL_SYNCS;
        self.unsuited.store(active_is_bulk && small, Ordering::Relaxed);
    }

    /// Notes whether the segment in which an opened store goes on has large pieces.
    pub(super) fn opened(&self, active_is_bulk: bool) {
        self.unsuited.store(active_is_bulk && self.policy != SyncPolicy::Manual, Ordering::Relaxed);
    }

    /// True if the active segment should be replaced.
    pub(super) fn is_unsuited(&self) -> bool {
        self.unsuited.load(Ordering::Relaxed)
    }

    /// The active segment is about to be replaced. If that fails, it goes on being used.
    pub(super) fn take_unsuited(&self) -> bool {
        self.unsuited.swap(false, Ordering::Relaxed)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use std::time::Duration;

    use super::*;

    fn sync(pieces: &Pieces, times: u32, bytes: u64, active_is_bulk: bool) {
        for _ in 0..times {
            if pieces.synced(bytes) {
                pieces.look_at(active_is_bulk);
            }
        }
    }

    #[test]
    fn small_syncs_in_a_row_ask_for_small_pieces() {
        let pieces = Pieces::new(SyncPolicy::Manual);
        assert!(pieces.wants_bulk());
        // A large one now and then: bulk writing that is synced.
        for _ in 0..3 {
            sync(&pieces, SMALL_SYNCS, 200, true);
            sync(&pieces, 1, SMALL_SYNC_BYTES, true);
        }
        assert!(pieces.wants_bulk() && !pieces.is_unsuited());
        sync(&pieces, SMALL_SYNCS + 1, 200, true);
        assert!(!pieces.wants_bulk() && pieces.take_unsuited() && !pieces.is_unsuited());
        // Once is enough.
        sync(&pieces, 100, 200, false);
        assert!(!pieces.wants_bulk() && !pieces.is_unsuited());
        pieces.hurried();
        assert!(!pieces.wants_bulk(), "small syncs filled the segment");
        sync(&pieces, 1, SMALL_SYNC_BYTES, false);
        pieces.hurried();
        assert!(pieces.wants_bulk());
        sync(&pieces, SMALL_SYNCS + 1, 200, false);
        assert!(!pieces.wants_bulk() && !pieces.is_unsuited(), "the active one has small pieces");
    }

    /// The twenty-first small sync alone looked at the active segment. One of large pieces that waited then stayed when it
    /// became active.
    #[test]
    fn a_segment_that_was_prepared_before_is_noticed_when_it_becomes_active() {
        let pieces = Pieces::new(SyncPolicy::Manual);
        pieces.look_at(true);
        assert!(!pieces.is_unsuited(), "nothing was synced");
        sync(&pieces, SMALL_SYNCS + 1, 200, false);
        assert!(!pieces.is_unsuited());
        pieces.look_at(true);
        assert!(pieces.take_unsuited() && !pieces.is_unsuited());
        pieces.look_at(true);
        pieces.look_at(false);
        assert!(!pieces.is_unsuited(), "the active one has small pieces");
        sync(&pieces, 1, SMALL_SYNC_BYTES, false);
        pieces.look_at(true);
        assert!(!pieces.is_unsuited(), "bulk writing");
    }

    #[test]
    fn each_policy_begins_as_it_is_used() {
        let every = Pieces::new(SyncPolicy::Every(Duration::from_millis(10)));
        assert!(!every.wants_bulk());
        every.hurried();
        assert!(every.wants_bulk());
        let always = Pieces::new(SyncPolicy::Always);
        always.hurried();
        assert!(!always.wants_bulk());
        for (policy, unsuited) in [(every, true), (always, true), (Pieces::new(SyncPolicy::Manual), false)] {
            policy.opened(true);
            assert_eq!(policy.is_unsuited(), unsuited);
            policy.opened(false);
            assert!(!policy.is_unsuited());
        }
    }
}
