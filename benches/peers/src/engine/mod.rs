//! What is compared: engines behind one trait, so that all loops are the same source, compiled once for each.

mod candystore;
mod fjall;
mod hash_map;
mod lmdb;
mod name;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
mod tophash;

pub use self::candystore::CandyEngine;
pub use self::fjall::FjallEngine;
pub use self::hash_map::HashMapEngine;
pub use self::lmdb::LmdbEngine;
pub use self::name::EngineName;
pub use self::redb::RedbEngine;
#[cfg(feature = "rocksdb")]
pub use self::rocksdb::RocksdbEngine;
pub use self::sled::SledEngine;
pub use self::tophash::TophashEngine;

use crate::protocol::{Figures, Opening, Replayed};

/// What a batch or a removal is told when it is about a record that is there.
pub type WasThere = Option<bool>;

/// An open map.
pub trait Engine: Sized + Sync {
    /// Reads for one thread; where there are transactions, one that lasts as long as the reader.
    type Reader<'e>: Reader
    where
        Self: 'e;

    /// Opens what is at the path, or makes it.
    fn open(opening: &Opening) -> anyhow::Result<Self>;

    /// Writes promise from now on what the mode says.
    fn set_mode(self, opening: &Opening) -> anyhow::Result<Self>;

    /// A reader for this thread.
    fn reader(&self) -> anyhow::Result<Self::Reader<'_>>;

    /// One lookup by itself: in a transaction of its own, where there are transactions.
    #[inline]
    fn get(&self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        self.reader()?.get(key, check)
    }

    /// Inserts or replaces one record, by itself.
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()>;

    /// Removes one record, by itself. Says whether it was there, if the engine tells.
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere>;

    /// Makes the changes that `fill` asks for: together, as far as the engine can.
    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()>;

    /// Makes everything durable.
    fn sync(&self) -> anyhow::Result<()>;

    /// Makes everything durable and lets work in the background come to its end, as far as the engine tells.
    fn settle(&self) -> anyhow::Result<()> {
        self.sync()
    }

    /// Gives back as much space as the engine can, and syncs. False if there is no call for this.
    fn compact(self, opening: &Opening) -> anyhow::Result<(Self, bool)>;

    /// Sizes; the process's memory and the blocks of the files are added by the caller.
    fn figures(&self) -> anyhow::Result<Figures> {
        Ok(Figures::default())
    }

    /// Bytes of the index and number of records; cheap enough to be asked for every few thousand inserts.
    fn index(&self) -> Option<(u64, u64)> {
        None
    }

    /// Log bytes since the last checkpoint, where there is such a thing.
    fn bytes_since_checkpoint(&self) -> Option<u64> {
        None
    }

    /// What the open had to replay, where the engine tells.
    fn replayed(&self) -> Option<Replayed> {
        None
    }

    /// Closes.
    fn close(self) -> anyhow::Result<()>;
}

/// Reads.
pub trait Reader {
    /// Hands the value of a key, in place, to `check`, and returns what it says.
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool>;

    /// Hands the values of many keys to `check`, with the index of the key. One by one where the engine has no call
    /// for this.
    #[inline]
    fn get_many(
        &mut self,
        keys: &[Vec<u8>],
        mut check: impl FnMut(usize, Option<&[u8]>) -> bool,
    ) -> anyhow::Result<bool> {
        let mut all = true;
        for (i, key) in keys.iter().enumerate() {
            all &= self.get(key, |value| check(i, value))?;
        }
        Ok(all)
    }
}

/// Changes of a batch.
pub trait Changes {
    /// Inserts or replaces a record.
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()>;

    /// Removes a record.
    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere>;
}
