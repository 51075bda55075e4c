//! A list of changes that is applied as one.

use std::fmt;
use std::sync::Arc;

use crate::error::Result;
use crate::expiry::{Deadline, Expiry, system_now};
use crate::log::encode::Encoded;
use crate::log::frame::FRAME_BYTES_MAX;
use crate::log::record::{Kind, Label, Record, check_lengths};
use crate::store::Table;
use crate::table as map;
use crate::table_id::TableId;

/// Of a change that names no table.
const MAIN: Label = Label::of(TableId::MAIN);

/// Changes that [`Store::apply`](crate::Table::apply) carries out as one: after any crash all of them are
/// there or none is.
///
/// Where a key occurs more than once, the last change counts. For readers a batch is atomic per key, not
/// across keys.
///
/// A batch is kept as the log will hold it: one buffer of keys, values, 8 or 16 bytes a change, and padding to a
/// multiple of 8.
///
/// ```
/// let mut batch = tophash::Batch::new();
/// batch.insert("user:1", "Ada");
/// batch.remove("user:2");
/// assert_eq!(batch.len(), 2);
/// ```
#[derive(Clone, Default)]
pub struct Batch {
    /// A record for each change, but for those that were refused.
    records: Encoded,
    /// Changes that were added, refused ones too.
    changes: usize,
    /// Bytes of the longest value.
    longest_value: usize,
    /// Lengths of key and value of the first change that can never be applied.
    refused: Option<(usize, usize)>,
    /// The tables that some changes name.
    tables: Vec<Arc<map::Table>>,
    /// Changes that name a table.
    of_tables: usize,
    /// Where the records of changes start that name the main table, in ascending order.
    of_main: Vec<u64>,
}

/// Adds changes of one table to a batch. Made by [`Batch::table`].
#[derive(Debug)]
#[must_use = "it only adds what its calls say"]
pub struct TableChanges<'b> {
    batch: &'b mut Batch,
    /// What records of the table say.
    label: Label,
}

impl TableChanges<'_> {
    /// Adds "set `key` to `value`" for the table; see [`Batch::insert`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let users = store.table("users")?;
    /// let mut batch = tophash::Batch::new();
    /// batch.table(&users).insert("1", "Ada").insert("2", "Grace");
    /// store.apply(&batch)?;
    /// assert_eq!((users.len(), store.len()), (2, 0));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.push(Deadline::NEVER, Kind::Put, key.as_ref(), value.as_ref())
    }

    /// Adds "set `key` to `value`, which expires" for the table; see [`Batch::insert_expiring`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use std::time::Duration;
    /// let sessions = store.table("sessions")?;
    /// let mut batch = tophash::Batch::new();
    /// batch.table(&sessions).insert_expiring("7", "Ada", Duration::from_secs(1800));
    /// store.apply(&batch)?;
    /// assert!(sessions.expires_at("7")?.is_some());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn insert_expiring(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expiry: impl Into<Expiry>,
    ) -> &mut Self {
        self.push(expiry.into().deadline(system_now), Kind::Put, key.as_ref(), value.as_ref())
    }

    /// Adds "remove `key`" for the table; see [`Batch::remove`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let (todo, done) = (store.table("todo")?, store.table("done")?);
    /// todo.insert("write tests", "")?;
    /// // From one table to the other, and no crash loses it or has it twice.
    /// let mut batch = tophash::Batch::new();
    /// batch.table(&todo).remove("write tests");
    /// batch.table(&done).insert("write tests", "");
    /// store.apply(&batch)?;
    /// assert_eq!((todo.len(), done.len()), (0, 1));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.push(Deadline::NEVER, Kind::Remove, key.as_ref(), &[])
    }

    fn push(&mut self, deadline: Deadline, kind: Kind, key: &[u8], value: &[u8]) -> &mut Self {
        self.batch.of_tables += 1;
        if self.label.table == TableId::MAIN {
            self.batch.of_main.push(self.batch.records.len());
        }
        self.batch.push(self.label.until(deadline), kind, key, value);
        self
    }
}

impl Batch {
    /// An empty batch. Allocates nothing.
    ///
    /// ```
    /// use tophash::Batch;
    /// assert_eq!((Batch::new().len(), Batch::new().bytes()), (0, 0));
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Batch::default()
    }

    /// Adds "set `key` to `value`". Copies both. What is too long is reported when the batch is applied.
    ///
    /// ```
    /// let (key, value) = (42u64.to_le_bytes(), vec![0; 100]);
    /// let mut batch = tophash::Batch::new();
    /// batch.insert("name", "Ada").insert(key, &value);
    /// ```
    pub fn insert(&mut self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> &mut Self {
        self.push(MAIN, Kind::Put, key.as_ref(), value.as_ref())
    }

    /// Adds "set `key` to `value`, which expires". A length of time counts from this call, not from that of
    /// [`Store::apply`](crate::Table::apply). What is said of [`insert`](Batch::insert) holds.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use std::time::{Duration, SystemTime};
    /// let mut batch = tophash::Batch::new();
    /// batch.insert_expiring("session:7", "Ada", Duration::from_secs(3600));
    /// batch.insert_expiring("session:8", "Grace", SystemTime::UNIX_EPOCH);
    /// store.apply(&batch)?;
    /// assert!(store.contains_key("session:7")? && !store.contains_key("session:8")?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn insert_expiring(
        &mut self,
        key: impl AsRef<[u8]>,
        value: impl AsRef<[u8]>,
        expiry: impl Into<Expiry>,
    ) -> &mut Self {
        self.push(MAIN.until(expiry.into().deadline(system_now)), Kind::Put, key.as_ref(), value.as_ref())
    }

    /// For changes of a table, whichever the batch is applied to. Those of the batch itself are changes of the table that it is
    /// applied to, which for [`Store::apply`](crate::Table::apply) is the main one.
    ///
    /// The batch keeps a handle to the table, and with it the memory of its pages. If the table is dropped, applying the batch
    /// fails with [`Error::TableDropped`](crate::Error::TableDropped).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let (users, by_name) = (store.table("users")?, store.table("users by name")?);
    /// let mut batch = tophash::Batch::new();
    /// batch.table(&users).insert("7", "Ada");
    /// batch.table(&by_name).insert("Ada", "7");
    /// batch.insert("users", "1");
    /// // After any crash all three are there or none.
    /// store.apply(&batch)?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn table(&mut self, table: &Table) -> TableChanges<'_> {
        let table = table.map();
        let id = table.id();
        if id != TableId::MAIN && !self.tables.iter().any(|known| Arc::ptr_eq(known, table)) {
            self.tables.push(Arc::clone(table));
        }
        TableChanges { batch: self, label: Label::of(id).aligned(table.is_aligned()) }
    }

    /// Adds "remove `key`". Removing a key that is not there is no error.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use tophash::Batch;
    /// store.insert("old", "1")?;
    /// // A rename that no crash leaves half done.
    /// let mut batch = Batch::new();
    /// batch.remove("old").insert("new", "1");
    /// store.apply(&batch)?;
    /// assert!(store.get("old")?.is_none());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> &mut Self {
        self.push(MAIN, Kind::Remove, key.as_ref(), &[])
    }

    fn push(&mut self, label: Label, kind: Kind, key: &[u8], value: &[u8]) -> &mut Self {
        self.changes += 1;
        if check_lengths(key.len(), value.len()).is_err() {
            self.refused.get_or_insert((key.len(), value.len()));
        } else {
            self.longest_value = self.longest_value.max(value.len());
            self.records.push(label, kind, key, value);
        }
        self
    }

    /// How many changes were added, repeated keys counted each time.
    ///
    /// ```
    /// let mut batch = tophash::Batch::new();
    /// batch.insert("a", "1").insert("a", "2");
    /// assert_eq!(batch.len(), 2);
    /// ```
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes
    }

    /// True if no change was added.
    ///
    /// ```
    /// let mut batch = tophash::Batch::new();
    /// assert!(batch.is_empty());
    /// assert!(!batch.remove("a").is_empty());
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes == 0
    }

    /// Bytes of log that a batch can take: beyond it [`Store::apply`](crate::Table::apply) fails with
    /// [`Error::BatchTooLarge`](crate::Error::BatchTooLarge). Close to 1 GiB.
    pub const BYTES_MAX: u64 = FRAME_BYTES_MAX;

    /// Bytes of log that the batch takes as it is; 0 for an empty one. Applying it takes less if keys occur more than once or
    /// values go to files of their own.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use tophash::Batch;
    /// let mut batch = Batch::new();
    /// for i in 0..1000u32 {
    ///     batch.insert(i.to_le_bytes(), [7; 100]);
    ///     // In portions of about a mebibyte.
    ///     if batch.bytes() > 1 << 20 {
    ///         store.apply(&batch)?;
    ///         batch.clear();
    ///     }
    /// }
    /// store.apply(&batch)?;
    /// assert!(batch.bytes() < Batch::BYTES_MAX);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn bytes(&self) -> u64 {
        if self.records.len() == 0 { 0 } else { self.records.framed().len() }
    }

    /// Forgets all changes and keeps the allocation.
    ///
    /// ```
    /// let mut batch = tophash::Batch::new();
    /// batch.insert("a", "1");
    /// // After `Store::apply`, for the next changes.
    /// batch.clear();
    /// assert!(batch.is_empty());
    /// ```
    pub fn clear(&mut self) {
        self.records.clear();
        (self.changes, self.of_tables, self.longest_value, self.refused) = (0, 0, 0, None);
        self.tables.clear();
        self.of_main.clear();
    }

    /// The tables that some changes name, but for the main one.
    pub(crate) fn tables(&self) -> &[Arc<map::Table>] {
        &self.tables
    }

    /// The table of a change whose record starts there, in a batch that is applied to `table`.
    pub(crate) fn table_of(&self, start: u64, record: &Record<'_>, table: TableId) -> TableId {
        let names_none = record.table() == TableId::MAIN && self.of_main.binary_search(&start).is_err();
        if names_none { table } else { record.table() }
    }

    /// True if each change names a table.
    pub(crate) fn names_all_tables(&self) -> bool {
        self.of_tables == self.changes
    }

    /// The changes, as records.
    pub(crate) fn records(&self) -> &Encoded {
        &self.records
    }

    /// Bytes of the longest value.
    pub(crate) fn longest_value(&self) -> usize {
        self.longest_value
    }

    /// The error of the first change that can never be applied.
    pub(crate) fn check(&self) -> Result<()> {
        self.refused.map_or(Ok(()), |(key, value)| check_lengths(key, value))
    }
}

/// Adds "set key to value" for each pair, as [`Batch::insert`] does.
impl<K: AsRef<[u8]>, V: AsRef<[u8]>> Extend<(K, V)> for Batch {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, pairs: I) {
        for (key, value) in pairs {
            self.insert(key, value);
        }
    }
}

/// A batch that sets each key to its value.
///
/// ```
/// let batch: tophash::Batch = [("user:1", "Ada"), ("user:2", "Grace")].into_iter().collect();
/// assert_eq!(batch.len(), 2);
/// ```
impl<K: AsRef<[u8]>, V: AsRef<[u8]>> FromIterator<(K, V)> for Batch {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        let mut batch = Batch::new();
        batch.extend(pairs);
        batch
    }
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("changes", &self.changes).field("bytes", &self.records.len()).finish()
    }
}
