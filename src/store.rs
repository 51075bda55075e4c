//! The public handle. Its calls are short texts on top of the engine.

use std::fmt::{self, Debug};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use crate::batch::Batch;
use crate::cursor::Cursor;
use crate::engine::Engine;
use crate::engine::scan::Entries;
use crate::engine::write::{Expect, New};
use crate::error::{Error, Result};
use crate::iter::{Iter, Keys, Values};
use crate::observe::Timed;
use crate::options::Options;
use crate::progress::Progress;
use crate::stats::{CompactionReport, Stats};
use crate::sync::JoinHandle;
use crate::value::Value;

/// A persistent hash map from bytes to bytes.
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
    /// [`Error::InvalidOption`], [`Error::DiskFull`], [`Error::Io`]. After an error nothing was changed,
    /// except that an interrupted recovery may have been carried further.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        self.validate()?;
        Store::open_with(path.as_ref(), self)
    }
}

impl Store {
    /// Opens the store at a path with the default [`Options`], creating it if there is none.
    ///
    /// # Errors
    /// Those of [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Store> {
        Options::new().open(path)
    }

    pub(crate) fn open_with(path: &Path, options: &Options) -> Result<Store> {
        let engine = Arc::new(crate::recovery::open::open(path, options)?);
        let mut store = Store { engine, threads: Vec::new() };
        // If one cannot be started, the store is closed again: an open keeps all its promises or none.
        crate::background::start(&store.engine, &mut store.threads)?;
        Ok(store)
    }

    /// The value of a key, without a copy. Takes no lock; about two dependent memory accesses.
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the record (or one that could be the key's) does not match its checksum; [`Error::Forked`].
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let key = key.as_ref();
        let _timer = self.engine.observer.sample(Timed::Get);
        Ok(self.engine.get_placed(key, self.engine.hasher.hash(key))?.map(|(_, value)| value))
    }

    /// The values of many keys, in their order. Two to three times as fast per key as [`get`](Store::get),
    /// because the memory accesses of different keys overlap.
    ///
    /// # Errors
    /// As [`get`](Store::get); the first error ends the call.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value<'_>>>> {
        Ok(self.engine.get_many(keys)?)
    }

    /// True if the key is in the store. Reads and checks the record's key, not a blob's value.
    ///
    /// # Errors
    /// As [`get`](Store::get).
    #[inline]
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        Ok(self.engine.find(key, self.engine.hasher.hash(key))?.is_some())
    }

    /// Sets a key to a value; returns the value that it had before.
    ///
    /// After a crash the key has the new value or the old one, never a mixture; the new one for certain if
    /// only the process died after the call returned, or if the write was synced. A value of more than
    /// 256 KiB goes to a file of its own, which is synced in this call, whatever the policy.
    ///
    /// # Errors
    /// [`Error::KeyTooLong`] (65,535 bytes), [`Error::ValueTooLong`] (4,294,967,295 bytes),
    /// [`Error::DiskFull`], [`Error::ReadOnly`], [`Error::Poisoned`], [`Error::Forked`], and those of
    /// [`get`](Store::get): a damaged record is not overwritten. After an error nothing has changed, except
    /// that a failed sync leaves open whether the change is durable.
    #[inline]
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let key = key.as_ref();
        let hash = self.engine.hasher.hash(key);
        let changed = self.engine.change(key, hash, New::Put(value.as_ref()), Expect::Anything, false)?;
        self.engine.previous_value(changed)
    }

    /// Removes a key; returns the value that it had. Writes nothing if the key is not there.
    ///
    /// # Errors
    /// As [`insert`](Store::insert). On a full disk removals go on from a reserve, for a while.
    #[inline]
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let key = key.as_ref();
        let changed = self.engine.change(key, self.engine.hasher.hash(key), New::Remove, Expect::Anything, false)?;
        self.engine.previous_value(changed)
    }

    /// Changes a key only if it has the expected value (`None`: is absent). `new` is the new value, `None` to
    /// remove the key.
    ///
    /// Returns `Ok(Err(value))` with what was there instead, and changes nothing then.
    ///
    /// # Errors
    /// As [`insert`](Store::insert).
    pub fn compare_exchange(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<std::result::Result<(), Option<Value<'_>>>> {
        let key = key.as_ref();
        let hash = self.engine.hasher.hash(key);
        let new = new.map_or(New::Remove, New::Put);
        loop {
            // The comparison happens outside all locks; the place stands for the value that was compared,
            // and cannot be recycled while `current` is held.
            let current = self.engine.get_placed(key, hash)?;
            let expect = match (&current, expected) {
                (Some((place, value)), Some(expected)) if **value == *expected => Expect::At(*place),
                (None, None) => Expect::Absent,
                _ => return Ok(Err(current.map(|(_, value)| value))),
            };
            if matches!((expect, new), (Expect::Absent, New::Remove)) {
                return Ok(Ok(()));
            }
            if self.engine.change(key, hash, new, expect, false)?.done {
                return Ok(Ok(()));
            }
        }
    }

    /// Replaces a key's value by a function of it. `change` gets the value (`None` if absent) and returns the
    /// new one (`None` to remove the key). Returns the new value.
    ///
    /// No lock is held while `change` runs; if another writer was faster, it runs again.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s")).unwrap();
    /// let count = |old: Option<&[u8]>| {
    ///     let old = old.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    ///     Some((old + 1).to_le_bytes().to_vec())
    /// };
    /// store.update("hits", count)?;
    /// store.update("hits", count)?;
    /// assert_eq!(store.get("hits")?.unwrap(), &2u64.to_le_bytes()[..]);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Store::insert).
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Value<'_>>> {
        let key = key.as_ref();
        let hash = self.engine.hasher.hash(key);
        loop {
            let current = self.engine.get_placed(key, hash)?;
            let expect = current.as_ref().map_or(Expect::Absent, |(place, _)| Expect::At(*place));
            let Some(new) = change(current.as_ref().map(|(_, value)| &**value)) else {
                if current.is_none() || self.engine.change(key, hash, New::Remove, expect, false)?.done {
                    return Ok(None);
                }
                continue;
            };
            let changed = self.engine.change(key, hash, New::Put(&new), expect, true)?;
            if changed.done {
                return self.engine.stored_value(changed);
            }
        }
    }

    /// The value of a key; if it is absent, it is first set to what `make` returns. No lock is held while
    /// `make` runs. If another writer is faster, its value is returned and the made one dropped.
    ///
    /// # Errors
    /// As [`insert`](Store::insert).
    pub fn get_or_insert_with<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        make: impl FnOnce() -> V,
    ) -> Result<Value<'_>> {
        let key = key.as_ref();
        let hash = self.engine.hasher.hash(key);
        if let Some((_, value)) = self.engine.get_placed(key, hash)? {
            return Ok(value);
        }
        let made = make();
        loop {
            let changed = self.engine.change(key, hash, New::Put(made.as_ref()), Expect::Absent, true)?;
            let value = if changed.done {
                self.engine.stored_value(changed)?
            } else {
                self.engine.get_placed(key, hash)?.map(|(_, value)| value)
            };
            // There, and removed again by the time of the second look: try once more.
            if let Some(value) = value {
                return Ok(value);
            }
        }
    }

    /// Applies a batch: after any crash all of it is there or nothing. For readers it is atomic per key, not
    /// across keys.
    ///
    /// # Errors
    /// As [`insert`](Store::insert), and [`Error::BatchTooLarge`] (about 1 GiB of keys and small values).
    /// After an error nothing of the batch has been applied.
    pub fn apply(&self, batch: &Batch) -> Result<()> {
        self.engine.apply(batch)
    }

    /// Removes many keys; returns how many were there. Works page by page, with one append and one lock per
    /// page: faster than single removals, and tidier. Not atomic: a crash can keep the removals of some
    /// pages and lose those of others.
    ///
    /// # Errors
    /// As [`remove`](Store::remove); what was removed before the error stays removed.
    pub fn remove_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<u64> {
        self.engine.remove_many(keys)
    }

    /// Removes everything. One record in the log; after a crash everything is there or nothing.
    ///
    /// Holds all writers for a time proportional to the pages of the table (about 1 µs a page).
    ///
    /// # Errors
    /// As [`remove`](Store::remove).
    pub fn clear(&self) -> Result<()> {
        self.engine.clear()
    }

    /// All entries, in no useful order. Each key that is present throughout is seen exactly once, growth or
    /// not; keys that come or go meanwhile may be seen or not. Writers are not held up.
    ///
    /// # Errors
    /// Each item can be [`Error::Corrupt`]: a damaged record, or a damaged page of the index, which hides the keys of
    /// a range of cursors that the error names. Iteration goes on with the next record or page, so every key that is
    /// whole is seen. Whoever passes over an error passes over the keys in it. An error that is no damage, and that
    /// every further page would have too ([`Error::Forked`]), is the last item.
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(&self.engine)
    }

    /// All keys, as [`iter`](Store::iter), without touching values in blob files.
    ///
    /// # Errors
    /// As [`iter`](Store::iter).
    pub fn keys(&self) -> Keys<'_> {
        Keys::new(&self.engine)
    }

    /// All values, as [`iter`](Store::iter).
    ///
    /// # Errors
    /// As [`iter`](Store::iter).
    pub fn values(&self) -> Values<'_> {
        Values::new(&self.engine)
    }

    /// A piece of an iteration that can be resumed at any time, also after the store was closed and opened:
    /// up to `limit` entries at or after `cursor`, and the cursor to go on from (`None` at the end). Begin
    /// with [`Cursor::START`]. A few more than `limit` come if keys have equal 64-bit hashes.
    ///
    /// The contract is that of [`iter`](Store::iter). Damage does not end a scan: what cannot be read is in
    /// [`Entries::damaged`], and the cursor lies behind it. A caller that needs all keys looks there after each step:
    ///
    /// ```
    /// # fn main() -> tophash::Result<()> {
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// # store.insert("key", "value")?;
    /// let mut cursor = Some(tophash::Cursor::START);
    /// while let Some(at) = cursor {
    ///     let (entries, next) = store.scan(at, 1000)?;
    ///     for error in &entries.damaged {
    ///         eprintln!("skipped: {error}");
    ///     }
    ///     for entry in &entries {
    ///         println!("{}", entry.key().escape_ascii());
    ///     }
    ///     cursor = next;
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// What is no damage: [`Error::Io`] for want of descriptors or memory, [`Error::Forked`]. The cursor stays good:
    /// the same step can be made again.
    pub fn scan(&self, cursor: Cursor, limit: usize) -> Result<(Entries<'_>, Option<Cursor>)> {
        self.engine.scan(cursor, limit)
    }

    /// The number of entries. Adds up to 1,024 counters; exact when no writer is at work.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.engine.table.len()
    }

    /// True if there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Makes room for `additional` more entries, so that the table does not grow while they are inserted.
    /// Grows the table now, step by step, while others go on reading and writing: about 3 µs for each page
    /// of 504 slots. The room is kept until the table is shrunk on purpose.
    ///
    /// # Errors
    /// As [`insert`](Store::insert). A crash leaves a table of any size between.
    pub fn reserve(&self, additional: u64) -> Result<()> {
        self.engine.health.check_writable()?;
        self.engine.reserve(additional)
    }

    /// Compacts the log now: every segment of which more than a twentieth is dead is emptied, and its space is given
    /// back. See [`compact_with`](Store::compact_with).
    ///
    /// # Errors
    /// As [`compact_with`](Store::compact_with).
    pub fn compact(&self) -> Result<CompactionReport> {
        self.compact_with(Progress::ignore)
    }

    /// Compacts the log now, in this thread, while others go on reading and writing: live records are appended
    /// again at the log's head, one lock at a time. Not needed in normal use: the background does it when the
    /// log is over its bound ([`Options::log_ratio`]). `progress` is told how many bytes of
    /// segments were emptied, and ends the call by returning [`ControlFlow::Break`]; what was compacted stays so.
    ///
    /// Ends with a checkpoint, after which the space comes back; a segment with a [`Value`] that is still held
    /// gives its blocks back when that is dropped. After a crash everything is there, compacted or not.
    ///
    /// # Errors
    /// As [`insert`](Store::insert). A record that cannot be read keeps its segment as it is:
    /// [`Error::Corrupt`].
    pub fn compact_with(&self, mut progress: impl FnMut(Progress) -> ControlFlow<()>) -> Result<CompactionReport> {
        self.engine.compact_all(&mut progress)
    }

    /// Makes the table as small as its entries allow, and gives back what [`reserve`](Store::reserve) has kept. In
    /// normal use the table shrinks by itself when most entries are gone. Merges pages step by step, while
    /// others go on reading and writing: a few microseconds for each page. Ends with a checkpoint.
    ///
    /// # Errors
    /// As [`insert`](Store::insert). A crash leaves a table of any size between.
    pub fn shrink_to_fit(&self) -> Result<()> {
        self.engine.health.check_writable()?;
        self.engine.shrink_to_fit()
    }

    /// Returns when every change that returned before this call is durable (group commit: calls share one
    /// fdatasync).
    ///
    /// # Errors
    /// [`Error::Io`] if the sync failed; the store is poisoned then. [`Error::ReadOnly`],
    /// [`Error::Poisoned`], [`Error::Forked`].
    pub fn sync(&self) -> Result<()> {
        self.engine.health.check_writable()?;
        self.engine.sync_to(self.engine.log.tail())
    }

    /// Writes the changed index pages into the index file, so that the next open replays nothing. Runs by
    /// itself often enough; costs two writes of each page changed since the last checkpoint.
    ///
    /// # Errors
    /// As [`sync`](Store::sync).
    pub fn checkpoint(&self) -> Result<()> {
        self.engine.health.check_writable()?;
        self.engine.run_checkpoint(false)
    }

    /// Syncs, runs a checkpoint and closes the store, telling of errors. After this the next open replays
    /// nothing.
    ///
    /// # Errors
    /// As [`checkpoint`](Store::checkpoint). Nothing that was durable is lost by an error; the next open
    /// replays the rest. [`Error::Removed`] if the store's directory was removed: nothing of the store is left then.
    pub fn close(mut self) -> Result<()> {
        self.shut_down()
    }

    /// Figures about the store. Reads counters one after another; stops nobody.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// Publishes the figures of this moment to the recorder of the `metrics` crate that was installed when the store
    /// was opened. The store does it by itself about every second; before a scrape it makes the figures fresh.
    #[cfg(feature = "metrics")]
    pub fn publish_metrics(&self) {
        self.engine.publish_now();
    }

    /// Bytes that the store's files occupy on the disk (blocks, not lengths).
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be looked at.
    pub fn disk_bytes(&self) -> Result<u64> {
        self.engine.disk_bytes()
    }

    /// For benchmarks of the table: the cache lines of slots that a lookup of an absent key reads, on average over
    /// `samples` random hashes, and the tombstones among their slots. No promise covers it.
    #[doc(hidden)]
    pub fn survey(&self, samples: u32, seed: u64) -> Result<(f64, f64)> {
        let (mut lines, mut tombstones, mut state) = (0u64, 0u64, seed);
        for _ in 0..samples {
            // SplitMix64.
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mixed = (state ^ state >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
            let (more, dead) = self.engine.table.survey(mixed ^ mixed >> 31)?;
            lines += u64::from(more);
            tombstones += u64::from(dead);
        }
        let samples = f64::from(samples.max(1));
        Ok((lines as f64 / samples, tombstones as f64 / samples))
    }

    /// For tests: how often background threads were woken, and whether all of them wait for something to do, without a
    /// deadline. No promise covers it.
    #[doc(hidden)]
    #[must_use]
    pub fn rest(&self) -> (u64, bool) {
        let (wakings, resting) = self.engine.rest();
        (wakings, resting == self.threads.len())
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
            let forked: Error = *forked;
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
