//! Counters that many threads add to are kept in several cache lines; this says which of them a thread uses.

/// Shards of such a counter: a power of two. Few where schedules are explored, because a look at all of them is a point for
/// each.
pub(crate) const SHARDS: usize = if cfg!(shuttle) { 2 } else { 16 };

/// Which shard this thread counts on, below [`SHARDS`].
#[cfg(not(shuttle))]
#[inline]
pub(crate) fn shard() -> u8 {
    use std::cell::Cell;
    use std::sync::atomic::{AtomicU8, Ordering};
    static NEXT: AtomicU8 = AtomicU8::new(0);
    std::thread_local! {
        static SHARD: Cell<u8> = const { Cell::new(u8::MAX) };
    }
    let shard = SHARD.try_with(|cell| {
        let mut shard = cell.get();
        if shard == u8::MAX {
            shard = NEXT.fetch_add(1, Ordering::Relaxed) % SHARDS as u8;
            cell.set(shard);
        }
        shard
    });
    // Any shard will do for a thread that is ending.
    shard.unwrap_or(0)
}

/// Which shard this task counts on: the same whenever a schedule is repeated.
#[cfg(shuttle)]
pub(crate) fn shard() -> u8 {
    (super::task() % SHARDS) as u8
}
