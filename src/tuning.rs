//! When writes are synced, and the constants of the engine.

use std::time::Duration;

use crate::log::blob::FREED_MAX;
use crate::sync::{Hold, Moment, PartPlan};

/// When writes are made safe against power loss. (Against the death of the process every write is safe as
/// soon as the call returns, whatever the policy.)
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SyncPolicy {
    /// Every writing call returns after its record is durable. Concurrent writers share one fdatasync. (A call whose name ends
    /// with `_async` returns before, under each policy: its future waits.)
    Always,
    /// A background thread syncs at this interval while there is something to sync. Power loss can take the
    /// writes of about the last interval, and those made during a sync; what is left is a prefix of the writes. An interval
    /// of zero is [`Error::InvalidOption`](crate::Error::InvalidOption).
    Every(Duration),
    /// Only [`Store::sync`](crate::Store::sync), [`Store::checkpoint`](crate::Store::checkpoint), automatic checkpoints and [`Store::close`](crate::Store::close) sync.
    Manual,
}

impl Default for SyncPolicy {
    /// `Every(100 ms)`.
    fn default() -> Self {
        SyncPolicy::Every(Duration::from_millis(100))
    }
}

/// Constants that tests make tiny, so that growth, overflow, segment switches and checkpoints happen all the
/// time. Not part of the public interface: no promise covers them.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Tuning {
    /// log2 of the number of primary pages of a new store.
    pub level_min: u8,
    /// Home buckets of a page, at least 2.
    pub home_buckets: u8,
    /// Stash buckets of a page; with the home buckets at most 63.
    pub stash_buckets: u8,
    /// Growth starts when the live slots exceed this many thousandths of all primary slots.
    pub grow_permille: u32,
    /// Primary pages below which writers begin the table's growth themselves, although there is a resize job.
    pub tiny_pages: u64,
    /// The table shrinks when fewer live slots than this many thousandths of the slots of half its pages are
    /// left; 0 for never.
    pub shrink_permille: u32,
    /// log2 of the number of overflow pages in the first overflow extent.
    pub overflow_log2_min: u8,
    /// An insert that finds a chain of this many overflow pages full helps growth along.
    pub chain_help: u32,
    /// Keys of a page (in thousandths of its slots) past which `remove_many` leaves tombstones instead of repairing
    /// paths one by one.
    pub large_part_permille: u32,
    /// Tombstones of a page (in thousandths of its slots) past which that call then rewrites the page in place.
    pub rewrite_permille: u32,
    /// Values larger than this go to a blob file of their own.
    pub blob_bytes_min: u64,
    /// Freed blobs that a checkpoint lists at the most, as if the meta pages had no room for more.
    pub listed_blobs_max: usize,
    /// Bytes of expired large values that are worth the work while others write.
    pub expired_large_bytes: u64,
    /// Frames of that many bytes and more are written to the file of the active segment, not through its mapping.
    pub written_bytes_min: u64,
    /// False: no background threads; whatever they would do happens in the calls that need it.
    pub background: bool,
    /// log2 of the largest number of lock stripes.
    pub stripes_log2_max: u8,
    /// Log bytes that only removals may use while no further segment can be prepared.
    pub reserve_bytes: u64,
    /// The journal grows and shrinks by this many page images, and keeps room for so many.
    pub journal_step: u64,
    /// Hash key of a new store, for reproducible tests; random if none.
    pub hash_key: Option<(u64, u64)>,
    /// One in so many questions for a page is answered with a shortage, and before each next attempt there is a checkpoint;
    /// 0: none is. At least 3, or no attempt of several pages ever succeeds.
    pub shortages: u32,
    /// Parts in which a recovery replays the log's tail, and when each begins.
    pub parts: PartPlan,
    /// Where a thread of the background is held.
    pub hold: Option<&'static Hold>,
}

impl Tuning {
    /// A thread has come to a moment at which a test can hold it. It holds no lock.
    #[inline]
    pub(crate) fn pass(&self, moment: Moment) {
        if let Some(hold) = self.hold {
            hold.pass(moment);
        }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            level_min: 1,
            home_buckets: 60,
            stash_buckets: 3,
            grow_permille: 820,
            tiny_pages: 16,
            shrink_permille: 410,
            overflow_log2_min: 4,
            chain_help: 2,
            large_part_permille: 125,
            rewrite_permille: 0,
            blob_bytes_min: 256 << 10,
            listed_blobs_max: FREED_MAX,
            expired_large_bytes: 1 << 20,
            written_bytes_min: 32 << 10,
            background: true,
            stripes_log2_max: 10,
            reserve_bytes: 32 << 10,
            journal_step: 64,
            hash_key: None,
            shortages: 0,
            parts: PartPlan::default(),
            hold: None,
        }
    }
}
