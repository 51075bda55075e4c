//! Tables by name: made, found, listed, dropped.

use std::sync::Arc;

use super::{Store, Table};
use crate::catalog::CatalogEntry;
use crate::engine::catalog::Found;
use crate::error::{Error, Result};
use crate::expiry::Expiry;
use crate::stats::TableStats;

impl Store {
    /// The table of a name, which is made if there is none. Names are text of 1 to 255 bytes. A store has room for 4,096 tables.
    ///
    /// A table takes 12 KiB of the index file and about 16 KiB of memory at first, and grows and shrinks on its own. Making one appends
    /// a record, which is durable like any other: with [`SyncPolicy::Always`](crate::SyncPolicy::Always) when the call returns.
    /// Finding one is a lookup. A service keeps the handle.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// let users = store.table("users")?;
    /// users.insert("7", "Ada")?;
    /// assert_eq!(store.table("users")?.get("7")?.unwrap(), "Ada");
    /// assert!(store.get("7")?.is_none());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::InvalidTableName`], [`Error::LimitReached`] for too many tables, those of [`insert`](Table::insert). In a store
    /// that is open for reading only: [`Error::NoSuchTable`] if there is no such table. After a crash the table is there or it
    /// is not.
    pub fn table(&self, name: &str) -> Result<Table> {
        if self.engine.health.is_read_only() {
            return self.existing_table(name);
        }
        Ok(self.sibling(self.engine.make_table(name, None)?.table))
    }

    /// The table of a name, if there is one.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// assert!(matches!(store.existing_table("users"), Err(tophash::Error::NoSuchTable { .. })));
    /// store.table("users")?;
    /// assert!(store.existing_table("users")?.is_empty());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::NoSuchTable`], those of [`get`](Table::get).
    pub fn existing_table(&self, name: &str) -> Result<Table> {
        Ok(self.sibling(self.find(name)?.table))
    }

    /// The table of a name, which is there, and its codecs.
    pub(super) fn find(&self, name: &str) -> Result<Found> {
        self.engine.find_table(name)?.ok_or_else(|| self.no_such_table(name))
    }

    fn no_such_table(&self, name: &str) -> Error {
        Error::NoSuchTable { path: self.engine.path.clone(), name: name.to_string() }
    }

    /// The names of all tables, sorted. The main table has no name.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.table("users")?;
    /// store.table("sessions")?;
    /// assert_eq!(store.tables()?, ["sessions", "users"]);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Closed`], [`Error::Forked`].
    pub fn tables(&self) -> Result<Vec<String>> {
        self.engine.table_names()
    }

    /// Drops a table, with all that is in it. False if there is none of that name. Every later call of the table's handles is
    /// [`Error::TableDropped`], also when a table of the same name is made again.
    ///
    /// It appends one record. Then it counts each of the table's records as dead, which takes some 50 ns for each one; no
    /// checkpoint begins meanwhile, and readers and writers of other tables go on. The space of the records comes back as that
    /// of removed ones does, and that of the table's pages with the next checkpoint.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let users = store.table("users")?;
    /// users.insert("7", "Ada")?;
    /// assert!(store.drop_table("users")?);
    /// assert!(!store.drop_table("users")?);
    /// assert!(matches!(users.get("7"), Err(tophash::Error::TableDropped { .. })));
    /// assert!(store.table("users")?.is_empty());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`remove`](Table::remove). The table is there then. After a crash all of it is there, or nothing.
    pub fn drop_table(&self, name: &str) -> Result<bool> {
        self.engine.drop_table(name)
    }

    /// What the catalog says of a table, for a copy of it.
    pub(crate) fn catalog_entry(&self, name: &str) -> Result<CatalogEntry> {
        self.engine.catalog_entry(name)?.ok_or_else(|| self.no_such_table(name))
    }

    /// Makes the copy of another store's table, with room for `entries`. There is none of the name.
    pub(crate) fn add_copied(&self, name: &str, entry: &CatalogEntry, entries: u64) -> Result<Table> {
        Ok(self.sibling(self.engine.copy_table(name, entry, entries)?))
    }
}

impl Table {
    /// The table's name. `None` for the main table.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// assert_eq!(store.table("users")?.name().as_deref(), Some("users"));
    /// assert_eq!(store.name(), None);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn name(&self) -> Option<String> {
        self.table.name()
    }

    /// The store of the table: a handle to its main table, without expiry.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// fn save(users: &tophash::Table) -> tophash::Result<()> {
    ///     users.insert("7", "Ada")?;
    ///     users.store().sync()
    /// }
    /// save(&store.table("users")?)?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn store(&self) -> Store {
        Store { main: self.sibling(Arc::clone(self.engine.tables.main())) }
    }

    /// A handle to another table of the store, without expiry.
    pub(super) fn sibling(&self, table: Arc<crate::table::Table>) -> Table {
        Table { engine: Arc::clone(&self.engine), table, owner: Arc::clone(&self.owner), expiry: Expiry::Never }
    }

    /// Figures about the table alone. Reads counters one after another; stops nobody.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let users = store.table("users")?;
    /// users.insert("7", "Ada")?;
    /// assert_eq!((users.stats().records, users.stats().operations.inserts), (1, 1));
    /// // The store's are about all tables.
    /// assert_eq!((store.stats().records, store.stats().tables), (1, 1));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn stats(&self) -> TableStats {
        self.engine.table_stats(&self.table)
    }
}
