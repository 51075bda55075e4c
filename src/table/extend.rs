//! New extents of primary and overflow pages, in the file and in memory.
//!
//! An extent is added under the structure lock, outside all stripes:
//!
//! 1. The file is extended; blocks are allocated for the bitmap pages. *Crash:* the file is longer than the
//!    last checkpoint says; the next extent is laid over the same place.
//! 2. Memory is mapped for the extent, its bitmap pages are made there and marked dirty.
//! 3. The extent is published. *Crash before the next checkpoint:* as in 1; replay adds the extent again.
//! 4. Blocks for the bucket pages are allocated a chunk at a time, in the background ahead of the writers or by the
//!    writer that is about to change the first page of a chunk.

use super::load::LEVEL_LIMIT;
use super::page::PageKind;
use super::region::{CHUNK_PAGES, EXTENTS_MAX, Extent, PageId, PageSlot, PageState, Region, RegionKind};
use super::{Structure, Table};
use crate::error::{Error, IoContext, Result};
use crate::need::Step;
use crate::observe;
use crate::sync::{MutexGuard, Ordering};
use crate::sys::PAGE_BYTES;

const PAGE: u64 = PAGE_BYTES as u64;
/// Pages of a new overflow extent that get their blocks at once.
const FIRST_PAGES: u64 = 256;

impl Table {
    pub(crate) fn region(&self, kind: RegionKind) -> &Region {
        match kind {
            RegionKind::Primary => &self.primary,
            RegionKind::Overflow => &self.overflow,
        }
    }

    /// A page by its name.
    pub(crate) fn by_id(&self, id: PageId) -> Option<PageSlot<'_>> {
        self.region(id.region).by_id(id)
    }

    /// Adds the next extent of a region.
    pub(super) fn add_extent(&self, kind: RegionKind, structure: &mut MutexGuard<'_, Structure>) -> Step<()> {
        self.check_there()?;
        let region = self.region(kind);
        let number = region.extents().count();
        if number == EXTENTS_MAX {
            return Err(Error::LimitReached {
                path: self.index.path.clone(),
                what: "index extents",
                limit: EXTENTS_MAX as u64,
                remedy: "split the store",
            }
            .into());
        }
        let shape = region.shape(number);
        let mut blocks = self.index.dirty.reserve(shape.bitmap_pages)?;
        self.index.count_extent()?;
        let mapped = self.index.append(shape).and_then(|appended| {
            let states = self.index.disk.map_anonymous(shape.state_bytes());
            Ok((appended, states.context("reserve memory for the pages of", &self.index.path)?))
        });
        let ((place, map), states) = mapped.inspect_err(|_| self.index.uncount_extents(1))?;
        let first = place.first();
        let extent = region.install(number, Extent::new(shape, first, map, states, self.index.file.is_none()));
        for index in (0..shape.bitmap_pages).step_by(CHUNK_PAGES as usize) {
            extent.set_allocated(index);
        }
        place.take();
        match kind {
            RegionKind::Primary => structure.primary_extents.push(first),
            RegionKind::Overflow => structure.overflow_extents.push(first),
        }
        for state in extent.states() {
            state.set(PageState::VERIFIED);
        }
        for index in 0..shape.bitmap_pages as u32 {
            let id = PageId { table: self.id, region: kind, extent: number as u8, index };
            let page = region
                .by_id(id)
                .ok_or_else(|| Error::impossible(&self.index.path, "a new extent without its bitmap page"))?;
            page.page.init(PageKind::Bitmap, page.number(), u64::from(index), 0, 0, 0);
            blocks.mark(&page)?;
        }
        if kind == RegionKind::Overflow {
            let first = region.pages() - shape.pages;
            self.add_free((first..region.pages()).rev());
        }
        Ok(())
    }

    /// Adds the first primary pages of a new table.
    pub(super) fn add_first_pages(&self) -> Step<()> {
        let mut structure = self.structure.lock();
        while self.primary.pages() < self.growth().pages() {
            self.add_extent(RegionKind::Primary, &mut structure)?;
        }
        Ok(())
    }

    /// Notes which overflow pages of a new extent are free.
    pub(crate) fn add_free(&self, pages: impl Iterator<Item = u64>) {
        self.pool.give(pages);
        self.pool.set_all(self.overflow.pages());
    }

    /// Allocates the disk blocks around a page. For an overflow page in a large extent, those of pages behind it as well, because
    /// they are taken in their order and a writer waits for each call. On a full disk the page's own must do. For a primary page
    /// of a table that was made large in advance, the next key leads anywhere else.
    pub(crate) fn allocate_blocks(&self, id: PageId) -> Result<()> {
        let Some(page) = self.by_id(id) else { return Ok(()) };
        let _one = self.index.blocks.lock();
        let from = u64::from(id.index) / CHUNK_PAGES * CHUNK_PAGES;
        let pages = match id.region {
            RegionKind::Primary => CHUNK_PAGES,
            RegionKind::Overflow => {
                (page.extent.pages / 4).next_multiple_of(CHUNK_PAGES).clamp(CHUNK_PAGES, FIRST_PAGES)
            }
        };
        match self.allocate_run(page.extent, from, pages) {
            Err(Error::DiskFull { .. }) if pages > CHUNK_PAGES => self.allocate_run(page.extent, from, CHUNK_PAGES),
            other => other,
        }
    }

    /// Allocates the disk blocks of chunks that follow each other. The caller holds the lock of the blocks.
    fn allocate_run(&self, extent: &Extent, from: u64, pages: u64) -> Result<()> {
        let pages = pages.min(extent.bitmap_pages + extent.pages - from);
        if let Some(file) = &self.index.file {
            let first = (extent.first + from) * PAGE;
            file.allocate(first, pages * PAGE).context("allocate blocks of", &self.index.path)?;
        }
        (from..from + pages).step_by(CHUNK_PAGES as usize).for_each(|index| extent.set_allocated(index));
        Ok(())
    }

    /// A free overflow page, if it lacks disk blocks.
    pub(super) fn without_blocks(&self, number: u64) -> Option<PageSlot<'_>> {
        self.overflow.page(number).filter(|page| !page.is_used() && !page.extent.is_allocated(page.id.index.into()))
    }

    /// For a full disk: free overflow pages that have disk blocks are taken first from now on. True if there are so many.
    pub(crate) fn has_allocated_free(&self, pages: u64) -> bool {
        self.pool.prefer(|number| self.without_blocks(number).is_none()) >= pages
    }

    /// Allocates the disk blocks of the free overflow pages that are taken next.
    pub(crate) fn allocate_free(&self, pages: u64) -> Result<()> {
        for number in self.pool.next(pages) {
            if let Some(page) = self.without_blocks(number) {
                self.allocate_blocks(page.id)?;
            }
        }
        Ok(())
    }

    /// Makes sure that so many overflow pages are free.
    pub(crate) fn provide_overflow(&self, pages: u64) -> Step<()> {
        let mut structure = self.structure.lock();
        while self.pool.len() < pages {
            self.add_extent(RegionKind::Overflow, &mut structure)?;
        }
        Ok(())
    }

    /// Begins to grow, if the load asks for it and growth is not under way.
    ///
    /// 1. The extent for pages `2^L..2^(L+1)` is added, unless it is there.
    /// 2. The growth word says "growing, 0 evacuated": no hash changes its page yet.
    pub(crate) fn start_growth(&self) -> Step<()> {
        self.start_growth_under(&mut self.structure.lock())
    }

    /// The same, unless somebody else is at the structure: a change does not wait for whoever adds an extent.
    pub(crate) fn try_start_growth(&self) -> Step<()> {
        match self.structure.try_lock() {
            Some(mut structure) => self.start_growth_under(&mut structure),
            None => Ok(()),
        }
    }

    fn start_growth_under(&self, structure: &mut MutexGuard<'_, Structure>) -> Step<()> {
        self.growth_wanted.store(false, Ordering::Relaxed);
        let growth = self.growth();
        let threshold = self.threshold(growth.level());
        if growth.is_shrinking() && self.len() > threshold - threshold / 8 {
            self.turn_round(structure);
        }
        let wanted = !growth.is_resizing() && self.len() > threshold;
        if wanted {
            let begun = self.begin_growth(structure);
            if begun.is_err() {
                self.growth_wanted.store(true, Ordering::Relaxed);
            }
            return begun;
        }
        Ok(())
    }

    /// Adds the extent for the next growth, if it is not there, and faults its memory in, so that neither the
    /// start of growth nor the first entry of a page has to.
    pub(crate) fn prepare_growth(&self) -> Step<()> {
        let extent = {
            let mut structure = self.structure.lock();
            let growth = self.growth();
            // A wish can come late: it was for the growth that has just ended.
            let is_wanted = !growth.is_resizing() && self.nears_growth(growth);
            if !is_wanted || self.primary.pages() >= 2 << growth.level() {
                return Ok(());
            }
            self.add_extent(RegionKind::Primary, &mut structure)?;
            let added = self.primary.extents().last();
            // Before anybody can begin to grow into it. Whoever finds no block says so.
            let _ = added.map(|(_, extent)| self.allocate_from(extent, u64::MAX));
            added
        };
        if let Some((_, extent)) = extent.filter(|(_, extent)| self.index.dirty.budget().has_room_for_all(extent.pages))
        {
            // Only advice: it works without.
            let _ = extent.map().populate(0, ((extent.bitmap_pages + extent.pages) * PAGE) as usize);
        }
        Ok(())
    }

    /// Adds overflow pages before the last ones are taken, so that no change has to. Called in the background.
    pub(crate) fn prepare_overflow(&self) -> Step<()> {
        if !self.pool.has_few() {
            return Ok(());
        }
        let mut structure = self.structure.lock();
        self.add_extent(RegionKind::Overflow, &mut structure)?;
        let added = self.overflow.extents().last();
        // The first blocks only: how many pages will be needed nobody knows. Whoever finds no block says so.
        let _ = added.map(|(_, extent)| self.allocate_from(extent, FIRST_PAGES));
        Ok(())
    }

    /// Allocates disk blocks for the pages that growth fills, as far as they were not there when the extent was added.
    /// Called in the background while the table grows.
    pub(crate) fn allocate_ahead(&self) -> Result<()> {
        let growth = self.growth();
        let number = (growth.level() + 1).saturating_sub(self.primary.base_log2());
        let Some(extent) = self.primary.extent(number.into()).filter(|_| !growth.is_shrinking()) else { return Ok(()) };
        self.allocate_from(extent, u64::MAX)
    }

    /// Allocates disk blocks for the first pages of an extent.
    fn allocate_from(&self, extent: &Extent, pages: u64) -> Result<()> {
        /// Chunks allocated by one call.
        const CHUNKS: u64 = 512;
        let total = (extent.bitmap_pages + extent.pages).min(pages);
        let mut index = 0;
        while index < total {
            let pages = (CHUNKS * CHUNK_PAGES).min(total - index);
            let mut chunks = (index..index + pages).step_by(CHUNK_PAGES as usize);
            let _one = self.index.blocks.lock();
            if chunks.any(|index| !extent.is_allocated(index)) {
                self.allocate_run(extent, index, pages)?;
            }
            index += pages;
        }
        Ok(())
    }

    /// The unconditional part of [`start_growth`](Self::start_growth).
    pub(super) fn begin_growth(&self, structure: &mut MutexGuard<'_, Structure>) -> Step<()> {
        let growth = self.growth();
        if growth.level() >= LEVEL_LIMIT {
            return Err(Error::LimitReached {
                path: self.index.path.clone(),
                what: "primary pages",
                limit: 1 << LEVEL_LIMIT,
                remedy: "split the store",
            }
            .into());
        }
        while self.primary.pages() < 2 << growth.level() {
            self.add_extent(RegionKind::Primary, structure)?;
        }
        self.set_growth(growth.started());
        self.ring_growth();
        observe::growth_begun(&self.index.path, growth.level());
        Ok(())
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::super::growth::Growth;
    use super::super::region::ExtentShape;
    use super::*;
    use crate::need::Shortage;

    /// What the error says; `None` if it is another one.
    fn said(step: Step<()>) -> Option<(&'static str, u64, &'static str)> {
        match step {
            Err(Shortage::Error(error)) => match *error {
                Error::LimitReached { what, limit, remedy, .. } => Some((what, limit, remedy)),
                _ => None,
            },
            _ => None,
        }
    }

    #[test]
    fn the_last_level_and_the_last_extent_are_told() {
        let dir = tempfile::tempdir().unwrap();
        let store = crate::Store::open(dir.path().join("s")).unwrap();
        store.close().unwrap();
        // Read-only: neither what is made up here nor a checkpoint reaches the disk.
        let store = crate::Options::new().read_only(true).open(dir.path().join("s")).unwrap();
        let table = &store.engine().tables.main();
        let mut structure = table.structure.lock();
        let growth = table.growth();
        table.set_growth(Growth::resting(LEVEL_LIMIT, growth.stripes_log2()));
        let last_level = said(table.begin_growth(&mut structure));
        table.set_growth(growth);
        assert_eq!(last_level, Some(("primary pages", 1 << 31, "split the store")));

        let shape = ExtentShape { bitmap_pages: 1, pages: 1 };
        for number in table.primary.extents().count()..EXTENTS_MAX {
            let map = |bytes| table.index.disk.map_anonymous(bytes).unwrap();
            let extent = Extent::new(shape, 0, map(2 * PAGE as usize), map(shape.state_bytes()), true);
            table.primary.install(number, extent);
        }
        let last_extent = said(table.add_extent(RegionKind::Primary, &mut structure));
        assert_eq!(last_extent, Some(("index extents", EXTENTS_MAX as u64, "split the store")));
    }
}
