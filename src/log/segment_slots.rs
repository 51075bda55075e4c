//! Which segment slots are taken. The checkpoint and each look at the log's space ask for their number.

use crate::address::Address;

/// The segment slots of a log, and how many of them are taken.
#[derive(Debug)]
pub(super) struct SegmentSlots {
    is_taken: Box<[bool]>,
    taken: usize,
}

impl SegmentSlots {
    /// All free.
    pub(super) fn new() -> Self {
        SegmentSlots { is_taken: bytemuck::zeroed_slice_box(Address::SEGMENTS), taken: 0 }
    }

    /// Slots that are taken.
    pub(super) fn taken(&self) -> usize {
        self.taken
    }

    /// The lowest free slot, if one is free and `reserved` others are.
    pub(super) fn free(&self, reserved: usize) -> Option<usize> {
        let free = self.is_taken.len() - self.taken;
        if free <= reserved { None } else { self.is_taken.iter().position(|is_taken| !is_taken) }
    }

    /// Takes a slot, whether or not it is taken already.
    pub(super) fn take(&mut self, slot: usize) {
        self.taken += usize::from(!std::mem::replace(&mut self.is_taken[slot], true));
    }

    /// Gives a slot back, whether or not it is taken.
    pub(super) fn release(&mut self, slot: usize) {
        self.taken -= usize::from(std::mem::replace(&mut self.is_taken[slot], false));
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    #[test]
    fn slots_are_counted_once_and_the_reserved_ones_are_kept() {
        let mut slots = SegmentSlots::new();
        assert_eq!((slots.taken(), slots.free(0)), (0, Some(0)));
        for slot in [0, 1, 1, 3] {
            slots.take(slot);
        }
        assert_eq!((slots.taken(), slots.free(0)), (3, Some(2)));
        slots.release(1);
        slots.release(1);
        assert_eq!((slots.taken(), slots.free(0)), (2, Some(1)));
        (0..Address::SEGMENTS - 2).for_each(|slot| slots.take(slot));
        let first = Address::SEGMENTS - 2;
        assert_eq!((slots.free(0), slots.free(1), slots.free(2)), (Some(first), Some(first), None));
        (0..Address::SEGMENTS).for_each(|slot| slots.take(slot));
        assert_eq!((slots.taken(), slots.free(0)), (Address::SEGMENTS, None));
    }
}
