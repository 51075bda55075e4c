//! Closing a store, for all of its handles.
//!
//! 1. The gate is shut (gate.rs). From here on every call that begins, and every read that has not ended, is refused with
//!    `Closed`.
//! 2. The calls that the gate has let in end: each has published what it appended, or failed. From here on only the closer
//!    and the background threads change the store.
//! 3. The background threads are stopped and joined. From here on only the closer does.
//! 4. Prepared segments are unlinked. Checkpoints run until no freed blob waits, and the last one, whose cut lies behind
//!    every record, marks the store as closed cleanly. *Crash before that is durable:* the next open recovers, as after
//!    any crash. *Error:* the same.
//! 5. The locks are given back, whatever came of step 4, a panic included: the store can be opened again, by this process too. Descriptors
//!    and mappings stay until the last handle is dropped, because values are read through them. The closed engine changes
//!    no file from here on.
//! 6. The waits for a sync end (awaited.rs): with `Ok` where they are durable by now. No lock is held, because their wakers
//!    are code of the caller.
//!
//! A write that returned `Ok` was inside the gate, so step 2 covers it. The clean mark would lie about any later append:
//! the next open takes the log's end from the checkpoint, and would write over it.
//!
//! Reads pass no gate. A read that overlaps step 5 can see pages of the index file that the next opener has written,
//! because clean pages of a private mapping follow the file. So each read looks at the gate once more after its last
//! look at the index: if the gate is open then, step 1 had not been taken, and nothing was seen of a later step.
//!
//! In a child made by `fork`, nothing of this happens: threads, locks and files are its parent's.

use super::Owner;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::sync::{JoinHandle, MutexGuard, current};

/// Steps 5 and 6, which come whatever becomes of step 4, a panic included.
struct Ending<'o> {
    engine: &'o Engine,
    threads: Option<MutexGuard<'o, Vec<JoinHandle<()>>>>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let engine = self.engine;
        engine.unlock();
        self.threads = None;
        engine.awaited.close(engine.log.durable_lsn(), engine.health.poisoned());
    }
}

impl Owner {
    /// Carries out the steps above. A second caller waits for the first, and is told `Closed`; a waker that the syncing thread
    /// calls does not wait, because the first closer may wait for that thread.
    pub(super) fn shut_down(&self) -> Result<()> {
        let engine = &*self.engine;
        engine.health.check_owner()?;
        let threads = self.lock_threads()?;
        engine.health.close()?;
        let mut ending = Ending { engine, threads: Some(threads) };
        engine.wake.stop();
        // A waker that closes the store runs in the syncing thread, which ends when the waker returns.
        let this = current().id();
        let others = ending.threads.iter_mut().flat_map(|threads| threads.drain(..));
        for thread in others.filter(|thread| thread.thread().id() != this) {
            // A panic in it has poisoned the store.
            let _ = thread.join();
        }
        if engine.health.is_read_only() { Ok(()) } else { self.finish() }
    }

    /// Locks the threads, which one closer holds until the store is closed.
    fn lock_threads(&self) -> Result<MutexGuard<'_, Vec<JoinHandle<()>>>> {
        let engine = &*self.engine;
        if !engine.wake.is_syncing_thread() {
            return Ok(self.threads.lock());
        }
        loop {
            if let Some(threads) = self.threads.try_lock() {
                return Ok(threads);
            }
            // Shut by the closer that holds the lock, or soon to be; or a call has it that starts this very thread.
            engine.health.check_open()?;
            crate::sync::yield_now();
        }
    }

    /// Step 4.
    fn finish(&self) -> Result<()> {
        let engine = &*self.engine;
        engine.health.check_writable()?;
        // Leftovers of this are unlinked by the next open; they must not keep the checkpoint from running.
        let discarded = engine.log.discard_prepared();
        let (mut waiting, mut before) = (engine.log.freed_blobs().0, u64::MAX);
        // A checkpoint takes so many of them; what cannot be unlinked waits for the next open.
        while waiting > 0 && waiting < before {
            engine.run_checkpoint(false)?;
            (waiting, before) = (engine.log.freed_blobs().0, waiting);
        }
        engine.run_checkpoint(true)?;
        engine.publish_now();
        // Files without a name take every write and every sync, and nobody can open them again.
        if engine.log.disk().is_removed(&engine.path) {
            return Err(Error::Removed { action: "close", path: engine.path.clone() });
        }
        discarded
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if self.engine.health.check_owner().is_err() {
            // They are the parent's, which may have been closing the store when it forked.
            if let Some(mut threads) = self.threads.try_lock() {
                std::mem::forget(std::mem::take(&mut *threads));
            }
            return;
        }
        // Errors can be had from `close`; the next open replays what the checkpoint would have covered.
        let _ = self.shut_down();
    }
}
