//! LMDB through heed: one unnamed database. A reader is one long read transaction, which is the fastest way to read it; a
//! write transaction spans one record or a batch of them.

use std::fs;

use heed::types::Bytes;
use heed::{
    CommitOrAbort, CompactionOption, Database, Env, EnvFlags, EnvOpenOptions, FlagSetMode, RoTxn, RwTxn, WithTls,
};

use super::{Changes, Engine, Reader, WasThere};
use crate::protocol::{Figures, Mode, Opening};

type Map = Database<'static, Bytes, Bytes>;

pub struct LmdbEngine {
    env: Env<WithTls>,
    map: Map,
}

impl Engine for LmdbEngine {
    type Reader<'e> = LmdbReader<'e>;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        fs::create_dir_all(&opening.path)?;
        let mut flags = EnvFlags::empty();
        flags.set(EnvFlags::NO_SYNC, opening.mode == Mode::Buffered);
        flags.set(EnvFlags::WRITE_MAP, opening.is_write_map);
        let mut options = EnvOpenOptions::new();
        options.map_size(usize::try_from(opening.map_bytes)?);
        // SAFETY: NO_SYNC and WRITE_MAP give up guarantees about what a crash or a stray pointer leaves of the data;
        // this data is a benchmark's, and the program has no stray pointers to offer.
        unsafe { options.flags(flags) };
        // SAFETY: the folder is this run's own, so nobody else changes or truncates the mapped file, and this process
        // opens it once at a time.
        let env = unsafe { options.open(&opening.path)? };
        let map = env
            .open_databases_and_commit(env.read_txn()?, |opener, txn| {
                opener.open_database(txn, None).map(CommitOrAbort::<_, ()>::Commit)
            })?
            .commit()
            .flatten()
            .ok_or_else(|| anyhow::anyhow!("there is no unnamed database"))?;
        Ok(LmdbEngine { env, map })
    }

    fn set_mode(self, opening: &Opening) -> anyhow::Result<Self> {
        let mode = match opening.mode {
            Mode::Durable => FlagSetMode::Disable,
            Mode::Buffered => FlagSetMode::Enable,
        };
        // SAFETY: as in open.
        unsafe { self.env.set_flags(EnvFlags::NO_SYNC, mode)? };
        // What was written without syncs is not made durable by later commits.
        self.sync()?;
        Ok(self)
    }

    fn reader(&self) -> anyhow::Result<LmdbReader<'_>> {
        Ok(LmdbReader { txn: self.env.read_txn()?, map: self.map })
    }

    #[inline]
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let mut txn = self.env.write_txn()?;
        self.map.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    #[inline]
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        let mut txn = self.env.write_txn()?;
        let was_there = self.map.delete(&mut txn, key)?;
        txn.commit()?;
        Ok(Some(was_there))
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        let mut changes = LmdbChanges { txn: self.env.write_txn()?, map: self.map };
        fill(&mut changes)?;
        Ok(changes.txn.commit()?)
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn compact(self, opening: &Opening) -> anyhow::Result<(Self, bool)> {
        let copy = opening.path.join("copy.mdb");
        self.env.copy_to_path(&copy, CompactionOption::Enabled)?.sync_all()?;
        self.close()?;
        fs::rename(copy, opening.path.join("data.mdb"))?;
        Ok((Self::open(opening)?, true))
    }

    fn figures(&self) -> anyhow::Result<Figures> {
        let txn = self.env.read_txn()?;
        Ok(Figures { records: Some(self.map.len(&txn)?), ..Figures::default() })
    }

    fn close(self) -> anyhow::Result<()> {
        self.env.prepare_for_closing().wait();
        Ok(())
    }
}

pub struct LmdbReader<'e> {
    txn: RoTxn<'e, WithTls>,
    map: Map,
}

impl Reader for LmdbReader<'_> {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        Ok(check(self.map.get(&self.txn, key)?))
    }
}

struct LmdbChanges<'e> {
    txn: RwTxn<'e>,
    map: Map,
}

impl Changes for LmdbChanges<'_> {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Ok(self.map.put(&mut self.txn, key, value)?)
    }

    #[inline]
    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        Ok(Some(self.map.delete(&mut self.txn, key)?))
    }
}
