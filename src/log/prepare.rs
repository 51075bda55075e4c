//! Making the segments that wait to become the active one.
//!
//! **Preparing a segment** (background, or in the call that needs it; no lock that a writer holds):
//!
//! 1. The file is created and its blocks are allocated; fsync, and fsync of the directory: from here on size
//!    and name are durable. *Crash:* a file of zeroes that recovery unlinks.
//! 2. It is filled with zeroes in pieces (pieces.rs). If they are small, or the policy syncs, the zeroes are synced now,
//!    so that no later sync has to.
//! 3. It is mapped, and becomes the next in the queue.
//!
//! **Switching** to it happens under the append lock (append.rs): the header is written, the record follows.

use std::path::Path;
use std::sync::Arc;

use super::appender::{Appender, Prepared};
use super::segment::Segment;
use super::segments::Log;
use super::sizes::{SEGMENT_BYTES_FIRST, SEGMENT_BYTES_LAST};
use crate::error::{Error, IoContext, Result};
use crate::layout::segment_path;
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sys::memory::zeroed;
use crate::sys::{DiskFile, LogMap, LogWriter, OpenMode, Paced, write_all_at};
use crate::tuning::SyncPolicy;

/// A segment's file, and how it was made.
pub(crate) struct Made {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) map: LogMap,
    /// It is for bulk writing.
    pub(crate) bulk: bool,
}

impl Log {
    /// Prepares a segment and puts it into the queue, unless the next in the queue will do.
    ///
    /// # Errors
    /// `DiskFull`, `LimitReached` when all segment slots are taken, `Io`.
    pub(crate) fn provide_segment(&self, room: u64) -> Result<()> {
        let _one = self.queue.alone();
        if self.queue.next(|next| next.has_room(room)).unwrap_or(false) {
            return Ok(());
        }
        // Too small for what is to come, and their sequences would be passed over: not needed any more.
        self.discard_prepared()?;
        if !self.config.tuning.background {
            // There is nobody who prepares one of the usual size meanwhile.
            self.prepare(self.segment_bytes(room))?;
            self.cut_ends();
            return Ok(());
        }
        // Somebody waits for it, so it is less than the usual; the next one is prepared while this one is used.
        self.prepare(self.segment_bytes_urgent(room))
    }

    /// The size for a segment that somebody waits for.
    fn segment_bytes_urgent(&self, room: u64) -> u64 {
        self.sizes().urgent(room)
    }

    /// Prepares the segment in which a store goes on after recovery: no larger than what was replayed, or an open
    /// would take the longer the larger the store is. The next one has the usual size.
    pub(crate) fn provide_after_recovery(&self, replayed_bytes: u64) -> Result<()> {
        let _one = self.queue.alone();
        let urgent = self.segment_bytes_urgent(0);
        let bytes = match self.config.segment_bytes {
            Some(_) => urgent,
            None => urgent.min(replayed_bytes.next_power_of_two().max(SEGMENT_BYTES_FIRST)),
        };
        self.prepare(bytes)
    }

    /// Puts a segment of the size that is wanted now into the queue, in the place of whatever is there.
    pub(super) fn prepare_anew(&self) -> Result<()> {
        let _one = self.queue.alone();
        self.discard_prepared()?;
        self.prepare(self.segment_bytes(0))
    }

    /// Prepares a segment if fewer are waiting than the rate of writing asks for. Returns true if it did.
    pub(crate) fn prepare_ahead(&self) -> Result<bool> {
        let ahead = self.appender.lock().as_ref().map_or(0, Appender::segments_ahead);
        let _one = self.queue.alone();
        if self.queue.count() >= ahead {
            return Ok(false);
        }
        self.prepare(self.segment_bytes(0))?;
        Ok(true)
    }

    /// The next segment of the queue, if it has the room.
    pub(crate) fn take_prepared(&self, room: u64) -> Option<Prepared> {
        self.queue.take_if(|next| next.has_room(room))
    }

    /// Faults in the memory that the next records will go to. A page of a segment that was synced when it was prepared, or
    /// has been synced since, is mapped for reading only: the first store to it would be interrupted for microseconds.
    pub(crate) fn warm_ahead(&self, bytes: u64) {
        let Some((map, at)) = self.appender.lock().as_ref().map(Appender::ahead) else { return };
        let start = at & !(crate::sys::PAGE_BYTES as u64 - 1);
        let end = (at + bytes).min(map.len());
        // Only advice, here and below.
        let _ = map.populate(start, end.saturating_sub(start));
        let rest = (at + bytes).saturating_sub(map.len());
        let next = self.queue.next(|next| Arc::clone(next.writer.map()));
        if let Some(next) = next.filter(|_| rest > 0) {
            let _ = next.populate(0, rest.min(next.len()));
        }
    }

    /// Unlinks the segments that wait, because something else needs their space now. Returns true if there were any. What
    /// cannot be unlinked stays in the queue.
    pub(crate) fn give_back_prepared(&self) -> bool {
        let _one = self.queue.alone();
        let before = self.queue.count();
        // The caller meets the shortage again, if this is not enough.
        let _ = self.discard_prepared();
        self.queue.count() < before
    }

    /// Unlinks the segments of the queue. None of them ever held a record.
    pub(crate) fn discard_prepared(&self) -> Result<()> {
        while let Some(next) = self.queue.take_if(|_| true) {
            if let Err(error) = self.disk().unlink_any(&next.segment.path).context("unlink", &next.segment.path) {
                // It stays in the queue, and can be used or tried again.
                self.queue.change(|waiting| waiting.push_front(next));
                return Err(error);
            }
            let Prepared { segment, writer, .. } = next;
            drop(writer);
            // Nothing was ever written to it, so nobody can have it pinned for longer than an instant; if
            // somebody does just now, the mapping is leaked.
            if let Some(retired) = self.pins.retire(segment.slot) {
                _ = self.pins.reclaim(retired);
            }
            observe::unmapped(&segment.path, segment.capacity(), false);
            self.release_slot(segment.slot);
        }
        Ok(())
    }

    /// Makes a segment and puts it into the queue. The caller is [alone](super::queue::Queue::alone).
    fn prepare(&self, bytes: u64) -> Result<()> {
        self.enqueue(bytes, false, |_, path, created| self.create_segment(path, bytes, created)).map(|_| ())
    }

    /// Puts the segment into the queue that `make` makes from a salt and a path, and sets the flag as soon as there is a
    /// file that it has made. Returns its sequence. The caller is [alone](super::queue::Queue::alone).
    ///
    /// A failed try is as if it had not been: the next one takes the same sequence and the same name. A file of that name
    /// that is not of this call's making stays, and is an error until somebody has moved it away.
    pub(super) fn enqueue(
        &self,
        bytes: u64,
        has_frame: bool,
        make: impl FnOnce(u64, &Path, &mut bool) -> Result<Made>,
    ) -> Result<u32> {
        if bytes > SEGMENT_BYTES_LAST {
            return Err(Error::LimitReached {
                path: self.dir().to_path_buf(),
                what: "bytes of a log segment",
                limit: SEGMENT_BYTES_LAST,
                remedy: "apply smaller batches",
            });
        }
        let mut salt = [0; 8];
        self.disk().random(&mut salt).context("get random bytes for", self.dir())?;
        let salt = u64::from_le_bytes(salt);
        let (sequence, slot) = self.reserve_slot()?;
        let path = segment_path(self.dir(), sequence);
        let mut created = false;
        match make(salt, &path, &mut created) {
            Ok(Made { file, map, bulk }) => {
                let writer = LogWriter::new(map.with_salt(salt));
                self.pins.install(slot, Arc::clone(writer.map()));
                self.set_dead(slot, 0);
                observe::mapped(&path, 0, bytes);
                let segment = Segment::new((sequence, slot, salt), path, bytes, None, Some(file));
                let segment = Arc::new(segment.made(bulk));
                self.queue.change(|waiting| waiting.push_back(Prepared { segment, writer, has_frame }));
                Ok(sequence)
            }
            Err(error) => {
                // A file that cannot be unlinked keeps its name, until the next open unlinks it.
                let named = created && self.disk().unlink(&path).is_err();
                self.give_up_slot(sequence, slot, named);
                Err(error)
            }
        }
    }

    fn create_segment(&self, path: &Path, bytes: u64, created: &mut bool) -> Result<Made> {
        let bulk = self.pieces.wants_bulk();
        let file = self.create_allocated(path, bytes, created)?;
        let zeroes = zeroed(self.pieces.bytes(bulk).min(bytes as usize));
        let zeroes = zeroes.context("reserve memory for zeroes of", path)?;
        let synced = !(bulk && self.config.sync == SyncPolicy::Manual);
        let mut paced = Paced::new(&*file);
        let mut at = 0;
        while at < bytes {
            let piece = (zeroes.len() as u64).min(bytes - at);
            write_all_at(&*file, &zeroes[..piece as usize], at).context("write zeroes to", path)?;
            at += piece;
            if synced {
                paced.wrote(piece).context("sync", path)?;
            }
        }
        if synced {
            file.sync_data().context("sync", path)?;
        }
        let map = file.map_log(bytes as usize, 0, true).context("map", path)?;
        if !synced {
            // Only advice: the first store to each page is slower without it.
            let _ = map.populate(0, bytes);
        }
        Ok(Made { file, map, bulk })
    }

    /// Step 1.
    pub(super) fn create_allocated(&self, path: &Path, bytes: u64, created: &mut bool) -> Result<Arc<dyn DiskFile>> {
        let file = self.disk().open(path, OpenMode::CreateNew).context("create", path)?;
        *created = true;
        file.allocate(0, bytes).context("allocate blocks of", path)?;
        file.sync_all().context("sync", path)?;
        if !broken(Mutant::SegmentNameNotSynced) {
            self.disk().sync_dir(self.dir()).context("sync", self.dir())?;
        }
        Ok(file)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::tuning::Tuning;

    #[test]
    fn a_segment_beyond_its_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::open(dir.path().join("s")).unwrap();
        let log = &store.engine().log;
        let never = |_, _: &Path, _: &mut bool| unreachable!("a segment that no address can name");
        let error = log.enqueue((1 << 30) + 1, false, never).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("bytes of a log segment: the limit of 1073741824 is reached; apply smaller batches"),
            "{text}"
        );
    }

    /// The segment stayed the active one until it was full, and each small sync wrote a large piece of it.
    #[test]
    fn a_segment_for_bulk_writing_that_waited_is_noticed_after_small_syncs() {
        let dir = tempfile::tempdir().unwrap();
        let tuning = Tuning { background: false, ..Tuning::default() };
        let options = crate::Options::new().sync(SyncPolicy::Manual).tuning(tuning);
        let store = options.open(dir.path().join("s")).unwrap();
        let log = &store.engine().log;
        let is_bulk = || log.appender.lock().as_ref().unwrap().segment.bulk;
        store.insert("key", "value").unwrap();
        log.prepare_anew().unwrap();
        while !log.pieces.synced(1) {}
        log.seal_active().unwrap();
        assert!(is_bulk() && log.is_unsuited());
        store.insert("key", "value").unwrap();
        assert!(log.is_ill_fitting());
        log.replace_active(|| ()).unwrap();
        assert!(!is_bulk() && !log.is_unsuited());
    }
}
