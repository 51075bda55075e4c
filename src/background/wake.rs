//! Who wakes which background thread.
//!
//! A thread without anything to do waits for its bell alone, without a deadline: an idle store wakes nobody. Two threads
//! want to know of the first append after such a rest. They say so in `resting`, which every append reads.

use std::sync::Arc;

use crate::sync::{AtomicBool, AtomicU32, Bell, Ordering};

/// The bells of the background threads.
#[derive(Debug, Default)]
pub(crate) struct Wake {
    pub(crate) segment: Bell,
    pub(crate) growth: Arc<Bell>,
    pub(crate) checkpoint: Arc<Bell>,
    pub(crate) compaction: Bell,
    pub(crate) sync: Bell,
    /// Threads that the next append is to wake, a bit each.
    resting: AtomicU32,
    stopped: AtomicBool,
}

/// A thread that the first append after a rest wakes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rester {
    Sync = 1,
    Compaction = 2,
}

impl Wake {
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
        for (rester, bell) in [(Rester::Sync, &self.sync), (Rester::Compaction, &self.compaction)] {
            if resting & rester as u32 != 0 {
                bell.ring();
            }
        }
    }

    /// From now on the next append wakes the thread. It looks at the log's end afterwards: either it sees an append of
    /// that moment there, or the append sees this, because both take the append lock in between.
    pub(crate) fn rest(&self, rester: Rester) {
        self.resting.fetch_or(rester as u32, Ordering::AcqRel);
    }

    /// All threads come to an end.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.bells().into_iter().for_each(Bell::stop);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    pub(super) fn bells(&self) -> [&Bell; 5] {
        [&self.segment, &self.growth, &self.checkpoint, &self.compaction, &self.sync]
    }
}
