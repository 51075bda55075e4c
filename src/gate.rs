//! The gate through which calls that change a store pass: closing shuts it, and waits until nobody is inside.
//!
//! A call **enters**: it adds one to a counter (sharded by thread) and only then looks whether the gate is shut. The closer
//! **shuts** the gate and only then reads the counters of all shards. All four accesses are SeqCst, so they have one
//! order: either the call finds the gate shut, or the closer finds the call. A call **leaves**: it takes one from its
//! counter and only then looks whether the gate is shut; if it is, it wakes the closer, which holds the lock `waiting`
//! between its look at the counters and its wait.

use std::fmt;

use crate::mutant::{Mutant, broken, pause_if};
use crate::sync::{AtomicBool, Condvar, Mutex, Ordering, Sharded, shard};

/// Open as long as the store is.
#[derive(Default)]
pub(crate) struct Gate {
    shut: AtomicBool,
    /// Calls inside.
    inside: Sharded,
    waiting: Mutex<()>,
    left: Condvar,
}

impl Gate {
    /// Lets a call in. `None` if the gate is shut.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Pass<'_>> {
        let shard = shard();
        self.inside.of(shard).fetch_add(1, Ordering::SeqCst);
        let pass = Pass { gate: self, shard };
        if self.shut.load(Ordering::SeqCst) {
            return None;
        }
        pause_if(Mutant::ClosedBesideCalls);
        Some(pass)
    }

    /// True once it is shut.
    #[inline]
    pub(crate) fn is_shut(&self) -> bool {
        self.shut.load(Ordering::Relaxed)
    }

    /// Shuts the gate. True for the first caller.
    pub(crate) fn shut(&self) -> bool {
        !self.shut.swap(true, Ordering::SeqCst)
    }

    /// Returns when nobody is inside. The gate is shut.
    pub(crate) fn wait_until_empty(&self) {
        if broken(Mutant::ClosedBesideCalls) {
            return;
        }
        let mut waiting = self.waiting.lock();
        while self.inside.is_counted() {
            self.left.wait(&mut waiting);
        }
    }

    #[cold]
    fn wake_closer(&self) {
        // Taking the lock makes sure that a closer that has just found this call inside is waiting.
        drop(self.waiting.lock());
        self.left.notify_all();
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate").field("shut", &self.shut).finish_non_exhaustive()
    }
}

/// A call that is inside. Dropping it leaves.
#[derive(Debug)]
#[must_use]
pub(crate) struct Pass<'g> {
    gate: &'g Gate,
    shard: u8,
}

impl Drop for Pass<'_> {
    #[inline]
    fn drop(&mut self) {
        self.gate.inside.of(self.shard).fetch_sub(1, Ordering::SeqCst);
        if self.gate.shut.load(Ordering::SeqCst) {
            self.gate.wake_closer();
        }
    }
}
