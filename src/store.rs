//! The public handle. Its calls are short texts on top of the engine.
//!
//! * **key** has those from open to close, one key at a time.
//! * **many** has the calls for many keys: batches, removals, iteration.
//! * **asynchronous** has changes whose durability is awaited without a thread.
//! * **expiring** has those about expiry.
//! * **upkeep** has those for the store as a whole: room, space, durability, figures.
//! * **close** is what ends a store for all of its handles.

// rustdoc shows the calls in this order.
mod key;
mod many;

mod asynchronous;
mod expiring;

mod upkeep;

mod close;
mod exchange;

use std::fmt::{self, Debug};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

pub use self::exchange::CompareExchangeError;
use crate::engine::Engine;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::expiry::Expiry;
use crate::options::Options;
use crate::sync::{JoinHandle, Mutex};

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
    engine: Arc<Engine>,
    owner: Arc<Owner>,
    /// When what this handle writes expires.
    expiry: Expiry,
}

/// What the handles of a store share beside the engine. Dropped with the last of them, which closes the store.
struct Owner {
    engine: Arc<Engine>,
    /// The background threads. Locked while the store is being closed.
    threads: Mutex<Vec<JoinHandle<()>>>,
}

// A panic leaves nothing half done that a later call relies on: what is shared is behind atomics and locks, user code runs
// outside of both, and a panic in the middle of a change, a checkpoint or a background thread poisons the store.
impl UnwindSafe for Store {}
impl RefUnwindSafe for Store {}

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

impl Store {
    pub(crate) fn open_with(path: &Path, options: &Options) -> Result<Store> {
        let engine = Arc::new(crate::recovery::open::open(path, options)?);
        let owner = Owner { engine: Arc::clone(&engine), threads: Mutex::default() };
        let store = Store { engine, owner: Arc::new(owner), expiry: Expiry::Never };
        // If one cannot be started, the store is closed again: an open keeps all its promises or none.
        crate::background::start(&store.engine, &mut store.owner.threads.lock())?;
        Ok(store)
    }

    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }
}
