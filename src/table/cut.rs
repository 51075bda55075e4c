//! The table as a checkpoint sees it: the cut, the images of the pages that it froze, and the room that they need.
//!
//! 1. Memory for images and copies is found ([`Index::memory_for_images`](super::index::Index)). Nothing is held.
//! 2. The structure is held, then all stripes: the dirty set is frozen, and what the table is at this moment is noted.
//! 3. [`Frozen`] passes the images on. A writer that changes a frozen page copies it aside before (dirty.rs).
//! 4. When the checkpoint is durable, clean private pages are dropped if memory is short.

use super::growth::Growth;
use super::index::PROVIDED_EVERY;
use super::page::image;
use super::region::{PageId, PageSlot, RegionKind};
use super::{Structure, Table};
use crate::sync::MutexGuard;
use crate::sys::{PAGE_BYTES, PageBuffer};

/// The table while no resize begins or ends, and no extent is added.
#[derive(Debug)]
pub(crate) struct HeldStructure<'t> {
    table: &'t Table,
    structure: MutexGuard<'t, Structure>,
}

/// A table at a cut, but for its pages: what a checkpoint notes of it, and what an open begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct TableState {
    pub(crate) growth: Growth,
    /// Entries, expired ones included.
    pub(crate) records: u64,
    /// Records that the table must have room for before it may shrink.
    pub(crate) floor: u64,
    /// First pages of the extents, by their numbers in the region.
    pub(crate) primary_extents: Vec<u64>,
    pub(crate) overflow_extents: Vec<u64>,
}

/// The table at a cut.
#[derive(Debug)]
pub(crate) struct TableCut<'t> {
    pub(crate) state: TableState,
    pub(crate) end_page: u64,
    pub(crate) pages: FrozenPages<'t>,
}

/// The pages that a cut froze. None of them is captured yet.
#[derive(Debug)]
pub(crate) struct FrozenPages<'t> {
    table: &'t Table,
    ids: Vec<PageId>,
}

impl<'t> HeldStructure<'t> {
    /// The cut: freezes the dirty set with all stripes held, and calls `at_cut` meanwhile. No other checkpoint is under way.
    pub(crate) fn cut<T>(self, at_cut: impl FnOnce() -> T) -> (TableCut<'t>, T) {
        let HeldStructure { table, structure } = self;
        let all = table.lock_all();
        let ids = table.index.dirty.freeze();
        let rest = at_cut();
        let cut = TableCut {
            state: TableState {
                growth: table.growth(),
                records: table.len(),
                floor: structure.floor,
                primary_extents: structure.primary_extents.clone(),
                overflow_extents: structure.overflow_extents.clone(),
            },
            end_page: table.index.end_page(),
            pages: FrozenPages { table, ids },
        };
        drop(all);
        (cut, rest)
    }
}

impl<'t> FrozenPages<'t> {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Captures the first pages. `images` has room for some of them at least.
    pub(crate) fn capture(self, images: PageBuffer) -> Frozen<'t> {
        let FrozenPages { table, ids } = self;
        let mut pages: Vec<PageSlot<'t>> = ids.iter().filter_map(|&id| table.by_id(id)).collect();
        pages.sort_unstable_by_key(PageSlot::number);
        let mut frozen = Frozen { table, is_empty: ids.is_empty(), pages: pages.into_iter(), images, passed: 0 };
        frozen.capture();
        frozen
    }
}

/// The frozen pages, which become images in the order of their numbers. The memory of copies goes back with it.
pub(crate) struct Frozen<'t> {
    table: &'t Table,
    is_empty: bool,
    pages: std::vec::IntoIter<PageSlot<'t>>,
    images: PageBuffer,
    /// Images that were passed on.
    passed: usize,
}

impl Frozen<'_> {
    /// True if nothing was dirty at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Captures some more.
    fn capture(&mut self) {
        self.passed = 0;
        self.images.clear();
        for page in self.pages.by_ref().take(self.images.room()) {
            let mut bytes = [0; PAGE_BYTES];
            // A page that was made ready for an entry which then went elsewhere is still a hole.
            if self.table.index.dirty.capture(&page, &mut bytes) && image::kind(&bytes) != 0 {
                self.images.push(&bytes);
            }
        }
    }

    /// The next image.
    pub(crate) fn next(&mut self) -> Option<&mut [u8; PAGE_BYTES]> {
        while self.passed == self.images.len() && self.pages.len() > 0 {
            self.capture();
        }
        if self.passed.is_multiple_of(PROVIDED_EVERY) && self.pages.len() > 0 {
            // Only to be fast.
            let _ = self.table.index.dirty.provide_copies(&*self.table.index.disk);
        }
        self.passed += 1;
        self.images.get_mut(self.passed - 1)
    }

    /// True if there is only one more.
    pub(crate) fn is_last(&self) -> bool {
        self.passed + 1 == self.images.len() && self.pages.len() == 0
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        self.table.index.dirty.release_copies();
    }
}

impl Table {
    /// Waits until the structure stands still, and holds it.
    pub(crate) fn hold_structure(&self) -> HeldStructure<'_> {
        HeldStructure { table: self, structure: self.structure.lock() }
    }

    /// Drops private copies of clean pages if so many pages are private that the next ones would soon have to wait.
    pub(crate) fn drop_clean_pages(&self) {
        let budget = self.index.dirty.budget();
        if self.index.dirty.private_pages() <= budget.dirty() {
            return;
        }
        for kind in [RegionKind::Primary, RegionKind::Overflow] {
            for (_, extent) in self.region(kind).extents() {
                for (index, _) in extent.states().iter().enumerate().skip(extent.bitmap_pages as usize) {
                    if self.index.dirty.private_pages() <= budget.kept() {
                        return;
                    }
                    let Some((page, state)) = extent.at(index as u64) else { continue };
                    if !state.load().is_private() || state.load().is_dirty_at_all() {
                        continue;
                    }
                    let id = PageId { region: kind, extent: 0, index: index as u32 };
                    let slot = PageSlot { page, state, extent, id };
                    // The file holds the same bytes, but for checksum and generation. Nobody can begin to change
                    // the page meanwhile: that takes the dirty set's lock, which `release` holds.
                    self.index
                        .dirty
                        .release(&slot, || extent.map().drop_private(index * PAGE_BYTES, PAGE_BYTES).is_ok());
                }
            }
        }
    }
}
