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
//! Bytes of a mapping can also be **owned** ([`OwnedBytes`]): they keep the mapping by a count of its `Arc`, which is taken
//! while the mapping is pinned, and know nothing of the table. A retired mapping is let go when all counters are zero and
//! nobody else has a part of the `Arc`. From then on nobody can come by one: neither from the slot, which is empty, nor
//! from an owner.
//!
//! A slot can be given to a new mapping while the old one is still pinned by somebody: the old mapping is
//! then freed when the counters are seen to be zero, which can only be later than necessary, never earlier.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr;
use std::sync::Arc;

use super::map::{LogMap, prefetch_line};
use crate::sync::{AtomicPtr, OnceLock, Ordering, Sharded, shard};

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
    counts: Sharded,
}

impl PinSlot {
    fn is_pinned(&self) -> bool {
        self.counts.is_counted()
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
        entry.counts.of(shard).fetch_add(1, Ordering::SeqCst);
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

    /// Frees a retired mapping if nobody has it pinned or owns bytes of it, else gives it back.
    pub(crate) fn reclaim(&self, retired: Retired) -> Option<Retired> {
        // In this order: an owner that was made while the mapping was pinned is counted once the pin is seen to be gone.
        if self.slot(retired.slot).is_some_and(PinSlot::is_pinned) || Arc::strong_count(&retired.map) > 1 {
            return Some(retired);
        }
        drop(ManuallyDrop::into_inner(retired.map));
        None
    }

    /// Lets go of a mapping that was retired from this table: nobody has anything pinned any more, because pins borrow the
    /// table. Owned bytes keep the mapping by themselves.
    pub(crate) fn release(&mut self, retired: Retired) {
        drop(ManuallyDrop::into_inner(retired.map));
    }

    /// True if anybody has something in the slot pinned, or owns bytes of its mapping. `others` is how many parts of the
    /// mapping's `Arc` there are for other reasons, that of the slot not counted.
    pub(crate) fn is_held(&self, slot: u32, others: usize) -> bool {
        self.slot(slot).is_some_and(PinSlot::is_pinned)
            || self.pin(slot).is_some_and(|pinned| Arc::strong_count(&pinned.share()) > 2 + others)
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
        self.slot.counts.of(self.shard).fetch_add(1, Ordering::Relaxed);
        PinGuard { slot: self.slot, shard: self.shard }
    }
}

impl Drop for PinGuard<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.counts.of(self.shard).fetch_sub(1, Ordering::Release);
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
        let bytes = self.read(start, len)?.as_ptr();
        let len = u32::try_from(len).ok()?;
        let Pinned { guard, map } = self;
        let (slot, shard) = (guard.slot, guard.shard);
        // The count goes over to the bytes.
        std::mem::forget(guard);
        Some(PinnedBytes { slot, map, bytes, len, shard })
    }

    /// A part of the mapping's `Arc`.
    fn share(&self) -> Arc<LogMap> {
        // SAFETY: the pointer is that of `Arc::into_raw` in `install`, and the table's part of the count, in the slot or in a
        // `Retired`, is there while `guard` is (see `deref`).
        unsafe { share(self.map) }
    }
}

/// A part of the `Arc` that a pointer of `Arc::into_raw` belongs to.
///
/// # Safety
/// The pointer came from `Arc::into_raw`, and the count is at least one throughout the call.
unsafe fn share(map: *const LogMap) -> Arc<LogMap> {
    // SAFETY: promised by the caller.
    unsafe { Arc::increment_strong_count(map) };
    // SAFETY: this part of the count was just added.
    unsafe { Arc::from_raw(map) }
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

/// Bytes of a log mapping that keep it pinned. Four words: reads return them.
pub(crate) struct PinnedBytes<'t> {
    /// With `shard`: one count on the slot, as of a [`PinGuard`].
    slot: &'t PinSlot,
    map: *const LogMap,
    /// Below the mapping's watermark: mapped and immutable while pinned.
    bytes: *const u8,
    len: u32,
    shard: u8,
}

const _: () = assert!(size_of::<PinnedBytes<'_>>() == 32);

// SAFETY: the bytes are immutable and stay mapped while the count is held; `map` is read only, through `&LogMap`, which is
// `Sync`; `slot` is a reference to atomics.
unsafe impl Send for PinnedBytes<'_> {}
// SAFETY: as above.
unsafe impl Sync for PinnedBytes<'_> {}

impl PinnedBytes<'_> {
    /// The same bytes, which keep the mapping and nothing else.
    pub(crate) fn to_owned(&self) -> OwnedBytes {
        // SAFETY: as in `Pinned::share`; the count on the slot is held here.
        let map = unsafe { share(self.map) };
        OwnedBytes { _map: map, bytes: ptr::slice_from_raw_parts(self.bytes, self.len as usize) }
    }
}

impl Clone for PinnedBytes<'_> {
    fn clone(&self) -> Self {
        // The count is at least one already, as in `PinGuard::clone`.
        self.slot.counts.of(self.shard).fetch_add(1, Ordering::Relaxed);
        PinnedBytes { ..*self }
    }
}

impl Drop for PinnedBytes<'_> {
    #[inline]
    fn drop(&mut self) {
        self.slot.counts.of(self.shard).fetch_sub(1, Ordering::Release);
    }
}

impl Deref for PinnedBytes<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: `into_bytes` checked the range against the watermark; the count keeps the mapping.
        unsafe { std::slice::from_raw_parts(self.bytes, self.len as usize) }
    }
}

/// Bytes of a log mapping that keep the mapping. They outlive the table.
#[derive(Clone)]
pub(crate) struct OwnedBytes {
    /// The mapping. Only kept: lints that ask what of a map's key may change must not find its watermark.
    _map: Arc<dyn Send + Sync>,
    /// Below the mapping's watermark: mapped and immutable while `_map` lives.
    bytes: *const [u8],
}

// SAFETY: the bytes are immutable and stay mapped while `_map` lives, in whichever thread.
unsafe impl Send for OwnedBytes {}
// SAFETY: as above.
unsafe impl Sync for OwnedBytes {}

impl Deref for OwnedBytes {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: the range was checked against the watermark when it was pinned, of the mapping that `_map` keeps.
        unsafe { &*self.bytes }
    }
}
