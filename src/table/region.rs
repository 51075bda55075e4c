//! Pages by number: the primary pages and the overflow pages are a *region* each.
//!
//! A region grows by doubling without ever moving a page: extent 0 holds pages `0..2^b`, extent k the pages
//! `2^(b+k-1)..2^(b+k)`. An extent is contiguous in the index file, and one mapping:
//!
//! ```text
//! extent:  | bitmap pages | pages of the extent ... |
//! ```
//!
//! The bitmap says which pages of the extent are in use. A page that is not in use need not have a valid
//! image, so a pre-sized table is a hole in the file; a page that is in use must have one, so a lost page is
//! always noticed.

use bytemuck::TransparentWrapper;

use super::page::{PAGE_WORDS, PageRef};
use crate::mutant::{Mutant, broken};
use crate::sync::{AtomicU64, OnceLock, Ordering};
use crate::sys::IndexMap;
use crate::table_id::TableId;

/// The number of extents that a region can have.
pub(crate) const EXTENTS_MAX: usize = 40;
/// Extents that all tables have together, because the meta data list each.
pub(crate) const INDEX_EXTENTS_MAX: usize = 1 << 17;
/// log2 of the pages that the first extent of a region can have.
pub(crate) const BASE_LOG2_MAX: u8 = 36;
/// Words of a bitmap page that hold bits; the first eight are its header.
pub(crate) const BITMAP_WORDS: usize = PAGE_WORDS - 8;
/// Where the bits of a bitmap page begin, in bytes.
pub(crate) const BITMAP_START: usize = 64;
/// Pages that one bitmap page covers.
pub(crate) const BITMAP_BITS: u64 = BITMAP_WORDS as u64 * 64;
/// Disk blocks are allocated for this many pages at a time: few, because each key of a table that was made large from the start
/// comes to another chunk.
pub(super) const CHUNK_PAGES: u64 = 8;

/// The disk blocks that a table of one primary extent takes, as its pages come into use one by one.
#[derive(Debug)]
pub(crate) struct ExtentBlocks {
    bitmap_pages: u64,
    pages: u64,
    /// By chunk: whether it has its blocks.
    chunks: Vec<bool>,
}

impl ExtentBlocks {
    /// A table of so many pages, none of them in use.
    pub(crate) fn new(pages: u64) -> Self {
        let bitmap_pages = pages.div_ceil(BITMAP_BITS);
        ExtentBlocks { bitmap_pages, pages, chunks: vec![false; (bitmap_pages + pages).div_ceil(CHUNK_PAGES) as usize] }
    }

    /// The same in a store that is open, where the chunks with the bitmap get their blocks at once.
    pub(crate) fn appended(pages: u64) -> Self {
        let mut blocks = ExtentBlocks::new(pages);
        let chunks = blocks.bitmap_pages.div_ceil(CHUNK_PAGES) as usize;
        blocks.chunks.iter_mut().take(chunks).for_each(|has_blocks| *has_blocks = true);
        blocks
    }

    /// A page comes into use.
    pub(crate) fn use_page(&mut self, page: u64) {
        let chunk = (self.bitmap_pages + page) / CHUNK_PAGES;
        self.chunks.get_mut(chunk as usize).into_iter().for_each(|has_blocks| *has_blocks = true);
    }

    /// Pages that have blocks: the bitmap's, and those of chunks with a page in use.
    pub(crate) fn pages(&self) -> u64 {
        let total = self.bitmap_pages + self.pages;
        let of_chunk = |(chunk, &has_blocks): (u64, &bool)| {
            let first = chunk * CHUNK_PAGES;
            let pages = CHUNK_PAGES.min(total - first);
            if has_blocks { pages } else { self.bitmap_pages.saturating_sub(first).min(pages) }
        };
        (0..).zip(&self.chunks).map(of_chunk).sum()
    }
}

/// What is known about a page in memory, in one word that readers load once.
///
/// Flags change under the page's stripe lock or the dirty set's lock; VERIFIED may also be set by readers.
/// The version (upper half) is odd while entries of the page move, and changes under the stripe lock only.
#[derive(Debug, Default, bytemuck::TransparentWrapper)]
#[repr(transparent)]
pub(crate) struct PageState(AtomicU64);

/// A loaded [`PageState`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct StateWord(u64);

impl StateWord {
    /// The page's checksum was checked since the store was opened, or the page was made since.
    #[inline]
    pub(super) fn is_verified(self) -> bool {
        self.0 & PageState::VERIFIED != 0
    }

    /// The page holds marked slots.
    #[inline]
    pub(super) fn has_marks(self) -> bool {
        self.0 & PageState::MARKS != 0
    }

    /// The page has a private copy in memory.
    pub(crate) fn is_private(self) -> bool {
        self.0 & PageState::PRIVATE != 0
    }

    /// Changed in the epoch of the given parity and not yet captured by a checkpoint.
    #[inline]
    pub(super) fn is_dirty(self, parity: bool) -> bool {
        self.0 & PageState::dirty_flag(parity) != 0
    }

    /// Changed since the image in the file was written.
    pub(crate) fn is_dirty_at_all(self) -> bool {
        self.is_dirty(false) || self.is_dirty(true)
    }

    /// The page's split base: what the split bits of its slots mean. Kept here so that a lookup need not
    /// touch the page's header line.
    #[inline]
    pub(super) fn split_base(self) -> u8 {
        (self.0 >> 8) as u8
    }

    /// Entries are being moved at this moment.
    #[inline]
    pub(super) fn is_moving(self) -> bool {
        self.0 & PageState::VERSION_ONE != 0
    }

    /// True if no entries were moved between the two loads.
    #[inline]
    pub(super) fn same_version(self, later: StateWord) -> bool {
        (self.0 ^ later.0) >> 32 == 0
    }
}

impl PageState {
    pub(crate) const VERIFIED: u64 = 1;
    pub(super) const MARKS: u64 = 1 << 3;
    pub(super) const PRIVATE: u64 = 1 << 4;
    const VERSION_ONE: u64 = 1 << 32;

    pub(super) fn dirty_flag(parity: bool) -> u64 {
        if parity { 1 << 2 } else { 1 << 1 }
    }

    #[inline]
    pub(crate) fn load(&self) -> StateWord {
        StateWord(self.0.load(Ordering::Acquire))
    }

    pub(crate) fn set(&self, flags: u64) {
        self.0.fetch_or(flags, Ordering::AcqRel);
    }

    pub(super) fn unset(&self, flags: u64) {
        self.0.fetch_and(!flags, Ordering::AcqRel);
    }

    /// Sets split base and flags if the state is still what it was when the page was read.
    pub(super) fn install(&self, seen: StateWord, split_base: u8, flags: u64) {
        let word = seen.0 & !0xff00 | u64::from(split_base) << 8 | flags;
        // Losing means that somebody knows better.
        let _ = self.0.compare_exchange(seen.0, word, Ordering::AcqRel, Ordering::Acquire);
    }

    /// Sets the split base. The caller holds the stripe, and the page has no entries or a move has begun.
    pub(super) fn set_split_base(&self, split_base: u8) {
        let set = |word: u64| Some(word & !0xff00 | u64::from(split_base) << 8);
        // The closure never declines, so this cannot fail.
        let _ = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, set);
    }

    /// Readers' misses do not count until [`end_move`](Self::end_move).
    pub(super) fn begin_move(&self) {
        if broken(Mutant::NoVersions) {
            return;
        }
        let before = self.0.fetch_add(Self::VERSION_ONE, Ordering::SeqCst);
        debug_assert!(!StateWord(before).is_moving());
    }

    /// Ends what [`begin_move`](Self::begin_move) began.
    pub(super) fn end_move(&self) {
        if broken(Mutant::NoVersions) {
            return;
        }
        let before = self.0.fetch_add(Self::VERSION_ONE, Ordering::SeqCst);
        debug_assert!(StateWord(before).is_moving());
    }
}

/// One extent of a region, mapped.
#[derive(Debug)]
pub(crate) struct Extent {
    map: IndexMap,
    /// Page number in the file of the extent's first page.
    pub(super) first: u64,
    pub(crate) bitmap_pages: u64,
    pub(super) pages: u64,
    /// A word for each page, of memory that is zeroed by the system: a large table costs nothing here before it is used.
    states: IndexMap,
    /// Chunks of the extent whose blocks are known to be allocated.
    allocated: Box<[AtomicU64]>,
}

/// A page of a region.
#[derive(Clone, Copy)]
pub(crate) struct PageSlot<'t> {
    pub(crate) page: PageRef<'t>,
    pub(crate) state: &'t PageState,
    pub(crate) extent: &'t Extent,
    pub(crate) id: PageId,
}

impl PageSlot<'_> {
    /// The page's number in the file.
    pub(crate) fn number(&self) -> u64 {
        self.extent.first + u64::from(self.id.index)
    }

    /// True if the page's bit in the extent's bitmap is set. Not for bitmap pages.
    #[inline]
    pub(crate) fn is_used(&self) -> bool {
        self.extent.is_used(u64::from(self.id.index) - self.extent.bitmap_pages)
    }
}

/// Names a page of any kind: table, region, extent and position in the extent (bitmap pages first).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PageId {
    pub(crate) table: TableId,
    pub(crate) region: RegionKind,
    pub(crate) extent: u8,
    pub(crate) index: u32,
}

/// The two regions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum RegionKind {
    /// Pages that hashes are mapped to.
    Primary,
    /// Pages that continue a primary page's chain.
    Overflow,
}

/// Pages between two extents, which those of a dropped table were.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Gap {
    pub(crate) first: u64,
    pub(crate) pages: u64,
}

/// How many bitmap pages and pages an extent has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ExtentShape {
    pub(crate) bitmap_pages: u64,
    pub(crate) pages: u64,
}

impl ExtentShape {
    /// The shape of an extent, by its number, in a region whose first one has 2^`base_log2` pages.
    pub(crate) fn of(base_log2: u8, number: usize) -> Self {
        let log2 = u32::from(base_log2) + (number as u32).saturating_sub(1);
        let pages = 1u64 << log2.min(62);
        ExtentShape { bitmap_pages: pages.div_ceil(BITMAP_BITS), pages }
    }

    /// Pages of the extent.
    pub(crate) fn total(self) -> u64 {
        self.bitmap_pages + self.pages
    }

    /// Bytes of the memory that notes what the pages are like.
    pub(crate) fn state_bytes(self) -> usize {
        self.total() as usize * size_of::<PageState>()
    }
}

impl Extent {
    /// `states` is zeroes, a word for each page.
    pub(crate) fn new(shape: ExtentShape, first: u64, map: IndexMap, states: IndexMap, allocated: bool) -> Self {
        let chunks = shape.total().div_ceil(CHUNK_PAGES);
        let fill = if allocated { u64::MAX } else { 0 };
        Extent {
            map,
            first,
            bitmap_pages: shape.bitmap_pages,
            pages: shape.pages,
            states,
            allocated: (0..chunks.div_ceil(64)).map(|_| AtomicU64::new(fill)).collect(),
        }
    }

    /// The page at a position of the extent, bitmap pages included.
    #[inline]
    pub(crate) fn at(&self, index: u64) -> Option<(PageRef<'_>, &PageState)> {
        let start = index as usize * PAGE_WORDS;
        let words = self.map.words().get(start..)?.first_chunk()?;
        Some((PageRef::new(words), self.states().get(index as usize)?))
    }

    fn bit(&self, page: u64) -> Option<(&AtomicU64, u64)> {
        let (bitmap, _) = self.at(page / BITMAP_BITS)?;
        let bit = page % BITMAP_BITS;
        Some((&bitmap.words()[8 + (bit / 64) as usize], 1 << (bit % 64)))
    }

    /// True if the extent's page (counted without bitmap pages) is in use.
    pub(crate) fn is_used(&self, page: u64) -> bool {
        self.bit(page).is_some_and(|(word, mask)| word.load(Ordering::Acquire) & mask != 0)
    }

    /// Sets or clears the bit. Only the dirty set calls this: it has made the bitmap page dirty before.
    pub(super) fn set_used(&self, page: u64, used: bool) {
        if let Some((word, mask)) = self.bit(page) {
            if used {
                word.fetch_or(mask, Ordering::AcqRel);
            } else {
                word.fetch_and(!mask, Ordering::AcqRel);
            }
        }
    }

    /// True if disk blocks for the position are known to be allocated.
    #[inline]
    pub(crate) fn is_allocated(&self, index: u64) -> bool {
        let chunk = index / CHUNK_PAGES;
        self.allocated[(chunk / 64) as usize].load(Ordering::Acquire) & 1 << (chunk % 64) != 0
    }

    /// Notes that blocks for the position's chunk are allocated.
    pub(super) fn set_allocated(&self, index: u64) {
        let chunk = index / CHUNK_PAGES;
        self.allocated[(chunk / 64) as usize].fetch_or(1 << (chunk % 64), Ordering::AcqRel);
    }

    /// The position's chunk has lost blocks.
    pub(super) fn forget_allocated(&self, index: u64) {
        let chunk = index / CHUNK_PAGES;
        self.allocated[(chunk / 64) as usize].fetch_and(!(1 << (chunk % 64)), Ordering::AcqRel);
    }

    /// The pages of the file that it has.
    pub(super) fn gap(&self) -> Gap {
        Gap { first: self.first, pages: self.bitmap_pages + self.pages }
    }

    pub(crate) fn map(&self) -> &IndexMap {
        &self.map
    }

    /// Positions and states of all pages of the extent.
    #[inline]
    pub(crate) fn states(&self) -> &[PageState] {
        PageState::wrap_slice(self.states.words())
    }
}

/// The extent that a page of a region belongs to, whose first one has 2^`base_log2` pages, and the page's number there.
#[inline]
pub(crate) fn locate(base_log2: u8, page: u64) -> (usize, u64) {
    if page >> base_log2 == 0 {
        return (0, page);
    }
    let log2 = page.ilog2();
    ((log2 - u32::from(base_log2) + 1) as usize, page - (1 << log2))
}

/// All pages of one kind.
#[derive(Debug)]
pub(crate) struct Region {
    table: TableId,
    kind: RegionKind,
    /// log2 of the pages in extent 0.
    base_log2: u8,
    extents: [OnceLock<Extent>; EXTENTS_MAX],
}

impl Region {
    pub(crate) fn new(table: TableId, kind: RegionKind, base_log2: u8) -> Self {
        Region { table, kind, base_log2, extents: [const { OnceLock::new() }; EXTENTS_MAX] }
    }

    pub(super) fn base_log2(&self) -> u8 {
        self.base_log2
    }

    /// The shape of an extent.
    pub(crate) fn shape(&self, extent: usize) -> ExtentShape {
        ExtentShape::of(self.base_log2, extent)
    }

    /// The extent that a page belongs to, and its number there.
    #[inline]
    fn locate(&self, page: u64) -> (usize, u64) {
        locate(self.base_log2, page)
    }

    #[inline]
    pub(super) fn extent(&self, extent: usize) -> Option<&Extent> {
        self.extents.get(extent)?.get()
    }

    /// Groups that exist.
    pub(crate) fn extents(&self) -> impl Iterator<Item = (usize, &Extent)> {
        self.extents.iter().enumerate().filter_map(|(i, extent)| Some((i, extent.get()?)))
    }

    /// Adds an extent.
    ///
    /// # Panics
    /// If it exists: extents are added under the structure lock.
    pub(crate) fn install(&self, extent: usize, value: Extent) -> &Extent {
        assert!(self.extents[extent].set(value).is_ok(), "extent {extent} exists");
        self.extents[extent].get().expect("just set")
    }

    /// A page by number; `None` if its extent does not exist.
    #[inline]
    pub(super) fn page(&self, page: u64) -> Option<PageSlot<'_>> {
        let (g, offset) = self.locate(page);
        let extent = self.extent(g)?;
        let index = extent.bitmap_pages + offset;
        let (page, state) = extent.at(index)?;
        let id = PageId { table: self.table, region: self.kind, extent: g as u8, index: index as u32 };
        Some(PageSlot { page, state, extent, id })
    }

    /// A page by its name.
    pub(super) fn by_id(&self, id: PageId) -> Option<PageSlot<'_>> {
        let extent = self.extent(id.extent as usize)?;
        let (page, state) = extent.at(u64::from(id.index))?;
        Some(PageSlot { page, state, extent, id })
    }

    /// Pages of all extents that exist.
    pub(crate) fn pages(&self) -> u64 {
        self.extents().map(|(_, extent)| extent.pages).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{Disk, RealDisk};

    fn region(base_log2: u8, extents: usize) -> Region {
        let region = Region::new(TableId::MAIN, RegionKind::Primary, base_log2);
        let mut first = 10;
        for g in 0..extents {
            let shape = region.shape(g);
            let map = RealDisk.map_anonymous(shape.total() as usize * 4096).unwrap();
            let states = RealDisk.map_anonymous(shape.state_bytes()).unwrap();
            region.install(g, Extent::new(shape, first, map, states, true));
            first += shape.total();
        }
        region
    }

    #[test]
    fn every_page_has_one_place_and_back() {
        for base in [0, 2, 4] {
            let region = region(base, 5);
            assert_eq!(region.pages(), 1 << (base + 4));
            let mut numbers = Vec::new();
            for page in 0..region.pages() {
                let slot = region.page(page).unwrap();
                assert_eq!(region.by_id(slot.id).unwrap().number(), slot.number());
                numbers.push(slot.number());
            }
            numbers.dedup();
            assert_eq!(numbers.len() as u64, region.pages());
            assert!(region.page(region.pages()).is_none());
        }
    }

    #[test]
    fn bits_are_independent() {
        let region = region(4, 2);
        let extent = region.extent(1).unwrap();
        extent.set_used(3, true);
        extent.set_used(15, true);
        assert!(extent.is_used(3) && extent.is_used(15) && !extent.is_used(4));
        extent.set_used(3, false);
        assert!(!extent.is_used(3) && extent.is_used(15));
    }

    #[test]
    fn a_move_changes_the_version_and_nothing_else() {
        let state = PageState::default();
        state.set(PageState::VERIFIED);
        let before = state.load();
        state.begin_move();
        assert!(state.load().is_moving() && state.load().is_verified());
        state.end_move();
        assert!(!state.load().is_moving());
        assert!(!before.same_version(state.load()));
        state.set(PageState::dirty_flag(true));
        assert!(state.load().is_dirty(true) && !state.load().is_dirty(false));
    }
}
