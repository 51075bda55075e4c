//! `hashbrown::HashMap` with boxed keys and values and its default hasher, foldhash: the mark to measure reads against.
//! It takes no lock, checks no checksum and forgets everything.

use anyhow::bail;
use hashbrown::HashMap;

use super::{Engine, Reader, Writer};
use crate::protocol::{Figures, Opening};

type Map = HashMap<Box<[u8]>, Box<[u8]>>;

pub struct HashMapEngine(Map);

impl Engine for HashMapEngine {
    type Reader<'e> = &'e Map;
    type Writer<'e> = &'e mut Map;

    fn open(_opening: &Opening) -> anyhow::Result<Self> {
        Ok(HashMapEngine(Map::new()))
    }

    fn reader(&self) -> anyhow::Result<&Map> {
        Ok(&self.0)
    }

    fn writer(&mut self, _batch: u64) -> anyhow::Result<&mut Map> {
        Ok(&mut self.0)
    }

    fn insert_durably(&self, _key: &[u8], _value: &[u8]) -> anyhow::Result<()> {
        bail!("a HashMap is not durable")
    }

    fn sync(&self) -> anyhow::Result<()> {
        Ok(())
    }

    fn figures(&self) -> anyhow::Result<Figures> {
        Ok(Figures {
            records: self.0.len() as u64,
            index_bytes: Some(self.0.allocation_size() as u64),
            ..Figures::default()
        })
    }

    fn index(writer: &&mut Map) -> Option<(u64, u64)> {
        Some((writer.allocation_size() as u64, writer.len() as u64))
    }

    fn close(self) -> anyhow::Result<()> {
        // The process ends next; freeing millions of boxes one by one would only cost time.
        std::mem::forget(self.0);
        Ok(())
    }
}

impl Reader for &Map {
    #[inline]
    fn get(&mut self, key: &[u8], check: impl FnOnce(Option<&[u8]>) -> bool) -> anyhow::Result<bool> {
        Ok(check(Map::get(self, key).map(|value| &**value)))
    }
}

impl Writer for &mut Map {
    #[inline]
    fn insert(&mut self, key: &[u8], value: &[u8]) -> anyhow::Result<()> {
        Map::insert(self, Box::from(key), Box::from(value));
        Ok(())
    }

    fn finish(self) -> anyhow::Result<()> {
        Ok(())
    }
}
