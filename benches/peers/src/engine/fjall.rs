//! fjall: one keyspace.

use std::thread;
use std::time::{Duration, Instant};

use fjall::{Database, Keyspace, KeyspaceCreateOptions, OwnedWriteBatch, PersistMode};

use super::{Changes, Engine, Reader, WasThere};
use crate::protocol::{Mode, Opening};

/// A batch is held in memory and again in the journal.
const BATCH_RECORDS_MAX: usize = 100_000;
/// Flushes and compactions go on by themselves when writes stop.
const QUIET_TIMEOUT: Duration = Duration::from_secs(60);

pub struct FjallEngine {
    database: Database,
    keyspace: Keyspace,
    mode: Mode,
}

impl FjallEngine {
    #[inline]
    fn persist(&self) -> anyhow::Result<()> {
        match self.mode {
            Mode::Durable => Ok(self.database.persist(PersistMode::SyncData)?),
            Mode::Buffered => Ok(()),
        }
    }
}

impl Engine for FjallEngine {
    type Reader<'e> = &'e Keyspace;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        let database = Database::builder(&opening.path).cache_size(opening.cache_bytes).open()?;
        let keyspace = database.keyspace("records", KeyspaceCreateOptions::default)?;
        Ok(FjallEngine { database, keyspace, mode: opening.mode })
    }

    fn set_mode(self, opening: &Opening) -> anyhow::Result<Self> {
        self.sync()?;
        Ok(FjallEngine { mode: opening.mode, ..self })
    }

    fn reader(&self) -> anyhow::Result<&Keyspace> {
        Ok(&self.keyspace)
    }

    #[inline]
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.keyspace.insert(key, value)?;
        self.persist()
    }

    #[inline]
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        self.keyspace.remove(key)?;
        self.persist()?;
        Ok(None)
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut changes = FjallChanges { engine: self, batch: self.database.batch() };
        fill(&mut changes)?;
        changes.batch.commit()?;
        self.persist()
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn settle(&self) -> anyhow::Result<()> {
        self.sync()?;
        let started = Instant::now();
        while self.database.outstanding_flushes() + self.database.active_compactions() > 0
            && started.elapsed() < QUIET_TIMEOUT
        {
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    fn compact(self, _opening: &Opening) -> anyhow::Result<(Self, bool)> {
        // Otherwise what is in memory, removals above all, would not take part.
        self.keyspace.rotate_memtable_and_wait()?;
        self.keyspace.major_compact()?;
        self.sync()?;
        Ok((self, true))
    }

    fn close(self) -> anyhow::Result<()> {
        self.sync()
    }
}

impl Reader for &Keyspace {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        Ok(check(Keyspace::get(self, key)?.as_deref()))
    }
}

struct FjallChanges<'e> {
    engine: &'e FjallEngine,
    batch: OwnedWriteBatch,
}

impl FjallChanges<'_> {
    fn limit(&mut self) -> anyhow::Result<()> {
        if self.batch.len() >= BATCH_RECORDS_MAX {
            std::mem::replace(&mut self.batch, self.engine.database.batch()).commit()?;
        }
        Ok(())
    }
}

impl Changes for FjallChanges<'_> {
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.batch.insert(&self.engine.keyspace, key, value);
        self.limit()
    }

    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        self.batch.remove(&self.engine.keyspace, key);
        self.limit()?;
        Ok(None)
    }
}
