//! The corruption layer: stores whose files were damaged, and everything that can be done with them.
//!
//! * [`anatomy`]: what docs/FORMAT.md says, written down once more: where the structures of a store's files lie,
//!   and how their checksums are mended.
//! * [`base`]: the stores that are damaged, with what may be in them.
//! * [`plain`]: single bits and truncations, checksums as they are. [`mutants`]: structures that are wrong, with
//!   checksums that are right.
//! * [`exercise`]: one damaged store is opened, read, checked, changed, repaired. `judge`: what it may answer.
//! * [`run`]: many cases on a few threads, with a watchdog.
//!
//! What must be true of every case: no panic, no hang, no more memory than a small store needs, and no wrong
//! value. A read returns what the store held, an error, or, where a mutant has mended checksums, that the
//! key is absent. A flipped bit or a truncation without mended checksums is never silent, but for what a crash
//! leaves too: the end of the log behind the last durable LSN.

pub mod anatomy;
pub mod base;
pub mod exercise;
pub mod judge;
pub mod mutants;
pub mod plain;
pub mod run;

use std::collections::BTreeMap;

/// What a damaged store may answer without telling of an error.
#[derive(Debug, Clone, Default)]
pub struct Licence {
    /// Keys may be absent: what leads to them was changed and has a right checksum.
    pub absent: bool,
    /// Keys may have earlier values: what tells the newest from the rest was changed and has a right checksum.
    pub stale: bool,
    /// The log may end earlier, behind the last checkpoint: its end was cut off.
    pub shorter: bool,
    /// Keys may have any value: nobody knows what was made of the records.
    pub anything: bool,
    /// Values that the damage itself has made, with right checksums.
    pub made: BTreeMap<Vec<u8>, Vec<Vec<u8>>>,
}

impl Licence {
    /// Both of two licences.
    #[must_use]
    pub fn and(mut self, other: Licence) -> Self {
        self.absent |= other.absent;
        self.stale |= other.stale;
        self.shorter |= other.shorter;
        self.anything |= other.anything;
        for (key, values) in other.made {
            self.made.entry(key).or_default().extend(values);
        }
        self
    }
}
