//! Changes of typed tables in batches.

use std::fmt;

use super::TypedTable;
use crate::batch::Batch;
use crate::codec::Codec;
use crate::error::Result;
use crate::expiry::Expiry;

impl Batch {
    /// Adds changes of a typed table to the batch.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let (names, ids) = (store.table_of::<u64, str>("names")?, store.table_of::<str, u64>("ids")?);
    /// let mut batch = tophash::Batch::new();
    /// batch.typed(&names).insert(&7, "Ada")?;
    /// batch.typed(&ids).insert("Ada", &7)?;
    /// // Both or none, whatever happens.
    /// store.apply(&batch)?;
    /// assert_eq!((names.get(&7)?.as_deref(), ids.get("Ada")?), (Some("Ada"), Some(7)));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn typed<'b, K: ?Sized, V: ?Sized>(&'b mut self, table: &'b TypedTable<K, V>) -> TypedChanges<'b, K, V> {
        TypedChanges { batch: self, table }
    }
}

/// Adds changes of one typed table to a batch. Made by [`Batch::typed`].
#[must_use = "it only adds what its calls say"]
pub struct TypedChanges<'b, K: ?Sized, V: ?Sized> {
    batch: &'b mut Batch,
    table: &'b TypedTable<K, V>,
}

impl<K: ?Sized, V: ?Sized> fmt::Debug for TypedChanges<'_, K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TypedChanges").field("batch", &self.batch).finish_non_exhaustive()
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> TypedChanges<'_, K, V> {
    /// Adds "set `key` to `value`". See [`Batch::insert`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// let mut batch = tophash::Batch::new();
    /// batch.typed(&ages).insert("Ada", &36)?.insert("Grace", &45)?;
    /// store.apply(&batch)?;
    /// assert_eq!(ages.len(), 2);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode). Nothing is added then.
    pub fn insert(&mut self, key: &K::Item, value: &V::Item) -> Result<&mut Self> {
        let (key, value) = (self.table.key(key)?, self.table.value(value)?);
        _ = self.batch.table(&self.table.table).insert(key, value);
        Ok(self)
    }

    /// Adds "set `key` to `value`, which expires". See [`Batch::insert_expiring`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use std::time::Duration;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// let mut batch = tophash::Batch::new();
    /// batch.typed(&ages).insert_expiring("Ada", &36, Duration::from_secs(60))?;
    /// store.apply(&batch)?;
    /// assert!(ages.expires_at("Ada")?.is_some());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode). Nothing is added then.
    pub fn insert_expiring(&mut self, key: &K::Item, value: &V::Item, expiry: impl Into<Expiry>) -> Result<&mut Self> {
        let (key, value) = (self.table.key(key)?, self.table.value(value)?);
        _ = self.batch.table(&self.table.table).insert_expiring(key, value, expiry);
        Ok(self)
    }

    /// Adds "remove `key`". See [`Batch::remove`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// let mut batch = tophash::Batch::new();
    /// batch.typed(&ages).remove("Ada")?;
    /// store.apply(&batch)?;
    /// assert!(ages.is_empty());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`](crate::Error::Encode). Nothing is added then.
    pub fn remove(&mut self, key: &K::Item) -> Result<&mut Self> {
        let key = self.table.key(key)?;
        _ = self.batch.table(&self.table.table).remove(key);
        Ok(self)
    }
}
