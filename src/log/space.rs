//! Space of the log: what is live, what is dead, and how a segment without live records goes away.
//!
//! **The life of a segment** after it was sealed:
//!
//! 1. *Evacuated*: a scan has found, under the stripes of its keys, that no slot points to it any more; live
//!    records were appended again at the log's head. The LSN of the head at that moment is noted.
//! 2. *Excluded*: a checkpoint whose cut lies at or behind that LSN does not name it any more.
//! 3. *Freed*: when that checkpoint is durable, the file is unlinked (fsync of the directory), and the mapping is
//!    taken out of the pin table; the oldest first, so that a remove-record never goes before the record that it
//!    removes. *Crash before:* recovery finds a file that neither the checkpoint nor the chain behind the cut names,
//!    and unlinks it. It syncs the directory before that, because the process before may have died between an unlink
//!    and its fsync. *Error:* the segment stays as it is, with all that come after it; the next checkpoint tries
//!    again.
//! 4. Its segment slot is given out again when no reader has the old mapping pinned, or owns bytes of it, any more. Nobody
//!    waits for that: a `Value` or an `OwnedValue` may be held for ever, and then costs the blocks of its own segment. The
//!    stats count them.

use std::path::Path;
use std::sync::Arc;

use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use super::segments::Log;
use crate::address::Lsn;
use crate::error::{IoContext, Result};
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sync::Ordering;
use crate::sys::{OpenMode, PAGE_BYTES};

/// Sums over all segments that hold records.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Space {
    /// Bytes of records, evacuated segments not counted.
    pub(crate) bytes: u64,
    /// Bytes of records that are dead or expired, evacuated segments not counted.
    pub(crate) dead: u64,
    /// Dead bytes that stay, whatever is compacted (part of `dead`): those of segments that stay, and behind one removals, the
    /// segment of the last clear-record, and segments that wait.
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
            let dead = self.gone(&segment);
            let removals = segment.removal_bytes().min(dead);
            space.dead += dead;
            behind_damage |= segment.stays();
            space.stuck += match behind_damage {
                true if segment.stays() || self.keeps_clear(&segment) || segment.waiting().is_some() => dead,
                true if !self.is_hidden(&segment) => removals,
                _ => 0,
            };
            if segment.end().is_none() {
                space.active = segment.capacity();
            } else if bytes < small && !segment.is_damaged() {
                space.small += 1;
            }
        }
        space
    }

    /// Segments that a checkpoint with this cut need not name any more.
    pub(crate) fn excluded(&self, cut: Lsn) -> Vec<u32> {
        let registry = self.registry.lock();
        let excluded = registry.segments.values().filter(|segment| segment.evacuated_before(cut));
        excluded.map(|segment| segment.sequence).collect()
    }

    /// Frees segments that the durable checkpoint does not name, the oldest first. Returns their number, and the error
    /// that ended it: that segment and those after it stay in the registry, and are freed another time.
    pub(crate) fn free(&self, sequences: &[u32]) -> (u64, Result<()>) {
        self.reclaim();
        let mut freed = 0;
        let mut sequences = sequences.to_vec();
        if broken(Mutant::FreedNewestFirst) {
            sequences.reverse();
        }
        for sequence in sequences {
            let segment = self.registry.lock().segments.get(&sequence).cloned();
            let Some(segment) = segment else { continue };
            if let Err(error) = self.free_segment(&segment) {
                return (freed, Err(error));
            }
            freed += 1;
        }
        (freed, self.sync_unlinked())
    }

    fn free_segment(&self, segment: &Arc<Segment>) -> Result<()> {
        self.unlink_next(&segment.path)?;
        self.registry.lock().segments.remove(&segment.sequence);
        segment.close_file();
        let retired = self.pins.retire(segment.slot).and_then(|retired| self.pins.reclaim(retired));
        observe::unmapped(&segment.path, segment.capacity(), retired.is_some());
        match retired {
            Some(retired) => self.outgoing.lock().retired.push((retired, segment.capacity())),
            None => self.release_slot(segment.slot),
        }
        Ok(())
    }

    /// Unlinks the file of a segment, whether it exists or not, after the one before is gone for good, whichever process
    /// unlinked that. The caller goes from the oldest on, because a removal must not go before what it removes.
    pub(crate) fn unlink_next(&self, path: &Path) -> Result<()> {
        self.sync_unlinked()?;
        self.config.disk.unlink_any(path).context("unlink", path)?;
        self.outgoing.lock().unsynced = true;
        Ok(())
    }

    /// Makes what was unlinked durable. If that fails, it is tried again before anything else is unlinked.
    pub(crate) fn sync_unlinked(&self) -> Result<()> {
        if self.outgoing.lock().unsynced && !broken(Mutant::FreedNotSynced) {
            self.config.disk.sync_dir(self.dir()).context("sync", self.dir())?;
        }
        self.outgoing.lock().unsynced = false;
        Ok(())
    }

    /// True if the active segment should not go on: it is far larger than the log needs by now, because most of
    /// it was removed, or it was prepared for bulk writing and now little is written between two syncs.
    ///
    /// Not before it holds a record: until then it cannot be ended, and nothing is lost by its size.
    pub(crate) fn is_ill_fitting(&self) -> bool {
        let active = self.appender.lock().as_ref().map(|active| (active.segment.capacity(), active.lsn().offset()));
        let Some((capacity, _)) = active.filter(|&(_, end)| end > SEGMENT_HEADER_BYTES) else { return false };
        capacity > 2 * self.segment_bytes(0) || self.pieces.take_unsuited()
    }

    /// Seals the active segment before it is full, and goes on in one of the right size. `hold` takes a stripe. *Crash:* as
    /// after any switch.
    pub(crate) fn replace_active<G>(&self, hold: impl FnOnce() -> G) -> Result<()> {
        self.prepare_anew()?;
        let held = hold();
        self.seal_active();
        drop(held);
        Ok(())
    }

    /// Cuts sealed segments to their ends: the pages behind the last record were never written, and take no disk from here
    /// on. An error fails nothing: it is counted, the other segments are cut all the same, and the next call tries again.
    ///
    /// 1. The segment is sealed: under the append lock its successor's header is stored, and its end is final.
    /// 2. What follows the end is read. Anything but zeroes there is kept for a repair, because an end that damaged meta data
    ///    tells may lie before records. *Crash:* nothing has changed.
    /// 3. Its file gets the length of its end, rounded up to a page. *Crash:* the file has the old length or the new one,
    ///    durable before or after the successor's header. With that header the records end where it says, which is not
    ///    behind the file's end. Without it they end where they did, because zeroes or the end of the file follow; and no
    ///    open appends to a segment after an unclean end.
    ///
    /// Nobody touches memory behind the end: the segment's writer is gone, readers stay below the watermark, a prefetch does
    /// not fault, and populating memory behind the end of a file is an error that nobody minds.
    pub(crate) fn cut_ends(&self) {
        for segment in self.segments() {
            if let Err(error) = self.cut_end(&segment)
                // If it was freed meanwhile, there is no file to cut.
                && !segment.is_evacuated()
            {
                self.ends_kept.fetch_add(1, Ordering::Relaxed);
                observe::put_off(self.dir(), &error.to_string());
            }
        }
    }

    fn cut_end(&self, segment: &Segment) -> Result<()> {
        let active = || broken(Mutant::ActiveSegmentCut).then(|| self.tail().offset());
        let end = segment.end().or_else(active);
        let Some(end) = end.filter(|&end| segment.has_unwritten_end(end)) else { return Ok(()) };
        let file = match segment.file() {
            Some(file) => file,
            None => self.config.disk.open(&segment.path, OpenMode::Write).context("open", &segment.path)?,
        };
        if !segment.is_end_unwritten(&*file, end).context("read", &segment.path)? {
            return Ok(());
        }
        let end = if broken(Mutant::SegmentCutShort) { end.saturating_sub(PAGE_BYTES as u64) } else { end };
        segment.shorten(&*file, end).context("shorten", &segment.path)
    }

    /// True if a sealed segment is to be cut to its end.
    pub(crate) fn has_unwritten_ends(&self) -> bool {
        self.segments().iter().any(|segment| segment.end().is_some_and(|end| segment.has_unwritten_end(end)))
    }

    /// Times that the end of a segment could not be cut off.
    pub(crate) fn ends_kept(&self) -> u64 {
        self.ends_kept.load(Ordering::Relaxed)
    }

    /// Unmaps what no reader has pinned or owns any more.
    pub(crate) fn reclaim(&self) {
        // Under the lock, so that nobody counts them while they are looked at.
        let mut outgoing = self.outgoing.lock();
        for (retired, bytes) in std::mem::take(&mut outgoing.retired) {
            let slot = retired.slot();
            match self.pins.reclaim(retired) {
                Some(retired) => outgoing.retired.push((retired, bytes)),
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

    /// Freed segments that readers keep: how many, and the bytes of their files.
    pub(super) fn held_segments(&self) -> (u64, u64) {
        self.reclaim();
        let outgoing = self.outgoing.lock();
        (outgoing.retired.len() as u64, outgoing.retired.iter().map(|(_, bytes)| bytes).sum())
    }

    /// Bytes of all unlinked files that readers keep.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.held_segments().1 + self.blobs.held().1
    }
}

impl Drop for Log {
    /// Nobody has anything pinned any more. What readers own of a freed segment keeps its mapping by itself.
    fn drop(&mut self) {
        let retired = std::mem::take(&mut self.outgoing.lock().retired);
        retired.into_iter().for_each(|(retired, _)| self.pins.release(retired));
    }
}
