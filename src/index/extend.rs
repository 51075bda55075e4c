//! New extents: groups of primary and overflow pages, in the file and in memory.
//!
//! A group is added under the structure lock, outside all stripes:
//!
//! 1. The file is extended and blocks are allocated. *Crash:* the file is longer than the last checkpoint
//!    says; the next extent is laid over the same place.
//! 2. The extent is mapped, its bitmap pages are made in memory and marked dirty.
//! 3. The group is published. *Crash before the next checkpoint:* as in 1; replay adds the group again.

use parking_lot::MutexGuard;
use std::sync::atomic::Ordering;

use super::page::PageKind;
use super::region::{GROUPS_MAX, Group, GroupShape, PageId, PageSlot, PageState, Region, RegionKind};
use super::table::{Structure, Table};
use super::{Need, Step};
use crate::error::{Error, IoContext, Result};
use crate::sys::{IndexMap, PAGE_BYTES};

const PAGE: u64 = PAGE_BYTES as u64;

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

    /// Adds the next group of a region.
    pub(crate) fn add_group(&self, kind: RegionKind, structure: &mut MutexGuard<'_, Structure>) -> Step<()> {
        let region = self.region(kind);
        let number = region.groups().count();
        if number == GROUPS_MAX {
            return Err(Error::LimitReached {
                path: self.path.clone(),
                what: "index extents",
                limit: GROUPS_MAX as u64,
                remedy: "split the store",
            }
            .into());
        }
        let shape = region.shape(number);
        let alone = shape.bitmap_pages + 1;
        let pages = self.dirty.len() + alone;
        if self.dirty.journal_pages() < pages {
            return Err(Need::Journal { pages, alone }.into());
        }
        let first = structure.end_page;
        let map = self.new_extent(first, shape)?;
        let group = region.install(number, Group::new(shape, first, map, true));
        structure.end_page += shape.total();
        match kind {
            RegionKind::Primary => structure.primary_extents.push(first),
            RegionKind::Overflow => structure.overflow_extents.push(first),
        }
        for state in group.states() {
            state.set(PageState::VERIFIED);
        }
        for index in 0..shape.bitmap_pages as u32 {
            let id = PageId { region: kind, group: number as u8, index };
            let page = region.by_id(id).ok_or(Need::Nothing)?;
            page.page.init(PageKind::Bitmap, page.number(), u64::from(index), 0, 0, 0);
            self.dirty.mark_unbounded(&page);
        }
        if kind == RegionKind::Overflow {
            let first = region.pages() - shape.pages;
            self.pool.give((first..region.pages()).rev());
        }
        Ok(())
    }

    fn new_extent(&self, first: u64, shape: GroupShape) -> Result<IndexMap> {
        let bytes = shape.total() * PAGE;
        let Some(file) = &self.file else {
            return self.disk.map_anonymous(bytes as usize).context("reserve memory for pages of", &self.path);
        };
        let end = (first + shape.total()) * PAGE;
        if file.len().context("look at", &self.path)? < end {
            file.set_len(end).context("extend", &self.path)?;
        }
        file.allocate(first * PAGE, bytes).context("allocate blocks of", &self.path)?;
        let map = file.map_fresh(first * PAGE, bytes as usize).context("map", &self.path)?;
        // Whoever evacuates pages into it shall not wait for page faults. Only advice: it works without.
        let _ = map.populate(0, bytes as usize);
        Ok(map)
    }

    /// Allocates the disk blocks around a page.
    pub(crate) fn allocate_blocks(&self, id: PageId) -> Result<()> {
        let Some(page) = self.by_id(id) else { return Ok(()) };
        let index = u64::from(id.index);
        if let Some(file) = &self.file {
            let (first, pages) = page.group.chunk(index);
            file.allocate(first * PAGE, pages * PAGE).context("allocate blocks of", &self.path)?;
        }
        page.group.set_allocated(index);
        Ok(())
    }

    /// Makes sure that so many overflow pages are free.
    pub(crate) fn provide_overflow(&self, pages: u64) -> Step<()> {
        let mut structure = self.structure.lock();
        while self.pool.len() < pages {
            self.add_group(RegionKind::Overflow, &mut structure)?;
        }
        Ok(())
    }

    /// Begins to grow, if the load asks for it and growth is not under way.
    ///
    /// 1. The extent for pages `2^L..2^(L+1)` is added, unless an earlier growth did.
    /// 2. The growth word says "growing, 0 evacuated": no hash changes its page yet.
    pub(crate) fn start_growth(&self) -> Step<bool> {
        let mut structure = self.structure.lock();
        let growth = self.growth();
        if growth.is_growing() || self.len() <= self.threshold(growth.level()) {
            self.growth_wanted.store(false, Ordering::Relaxed);
            return Ok(false);
        }
        self.begin_growth(&mut structure)?;
        self.growth_wanted.store(false, Ordering::Relaxed);
        Ok(true)
    }

    /// The unconditional part of [`start_growth`](Self::start_growth).
    pub(crate) fn begin_growth(&self, structure: &mut MutexGuard<'_, Structure>) -> Step<()> {
        let growth = self.growth();
        if growth.level() == 36 {
            return Err(Error::LimitReached {
                path: self.path.clone(),
                what: "primary pages",
                limit: 1 << 36,
                remedy: "split the store",
            }
            .into());
        }
        while self.primary.pages() < 2 << growth.level() {
            self.add_group(RegionKind::Primary, structure)?;
        }
        self.set_growth(growth.started());
        Ok(())
    }
}
