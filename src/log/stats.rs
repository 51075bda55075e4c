//! The log's figures.

use super::segments::Log;
use crate::stats::{CommitStats, LogStats};

impl Log {
    pub(crate) fn stats(&self) -> LogStats {
        let freed = self.blobs.waiting();
        let mut stats = LogStats {
            blobs: self.blobs.count(),
            blob_bytes: self.blobs.bytes(),
            freed_blobs: freed.0,
            freed_blob_bytes: freed.1,
            pinned_segments: self.held_segments().0,
            held_bytes: self.held_bytes(),
            end_lsn: self.tail().raw(),
            durable_lsn: self.durable_lsn().raw(),
            file_bytes: self.queue.bytes(),
            expiring_bytes: self.expiring_bytes(),
            ..LogStats::default()
        };
        for segment in self.segments() {
            stats.segments += 1;
            stats.bytes += self.record_bytes(&segment);
            stats.dead_bytes += self.dead(segment.slot);
            stats.file_bytes += segment.capacity();
            stats.expired_bytes += self.expired(segment.slot);
            stats.removal_bytes += segment.removal_bytes();
            // The active segment's mapping is its writer's too.
            let writers = usize::from(segment.end().is_none());
            stats.pinned_segments += u64::from(self.pins.is_held(segment.slot, writers));
        }
        stats
    }

    pub(crate) fn commit_stats(&self) -> CommitStats {
        let (syncs, waiters) = self.commit.counts();
        CommitStats { syncs, waiters }
    }
}
