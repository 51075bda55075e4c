//! The types of a normal build: no wrapper, no cost.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::thread::{Builder, JoinHandle, sleep, yield_now};
pub(crate) use std::thread_local;
pub(crate) use std::time::Instant;

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

/// How often a lock is tried before a thread goes to sleep for it: some ten microseconds, the evacuation of a page.
pub(crate) const SPINS: u32 = 500;

/// Loads one word of many, the i-th, in a copy of them all.
#[inline(always)]
pub(crate) fn load_of_many(word: &AtomicU64, _i: usize, order: Ordering) -> u64 {
    word.load(order)
}

/// Stores one word of many, the i-th, in a change of them all.
#[inline(always)]
pub(crate) fn store_of_many(word: &AtomicU64, _i: usize, value: u64, order: Ordering) {
    word.store(value, order);
}
