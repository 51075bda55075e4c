//! The index as far as its tables share it: one file of pages, one dirty set, one journal for all of them.
//!
//! An extent belongs to one table. It begins where the file of that moment ends ([`Index::append`]), so extents of several
//! tables alternate in no fixed order.

use std::path::PathBuf;
use std::sync::Arc;

use super::budget::Budget;
use super::dirty::{DirtySet, LimitLift};
use super::page::Geometry;
use super::region::CHUNK_PAGES;
use crate::checksum::Uuid;
use crate::error::{IoContext, Result};
use crate::need::{Chance, Need};
use crate::observe;
use crate::sync::{Bell, Mutex, MutexGuard};
use crate::sys::{Disk, DiskFile, IndexMap, PAGE_BYTES, PageBuffer};
use crate::table::region::ExtentShape;

const PAGE: u64 = PAGE_BYTES as u64;
/// After so many images the memory for copies is looked after.
pub(super) const PROVIDED_EVERY: usize = 64;

/// The pages of all tables, as the checkpointer and the disk see them.
#[derive(Debug)]
pub(crate) struct Index {
    pub(super) geometry: Geometry,
    pub(super) uuid: Uuid,
    /// The index file's path, for error messages.
    pub(super) path: PathBuf,
    pub(super) disk: Arc<dyn Disk>,
    /// `None` if nothing may be written.
    pub(super) file: Option<Arc<dyn DiskFile>>,
    pub(super) dirty: DirtySet,
    /// Held while disk blocks of pages are allocated or given back.
    pub(super) blocks: Mutex<()>,
    /// The first page of the file that no extent uses.
    end_page: Mutex<u64>,
    /// No page of the file can be of a later generation than this before it is touched.
    pub(super) opened_generation: u64,
}

/// What it takes to make an index.
#[derive(Debug)]
pub(crate) struct IndexParts {
    pub(crate) geometry: Geometry,
    pub(crate) uuid: Uuid,
    pub(crate) path: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) file: Option<Arc<dyn DiskFile>>,
    pub(crate) end_page: u64,
    pub(crate) limit_pages: u64,
    /// The generation that the store was opened with.
    pub(crate) generation: u64,
    /// Rung when much is dirty.
    pub(crate) checkpoint_bell: Bell,
    pub(crate) chance: Chance,
}

impl Index {
    pub(crate) fn new(parts: IndexParts) -> Self {
        Index {
            geometry: parts.geometry,
            uuid: parts.uuid,
            path: parts.path,
            disk: parts.disk,
            file: parts.file,
            dirty: DirtySet::new(Budget::new(parts.limit_pages), parts.checkpoint_bell, parts.chance),
            blocks: Mutex::new(()),
            end_page: Mutex::new(parts.end_page),
            opened_generation: parts.generation,
        }
    }

    /// Extends the file by an extent, allocates the blocks of its bitmap pages, and maps it. Returns its first page and the
    /// end of the file, which is to be moved behind the extent when nothing can fail any more.
    ///
    /// # Errors
    /// `DiskFull`, `Io`. The file can be longer then, and the next extent is laid over the same place.
    pub(super) fn append(&self, shape: ExtentShape) -> Result<(u64, MutexGuard<'_, u64>, IndexMap)> {
        let end_page = self.end_page.lock();
        let (first, bytes) = (*end_page, shape.total() * PAGE);
        let Some(file) = &self.file else {
            let map = self.disk.map_anonymous(bytes as usize).context("reserve memory for pages of", &self.path)?;
            return Ok((first, end_page, map));
        };
        let end = (first + shape.total()) * PAGE;
        if file.len().context("look at", &self.path)? < end {
            file.set_len(end).context("extend", &self.path)?;
        }
        let bitmaps = shape.bitmap_pages.next_multiple_of(CHUNK_PAGES).min(shape.total());
        file.allocate(first * PAGE, bitmaps * PAGE).context("allocate blocks of", &self.path)?;
        let map = self.map_unused(&**file, first, shape.total())?;
        observe::mapped(&self.path, first * PAGE, bytes);
        Ok((first, end_page, map))
    }

    /// The first page of the file that no extent uses. It stays, if no table can get an extent.
    pub(super) fn end_page(&self) -> u64 {
        *self.end_page.lock()
    }

    /// Memory for an extent of which no page was ever written. A small one is anonymous, in huge pages: each first store to a
    /// page is cheap. A larger one (budget.rs) shows the file instead: only pages that were changed take memory, and what is
    /// clean can be given back page by page.
    pub(crate) fn map_unused(&self, file: &dyn DiskFile, first: u64, pages: u64) -> Result<IndexMap> {
        let (offset, bytes) = (first * PAGE, (pages * PAGE) as usize);
        let map = if self.dirty.budget().has_room_for_all(pages) {
            file.map_fresh(offset, bytes)
        } else {
            file.map_private(offset, bytes)
        };
        map.context("map", &self.path)
    }
}

/// Memory, and what is dirty.
impl Index {
    /// Memory for images, and for the copies that writers will probably make, before anything is held.
    ///
    /// # Errors
    /// `Io` if there is no memory for images.
    pub(crate) fn memory_for_images(&self) -> Result<PageBuffer> {
        // Only to be fast.
        let _ = self.dirty.provide_copies(&*self.disk);
        // More can become dirty until the cut. They are captured in several turns then.
        let room = (self.dirty.len() as usize + PROVIDED_EVERY).min(self.dirty.budget().images() as usize);
        PageBuffer::new(room).context("reserve memory for pages of", &self.path)
    }

    /// Pages that changed since the last cut.
    pub(crate) fn dirty_pages(&self) -> u64 {
        self.dirty.len()
    }

    /// True if so many pages are dirty that it is time for a checkpoint.
    pub(crate) fn is_half_dirty(&self) -> bool {
        self.dirty.is_half_full()
    }

    /// Pages with a private copy in memory.
    pub(crate) fn private_pages(&self) -> u64 {
        self.dirty.private_pages()
    }

    /// Memory for some copies of frozen pages, for a writer who found none.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn add_copies(&self) -> Result<()> {
        self.dirty.add_copies(&*self.disk).context("reserve memory for copies of pages of", &self.path)
    }

    /// Lifts the memory limit of dirty pages while the guard lives: for recovery, which must not wait for checkpoints, and
    /// for single operations that are larger than the limit.
    pub(crate) fn lift_limit(&self) -> LimitLift<'_> {
        self.dirty.lift_limit()
    }
}

/// Room in the journal, without which no page becomes dirty.
impl Index {
    /// Page images that the journal has blocks for.
    pub(crate) fn journal_pages(&self) -> u64 {
        self.dirty.journal_pages()
    }

    /// The journal has blocks for so many images now.
    pub(crate) fn set_journal_pages(&self, pages: u64) {
        self.dirty.set_journal_pages(pages);
    }

    /// The journal gets shorter: false, and nothing has changed, if more pages are dirty, or will be, than it would have
    /// room for.
    pub(crate) fn shrink_journal(&self, pages: u64) -> bool {
        self.dirty.shrink_journal(pages)
    }

    /// Looks whether the journal has blocks for one change of so many pages.
    ///
    /// # Errors
    /// [`Need::Journal`].
    pub(crate) fn check_journal(&self, pages: u64) -> std::result::Result<(), Need> {
        if self.dirty.journal_pages() < pages { Err(Need::Journal { pages, alone: pages }) } else { Ok(()) }
    }
}
