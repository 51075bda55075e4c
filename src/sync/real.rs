//! The types of a normal build: no wrapper, no cost.

pub(crate) use std::hint::spin_loop;
pub(crate) use std::sync::OnceLock;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU32, AtomicU64, Ordering, fence};
pub(crate) use std::thread::{Builder, JoinHandle, ThreadId, current, sleep, yield_now};
pub(crate) use std::thread_local;
pub(crate) use std::time::Instant;

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};

use super::parts::{PartOrder, Turns};

/// How often a lock is tried before a thread goes to sleep for it: some ten microseconds, the evacuation of a page.
pub(crate) const SPINS: u32 = 500;

/// Runs the parts of some work, at the same time if there are threads for it, and returns what came of each.
pub(crate) fn in_parallel<T: Send>(parts: usize, order: PartOrder, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let turns = Turns::new(order, parts);
    let work = |part| {
        let _turn = turns.wait(part);
        work(part)
    };
    std::thread::scope(|scope| {
        let work = &work;
        let spawn = |part| {
            let thread = Builder::new().name("tophash-part".into());
            let refused = || Err(std::io::ErrorKind::WouldBlock.into());
            let has_thread = order.has_thread(part, parts);
            (part, if has_thread { thread.spawn_scoped(scope, move || work(part)) } else { refused() })
        };
        let others: Vec<_> = (1..parts).map(spawn).collect();
        let mut results = vec![work(0)];
        results.extend(others.into_iter().map(|(part, thread)| match thread {
            Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            // No thread can be had.
            Err(_) => work(part),
        }));
        results
    })
}

/// Parts that are worth making of some work.
pub(crate) fn parts() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

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
