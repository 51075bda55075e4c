//! The tables as a checkpoint sees them: the cut, the images of the pages that it froze, and the room that they need.
//!
//! 1. Memory for images and copies is found ([`Index::memory_for_images`](super::index::Index)). Nothing is held.
//! 2. The list of tables is held, then each one's structure, then all stripes: the dirty set is frozen, and what each table is
//!    at this moment is noted.
//! 3. [`Frozen`] passes the images on. A writer that changes a frozen page copies it aside before (dirty.rs).
//! 4. When the checkpoint is durable, clean private pages are dropped if memory is short.

use std::sync::Arc;

use super::index::{Index, PROVIDED_EVERY};
use super::page::image;
use super::region::{PageId, PageSlot, RegionKind};
use super::state::TableState;
use super::tables::find;
use super::{Structure, Table};
use crate::sync::MutexGuard;
use crate::sys::{PAGE_BYTES, PageBuffer};

/// Tables of which none begins or ends a resize, or gets an extent.
#[derive(Debug)]
pub(crate) struct HeldTables<'t> {
    index: &'t Index,
    all: &'t [Arc<Table>],
    structures: Vec<MutexGuard<'t, Structure>>,
}

/// The tables at a cut.
#[derive(Debug)]
pub(crate) struct IndexCut<'t> {
    pub(crate) tables: Vec<TableState>,
    pub(crate) end_page: u64,
    pub(crate) pages: FrozenPages<'t>,
}

/// The pages that a cut froze. None of them is captured yet.
#[derive(Debug)]
pub(crate) struct FrozenPages<'t> {
    index: &'t Index,
    all: &'t [Arc<Table>],
    ids: Vec<PageId>,
}

impl<'t> HeldTables<'t> {
    /// Waits until each table's structure stands still, and holds it. `all` are in the order of their ids, and the caller
    /// holds the list.
    pub(crate) fn hold(index: &'t Index, all: &'t [Arc<Table>]) -> Self {
        HeldTables { index, all, structures: all.iter().map(|table| table.structure.lock()).collect() }
    }

    /// The cut: freezes the dirty set with all stripes held, and calls `at_cut` meanwhile. No other checkpoint is under way.
    pub(crate) fn cut<T>(self, at_cut: impl FnOnce() -> T) -> (IndexCut<'t>, T) {
        let HeldTables { index, all, structures } = self;
        let stripes: Vec<_> = all.iter().map(|table| table.lock_all()).collect();
        let ids = index.dirty.freeze();
        let rest = at_cut();
        let states = all.iter().zip(&structures).map(|(table, structure)| table.state(structure));
        let tables = states.collect();
        let cut = IndexCut {
            tables,
            end_page: all.iter().map(|table| table.end_page()).max().unwrap_or(0),
            pages: FrozenPages { index, all, ids },
        };
        drop(stripes);
        (cut, rest)
    }
}

impl<'t> FrozenPages<'t> {
    pub(crate) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Captures the first pages. `images` has room for some of them at least.
    pub(crate) fn capture(self, images: PageBuffer) -> Frozen<'t> {
        let FrozenPages { index, all, ids } = self;
        let page = |&id: &PageId| find(all, id.table)?.by_id(id);
        let mut pages: Vec<PageSlot<'t>> = ids.iter().filter_map(page).collect();
        pages.sort_unstable_by_key(PageSlot::number);
        let mut frozen = Frozen { index, is_empty: ids.is_empty(), pages: pages.into_iter(), images, passed: 0 };
        frozen.capture();
        frozen
    }
}

/// The frozen pages, which become images in the order of their numbers. The memory of copies goes back with it.
pub(crate) struct Frozen<'t> {
    index: &'t Index,
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
            if self.index.dirty.capture(&page, &mut bytes) && image::kind(&bytes) != 0 {
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
            let _ = self.index.dirty.provide_copies(&*self.index.disk);
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
        self.index.dirty.release_copies();
    }
}

impl Table {
    /// What a checkpoint notes. The caller holds the structure and all stripes.
    fn state(&self, structure: &Structure) -> TableState {
        TableState {
            id: self.id,
            primary_log2: self.primary.base_log2(),
            overflow_log2: self.overflow.base_log2(),
            growth: self.growth(),
            records: self.len(),
            floor: structure.floor,
            primary_extents: structure.primary_extents.clone(),
            overflow_extents: structure.overflow_extents.clone(),
        }
    }

    /// Drops private copies of clean pages until few enough are left.
    pub(super) fn drop_clean_pages(&self) {
        let budget = self.index.dirty.budget();
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
                    let id = PageId { table: self.id, region: kind, extent: 0, index: index as u32 };
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
