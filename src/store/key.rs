//! From open to close, one key at a time.

use std::path::Path;

use super::{CompareExchangeError, Store, Table};
use crate::awaited::Wait;
use crate::engine::Until;
use crate::engine::write::{Expect, New, Want};
use crate::error::{Error, Result};
use crate::expiry::Expiry;
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
}

impl Table {
    /// The path of the store's directory, made absolute when the store was opened. It is a name for messages: the directory may
    /// have been moved since.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// assert_eq!(store.path(), dir.path().join("s"));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.engine.path
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
        let found = self.engine.get_with_address(&self.table, key, self.engine.hasher.hash(key))?;
        self.engine.counts.count_read(found.is_some());
        Ok(found.map(|(_, value)| value))
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
    /// As [`get`](Table::get).
    #[inline]
    pub fn contains_key(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let found = self.engine.find(&self.table, key, self.engine.hasher.hash(key))?.is_some();
        self.engine.counts.count_read(found);
        Ok(found)
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
    /// [`Error::Io`](crate::Error::Io), [`Error::Stuck`](crate::Error::Stuck), and those of [`get`](Table::get): a
    /// damaged record is not overwritten. After an error nothing has changed, except that a failed sync leaves open
    /// whether the change is durable.
    #[inline]
    pub fn insert(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let key = key.as_ref();
        let hash = self.engine.hasher.hash(key);
        let changed = self.engine.change(
            self.of(key, hash),
            New::Put(value.as_ref(), self.deadline()),
            Expect::Anything,
            Want::Previous,
        )?;
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
    /// As [`insert`](Table::insert). On a full disk removals go on from a reserve, for a while.
    #[inline]
    pub fn remove(&self, key: impl AsRef<[u8]>) -> Result<Option<Value<'_>>> {
        let key = key.as_ref();
        let changed = self.engine.change(
            self.of(key, self.engine.hasher.hash(key)),
            New::Remove,
            Expect::Anything,
            Want::Previous,
        )?;
        self.engine.previous_value(changed)
    }

    /// Sets a key to a value, as [`insert`](Table::insert), and does not read the value that it had. Damage of that value is not
    /// noticed: it is replaced.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.set("user:1", "Ada")?;
    /// assert_eq!(store.get("user:1")?.unwrap(), "Ada");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Table::insert).
    #[inline]
    pub fn set(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Result<()> {
        let key = key.as_ref();
        let hash = self.engine.hasher.hash(key);
        self.engine
            .change(self.of(key, hash), New::Put(value.as_ref(), self.deadline()), Expect::Anything, Want::Nothing)
            .map(drop)
    }

    /// Removes a key, as [`remove`](Table::remove), and does not read the value that it had. Returns whether the key was there.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.set("user:1", "Ada")?;
    /// assert!(store.delete("user:1")?);
    /// assert!(!store.delete("user:1")?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`remove`](Table::remove).
    #[inline]
    pub fn delete(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        let key = key.as_ref();
        let hash = self.engine.hasher.hash(key);
        let changed = self.engine.change(self.of(key, hash), New::Remove, Expect::Anything, Want::Nothing)?;
        Ok(changed.previous.is_some())
    }

    /// Changes a key only if it has the expected value (`None`: is absent). `new` is the new value, `None` to
    /// remove the key.
    ///
    /// Returns `Ok(Err(_))` with what was there instead, and changes nothing then.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// // A lock that one of several workers gets.
    /// assert!(store.compare_exchange("owner", None, Some(b"worker 1"))?.is_ok());
    /// let refused = store.compare_exchange("owner", None, Some(b"worker 2"))?.unwrap_err();
    /// assert_eq!(refused.current.unwrap(), "worker 1");
    /// // Its owner gives it back.
    /// assert!(store.compare_exchange("owner", Some(b"worker 1"), None)?.is_ok());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// Where a refusal is an error like any other, a second `?` passes it on:
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// fn register(store: &tophash::Store, name: &str) -> Result<(), Box<dyn std::error::Error>> {
    ///     store.compare_exchange(name, None, Some(b""))??;
    ///     Ok(())
    /// }
    /// register(&store, "ada").unwrap();
    /// assert_eq!(register(&store, "ada").unwrap_err().to_string(), "the key has a value of 0 bytes instead of the expected one");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Table::insert).
    pub fn compare_exchange(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<std::result::Result<(), CompareExchangeError>> {
        Ok(self.compare_exchange_until(Until::Policy, key.as_ref(), expected, new)?.0)
    }

    pub(super) fn compare_exchange_until(
        &self,
        until: Until,
        key: &[u8],
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Result<(std::result::Result<(), CompareExchangeError>, Option<Wait>)> {
        let hash = self.engine.hasher.hash(key);
        let new = new.map_or(New::Remove, |value| New::Put(value, self.deadline()));
        loop {
            // The comparison happens outside all locks; the address stands for the value that was compared,
            // and cannot be recycled while `current` is held.
            let current = self.engine.get_with_address(&self.table, key, hash)?;
            let expect = match (&current, expected) {
                (Some((address, value)), Some(expected)) if **value == *expected => Expect::At(*address),
                (None, None) => Expect::Absent,
                _ => {
                    let current = current.map(|(_, value)| value.into_owned());
                    return Ok((Err(CompareExchangeError { current }), None));
                }
            };
            let changed = self.engine.change_until(until, self.of(key, hash), new, expect, Want::Nothing)?;
            if changed.done {
                return Ok((Ok(()), changed.wait));
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
    /// As [`insert`](Table::insert).
    pub fn update(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Result<Option<Value<'_>>> {
        self.try_update(key, |old| Ok(change(old)))
    }

    /// As [`update`](Table::update), with a function that can fail. Its error ends the call, and nothing has changed then.
    ///
    /// The error type is that of the function, and takes up [`Error`] by `From`: an enum of the program,
    /// `Box<dyn std::error::Error>`, [`std::io::Error`], or [`Error`] itself.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use std::error::Error;
    ///
    /// fn add(store: &tophash::Store, account: &str, amount: i64) -> Result<(), Box<dyn Error>> {
    ///     store.try_update(account, |old| -> Result<_, Box<dyn Error>> {
    ///         let old: i64 = old.map_or(Ok("0"), std::str::from_utf8)?.parse()?;
    ///         let new = old.checked_add(amount).filter(|new| *new >= 0).ok_or("not enough")?;
    ///         Ok(Some(new.to_string().into_bytes()))
    ///     })?;
    ///     Ok(())
    /// }
    ///
    /// add(&store, "ada", 10).unwrap();
    /// assert_eq!(add(&store, "ada", -11).unwrap_err().to_string(), "not enough");
    /// assert_eq!(store.get("ada")?.unwrap(), "10");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// That of `change`, and those of [`insert`](Table::insert).
    pub fn try_update<E: From<Error>>(
        &self,
        key: impl AsRef<[u8]>,
        change: impl FnMut(Option<&[u8]>) -> std::result::Result<Option<Vec<u8>>, E>,
    ) -> std::result::Result<Option<Value<'_>>, E> {
        Ok(self.update_until(Until::Policy, key.as_ref(), change)?.0)
    }

    pub(super) fn update_until<E: From<Error>>(
        &self,
        until: Until,
        key: &[u8],
        mut change: impl FnMut(Option<&[u8]>) -> std::result::Result<Option<Vec<u8>>, E>,
    ) -> std::result::Result<(Option<Value<'_>>, Option<Wait>), E> {
        let hash = self.engine.hasher.hash(key);
        loop {
            let current = self.engine.get_with_address(&self.table, key, hash).map_err(Error::from)?;
            let expect = current.as_ref().map_or(Expect::Absent, |(address, _)| Expect::At(*address));
            let Some(new) = change(current.as_ref().map(|(_, value)| &**value))? else {
                let changed =
                    self.engine.change_until(until, self.of(key, hash), New::Remove, expect, Want::Nothing)?;
                if changed.done {
                    return Ok((None, changed.wait));
                }
                continue;
            };
            let deadline = match (self.expiry, expect) {
                (Expiry::Never, Expect::At(address)) => self.engine.deadline_at(address),
                _ => self.deadline(),
            };
            let put = New::Put(&new, deadline);
            let mut changed = self.engine.change_until(until, self.of(key, hash), put, expect, Want::Stored)?;
            if changed.done {
                let wait = changed.wait.take();
                return Ok((self.engine.stored_value(changed)?, wait));
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
    /// As [`insert`](Table::insert).
    pub fn get_or_insert_with<V: AsRef<[u8]>>(
        &self,
        key: impl AsRef<[u8]>,
        make: impl FnOnce() -> V,
    ) -> Result<Value<'_>> {
        self.try_get_or_insert_with(key, || Ok(make()))
    }

    /// As [`get_or_insert_with`](Table::get_or_insert_with), with a function that can fail. Its error ends the call, and
    /// nothing has changed then. About the error type: [`try_update`](Table::try_update).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// # let file = dir.path().join("page.html");
    /// # std::fs::write(&file, "<html>").unwrap();
    /// fn page(store: &tophash::Store, file: &std::path::Path) -> std::io::Result<tophash::OwnedValue> {
    ///     let page = store.try_get_or_insert_with("page", || std::fs::read(file))?;
    ///     Ok(page.into_owned())
    /// }
    /// assert_eq!(page(&store, &file).unwrap(), "<html>");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// That of `make`, and those of [`insert`](Table::insert).
    pub fn try_get_or_insert_with<V: AsRef<[u8]>, E: From<Error>>(
        &self,
        key: impl AsRef<[u8]>,
        make: impl FnOnce() -> std::result::Result<V, E>,
    ) -> std::result::Result<Value<'_>, E> {
        let key = key.as_ref();
        let hash = self.engine.hasher.hash(key);
        if let Some((_, value)) = self.engine.get_with_address(&self.table, key, hash).map_err(Error::from)? {
            return Ok(value);
        }
        let made = make()?;
        loop {
            let changed = self.engine.change(
                self.of(key, hash),
                New::Put(made.as_ref(), self.deadline()),
                Expect::Absent,
                Want::Stored,
            )?;
            let value = if changed.done {
                self.engine.stored_value(changed)?
            } else {
                self.engine.get_with_address(&self.table, key, hash).map_err(Error::from)?.map(|(_, value)| value)
            };
            // There, and removed again by the time of the second look: try once more.
            if let Some(value) = value {
                return Ok(value);
            }
        }
    }
}

impl Store {
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
