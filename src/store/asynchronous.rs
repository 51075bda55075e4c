//! Changes whose durability is awaited without a thread: the protocol is in awaited.rs.
//!
//! Each call is the one without `_async`, except that it returns before the sync, whatever the policy. The syncing thread is
//! started by the first of them, unless the policy is `Every`, which has it from the start.

use super::{CompareExchangeError, Store, Table};
use crate::awaited::Wait;
use crate::batch::Batch;
use crate::durable::Durable;
use crate::engine::write::{Changed, Expect, New, Want};
use crate::engine::{Engine, Until};
use crate::error::{Error, Result};
use crate::value::{OwnedValue, Value};

impl Table {
    /// Sets a key to a value, as [`insert`](Table::insert), and returns at once: the future is ready when the change is durable,
    /// under each [`SyncPolicy`](crate::SyncPolicy). Its output is the value that the key had before.
    ///
    /// Readers see the change before this call returns. The future only waits for the sync, which this call has asked for. See
    /// [`Durable`], also for what happens to it when the store is closed.
    ///
    /// The call takes as long as an `insert` under `SyncPolicy::Manual`: less than a microsecond in the median, about 2 µs
    /// at p99, 20 µs at p99.9 while the table grows, and at the very most some tens of milliseconds, where a segment is to
    /// be prepared or compaction does not keep up. A call that finds the syncing thread asleep wakes it, which takes some
    /// microseconds. **A value of more than 256 KiB is synced in the call**, which belongs where blocking is allowed.
    /// `docs/ASYNC.md` has the figures.
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let before = block_on(async {
    ///     store.insert_async("user:1", "Ada").await?;
    ///     store.insert_async("user:1", "Grace").await
    /// })?;
    /// assert_eq!(before.unwrap(), "Ada");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// Of the future: those of [`insert`](Table::insert), and those of [`Durable`]. [`Error::Io`](crate::Error::Io) also where
    /// the syncing thread cannot be started; nothing has changed then.
    pub fn insert_async(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Durable<Option<OwnedValue>> {
        self.change_async(key.as_ref(), New::Put(value.as_ref(), self.deadline()), Want::Previous, previous)
    }

    /// Removes a key, as [`remove`](Table::remove), and returns at once: the future is ready when the removal is durable. Its
    /// output is the value that the key had. If there was none, nothing is written, and the future is ready when all earlier
    /// writes are durable.
    ///
    /// About the call and the future: [`insert_async`](Table::insert_async).
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("user:1", "Ada")?;
    /// let gone = store.remove_async("user:1");
    /// assert!(!store.contains_key("user:1")?);
    /// assert_eq!(block_on(gone)?.unwrap(), "Ada");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert_async`](Table::insert_async).
    pub fn remove_async(&self, key: impl AsRef<[u8]>) -> Durable<Option<OwnedValue>> {
        self.change_async(key.as_ref(), New::Remove, Want::Previous, previous)
    }

    /// Sets a key to a value, as [`set`](Table::set), and returns at once: the future is ready when the change is durable.
    ///
    /// About the call and the future: [`insert_async`](Table::insert_async).
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// // A hundred changes, and a sync or two.
    /// let pending: Vec<_> = (0..100u32).map(|n| store.set_async(n.to_le_bytes(), "value")).collect();
    /// for change in pending {
    ///     block_on(change)?;
    /// }
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert_async`](Table::insert_async).
    pub fn set_async(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Durable {
        self.change_async(key.as_ref(), New::Put(value.as_ref(), self.deadline()), Want::Nothing, |_, _| Ok(()))
    }

    /// Removes a key, as [`delete`](Table::delete), and returns at once: the future is ready when the removal is durable. Its
    /// output is whether the key was there. If it was not, nothing is written, and the future is ready when all earlier writes
    /// are durable.
    ///
    /// About the call and the future: [`insert_async`](Table::insert_async).
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.set("user:1", "Ada")?;
    /// assert!(block_on(store.delete_async("user:1"))?);
    /// assert!(!block_on(store.delete_async("user:1"))?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert_async`](Table::insert_async).
    pub fn delete_async(&self, key: impl AsRef<[u8]>) -> Durable<bool> {
        self.change_async(key.as_ref(), New::Remove, Want::Nothing, |_, changed| Ok(changed.previous.is_some()))
    }

    /// Changes a key only if it has the expected value, as [`compare_exchange`](Table::compare_exchange), and returns at once:
    /// the future is ready when the change is durable. A refusal changes nothing, and is ready when all earlier writes are
    /// durable: the value that refused may be one of them.
    ///
    /// About the call and the future: [`insert_async`](Table::insert_async).
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// assert!(block_on(store.compare_exchange_async("job:1", None, Some(b"mine")))?.is_ok());
    /// let refused = block_on(store.compare_exchange_async("job:1", None, Some(b"another's")))?.unwrap_err();
    /// assert_eq!(refused.current.unwrap(), "mine");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert_async`](Table::insert_async).
    pub fn compare_exchange_async(
        &self,
        key: impl AsRef<[u8]>,
        expected: Option<&[u8]>,
        new: Option<&[u8]>,
    ) -> Durable<std::result::Result<(), CompareExchangeError>> {
        self.durable(|_| self.compare_exchange_until(Until::Asked, key.as_ref(), expected, new))
    }

    /// Replaces a key's value by a function of it, as [`update`](Table::update), and returns at once: `change` runs in the
    /// call, and the future is ready when the change is durable. Its output is the new value.
    ///
    /// About the call and the future: [`insert_async`](Table::insert_async).
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let longer = |old: Option<&[u8]>| Some([old.unwrap_or_default(), b"x"].concat());
    /// block_on(store.update_async("a", longer))?;
    /// assert_eq!(block_on(store.update_async("a", longer))?.unwrap(), "xx");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert_async`](Table::insert_async).
    pub fn update_async(
        &self,
        key: impl AsRef<[u8]>,
        mut change: impl FnMut(Option<&[u8]>) -> Option<Vec<u8>>,
    ) -> Durable<Option<OwnedValue>> {
        self.durable(|_| {
            let (value, wait) = self.update_until(Until::Asked, key.as_ref(), |old| Ok::<_, Error>(change(old)))?;
            Ok((value.map(Value::into_owned), wait))
        })
    }

    /// Applies a batch, as [`apply`](Table::apply), and returns at once: the future is ready when the batch is durable, all of
    /// it. An empty batch is one that waits for all earlier writes.
    ///
    /// About the future: [`insert_async`](Table::insert_async). The call takes time in proportion to the batch: about half a
    /// microsecond for each small record. A batch that gets a segment of its own is written to a file in the call; one of many
    /// megabytes belongs where blocking is allowed.
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let mut batch = tophash::Batch::new();
    /// batch.insert("account:1", "90").insert("account:2", "110");
    /// block_on(store.apply_async(&batch))?;
    /// assert_eq!(store.len(), 2);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// Of the future: those of [`apply`](Table::apply), and those of [`Durable`].
    pub fn apply_async(&self, batch: &Batch) -> Durable {
        self.durable(|engine| Ok(((), engine.apply(&self.table, batch, Until::Asked)?)))
    }

    fn change_async<T>(
        &self,
        key: &[u8],
        new: New<'_>,
        want: Want,
        result: impl FnOnce(&Engine, Changed<'_>) -> Result<T>,
    ) -> Durable<T> {
        self.durable(|engine| {
            let hash = engine.hasher.hash(key);
            let mut changed = engine.change_until(Until::Asked, self.of(key, hash), new, Expect::Anything, want)?;
            let wait = changed.wait.take();
            Ok((result(engine, changed)?, wait))
        })
    }

    pub(super) fn durable<T>(&self, call: impl FnOnce(&Engine) -> Result<(T, Option<Wait>)>) -> Durable<T> {
        Durable::new(self.start_syncing().and_then(|()| {
            let (value, wait) = call(&self.engine)?;
            // Without a change of its own, the answer may stand on one of another call that is not durable yet.
            let wait = wait.map_or_else(|| self.wait_for_all(), |wait| Ok(Some(wait)))?;
            Ok((value, wait))
        }))
    }

    /// Asks for a sync of everything that is written. `None` if all of it is durable.
    fn wait_for_all(&self) -> Result<Option<Wait>> {
        let engine = &self.engine;
        let _pass = engine.health.enter()?;
        engine.ask_for_sync(engine.log.tail())
    }

    /// Starts the syncing thread, unless it runs. Outside the gate: a closer holds the lock of the threads while it waits for
    /// those inside.
    fn start_syncing(&self) -> Result<()> {
        let engine = &self.engine;
        if engine.wake.is_syncing() || !engine.tuning.background || engine.health.is_read_only() {
            return Ok(());
        }
        engine.health.check_readable()?;
        let mut threads = self.owner.threads.lock();
        // Closed meanwhile: the closer has joined all threads.
        engine.health.check_readable()?;
        crate::background::start_syncing(engine, &mut threads)
    }
}

impl Store {
    /// Makes everything durable that was written before this call, as [`sync`](Store::sync), and returns at once. The call
    /// takes a few atomic operations, and some microseconds where it wakes the syncing thread.
    ///
    /// With it each call can be awaited that has no `_async` form, under a policy other than `Always`, with which that call
    /// itself would wait:
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// async fn forget(store: &tophash::Store, keys: &[&str]) -> tophash::Result<u64> {
    ///     let removed = store.remove_many(keys)?;
    ///     store.sync_async().await?;
    ///     Ok(removed)
    /// }
    /// assert_eq!(block_on(forget(&store, &["a", "b"]))?, 0);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// Of the future: those of [`sync`](Store::sync), and those of [`Durable`].
    pub fn sync_async(&self) -> Durable {
        self.durable(|_| Ok(((), None)))
    }
}

fn previous(engine: &Engine, changed: Changed<'_>) -> Result<Option<OwnedValue>> {
    Ok(engine.previous_value(changed)?.map(Value::into_owned))
}
