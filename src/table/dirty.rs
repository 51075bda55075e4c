//! The set of pages that the next checkpoint must write, and the frozen set of the one under way.
//!
//! Time is cut into epochs, of which two matter: the current one (parity p) and the frozen one (parity !p).
//! A page is *dirty in p* if it changed since the last cut, and *dirty in !p* while the checkpoint under way
//! still has to capture it. Whoever is about to change a page calls [`DirtySet::mark`] first: if the page is
//! frozen and not yet captured, its frozen image is copied aside. So the checkpoint sees exactly the bytes
//! that stood in memory at the cut.
//!
//! A page becomes dirty only after its block in the journal is there (`journal_pages`), so that a checkpoint
//! can always run, full disk or not. All changes of the dirty flags happen under one lock; a writer takes it
//! once per page and epoch. Bitmap pages are guarded by the same lock, since they belong to no stripe.

use std::io;

use super::budget::Budget;
use super::copies::{self, Copies};
use super::region::{PageId, PageSlot, PageState, Region};
use crate::error::Error;
use crate::need::{Chance, Need, Shortage};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Bell, Mutex, Ordering, lock_soon};
use crate::sys::{Disk, PAGE_BYTES};
use crate::table_id::TableId;

#[derive(Debug)]
pub(super) struct DirtySet {
    /// Parity of the current epoch. Changes with all stripes held only, so that a writer under a stripe sees
    /// a stable value.
    parity: AtomicBool,
    /// Page images that the journal has blocks for.
    journal_pages: AtomicU64,
    budget: Budget,
    /// Operations to which the limit does not apply.
    exempt: AtomicU32,
    chance: Chance,
    /// Pages with a private copy in memory.
    private_pages: AtomicU64,
    inner: Mutex<Inner>,
    /// Rung when so many pages are dirty that it is time for a checkpoint.
    half_full: Bell,
}

/// What became of pages that were to be given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GivenBack {
    Done,
    /// One of them is in use.
    InUse,
    /// None is in use, but the file does not say so yet: the next checkpoint will.
    NotYet,
}

/// While it lives, the memory limit does not apply.
#[derive(Debug)]
pub(crate) struct LimitLift<'d> {
    exempt: &'d AtomicU32,
}

impl Drop for LimitLift<'_> {
    fn drop(&mut self) {
        self.exempt.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Blocks of the journal that are set aside for pages of a new extent. No limit applies to them. What is not used goes back
/// with the guard.
#[derive(Debug)]
pub(super) struct JournalBlocks<'d> {
    dirty: &'d DirtySet,
    left: u64,
}

impl JournalBlocks<'_> {
    /// Makes a page dirty whose disk block is allocated.
    pub(super) fn mark(&mut self, page: &PageSlot<'_>) -> Result<(), Shortage> {
        let mut inner = self.dirty.inner.lock();
        if !self.dirty.is_dirty(page) {
            self.dirty.push(&mut inner, page)?;
            let used = self.left.min(1);
            self.left -= used;
            inner.reserved -= used;
        }
        Ok(())
    }
}

impl Drop for JournalBlocks<'_> {
    fn drop(&mut self) {
        self.dirty.inner.lock().reserved -= self.left;
    }
}

#[derive(Debug, Default)]
struct Inner {
    /// Pages dirty in the current epoch.
    current: Vec<PageId>,
    /// Blocks of the journal that are set aside.
    reserved: u64,
    /// Pages of the frozen set that are not yet captured nor copied aside.
    frozen_left: u64,
    /// Frozen images that writers copied aside.
    copies: Copies,
}

/// The bitmap page that has a page's bit.
fn bitmap_of<'t>(region: &'t Region, page: &PageSlot<'_>) -> Result<PageSlot<'t>, Shortage> {
    let offset = u64::from(page.id.index) - page.extent.bitmap_pages;
    let id = PageId { index: (offset / super::region::BITMAP_BITS) as u32, ..page.id };
    let missing = || Error::impossible(std::path::Path::new("index"), "an extent without its bitmap page");
    Ok(region.by_id(id).ok_or_else(missing)?)
}

impl DirtySet {
    pub(super) fn new(budget: Budget, half_full: Bell, chance: Chance) -> Self {
        DirtySet {
            parity: AtomicBool::new(false),
            journal_pages: AtomicU64::new(0),
            budget,
            exempt: AtomicU32::new(0),
            chance,
            private_pages: AtomicU64::new(0),
            inner: Mutex::new(Inner::default()),
            half_full,
        }
    }

    pub(super) fn budget(&self) -> Budget {
        self.budget
    }

    /// True if so many pages are dirty that it is time for a checkpoint.
    pub(super) fn is_half_full(&self) -> bool {
        self.len() > self.budget.dirty()
    }

    /// True if the page is dirty in the current epoch: it may be changed without further ado.
    #[inline]
    pub(super) fn is_dirty(&self, page: &PageSlot<'_>) -> bool {
        page.state.load().is_dirty(self.parity.load(Ordering::Relaxed))
    }

    /// Makes a page dirty, so that the caller may change it. The caller holds the page's stripe.
    ///
    /// # Errors
    /// A [`Need`] if journal blocks, disk blocks or memory must be found first. Nothing has changed then.
    pub(super) fn mark(&self, page: &PageSlot<'_>) -> Result<(), Shortage> {
        if self.is_dirty(page) {
            return Ok(());
        }
        let mut inner = lock_soon(&self.inner);
        // A bitmap page belongs to no stripe: another writer may have been faster.
        if self.is_dirty(page) {
            return Ok(());
        }
        self.admit(&inner, page)?;
        self.mark_locked(&mut inner, page)
    }

    /// Sets or clears the bit of a page in its extent's bitmap; makes the bitmap page dirty.
    pub(super) fn set_used(&self, region: &Region, page: &PageSlot<'_>, used: bool) -> Result<(), Shortage> {
        let offset = u64::from(page.id.index) - page.extent.bitmap_pages;
        if page.extent.is_used(offset) == used {
            return Ok(());
        }
        let bitmap = bitmap_of(region, page)?;
        let mut inner = self.inner.lock();
        if !self.is_dirty(&bitmap) {
            self.admit(&inner, &bitmap)?;
            self.mark_locked(&mut inner, &bitmap)?;
        }
        page.extent.set_used(offset, used);
        Ok(())
    }

    /// Makes the bitmap page dirty that has a page's bit, so that [`set_used`](Self::set_used) cannot run short
    /// before the caller lets go of its stripe.
    pub(super) fn reserve_bit(&self, region: &Region, page: &PageSlot<'_>) -> Result<(), Shortage> {
        let bitmap = bitmap_of(region, page)?;
        self.mark(&bitmap)
    }

    /// Runs `give` for pages of which none is in use or dirty; none of them can become so meanwhile. If it says
    /// that their memory is gone too, they are no longer private then.
    pub(super) fn give_back<'t>(
        &self,
        pages: impl Iterator<Item = PageSlot<'t>>,
        give: impl FnOnce() -> std::io::Result<bool>,
    ) -> std::io::Result<GivenBack> {
        let _inner = self.inner.lock();
        let pages: Vec<PageSlot<'t>> = pages.collect();
        if pages.iter().any(PageSlot::is_used) {
            return Ok(GivenBack::InUse);
        }
        if pages.iter().any(|page| page.state.load().is_dirty_at_all()) {
            return Ok(GivenBack::NotYet);
        }
        if give()? {
            for page in pages.iter().filter(|page| page.state.load().is_private()) {
                page.state.unset(PageState::PRIVATE);
                self.private_pages.fetch_sub(1, Ordering::Relaxed);
            }
        }
        Ok(GivenBack::Done)
    }

    /// The pages of a table that is gone wait for no checkpoint any more. Nobody changes them.
    pub(super) fn forget_table<'t>(&self, table: TableId, page: impl Fn(PageId) -> Option<PageSlot<'t>>) {
        let mut inner = self.inner.lock();
        let parity = self.parity.load(Ordering::Relaxed);
        inner.current.retain(|&id| {
            let is_gone = id.table == table;
            if is_gone && let Some(page) = page(id) {
                page.state.unset(PageState::dirty_flag(parity));
            }
            !is_gone
        });
    }

    /// Pages of which nobody needs the memory any more are no longer private.
    pub(super) fn forget_private(&self, states: &[PageState]) {
        let _inner = self.inner.lock();
        for state in states.iter().filter(|state| state.load().is_private()) {
            debug_assert!(!state.load().is_dirty_at_all(), "a page of a dropped table waits for a checkpoint");
            state.unset(PageState::PRIVATE);
            self.private_pages.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Sets blocks of the journal aside for so many pages that will be dirty.
    ///
    /// # Errors
    /// [`Need::Journal`]; nothing has changed then.
    pub(super) fn reserve(&self, pages: u64) -> Result<JournalBlocks<'_>, Need> {
        let mut inner = self.inner.lock();
        self.admit_journal(&inner, pages)?;
        inner.reserved += pages;
        Ok(JournalBlocks { dirty: self, left: pages })
    }

    fn admit_journal(&self, inner: &Inner, pages: u64) -> Result<(), Need> {
        let dirty = inner.current.len() as u64 + inner.reserved + pages;
        if dirty > self.journal_pages.load(Ordering::Acquire) {
            return Err(Need::Journal { pages: dirty, alone: pages });
        }
        Ok(())
    }

    /// One more page may be dirty. If it takes memory that is not there, a checkpoint makes pages clean, whose memory goes
    /// back. One page is always admitted after a checkpoint.
    fn admit(&self, inner: &Inner, page: &PageSlot<'_>) -> Result<(), Need> {
        self.admit_journal(inner, 1)?;
        let state = page.state.load();
        let takes = !state.is_private() || state.is_dirty(!self.parity.load(Ordering::Relaxed));
        let exempt = self.exempt.load(Ordering::Relaxed) > 0;
        if !exempt {
            self.chance.ask()?;
        }
        let limited = takes && !exempt && !inner.current.is_empty();
        if limited && self.private_pages() + inner.copies.pages() >= self.budget.private() {
            return Err(Need::Checkpoint);
        }
        Ok(())
    }

    fn mark_locked(&self, inner: &mut Inner, page: &PageSlot<'_>) -> Result<(), Shortage> {
        // Bitmap pages have their blocks from the start, and a page in use got them before it could be used. So what
        // was given back beside it need not be allocated again, for which there may be no space now.
        let index = u64::from(page.id.index);
        let has_blocks = index < page.extent.bitmap_pages || page.is_used();
        if !has_blocks && !page.extent.is_allocated(index) {
            return Err(Need::IndexBlocks(page.id).into());
        }
        self.push(inner, page)
    }

    fn push(&self, inner: &mut Inner, page: &PageSlot<'_>) -> Result<(), Shortage> {
        let parity = self.parity.load(Ordering::Relaxed);
        let state = page.state.load();
        if state.is_dirty(!parity) {
            if !inner.copies.put(page) {
                return Err(Need::Copies.into());
            }
            inner.frozen_left -= 1;
            page.state.unset(PageState::dirty_flag(!parity));
        }
        if !state.is_private() {
            self.private_pages.fetch_add(1, Ordering::Relaxed);
        }
        page.state.set(PageState::dirty_flag(parity) | PageState::PRIVATE);
        inner.current.push(page.id);
        // This very page makes it time for a checkpoint.
        if inner.current.len() as u64 == self.budget.dirty() + 1 {
            self.half_full.ring();
        }
        Ok(())
    }

    /// Memory for some copies, for a writer who found none.
    pub(super) fn add_copies(&self, disk: &dyn Disk) -> io::Result<()> {
        // A batch begins again each time: it must not be often.
        let frozen = self.inner.lock().frozen_left;
        let slab = copies::slab(disk, frozen.min(self.budget.copies()))?;
        self.inner.lock().copies.add(slab);
        Ok(())
    }

    /// Memory for as many copies as will probably be made, faulted in. For whoever runs the checkpoint, before the cut and
    /// while frozen pages are left. Nobody waits for it.
    pub(super) fn provide_copies(&self, disk: &dyn Disk) -> io::Result<()> {
        loop {
            let missing = {
                let inner = self.inner.lock();
                let left = if inner.frozen_left > 0 { inner.frozen_left } else { inner.current.len() as u64 };
                inner.copies.missing(left, self.budget.copies())
            };
            if missing == 0 {
                return Ok(());
            }
            let slab = copies::slab(disk, missing)?;
            // Only advice.
            let _ = slab.populate(0, slab.words().len() * 8);
            self.inner.lock().copies.add(slab);
        }
    }

    /// The checkpoint is done: the memory of copies goes back, but for what the next one needs at once.
    pub(super) fn release_copies(&self) {
        let slabs = self.inner.lock().copies.finish(self.budget.copies());
        drop(slabs);
    }

    /// The cut: the current set becomes the frozen one. The caller holds all stripes, and no other
    /// checkpoint is under way.
    pub(super) fn freeze(&self) -> Vec<PageId> {
        let mut inner = self.inner.lock();
        debug_assert!(inner.copies.len() == 0 && inner.frozen_left == 0);
        // As many are to be expected again: no writer shall wait while it is made larger.
        let mut next = Vec::new();
        // Only to be fast.
        let _ = next.try_reserve_exact(inner.current.len());
        let frozen = std::mem::replace(&mut inner.current, next);
        inner.frozen_left = frozen.len() as u64;
        self.parity.store(!self.parity.load(Ordering::Relaxed), Ordering::Relaxed);
        frozen
    }

    /// Writes the image that a page of the frozen set had at the cut to `image`. Each page can be captured once; false if
    /// it was.
    pub(super) fn capture(&self, page: &PageSlot<'_>, image: &mut [u8; PAGE_BYTES]) -> bool {
        let mut inner = self.inner.lock();
        let frozen = !self.parity.load(Ordering::Relaxed);
        if page.state.load().is_dirty(frozen) {
            page.page.copy_to(image);
            page.state.unset(PageState::dirty_flag(frozen));
            inner.frozen_left -= 1;
            return true;
        }
        inner.copies.take(page.id, image)
    }

    /// Calls `drop_copy` for the page if it is clean and private, and notes that it is no longer private. The
    /// page cannot become dirty meanwhile.
    pub(super) fn release(&self, page: &PageSlot<'_>, drop_copy: impl FnOnce() -> bool) -> bool {
        let _inner = self.inner.lock();
        let state = page.state.load();
        if !state.is_private() || state.is_dirty_at_all() || !drop_copy() {
            return false;
        }
        page.state.unset(PageState::PRIVATE);
        self.private_pages.fetch_sub(1, Ordering::Relaxed);
        true
    }

    /// Page images that the journal has room for.
    pub(super) fn journal_pages(&self) -> u64 {
        self.journal_pages.load(Ordering::Acquire)
    }

    pub(super) fn set_journal_pages(&self, pages: u64) {
        self.journal_pages.store(pages, Ordering::Release);
    }

    /// The journal gets shorter: false if more pages are dirty, or will be, than it would have room for.
    pub(super) fn shrink_journal(&self, pages: u64) -> bool {
        let inner = self.inner.lock();
        let fits = inner.current.len() as u64 + inner.reserved <= pages;
        if fits {
            self.journal_pages.store(pages, Ordering::Release);
        }
        fits
    }

    /// Lifts the memory limit while the guard lives: for recovery, which must not wait for checkpoints, and
    /// for single operations that are larger than the limit.
    pub(super) fn lift_limit(&self) -> LimitLift<'_> {
        self.exempt.fetch_add(1, Ordering::Relaxed);
        LimitLift { exempt: &self.exempt }
    }

    /// Pages dirty in the current epoch.
    pub(super) fn len(&self) -> u64 {
        self.inner.lock().current.len() as u64
    }

    pub(super) fn private_pages(&self) -> u64 {
        self.private_pages.load(Ordering::Relaxed)
    }
}
