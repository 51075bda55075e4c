//! Iterators over typed tables.

use std::fmt;
use std::iter::FusedIterator;

use super::TypedTable;
use crate::codec::Codec;
use crate::error::Result;
use crate::iter::{Iter, Keys};

/// The entries of a typed table. Made by [`TypedTable::iter`].
#[must_use = "iterators do nothing unless they are consumed"]
pub struct TypedIter<'t, K: ?Sized, V: ?Sized> {
    typed: &'t TypedTable<K, V>,
    entries: Iter<'t>,
}

/// The keys of a typed table. Made by [`TypedTable::keys`].
#[must_use = "iterators do nothing unless they are consumed"]
pub struct TypedKeys<'t, K: ?Sized, V: ?Sized> {
    typed: &'t TypedTable<K, V>,
    keys: Keys<'t>,
}

/// The values of a typed table. Made by [`TypedTable::values`].
#[must_use = "iterators do nothing unless they are consumed"]
pub struct TypedValues<'t, K: ?Sized, V: ?Sized> {
    typed: &'t TypedTable<K, V>,
    entries: Iter<'t>,
}

impl<'t, K: Codec + ?Sized, V: Codec + ?Sized> TypedIter<'t, K, V> {
    pub(super) fn new(typed: &'t TypedTable<K, V>) -> Self {
        TypedIter { typed, entries: typed.table.iter() }
    }
}

impl<'t, K: Codec + ?Sized, V: Codec + ?Sized> TypedKeys<'t, K, V> {
    pub(super) fn new(typed: &'t TypedTable<K, V>) -> Self {
        TypedKeys { typed, keys: typed.table.keys() }
    }
}

impl<'t, K: Codec + ?Sized, V: Codec + ?Sized> TypedValues<'t, K, V> {
    pub(super) fn new(typed: &'t TypedTable<K, V>) -> Self {
        TypedValues { typed, entries: typed.table.iter() }
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Iterator for TypedIter<'_, K, V> {
    type Item = Result<(K::Owned, V::Owned)>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(entry.and_then(|entry| {
            let value = self.typed.decode_value(entry.key(), entry.value())?;
            Ok((K::into_owned(self.typed.decode_key(entry.key())?), V::into_owned(value)))
        }))
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Iterator for TypedKeys<'_, K, V> {
    type Item = Result<K::Owned>;

    fn next(&mut self) -> Option<Self::Item> {
        let key = self.keys.next()?;
        Some(key.and_then(|key| Ok(K::into_owned(self.typed.decode_key(&key)?))))
    }
}

impl<K: Codec + ?Sized, V: Codec + ?Sized> Iterator for TypedValues<'_, K, V> {
    type Item = Result<V::Owned>;

    fn next(&mut self) -> Option<Self::Item> {
        let entry = self.entries.next()?;
        Some(entry.and_then(|entry| Ok(V::into_owned(self.typed.decode_value(entry.key(), entry.value())?))))
    }
}

impl<'t, K: Codec + ?Sized, V: Codec + ?Sized> IntoIterator for &'t TypedTable<K, V> {
    type Item = Result<(K::Owned, V::Owned)>;
    type IntoIter = TypedIter<'t, K, V>;

    fn into_iter(self) -> TypedIter<'t, K, V> {
        self.iter()
    }
}

/// Behind the last item, and behind the error that ends a scan, each of them returns `None` for good.
macro_rules! iterators {
    ($($name:ident $inner:ident),*) => {$(
        impl<K: Codec + ?Sized, V: Codec + ?Sized> FusedIterator for $name<'_, K, V> {}

        impl<K: ?Sized, V: ?Sized> fmt::Debug for $name<'_, K, V> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_tuple(stringify!($name)).field(&self.$inner).finish()
            }
        }
    )*};
}

iterators!(TypedIter entries, TypedKeys keys, TypedValues entries);
