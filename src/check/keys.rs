//! Keys that are in two slots.
//!
//! Two slots of one key have the same tag, or one of them has a wrong one, which is found elsewhere. So only
//! slots of one chain whose tags are equal are looked at: about one page in two hundred has any. Their keys are
//! read directly; what cannot be read here is reported when its record is checked.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use super::kind;
use super::sink::{Input, Sink};
use super::slots::Entry;
use crate::address::Address;
use crate::checksum::KeyHasher;
use crate::error::Result;
use crate::layout::segment_path;
use crate::log::reader::key_at;
use crate::sys::{Disk, DiskFile};

/// Segment files that are kept open.
const OPEN_MAX: usize = 64;

/// Reads keys from anywhere in the log.
pub(super) struct KeyReader<'k> {
    disk: &'k dyn Disk,
    dir: &'k Path,
    hasher: &'k KeyHasher,
    /// Sequence of the segment in each segment slot.
    sequences: &'k HashMap<u32, u32>,
    open: HashMap<u32, Arc<dyn DiskFile>>,
}

impl<'k> KeyReader<'k> {
    pub(super) fn new(
        disk: &'k dyn Disk,
        dir: &'k Path,
        hasher: &'k KeyHasher,
        sequences: &'k HashMap<u32, u32>,
    ) -> Self {
        KeyReader { disk, dir, hasher, sequences, open: HashMap::new() }
    }

    /// The key of the record at an address, unchecked; `None` if nothing like a record is there.
    ///
    /// # Errors
    /// An error of the moment.
    pub(super) fn key(&mut self, address: Address) -> Result<Option<Vec<u8>>> {
        let slot = address.segment();
        if !self.open.contains_key(&slot) {
            if self.open.len() >= OPEN_MAX {
                self.open.clear();
            }
            let Some(&sequence) = self.sequences.get(&slot) else { return Ok(None) };
            let Ok(input) = Input::open(self.disk, &segment_path(self.dir, sequence))? else { return Ok(None) };
            self.open.insert(slot, input.file);
        }
        Ok(self.open.get(&slot).and_then(|file| key_at(&**file, address.offset())))
    }

    /// Reports keys that are in two of a chain's slots.
    pub(super) fn check_duplicates(
        &mut self,
        index: &Path,
        mut entries: Vec<Entry>,
        sink: &mut Sink<'_>,
    ) -> Result<()> {
        entries.sort_unstable_by_key(|entry| (entry.slot.tag().bits(), entry.spot));
        for group in entries.chunk_by(|a, b| a.slot.tag() == b.slot.tag()).filter(|group| group.len() > 1) {
            let mut hashed = Vec::with_capacity(group.len());
            for entry in group {
                if let Some(key) = self.key(entry.slot.address())? {
                    sink.advance(key.len() as u64)?;
                    hashed.push((self.hasher.hash(&key), *entry));
                }
            }
            hashed.sort_unstable_by_key(|&(hash, entry)| (hash, entry.spot));
            for pair in hashed.windows(2) {
                let [(hash, first), (other, second)] = pair else { continue };
                let (a, b) = (first.slot.address(), second.slot.address());
                // Two slots of one address are reported as such.
                if hash != other || a == b || self.key(a)? != self.key(b)? {
                    continue;
                }
                let found = format!("a key that is in page {} slot {}, too", first.spot.page(), first.spot.slot());
                sink.damage(kind::DUPLICATE_KEY, second.spot.location(index), "a key that no other slot has", found);
            }
        }
        Ok(())
    }
}
