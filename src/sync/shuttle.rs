//! The same names for shuttle: every operation is a scheduling point.
//!
//! The atomics are the standard library's in a transparent coat, so they can lie in mapped memory. All tasks of
//! an execution run on one thread of the system, one at a time, and can only be exchanged at a point: every
//! access happens whole, in one order that all tasks see.
//!
//! Copies of whole pages have a point for each cache line rather than each word: with 512 of them in a
//! row, the schedules would spend their changes of task on little else.

use std::fmt;
use std::ops::{Add, Deref, DerefMut};
pub(crate) use std::sync::atomic::Ordering;
use std::time::Duration;

pub(crate) use shuttle::hint::spin_loop;
use shuttle::rand::RngCore;
use shuttle::sync as model;
pub(crate) use shuttle::sync::atomic::fence;
pub(crate) use shuttle::thread::{Builder, JoinHandle, ThreadId, current, yield_now};
pub(crate) use shuttle::thread_local;

use super::parts::{PartOrder, Turns};

/// A task that tries again and again only makes schedules longer.
pub(crate) const SPINS: u32 = 0;

/// A task that sleeps lets every other one go on. Shuttle's own `sleep` is a point like any other: a task of high priority
/// that sleeps until another one is done would keep that one from it for ever.
pub(crate) fn sleep(_time: Duration) {
    yield_now();
}

/// Words of a cache line.
const LINE_WORDS: usize = 8;

/// Lets the scheduler choose which task goes on. Nothing outside an execution, so that values can be dropped
/// and printed there.
fn point() {
    if shuttle::current::try_get_current_task().is_some() {
        model::atomic::AtomicBool::new(false).load(Ordering::SeqCst);
    }
}

/// Loads one word of many, the i-th, in a copy of them all.
pub(crate) fn load_of_many(word: &AtomicU64, i: usize, order: Ordering) -> u64 {
    if i.is_multiple_of(LINE_WORDS) {
        point();
    }
    word.0.load(order)
}

/// Stores one word of many, the i-th, in a change of them all.
pub(crate) fn store_of_many(word: &AtomicU64, i: usize, value: u64, order: Ordering) {
    if i.is_multiple_of(LINE_WORDS) {
        point();
    }
    word.0.store(value, order);
}

/// Runs the parts of some work, each in a task, and returns what came of each.
pub(crate) fn in_parallel<T: Send>(parts: usize, order: PartOrder, work: impl Fn(usize) -> T + Sync) -> Vec<T> {
    if parts == 1 {
        // Also outside an execution.
        return vec![work(0)];
    }
    let turns = Turns::new(order, parts);
    let work = |part| {
        let _turn = turns.wait(part);
        work(part)
    };
    shuttle::thread::scope(|scope| {
        let work = &work;
        let spawn = |part| (part, order.has_thread(part, parts).then(|| scope.spawn(move || work(part))));
        let others: Vec<_> = (1..parts).map(spawn).collect();
        let mut results = vec![work(0)];
        results.extend(others.into_iter().map(|(part, task)| match task {
            Some(task) => task.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => work(part),
        }));
        results
    })
}

/// Parts that are worth making of some work: a scenario asks for them by its [`PartPlan`](super::PartPlan).
pub(crate) fn parts() -> usize {
    1
}

/// A number of the task that runs: the same in every repetition of a schedule.
pub(crate) fn task() -> usize {
    shuttle::current::try_get_current_task().map_or(0, usize::from)
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        #[derive(Default, bytemuck::Zeroable)]
        #[repr(transparent)]
        pub struct $name(std::sync::atomic::$name);

        impl $name {
            pub const fn new(value: $value) -> Self {
                $name(std::sync::atomic::$name::new(value))
            }

            pub fn load(&self, order: Ordering) -> $value {
                point();
                self.0.load(order)
            }

            pub fn store(&self, value: $value, order: Ordering) {
                point();
                self.0.store(value, order);
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

/// Read-modify-write operations, where the crate uses them.
macro_rules! modify {
    ($name:ident, $value:ty, $($operation:ident)*) => {
        impl $name {
            $(pub fn $operation(&self, by: $value, order: Ordering) -> $value {
                point();
                self.0.$operation(by, order)
            })*
        }
    };
}

atomic!(AtomicBool, bool);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
atomic!(AtomicI64, i64);
modify!(AtomicBool, bool, swap);
modify!(AtomicU32, u32, swap fetch_add fetch_sub fetch_or fetch_and);
modify!(AtomicU64, u64, swap fetch_add fetch_sub fetch_or fetch_and fetch_max);
modify!(AtomicI64, i64, fetch_add fetch_sub);

impl AtomicU64 {
    pub fn compare_exchange(&self, old: u64, new: u64, success: Ordering, failure: Ordering) -> Result<u64, u64> {
        point();
        self.0.compare_exchange(old, new, success, failure)
    }

    pub fn fetch_update(
        &self,
        set: Ordering,
        fetch: Ordering,
        mut update: impl FnMut(u64) -> Option<u64>,
    ) -> Result<u64, u64> {
        // As the real one: others can come between load and exchange.
        let mut old = self.load(fetch);
        while let Some(new) = update(old) {
            match self.compare_exchange(old, new, set, fetch) {
                Ok(old) => return Ok(old),
                Err(other) => old = other,
            }
        }
        Err(old)
    }
}

pub struct AtomicPtr<T>(std::sync::atomic::AtomicPtr<T>);

impl<T> AtomicPtr<T> {
    pub fn load(&self, order: Ordering) -> *mut T {
        point();
        self.0.load(order)
    }

    pub fn store(&self, new: *mut T, order: Ordering) {
        point();
        self.0.store(new, order);
    }

    pub fn swap(&self, new: *mut T, order: Ordering) -> *mut T {
        point();
        self.0.swap(new, order)
    }
}

impl<T> Default for AtomicPtr<T> {
    fn default() -> Self {
        AtomicPtr(std::sync::atomic::AtomicPtr::default())
    }
}

/// A mutex in parking_lot's shape.
#[derive(Debug, Default)]
pub struct Mutex<T>(model::Mutex<T>);

/// A held [`Mutex`].
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    mutex: &'a model::Mutex<T>,
    /// `None` only while a [`Condvar`] waits.
    held: Option<model::MutexGuard<'a, T>>,
}

/// Poisoned means that a task has panicked: the test has failed already.
fn whole<G>(result: model::LockResult<G>) -> G {
    result.unwrap_or_else(model::PoisonError::into_inner)
}

impl<T> Mutex<T> {
    pub(crate) const fn new(value: T) -> Self {
        Mutex(model::Mutex::new(value))
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
        MutexGuard { mutex: &self.0, held: Some(whole(self.0.lock())) }
    }

    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        let held = match self.0.try_lock() {
            Ok(held) => held,
            Err(model::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(model::TryLockError::WouldBlock) => return None,
        };
        Some(MutexGuard { mutex: &self.0, held: Some(held) })
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.held.as_deref().expect("held")
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        self.held.as_deref_mut().expect("held")
    }
}

/// A condition variable in parking_lot's shape.
#[derive(Debug)]
pub struct Condvar(model::Condvar);

/// How a wait with a limit ended.
pub(crate) struct WaitTimeoutResult(bool);

impl WaitTimeoutResult {
    pub(crate) fn timed_out(&self) -> bool {
        self.0
    }
}

impl Default for Condvar {
    fn default() -> Self {
        Condvar::new()
    }
}

impl Condvar {
    pub(crate) const fn new() -> Self {
        Condvar(model::Condvar::new())
    }

    pub(crate) fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        let held = guard.held.take().expect("held");
        guard.held = Some(whole(self.0.wait(held)));
    }

    /// Either waits until it is notified, however long that takes, or comes back after the others had a chance
    /// to run, as if time were over: the schedule's random numbers choose.
    pub(crate) fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, _until: Instant) -> WaitTimeoutResult {
        let for_ever = shuttle::rand::thread_rng().next_u32().is_multiple_of(2);
        if for_ever {
            self.wait(guard);
        } else {
            guard.held = None;
            yield_now();
            guard.held = Some(whole(guard.mutex.lock()));
        }
        WaitTimeoutResult(!for_ever)
    }

    pub(crate) fn notify_all(&self) {
        self.0.notify_all();
    }
}

/// A cell that is written once. Looking at it is a scheduling point; making the value is none.
#[derive(Debug)]
pub struct OnceLock<T>(std::sync::OnceLock<T>);

impl<T> Default for OnceLock<T> {
    fn default() -> Self {
        OnceLock::new()
    }
}

impl<T> OnceLock<T> {
    pub(crate) const fn new() -> Self {
        OnceLock(std::sync::OnceLock::new())
    }

    pub(crate) fn get(&self) -> Option<&T> {
        point();
        self.0.get()
    }

    pub(crate) fn set(&self, value: T) -> Result<(), T> {
        point();
        self.0.set(value)
    }

    pub(crate) fn get_or_init(&self, make: impl FnOnce() -> T) -> &T {
        point();
        self.0.get_or_init(make)
    }
}

/// A time in scheduling points since the execution began, a microsecond each: the same in every repetition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instant(Duration);

impl Instant {
    pub(crate) fn now() -> Self {
        let inside = shuttle::current::try_get_current_task().is_some();
        let points = if inside { shuttle::current::context_switches() } else { 0 };
        Instant(Duration::from_micros(points as u64))
    }

    pub(crate) fn elapsed(&self) -> Duration {
        Instant::now().0.saturating_sub(self.0)
    }

    pub(crate) fn checked_add(&self, duration: Duration) -> Option<Instant> {
        self.0.checked_add(duration).map(Instant)
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, duration: Duration) -> Instant {
        Instant(self.0 + duration)
    }
}
