//! Expiry: handles whose writes expire, and the deadlines of keys.

use std::time::SystemTime;

use super::{Store, Table};
use crate::awaited::Wait;
use crate::durable::Durable;
use crate::engine::Until;
use crate::engine::write::{Expect, New, Want};
use crate::error::Result;
use crate::expiry::{Deadline, Expiry};

impl Table {
    /// A handle to the same store whose writes expire: [`insert`](Table::insert), [`set`](Table::set),
    /// [`compare_exchange`](Table::compare_exchange), [`get_or_insert_with`](Table::get_or_insert_with),
    /// [`update`](Table::update), and those that are like them. A batch has its own deadlines
    /// ([`Batch::insert_expiring`](crate::Batch::insert_expiring)).
    ///
    /// An expired key is absent for every call at once, whether or not its space has come back. Space comes back by itself, also
    /// if nobody calls: the compaction counts expired records as dead from their deadline on, as far as the log's bound lets
    /// it ([`Options::log_ratio`](crate::Options::log_ratio)). Until then [`len`](Table::len) counts them.
    ///
    /// A record with a deadline takes 8 bytes more. One without takes nothing more, in the log, in memory, and in time.
    ///
    /// Deadlines are times of the system's clock, kept to the millisecond across restarts. If the clock is put forward, records
    /// expire early, and those that were removed meanwhile stay so. If it is put back, what was not removed yet is there
    /// again, and lives longer by as much.
    ///
    /// Through a handle without expiry, which [`Options::open`](crate::Options::open) returns, `insert` and `set` take a
    /// deadline away, and `update` keeps it. Through this one each of them gives the key a new deadline.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::{Duration, SystemTime};
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// let sessions = store.expiring(Duration::from_secs(30 * 60));
    /// sessions.set("session:7", "Ada")?;
    /// assert!(store.expires_at("session:7")?.unwrap() > SystemTime::now());
    /// // A deadline that has passed.
    /// store.expiring(SystemTime::UNIX_EPOCH).set("session:7", "Ada")?;
    /// assert!(store.get("session:7")?.is_none());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn expiring(&self, expiry: impl Into<Expiry>) -> Table {
        Table { expiry: expiry.into(), ..self.clone() }
    }

    /// When what this handle writes expires.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// assert_eq!(store.expiry(), tophash::Expiry::Never);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn expiry(&self) -> Expiry {
        self.expiry
    }

    /// Gives a key another deadline, or none, and leaves its value. Returns false if the key is absent. Costs a write of the
    /// record; a value of more than 256 KiB is not copied.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.set("session:7", "Ada")?;
    /// // At each request: half an hour from now.
    /// assert!(store.expire("session:7", Duration::from_secs(30 * 60))?);
    /// assert!(!store.expire("session:8", Duration::from_secs(30 * 60))?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`insert`](Table::insert).
    pub fn expire(&self, key: impl AsRef<[u8]>, expiry: impl Into<Expiry>) -> Result<bool> {
        Ok(self.expire_until(Until::Policy, key.as_ref(), expiry.into())?.0)
    }

    /// Gives a key another deadline, or none, as [`expire`](Table::expire), and returns at once: the future is ready when that
    /// is durable. Its output is false if the key is absent; then nothing is written, and the future is ready when all earlier
    /// writes are durable.
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.set("session:7", "Ada")?;
    /// assert!(block_on(store.expire_async("session:7", std::time::Duration::from_secs(30 * 60)))?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// Of the future: those of [`expire`](Table::expire), and those of [`Durable`].
    pub fn expire_async(&self, key: impl AsRef<[u8]>, expiry: impl Into<Expiry>) -> Durable<bool> {
        self.durable(|_| self.expire_until(Until::Asked, key.as_ref(), expiry.into()))
    }

    /// Takes a key's deadline away. Returns false if the key is absent.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// store.expiring(Duration::from_secs(60)).set("draft:1", "text")?;
    /// assert!(store.persist("draft:1")?);
    /// assert!(store.expires_at("draft:1")?.is_none() && store.contains_key("draft:1")?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`insert`](Table::insert).
    pub fn persist(&self, key: impl AsRef<[u8]>) -> Result<bool> {
        self.expire(key, Expiry::Never)
    }

    /// When a key expires. `None` if it does not, or is absent.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::{Duration, SystemTime};
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// let noon = SystemTime::UNIX_EPOCH + Duration::from_secs(32_503_723_200);
    /// store.expiring(noon).set("offer:1", "half price")?;
    /// assert_eq!(store.expires_at("offer:1")?, Some(noon));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As for [`get`](Table::get).
    pub fn expires_at(&self, key: impl AsRef<[u8]>) -> Result<Option<SystemTime>> {
        let key = key.as_ref();
        let found = self.engine.find(&self.table, key, self.engine.hasher.hash(key))?;
        Ok(found.and_then(|hit| hit.deadline().time()))
    }

    fn expire_until(&self, until: Until, key: &[u8], expiry: Expiry) -> Result<(bool, Option<Wait>)> {
        let engine = &self.engine;
        let hash = engine.hasher.hash(key);
        let deadline = expiry.deadline(|| engine.log.now());
        loop {
            let Some(hit) = engine.find(&self.table, key, hash)? else { return Ok((false, None)) };
            engine.check_whole(&hit)?;
            // Pinned by the hit or by the value, the address stands for the record.
            let expect = Expect::At(hit.address());
            let change = |new| engine.change_until(until, self.of(key, hash), new, expect, Want::Nothing);
            let changed = match hit.blob() {
                Some(link) => change(New::Relinked(link, deadline))?,
                None => change(New::Put(&hit.value(), deadline))?,
            };
            let (done, wait) = (changed.done, changed.wait);
            if done {
                return Ok((true, wait));
            }
        }
    }

    /// The deadline of a value that this handle writes.
    #[inline]
    pub(super) fn deadline(&self) -> Deadline {
        self.expiry.deadline(|| self.engine.log.now())
    }
}

impl Store {
    /// A handle to the same store whose writes to the main table expire: [`Table::expiring`] tells what that means.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// use std::time::Duration;
    /// let store = tophash::Store::open(dir.path().join("s"))?;
    /// let cache = store.expiring(Duration::from_secs(60));
    /// cache.set("page:1", "<html>")?;
    /// assert!(store.expires_at("page:1")?.is_some());
    /// // It is the whole store.
    /// cache.checkpoint()?;
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn expiring(&self, expiry: impl Into<Expiry>) -> Store {
        Store { main: self.main.expiring(expiry) }
    }
}
