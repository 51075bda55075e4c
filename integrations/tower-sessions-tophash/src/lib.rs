#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]
#![warn(missing_debug_implementations)]

mod encoding;

use std::time::SystemTime;

use async_trait::async_trait;
use tophash::Store;
use tower_sessions_core::session::{Id, Record};
use tower_sessions_core::session_store::{Error, Result};
use tower_sessions_core::{ExpiredDeletion, SessionStore};

/// Ids that `create` tries. Further collisions come from a broken generator, because an id has 128 random bits.
const TRIES: usize = 16;

/// What `create`, `save` and `delete` wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Durability {
    /// A sync of the change, whatever the store's policy says. The task waits, and no thread: see
    /// [`Durable`](tophash::Durable).
    ///
    /// A call that returned survives a power failure.
    #[default]
    Awaited,
    /// What the store's [`SyncPolicy`](tophash::SyncPolicy) says.
    ///
    /// With `Every`, the default of a store, a power failure takes about the last interval's sessions. The death of the process
    /// takes none. With `Always` the call blocks its thread for a sync, so [`Awaited`](Durability::Awaited) fits better there.
    Policy,
}

/// A session store in a tophash store.
///
/// A clone is another handle to the same sessions. The tophash store may hold other keys too, and more sessions under another
/// [prefix](TophashStore::with_prefix).
///
/// * **`create`** never replaces a session. If the id is taken, the record gets a new random one. The key and its check are one
///   atomic step, so tasks that create at once never share an id.
/// * **`save`** replaces a session with its deadline, or makes it, if it is absent. `CachingSessionStore` fills its
///   cache by that.
/// * **`load`** returns `None` for an absent session, and for an expired one from its deadline on.
/// * **`delete`** removes a session. It succeeds if there is none, and then waits until an earlier removal is durable.
///
/// The calls work with every executor. A future that is dropped takes nothing back: what it has changed stays.
///
/// # Expiry
///
/// The store keeps the expiry date as the record's deadline, to the millisecond and across restarts. It gives the space of
/// expired sessions back by itself. A session with a date before now is absent at once.
///
/// [`ExpiredDeletion`] is there for code that asks for it, and has nothing to do.
///
/// # What blocks
///
/// No call waits for a disk's sync, except with [`Durability::Policy`] and `SyncPolicy::Always`. `load` takes no lock and makes no system
/// call, but it waits for a page fault where the record is not in memory. A session of more than 256 KiB has a file of its
/// own, which `create` and `save` write and sync in the call. tophash's `docs/ASYNC.md` has the figures.
///
/// # Errors
///
/// * `Error::Backend`: the store refuses the call. The text is that of [`tophash::Error`].
/// * `Error::Decode`: the bytes under the session's key are no session, or of a later version of this crate.
/// * `Error::Encode`: a value of the session is nested deeper than 128 levels.
///
/// No text names a session's id, because an id in a log lets its readers take the session over.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use tower_sessions::SessionStore;
/// use tower_sessions::session::{Id, Record};
/// use tower_sessions_tophash::TophashStore;
///
/// let store = tophash::Store::open(dir.path().join("s")).unwrap();
/// let sessions = TophashStore::new(store.clone());
/// let expiry_date = time::OffsetDateTime::now_utc() + time::Duration::hours(1);
/// let mut record = Record { id: Id::default(), data: Default::default(), expiry_date };
/// sessions.create(&mut record).await.unwrap();
/// assert_eq!(sessions.load(&record.id).await.unwrap(), Some(record.clone()));
/// assert!(store.expires_at(sessions.key(&record.id)).unwrap().is_some());
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct TophashStore {
    store: Store,
    prefix: String,
    durability: Durability,
}

impl TophashStore {
    /// The prefix of the keys, unless another one is given: `session/`.
    pub const PREFIX: &str = "session/";

    /// Sessions in a store, under [`PREFIX`](Self::PREFIX), with [`Durability::Awaited`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// let layer = tower_sessions::SessionManagerLayer::new(tower_sessions_tophash::TophashStore::new(store));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn new(store: Store) -> Self {
        TophashStore { store, prefix: Self::PREFIX.into(), durability: Durability::default() }
    }

    /// Another prefix of the keys. Sessions under different prefixes are strangers, also where one prefix begins with another,
    /// because all ids have the same length. A prefix has up to 65,513 bytes, because a key has up to 65,535.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use tower_sessions_tophash::TophashStore;
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// let staff = TophashStore::new(store.clone()).with_prefix("staff/");
    /// let guests = TophashStore::new(store).with_prefix("guests/");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn with_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// What `create`, `save` and `delete` wait for.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use tower_sessions_tophash::{Durability, TophashStore};
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let sessions = TophashStore::new(store).with_durability(Durability::Policy);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn with_durability(mut self, durability: Durability) -> Self {
        self.durability = durability;
        self
    }

    /// The key of a session in the tophash store: the prefix, and the id as the cookie has it.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # use tower_sessions_tophash::TophashStore;
    /// let sessions = TophashStore::new(tophash::Store::open(dir.path().join("s"))?);
    /// let id = "AQAAAAAAAAAAAAAAAAAAAA".parse().unwrap();
    /// assert_eq!(sessions.key(&id), "session/AQAAAAAAAAAAAAAAAAAAAA");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn key(&self, id: &Id) -> String {
        format!("{}{id}", self.prefix)
    }

    /// A handle whose writes expire with the record. The store rounds the time up to a millisecond, takes 1970 for what is
    /// earlier, and keeps every later date that `OffsetDateTime` has.
    fn expiring(&self, record: &Record) -> Store {
        self.store.expiring(SystemTime::from(record.expiry_date))
    }
}

#[async_trait]
impl SessionStore for TophashStore {
    async fn create(&self, record: &mut Record) -> Result<()> {
        let value = encoding::encode(record)?;
        let store = self.expiring(record);
        for _ in 0..TRIES {
            let key = self.key(&record.id);
            let created = match self.durability {
                Durability::Awaited => store.compare_exchange_async(key, None, Some(&value)).await,
                Durability::Policy => store.compare_exchange(key, None, Some(&value)),
            };
            if created.map_err(backend)?.is_ok() {
                return Ok(());
            }
            record.id = Id::default();
        }
        Err(Error::Backend(format!(
            "{TRIES} session ids in a row are taken; the generator of random numbers repeats itself"
        )))
    }

    async fn save(&self, record: &Record) -> Result<()> {
        let (key, value) = (self.key(&record.id), encoding::encode(record)?);
        let store = self.expiring(record);
        let saved = match self.durability {
            Durability::Awaited => store.set_async(key, value).await,
            Durability::Policy => store.set(key, value),
        };
        saved.map_err(backend)
    }

    async fn load(&self, id: &Id) -> Result<Option<Record>> {
        match self.store.get(self.key(id)).map_err(backend)? {
            Some(value) => encoding::decode(*id, &value).map(Some),
            None => Ok(None),
        }
    }

    async fn delete(&self, id: &Id) -> Result<()> {
        let key = self.key(id);
        match self.durability {
            Durability::Awaited => {
                // Absent it may be by another task's removal, which is not durable yet. The sync covers that.
                if !self.store.delete_async(key).await.map_err(backend)? {
                    self.store.sync_async().await.map_err(backend)?;
                }
            }
            Durability::Policy => _ = self.store.delete(key).map_err(backend)?,
        }
        Ok(())
    }
}

/// For code that asks for the trait. A task that calls it does no harm.
#[async_trait]
impl ExpiredDeletion for TophashStore {
    /// Does nothing, because the store gives the space of expired sessions back by itself.
    async fn delete_expired(&self) -> Result<()> {
        Ok(())
    }
}

fn backend(error: tophash::Error) -> Error {
    Error::Backend(error.to_string())
}
