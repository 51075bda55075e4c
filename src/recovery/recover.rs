//! Recovery: what an open does with the log, once the table stands as the last checkpoint left it (open.rs, steps 1 to 3).
//!
//! 4. The segments are opened, the tail of the log is read (recovery/tail.rs), and whatever refuses the open does so
//!    before anything is changed.
//! 5. Unless the store was closed cleanly and nothing follows the cut: **seal**. The log's directory is
//!    synced, segments past the end X and those that nothing names are unlinked; the tail is written again and synced
//!    from the last durable LSN on.
//! 6. The header is written again, "not clean", and synced, the slot that was read first, before anything can be
//!    appended. After an unclean end a fresh segment names its predecessor and X: once it holds a record, bytes past X
//!    are never valid again.
//! 7. The tail is replayed into the index (replay.rs). Files that nothing names any more are unlinked
//!    (leftovers.rs: also those that no list of a checkpoint had room for).
//! 8. Segments with few records are put together when there are many, because each unclean end leaves one.
//!
//! A crash in any step: the next open does the same again, from the same header. The directory entries are durable
//! since step 0 (open.rs), so nothing that this removes is needed by an older header. A read-only open does 4 and 7 in
//! private memory and leaves the disk alone. The time goes with the tail, not with the store (benches/store/recovery.rs).

use std::path::PathBuf;

use super::create::remove_garbage;
use crate::address::Lsn;
use crate::checkpoint::header::IndexHeader;
use crate::checkpoint::meta::Meta;
use crate::engine::Engine;
use crate::error::{Error, IoContext, Location, Nature, Result};
use crate::layout::{parse_segment_name, segment_path};
use crate::log::mapped::{map_segment, segment_len};
use crate::log::segment::{SEGMENT_HEADER_BYTES, Segment};
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::recovery::tail::{Tail, TailAccess, TailSource};
use crate::stats::RecoveryStats;
use crate::sys::memory::zeroed;
use crate::sys::{Disk, OpenMode, PAGE_BYTES, PathKind, read_exact_at, write_all_at};

/// The page size as files count.
const PAGE: u64 = PAGE_BYTES as u64;

impl Engine {
    /// Steps 4 to 8. `other_invalid`: the header's other slot cannot be read.
    pub(super) fn recover(
        &self,
        disk: &dyn Disk,
        header: IndexHeader,
        other_invalid: bool,
        stats: &mut RecoveryStats,
    ) -> Result<()> {
        let meta = self.checkpointer.opened();
        if disk.kind_of_name(self.log.dir()).context("look at", self.log.dir())? == PathKind::Other {
            let location = Location::file(self.log.dir());
            return Err(Error::corrupt("log directory", location, "a directory", "a symbolic link or a file"));
        }
        let source = TailSource {
            disk,
            dir: self.log.dir(),
            uuid: header.uuid,
            known: &meta.segments,
            cut: header.cut,
            clean: header.clean,
            access: TailAccess::Map,
        };
        let tail = source.read()?;
        let writable = !self.health.is_read_only();
        // Clean means: closed cleanly, and nothing was written since.
        let clean = header.clean && tail.end == header.cut;
        stats.was_unclean = !clean;
        stats.discarded_bytes = tail.discarded_bytes;
        stats.replayed_records = tail.changes as u64;

        self.adopt_known(disk, &meta, header.cut)?;
        for found in &tail.segments {
            // Refused before anything is changed.
            segment_len(disk, &found.path, found.end)?;
        }
        if writable {
            self.checkpointer.allocate_reserve(self.tables.index(), &self.log)?;
            self.discard(&tail.discard)?;
            if !clean && !broken(Mutant::TailNotRewritten) && !broken(Mutant::NoFreshSegment) {
                self.rewrite_tail(disk, &tail, header.cut)?;
            }
        }
        self.adopt_tail(disk, &tail, (clean || broken(Mutant::NoFreshSegment)) && writable)?;
        self.log.pass_sequences(tail.sequence_max);
        if writable {
            self.checkpointer.mark_in_use(other_invalid)?;
            if self.log.has_active() {
                self.log.set_durable_lsn(tail.end);
            } else {
                self.fresh_segment(&tail, header.cut)?;
            }
        }
        if !self.tables.is_alone() {
            self.log.note_tables();
        }
        // Before the replay, which may need pages: none may lie where something was left.
        if writable && let Err(error) = self.tables.index().give_back_leftovers() {
            observe::put_off(&self.path, &error.to_string());
        }
        stats.replayed_bytes = self.replay(&tail, header.cut)?;
        self.name_tables()?;
        if writable {
            remove_garbage(disk, &self.path, header.log_dir)?;
            let linked = tail.linked.iter().map(|(_, link)| link.id).collect();
            let kept = self.log.recover_blobs(&meta.blobs, &tail.blobs, &linked);
            self.unlink_leftovers(&kept, meta.blobs.next_id);
            self.checkpointer.begin(&self.tables, stats.replayed_bytes);
            self.tables.all().iter().for_each(|table| table.mind_size());
            match self.bound_segments() {
                // The store can be read, and an offline compaction mends it. The next open tries again.
                Err(error) if error.nature() != Nature::Unknown => observe::put_off(&self.path, &error.to_string()),
                other => other?,
            }
        }
        Ok(())
    }

    /// Segments before the cut's: sealed, as the checkpoint says.
    fn adopt_known(&self, disk: &dyn Disk, meta: &Meta, cut: Lsn) -> Result<()> {
        for entry in meta.segments.iter().filter(|entry| entry.sequence != cut.sequence()) {
            let path = segment_path(self.log.dir(), entry.sequence);
            let (map, len, _) = map_segment(disk, &path, entry.salt, entry.end, false)?;
            // No more can be dead than there is, whatever the checkpoint says.
            self.log.set_dead(entry.slot, entry.dead.min(entry.end));
            let identity = (entry.sequence, entry.slot, entry.salt);
            let segment = Segment::new(identity, path, len, Some(entry.end), None);
            segment.set_removals(entry.removals.min(entry.end), entry.dead.min(entry.end));
            observe::mapped(&segment.path, 0, segment.capacity());
            self.log.adopt_sealed(segment, map);
        }
        // The cut's segment has some too.
        for entry in &meta.segments {
            if let Some(kept) = meta.expiring_of(entry) {
                self.log.open_deadlines(entry.slot, entry.end, kept);
                self.log.open_large_deadlines(entry.sequence, kept.first);
            }
        }
        self.log.sweep(meta.swept);
        Ok(())
    }

    /// The cut's segment and those after it. The last one goes on being written if the end was clean.
    fn adopt_tail(&self, disk: &dyn Disk, tail: &Tail, go_on: bool) -> Result<()> {
        let opened = self.checkpointer.opened().segments;
        for (i, found) in tail.segments.iter().enumerate() {
            if self.log.is_slot_taken(found.slot) {
                let expected = "a segment slot of its own";
                return Err(Error::corrupt("segment header", Location::at(&found.path, 72), expected, found.slot));
            }
            let active = go_on && i + 1 == tail.segments.len();
            let (map, len, file) = map_segment(disk, &found.path, found.salt, found.end, active)?;
            let known = opened.iter().find(|entry| entry.sequence == found.sequence);
            let dead = known.map_or(0, |entry| entry.dead).saturating_add(found.overhead);
            self.log.set_dead(found.slot, dead.min(found.end));
            let identity = (found.sequence, found.slot, found.salt);
            let end = (!active).then_some(found.end);
            let segment = Segment::new(identity, found.path.clone(), len, end, active.then_some(file)).made(found.bulk);
            let removals = known.map_or(0, |entry| entry.removals).saturating_add(found.removals).min(found.end);
            segment.set_removals(removals, self.log.dead(found.slot));
            observe::mapped(&segment.path, 0, segment.capacity());
            if active {
                self.log.adopt_active(segment, map, tail.end);
            } else {
                self.log.adopt_sealed(segment, map);
            }
        }
        Ok(())
    }

    /// Seal, first part: nothing past X remains, nor anything that compaction has freed. The oldest goes first.
    fn discard(&self, files: &[PathBuf]) -> Result<()> {
        let mut files = files.to_vec();
        // By sequence, which has more than eight digits some day.
        files.sort_unstable_by_key(|path| {
            path.file_name().and_then(|name| name.to_str()).and_then(parse_segment_name).unwrap_or(u32::MAX)
        });
        if files.is_empty() {
            return Ok(());
        }
        files.iter().try_for_each(|path| self.log.unlink_next(path))?;
        self.log.sync_unlinked()
    }

    /// Seal, second part: what was read must be on the disk, not in the page cache only. The unused rest of
    /// the last segment is given back.
    fn rewrite_tail(&self, disk: &dyn Disk, tail: &Tail, cut: Lsn) -> Result<()> {
        let from = tail.durable_lsn.max(cut).min(tail.end);
        let last = tail.segments.last().map(|segment| segment.sequence);
        for segment in tail.segments.iter().filter(|segment| segment.sequence >= from.sequence()) {
            let path = &segment.path;
            let file = disk.open(path, OpenMode::Write).context("open", path)?;
            let mut at = if segment.sequence == from.sequence() { from.offset() } else { 0 };
            let buffer = zeroed(segment.end.saturating_sub(at).min(1 << 20) as usize);
            let mut buffer = buffer.context("reserve memory for a part of", path)?;
            while at < segment.end {
                // Only the last piece is shorter.
                buffer.truncate((segment.end - at).min(1 << 20) as usize);
                read_exact_at(&*file, &mut buffer, at).context("read", path)?;
                write_all_at(&*file, &buffer, at).context("write", path)?;
                at += buffer.len() as u64;
            }
            if Some(segment.sequence) == last {
                let kept = segment.end.next_multiple_of(PAGE);
                if file.len().context("look at", path)? > kept {
                    file.set_len(kept).context("shorten", path)?;
                }
            }
            file.sync_all().context("sync", path)?;
        }
        Ok(())
    }

    /// Seal, third part: a fresh segment that names its predecessor and its end. An empty last segment is
    /// replaced by it, so that a crash loop does not eat the disk; what is durable ends with its predecessor then, for
    /// nobody may be told of an LSN in a file that is gone.
    fn fresh_segment(&self, tail: &Tail, cut: Lsn) -> Result<()> {
        let mut predecessor = (tail.end.sequence(), tail.end.offset());
        if let Some(last) = tail.segments.last() {
            let known = self.checkpointer.opened().segments.iter().any(|entry| entry.sequence == last.sequence);
            if !known && last.end == SEGMENT_HEADER_BYTES {
                predecessor = (last.predecessor, last.predecessor_end);
                self.log.forget(last.sequence)?;
            }
        }
        let start = |sequence| if sequence == cut.sequence() { cut.offset() } else { 0 };
        let bytes = tail.segments.iter().map(|segment| segment.end.saturating_sub(start(segment.sequence))).sum();
        let durable_lsn = Lsn::new(predecessor.0, predecessor.1);
        self.log.set_durable_lsn(durable_lsn);
        self.log.provide_after_recovery(bytes)?;
        if let Some(next) = self.log.take_prepared(0) {
            self.log.activate(next, predecessor, durable_lsn);
        }
        Ok(())
    }
}
