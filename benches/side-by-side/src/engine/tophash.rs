//! tophash with its defaults: reads verify checksums. Only the sync policy is set.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tophash::{Batch, Options, Store, SyncPolicy};

use super::{Engine, Reader, Writer};
use crate::protocol::{Figures, Opening, Replayed};

/// Growth goes on by itself when writes stop; it takes seconds at most.
const GROWTH_TIMEOUT: Duration = Duration::from_secs(120);

pub struct TophashEngine(Store);

impl Engine for TophashEngine {
    type Reader<'e> = &'e Store;
    type Writer<'e> = TophashWriter<'e>;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        let policy = if opening.is_durable { SyncPolicy::Always } else { SyncPolicy::Manual };
        let mut options = Options::new().sync(policy);
        if let Some(bytes) = opening.checkpoint_bytes {
            options = options.checkpoint_bytes(bytes);
        }
        Ok(TophashEngine(options.open(&opening.path)?))
    }

    fn reader(&self) -> anyhow::Result<&Store> {
        Ok(&self.0)
    }

    fn writer(&mut self, batch: u64) -> anyhow::Result<TophashWriter<'_>> {
        Ok(TophashWriter { store: &self.0, size: batch, batch: Batch::new() })
    }

    fn insert_durably(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.0.insert(key, value)?;
        Ok(())
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

    fn figures(&self) -> anyhow::Result<Figures> {
        let stats = self.0.stats();
        Ok(Figures {
            records: stats.records,
            index_bytes: Some(stats.index.file_bytes),
            log_bytes: Some(stats.log.bytes),
            disk_bytes: Some(self.0.disk_bytes()?),
            anonymous_bytes: 0,
        })
    }

    fn index(writer: &TophashWriter<'_>) -> Option<(u64, u64)> {
        let stats = writer.store.stats();
        Some((stats.index.file_bytes, stats.records))
    }

    fn bytes_since_checkpoint(writer: &TophashWriter<'_>) -> Option<u64> {
        Some(writer.store.stats().checkpoint.log_bytes_since)
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
        Ok(check(Store::get(self, key)?.as_deref()))
    }

    #[inline]
    fn get_many(
        &mut self,
        keys: &[Vec<u8>],
        mut check: impl FnMut(usize, Option<&[u8]>) -> bool,
    ) -> anyhow::Result<bool> {
        let mut all = true;
        for (i, value) in Store::get_many(self, keys)?.iter().enumerate() {
            all &= check(i, value.as_deref());
        }
        Ok(all)
    }
}

pub struct TophashWriter<'e> {
    store: &'e Store,
    size: u64,
    batch: Batch,
}

impl Writer for TophashWriter<'_> {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        if self.size == 1 {
            self.store.insert(key, value)?;
            return Ok(());
        }
        self.batch.insert(key, value);
        if self.batch.len() as u64 == self.size {
            self.store.apply(&self.batch)?;
            self.batch.clear();
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        if !self.batch.is_empty() {
            self.store.apply(&self.batch)?;
        }
        Ok(())
    }
}
