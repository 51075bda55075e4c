//! Shrinking: inverse evacuation, and giving back the space of pages that are no longer in use.
//!
//! **Beginning** (under the structure lock and all stripes): the growth word goes one level down, with every page
//! divided; the stripes become as few as that level has pages. No hash changes its page.
//!
//! **Merging** page i + 2^L into page i, from the last one downwards, under the structure lock and the stripe
//! that both share:
//!
//! 1. Everything that can run short is found first: both chains' pages dirty, overflow pages taken, bitmap pages
//!    dirty.
//! 2. The entries of both are laid out as one page, with split bits that both can tell.
//! 3. Both pages' versions become odd: misses in them do not count.
//! 4. The destination (page i) is written.
//! 5. The growth word's cursor moves down to i: readers that come now look in the destination only.
//! 6. The source is emptied and marked "not in use". Versions become even.
//!
//! **Giving back**, after a checkpoint that says so is durable: holes are punched into the file where pages are
//! not in use. A *crash before* leaves empty pages there, which are as good as holes. The file keeps its length:
//! a reader with an old growth word may still look at a page.

use std::collections::HashSet;

use crate::sync::{MutexGuard, Ordering};

use super::chain::Layout;
use super::dirty::GivenBack;
use super::growth::Growth;
use super::region::{CHUNK_PAGES, Extent, Gap, PageId, PageSlot, PageState, RegionKind};
use super::slot::Slot;
use super::split::{ignore_shortage, write_chain};
use super::{Structure, Table};
use crate::error::Result;
use crate::need::Step;
use crate::observe;
use crate::sys::PAGE_BYTES;

const PAGE: u64 = PAGE_BYTES as u64;

impl Table {
    /// Called after a removal with the stripe's new count: true if the table should shrink.
    #[inline]
    pub(super) fn is_sparse(&self, growth: Growth, stripe_count: i64) -> bool {
        if growth.is_resizing() || growth.level() <= self.tuning.level_min || stripe_count % 16 != 0 {
            return false;
        }
        // The stripe's share hints at the whole.
        let hint = (stripe_count.max(0) as u64) << growth.stripes_log2();
        hint < self.shrink_threshold(growth.level())
    }

    /// Entries below which a table of this level shrinks.
    pub(super) fn shrink_threshold(&self, level: u8) -> u64 {
        ((self.geometry.slots() as u64) << level.saturating_sub(1)) * u64::from(self.tuning.shrink_permille.min(1000))
            / 1000
    }

    /// Begins to shrink, if there are few enough entries and no resize is under way. `to_fit`: as soon as the
    /// entries fit into half the pages. Returns whether a resize is under way now, this one or another.
    pub(crate) fn start_shrink(&self, to_fit: bool) -> Result<bool> {
        self.shrink_wanted.store(false, Ordering::Relaxed);
        let structure = self.structure.lock();
        let growth = self.growth();
        if growth.is_resizing() || growth.level() <= self.tuning.level_min {
            return Ok(growth.is_resizing());
        }
        let fits = self.threshold(growth.level() - 1);
        let most = if to_fit { fits } else { self.shrink_threshold(growth.level()) };
        if self.len() >= most || structure.floor > fits {
            return Ok(false);
        }
        // Noted before the look, so that the entries that do not come after all find it.
        self.shrink_put_off.store(true, Ordering::SeqCst);
        if self.len_to_come() >= most {
            return Ok(false);
        }
        self.shrink_put_off.store(false, Ordering::SeqCst);
        let _all = self.lock_all();
        let shrinking = growth.shrinking();
        if shrinking.stripes_log2() != growth.stripes_log2() {
            self.spread_count(shrinking.stripes_log2(), self.len() as i64);
        }
        self.set_growth(shrinking);
        self.ring_growth();
        observe::shrink_begun(&self.index.path, growth.level());
        Ok(true)
    }

    /// Turns a shrinking table round. The caller holds the structure lock.
    pub(super) fn turn_round(&self, _structure: &mut MutexGuard<'_, Structure>) {
        let growth = self.growth();
        if growth.is_shrinking() {
            self.set_growth(growth.turned());
            observe::turned_round(&self.index.path, growth.level(), growth.cursor());
        }
    }

    /// Merges the cursor's last divided page. Under the structure lock.
    pub(super) fn merge_page(&self, number: u64) -> Step<()> {
        let guard = self.lock(number);
        let growth = guard.growth;
        debug_assert!(growth.is_shrinking() && growth.cursor() == number + 1, "{growth:?}");
        let level = growth.level();
        let source_number = number + (1 << level);
        let mut target = self.chain(number)?;
        let mut source = self.chain(source_number)?;
        if !source.primary.is_used() && !target.primary.is_used() {
            self.set_growth(growth.receded());
            return Ok(());
        }

        // Split bits start at the page's split base; lower bits of the hash are those of the page's number.
        let base_of = |page: &PageSlot<'_>| if page.is_used() { page.state.load().split_base() } else { level };
        let split_base = base_of(&target.primary).min(base_of(&source.primary)).min(level);
        let mut layout = Layout::new(self.geometry);
        let mut marked = HashSet::new();
        for (chain, number) in [(&target, number), (&source, source_number)] {
            if !chain.primary.is_used() {
                continue;
            }
            let base = base_of(&chain.primary);
            for slot in chain.live_slots() {
                // A marked slot is in both halves.
                if !slot.is_marked() || marked.insert(slot.address()) {
                    layout.add(rebased(slot, base, split_base, number));
                }
            }
        }

        self.touch_chain(&target, number, growth)?;
        if source.primary.is_used() {
            self.touch_chain(&source, source_number, growth)?;
        }
        self.extend_chain(&mut target, number, layout.overflow_pages())?;
        self.index.dirty.reserve_bit(&self.primary, &source.primary)?;
        for (_, page) in &source.overflow {
            self.index.dirty.reserve_bit(&self.overflow, page)?;
        }

        self.assert_dirty(target.pages().chain(source.pages().filter(|_| source.primary.is_used())));
        target.primary.state.begin_move();
        source.primary.state.begin_move();
        write_chain(&target, &layout, level, split_base, layout.has_marks());
        self.set_growth(growth.receded());
        // One that is not in use has no entry, and is not dirty: zeroes would take memory that nobody counts.
        for page in source.pages().filter(|_| source.primary.is_used()) {
            page.page.clear_slots();
        }
        let emptied = self.unlink_overflow(&mut source, 0).and_then(|()| {
            self.index.dirty.set_used(&self.primary, &source.primary, false)?;
            Ok(())
        });
        source.primary.state.unset(PageState::MARKS);
        let unlinked = self.unlink_overflow(&mut target, layout.overflow_pages());
        source.primary.state.end_move();
        target.primary.state.end_move();
        self.counters.merges.fetch_add(1, Ordering::Relaxed);
        // Both bits were reserved: this cannot run short.
        emptied?;
        Ok(ignore_shortage(unlinked)?)
    }

    /// Punches holes where pages are not in use, in the file and in memory. The caller has made a checkpoint
    /// durable and keeps others from running. Returns the number of pages given back.
    pub(super) fn give_back(&self) -> Result<u64> {
        let structure = self.structure.lock();
        let _one = self.index.blocks.lock();
        let growth = self.growth();
        let first_unused = 1 << (growth.level() + u8::from(growth.is_resizing()));
        let mut pages = 0;
        for kind in [RegionKind::Primary, RegionKind::Overflow] {
            for (number, extent) in self.region(kind).extents() {
                let before = if number == 0 { 0 } else { extent.pages };
                let from = if kind == RegionKind::Primary { first_unused } else { 0 };
                let skip = (from as u64).saturating_sub(before);
                if skip >= extent.pages {
                    continue;
                }
                let mut index = extent.bitmap_pages + skip;
                while index < extent.bitmap_pages + extent.pages {
                    let end = ((index / CHUNK_PAGES + 1) * CHUNK_PAGES).min(extent.bitmap_pages + extent.pages);
                    pages += self.give_back_chunk(kind, number as u8, extent, index..end)?;
                    index = end;
                }
            }
        }
        drop(structure);
        Ok(pages)
    }

    /// Punches out all pages of a table that was dropped. Returns where they were.
    ///
    /// # Errors
    /// `Io`; nothing is noted then.
    pub(super) fn punch_all(&self) -> Result<Vec<Gap>> {
        self.extents().try_for_each(|extent| self.index.punch(extent.gap()))?;
        self.extents().for_each(|extent| self.index.dirty.forget_private(extent.states()));
        Ok(self.extents().map(Extent::gap).collect())
    }

    /// Gives back a run of pages of one chunk, if none of them is in use or waits for a checkpoint.
    fn give_back_chunk(&self, kind: RegionKind, number: u8, extent: &Extent, run: std::ops::Range<u64>) -> Result<u64> {
        let Some(file) = &self.index.file else { return Ok(0) };
        let id = |index: u64| PageId { table: self.id(), region: kind, extent: number, index: index as u32 };
        let given = self.index.dirty.give_back(run.clone().filter_map(|index| self.by_id(id(index))), || {
            let (bytes, start) = ((run.end - run.start) * PAGE, run.start * PAGE);
            extent.forget_allocated(run.start);
            file.punch_hole(extent.first * PAGE + start, bytes)?;
            // Memory that cannot be given back (the system's pages are larger) holds pages without entries, which are
            // as good as none.
            Ok(extent.map().discard(start as usize, bytes as usize).is_ok())
        });
        match given.map_err(|error| crate::Error::io("give back blocks of", &self.index.path, error))? {
            GivenBack::Done => Ok(run.end - run.start),
            GivenBack::InUse => Ok(0),
            GivenBack::NotYet => {
                self.gives_back.store(true, Ordering::Release);
                Ok(0)
            }
        }
    }
}

/// A slot with split bits that start at `to` instead of `from`: the bits between are those of the page's number.
fn rebased(slot: Slot, from: u8, to: u8, number: u64) -> Slot {
    let shift = from - to;
    let low = number >> to & ((1 << shift) - 1);
    slot.with_split((u64::from(slot.tag().split()) << shift | low) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::address::Address;
    use crate::table::slot::Tag;

    #[test]
    fn split_bits_say_the_same_from_a_lower_base() {
        let hash: u64 = 0x1234_5678_9abc_def0;
        for from in 0..20 {
            for to in from.max(8) - 8..=from {
                let number = hash & ((1 << 20) - 1);
                let slot = Slot::new(Tag::of(hash, from), Address::new(1, 128));
                assert_eq!(rebased(slot, from, to, number).tag(), Tag::of(hash, to), "{from} to {to}");
            }
        }
    }
}
