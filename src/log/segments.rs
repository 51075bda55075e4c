//! The segments of a log: which exist, where they are mapped, and preparing the next one.
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

use std::collections::{BTreeMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::appender::{Appender, Prepared};
use super::blob::{BlobSnapshot, Blobs};
use super::commit::Commit;
use super::pieces::Pieces;
use super::record::{Invalid, Record};
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use super::segment_slots::SegmentSlots;
use super::sizes::{SEGMENT_BYTES_FIRST, SEGMENT_BYTES_LAST, Sizes};
use crate::address::Lsn;
use crate::address::Place;
use crate::checksum::Uuid;
use crate::error::{Error, Fault, IoContext, Location, Result};
use crate::layout::segment_path;
use crate::mutant::{Mutant, broken};
use crate::observe;
use crate::sync::{AtomicU32, AtomicU64, Mutex, Ordering};
use crate::sys::pins::{PinTable, Pinned, Retired};
use crate::sys::{Disk, DiskFile, LogMap, LogWriter, OpenMode, Paced, write_all_at};
use crate::tuning::{SyncPolicy, Tuning};

/// Segment slots that only recovery takes: a store at the limit can still be opened after unclean ends, and compacted.
const SLOTS_RESERVED: usize = 16;

/// How a log is set up.
#[derive(Debug, Clone)]
pub(crate) struct LogConfig {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) dir: PathBuf,
    pub(crate) uuid: Uuid,
    pub(crate) sync: SyncPolicy,
    pub(crate) segment_bytes: Option<u64>,
    pub(crate) tuning: Tuning,
}

/// A segment's file, and how it was made.
pub(crate) struct Made {
    pub(crate) file: Arc<dyn DiskFile>,
    pub(crate) map: LogMap,
    /// It is for bulk writing.
    pub(crate) bulk: bool,
}

#[derive(Debug)]
pub(super) struct Registry {
    /// Segments that hold records, by sequence.
    pub(super) segments: BTreeMap<u32, Arc<Segment>>,
    /// Segment slots in use, prepared segments included.
    slots: SegmentSlots,
    /// A sequence above any that was ever seen.
    next_sequence: u32,
}

/// Segments on their way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// Mappings that readers still had pinned when their segments were freed, with the files' sizes.
    pub(super) retired: Vec<(Retired, u64)>,
    /// A file may have been unlinked since the directory was last synced.
    pub(super) unsynced: bool,
}

#[derive(Debug)]
pub(crate) struct Log {
    pub(super) config: LogConfig,
    /// The mappings, by segment slot.
    pub(super) pins: PinTable,
    /// Bytes of dead records, by segment slot.
    dead: Box<[AtomicU64]>,
    pub(super) registry: Mutex<Registry>,
    /// The active segment. `None` in a read-only store.
    pub(super) appender: CachePadded<Mutex<Option<Appender>>>,
    pub(super) prepared: Mutex<VecDeque<Prepared>>,
    /// Length of `prepared`, readable without its lock.
    prepared_count: AtomicU32,
    /// Held while a segment is prepared: one at a time.
    pub(super) preparing: Mutex<()>,
    pub(super) outgoing: Mutex<Outgoing>,
    pub(super) pieces: Pieces,
    /// Times that the end of a segment could not be cut off.
    pub(super) ends_kept: AtomicU64,
    pub(super) commit: Commit,
    /// Large values: an owner of its own.
    pub(crate) blobs: Blobs,
}

impl Log {
    pub(crate) fn new(config: LogConfig, blobs: &BlobSnapshot, next_sequence: u32) -> Self {
        Log {
            pins: PinTable::new(Place::SEGMENTS),
            dead: bytemuck::zeroed_slice_box(Place::SEGMENTS),
            registry: Mutex::new(Registry { segments: BTreeMap::new(), slots: SegmentSlots::new(), next_sequence }),
            appender: CachePadded::new(Mutex::new(None)),
            prepared: Mutex::new(VecDeque::new()),
            prepared_count: AtomicU32::new(0),
            preparing: Mutex::new(()),
            // The process before may have died between an unlink and its fsync.
            outgoing: Mutex::new(Outgoing { retired: Vec::new(), unsynced: !broken(Mutant::KilledTrusted) }),
            pieces: Pieces::new(config.sync),
            ends_kept: AtomicU64::new(0),
            commit: Commit::new(),
            blobs: Blobs::restore(Arc::clone(&config.disk), config.dir.clone(), config.uuid, blobs),
            config,
        }
    }

    pub(crate) fn disk(&self) -> &dyn Disk {
        &*self.config.disk
    }

    /// The disk, for a caller that outlives the log.
    pub(crate) fn shared_disk(&self) -> &Arc<dyn Disk> {
        &self.config.disk
    }

    /// The size of segments, if it was chosen by the user.
    pub(crate) fn fixed_segment_bytes(&self) -> Option<u64> {
        self.config.segment_bytes
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.config.dir
    }

    /// Notes that a record of that many bytes is dead.
    #[inline]
    pub(crate) fn add_dead(&self, place: Place, bytes: u64) {
        self.dead[place.segment() as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Dead bytes of a segment slot.
    pub(crate) fn dead(&self, slot: u32) -> u64 {
        self.dead[slot as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn set_dead(&self, slot: u32, bytes: u64) {
        self.dead[slot as usize].store(bytes, Ordering::Relaxed);
    }

    /// Everything up to an LSN was removed: every record before it is dead. The caller holds all stripes.
    pub(crate) fn all_dead(&self, until: Lsn) {
        for segment in self.segments() {
            match segment.sequence.cmp(&until.sequence()) {
                std::cmp::Ordering::Less => self.set_dead(segment.slot, self.record_bytes(&segment)),
                std::cmp::Ordering::Equal => {
                    self.set_dead(segment.slot, until.offset().saturating_sub(SEGMENT_HEADER_BYTES));
                }
                std::cmp::Ordering::Greater => {}
            }
        }
    }

    /// Bytes of a segment's records.
    pub(crate) fn record_bytes(&self, segment: &Segment) -> u64 {
        let end = segment.end().unwrap_or_else(|| self.tail().offset());
        end.saturating_sub(SEGMENT_HEADER_BYTES)
    }

    /// The file of a segment slot, for error messages.
    pub(crate) fn path_of_slot(&self, slot: u32) -> PathBuf {
        let registry = self.registry.lock();
        let segment = registry.segments.values().find(|segment| segment.slot == slot);
        segment.map_or_else(|| self.dir().join(format!("(segment slot {slot}, which no file has)")), |s| s.path.clone())
    }

    /// The error for a slot whose record is not valid.
    #[cold]
    pub(crate) fn invalid_record(&self, place: Place, why: Invalid) -> Fault {
        let (expected, found) = why.texts();
        let location = Location::at(&self.path_of_slot(place.segment()), place.offset());
        Error::corrupt("record", location, expected, found).into()
    }

    /// The record at a place, checked, in a pinned mapping.
    pub(crate) fn record<'p>(&self, pinned: &'p Pinned<'_>, place: Place) -> Result<Record<'p>> {
        let record = Record::at(pinned, place.offset()).map_err(|why| self.invalid_record(place, why))?;
        record.check(pinned.salt(), place.offset()).map_err(|why| self.invalid_record(place, why))?;
        Ok(record)
    }

    /// Fetches the first cache lines of a record.
    #[inline]
    pub(crate) fn prefetch(&self, place: Place) {
        self.pins.prefetch(place.segment(), place.offset());
    }

    /// What the sizes of segments follow from.
    fn sizes(&self) -> Sizes {
        let (log, dead) = match self.config.segment_bytes {
            Some(_) => (0, 0),
            None => {
                let registry = self.registry.lock();
                let both = registry.segments.values().map(|segment| (segment.capacity(), self.dead(segment.slot)));
                both.fold((0, 0), |sum: (u64, u64), one| (sum.0 + one.0, sum.1 + one.1))
            }
        };
        Sizes { fixed: self.config.segment_bytes, log, dead }
    }

    /// The size for the next segment: a 32nd of the log, because there are never many then, and little is unused.
    pub(crate) fn segment_bytes(&self, room: u64) -> u64 {
        self.sizes().usual(room)
    }

    /// A sealed segment with fewer bytes of records is a small one.
    pub(crate) fn small_bytes(&self) -> u64 {
        self.sizes().small()
    }

    /// Prepares a segment and puts it into the queue, unless the next in the queue will do.
    ///
    /// # Errors
    /// `DiskFull`, `LimitReached` when all segment slots are taken, `Io`.
    pub(crate) fn provide_segment(&self, room: u64) -> Result<()> {
        let _one = self.preparing.lock();
        if self.prepared.lock().front().is_some_and(|next| next.has_room(room)) {
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
        let _one = self.preparing.lock();
        let urgent = self.segment_bytes_urgent(0);
        let bytes = match self.config.segment_bytes {
            Some(_) => urgent,
            None => urgent.min(replayed_bytes.next_power_of_two().max(SEGMENT_BYTES_FIRST)),
        };
        self.prepare(bytes)
    }

    /// Puts a segment of the size that is wanted now into the queue, in the place of whatever is there.
    pub(super) fn prepare_anew(&self) -> Result<()> {
        let _one = self.preparing.lock();
        self.discard_prepared()?;
        self.prepare(self.segment_bytes(0))
    }

    /// Prepares a segment if fewer are waiting than the rate of writing asks for. Returns true if it did.
    pub(crate) fn prepare_ahead(&self) -> Result<bool> {
        let ahead = self.appender.lock().as_ref().map_or(0, Appender::segments_ahead);
        let _one = self.preparing.lock();
        if self.prepared_count() >= ahead {
            return Ok(false);
        }
        self.prepare(self.segment_bytes(0))?;
        Ok(true)
    }

    /// Segment slots in use, prepared segments included.
    pub(crate) fn slots_used(&self) -> usize {
        self.registry.lock().slots.taken()
    }

    pub(super) fn prepared_count(&self) -> u32 {
        self.prepared_count.load(Ordering::Acquire)
    }

    /// The next segment of the queue, if it has the room.
    pub(crate) fn take_prepared(&self, room: u64) -> Option<Prepared> {
        self.take_prepared_if(|next| next.has_room(room))
    }

    /// The next segment of the queue, if it is as it should be.
    pub(super) fn take_prepared_if(&self, will_do: impl FnOnce(&Prepared) -> bool) -> Option<Prepared> {
        let mut queue = self.prepared.lock();
        let next = if queue.front().is_some_and(will_do) { queue.pop_front() } else { None };
        self.prepared_count.store(queue.len() as u32, Ordering::Release);
        next
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
        let next = self.prepared.lock().front().map(|next| Arc::clone(next.writer.map()));
        if let Some(next) = next.filter(|_| rest > 0) {
            let _ = next.populate(0, rest.min(next.len()));
        }
    }

    /// Bytes of the prepared segments' files.
    pub(super) fn prepared_bytes(&self) -> u64 {
        self.prepared.lock().iter().map(|prepared| prepared.segment.capacity()).sum()
    }

    /// Unlinks the segments of the queue. None of them ever held a record.
    pub(crate) fn discard_prepared(&self) -> Result<()> {
        loop {
            let next = {
                let mut queue = self.prepared.lock();
                let next = queue.pop_front();
                self.prepared_count.store(queue.len() as u32, Ordering::Release);
                next
            };
            let Some(next) = next else { break };
            if let Err(error) = self.disk().unlink_any(&next.segment.path).context("unlink", &next.segment.path) {
                // It stays in the queue, and can be used or tried again.
                let mut queue = self.prepared.lock();
                queue.push_front(next);
                self.prepared_count.store(queue.len() as u32, Ordering::Release);
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

    /// The segment slot can be given out again.
    pub(super) fn release_slot(&self, slot: u32) {
        self.registry.lock().slots.release(slot as usize);
    }

    /// Makes a segment and puts it into the queue. The caller holds `preparing`.
    fn prepare(&self, bytes: u64) -> Result<()> {
        self.enqueue(bytes, false, |_, path, created| self.create_segment(path, bytes, created)).map(|_| ())
    }

    /// Puts the segment into the queue that `make` makes from a salt and a path, and sets the flag as soon as there is a
    /// file that it has made. Returns its sequence. The caller holds `preparing`.
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
                let mut queue = self.prepared.lock();
                let segment = Arc::new(segment.made(bulk));
                queue.push_back(Prepared { segment, writer, has_frame });
                self.prepared_count.store(queue.len() as u32, Ordering::Release);
                Ok(sequence)
            }
            Err(error) => {
                // A file that cannot be unlinked keeps its name, until the next open unlinks it.
                let gone = !created || self.disk().unlink(&path).is_ok();
                let mut registry = self.registry.lock();
                registry.slots.release(slot as usize);
                if gone && registry.next_sequence == sequence + 1 {
                    registry.next_sequence = sequence;
                }
                Err(error)
            }
        }
    }

    /// True if segment slots are running out.
    pub(crate) fn is_short_of_slots(&self) -> bool {
        self.slots_used() + 4 * SLOTS_RESERVED > Place::SEGMENTS
    }

    fn reserve_slot(&self) -> Result<(u32, u32)> {
        // Before an appender exists, recovery asks for the segment that it goes on in. The append lock comes before the
        // registry's.
        let reserved = if self.appender.lock().is_some() { SLOTS_RESERVED } else { 0 };
        let mut registry = self.registry.lock();
        let full = || Error::LimitReached {
            path: self.dir().to_path_buf(),
            what: "log segments",
            limit: Place::SEGMENTS as u64,
            remedy: "compact the store (`tophash compact`), or export it into a new one with larger segments (`tophash export`, `tophash import`)",
        };
        let slot = registry.slots.free(reserved).ok_or_else(full)?;
        let sequence = registry.next_sequence;
        let next = sequence.checked_add(1).ok_or_else(|| Error::LimitReached {
            path: self.dir().to_path_buf(),
            what: "log segments ever made",
            limit: u32::MAX.into(),
            remedy: "export the store into a new one (`tophash export`, `tophash import`)",
        })?;
        // From here on nothing fails, so that no slot is lost.
        registry.slots.take(slot);
        registry.next_sequence = next;
        Ok((sequence, slot as u32))
    }

    fn create_segment(&self, path: &Path, bytes: u64, created: &mut bool) -> Result<Made> {
        let bulk = self.pieces.wants_bulk();
        let file = self.create_allocated(path, bytes, created)?;
        let zeroes = vec![0; self.pieces.bytes(bulk).min(bytes as usize)];
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

    /// Adds a sealed segment that existed when the store was opened.
    pub(crate) fn adopt_sealed(&self, segment: Segment, map: LogMap) {
        self.pins.install(segment.slot, Arc::new(map));
        self.adopt(Arc::new(segment));
    }

    /// Adds the segment in which an opened store goes on, behind `end`.
    pub(crate) fn adopt_active(&self, segment: Segment, map: LogMap, end: Lsn) {
        let segment = Arc::new(segment);
        let writer = LogWriter::new(map);
        self.pieces.opened(segment.bulk);
        self.pins.install(segment.slot, Arc::clone(writer.map()));
        *self.appender.lock() = Some(Appender::new(Arc::clone(&segment), writer, end));
        self.adopt(segment);
    }

    /// True if a segment that holds records has the slot.
    pub(crate) fn is_slot_taken(&self, slot: u32) -> bool {
        self.registry.lock().segments.values().any(|segment| segment.slot == slot)
    }

    /// No segment that is made from now on has a sequence up to this one.
    pub(crate) fn pass_sequences(&self, last: u32) {
        let mut registry = self.registry.lock();
        registry.next_sequence = registry.next_sequence.max(last.saturating_add(1));
    }

    fn adopt(&self, segment: Arc<Segment>) {
        let mut registry = self.registry.lock();
        registry.slots.take(segment.slot as usize);
        registry.next_sequence = registry.next_sequence.max(segment.sequence.saturating_add(1));
        registry.segments.insert(segment.sequence, segment);
    }

    /// Unlinks a segment that holds no records and that no checkpoint names.
    pub(crate) fn forget(&self, sequence: u32) -> Result<()> {
        let Some(segment) = self.registry.lock().segments.remove(&sequence) else { return Ok(()) };
        if let Some(retired) = self.pins.retire(segment.slot) {
            _ = self.pins.reclaim(retired);
        }
        self.disk().unlink(&segment.path).context("unlink", &segment.path)?;
        self.disk().sync_dir(self.dir()).context("sync", self.dir())?;
        self.release_slot(segment.slot);
        Ok(())
    }

    /// Segments that hold records, in order.
    pub(crate) fn segments(&self) -> Vec<Arc<Segment>> {
        self.registry.lock().segments.values().cloned().collect()
    }

    /// Shows the segments that a checkpoint names, in order: those that hold records, but for the excluded ones. Returns a
    /// sequence above any that was ever seen.
    pub(crate) fn name_segments(&self, excluded: &[u32], mut name: impl FnMut(&Segment)) -> u32 {
        let registry = self.registry.lock();
        let named = registry.segments.values().filter(|segment| !excluded.contains(&segment.sequence));
        named.for_each(|segment| name(segment));
        registry.next_sequence
    }

    /// True if there is a segment to append to.
    pub(crate) fn has_active(&self) -> bool {
        self.appender.lock().is_some()
    }

    /// The active segment's file, and where its records end.
    pub(crate) fn active_end(&self) -> Option<(PathBuf, u64)> {
        let appender = self.appender.lock();
        appender.as_ref().map(|appender| (appender.segment.path.clone(), appender.lsn().offset()))
    }

    /// Where the next record will stand, and the bytes appended since the store was opened.
    pub(crate) fn end(&self) -> (Lsn, u64) {
        let appender = self.appender.lock();
        appender.as_ref().map_or_else(Default::default, |appender| (appender.lsn(), appender.total()))
    }

    /// The segment of a sequence, if it holds records.
    pub(crate) fn segment(&self, sequence: u32) -> Option<Arc<Segment>> {
        self.registry.lock().segments.get(&sequence).cloned()
    }

    /// The sequence of the oldest segment that was not evacuated.
    pub(crate) fn oldest(&self) -> Option<u32> {
        self.registry.lock().segments.values().find(|segment| !segment.is_evacuated()).map(|segment| segment.sequence)
    }

    /// Bytes appended since the store was opened.
    pub(crate) fn total(&self) -> u64 {
        self.appender.lock().as_ref().map_or(0, Appender::total)
    }

    /// Where the next record will stand.
    pub(crate) fn tail(&self) -> Lsn {
        self.appender.lock().as_ref().map_or(Lsn::default(), Appender::lsn)
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// A slot was marked as used before the sequence was found to be the last one: each failed call lost a slot.
    #[test]
    fn no_slot_is_lost_when_sequences_run_out() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::open(dir.path().join("s")).unwrap();
        let log = &store.engine().log;
        log.registry.lock().next_sequence = u32::MAX;
        let before = log.slots_used();
        for _ in 0..3 {
            let error = log.reserve_slot().unwrap_err();
            let (what, limit) = ("log segments ever made", u64::from(u32::MAX));
            assert!(
                matches!(error, Error::LimitReached { what: w, limit: l, .. } if (w, l) == (what, limit)),
                "{error}"
            );
            assert!(error.to_string().contains("tophash export"), "{error}");
        }
        assert_eq!(log.slots_used(), before);
    }

    #[test]
    fn a_segment_beyond_its_limit_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::open(dir.path().join("s")).unwrap();
        let log = &store.engine().log;
        let never = |_, _: &Path, _: &mut bool| unreachable!("a segment that no place can name");
        let error = log.enqueue((1 << 30) + 1, false, never).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("bytes of a log segment: the limit of 1073741824 is reached; apply smaller batches"),
            "{text}"
        );
    }
}
