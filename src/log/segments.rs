//! The segments of a log: which exist, where they are mapped, what is dead in them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::appender::Appender;
use super::blob::{BlobSnapshot, Blobs};
use super::commit::Commit;
use super::deadlines::AllDeadlines;
use super::large_deadlines::LargeDeadlines;
use super::pieces::Pieces;
use super::queue::Queue;
use super::record::{Invalid, Record};
use super::segment::{SEGMENT_HEADER_BYTES, Segment};
use super::segment_slots::SegmentSlots;
use super::sizes::Sizes;
use crate::address::Address;
use crate::address::Lsn;
use crate::checksum::Uuid;
use crate::error::{Error, Fault, IoContext, Location, Result};
use crate::mutant::{Mutant, broken};
use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering};
use crate::sys::pins::{PinTable, Pinned, Retired};
use crate::sys::{Disk, LogMap, LogWriter};
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
    /// The LSN of the last clear-record that is known; 0 for none.
    pub(super) clear: AtomicU64,
    /// There can be records of other tables than the main one.
    pub(super) has_tables: AtomicBool,
    /// When records expire.
    pub(super) deadlines: Mutex<AllDeadlines>,
    /// When large values do.
    pub(super) large_deadlines: Mutex<LargeDeadlines>,
    pub(super) registry: Mutex<Registry>,
    /// The active segment. `None` in a read-only store.
    pub(super) appender: CachePadded<Mutex<Option<Appender>>>,
    pub(super) queue: Queue,
    pub(super) outgoing: Mutex<Outgoing>,
    pub(super) pieces: Pieces,
    /// Times that the end of a segment could not be cut off.
    pub(super) ends_kept: AtomicU64,
    pub(super) commit: Commit,
    /// Large values: an owner of its own.
    pub(super) blobs: Blobs,
}

impl Log {
    pub(crate) fn new(config: LogConfig, blobs: &BlobSnapshot, next_sequence: u32) -> Self {
        Log {
            pins: PinTable::new(Address::SEGMENTS),
            dead: bytemuck::zeroed_slice_box(Address::SEGMENTS),
            clear: AtomicU64::new(0),
            has_tables: AtomicBool::new(false),
            deadlines: Mutex::default(),
            large_deadlines: Mutex::default(),
            registry: Mutex::new(Registry { segments: BTreeMap::new(), slots: SegmentSlots::new(), next_sequence }),
            appender: CachePadded::new(Mutex::new(None)),
            queue: Queue::default(),
            // The process before may have died between an unlink and its fsync.
            outgoing: Mutex::new(Outgoing { retired: Vec::new(), unsynced: !broken(Mutant::KilledTrusted) }),
            pieces: Pieces::new(config.sync),
            ends_kept: AtomicU64::new(0),
            commit: Commit::new(),
            blobs: Blobs::restore(
                Arc::clone(&config.disk),
                config.dir.clone(),
                config.uuid,
                config.tuning.listed_blobs_max,
                blobs,
            ),
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
    pub(crate) fn add_dead(&self, address: Address, bytes: u64) {
        self.dead[address.segment() as usize].fetch_add(bytes, Ordering::Relaxed);
    }

    /// Dead bytes of a segment slot.
    pub(crate) fn dead(&self, slot: u32) -> u64 {
        self.dead[slot as usize].load(Ordering::Relaxed)
    }

    pub(crate) fn set_dead(&self, slot: u32, bytes: u64) {
        self.dead[slot as usize].store(bytes, Ordering::Relaxed);
    }

    /// Everything up to an LSN was removed: every record before it is dead. The caller holds all stripes.
    pub(super) fn all_dead(&self, until: Lsn) {
        for segment in self.segments() {
            if segment.sequence <= until.sequence() {
                self.forget_deadlines(segment.slot);
            }
            // No slot names a rotten record any more.
            segment.end_waiting();
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
    pub(crate) fn invalid_record(&self, address: Address, why: Invalid) -> Fault {
        let (expected, found) = why.texts();
        let location = Location::at(&self.path_of_slot(address.segment()), address.offset());
        Error::corrupt("record", location, expected, found).into()
    }

    /// The record at an address, checked, in a pinned mapping.
    pub(crate) fn record<'p>(&self, pinned: &'p Pinned<'_>, address: Address) -> Result<Record<'p>> {
        let record = Record::at(pinned, address.offset()).map_err(|why| self.invalid_record(address, why))?;
        record.check(pinned.salt(), address.offset()).map_err(|why| self.invalid_record(address, why))?;
        Ok(record)
    }

    /// Fetches the first cache lines of a record.
    #[inline]
    pub(crate) fn prefetch(&self, address: Address) {
        self.pins.prefetch(address.segment(), address.offset());
    }

    /// What the sizes of segments follow from.
    pub(super) fn sizes(&self) -> Sizes {
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

    /// Segment slots in use, prepared segments included.
    pub(crate) fn slots_used(&self) -> usize {
        self.registry.lock().slots.taken()
    }

    /// The segment slot can be given out again.
    pub(super) fn release_slot(&self, slot: u32) {
        self.forget_deadlines(slot);
        self.registry.lock().slots.release(slot as usize);
    }

    /// True if segment slots are running out.
    pub(crate) fn is_short_of_slots(&self) -> bool {
        self.slots_used() + 4 * SLOTS_RESERVED > Address::SEGMENTS
    }

    /// A segment was not made after all. Its sequence is given out again, unless a file that stays has its name.
    pub(super) fn give_up_slot(&self, sequence: u32, slot: u32, named: bool) {
        let mut registry = self.registry.lock();
        registry.slots.release(slot as usize);
        if !named && registry.next_sequence == sequence + 1 {
            registry.next_sequence = sequence;
        }
    }

    pub(super) fn reserve_slot(&self) -> Result<(u32, u32)> {
        // Before an appender exists, recovery asks for the segment that it goes on in. The append lock comes before the
        // registry's.
        let reserved = if self.appender.lock().is_some() { SLOTS_RESERVED } else { 0 };
        let mut registry = self.registry.lock();
        let full = || Error::LimitReached {
            path: self.dir().to_path_buf(),
            what: "log segments",
            limit: Address::SEGMENTS as u64,
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
}
