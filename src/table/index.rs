//! The index as far as its tables share it: one file of pages, one dirty set, one journal for all of them.
//!
//! An extent belongs to one table. It begins where the last extent of that moment ends, or where one of a dropped table was
//! ([`Index::append`]), so extents of several tables alternate in no fixed order.

use std::path::PathBuf;
use std::sync::Arc;

use super::budget::Budget;
use super::dirty::{DirtySet, LimitLift};
use super::page::Geometry;
use super::region::CHUNK_PAGES;
use crate::checksum::Uuid;
use crate::error::{Error, IoContext, Result};
use crate::mutant::{Mutant, broken};
use crate::need::{Chance, Need, Step};
use crate::observe;
use crate::sync::{AtomicU64, Bell, Mutex, MutexGuard, Ordering};
use crate::sys::{Disk, DiskFile, IndexMap, PAGE_BYTES, PageBuffer};
use crate::table::region::{ExtentShape, Gap, INDEX_EXTENTS_MAX};
use crate::table_id::TABLES_MAX;

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
    room: Mutex<Room>,
    /// Tables and extents that there are, and that the meta data have room for.
    tables: AtomicU64,
    extents: AtomicU64,
    tables_room: AtomicU64,
    extents_room: AtomicU64,
    /// No page of the file can be of a later generation than this before it is touched.
    pub(super) opened_generation: u64,
}

/// Where extents can lie.
#[derive(Debug)]
struct Room {
    /// The first page of the file behind all extents.
    end_page: u64,
    /// In the order of their pages. Neighbours are one.
    gaps: Vec<Gap>,
    /// Those that are to be, when it is durable that they are holes.
    punched: Vec<Gap>,
}

impl Room {
    fn reuse_punched(&mut self) {
        std::mem::take(&mut self.punched).into_iter().for_each(|gap| self.add_gap(gap));
    }

    fn add_gap(&mut self, gap: Gap) {
        let at = self.gaps.partition_point(|other| other.first < gap.first);
        self.gaps.insert(at, gap);
        self.gaps.dedup_by(|next, gap| {
            let touches = gap.first + gap.pages == next.first;
            gap.pages += if touches { next.pages } else { 0 };
            touches
        });
    }
}

/// A place for an extent that is being made.
pub(super) struct Place<'i> {
    /// The gap that it begins with; else it lies behind all extents.
    gap: Option<usize>,
    pages: u64,
    room: MutexGuard<'i, Room>,
}

impl Place<'_> {
    /// The first page of the extent.
    pub(super) fn first(&self) -> u64 {
        self.gap.and_then(|at| self.room.gaps.get(at)).map_or(self.room.end_page, |gap| gap.first)
    }

    /// The extent is there.
    pub(super) fn take(mut self) {
        let Some(at) = self.gap else {
            self.room.end_page += self.pages;
            return;
        };
        let gap = &mut self.room.gaps[at];
        (gap.first, gap.pages) = (gap.first + self.pages, gap.pages - self.pages);
        if gap.pages == 0 {
            self.room.gaps.remove(at);
        }
    }
}

/// Tables and extents, each of which the meta data list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Listed {
    pub(crate) tables: u64,
    /// Of all tables.
    pub(crate) extents: u64,
}

impl Listed {
    /// As many as there may be soon. Few, because the meta data of a new store are to fit into one page.
    pub(crate) fn with_slack(self) -> Self {
        let (tables, extents) = ((self.tables + 2).next_multiple_of(4), (self.extents + 8).next_multiple_of(16));
        Listed { tables: tables.min(TABLES_MAX as u64 + 2), extents: extents.min(INDEX_EXTENTS_MAX as u64) }
    }
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
    pub(crate) gaps: Vec<Gap>,
    pub(crate) listed: Listed,
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
            room: Mutex::new(Room { end_page: parts.end_page, gaps: parts.gaps, punched: Vec::new() }),
            tables: AtomicU64::new(parts.listed.tables),
            extents: AtomicU64::new(parts.listed.extents),
            // A read-only store writes no meta data.
            tables_room: AtomicU64::new(u64::MAX),
            extents_room: AtomicU64::new(u64::MAX),
            opened_generation: parts.generation,
        }
    }

    /// Finds a place for an extent, allocates the blocks of its bitmap pages, and maps it. The place is to be taken when nothing
    /// can fail any more.
    ///
    /// # Errors
    /// `DiskFull`, `Io`. The file can be longer then, and the next extent is laid over the same place.
    pub(super) fn append(&self, shape: ExtentShape) -> Result<(Place<'_>, IndexMap)> {
        let room = self.room.lock();
        let bytes = shape.total() * PAGE;
        let Some(file) = &self.file else {
            let map = self.disk.map_anonymous(bytes as usize).context("reserve memory for pages of", &self.path)?;
            return Ok((Place { gap: None, pages: shape.total(), room }, map));
        };
        // Whatever stands there would be taken for pages.
        let is_hole = |gap: &Gap| {
            let (start, end) = (gap.first * PAGE, (gap.first + shape.total()) * PAGE);
            file.next_data(start).is_ok_and(|data| data.is_none_or(|data| data >= end))
        };
        let fits = |gap: &Gap| gap.pages >= shape.total() && is_hole(gap);
        let gaps = room.gaps.iter().enumerate().filter(|(_, gap)| fits(gap));
        let gap = gaps.min_by_key(|(_, gap)| gap.pages).map(|(at, _)| at);
        let place = Place { gap, pages: shape.total(), room };
        let (first, end) = (place.first(), (place.first() + shape.total()) * PAGE);
        if file.len().context("look at", &self.path)? < end {
            file.set_len(end).context("extend", &self.path)?;
        }
        let bitmaps = shape.bitmap_pages.next_multiple_of(CHUNK_PAGES).min(shape.total());
        file.allocate(first * PAGE, bitmaps * PAGE).context("allocate blocks of", &self.path)?;
        let map = self.map_unused(&**file, first, shape.total())?;
        observe::mapped(&self.path, first * PAGE, bytes);
        Ok((place, map))
    }

    /// Makes the gaps, and the file behind the last extent, fit for extents. For an open, before it adds one.
    ///
    /// 1. Pages are punched out that a process has left there, which died between a checkpoint and step 1 of
    ///    [`give_back_retired`](super::tables::Tables::give_back_retired).
    /// 2. The file is synced, because the holes that the last process made may be in the cache only: whatever came back there
    ///    after a power failure would be taken for pages of an extent. *Crash before:* nothing names what is there.
    ///
    /// A store without gaps syncs nothing.
    ///
    /// # Errors
    /// `Io`; extents may lie there when the next checkpoint has synced the file, where it shows holes then.
    pub(crate) fn give_back_leftovers(&self) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let mut room = self.room.lock();
        let end = room.end_page.max(file.len().context("look at", &self.path)?.div_ceil(PAGE));
        let behind = Gap { first: room.end_page, pages: end - room.end_page };
        let has_data = |gap: &Gap| {
            let (start, end) = (gap.first * PAGE, (gap.first + gap.pages) * PAGE);
            file.next_data(start).map_or(true, |data| data.is_some_and(|data| data < end))
        };
        let mut gaps = std::mem::take(&mut room.gaps);
        if has_data(&behind) {
            room.end_page = end;
            gaps.push(behind);
        } else if gaps.is_empty() && behind.pages == 0 {
            return Ok(());
        }
        let punched = gaps.iter().filter(|gap| has_data(gap)).try_for_each(|&gap| self.punch(gap));
        let synced = punched.and_then(|()| match broken(Mutant::HolesTrusted) {
            true => Ok(()),
            false => file.sync_all().context("sync", &self.path),
        });
        if synced.is_ok() {
            room.gaps = gaps;
        } else {
            if room.end_page < end {
                room.end_page = end;
                gaps.push(behind);
            }
            room.punched.extend(gaps);
        }
        synced
    }

    /// Punches out pages of a table that was dropped. A checkpoint that does not name them is durable.
    ///
    /// # Errors
    /// `Io`; they stay as they are then.
    pub(super) fn punch(&self, gap: Gap) -> Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        file.punch_hole(gap.first * PAGE, gap.pages * PAGE).context("give back blocks of", &self.path)
    }

    /// These gaps were punched out. Extents may lie there when the next checkpoint has synced the file: whatever came back there
    /// after a crash would be taken for their pages.
    pub(super) fn add_punched(&self, gaps: Vec<Gap>) {
        self.uncount_extents(gaps.len() as u64);
        let mut room = self.room.lock();
        room.punched.extend(gaps);
        if broken(Mutant::GapsNotSynced) {
            room.reuse_punched();
        }
    }

    /// A checkpoint has synced the file: what was punched out before stays so.
    pub(super) fn reuse_punched(&self) {
        self.room.lock().reuse_punched();
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

/// What the meta data list, for which they need room.
impl Index {
    /// Tables and extents that there are.
    pub(crate) fn listed(&self) -> Listed {
        Listed { tables: self.tables.load(Ordering::Relaxed), extents: self.extents.load(Ordering::Relaxed) }
    }

    /// The meta data have room for so many now.
    pub(crate) fn set_room(&self, room: Listed) {
        self.tables_room.store(room.tables, Ordering::Relaxed);
        self.extents_room.store(room.extents, Ordering::Relaxed);
    }

    /// Counts an extent that is about to be added.
    ///
    /// # Errors
    /// [`Need::MetaRoom`]; `LimitReached`.
    pub(super) fn count_extent(&self) -> Step<()> {
        let limit = INDEX_EXTENTS_MAX as u64;
        let room = self.extents_room.load(Ordering::Relaxed);
        let count = |extents| (extents < limit.min(room)).then_some(extents + 1);
        match self.extents.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count) {
            Ok(_) => Ok(()),
            Err(extents) if extents < limit => Err(Need::MetaRoom.into()),
            Err(_) => {
                let (path, what) = (self.path.clone(), "extents of all tables");
                Err(Error::LimitReached { path, what, limit, remedy: "put tables into a store of their own" }.into())
            }
        }
    }

    /// So many extents were not added after all, or are gone.
    pub(super) fn uncount_extents(&self, extents: u64) {
        self.extents.fetch_sub(extents, Ordering::Relaxed);
    }

    /// Counts a table that is about to be added.
    ///
    /// # Errors
    /// [`Need::MetaRoom`].
    pub(super) fn count_table(&self) -> std::result::Result<(), Need> {
        let room = self.tables_room.load(Ordering::Relaxed);
        let count = |tables| (tables < room).then_some(tables + 1);
        let counted = self.tables.fetch_update(Ordering::Relaxed, Ordering::Relaxed, count);
        counted.map(|_| ()).map_err(|_| Need::MetaRoom)
    }

    /// A table was not added after all, or is gone.
    pub(super) fn uncount_table(&self) {
        self.tables.fetch_sub(1, Ordering::Relaxed);
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

    /// True if so many pages are private that the next ones would soon have to wait.
    pub(super) fn has_much_private(&self) -> bool {
        self.dirty.private_pages() > self.dirty.budget().dirty()
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
