//! Collecting [`Stats`].

use crate::engine::Engine;
use crate::error::{IoContext, Result};
use crate::log::appender::Appender;
use crate::stats::{CommitStats, LogStats, Stats};
use crate::sync::Ordering;
use crate::sys::{OpenMode, PathKind};

impl Engine {
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            records: self.table.len(),
            operations: self.counts.stats(&self.table),
            // Blocks, since an extent gets them as it is filled.
            index: self.table.stats(self.checkpointer.index_bytes()),
            log: self.log_stats(),
            compaction: self.compactor.stats(&self.log),
            checkpoint: self.checkpointer.stats(&self.table, &self.log),
            commit: {
                let (syncs, waiters) = self.log.commit.counts();
                CommitStats { syncs, waiters }
            },
            waits: self.waits.stats(self.table.reader_locks()),
            recovery: self.recovery.get().cloned().unwrap_or_default(),
            poisoned: self.health.poisoned().cloned(),
        }
    }

    fn log_stats(&self) -> LogStats {
        let log = &self.log;
        let freed = log.blobs.waiting();
        let mut stats = LogStats {
            blobs: log.blobs.count(),
            blob_bytes: log.blobs.bytes(),
            freed_blobs: freed.0,
            freed_blob_bytes: freed.1,
            pinned_segments: log.held_segments().0,
            held_bytes: log.held_bytes(),
            position: log.appender.lock().as_ref().map_or(0, |appender: &Appender| appender.lsn().raw()),
            durable_position: log.commit.durable().raw(),
            file_bytes: log.prepared_bytes(),
            ..LogStats::default()
        };
        for segment in log.segments() {
            stats.segments += 1;
            stats.bytes += log.record_bytes(&segment);
            stats.dead_bytes += log.dead(segment.slot);
            stats.file_bytes += segment.capacity();
            stats.removal_bytes += segment.removal_bytes.load(Ordering::Relaxed);
            // The active segment's mapping is its writer's too.
            let writers = usize::from(segment.end().is_none());
            stats.pinned_segments += u64::from(log.pins.is_held(segment.slot, writers));
        }
        stats
    }

    /// Bytes that the store occupies on the disk: its files, and unlinked ones that readers keep.
    pub(crate) fn disk_bytes(&self) -> Result<u64> {
        let disk = &*self.log.config.disk;
        let mut bytes = self.log.held_bytes();
        for dir in [&self.path, &self.log.dir().to_path_buf()] {
            for name in disk.read_dir(dir).context("list", dir)? {
                let path = dir.join(name);
                if disk.kind(&path).context("look at", &path)? != PathKind::Other {
                    continue;
                }
                // A file that is gone by now (a blob, a segment) counts for nothing.
                if let Ok(file) = disk.open(&path, OpenMode::Read) {
                    bytes += file.allocated().context("look at", &path)?;
                }
            }
        }
        Ok(bytes)
    }
}
