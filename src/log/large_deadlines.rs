//! When large values expire. The record that links one is small, so the bytes of records tell nothing of what its end would
//! free. Each is known by itself, because a large value is worth that.
//!
//! Those of an opened store become known when their segments are read, which is done once: see
//! [`Log::opened_large`](super::segments::Log::opened_large).

use std::collections::{BTreeSet, HashMap};

use crate::address::Address;

/// A large value that expires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expiring {
    millis: u64,
    /// Its link.
    address: Address,
    /// Bytes of the value.
    len: u64,
}

/// A segment whose records were not looked at since the open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unread {
    pub(super) sequence: u32,
    /// No record of it expires before.
    pub(super) first: u64,
}

/// The large values that expire.
#[derive(Debug, Default)]
pub(super) struct LargeDeadlines {
    by_id: HashMap<u64, Expiring>,
    by_time: BTreeSet<(u64, u64)>,
    unread: Vec<Unread>,
}

impl LargeDeadlines {
    /// The value of this id expires then, or never.
    pub(super) fn set(&mut self, id: u64, millis: Option<u64>, address: Address, len: u64) {
        self.forget(id);
        if let Some(millis) = millis {
            self.by_id.insert(id, Expiring { millis, address, len });
            self.by_time.insert((millis, id));
        }
    }

    /// No record links the value any more.
    pub(super) fn forget(&mut self, id: u64) {
        if let Some(expiring) = self.by_id.remove(&id) {
            self.by_time.remove(&(expiring.millis, id));
        }
    }

    /// Forgets a value whose link is still at that address.
    pub(super) fn forget_at(&mut self, id: u64, address: Address) {
        if self.by_id.get(&id).is_some_and(|expiring| expiring.address == address) {
            self.forget(id);
        }
    }

    /// No record links any value.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Those that are over at a moment, the oldest first.
    fn over(&self, now: u64) -> impl Iterator<Item = (u64, Expiring)> {
        let ids = self.by_time.range(..=(now, u64::MAX)).map(|&(_, id)| id);
        ids.filter_map(|id| Some((id, *self.by_id.get(&id)?)))
    }

    /// Bytes of the values that are over.
    pub(super) fn bytes_over(&self, now: u64) -> u64 {
        self.over(now).map(|(_, expiring)| expiring.len).sum()
    }

    /// Ids of values that are over, and the addresses of their links.
    pub(super) fn links_over(&self, now: u64, most: usize) -> Vec<(u64, Address)> {
        self.over(now).take(most).map(|(id, expiring)| (id, expiring.address)).collect()
    }

    /// When so many bytes will be over, or all that there are; or when a segment is to be read.
    pub(super) fn next(&self, bytes: u64) -> Option<u64> {
        let mut sum = 0;
        let mut moment = None;
        for &(millis, id) in &self.by_time {
            moment = Some(millis);
            sum += self.by_id.get(&id).map_or(0, |expiring| expiring.len);
            if sum >= bytes {
                break;
            }
        }
        moment.into_iter().chain(self.unread.iter().map(|unread| unread.first)).min()
    }

    /// Notes a segment of an opened store.
    pub(super) fn open(&mut self, unread: Unread) {
        self.unread.push(unread);
    }

    /// True if nothing is known that expires.
    pub(super) fn is_empty(&self) -> bool {
        self.by_id.is_empty() && self.unread.is_empty()
    }

    /// Takes a segment that is to be read at that moment.
    pub(super) fn take_unread(&mut self, now: u64) -> Option<Unread> {
        let at = self.unread.iter().position(|unread| unread.first <= now)?;
        Some(self.unread.swap_remove(at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_over_at_their_moments() {
        let mut all = LargeDeadlines::default();
        let at = |n: u64| Address::new(1, n * 8);
        assert!(all.is_empty() && all.next(1).is_none());
        (0..10u64).for_each(|id| all.set(id, Some(100 - id), at(id), 50));
        assert_eq!((all.bytes_over(90), all.bytes_over(95), all.bytes_over(100)), (0, 250, 500));
        assert_eq!(all.links_over(93, 2), [(9, at(9)), (8, at(8))]);
        assert_eq!((all.next(1), all.next(120), all.next(1 << 30)), (Some(91), Some(93), Some(100)));
        // Moved, prolonged, superseded.
        all.set(9, Some(91), at(50), 50);
        all.forget_at(9, at(9));
        assert_eq!(all.links_over(91, 9), [(9, at(50))]);
        all.set(9, Some(500), at(51), 50);
        all.set(8, None, at(52), 50);
        all.forget(7);
        assert_eq!((all.bytes_over(93), all.bytes_over(100), all.bytes_over(500)), (0, 350, 400));
        all.open(Unread { sequence: 3, first: 40 });
        assert_eq!(
            (all.next(1), all.take_unread(39), all.take_unread(40)),
            (Some(40), None, Some(Unread { sequence: 3, first: 40 }))
        );
        all.clear();
        assert!(all.is_empty() && all.bytes_over(u64::MAX) == 0);
    }
}
