//! Everything by which threads meet: atomics, locks, threads, time. The only place that names their source.
//!
//! Normally these are the types of `std` and `parking_lot` themselves. Under `--cfg shuttle` they are
//! look-alikes whose every operation is a point at which the [shuttle](https://docs.rs/shuttle) scheduler
//! can let another thread go on, so that the tests run the code of this crate, not a copy,
//! through schedules that are chosen, printed and can be repeated.
//!
//! What that finds: every fault that shows in some interleaving of the operations. What it cannot find: faults
//! that need a weaker memory order than sequential consistency. Those are for arguments, and for the
//! tests with real threads.

mod bell;
mod hold;
mod parts;
#[cfg(not(shuttle))]
mod real;
mod shard;
#[cfg(shuttle)]
mod shuttle;

pub(crate) use bell::{Bell, Sleeper, Woken};
pub use hold::{Hold, Moment};
pub use parts::{PartOrder, PartPlan};
#[cfg(not(shuttle))]
pub(crate) use real::*;
pub(crate) use shard::{Sharded, shard};
#[cfg(shuttle)]
pub(crate) use shuttle::*;

/// Locks what is never held for long: waits for a while before it goes to sleep, because waking a thread takes far
/// longer than most holders need.
#[inline]
pub(crate) fn lock_soon<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.try_lock().unwrap_or_else(|| spin_for(mutex))
}

#[cold]
fn spin_for<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    for _ in 0..SPINS {
        spin_loop();
        if let Some(guard) = mutex.try_lock() {
            return guard;
        }
    }
    mutex.lock()
}
