//! Collecting [`Stats`].

use crate::engine::Engine;
use crate::error::{IoContext, Result};
use crate::stats::Stats;
use crate::sys::{OpenMode, PathKind};

impl Engine {
    pub(crate) fn stats(&self) -> Stats {
        Stats {
            records: self.table.len(),
            operations: self.counts.stats(&self.table),
            // Blocks, since an extent gets them as it is filled.
            index: self.table.stats(self.checkpointer.index_bytes()),
            log: self.log.stats(),
            compaction: self.compactor.stats(&self.log),
            checkpoint: self.checkpointer.stats(self.table.index(), &self.log),
            commit: self.log.commit_stats(),
            waits: self.waits.stats(self.table.reader_locks()),
            recovery: self.recovery.get().cloned().unwrap_or_default(),
            poisoned: self.health.poisoned().cloned(),
        }
    }

    /// Bytes that the store occupies on the disk: its files, and unlinked ones that readers keep.
    pub(crate) fn disk_bytes(&self) -> Result<u64> {
        let disk = self.log.disk();
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
