//! Whether a store says how many entries it has.

use tophash::{Store, Table};

/// True if `len` agrees with a number of entries. Expired ones count until they are removed from the index.
#[must_use]
pub fn counts(store: &Store, entries: u64) -> bool {
    counts_of(store, store, entries)
}

/// The same for a table of the store.
#[must_use]
pub fn counts_of(store: &Store, table: &Table, entries: u64) -> bool {
    // First: the background removes an expired entry from the index, and then counts it as dead. A look in the other order saw three
    // entries of two, and none that expires.
    let expires = store.stats().log.expiring_bytes > 0;
    let len = table.len();
    len == entries || (len > entries && expires)
}
