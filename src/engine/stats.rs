//! Collecting [`Stats`].

use crate::engine::Engine;
use crate::error::{IoContext, Result};
use crate::log::appender::Appender;
use crate::stats::{CommitStats, IndexStats, LogStats, Stats};
use crate::sync::{AtomicU64, Ordering};
use crate::sys::{OpenMode, PathKind};

impl Engine {
    pub(crate) fn stats(&self) -> Stats {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Stats {
            records: self.table.len(),
            index: self.index_stats(),
            log: self.log_stats(),
            compaction: self.compactor.stats(&self.log),
            checkpoint: self.checkpointer.stats(&self.table, &self.log),
            commit: {
                let (syncs, waiters) = self.log.commit.counts();
                CommitStats { syncs, waiters }
            },
            waits: self.waits.stats(get(&self.table.counters.reader_locks)),
            recovery: self.recovery.get().cloned().unwrap_or_default(),
            poisoned: self.health.poisoned().cloned(),
        }
    }

    fn index_stats(&self) -> IndexStats {
        let table = &self.table;
        let growth = table.growth();
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let free = table.pool.len();
        let counters = &table.counters;
        let into_empty_one = get(&counters.into_empty_one);
        let into_new_overflow = get(&counters.into_new_overflow);
        IndexStats {
            level: u32::from(growth.level()),
            pages: growth.pages(),
            growing: growth.is_resizing() && !growth.is_shrinking(),
            shrinking: growth.is_shrinking(),
            evacuated_pages: growth.cursor(),
            overflow_pages: table.overflow.pages().saturating_sub(free),
            overflow_pages_free: free,
            // Blocks, since an extent gets them as it is filled.
            file_bytes: self.checkpointer.index_bytes(),
            slots: growth.pages() * table.geometry.slots() as u64,
            growths: get(&counters.growths),
            splits: get(&counters.splits),
            shrinks: get(&counters.shrinks),
            merges: get(&counters.merges),
            pages_given_back: get(&counters.given_back),
            refills: get(&counters.refills),
            rewrites: get(&counters.rewrites),
            repairs: get(&counters.repairs),
            inserts_into_empty_rest: table.inserts().saturating_sub(into_empty_one + into_new_overflow),
            inserts_into_empty_one: into_empty_one,
            inserts_into_new_overflow: into_new_overflow,
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
            stats.pinned_segments += u64::from(log.pins.is_pinned(segment.slot));
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
