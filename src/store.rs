//! The public handle. Its calls are short texts on top of the engine.
//!
//! * **key** has those from open to close, one key at a time.
//! * **many** has the calls for many keys: batches, removals, iteration.
//! * **upkeep** has those for the store as a whole: room, space, durability, figures.

// rustdoc shows the calls in this order.
mod key;
mod many;
mod upkeep;

use std::fmt::{self, Debug};
use std::path::Path;
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::options::Options;
use crate::sync::JoinHandle;

/// A persistent hash map from bytes to bytes.
///
/// The calls below are in three groups: one key, many keys, the store as a whole.
///
/// Can be shared between threads (`&Store`, or an `Arc`). Reads take no lock. What survives what is told in
/// the [crate's documentation](crate).
///
/// Dropping a store closes it as [`close`](Store::close) does, without telling of errors.
pub struct Store {
    engine: Arc<Engine>,
    /// The background threads.
    threads: Vec<JoinHandle<()>>,
}

impl Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.engine.path).field("records", &self.len()).finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the store, creating or recovering it as need be.
    ///
    /// A clean open reads a few pages; after a crash the log's tail since the last checkpoint is replayed. An open for
    /// writing marks the store as in use before it answers, which takes some syncs. It starts the store's background
    /// threads, or fails.
    ///
    /// # Errors
    /// [`Error::Locked`], [`Error::NotFound`], [`Error::AlreadyExists`], [`Error::NotAStore`],
    /// [`Error::NewerFormat`], [`Error::WrongStore`], [`Error::Corrupt`], [`Error::LostData`],
    /// [`Error::InvalidOption`], [`Error::LimitReached`], [`Error::DiskFull`], [`Error::Io`]. After an error the contents of
    /// an existing store are unchanged; a recovery that was begun may have been carried further. Where there was no store, an
    /// empty one may be left, complete or unfinished: the next open takes it.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        self.validate()?;
        Store::open_with(path.as_ref(), self)
    }
}

impl Store {
    pub(crate) fn open_with(path: &Path, options: &Options) -> Result<Store> {
        let engine = Arc::new(crate::recovery::open::open(path, options)?);
        let mut store = Store { engine, threads: Vec::new() };
        // If one cannot be started, the store is closed again: an open keeps all its promises or none.
        crate::background::start(&store.engine, &mut store.threads)?;
        Ok(store)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    fn shut_down(&mut self) -> Result<()> {
        if !self.engine.health.close() {
            return Ok(());
        }
        if let Err(forked) = self.engine.health.check_readable() {
            // The threads and the lock are the parent's.
            std::mem::forget(std::mem::take(&mut self.threads));
            let forked = Error::from(forked);
            return Err(forked);
        }
        self.engine.wake.stop();
        for thread in self.threads.drain(..) {
            // A panic in it has poisoned the store.
            let _ = thread.join();
        }
        if self.engine.health.is_read_only() {
            return Ok(());
        }
        self.engine.health.check_writable()?;
        // Leftovers of this are unlinked by the next open; they must not keep the checkpoint from running.
        let discarded = self.engine.log.discard_prepared();
        let (mut waiting, mut before) = (self.engine.log.blobs.waiting().0, u64::MAX);
        // A checkpoint takes so many of them; what cannot be unlinked waits for the next open.
        while waiting > 0 && waiting < before {
            self.engine.run_checkpoint(false)?;
            (waiting, before) = (self.engine.log.blobs.waiting().0, waiting);
        }
        self.engine.run_checkpoint(true)?;
        self.engine.publish_now();
        // Files without a name take every write and every sync, and nobody can open them again.
        if self.engine.log.disk().is_removed(&self.engine.path) {
            return Err(Error::Removed { action: "close", path: self.engine.path.clone() });
        }
        discarded
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // Errors can be had from `close`; the next open replays what the checkpoint would have covered.
        let _ = self.shut_down();
    }
}
