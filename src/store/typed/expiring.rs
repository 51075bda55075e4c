//! Expiry of typed records.

use std::marker::PhantomData;
use std::time::SystemTime;

use super::TypedTable;
use crate::codec::Codec;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::expiry::Expiry;
#[cfg(doc)]
use crate::store::Table;

impl<K: Codec + ?Sized, V: Codec + ?Sized> TypedTable<K, V> {
    /// A handle whose writes expire. See [`Table::expiring`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use std::time::Duration;
    /// let sessions = store.table_of::<str, u64>("sessions")?.expiring(Duration::from_secs(1800));
    /// sessions.set("token", &7)?;
    /// assert!(sessions.expires_at("token")?.is_some());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn expiring(&self, expiry: impl Into<Expiry>) -> Self {
        TypedTable { table: self.table.expiring(expiry), types: PhantomData }
    }

    /// Gives a key another deadline. Returns whether the key is there. See [`Table::expire`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use std::time::Duration;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert!(ages.expire("Ada", Duration::from_secs(60))?);
    /// assert!(!ages.expire("Grace", Duration::from_secs(60))?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], those of [`Table::expire`].
    pub fn expire(&self, key: &K::Item, expiry: impl Into<Expiry>) -> Result<bool> {
        self.table.expire(self.key(key)?, expiry)
    }

    /// When a key expires. `None` if it does not, or is absent. See [`Table::expires_at`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!(ages.expires_at("Ada")?, None);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], those of [`Table::expires_at`].
    pub fn expires_at(&self, key: &K::Item) -> Result<Option<SystemTime>> {
        self.table.expires_at(self.key(key)?)
    }
}
