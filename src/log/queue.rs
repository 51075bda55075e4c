//! The queue of the segments that wait to become the active one.

use std::collections::VecDeque;

use super::appender::Prepared;
use crate::sync::{AtomicU32, Mutex, MutexGuard, Ordering};

/// The segments that wait, the next one first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// Held while a segment is prepared or discarded: one at a time.
    preparing: Mutex<()>,
    waiting: Mutex<VecDeque<Prepared>>,
    /// Length of `waiting`, readable without its lock.
    count: AtomicU32,
}

impl Queue {
    /// Lets nobody else prepare or discard one meanwhile.
    pub(super) fn alone(&self) -> MutexGuard<'_, ()> {
        self.preparing.lock()
    }

    /// Changes the queue.
    pub(super) fn change<T>(&self, work: impl FnOnce(&mut VecDeque<Prepared>) -> T) -> T {
        let mut waiting = self.waiting.lock();
        let result = work(&mut waiting);
        self.count.store(waiting.len() as u32, Ordering::Release);
        result
    }

    /// Looks at the next one, if there is one.
    pub(super) fn next<T>(&self, look: impl FnOnce(&Prepared) -> T) -> Option<T> {
        self.waiting.lock().front().map(look)
    }

    /// Takes the next one, if it is as it should be.
    pub(super) fn take_if(&self, will_do: impl FnOnce(&Prepared) -> bool) -> Option<Prepared> {
        self.change(|waiting| if waiting.front().is_some_and(will_do) { waiting.pop_front() } else { None })
    }

    /// How many wait.
    #[inline]
    pub(super) fn count(&self) -> u32 {
        self.count.load(Ordering::Acquire)
    }

    /// Bytes of their files.
    pub(super) fn bytes(&self) -> u64 {
        self.waiting.lock().iter().map(|prepared| prepared.segment.capacity()).sum()
    }
}
