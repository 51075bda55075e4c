//! The public handle. Its calls are short texts on top of the engine.
//!
//! * **key** has those from open to close, one key at a time.
//! * **many** has the calls for many keys: batches, removals, iteration.
//! * **asynchronous** has changes whose durability is awaited without a thread.
//! * **expiring** has those about expiry.
//! * **tables** has those that make, list and drop tables.
//! * **typed** has tables whose keys and values are of types.
//! * **upkeep** has those for the store as a whole: room, space, durability, figures.
//! * **close** is what ends a store for all of its handles.

// rustdoc shows the calls in this order.
mod key;
mod many;

mod asynchronous;
mod expiring;
mod tables;
mod typed;

mod upkeep;

mod close;
mod exchange;

use std::fmt::{self, Debug};
use std::ops::Deref;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

pub use self::exchange::CompareExchangeError;
pub use self::typed::{TypedChanges, TypedIter, TypedKeys, TypedTable, TypedValues};
use crate::engine::Engine;
use crate::engine::write::KeyOf;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::expiry::Expiry;
use crate::options::Options;
use crate::sync::{JoinHandle, Mutex};
use crate::table as map;

/// A persistent hash map from bytes to bytes.
///
/// The calls below are in three groups: one key, many keys, the store as a whole.
///
/// A `Store` is a handle. Clones are handles to the same open store: cheap to make, and good to keep in each thread, task or
/// service. What survives what is told in the [crate's documentation](crate). Reads take no lock.
///
/// Dropping the last handle closes the store as [`close`](Store::close) does, without telling of errors. `close` ends the
/// store for all handles at once: every later call of another one is [`Error::Closed`](crate::Error::Closed). Values
/// that are held stay readable.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # let path = dir.path().join("s");
/// let store = tophash::Store::open(&path)?;
/// let other = store.clone();
/// std::thread::spawn(move || other.insert("a", "1").map(drop)).join().unwrap()?;
/// assert_eq!(store.get("a")?.unwrap(), "1");
///
/// let other = store.clone();
/// store.close()?;
/// assert!(matches!(other.get("a"), Err(tophash::Error::Closed { .. })));
/// // The lock is free, although a handle is left.
/// let again = tophash::Store::open(&path)?;
/// # Ok::<(), tophash::Error>(())
/// ```
#[derive(Clone)]
pub struct Store {
    main: Table,
}

/// A handle to a table of a store: a map of its own, with its own keys, size and figures. All tables of a store share its log, so
/// a [`Batch`](crate::Batch) can change several of them at once, and a sync covers all.
///
/// A [`Store`] is its main table, which has no name: each call of this type is one of the store too. Other tables come from
/// [`Store::table`]. A `Table` keeps the store open, as a clone of the store does.
///
/// When a table is dropped ([`Store::drop_table`]), every later call of its handles is [`Error::TableDropped`]. Values that are
/// held stay readable.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = tophash::Store::open(dir.path().join("s"))?;
/// let (users, sessions) = (store.table("users")?, store.table("sessions")?);
/// users.insert("7", "Ada")?;
/// sessions.insert("7", "user:7")?;
/// assert_eq!(users.get("7")?.unwrap(), "Ada");
/// assert_eq!((users.len(), sessions.len(), store.len()), (1, 1, 0));
/// sessions.clear()?;
/// assert_eq!((users.len(), sessions.len()), (1, 0));
/// # Ok::<(), tophash::Error>(())
/// ```
#[derive(Clone)]
pub struct Table {
    engine: Arc<Engine>,
    table: Arc<map::Table>,
    owner: Arc<Owner>,
    /// When what this handle writes expires.
    expiry: Expiry,
}

impl Deref for Store {
    type Target = Table;

    /// The main table.
    fn deref(&self) -> &Table {
        &self.main
    }
}

/// What the handles of a store share beside the engine. Dropped with the last of them, which closes the store.
struct Owner {
    engine: Arc<Engine>,
    /// The background threads. Locked while the store is being closed.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

// A panic leaves nothing half done that a later call relies on: what is shared is behind atomics and locks, user code runs
// outside of both, and a panic in the middle of a change, a checkpoint or a background thread poisons the store.
impl UnwindSafe for Table {}
impl RefUnwindSafe for Table {}

impl Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.engine.path).field("records", &self.len()).finish_non_exhaustive()
    }
}

impl Debug for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Table");
        shown.field("path", &self.engine.path).field("name", &self.name()).field("records", &self.len());
        shown.finish_non_exhaustive()
    }
}

impl Options {
    /// Opens the store, creating or recovering it as need be.
    ///
    /// A clean open reads a few pages; after a crash the log's tail since the last checkpoint is replayed. An open for
    /// writing marks the store as in use before it answers, which takes some syncs. It starts the store's background
    /// threads, or fails.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let path = dir.path().join("sessions.tophash");
    /// use tophash::{Error, Options};
    /// let store = Options::new().create_new(true).open(&path)?;
    /// store.insert("a", "1")?;
    /// // One writer at a time, in this process too.
    /// assert!(matches!(Options::new().open(&path), Err(Error::Locked { .. })));
    /// # Ok::<(), tophash::Error>(())
    /// ```
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

impl Table {
    /// A key of this table.
    fn of<'k>(&'k self, key: &'k [u8], hash: u64) -> KeyOf<'k> {
        KeyOf { table: &self.table, key, hash }
    }

    /// What the engine's calls work on.
    pub(crate) fn map(&self) -> &Arc<map::Table> {
        &self.table
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}

impl Store {
    pub(crate) fn open_with(path: &Path, options: &Options) -> Result<Store> {
        let engine = Arc::new(crate::recovery::open::open(path, options)?);
        let owner = Owner { engine: Arc::clone(&engine), threads: Mutex::default() };
        let table = Arc::clone(engine.tables.main());
        let store = Store { main: Table { engine, table, owner: Arc::new(owner), expiry: Expiry::Never } };
        // If one cannot be started, the store is closed again: an open keeps all its promises or none.
        crate::background::start(&store.main.engine, &mut store.main.owner.threads.lock())?;
        Ok(store)
    }
}
