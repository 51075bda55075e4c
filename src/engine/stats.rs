//! Collecting [`Stats`].

use crate::engine::Engine;
use crate::error::{IoContext, Result};
use crate::stats::{OperationStats, Stats, TableStats};
use crate::sys::{OpenMode, PathKind};
use crate::table::Table;
use crate::table_id::TableId;

impl Engine {
    pub(crate) fn stats(&self) -> Stats {
        let others = self.tables.all().split_off(1);
        // Blocks, since an extent gets them as it is filled.
        let mut index = self.tables.main().stats(self.checkpointer.index_bytes());
        let mut operations = self.counts.stats(self.tables.main());
        for table in &others {
            index.add(&table.stats(0));
            if table.id() != TableId::CATALOG {
                operations.add(table);
            }
        }
        Stats {
            records: self.tables.records(),
            tables: others.iter().filter(|table| table.id() >= TableId::FIRST).count() as u64,
            operations,
            index,
            log: self.log.stats(),
            compaction: self.compactor.stats(&self.log),
            checkpoint: self.checkpointer.stats(self.tables.index(), &self.log),
            commit: self.log.commit_stats(),
            waits: self.waits.stats(self.tables.reader_locks()),
            recovery: self.recovery.get().cloned().unwrap_or_default(),
            poisoned: self.health.poisoned().cloned(),
        }
    }

    /// The figures of one table.
    pub(crate) fn table_stats(&self, table: &Table) -> TableStats {
        let mut operations = OperationStats::default();
        operations.add(table);
        TableStats { records: table.records(), operations, index: table.stats(0) }
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
