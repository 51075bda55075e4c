//! A counter that many threads add to, in several cache lines.

use crossbeam_utils::CachePadded;

use super::{AtomicU64, Ordering};

/// A power of two. Few where schedules are explored, because a look at all of them is a point for each.
const SHARDS: usize = if cfg!(shuttle) { 2 } else { 16 };

/// The counter. Each thread adds to its own [`shard`], or takes from the one that it has added to.
#[derive(Debug, Default)]
pub(crate) struct Sharded([CachePadded<AtomicU64>; SHARDS]);

impl Sharded {
    #[inline]
    pub(crate) fn of(&self, shard: u8) -> &AtomicU64 {
        &self.0[shard as usize & (SHARDS - 1)]
    }

    /// True if a look at each shard, all SeqCst, finds one that is not zero.
    pub(crate) fn is_counted(&self) -> bool {
        self.0.iter().any(|count| count.load(Ordering::SeqCst) != 0)
    }

    /// The sum of the shards, one looked at after another.
    #[cfg(feature = "metrics")]
    pub(crate) fn sum(&self) -> u64 {
        self.0.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

/// Which shard this thread counts on.
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
