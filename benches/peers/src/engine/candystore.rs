//! candystore, with its defaults or without checkpoints in the background.

use candystore::{CandyStore, Config};

use super::{Changes, Engine, Reader, WasThere};
use crate::protocol::{Figures, Mode, Opening};

/// `CHECKPOINTS`: in the background, which is the default.
pub struct CandyEngine<const CHECKPOINTS: bool> {
    store: CandyStore,
    mode: Mode,
}

impl<const CHECKPOINTS: bool> CandyEngine<CHECKPOINTS> {
    #[inline]
    fn flush(&self) -> anyhow::Result<()> {
        match self.mode {
            Mode::Durable => Ok(self.store.flush()?),
            Mode::Buffered => Ok(()),
        }
    }
}

impl<const CHECKPOINTS: bool> Engine for CandyEngine<CHECKPOINTS> {
    type Reader<'e> = &'e CandyStore;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        let mut config = Config::default();
        if !CHECKPOINTS {
            config.checkpoint_interval = None;
            config.checkpoint_delta_bytes = None;
        }
        Ok(CandyEngine { store: CandyStore::open(&opening.path, config)?, mode: opening.mode })
    }

    fn set_mode(self, opening: &Opening) -> anyhow::Result<Self> {
        self.sync()?;
        Ok(CandyEngine { mode: opening.mode, ..self })
    }

    fn reader(&self) -> anyhow::Result<&CandyStore> {
        Ok(&self.store)
    }

    #[inline]
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.store.set(key, value)?;
        self.flush()
    }

    #[inline]
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        let was_there = self.store.remove(key)?.is_some();
        self.flush()?;
        Ok(Some(was_there))
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        fill(&mut &self.store)?;
        self.flush()
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(self.store.flush()?)
    }

    fn compact(self, _opening: &Opening) -> anyhow::Result<(Self, bool)> {
        self.store.shrink_to_fit_blocking(0.0)?;
        self.sync()?;
        Ok((self, true))
    }

    fn figures(&self) -> anyhow::Result<Figures> {
        Ok(Figures { records: Some(self.store.num_items() as u64), ..Figures::default() })
    }

    fn close(self) -> anyhow::Result<()> {
        self.sync()
    }
}

impl Reader for &CandyStore {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        Ok(check(CandyStore::get(self, key)?.as_deref()))
    }
}

impl Changes for &CandyStore {
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        self.set(key, value)?;
        Ok(())
    }

    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        Ok(Some(CandyStore::remove(self, key)?.is_some()))
    }
}
