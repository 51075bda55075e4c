//! Who wakes which background thread.
//!
//! A thread without anything to do waits for its bells alone, without a deadline: an idle store wakes nobody. Two jobs want
//! to know of the first append after such a rest. They say so in `resting`, which every append reads.

use std::sync::Arc;

use crate::sync::{AtomicBool, AtomicU32, Bell, OnceLock, Ordering, Sleeper, ThreadId, current};

/// The bells of the background jobs, and the sleepers of the threads that do them.
#[derive(Debug)]
pub(crate) struct Wake {
    pub(crate) segment: Bell,
    pub(crate) growth: Bell,
    pub(crate) checkpoint: Bell,
    pub(crate) compaction: Bell,
    /// Of the syncing thread: for what calls have asked, and for the first append after a rest.
    pub(crate) awaited: Bell,
    sync: Bell,
    /// Of the worker that does what writers would wait for, and of the one that gives space back.
    pub(super) ahead: Arc<Sleeper>,
    pub(super) behind: Arc<Sleeper>,
    pub(super) ticker: Arc<Sleeper>,
    /// The bits of the jobs that the next append is to wake.
    resting: AtomicU32,
    /// The syncing thread was started.
    syncing: AtomicBool,
    /// Which one it is, once it runs.
    syncing_thread: OnceLock<ThreadId>,
}

/// The bits of the jobs.
pub(super) mod bit {
    pub(in crate::background) const PREPARE: u32 = 1;
    pub(in crate::background) const RESIZE: u32 = 1 << 1;
    pub(in crate::background) const CHECKPOINT: u32 = 1 << 2;
    pub(in crate::background) const COMPACT: u32 = 1 << 3;
    pub(in crate::background) const SYNC: u32 = 1 << 4;
    pub(in crate::background) const AWAITED: u32 = 1 << 5;
}

impl Wake {
    pub(crate) fn new() -> Self {
        let [ahead, behind, ticker] = [(); 3].map(|()| Arc::<Sleeper>::default());
        Wake {
            segment: ahead.bell(bit::PREPARE),
            growth: ahead.bell(bit::RESIZE),
            checkpoint: behind.bell(bit::CHECKPOINT),
            compaction: behind.bell(bit::COMPACT),
            awaited: ticker.bell(bit::AWAITED),
            sync: ticker.bell(bit::SYNC),
            ahead,
            behind,
            ticker,
            resting: AtomicU32::new(0),
            syncing: AtomicBool::new(false),
            syncing_thread: OnceLock::new(),
        }
    }

    /// Something was appended.
    #[inline]
    pub(crate) fn appended(&self) {
        if self.resting.load(Ordering::Relaxed) != 0 {
            self.end_rest();
        }
    }

    #[cold]
    fn end_rest(&self) {
        let resting = self.resting.swap(0, Ordering::AcqRel);
        for (job, bell) in [(bit::SYNC, &self.sync), (bit::COMPACT, &self.compaction)] {
            if resting & job != 0 {
                bell.ring();
            }
        }
    }

    /// From now on the next append wakes the job. It looks at the log's end afterwards: either it sees an append of
    /// that moment there, or the append sees this, because both take the append lock in between.
    ///
    /// Only `SYNC` and `COMPACT` have anything to see there.
    pub(super) fn rest(&self, job: u32) {
        debug_assert!(job == bit::SYNC || job == bit::COMPACT);
        self.resting.fetch_or(job, Ordering::AcqRel);
    }

    /// True if the syncing thread was started.
    #[inline]
    pub(crate) fn is_syncing(&self) -> bool {
        self.syncing.load(Ordering::Acquire)
    }

    /// The caller is the syncing thread.
    pub(super) fn note_syncing_thread(&self) {
        // One of each store.
        let _ = self.syncing_thread.set(current().id());
    }

    /// True for the syncing thread itself: a waker runs in it.
    pub(crate) fn is_syncing_thread(&self) -> bool {
        self.syncing_thread.get().is_some_and(|&thread| thread == current().id())
    }

    /// Notes that it was.
    pub(super) fn set_syncing(&self) {
        self.syncing.store(true, Ordering::Release);
    }

    /// All threads come to an end.
    pub(crate) fn stop(&self) {
        self.sleepers().into_iter().for_each(Sleeper::stop);
    }

    pub(super) fn sleepers(&self) -> [&Sleeper; 3] {
        [&self.ahead, &self.behind, &self.ticker]
    }
}
