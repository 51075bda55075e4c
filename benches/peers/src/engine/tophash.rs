//! tophash with its defaults: reads verify checksums. Only the sync policy is set, and for one variant not even that.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tophash::{Batch, Options, Store, SyncPolicy, Table};

use super::{Changes, Engine, Reader, WasThere};
use crate::protocol::{Figures, Mode, Opening, Replayed};

/// Growth goes on by itself when writes stop; it takes seconds at most.
const GROWTH_TIMEOUT: Duration = Duration::from_secs(120);
/// A batch's limit is 1 GiB.
const BATCH_BYTES_MAX: usize = 512 << 20;
const STORE: &str = "store.tophash";

/// `EVERY`: syncs in the background, every 100 ms, which is the default.
pub struct TophashEngine<const EVERY: bool>(Store);

impl<const EVERY: bool> Engine for TophashEngine<EVERY> {
    type Reader<'e> = &'e Store;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        std::fs::create_dir_all(&opening.path)?;
        let policy = match opening.mode {
            Mode::Durable => SyncPolicy::Always,
            Mode::Buffered if EVERY => SyncPolicy::default(),
            Mode::Buffered => SyncPolicy::Manual,
        };
        let mut options = Options::new().sync(policy);
        if let Some(bytes) = opening.checkpoint_bytes {
            options = options.checkpoint_bytes(bytes);
        }
        Ok(TophashEngine(options.open(opening.path.join(STORE))?))
    }

    fn set_mode(self, opening: &Opening) -> anyhow::Result<Self> {
        self.0.close()?;
        Self::open(opening)
    }

    fn reader(&self) -> anyhow::Result<&Store> {
        Ok(&self.0)
    }

    #[inline]
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.0.insert(key, value)?;
        Ok(())
    }

    #[inline]
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        Ok(Some(self.0.remove(key)?.is_some()))
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut changes = TophashChanges { store: &self.0, batch: Batch::new(), bytes: 0 };
        fill(&mut changes)?;
        changes.apply()
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(self.0.sync()?)
    }

    fn settle(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.0.stats().index.growing {
            ensure!(started.elapsed() < GROWTH_TIMEOUT, "growth does not end: {:?}", self.0.stats().index);
            thread::sleep(Duration::from_millis(10));
        }
        Ok(self.0.checkpoint()?)
    }

    fn compact(self, opening: &Opening) -> anyhow::Result<(Self, bool)> {
        self.0.close()?;
        tophash::compact::compact(opening.path.join(STORE))?;
        Ok((Self::open(opening)?, true))
    }

    fn figures(&self) -> anyhow::Result<Figures> {
        let stats = self.0.stats();
        Ok(Figures {
            records: Some(stats.records),
            index_bytes: Some(stats.index.file_bytes),
            log_bytes: Some(stats.log.bytes),
            ..Figures::default()
        })
    }

    fn index(&self) -> Option<(u64, u64)> {
        let stats = self.0.stats();
        Some((stats.index.file_bytes, stats.records))
    }

    fn bytes_since_checkpoint(&self) -> Option<u64> {
        Some(self.0.stats().checkpoint.log_bytes_since)
    }

    fn replayed(&self) -> Option<Replayed> {
        let recovery = self.0.stats().recovery;
        Some(Replayed { records: recovery.replayed_records, bytes: recovery.replayed_bytes })
    }

    fn close(self) -> anyhow::Result<()> {
        Ok(self.0.close()?)
    }
}

impl Reader for &Store {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        Ok(check(Table::get(self, key)?.as_deref()))
    }

    #[inline]
    fn get_many(
        &mut self,
        keys: &[Vec<u8>],
        mut check: impl FnMut(usize, Option<&[u8]>) -> bool,
    ) -> anyhow::Result<bool> {
        let mut all = true;
        for (i, value) in Table::get_many(self, keys)?.iter().enumerate() {
            all &= check(i, value.as_deref());
        }
        Ok(all)
    }
}

struct TophashChanges<'e> {
    store: &'e Store,
    batch: Batch,
    bytes: usize,
}

impl TophashChanges<'_> {
    fn apply(&mut self) -> anyhow::Result<()> {
        if !self.batch.is_empty() {
            self.store.apply(&self.batch)?;
            self.batch.clear();
            self.bytes = 0;
        }
        Ok(())
    }

    fn count(&mut self, bytes: usize) -> anyhow::Result<()> {
        self.bytes += bytes + 32;
        if self.bytes > BATCH_BYTES_MAX { self.apply() } else { Ok(()) }
    }
}

impl Changes for TophashChanges<'_> {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.batch.insert(key, value);
        self.count(key.len() + value.len())
    }

    #[inline]
    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        self.batch.remove(key);
        self.count(key.len())?;
        Ok(None)
    }
}
