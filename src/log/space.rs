//! Space of the log: what is live, what is dead, and how a segment without live records goes away.
//!
//! **The life of a segment** after it was sealed:
//!
//! 1. *Evacuated*: a scan has found, under the stripes of its keys, that no slot points to it any more; live
//!    records were appended again at the log's head. The position of the head at that moment is noted.
//! 2. *Excluded*: a checkpoint whose cut lies at or behind that position does not name it any more.
//! 3. *Freed*: when that checkpoint is durable, the mapping is taken out of the pin table and the file is
//!    unlinked (fsync of the directory), or its header is wiped (fdatasync) and it is kept as a spare; the oldest
//!    first, so that a remove-record never goes before the record that it removes. *Crash before:* recovery
//!    finds a file that neither the checkpoint nor the chain behind the cut names, and unlinks it.
//! 4. Its segment slot is given out again when no reader has the old mapping pinned any more. Nobody waits for
//!    that: a `Value` may be held for ever, and then costs the blocks of its own segment.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Position;
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use super::segments::Log;
use crate::error::{IoContext, Result};
use crate::observe;
use crate::sync::Ordering;
use crate::sys::pins::Retired;
use crate::sys::{DiskFile, LogMap, OpenMode, write_all_at};

/// Files of freed segments that wait to be used again.
const SPARES_MAX: usize = 2;

/// A freed segment's file, to be used again under another name and salt.
#[derive(Debug)]
pub(crate) struct Spare {
    path: PathBuf,
    pub(crate) bytes: u64,
    /// It was prepared for bulk writing.
    bulk: bool,
}

/// Segments on their way out.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    /// Mappings that readers still had pinned when their segments were freed, with the files' sizes.
    retired: Vec<(Retired, u64)>,
    spares: Vec<Spare>,
}

/// Sums over all segments that hold records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes of records, evacuated segments not counted.
    pub(crate) bytes: u64,
    /// Bytes of records that are dead, evacuated segments not counted.
    pub(crate) dead: u64,
    /// Dead bytes that stay, whatever is compacted (part of `dead`): those of damaged segments, and removals behind
    /// one.
    pub(crate) stuck: u64,
    /// Bytes of records in evacuated segments, which wait for a checkpoint.
    pub(crate) evacuated: u64,
    /// Evacuated segments.
    pub(crate) waiting: usize,
    /// Bytes of the active segment's file.
    pub(crate) active: u64,
    /// Sealed segments with few records: each unclean end leaves one.
    pub(crate) small: usize,
}

impl Space {
    /// Bytes of live records.
    pub(crate) fn live(self) -> u64 {
        self.bytes.saturating_sub(self.dead)
    }
}

impl Log {
    /// Adds up all segments.
    pub(crate) fn space(&self) -> Space {
        let mut space = Space::default();
        let mut behind_damage = false;
        let small = self.small_bytes();
        for segment in self.segments() {
            let bytes = self.record_bytes(&segment);
            if segment.is_evacuated() {
                space.evacuated += bytes;
                space.waiting += 1;
                continue;
            }
            space.bytes += bytes;
            let dead = self.dead(segment.slot).min(bytes);
            let removals = segment.removal_bytes.load(Ordering::Relaxed).min(dead);
            space.dead += dead;
            behind_damage |= segment.is_damaged();
            space.stuck += match (segment.is_damaged(), behind_damage) {
                (true, _) => dead,
                (false, true) => removals,
                (false, false) => 0,
            };
            if segment.end().is_none() {
                space.active = segment.capacity;
            } else if bytes < small && !segment.is_damaged() {
                space.small += 1;
            }
        }
        space
    }

    /// A sealed segment with fewer bytes of records is a small one.
    pub(crate) fn small_bytes(&self) -> u64 {
        self.segment_bytes(0) / 4
    }

    /// Segments that a checkpoint with this cut need not name any more.
    pub(crate) fn excluded(&self, cut: Position) -> Vec<u32> {
        let registry = self.registry.lock();
        let excluded = registry.segments.values().filter(|segment| segment.evacuated_before(cut));
        excluded.map(|segment| segment.sequence).collect()
    }

    /// Frees segments that the durable checkpoint does not name, the oldest first. Returns their number.
    pub(crate) fn free(&self, sequences: &[u32]) -> Result<u64> {
        self.reclaim();
        for &sequence in sequences {
            let Some(segment) = self.registry.lock().segments.remove(&sequence) else { continue };
            self.free_segment(&segment)?;
        }
        Ok(sequences.len() as u64)
    }

    fn free_segment(&self, segment: &Arc<Segment>) -> Result<()> {
        segment.close_file();
        let unpinned = match self.unmap(segment.slot) {
            Some(retired) => match self.pins.reclaim(retired) {
                Some(retired) => {
                    self.outgoing.lock().retired.push((retired, segment.capacity));
                    false
                }
                None => true,
            },
            None => true,
        };
        observe::unmapped(&segment.path, segment.capacity, !unpinned);
        if unpinned {
            self.release_slot(segment.slot);
            // Only a file that nobody has mapped may be written again, and only one of the size that is wanted.
            let wanted = self.outgoing.lock().spares.len() < SPARES_MAX;
            if wanted && !segment.is_unfit() && segment.capacity == self.segment_bytes(0) {
                let spare = self.wipe(segment)?;
                self.outgoing.lock().spares.push(spare);
                return Ok(());
            }
        }
        self.config.disk.unlink(&segment.path).context("unlink", &segment.path)?;
        self.config.disk.sync_dir(self.dir()).context("sync", self.dir())
    }

    /// True if the active segment should not go on: it is far larger than the log needs by now, because most of
    /// it was removed, or it was prepared for bulk writing and now little is written between two syncs.
    ///
    /// Not before it holds a record: until then it cannot be ended, and nothing is lost by its size.
    pub(crate) fn is_ill_fitting(&self) -> bool {
        let active = self.appender.lock().as_ref().map(|active| (active.segment.capacity, active.position().offset()));
        let Some((capacity, _)) = active.filter(|&(_, end)| end > SEGMENT_HEADER_BYTES) else { return false };
        capacity > 2 * self.segment_bytes(0) || self.unsuited.swap(false, Ordering::Relaxed)
    }

    /// Seals the active segment before it is full, and goes on in one of the right size. The unused end of the
    /// old one is cut off. `hold` takes a stripe. *Crash:* as after any switch; a file that ends early ends the same.
    pub(crate) fn replace_active<G>(&self, hold: impl FnOnce() -> G) -> Result<()> {
        self.prepare_anew()?;
        let held = hold();
        let sealed = self.seal_active();
        drop(held);
        let Some((segment, end)) = sealed else { return Ok(()) };
        segment.set_unfit();
        let Some(file) = segment.file() else { return Ok(()) };
        file.set_len(end.next_multiple_of(4096)).context("shorten", &segment.path)
    }

    /// Overwrites the header with zeroes: from here on the file's records are no records, for a repair neither.
    fn wipe(&self, segment: &Segment) -> Result<Spare> {
        let path = segment.path.clone();
        let file = self.config.disk.open(&path, OpenMode::Write).context("open", &path)?;
        write_all_at(&*file, &[0; SEGMENT_HEADER_BYTES as usize], 0).context("write", &path)?;
        file.sync_data().context("sync", &path)?;
        Ok(Spare { path, bytes: segment.capacity, bulk: segment.bulk })
    }

    /// Unmaps what no reader has pinned any more.
    pub(crate) fn reclaim(&self) {
        let retired = std::mem::take(&mut self.outgoing.lock().retired);
        for (retired, bytes) in retired {
            let slot = retired.slot();
            match self.pins.reclaim(retired) {
                Some(retired) => self.outgoing.lock().retired.push((retired, bytes)),
                None => {
                    observe::unmapped_late(self.dir(), bytes);
                    self.release_slot(slot);
                }
            }
        }
    }

    /// True if readers keep freed segments mapped.
    pub(crate) fn has_retired(&self) -> bool {
        !self.outgoing.lock().retired.is_empty()
    }

    /// Bytes of freed segments that readers keep, and of spare files.
    pub(crate) fn outgoing_bytes(&self) -> (u64, u64) {
        let outgoing = self.outgoing.lock();
        let pinned = outgoing.retired.iter().map(|(_, bytes)| bytes).sum();
        (pinned, outgoing.spares.iter().map(|spare| spare.bytes).sum())
    }

    /// A spare file of exactly that size and kind. Others are of no use any more and are unlinked.
    pub(crate) fn take_spare(&self, bytes: u64, bulk: bool) -> Result<Option<Spare>> {
        loop {
            let Some(spare) = self.outgoing.lock().spares.pop() else { return Ok(None) };
            if (spare.bytes, spare.bulk) == (bytes, bulk) {
                return Ok(Some(spare));
            }
            self.unlink_spare(&spare)?;
        }
    }

    /// Unlinks the spare files.
    pub(crate) fn discard_spares(&self) -> Result<()> {
        let spares = std::mem::take(&mut self.outgoing.lock().spares);
        spares.iter().try_for_each(|spare| self.unlink_spare(spare))
    }

    fn unlink_spare(&self, spare: &Spare) -> Result<()> {
        self.config.disk.unlink(&spare.path).context("unlink", &spare.path)
    }

    /// Gives a spare file a new name, durably. *Crash before:* a file without a header, which recovery unlinks,
    /// under either name.
    ///
    /// The records of its earlier use stay in it. They do not validate with the new salt.
    pub(crate) fn reuse(&self, spare: &Spare, path: &Path) -> Result<(Arc<dyn DiskFile>, LogMap)> {
        let disk = &self.config.disk;
        disk.rename(&spare.path, path).context("rename to", path)?;
        disk.sync_dir(self.dir()).context("sync", self.dir())?;
        let file = disk.open(path, OpenMode::Write).context("open", path)?;
        let map = file.map_log(spare.bytes as usize, 0, true).context("map", path)?;
        Ok((file, map))
    }
}
