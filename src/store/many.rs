//! Calls for many keys at a time.

use super::Table;
use crate::batch::Batch;
use crate::cursor::Cursor;
use crate::engine::Until;
use crate::engine::scan::Entries;
use crate::error::Result;
use crate::iter::{Iter, Keys, Values};
use crate::value::Value;

impl Table {
    /// The values of many keys, in their order. Two to three times as fast per key as [`get`](Table::get),
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
    /// As [`get`](Table::get); the first error ends the call.
    pub fn get_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<Vec<Option<Value<'_>>>> {
        Ok(self.engine.get_many(&self.table, keys)?)
    }

    /// Applies a batch: after any crash all of it is there or nothing. For readers it is atomic per key, not
    /// across keys.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let mut batch = tophash::Batch::new();
    /// batch.insert("account:1", "90").insert("account:2", "110").remove("transfer:7");
    /// store.apply(&batch)?;
    /// assert_eq!(store.len(), 2);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`insert`](Table::insert), and [`Error::BatchTooLarge`](crate::Error::BatchTooLarge) (about 1 GiB of keys and small values).
    /// After an error nothing of the batch has been applied, except that after a failed sync all of it is applied and perhaps
    /// not durable.
    pub fn apply(&self, batch: &Batch) -> Result<()> {
        self.engine.apply(&self.table, batch, Until::Policy).map(drop)
    }

    /// Removes many keys; returns how many were there. Faster than single removals, because one lock and one append
    /// serve keys of one page: all of them, or about 16 KiB of removal records. An append that removes more than an
    /// eighth of the page's slots ends with one rewrite of the page. Otherwise each removal repairs its path. Not atomic:
    /// a crash can keep the removals of some appends and lose those of others.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// store.insert("b", "2")?;
    /// assert_eq!(store.remove_many(&["a", "b", "c"])?, 2);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`remove`](Table::remove); what was removed before the error stays removed.
    pub fn remove_many<K: AsRef<[u8]>>(&self, keys: &[K]) -> Result<u64> {
        self.engine.remove_many(&self.table, keys)
    }

    /// Removes everything. One record in the log; after a crash everything is there or nothing.
    ///
    /// Holds all writers for a time proportional to the pages of the table (about 1 µs a page).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// store.clear()?;
    /// assert!(store.is_empty());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`remove`](Table::remove).
    pub fn clear(&self) -> Result<()> {
        self.engine.clear(&self.table)
    }

    /// All entries, in no useful order. Each key that is present throughout is seen exactly once, growth or
    /// not; keys that come or go meanwhile may be seen or not. Writers are not held up.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// for entry in store.iter() {
    ///     let entry = entry?;
    ///     println!("{} = {}", entry.key().escape_ascii(), entry.value().escape_ascii());
    /// }
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// Each item can be [`Error::Io`](crate::Error::Io) or [`Error::Corrupt`](crate::Error::Corrupt): a damaged record, or a damaged page of the index, which hides the keys of
    /// a range of cursors that the error names. Iteration goes on with the next record or page, so every key that is
    /// whole is seen. A caller that ignores an error misses the keys that it hides. An error that is no damage, and that
    /// every further page would have too ([`Error::Forked`](crate::Error::Forked)), is the last item.
    pub fn iter(&self) -> Iter<'_> {
        Iter::new(&self.engine, &self.table)
    }

    /// All keys, as [`iter`](Table::iter), without touching values in blob files.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// let keys: Vec<_> = store.keys().collect::<Result<_, _>>()?;
    /// assert_eq!(keys, [&b"a"[..]]);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`iter`](Table::iter).
    pub fn keys(&self) -> Keys<'_> {
        Keys::new(&self.engine, &self.table)
    }

    /// All values, as [`iter`](Table::iter).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// store.insert("b", "333")?;
    /// let mut bytes = 0;
    /// for value in store.values() {
    ///     bytes += value?.len();
    /// }
    /// assert_eq!(bytes, 4);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`iter`](Table::iter).
    pub fn values(&self) -> Values<'_> {
        Values::new(&self.engine, &self.table)
    }

    /// A piece of an iteration that can be resumed at any time, also after the store was closed and opened:
    /// up to `limit` entries at or after `cursor`, and the cursor to go on from (`None` at the end). Begin
    /// with [`Cursor::START`]. A few more than `limit` come if keys have equal 64-bit hashes.
    ///
    /// The contract is that of [`iter`](Table::iter). Damage does not end a scan: what cannot be read is in
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
    /// What is no damage: [`Error::Io`](crate::Error::Io) for want of descriptors or memory, [`Error::Forked`](crate::Error::Forked). The cursor stays good:
    /// the same step can be made again.
    pub fn scan(&self, cursor: Cursor, limit: usize) -> Result<(Entries<'_>, Option<Cursor>)> {
        self.engine.scan(&self.table, cursor, limit)
    }

    /// The number of entries. Adds up to 1,024 counters; exact when no writer is at work. Expired entries count until the
    /// compaction has removed them ([`expiring`](Table::expiring)).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.insert("a", "1")?;
    /// store.insert("a", "2")?;
    /// assert_eq!(store.len(), 1);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> u64 {
        self.table.records()
    }

    /// True if there are no entries.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// assert!(store.is_empty());
    /// store.insert("a", "")?;
    /// assert!(!store.is_empty());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
