//! Live slots on their way from the index to the log.
//!
//! Slots are checked against records in the order of the log, so they are sorted by address. A store with more of
//! them than are to be held in memory is checked in several passes, each over a range of addresses: the first walk
//! counts how many slots point into each stretch of the log, which decides the ranges.

use std::ops::Range;
use std::path::Path;

use super::state::PAGE;
use crate::address::Address;
use crate::error::Location;
use crate::table::growth::Growth;
use crate::table::page::BUCKET_SLOTS;
use crate::table::slot::Slot;
use crate::table_id::TABLES_MAX;

/// Slots in memory at a time: 24 bytes each.
pub(super) const SLOTS_MAX: usize = 4 << 20;
/// log2 of the stretch of log that slots are counted for, in units of 8 bytes.
const STRETCH_LOG2: u32 = 19;
/// The number of stretches: addresses have 39 bits.
const STRETCHES: usize = 1 << (39 - STRETCH_LOG2);

/// Where a slot stands: page of the index file, and slot in the page.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Spot(u64);

impl Spot {
    pub(super) fn new(page: u64, slot: u32) -> Self {
        Spot(page << 10 | u64::from(slot))
    }

    pub(super) fn page(self) -> u64 {
        self.0 >> 10
    }

    pub(super) fn slot(self) -> u32 {
        (self.0 & 1023) as u32
    }

    /// Where the slot stands in the index file.
    pub(super) fn location(self, path: &Path) -> Location {
        let offset = self.page() * PAGE + 8 * (BUCKET_SLOTS as u64 + u64::from(self.slot()));
        Location { offset: Some(offset), ..Location::page(path, self.page()) }.with_slot(self.slot())
    }
}

/// A live slot of a chain.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) slot: Slot,
    pub(super) spot: Spot,
}

/// A live slot, and what its record has to agree with.
#[derive(Clone, Copy, Debug)]
pub(super) struct LiveSlot {
    pub(super) slot: Slot,
    pub(super) spot: Spot,
    /// Number of the table 16 bits, split base 8 bits, primary page 40 bits.
    owner: u64,
}

/// The bits of a primary page in [`LiveSlot::owner`].
const PAGE_BITS: u32 = 40;

const _: () = assert!(Growth::LEVEL_MAX as u32 + 1 < PAGE_BITS && TABLES_MAX + 1 < 1 << 16);

impl LiveSlot {
    pub(super) fn new(slot: Slot, spot: Spot, table: u16, owner: u64, split_base: u8) -> Self {
        let high = u64::from(table) << 8 | u64::from(split_base);
        LiveSlot { slot, spot, owner: high << PAGE_BITS | owner & ((1 << PAGE_BITS) - 1) }
    }

    /// The number of the table whose page has the slot.
    pub(super) fn table(&self) -> u16 {
        (self.owner >> (PAGE_BITS + 8)) as u16
    }

    /// The primary page whose chain has the slot.
    pub(super) fn owner(&self) -> u64 {
        self.owner & ((1 << PAGE_BITS) - 1)
    }

    /// The split base of the slot's page.
    pub(super) fn split_base(&self) -> u8 {
        (self.owner >> PAGE_BITS) as u8
    }

    pub(super) fn address(&self) -> Address {
        self.slot.address()
    }
}

/// Collects live slots: all of them, as long as they are few enough.
#[derive(Debug)]
pub(super) struct Collector {
    limit: usize,
    slots: Vec<LiveSlot>,
    /// Slots that point into each stretch of the log, once there were more than the limit and `slots` is not
    /// complete. Else empty.
    counts: Vec<u32>,
}

impl Collector {
    pub(super) fn new(limit: usize) -> Self {
        Collector { limit, slots: Vec::new(), counts: Vec::new() }
    }

    pub(super) fn add(&mut self, slot: LiveSlot) {
        if self.counts.is_empty() && self.slots.len() < self.limit {
            self.slots.push(slot);
            return;
        }
        if self.counts.is_empty() {
            self.counts = vec![0; STRETCHES];
            let slots = std::mem::take(&mut self.slots);
            slots.iter().for_each(|slot| self.count(slot));
        }
        self.count(&slot);
    }

    fn count(&mut self, slot: &LiveSlot) {
        // There is a stretch for each address that a slot can hold.
        if let Some(count) = self.counts.get_mut(stretch(slot.address())) {
            *count = count.saturating_add(1);
        }
    }

    /// All slots, if they were few enough, else the ranges of addresses for the passes to make.
    pub(super) fn finish(mut self) -> Result<Vec<LiveSlot>, Vec<Range<Address>>> {
        if self.counts.is_empty() {
            sort(&mut self.slots);
            return Ok(self.slots);
        }
        let mut ranges = Vec::new();
        let (mut first, mut sum) = (0, 0);
        for (i, &count) in self.counts.iter().enumerate() {
            if sum > 0 && sum + count as usize > self.limit {
                ranges.push(first_address(first)..first_address(i));
                (first, sum) = (i, 0);
            }
            sum += count as usize;
        }
        ranges.push(first_address(first)..first_address(STRETCHES));
        Err(ranges)
    }
}

/// Sorts slots by address.
pub(super) fn sort(slots: &mut [LiveSlot]) {
    slots.sort_unstable_by_key(|slot| (slot.address(), slot.spot));
}

fn stretch(address: Address) -> usize {
    (address.raw() >> STRETCH_LOG2) as usize
}

/// The first address of a stretch.
fn first_address(stretch: usize) -> Address {
    Address::from_raw((stretch as u64) << STRETCH_LOG2)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::slot::Tag;

    fn slot(i: u64, segment: u32, offset: u64) -> LiveSlot {
        LiveSlot::new(Slot::new(Tag::of(i, 0), Address::new(segment, offset)), Spot::new(i, 7), 4096, (1 << 39) - 1, 39)
    }

    #[test]
    fn ranges_cover_every_address_once_and_hold_no_more_than_the_limit() {
        let slots: Vec<_> = (0..1000).map(|i| slot(i, (i % 7) as u32, 128 + (i << 23) % (1 << 29))).collect();
        for limit in [100, 300, 1000] {
            let mut collector = Collector::new(limit);
            slots.iter().for_each(|&slot| collector.add(slot));
            match collector.finish() {
                Ok(all) => assert!(limit == 1000 && all.len() == 1000 && all.is_sorted_by_key(LiveSlot::address)),
                Err(ranges) => {
                    assert!(ranges.len() >= 1000 / limit);
                    for slot in &slots {
                        assert_eq!(ranges.iter().filter(|range| range.contains(&slot.address())).count(), 1);
                    }
                    let most = ranges.iter().map(|r| slots.iter().filter(|s| r.contains(&s.address())).count()).max();
                    assert!(most <= Some(limit), "{most:?} of {limit}");
                }
            }
        }
    }

    #[test]
    fn a_live_slot_keeps_its_parts() {
        let slot = slot(5, 3, 1024);
        assert_eq!((slot.table(), slot.owner(), slot.split_base()), (4096, (1 << 39) - 1, 39));
        assert_eq!((slot.spot.page(), slot.spot.slot()), (5, 7));
        assert_eq!(slot.spot.location(Path::new("index")).offset, Some(5 * 4096 + 64 + 56));
    }
}
