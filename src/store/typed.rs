//! Typed tables: keys and values go through codecs (codec.rs) on their way to a table of bytes.
//!
//! * **open** makes and finds them, and compares their codecs.
//! * **bytes** has the way from items to bytes and back, with its errors.
//! * **changes** has changes in batches, **expiring** expiry, **iter** the iterators.

mod bytes;
mod changes;
mod expiring;
mod iter;
mod open;

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

pub use self::changes::TypedChanges;
pub use self::iter::{TypedIter, TypedKeys, TypedValues};
#[cfg(doc)]
use super::Store;
use super::Table;
use crate::codec::Codec;
use crate::durable::Durable;
use crate::error::{Error, Result};

/// A table whose keys and values are of types: each call writes and reads them by a [codec](crate::codec).
///
/// Made by [`Store::table_of`], which compares name and version of both codecs with those of the table. Calls that are not here are
/// those of the [`table`](TypedTable::table) of bytes.
///
/// ```
/// # let dir = tempfile::tempdir().unwrap();
/// let store = tophash::Store::open(dir.path().join("s"))?;
/// let visits = store.table_of::<str, u64>("visits")?;
/// for page in ["/", "/about", "/"] {
///     visits.update(page, |count| Some(count.unwrap_or(0) + 1))?;
/// }
/// assert_eq!(visits.get("/")?, Some(2));
///
/// // Other types than the table has are refused.
/// let error = store.table_of::<str, String>("visits").unwrap_err();
/// assert!(matches!(error, tophash::Error::WrongCodec { .. }));
/// # Ok::<(), tophash::Error>(())
/// ```
pub struct TypedTable<K: ?Sized, V: ?Sized> {
    table: Table,
    types: PhantomData<fn(*const K, *const V)>,
}

impl<K: ?Sized, V: ?Sized> Clone for TypedTable<K, V> {
    fn clone(&self) -> Self {
        TypedTable { table: self.table.clone(), types: PhantomData }
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> fmt::Debug for TypedTable<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("TypedTable");
        shown.field("path", &self.table.path()).field("name", &self.table.name());
        shown.field("keys", &K::name()).field("values", &V::name()).field("records", &self.table.len());
        shown.finish_non_exhaustive()
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> TypedTable<K, V> {
    /// The table of bytes, with all its calls.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let names = store.table_of::<u64, str>("names")?;
    /// names.table().reserve(100_000)?;
    /// assert_eq!(names.table().name().as_deref(), Some("names"));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The value of a key.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!((ages.get("Ada")?, ages.get("Grace")?), (Some(36), None));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::Decode`], those of [`Table::get`].
    pub fn get(&self, key: &K::Item) -> Result<Option<V::Owned>> {
        self.read(key, |value| V::into_owned(value))
    }

    /// What a function makes of a key's value, which it reads in place where the codec can. `None` if the key is absent.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let pages = store.table_of::<str, str>("pages")?;
    /// pages.set("/", "<html>...</html>")?;
    /// assert_eq!(pages.read("/", |page| page.len())?, Some(16));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](TypedTable::get).
    pub fn read<R>(&self, key: &K::Item, read: impl FnOnce(V::Read<'_>) -> R) -> Result<Option<R>> {
        let key = self.key(key)?;
        let Some(value) = self.table.get(key.as_ref())? else { return Ok(None) };
        Ok(Some(read(self.decode_value(key.as_ref(), &value)?)))
    }

    /// The values of many keys, in the order of the keys. About their cost: [`Table::get_many`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!(ages.get_many(["Ada", "Grace"])?, [Some(36), None]);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`get`](TypedTable::get).
    pub fn get_many<'k>(&self, keys: impl IntoIterator<Item = &'k K::Item>) -> Result<Vec<Option<V::Owned>>>
    where
        K::Item: 'k,
    {
        let keys: Vec<_> = keys.into_iter().map(|key| self.key(key)).collect::<Result<_>>()?;
        let values = self.table.get_many(&keys)?;
        let decoded = keys.iter().zip(values).map(|(key, value)| self.owned_value(key.as_ref(), value.as_deref()));
        decoded.collect()
    }

    /// True if the key is in the table.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert!(ages.contains_key("Ada")? && !ages.contains_key("Grace")?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], those of [`Table::contains_key`].
    pub fn contains_key(&self, key: &K::Item) -> Result<bool> {
        self.table.contains_key(self.key(key)?)
    }

    /// Sets a key to a value; returns the value that it had before. See [`Table::insert`] for what a crash leaves.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// assert_eq!((ages.insert("Ada", &36)?, ages.insert("Ada", &37)?), (None, Some(36)));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], and those of [`Table::insert`]: nothing has changed then. [`Error::Decode`] if the value from before cannot
    /// be read: the new one is there then.
    pub fn insert(&self, key: &K::Item, value: &V::Item) -> Result<Option<V::Owned>> {
        let key = self.key(key)?;
        let before = self.table.insert(key.as_ref(), self.value(value)?)?;
        self.owned_value(key.as_ref(), before.as_deref())
    }

    /// Sets a key to a value, and does not read the value that it had. See [`Table::set`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!(ages.get("Ada")?, Some(36));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], those of [`Table::set`].
    pub fn set(&self, key: &K::Item, value: &V::Item) -> Result<()> {
        self.table.set(self.key(key)?, self.value(value)?)
    }

    /// Sets a key to a value, and returns at once: the future is ready when the change is durable. See [`Table::set_async`].
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// block_on(ages.set_async("Ada", &36))?;
    /// assert_eq!(ages.get("Ada")?, Some(36));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// The future's: [`Error::Encode`], those of [`Table::set_async`].
    pub fn set_async(&self, key: &K::Item, value: &V::Item) -> Durable {
        match self.key(key).and_then(|key| Ok((key, self.value(value)?))) {
            Ok((key, value)) => self.table.set_async(key, value),
            Err(error) => Durable::new(Err(error)),
        }
    }

    /// Removes a key; returns the value that it had. See [`Table::remove`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!((ages.remove("Ada")?, ages.remove("Ada")?), (Some(36), None));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], those of [`Table::remove`]. [`Error::Decode`] if the value cannot be read: it is removed then.
    pub fn remove(&self, key: &K::Item) -> Result<Option<V::Owned>> {
        let key = self.key(key)?;
        let before = self.table.remove(key.as_ref())?;
        self.owned_value(key.as_ref(), before.as_deref())
    }

    /// Removes a key, and does not read the value that it had. Returns whether the key was there.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert!(ages.delete("Ada")? && !ages.delete("Ada")?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], those of [`Table::delete`].
    pub fn delete(&self, key: &K::Item) -> Result<bool> {
        self.table.delete(self.key(key)?)
    }

    /// Removes a key, and returns at once: the future is ready when the removal is durable. See [`Table::delete_async`].
    ///
    /// ```
    #[doc = include_str!("block_on.txt")]
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert!(block_on(ages.delete_async("Ada"))?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// The future's: [`Error::Encode`], those of [`Table::delete_async`].
    pub fn delete_async(&self, key: &K::Item) -> Durable<bool> {
        match self.key(key) {
            Ok(key) => self.table.delete_async(key),
            Err(error) => Durable::new(Err(error)),
        }
    }

    /// Replaces a key's value by a function of it, `None` removes the key. Returns the new value. If another writer is faster, the
    /// function runs again; see [`Table::update`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let stock = store.table_of::<str, u32>("stock")?;
    /// stock.set("apples", &1)?;
    /// let take = |left: Option<u32>| left.and_then(|left| left.checked_sub(1)).filter(|&left| left > 0);
    /// assert_eq!(stock.update("apples", take)?, None);
    /// assert!(!stock.contains_key("apples")?);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`Error::Encode`], [`Error::Decode`], those of [`Table::update`]. Nothing has changed then.
    pub fn update(
        &self,
        key: &K::Item,
        mut change: impl FnMut(Option<V::Owned>) -> Option<V::Owned>,
    ) -> Result<Option<V::Owned>> {
        self.try_update(key, |old| Ok::<_, Error>(change(old)))
    }

    /// As [`update`](TypedTable::update), with a function that can fail. Its error ends the call, and nothing has changed then.
    /// About the error type: [`Table::try_update`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// use std::error::Error;
    /// let stock = store.table_of::<str, u32>("stock")?;
    /// let taken = stock.try_update("apples", |left| -> Result<_, Box<dyn Error>> {
    ///     Ok(Some(left.unwrap_or(0).checked_sub(1).ok_or("none left")?))
    /// });
    /// assert_eq!(taken.unwrap_err().to_string(), "none left");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// That of `change`, and those of [`update`](TypedTable::update).
    pub fn try_update<E: From<Error>>(
        &self,
        key: &K::Item,
        mut change: impl FnMut(Option<V::Owned>) -> std::result::Result<Option<V::Owned>, E>,
    ) -> std::result::Result<Option<V::Owned>, E> {
        let key = self.key(key)?;
        let mut stored = None;
        self.table.try_update(key.as_ref(), |old| {
            stored = change(self.owned_value(key.as_ref(), old)?)?;
            let encode = |new: &V::Owned| self.value(new.borrow()).map(|bytes| bytes.as_ref().to_vec());
            Ok::<_, E>(stored.as_ref().map(encode).transpose()?)
        })?;
        Ok(stored)
    }

    /// The value of a key; if it is absent, it is first set to what `make` returns. See [`Table::get_or_insert_with`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ids = store.table_of::<str, u64>("ids")?;
    /// assert_eq!(ids.get_or_insert_with("Ada", || 7)?, 7);
    /// assert_eq!(ids.get_or_insert_with("Ada", || 8)?, 7);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`update`](TypedTable::update).
    pub fn get_or_insert_with(&self, key: &K::Item, make: impl FnOnce() -> V::Owned) -> Result<V::Owned> {
        let key = self.key(key)?;
        let encode = || self.value(make().borrow()).map(|bytes| bytes.as_ref().to_vec());
        let value = self.table.try_get_or_insert_with(key.as_ref(), encode)?;
        Ok(V::into_owned(self.decode_value(key.as_ref(), &value)?))
    }

    /// Changes a key only if it has the expected value (`None`: is absent). `new` is the new value, `None` to remove the key.
    /// Returns `Ok(Err(_))` with what was there instead, and changes nothing then. Values are compared as bytes.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let owners = store.table_of::<str, u64>("owners")?;
    /// assert_eq!(owners.compare_exchange("lock", None, Some(&1))?, Ok(()));
    /// assert_eq!(owners.compare_exchange("lock", None, Some(&2))?, Err(Some(1)));
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`update`](TypedTable::update).
    pub fn compare_exchange(
        &self,
        key: &K::Item,
        expected: Option<&V::Item>,
        new: Option<&V::Item>,
    ) -> Result<std::result::Result<(), Option<V::Owned>>> {
        let (key, expected) = (self.key(key)?, expected.map(|value| self.value(value)).transpose()?);
        let new = new.map(|value| self.value(value)).transpose()?;
        let (expected, new) = (expected.as_ref().map(AsRef::as_ref), new.as_ref().map(AsRef::as_ref));
        match self.table.compare_exchange(key.as_ref(), expected, new)? {
            Ok(()) => Ok(Ok(())),
            Err(refused) => Ok(Err(self.owned_value(key.as_ref(), refused.current.as_deref())?)),
        }
    }

    /// All entries, in no order. What cannot be read is an error in its place, and the iteration goes on; see [`Table::iter`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// let all: Vec<(String, u8)> = ages.iter().collect::<tophash::Result<_>>()?;
    /// assert_eq!(all, [("Ada".to_string(), 36)]);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn iter(&self) -> TypedIter<'_, K, V> {
        TypedIter::new(self)
    }

    /// All keys, in no order. See [`iter`](TypedTable::iter).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!(ages.keys().next().unwrap()?, "Ada");
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn keys(&self) -> TypedKeys<'_, K, V> {
        TypedKeys::new(self)
    }

    /// All values, in no order. See [`iter`](TypedTable::iter).
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!(ages.values().next().unwrap()?, 36);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    pub fn values(&self) -> TypedValues<'_, K, V> {
        TypedValues::new(self)
    }

    /// How many entries there are. See [`Table::len`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// assert_eq!(ages.len(), 1);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn len(&self) -> u64 {
        self.table.len()
    }

    /// True if there are none.
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// assert!(ages.is_empty());
    /// # Ok::<(), tophash::Error>(())
    /// ```
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Removes all entries. See [`Table::clear`].
    ///
    /// ```
    /// # let dir = tempfile::tempdir().unwrap();
    /// # let store = tophash::Store::open(dir.path().join("s"))?;
    /// let ages = store.table_of::<str, u8>("ages")?;
    /// ages.set("Ada", &36)?;
    /// ages.clear()?;
    /// assert_eq!(ages.get("Ada")?, None);
    /// # Ok::<(), tophash::Error>(())
    /// ```
    ///
    /// # Errors
    /// Those of [`Table::clear`].
    pub fn clear(&self) -> Result<()> {
        self.table.clear()
    }
}
