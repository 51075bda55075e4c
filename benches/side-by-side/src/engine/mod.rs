//! What is compared: three engines behind one trait, so that all loops are the same source, compiled once for each.

mod hash_map;
mod lmdb;
mod tophash;

use clap::ValueEnum;

pub use self::hash_map::HashMapEngine;
pub use self::lmdb::LmdbEngine;
pub use self::tophash::TophashEngine;
use crate::protocol::{Figures, Opening, Replayed};

/// The engines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EngineName {
    /// This project.
    Tophash,
    /// `hashbrown::HashMap<Box<[u8]>, Box<[u8]>>`, foldhash: in memory only.
    Hashbrown,
    /// LMDB through heed.
    Heed,
}

impl EngineName {
    /// In the order of the tables.
    pub const ALL: [EngineName; 3] = [EngineName::Tophash, EngineName::Hashbrown, EngineName::Heed];

    /// For command lines and tables.
    pub fn name(self) -> &'static str {
        match self {
            EngineName::Tophash => "tophash",
            EngineName::Hashbrown => "hashbrown",
            EngineName::Heed => "heed",
        }
    }

    /// True if there is something on disk.
    pub fn is_persistent(self) -> bool {
        self != EngineName::Hashbrown
    }
}

/// An open map.
pub trait Engine: Sized + Sync {
    /// Reads for one thread.
    type Reader<'e>: Reader
    where
        Self: 'e;
    /// Inserts for one thread.
    type Writer<'e>: Writer
    where
        Self: 'e;

    /// Opens what is at the path, or makes it.
    fn open(opening: &Opening) -> anyhow::Result<Self>;

    /// A reader for this thread.
    fn reader(&self) -> anyhow::Result<Self::Reader<'_>>;

    /// The writer. With a batch of 1 every insert stands for itself (survives kill -9 as soon as it returns, where
    /// anything does); with more, records reach the engine by so many at a time.
    fn writer(&mut self, batch: u64) -> anyhow::Result<Self::Writer<'_>>;

    /// Inserts one record in a map that was opened to be durable; it is when this returns.
    fn insert_durably(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()>;

    /// Makes everything durable.
    fn sync(&self) -> anyhow::Result<()>;

    /// Makes everything durable and lets work in the background come to its end.
    fn settle(&self) -> anyhow::Result<()> {
        self.sync()
    }

    /// Sizes; the process's memory is added by the caller.
    fn figures(&self) -> anyhow::Result<Figures>;

    /// Bytes of the index and number of records; cheap enough to be asked for every few thousand inserts.
    fn index(writer: &Self::Writer<'_>) -> Option<(u64, u64)>;

    /// Log bytes since the last checkpoint, where there is such a thing.
    fn bytes_since_checkpoint(_writer: &Self::Writer<'_>) -> Option<u64> {
        None
    }

    /// What the open had to replay, where anything is replayed.
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

    /// Hands the values of many keys to `check`, with the index of the key; true if it said so each time. One by one
    /// where the engine has no call for this.
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

/// Inserts.
pub trait Writer {
    /// Inserts a record.
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()>;

    /// Hands over the rest of a batch.
    fn finish(self) -> anyhow::Result<()>;
}
