//! sled.

use sled::{Batch, Config, Db};

use super::{Changes, Engine, Reader, WasThere};
use crate::protocol::{Mode, Opening};

/// Larger ones make it slower.
const BATCH_RECORDS_MAX: usize = 10_000;

pub struct SledEngine {
    db: Db,
    mode: Mode,
}

impl SledEngine {
    #[inline]
    fn flush(&self) -> anyhow::Result<()> {
        match self.mode {
            Mode::Durable => self.sync(),
            Mode::Buffered => Ok(()),
        }
    }
}

impl Engine for SledEngine {
    type Reader<'e> = &'e Db;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        let config =
            Config::new().path(&opening.path).cache_capacity(opening.cache_bytes).mode(sled::Mode::HighThroughput);
        Ok(SledEngine { db: config.open()?, mode: opening.mode })
    }

    fn set_mode(self, opening: &Opening) -> anyhow::Result<Self> {
        self.sync()?;
        Ok(SledEngine { mode: opening.mode, ..self })
    }

    fn reader(&self) -> anyhow::Result<&Db> {
        Ok(&self.db)
    }

    #[inline]
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.db.insert(key, value)?;
        self.flush()
    }

    #[inline]
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        let was_there = self.db.remove(key)?.is_some();
        self.flush()?;
        Ok(Some(was_there))
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut changes = SledChanges { db: &self.db, batch: Batch::default(), records: 0 };
        fill(&mut changes)?;
        changes.apply()?;
        self.flush()
    }

    fn sync(&self) -> anyhow::Result<()> {
        self.db.flush()?;
        Ok(())
    }

    fn compact(self, _opening: &Opening) -> anyhow::Result<(Self, bool)> {
        Ok((self, false))
    }

    fn close(self) -> anyhow::Result<()> {
        self.sync()
    }
}

impl Reader for &Db {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        // Db derefs to its default tree.
        Ok(check(sled::Tree::get(self, key)?.as_deref()))
    }
}

struct SledChanges<'e> {
    db: &'e Db,
    batch: Batch,
    records: usize,
}

impl SledChanges<'_> {
    fn apply(&mut self) -> anyhow::Result<()> {
        self.records = 0;
        Ok(self.db.apply_batch(std::mem::take(&mut self.batch))?)
    }

    fn count(&mut self) -> anyhow::Result<()> {
        self.records += 1;
        if self.records >= BATCH_RECORDS_MAX { self.apply() } else { Ok(()) }
    }
}

impl Changes for SledChanges<'_> {
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.batch.insert(key, value);
        self.count()
    }

    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        self.batch.remove(key);
        self.count()?;
        Ok(None)
    }
}
