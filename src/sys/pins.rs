//! Holding on to log mappings without locks.
//!
//! A [`PinTable`] has a slot per segment slot of the store. A reader **pins**: it adds one to the slot's
//! counter (sharded by thread) and only then loads the mapping's address. Whoever wants to unmap **retires**:
//! takes the address out of the slot and only then reads the counters of all shards. All four accesses are
//! SeqCst, so they have one order: either the reader finds the address gone, or the counter is seen. If all
//! counters are zero, nobody has the mapping, and nobody can get it any more. Otherwise the mapping stays
//! until a later look finds zero. So no reader ever waits for the compactor, and the compactor never waits
//! for a reader.
//!
//! A slot can be given to a new mapping while the old one is still pinned by somebody: the old mapping is
//! then freed when the counters are seen to be zero, which can only be later than necessary, never earlier.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::map::{LogMap, prefetch_line};
use crate::sync::{AtomicPtr, AtomicU64, OnceLock, Ordering, SHARDS, shard};

/// Slots that are made at once: few, because each takes two kilobytes.
const CHUNK: usize = 8;

/// Cache lines of a record that are prefetched.
const RECORD_LINES: usize = 3;

#[derive(Default)]
struct PinSlot {
    /// From `Arc::into_raw`; null if there is no mapping.
    map: AtomicPtr<LogMap>,
    /// Where the mapping begins, for prefetching; wherever it began, if it is gone.
    base: AtomicPtr<u8>,
    counts: [CachePadded<AtomicU64>; SHARDS],
}

impl PinSlot {
    fn is_pinned(&self) -> bool {
        self.counts.iter().any(|count| count.load(Ordering::SeqCst) != 0)
    }
}

/// A mapping that was taken out of its slot and may still be pinned. Dropping it leaks the mapping; hand it
/// to [`PinTable::reclaim`] until that frees it.
#[derive(Debug)]
pub(crate) struct Retired {
    slot: u32,
    /// Not dropped by itself: somebody may still read the mapping.
    map: ManuallyDrop<Arc<LogMap>>,
}

impl Retired {
    /// The slot that it was taken out of.
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }
}

/// The mappings of all segments, by segment slot.
pub(crate) struct PinTable {
    chunks: Box<[OnceLock<Box<[PinSlot]>>]>,
}

impl PinTable {
    /// A table for `slots` slots, all empty.
    pub(crate) fn new(slots: usize) -> Self {
        PinTable { chunks: (0..slots.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() }
    }

    #[inline]
    fn slot(&self, slot: u32) -> Option<&PinSlot> {
        self.chunks.get(slot as usize / CHUNK)?.get().map(|chunk| &chunk[slot as usize % CHUNK])
    }

    /// Puts a mapping into an empty slot.
    ///
    /// # Panics
    /// If the slot is beyond the table or taken: the segment table hands out each slot once.
    pub(crate) fn install(&self, slot: u32, map: Arc<LogMap>) {
        let chunk = self.chunks[slot as usize / CHUNK].get_or_init(|| (0..CHUNK).map(|_| PinSlot::default()).collect());
        let entry = &chunk[slot as usize % CHUNK];
        entry.base.store(map.base().cast_mut(), Ordering::Relaxed);
        let previous = entry.map.swap(Arc::into_raw(map).cast_mut(), Ordering::AcqRel);
        assert!(previous.is_null(), "segment slot {slot} is taken");
    }

    /// Pins the mapping in a slot, if there is one.
    #[inline]
    pub(crate) fn pin(&self, slot: u32) -> Option<Pinned<'_>> {
        let entry = self.slot(slot)?;
        let shard = shard();
        entry.counts[shard as usize & (SHARDS - 1)].fetch_add(1, Ordering::SeqCst);
        let map = entry.map.load(Ordering::SeqCst);
        let guard = PinGuard { slot: entry, shard };
        if map.is_null() {
            return None;
        }
        Some(Pinned { guard, map })
    }

    /// Prefetches a record of a few cache lines without pinning its mapping: a prefetch of unmapped memory is harmless.
    #[inline]
    pub(crate) fn prefetch(&self, slot: u32, offset: u64) {
        let Some(entry) = self.slot(slot) else { return };
        let record = entry.base.load(Ordering::Relaxed).wrapping_add(offset as usize);
        for line in 0..RECORD_LINES {
            prefetch_line(record.wrapping_add(line * 64));
        }
    }

    /// Takes the mapping out of a slot, so that nobody can pin it any more.
    pub(crate) fn retire(&self, slot: u32) -> Option<Retired> {
        let entry = self.slot(slot)?;
        let map = entry.map.swap(ptr::null_mut(), Ordering::SeqCst);
        if map.is_null() {
            return None;
        }
        // SAFETY: the pointer came from `Arc::into_raw` in `install`, and the swap took it out exactly once.
        let map = unsafe { Arc::from_raw(map) };
        Some(Retired { slot, map: ManuallyDrop::new(map) })
    }

    /// Frees a retired mapping if nobody has it pinned, else gives it back.
    pub(crate) fn reclaim(&self, retired: Retired) -> Option<Retired> {
        let pinned = self.slot(retired.slot).is_some_and(PinSlot::is_pinned);
        if pinned {
            return Some(retired);
        }
        drop(ManuallyDrop::into_inner(retired.map));
        None
    }

    /// True if anybody has something in the slot pinned.
    pub(crate) fn is_pinned(&self, slot: u32) -> bool {
        self.slot(slot).is_some_and(PinSlot::is_pinned)
    }
}

impl Drop for PinTable {
    fn drop(&mut self) {
        for slot in self.chunks.iter().filter_map(OnceLock::get).flat_map(|chunk| chunk.iter()) {
            let map = slot.map.swap(ptr::null_mut(), Ordering::AcqRel);
            if !map.is_null() {
                // SAFETY: from `Arc::into_raw`, taken out once; `&mut self` means that no `Pinned` (which
                // borrows the table) is left.
                drop(unsafe { Arc::from_raw(map) });
            }
        }
    }
}

impl fmt::Debug for PinTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PinTable").finish_non_exhaustive()
    }
}

/// One count on a slot.
struct PinGuard<'t> {
    slot: &'t PinSlot,
    shard: u8,
}

impl Clone for PinGuard<'_> {
    fn clone(&self) -> Self {
        // The count is at least one already, so the mapping cannot be freed meanwhile: no fence needed.
        self.slot.counts[self.shard as usize & (SHARDS - 1)].fetch_add(1, Ordering::Relaxed);
        PinGuard { slot: self.slot, shard: self.shard }
    }
}

impl Drop for PinGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.counts[self.shard as usize & (SHARDS - 1)].fetch_sub(1, Ordering::Release);
    }
}

/// A pinned mapping.
#[derive(Clone)]
pub(crate) struct Pinned<'t> {
    guard: PinGuard<'t>,
    map: *const LogMap,
}

// SAFETY: `map` is read only, through `&LogMap`, which is `Sync`, and lives while `guard` does (see `deref`), in whichever
// thread; `guard` is a reference to atomics.
unsafe impl Send for Pinned<'_> {}

impl<'t> Pinned<'t> {
    /// Bytes of the mapping that keep it pinned; `None` if they are not all below the watermark.
    #[inline]
    pub(crate) fn into_bytes(self, start: u64, len: u64) -> Option<PinnedBytes<'t>> {
        let bytes = ptr::from_ref(self.read(start, len)?);
        Some(PinnedBytes { guard: self.guard, bytes })
    }
}

impl Deref for Pinned<'_> {
    type Target = LogMap;

    #[inline]
    fn deref(&self) -> &LogMap {
        // SAFETY: the address was loaded after the pin; `reclaim` frees a mapping only after `retire`
        // took the address out and all counts were seen at zero, all SeqCst (see the module's docs). So it lives while `guard` does.
        unsafe { &*self.map }
    }
}

/// Bytes of a log mapping that keep it pinned.
pub(crate) struct PinnedBytes<'t> {
    guard: PinGuard<'t>,
    /// Below the mapping's watermark: mapped and immutable while pinned.
    bytes: *const [u8],
}

// SAFETY: the bytes are immutable and stay mapped while `guard` lives; `guard` is a reference to atomics.
unsafe impl Send for PinnedBytes<'_> {}
// SAFETY: as above.
unsafe impl Sync for PinnedBytes<'_> {}

impl Clone for PinnedBytes<'_> {
    fn clone(&self) -> Self {
        PinnedBytes { guard: self.guard.clone(), bytes: self.bytes }
    }
}

impl Deref for PinnedBytes<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `into_bytes` checked the range against the watermark; `guard` keeps the mapping.
        unsafe { &*self.bytes }
    }
}
