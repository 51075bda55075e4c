//! LMDB through heed: one unnamed database. Reads go through one long read transaction per thread, which is the fastest
//! way to read it; a write transaction spans one record or a batch of them.

use std::fs;

use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, RwTxn, WithTls};

use super::{Engine, Reader, Writer};
use crate::protocol::{Figures, Opening};

type Map = Database<'static, Bytes, Bytes>;

pub struct LmdbEngine {
    env: Env<WithTls>,
    map: Map,
}

impl Engine for LmdbEngine {
    type Reader<'e> = LmdbReader<'e>;
    type Writer<'e> = LmdbWriter<'e>;

    fn open(opening: &Opening) -> anyhow::Result<Self> {
        fs::create_dir_all(&opening.path)?;
        let mut flags = EnvFlags::empty();
        flags.set(EnvFlags::NO_SYNC, !opening.is_durable);
        flags.set(EnvFlags::WRITE_MAP, opening.is_write_map);
        let mut options = EnvOpenOptions::new();
        options.map_size(usize::try_from(opening.map_bytes)?);
        // SAFETY: NO_SYNC and WRITE_MAP give up guarantees about what a crash or a stray pointer leaves of the data;
        // this data is a benchmark's, and the program has no stray pointers to offer.
        unsafe { options.flags(flags) };
        // SAFETY: the folder is this run's own, so nobody else changes or truncates the mapped file, and this process
        // opens it once.
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

    fn reader(&self) -> anyhow::Result<LmdbReader<'_>> {
        Ok(LmdbReader { txn: self.env.read_txn()?, map: self.map })
    }

    fn writer(&mut self, batch: u64) -> anyhow::Result<LmdbWriter<'_>> {
        Ok(LmdbWriter { engine: self, txn: None, size: batch, pending: 0 })
    }

    fn insert_durably(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let mut txn = self.env.write_txn()?;
        self.map.put(&mut txn, key, value)?;
        Ok(txn.commit()?)
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(self.env.force_sync()?)
    }

    fn figures(&self) -> anyhow::Result<Figures> {
        let txn = self.env.read_txn()?;
        Ok(Figures { records: self.map.len(&txn)?, ..Figures::default() })
    }

    fn index(_writer: &LmdbWriter<'_>) -> Option<(u64, u64)> {
        // A B+ tree with the records in its leaves: there is no index apart from them.
        None
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

pub struct LmdbWriter<'e> {
    engine: &'e LmdbEngine,
    txn: Option<RwTxn<'e>>,
    size: u64,
    pending: u64,
}

impl Writer for LmdbWriter<'_> {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let mut txn = match self.txn.take() {
            Some(txn) => txn,
            None => self.engine.env.write_txn()?,
        };
        self.engine.map.put(&mut txn, key, value)?;
        self.pending += 1;
        if self.pending == self.size {
            txn.commit()?;
            self.pending = 0;
        } else {
            self.txn = Some(txn);
        }
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        self.txn.map_or(Ok(()), |txn| Ok(txn.commit()?))
    }
}
