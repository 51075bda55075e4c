//! RocksDB, set up as in redb's benchmark, without transactions.

use std::thread;

use rocksdb::{
    BlockBasedOptions, Cache, CompactOptions, DB, FlushOptions, Options, WriteBatch, WriteBufferManager, WriteOptions,
};

use super::{Changes, Engine, Reader, WasThere};
use crate::protocol::{Mode, Opening};

/// A batch is held in memory and again in the log.
const BATCH_RECORDS_MAX: usize = 100_000;

pub struct RocksdbEngine {
    db: DB,
    mode: Mode,
}

impl RocksdbEngine {
    fn write_options(&self) -> WriteOptions {
        let mut options = WriteOptions::default();
        options.set_sync(self.mode == Mode::Durable);
        options
    }
}

impl Engine for RocksdbEngine {
    type Reader<'e> = &'e DB;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        let cache_bytes = usize::try_from(opening.cache_bytes)?;
        let cache = Cache::new_lru_cache(cache_bytes);
        let buffers = WriteBufferManager::new_write_buffer_manager_with_cache(cache_bytes / 2, false, cache.clone());
        let mut blocks = BlockBasedOptions::default();
        blocks.set_block_cache(&cache);
        blocks.set_bloom_filter(10.0, false);
        blocks.set_cache_index_and_filter_blocks(true);
        let mut options = Options::default();
        options.set_block_based_table_factory(&blocks);
        options.set_write_buffer_manager(&buffers);
        options.create_if_missing(true);
        options.increase_parallelism(i32::try_from(thread::available_parallelism().map_or(1, usize::from))?);
        Ok(RocksdbEngine { db: DB::open(&options, &opening.path)?, mode: opening.mode })
    }

    fn set_mode(self, opening: &Opening) -> anyhow::Result<Self> {
        self.sync()?;
        Ok(RocksdbEngine { mode: opening.mode, ..self })
    }

    fn reader(&self) -> anyhow::Result<&DB> {
        Ok(&self.db)
    }

    #[inline]
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Ok(self.db.put_opt(key, value, &self.write_options())?)
    }

    #[inline]
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        self.db.delete_opt(key, &self.write_options())?;
        Ok(None)
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut changes = RocksdbChanges { db: &self.db, batch: WriteBatch::default() };
        fill(&mut changes)?;
        Ok(self.db.write_opt(changes.batch, &self.write_options())?)
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(self.db.flush_wal(true)?)
    }

    fn compact(self, _opening: &Opening) -> anyhow::Result<(Self, bool)> {
        let mut flush = FlushOptions::default();
        flush.set_wait(true);
        self.db.flush_opt(&flush)?;
        self.db.compact_range_opt(None::<&[u8]>, None::<&[u8]>, &CompactOptions::default());
        Ok((self, true))
    }

    fn close(self) -> anyhow::Result<()> {
        self.sync()
    }
}

impl Reader for &DB {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        Ok(check(self.get_pinned(key)?.as_deref()))
    }
}

struct RocksdbChanges<'e> {
    db: &'e DB,
    batch: WriteBatch,
}

impl RocksdbChanges<'_> {
    fn limit(&mut self) -> anyhow::Result<()> {
        if self.batch.len() >= BATCH_RECORDS_MAX {
            self.db.write(std::mem::take(&mut self.batch))?;
        }
        Ok(())
    }
}

impl Changes for RocksdbChanges<'_> {
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.batch.put(key, value);
        self.limit()
    }

    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        self.batch.delete(key);
        self.limit()?;
        Ok(None)
    }
}
