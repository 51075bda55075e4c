//! One slot of a bucket: a 64-bit word.
//!
//! ```text
//!  63            48 47     40 39  38                    0
//! +----------------+---------+---+-----------------------+
//! | fingerprint 16 | split 8 | m | address 39            |    word 0 = emptyRest
//! +----------------+---------+---+-----------------------+    word 1 = emptyOne
//! ```
//!
//! The high byte of the fingerprint is what Go's map calls the tophash. *split* holds the hash bits that
//! decide the next eight doublings, so that splitting a page reads no keys. *m* marks a slot whose record
//! could not be read when its split bits had to be refilled: it is kept in both halves of the split, counts
//! for nothing, and a lookup that meets it reports the damage. *address* is that of the record.

use std::fmt;

use crate::address::Address;

/// A word of a bucket.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Slot(u64);

impl Slot {
    /// Empty, and no live entry's path passes beyond this bucket.
    pub(super) const EMPTY_REST: Slot = Slot(0);
    /// Empty, but some entry's path may go on beyond this bucket (a tombstone).
    pub(super) const EMPTY_ONE: Slot = Slot(1);

    const MARK: u64 = 1 << 39;

    /// A live slot.
    #[inline]
    pub(crate) fn new(tag: Tag, address: Address) -> Self {
        Slot(u64::from(tag.0) << 40 | address.raw())
    }

    #[inline]
    pub(crate) fn from_word(word: u64) -> Self {
        Slot(word)
    }

    #[inline]
    pub(super) fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn is_empty_rest(self) -> bool {
        self.0 == 0
    }

    #[inline]
    pub(crate) fn is_empty_one(self) -> bool {
        self.0 == 1
    }

    /// Either kind of empty.
    #[inline]
    pub(crate) fn is_empty(self) -> bool {
        self.0 <= 1
    }

    /// Holds an entry (a marked one included).
    #[inline]
    pub(crate) fn is_live(self) -> bool {
        self.0 > 1
    }

    /// Holds an entry whose record could not be read at a refill.
    #[inline]
    pub(crate) fn is_marked(self) -> bool {
        self.is_live() && self.0 & Self::MARK != 0
    }

    /// The same slot, marked.
    pub(super) fn marked(self) -> Self {
        Slot(self.0 | Self::MARK)
    }

    #[inline]
    pub(crate) fn tag(self) -> Tag {
        Tag((self.0 >> 40) as u32)
    }

    #[inline]
    pub(crate) fn address(self) -> Address {
        Address::from_raw(self.0 & (Self::MARK - 1))
    }

    /// The same entry with other split bits.
    pub(super) fn with_split(self, split: u8) -> Self {
        Slot(self.0 & !(0xff << 40) | u64::from(split) << 40)
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty_rest() {
            f.write_str("emptyRest")
        } else if self.is_empty_one() {
            f.write_str("emptyOne")
        } else {
            let mark = if self.is_marked() { " marked" } else { "" };
            write!(f, "{:?} -> {:?}{mark}", self.tag(), self.address())
        }
    }
}

/// The hash bits that a slot keeps: fingerprint (16) and split bits (8).
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tag(u32);

impl Tag {
    /// The tag of a hash in a page with the given split base.
    #[inline]
    pub(crate) fn of(hash: u64, split_base: u8) -> Self {
        let fingerprint = (hash >> 48) as u32;
        let split = (hash >> split_base) as u8;
        Tag(fingerprint << 8 | u32::from(split))
    }

    #[inline]
    pub(crate) fn bits(self) -> u32 {
        self.0
    }

    #[inline]
    pub(crate) fn fingerprint(self) -> u16 {
        (self.0 >> 8) as u16
    }

    /// The split bits.
    #[inline]
    pub(super) fn split(self) -> u8 {
        self.0 as u8
    }

    /// The home bucket in a page of `homes` home buckets.
    #[inline]
    pub(crate) fn home(self, homes: usize) -> usize {
        (self.fingerprint() as usize * homes) >> 16
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}.{:02x}", self.fingerprint(), self.split())
    }
}

const _: () = assert!(size_of::<Slot>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_keeps_its_parts() {
        let tag = Tag::of(0xfedc_ba98_7654_3210, 12);
        assert_eq!((tag.fingerprint(), tag.split()), (0xfedc, 0x43));
        let address = Address::new(4095, Address::SEGMENT_BYTES_MAX - 8);
        let slot = Slot::new(tag, address);
        assert_eq!((slot.tag(), slot.address()), (tag, address));
        assert!(slot.is_live() && !slot.is_marked() && slot.marked().is_marked());
        assert_eq!(slot.marked().address(), address);
        assert_eq!(slot.with_split(7).tag().split(), 7);
        assert_eq!(slot.with_split(7).address(), address);
        assert_eq!(format!("{:?} {:?}", Slot::EMPTY_REST, Slot::EMPTY_ONE), "emptyRest emptyOne");
    }

    #[test]
    fn the_smallest_live_slot_is_no_empty_one() {
        // Records start after the segment header, so offset 0 and 8 never occur.
        assert!(Slot::new(Tag::of(0, 0), Address::new(0, 128)).is_live());
        assert!(!Slot::EMPTY_ONE.is_live() && !Slot::EMPTY_ONE.is_marked());
    }

    #[test]
    fn homes_cover_all_buckets_evenly() {
        let mut counts = [0u32; 60];
        for fingerprint in 0..=u16::MAX {
            counts[Tag::of(u64::from(fingerprint) << 48, 0).home(60)] += 1;
        }
        assert!(counts.iter().all(|&n| (1092..=1093).contains(&n)));
    }
}
