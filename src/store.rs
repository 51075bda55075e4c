//! The public handle: opening, closing, and one key at a time. Its calls are short texts on top of the engine.
//!
//! * **many** has the calls for many keys: batches, removals, iteration.
//! * **upkeep** has those for the store as a whole: room, space, durability, figures.

mod many;
mod upkeep;

use std::fmt::{self, Debug};
use std::path::Path;
use std::sync::Arc;

use crate::engine::Engine;
use crate::engine::write::{Expect, New};
use crate::error::{Error, Result};
use crate::observe::Timed;
use crate::options::Options;
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
    /// [`Error::InvalidOption`], [`Error::LimitReached`], [`Error::DiskFull`], [`Error::Io`]. After an error the contents of
    /// an existing store are unchanged; a recovery that was begun may have been carried further. Where there was no store, an
    /// empty one may be left, complete or unfinished: the next open takes it.
    pub fn open(&self, path: impl AsRef<Path>) -> Result<Store> {
        self.validate()?;
        Store::open_with(path.as_ref(), self)
    }
}

impl Store {
    /// Opens the store at a path with the default [`Options`], creating it if there is none.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// let store = tophash::Store::open(&path)?;
    /// store.insert("a", "1")?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
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
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("user:1", "Ada")?;
    /// let name = store.get("user:1")?.expect("it was just inserted");
    /// assert_eq!(&*name, b"Ada");
    /// assert!(store.get("user:2")?.is_none());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`] if the record (or one that could be the key's) does not match its checksum; [`Error::Forked`]. For a
    /// value in a file of its own also [`Error::Io`] (descriptors, mappings) and [`Error::Removed`].
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let key = key.as_ref();
        let _timer = self.engine.observer.sample(Timed::Get);
        Ok(self.engine.get_placed(key, self.engine.hasher.hash(key))?.map(|(_, value)| value))
    }

    /// The values of many keys, in their order. Two to three times as fast per key as [`get`](Store::get),
    /// because the memory accesses of different keys overlap.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// let values = store.get_many(&["a", "b"])?;
    /// assert_eq!(values[0].as_deref(), Some(&b"1"[..]));
    /// assert!(values[1].is_none());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](Store::get); the first error ends the call.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value<'_>>>> {
        Ok(self.engine.get_many(keys)?)
    }

    /// True if the key is in the store. Checks the whole record, the value in the log included; a value in a file of its own
    /// is not read.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "")?;
    /// assert!(store.contains_key("a")? && !store.contains_key("b")?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
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
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// assert!(store.insert("user:1", "Ada")?.is_none());
    /// let before = store.insert("user:1", "Grace")?;
    /// assert_eq!(before.as_deref(), Some(&b"Ada"[..]));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::KeyTooLong`] (65,535 bytes), [`Error::ValueTooLong`] (4,294,967,295 bytes),
    /// [`Error::DiskFull`], [`Error::ReadOnly`], [`Error::Poisoned`], [`Error::Forked`], [`Error::Removed`],
    /// [`Error::LimitReached`], [`Error::Io`], [`Error::Stuck`], and those of
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
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("user:1", "Ada")?;
    /// assert_eq!(store.remove("user:1")?.as_deref(), Some(&b"Ada"[..]));
    /// assert!(store.remove("user:1")?.is_none());
    /// # Ok::<(), tophash::Error>(())
    /// ```
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
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// // A lock that one of several workers gets.
    /// assert!(store.compare_exchange("owner", None, Some(b"worker 1"))?.is_ok());
    /// let refused = store.compare_exchange("owner", None, Some(b"worker 2"))?.unwrap_err();
    /// assert_eq!(refused.as_deref(), Some(&b"worker 1"[..]));
    /// // Its owner gives it back.
    /// assert!(store.compare_exchange("owner", Some(b"worker 1"), None)?.is_ok());
    /// # Ok::<(), tophash::Error>(())
    /// ```
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
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let page = store.get_or_insert_with("/index.html", || "<html>rendered</html>")?;
    /// assert_eq!(&*page, b"<html>rendered</html>");
    /// # Ok::<(), tophash::Error>(())
    /// ```
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

    /// Syncs, runs a checkpoint and closes the store, telling of errors. After this the next open replays
    /// nothing.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// store.close()?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`checkpoint`](Store::checkpoint). Nothing that was durable is lost by an error; the next open
    /// replays the rest. [`Error::Removed`] if the store's directory was removed: nothing of the store is left then.
    pub fn close(mut self) -> Result<()> {
        self.shut_down()
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
