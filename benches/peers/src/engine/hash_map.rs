//! `hashbrown` with boxed keys and values and foldhash, in 64 shards that each have a lock, so that it can be written to
//! by several threads like the others: the mark to measure reads against. It checks no checksum and forgets everything.
//!
//! A `HashTable` is what hashbrown's `HashMap` is made of; used directly, one hash serves the shard and the table.

use std::hash::BuildHasher;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;

use super::{Changes, Engine, Reader, WasThere};
use crate::protocol::{Figures, Opening};

const SHARDS: usize = 64;

type Table = HashTable<(Box<[u8]>, Box<[u8]>)>;

/// A shard in a cache line of its own, or two writers would pull one to and fro.
#[repr(align(128))]
#[derive(Default)]
struct Shard(RwLock<Table>);

pub struct HashMapEngine {
    hasher: RandomState,
    shards: Box<[Shard]>,
}

impl HashMapEngine {
    #[inline]
    fn hash(&self, key: &[u8]) -> u64 {
        self.hasher.hash_one(key)
    }

    /// hashbrown uses a hash's seven highest bits and its lower ones.
    #[inline]
    fn shard(&self, hash: u64) -> &RwLock<Table> {
        &self.shards[(hash >> 48) as usize % SHARDS].0
    }

    #[inline]
    fn read(&self, hash: u64) -> RwLockReadGuard<'_, Table> {
        self.shard(hash).read().unwrap_or_else(PoisonError::into_inner)
    }

    #[inline]
    fn write(&self, hash: u64) -> RwLockWriteGuard<'_, Table> {
        self.shard(hash).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn sum(&self, of: impl Fn(&Table) -> usize) -> u64 {
        self.shards.iter().map(|shard| of(&shard.0.read().unwrap_or_else(PoisonError::into_inner)) as u64).sum()
    }
}

impl Engine for HashMapEngine {
    type Reader<'e> = &'e HashMapEngine;

    fn open(_opening: &Opening) -> anyhow::Result<Self> {
        Ok(HashMapEngine {
            hasher: RandomState::default(),
            shards: std::iter::repeat_with(Shard::default).take(SHARDS).collect(),
        })
    }

    fn set_mode(self, _opening: &Opening) -> anyhow::Result<Self> {
        Ok(self)
    }

    fn reader(&self) -> anyhow::Result<&HashMapEngine> {
        Ok(self)
    }

    #[inline]
    fn insert(&self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        let hash = self.hash(key);
        match self.write(hash).entry(hash, |pair| *pair.0 == *key, |pair| self.hash(&pair.0)) {
            Entry::Occupied(mut entry) => entry.get_mut().1 = Box::from(value),
            Entry::Vacant(entry) => {
                entry.insert((Box::from(key), Box::from(value)));
            }
        }
        Ok(())
    }

    #[inline]
    fn remove(&self, key: &[u8]) -> anyhow::Result<WasThere> {
        let hash = self.hash(key);
        Ok(Some(self.write(hash).find_entry(hash, |pair| *pair.0 == *key).is_ok_and(|entry| {
            entry.remove();
            true
        })))
    }

    fn change_many(&self, fill: impl FnOnce(&mut dyn Changes) -> anyhow::Result<()>) -> anyhow::Result<()> {
        fill(&mut &*self)
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn compact(self, _opening: &Opening) -> anyhow::Result<(Self, bool)> {
        Ok((self, false))
    }

    fn figures(&self) -> anyhow::Result<Figures> {
        Ok(Figures {
            records: Some(self.sum(Table::len)),
            index_bytes: Some(self.sum(Table::allocation_size)),
            ..Figures::default()
        })
    }

    fn index(&self) -> Option<(u64, u64)> {
        Some((self.sum(Table::allocation_size), self.sum(Table::len)))
    }

    fn close(self) -> anyhow::Result<()> {
        // The process ends next; freeing millions of boxes one by one would only cost time.
        std::mem::forget(self);
        Ok(())
    }
}

impl Reader for &HashMapEngine {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        let hash = self.hash(key);
        let table = self.read(hash);
        Ok(check(table.find(hash, |pair| *pair.0 == *key).map(|pair| &*pair.1)))
    }
}

impl Changes for &HashMapEngine {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Engine::insert(*self, key, value)
    }

    #[inline]
    fn remove(&mut self, key: &[u8]) -> anyhow::Result<WasThere> {
        Engine::remove(*self, key)
    }
}
