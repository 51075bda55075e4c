//! Iterators over a store.

use std::fmt;
use std::iter::FusedIterator;

use crate::engine::Engine;
use crate::engine::scan::Scan;
use crate::error::Result;
use crate::store::{Store, Table};
use crate::table as map;
use crate::value::{Entry, Value};

/// The entries of a store. Made by [`Table::iter`], which documents the order and what damage does.
#[must_use = "iterators do nothing unless they are consumed"]
pub struct Iter<'s>(Scan<'s>);

/// The keys of a store. Made by [`Table::keys`].
#[must_use = "iterators do nothing unless they are consumed"]
pub struct Keys<'s>(Scan<'s>);

/// The values of a store. Made by [`Table::values`].
#[must_use = "iterators do nothing unless they are consumed"]
pub struct Values<'s>(Scan<'s>);

/// What the iterators have in common: how they are made, and how they are shown. Behind the last item, and behind the
/// error that ends a scan, each of them returns `None` for good.
macro_rules! iterators {
    ($($name:ident $call:literal),*) => {$(
        impl<'s> $name<'s> {
            pub(crate) fn new(engine: &'s Engine, table: &'s map::Table) -> Self {
                $name(Scan::new(engine, table))
            }

            /// Expired entries that the iterator has passed over so far, and that [`Table::len`] counts until the
            /// compaction removes them. Behind the last item of a store that nobody changes, these and the items are as
            /// many as `len` says.
            ///
            /// ```
            /// # let dir = tempfile::tempdir().unwrap();
            /// # let store = tophash::Store::open(dir.path().join("s"))?;
            /// store.set("lasting", "1")?;
            /// store.expiring(std::time::SystemTime::UNIX_EPOCH).set("over", "2")?;
            #[doc = concat!("let mut all = store.", $call, "();")]
            /// assert_eq!((all.by_ref().count(), all.expired()), (1, 1));
            /// assert_eq!(store.len(), 2);
            /// # Ok::<(), tophash::Error>(())
            /// ```
            #[must_use]
            pub fn expired(&self) -> u64 {
                self.0.expired()
            }
        }

        impl FusedIterator for $name<'_> {}

        impl fmt::Debug for $name<'_> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name)).field("next_page", &self.0.next_page()).finish_non_exhaustive()
            }
        }
    )*};
}

iterators!(Iter "iter", Keys "keys", Values "values");

impl<'s> Iterator for Iter<'s> {
    type Item = Result<Entry<'s>>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next_entry()
    }
}

impl<'s> Iterator for Keys<'s> {
    type Item = Result<Value<'s>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next_key()?.map(Value))
    }
}

impl<'s> Iterator for Values<'s> {
    type Item = Result<Value<'s>>;

    fn next(&mut self) -> Option<Self::Item> {
        Some(self.0.next_entry()?.map(Entry::into_value))
    }
}

impl<'s> IntoIterator for &'s Store {
    type Item = Result<Entry<'s>>;
    type IntoIter = Iter<'s>;

    /// As [`Table::iter`], over the main table.
    fn into_iter(self) -> Iter<'s> {
        self.iter()
    }
}

impl<'s> IntoIterator for &'s Table {
    type Item = Result<Entry<'s>>;
    type IntoIter = Iter<'s>;

    /// As [`Table::iter`].
    fn into_iter(self) -> Iter<'s> {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cursor::Cursor;

    fn sendable<T: Send>(value: T) -> T {
        value
    }

    #[test]
    fn iterators_have_names_and_stay_at_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        for i in 0..100u8 {
            store.insert([i], [i, i]).unwrap();
        }
        let mut seen = 0;
        for entry in &store {
            let entry = entry.unwrap();
            assert_eq!(entry.value(), [entry.key(), entry.key()].concat());
            seen += 1;
        }
        assert_eq!(seen, 100);

        let mut iter: Iter<'_> = sendable(store.iter());
        assert_eq!(format!("{iter:?}"), "Iter { next_page: Some(Cursor(0)), .. }");
        assert_eq!(iter.by_ref().count(), 100);
        assert_eq!(format!("{iter:?}"), "Iter { next_page: None, .. }");
        store.insert("late", "").unwrap();
        assert!(iter.next().is_none() && iter.next().is_none());
        let (keys, values): (Keys<'_>, Values<'_>) = (sendable(store.keys()), sendable(store.values()));
        assert_eq!((keys.count(), values.count()), (101, 101));
    }

    #[test]
    fn cursors_travel_as_numbers_text_and_bytes() {
        let cursors = [0, 1, 255, 256, 1 << 40, u64::MAX - 1, u64::MAX].map(Cursor::from);
        assert_eq!(cursors[0], Cursor::START);
        for pair in cursors.windows(2) {
            assert!(pair[0] < pair[1] && pair[0].to_bytes() < pair[1].to_bytes());
        }
        for cursor in cursors {
            assert_eq!(Cursor::from(u64::from(cursor)), cursor);
            assert_eq!(Cursor::from_bytes(cursor.to_bytes()), cursor);
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        assert!("-1".parse::<Cursor>().is_err() && "18446744073709551616".parse::<Cursor>().is_err());
    }

    #[test]
    fn any_number_is_a_cursor() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path().join("store")).unwrap();
        for i in 0..1000u32 {
            store.insert(i.to_le_bytes(), "").unwrap();
        }
        // Threads that share a scan: each key is in exactly one range.
        let ends = [0, 1, 1 << 62, (1 << 62) + 12_345, 3 << 62, u64::MAX].map(Cursor::from);
        let mut seen = 0;
        for (i, &start) in ends.iter().enumerate() {
            let end = ends.get(i + 1);
            let mut at = Some(start);
            while let Some(from) = at.filter(|from| end.is_none_or(|end| from < end)) {
                // One entry at a time, so that the cursor behind it says whether it is still of this range.
                let (entries, next) = store.scan(from, 1).unwrap();
                let hash = |entry: &Entry<'_>| Cursor::from(store.engine().hasher.hash(entry.key()).reverse_bits());
                seen += entries.iter().filter(|entry| end.is_none_or(|&end| hash(entry) < end)).count();
                at = next;
            }
        }
        assert_eq!(seen, 1000);
    }
}
