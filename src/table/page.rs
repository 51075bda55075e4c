//! A bucket page: a 64-byte header and 63 buckets of 8 slots.
//!
//! ```text
//! word  bytes
//!  0    0..4   crc32 over uuid, page number and bytes 4..4096 (valid in the file, stale in memory)
//!       4..8   kind: "BKT1" for bucket pages, "MAP1" for bitmap pages, "MET1" for meta pages
//!  1    8..16  page number in the file
//!  2   16..24  owner: the primary page that the chain belongs to
//!  3   24..32  level 8 | split base 8 | chain position 16 | flags 32
//!  4   32..40  live 16 | tombstones 16 | removals since the last rewrite 32
//!  5   40..48  overflow: number of the next overflow page of the chain plus one; 0 = none
//!  6   48..56  generation of the checkpoint that wrote the page
//!  7   56..64  zero
//!  8.. 64..    63 buckets
//! ```
//!
//! A page is always accessed as atomics: readers scan it while a writer changes it.

use super::slot::{Slot, Tag};
use crate::sync::{AtomicU64, Ordering, load_of_many, store_of_many};
use crate::sys::PAGE_BYTES;

/// Words of a page.
pub(crate) const PAGE_WORDS: usize = PAGE_BYTES / 8;
/// Buckets of a page.
pub(crate) const BUCKETS: usize = 63;
/// Slots of a bucket: one cache line.
pub(crate) const BUCKET_SLOTS: usize = 8;
/// Bytes of a page before its buckets.
pub(crate) const PAGE_HEADER_BYTES: usize = 8 * BUCKET_SLOTS;

/// A copy of a page's bytes.
pub(crate) type PageImage = Box<[u8; PAGE_BYTES]>;

/// What a page holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u32)]
pub(crate) enum PageKind {
    /// Buckets of a primary or overflow page.
    Bucket = u32::from_le_bytes(*b"BKT1"),
    /// Which pages of an extent are in use.
    Bitmap = u32::from_le_bytes(*b"MAP1"),
    /// A piece of the store's meta data.
    Meta = u32::from_le_bytes(*b"MET1"),
}

/// How the buckets of a page are used. Written into the index header; tests make pages tiny.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Geometry {
    /// Buckets `0..homes` are home buckets.
    pub(crate) homes: usize,
    /// Buckets `homes..homes + stash` are stash buckets.
    pub(crate) stash: usize,
}

impl Geometry {
    /// Slots of a primary page.
    pub(crate) fn slots(self) -> usize {
        (self.homes + self.stash) * BUCKET_SLOTS
    }

    /// The bucket after a home bucket, cyclic among the homes.
    #[inline]
    pub(crate) fn neighbour(self, home: usize) -> usize {
        if home + 1 == self.homes { 0 } else { home + 1 }
    }

    /// The home bucket whose neighbour `home` is.
    #[inline]
    pub(crate) fn previous(self, home: usize) -> usize {
        if home == 0 { self.homes - 1 } else { home - 1 }
    }

    /// A geometry that this build can work with.
    pub(crate) fn is_valid(self) -> bool {
        self.homes >= 2 && self.stash >= 1 && self.homes + self.stash <= BUCKETS
    }
}

/// The eight slots of a bucket.
#[derive(Clone, Copy)]
pub(crate) struct Bucket<'a>(&'a [AtomicU64; BUCKET_SLOTS]);

/// What a scan of a bucket for a tag found.
#[derive(Clone, Copy)]
pub(super) struct BucketScan {
    /// Bit i: slot i has the tag. Empty slots can be among them (tag zero).
    pub(super) matches: u32,
    /// The bucket has an `emptyRest` slot.
    pub(super) ends_path: bool,
}

impl<'a> Bucket<'a> {
    #[inline]
    pub(super) fn slot(self, i: usize) -> Slot {
        Slot::from_word(self.0[i].load(Ordering::Acquire))
    }

    /// Publishes a slot: what its record holds was written before.
    #[inline]
    pub(super) fn set(self, i: usize, slot: Slot) {
        self.0[i].store(slot.word(), Ordering::Release);
    }

    /// Compares all eight slots with a tag, without branches.
    #[inline(always)]
    pub(super) fn scan(self, tag: Tag) -> BucketScan {
        let mut matches = 0u32;
        let mut ends_path = false;
        for i in 0..BUCKET_SLOTS {
            let word = self.0[i].load(Ordering::Acquire);
            matches |= u32::from((word >> 40) as u32 == tag.bits()) << i;
            ends_path |= word == 0;
        }
        BucketScan { matches, ends_path }
    }

    /// The first empty slot, if any.
    pub(super) fn first_empty(self) -> Option<usize> {
        (0..BUCKET_SLOTS).find(|&i| self.slot(i).is_empty())
    }

    /// How many slots are empty.
    pub(super) fn empties(self) -> usize {
        self.slots().filter(|(_, slot)| slot.is_empty()).count()
    }

    pub(crate) fn has_empty_rest(self) -> bool {
        (0..BUCKET_SLOTS).any(|i| self.slot(i).is_empty_rest())
    }

    pub(crate) fn slots(self) -> impl DoubleEndedIterator<Item = (usize, Slot)> + use<'a> {
        (0..BUCKET_SLOTS).map(move |i| (i, self.slot(i)))
    }

    /// The memory, for prefetching.
    #[inline]
    pub(super) fn line(self) -> &'a AtomicU64 {
        &self.0[0]
    }
}

/// A page in memory.
#[derive(Clone, Copy)]
pub(crate) struct PageRef<'a>(&'a [AtomicU64; PAGE_WORDS]);

impl<'a> PageRef<'a> {
    #[inline]
    pub(crate) fn new(words: &'a [AtomicU64; PAGE_WORDS]) -> Self {
        PageRef(words)
    }

    #[inline]
    pub(crate) fn bucket(self, bucket: usize) -> Bucket<'a> {
        let start = BUCKET_SLOTS * (bucket + 1);
        match self.0[start..].first_chunk() {
            Some(slots) => Bucket(slots),
            // A bucket number beyond the page: callers stay below BUCKETS. Scanning the header's words as a
            // bucket would be wrong, so this is a bug, and loud.
            None => unreachable!("bucket {bucket} of {BUCKETS}"),
        }
    }

    fn word(self, i: usize) -> u64 {
        self.0[i].load(Ordering::Relaxed)
    }

    fn set_word(self, i: usize, word: u64) {
        self.0[i].store(word, Ordering::Relaxed);
    }

    /// The words of the page, for bitmap pages.
    pub(super) fn words(self) -> &'a [AtomicU64; PAGE_WORDS] {
        self.0
    }

    pub(crate) fn owner(self) -> u64 {
        self.word(2)
    }

    pub(crate) fn level(self) -> u8 {
        self.word(3) as u8
    }

    pub(crate) fn split_base(self) -> u8 {
        (self.word(3) >> 8) as u8
    }

    pub(crate) fn chain_position(self) -> u16 {
        (self.word(3) >> 16) as u16
    }

    /// Sets level and split base, which say what the slots' split bits mean.
    pub(super) fn set_level(self, level: u8, split_base: u8) {
        let rest = self.word(3) & !0xffff;
        self.set_word(3, rest | u64::from(level) | u64::from(split_base) << 8);
    }

    /// True if the header's flags and its last word are zero, as they always are.
    pub(crate) fn reserved_is_zero(self) -> bool {
        self.word(3) >> 32 == 0 && self.word(7) == 0
    }

    /// Live slots of this page, marked ones not counted.
    pub(crate) fn live(self) -> u16 {
        self.word(4) as u16
    }

    /// `emptyOne` slots of this page.
    pub(crate) fn tombstones(self) -> u16 {
        (self.word(4) >> 16) as u16
    }

    pub(super) fn removals(self) -> u32 {
        (self.word(4) >> 32) as u32
    }

    pub(super) fn set_counts(self, live: u16, tombstones: u16, removals: u32) {
        self.set_word(4, u64::from(live) | u64::from(tombstones) << 16 | u64::from(removals) << 32);
    }

    /// Adds to the counters; they saturate rather than wrap, in case a file lies about them.
    pub(super) fn count(self, live: i32, tombstones: i32, removals: u32) {
        let add = |n: u16, by: i32| (i32::from(n) + by).clamp(0, i32::from(u16::MAX)) as u16;
        self.set_counts(
            add(self.live(), live),
            add(self.tombstones(), tombstones),
            self.removals().saturating_add(removals),
        );
    }

    /// The next overflow page of the chain.
    #[inline]
    pub(crate) fn next(self) -> Option<u64> {
        self.0[5].load(Ordering::Acquire).checked_sub(1)
    }

    pub(super) fn set_next(self, overflow: Option<u64>) {
        self.0[5].store(overflow.map_or(0, |o| o + 1), Ordering::Release);
    }

    pub(super) fn generation(self) -> u64 {
        self.word(6)
    }

    /// Writes the header of an empty page. The slots are not touched.
    pub(super) fn init(self, kind: PageKind, number: u64, owner: u64, level: u8, split_base: u8, chain_position: u16) {
        self.set_word(0, u64::from(kind as u32) << 32);
        self.set_word(1, number);
        self.set_word(2, owner);
        self.set_word(3, u64::from(level) | u64::from(split_base) << 8 | u64::from(chain_position) << 16);
        self.set_word(4, 0);
        self.set_next(None);
        self.set_word(6, 0);
        self.set_word(7, 0);
    }

    /// Makes every slot `emptyRest` and the counters zero.
    pub(super) fn clear_slots(self) {
        for (i, word) in self.0.iter().enumerate().skip(BUCKET_SLOTS) {
            store_of_many(word, i, 0, Ordering::Release);
        }
        self.set_counts(0, 0, 0);
    }

    /// True if every slot is `emptyRest`, and no overflow page follows.
    pub(super) fn is_empty(self) -> bool {
        self.next().is_none()
            && self.0[BUCKET_SLOTS..].iter().enumerate().all(|(i, word)| load_of_many(word, i, Ordering::Relaxed) == 0)
    }

    /// The kind that the header tells.
    pub(super) fn kind(self) -> u32 {
        (self.word(0) >> 32) as u32
    }

    /// A copy of the bytes, as they would stand in the file.
    pub(super) fn image(self) -> PageImage {
        let mut image = Box::new([0u8; PAGE_BYTES]);
        self.copy_to(&mut image);
        image
    }

    /// The same into memory that is there.
    pub(super) fn copy_to(self, image: &mut [u8; PAGE_BYTES]) {
        for (i, (bytes, word)) in image.as_chunks_mut().0.iter_mut().zip(self.0).enumerate() {
            *bytes = load_of_many(word, i, Ordering::Relaxed).to_le_bytes();
        }
    }

    /// Overwrites the page with another one.
    pub(super) fn copy_from(self, other: PageRef<'_>) {
        for (i, (word, other)) in self.0.iter().zip(other.0).enumerate() {
            store_of_many(word, i, load_of_many(other, i, Ordering::Relaxed), Ordering::Relaxed);
        }
    }

    /// Overwrites the page with the bytes of an image.
    pub(crate) fn load(self, image: &[u8; PAGE_BYTES]) {
        for (i, (word, bytes)) in self.0.iter().zip(image.as_chunks::<8>().0).enumerate() {
            store_of_many(word, i, u64::from_le_bytes(*bytes), Ordering::Release);
        }
    }
}

/// Reads of a page image's header, for code that has pages as bytes.
pub(crate) mod image {
    #![deny(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::{PAGE_BYTES, PAGE_WORDS, PageKind};
    use crate::checksum::{Uuid, page_crc};

    /// The bytes of each word.
    pub(crate) fn words(page: &[u8; PAGE_BYTES]) -> &[[u8; 8]; PAGE_WORDS] {
        bytemuck::cast_ref(page)
    }

    fn first_word(page: &[u8; PAGE_BYTES]) -> u64 {
        u64::from_le_bytes(words(page)[0])
    }

    pub(crate) fn number(page: &[u8; PAGE_BYTES]) -> u64 {
        u64::from_le_bytes(words(page)[1])
    }

    /// The primary page whose chain the page belongs to.
    pub(crate) fn owner(page: &[u8; PAGE_BYTES]) -> u64 {
        u64::from_le_bytes(words(page)[2])
    }

    pub(crate) fn level(page: &[u8; PAGE_BYTES]) -> u8 {
        page[24]
    }

    pub(crate) fn split_base(page: &[u8; PAGE_BYTES]) -> u8 {
        page[25]
    }

    /// True if an overflow page follows.
    pub(crate) fn has_next(page: &[u8; PAGE_BYTES]) -> bool {
        words(page)[5] != [0; 8]
    }

    pub(crate) fn generation(page: &[u8; PAGE_BYTES]) -> u64 {
        u64::from_le_bytes(words(page)[6])
    }

    pub(crate) fn kind(page: &[u8; PAGE_BYTES]) -> u32 {
        (first_word(page) >> 32) as u32
    }

    /// The checksum that the page carries and the one that its bytes have.
    pub(crate) fn checksums(page: &[u8; PAGE_BYTES], uuid: Uuid, number: u64) -> (u32, u32) {
        (first_word(page) as u32, page_crc(uuid, number, page))
    }

    /// Writes generation and checksum, which makes the image valid at its number.
    pub(crate) fn seal(page: &mut [u8; PAGE_BYTES], uuid: Uuid, generation: u64) {
        page[48..56].copy_from_slice(&generation.to_le_bytes());
        let crc = page_crc(uuid, number(page), page);
        page[..4].copy_from_slice(&crc.to_le_bytes());
    }

    /// A fresh image with a header and no content.
    pub(crate) fn empty(kind: PageKind, number: u64) -> super::PageImage {
        let mut page = Box::new([0u8; PAGE_BYTES]);
        let words: &mut [[u8; 8]; PAGE_WORDS] = bytemuck::cast_mut(&mut *page);
        words[0] = (u64::from(kind as u32) << 32).to_le_bytes();
        words[1] = number.to_le_bytes();
        page
    }
}

const _: () = assert!((BUCKETS + 1) * BUCKET_SLOTS == PAGE_WORDS);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::checksum::Uuid;

    fn page() -> Box<[AtomicU64; PAGE_WORDS]> {
        Box::new([const { AtomicU64::new(0) }; PAGE_WORDS])
    }

    #[test]
    fn header_fields_do_not_overlap() {
        let memory = page();
        let page = PageRef::new(&memory);
        page.init(PageKind::Bucket, 77, 5, 6, 4, 3);
        page.set_counts(500, 4, 9);
        page.set_next(Some(0));
        page.set_level(7, 5);
        assert_eq!((image::number(&page.image()), page.owner(), page.chain_position()), (77, 5, 3));
        assert_eq!((page.level(), page.split_base()), (7, 5));
        assert_eq!((page.live(), page.tombstones(), page.removals()), (500, 4, 9));
        assert_eq!((page.next(), page.kind()), (Some(0), PageKind::Bucket as u32));
        page.count(-501, 1, 1);
        assert_eq!((page.live(), page.tombstones(), page.removals()), (0, 5, 10));
    }

    #[test]
    fn a_scan_sees_matches_and_the_end_of_the_path() {
        let memory = page();
        let bucket = PageRef::new(&memory).bucket(62);
        let tag = Tag::of(0xabcd_0000_0000_0012, 0);
        for i in 0..8 {
            bucket.set(i, Slot::new(Tag::of(u64::MAX, 0), Address::new(1, 128)));
        }
        assert!(!bucket.scan(tag).ends_path);
        bucket.set(3, Slot::new(tag, Address::new(1, 136)));
        bucket.set(5, Slot::EMPTY_ONE);
        let scan = bucket.scan(tag);
        assert_eq!((scan.matches, scan.ends_path), (1 << 3, false));
        bucket.set(7, Slot::EMPTY_REST);
        assert!(bucket.scan(tag).ends_path);
        assert_eq!(bucket.first_empty(), Some(5));
    }

    #[test]
    fn a_sealed_image_is_valid_only_at_its_number_and_store() {
        let memory = page();
        let page = PageRef::new(&memory);
        page.init(PageKind::Bucket, 9, 9, 4, 4, 0);
        let mut bytes = page.image();
        image::seal(&mut bytes, Uuid([1; 16]), 12);
        let valid = |uuid, number| {
            let (found, expected) = image::checksums(&bytes, uuid, number);
            found == expected
        };
        assert!(valid(Uuid([1; 16]), 9));
        assert!(!valid(Uuid([2; 16]), 9) && !valid(Uuid([1; 16]), 10));
        assert_eq!(image::generation(&bytes), 12);
    }
}
