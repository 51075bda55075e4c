//! How much memory a recovery takes. A test binary of its own, because its allocator counts.
//!
//! A recovery listed the changes of the whole tail. In a control group of 128 MiB a writer lived, and after it was killed every
//! open was killed for want of memory. The tail is replayed in pieces that `memory_bytes` bounds.

#[allow(dead_code, reason = "another test is refused memory")]
#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::path::Path;

use allocator::Counting;
use common::{copy_store, scratch};
use tophash::{Options, SyncPolicy};

#[global_allocator]
static ALLOCATOR: Counting = Counting::up_to(usize::MAX);

/// Opens a store with a tail of so many records, for reading and for writing. Returns what the opens took at the most.
fn recovered(dir: &Path, records: u64, memory_bytes: u64) -> [usize; 2] {
    let (path, copy) = (dir.join(format!("{records}")), dir.join(format!("{records}, killed")));
    let options = Options::new().sync(SyncPolicy::Manual).checkpoint_bytes(1 << 30);
    let store = options.open(&path).unwrap();
    (0..records).for_each(|n| drop(store.insert(n.to_le_bytes(), "value").unwrap()));
    copy_store(&path, &copy);
    store.close().unwrap();
    [true, false].map(|read_only| {
        ALLOCATOR.begin();
        let store = options.clone().memory_bytes(memory_bytes).read_only(read_only).open(&copy).unwrap();
        assert_eq!((store.len(), store.stats().recovery.replayed_records), (records, records));
        drop(store);
        ALLOCATOR.peak()
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
