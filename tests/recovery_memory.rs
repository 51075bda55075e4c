//! How much memory a recovery takes. A test binary of its own, because its allocator counts.
//!
//! A recovery listed the changes of the whole tail. In a control group of 128 MiB a writer lived, and after it was killed every
//! open was killed for want of memory. The tail is replayed in pieces that `memory_bytes` bounds.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::path::Path;

use common::{copy_store, scratch};
use tophash::{Options, SyncPolicy};

/// Counts what each thread has in use.
struct Counting;

thread_local! {
    static NOW: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(more: usize, less: usize) {
    // The thread's cells may be gone already when it ends; what happens then is not counted.
    let _ = NOW.try_with(|now| {
        now.set(now.get() + more as isize - less as isize);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(now.get())));
    });
}

// SAFETY: every call goes to the system's allocator with the same arguments; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size, layout.size());
        // SAFETY: the caller's promise.
        unsafe { System.realloc(memory, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most bytes in use at once while work is done, beyond what was in use before.
fn peak(work: impl FnOnce()) -> usize {
    let before = NOW.get();
    PEAK.set(before);
    work();
    usize::try_from(PEAK.get() - before).unwrap()
}

/// Opens a store with a tail of so many records, for reading and for writing. Returns what the opens took at the most.
fn recovered(dir: &Path, records: u64, memory_bytes: u64) -> [usize; 2] {
    let (path, copy) = (dir.join(format!("{records}")), dir.join(format!("{records}, killed")));
    let options = Options::new().sync(SyncPolicy::Manual).checkpoint_bytes(1 << 30);
    let store = options.open(&path).unwrap();
    (0..records).for_each(|n| drop(store.insert(n.to_le_bytes(), "value").unwrap()));
    copy_store(&path, &copy);
    store.close().unwrap();
    [true, false].map(|read_only| {
        peak(|| {
            let store = options.clone().memory_bytes(memory_bytes).read_only(read_only).open(&copy).unwrap();
            assert_eq!((store.len(), store.stats().recovery.replayed_records), (records, records));
        })
    })
}

#[test]
fn a_recovery_takes_no_more_memory_for_a_longer_tail() {
    let dir = scratch();
    let (short, long) = (recovered(dir.path(), 20_000, 256 << 10), recovered(dir.path(), 80_000, 256 << 10));
    for (short, long) in short.into_iter().zip(long) {
        // Of each page of the index eight bytes are known, of each segment two kilobytes.
        assert!(long < short + (512 << 10), "{short} bytes for a short tail, {long} for a long one");
    }
}
