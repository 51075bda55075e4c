//! From open to close, one key at a time.

use std::path::Path;

use super::Store;
use crate::engine::write::{Expect, New};
use crate::error::Result;
use crate::observe::Timed;
use crate::options::Options;
use crate::value::Value;

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

    /// The value of a key, without a copy. Takes no lock; about two dependent memory accesses.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("user:1", "Ada")?;
    /// let name = store.get("user:1")?.expect("it was just inserted");
    /// assert_eq!(name, "Ada");
    /// assert!(store.get("user:2")?.is_none());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Corrupt`](crate::Error::Corrupt) if the record (or one that could be the key's) does not match its
    /// checksum; [`Error::Closed`](crate::Error::Closed), [`Error::Forked`](crate::Error::Forked). For a value in a file of its own also
    /// [`Error::Io`](crate::Error::Io) (descriptors, mappings) and [`Error::Removed`](crate::Error::Removed).
    #[inline]
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let key = key.as_ref();
        let _timer = self.engine.observer.sample(Timed::Get);
        Ok(self.engine.get_placed(key, self.engine.hasher.hash(key))?.map(|(_, value)| value))
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
    /// [`Error::KeyTooLong`](crate::Error::KeyTooLong) (65,535 bytes),
    /// [`Error::ValueTooLong`](crate::Error::ValueTooLong) (4,294,967,295 bytes),
    /// [`Error::DiskFull`](crate::Error::DiskFull), [`Error::ReadOnly`](crate::Error::ReadOnly),
    /// [`Error::Poisoned`](crate::Error::Poisoned), [`Error::Forked`](crate::Error::Forked),
    /// [`Error::Removed`](crate::Error::Removed), [`Error::LimitReached`](crate::Error::LimitReached),
    /// [`Error::Io`](crate::Error::Io), [`Error::Stuck`](crate::Error::Stuck), and those of [`get`](Store::get): a
    /// damaged record is not overwritten. After an error nothing has changed, except that a failed sync leaves open
    /// whether the change is durable.
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

    /// Syncs, runs a checkpoint and closes the store for all of its handles, telling of errors. After this the next open
    /// replays nothing.
    ///
    /// * A change that another handle has begun ends first, and is part of the store if it returned `Ok`.
    /// * Every later call of another handle is [`Error::Closed`](crate::Error::Closed). So is a read that overlaps the
    ///   closing, and a second `close`, which waits for the first and leaves its outcome to it.
    /// * Values that are held stay readable.
    /// * The store can be opened again, by this process too, whatever handles and values are left. They keep memory and
    ///   descriptors of the closed store until they are dropped.
    ///
    /// Do not call it in a function that a [`metrics`](https://docs.rs/metrics) recorder or a
    /// [`tracing`](https://docs.rs/tracing) subscriber of this store runs: it would wait for itself.
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
    /// As [`checkpoint`](Store::checkpoint). Nothing that was durable is lost by an error; the next open replays the
    /// rest. The store is closed, and its lock is free, in any case but [`Error::Forked`](crate::Error::Forked).
    /// [`Error::Removed`](crate::Error::Removed) if the store's directory was removed: nothing of the store is left then.
    pub fn close(self) -> Result<()> {
        self.owner.shut_down()
    }
}
