//! Emptying the whole table.
//!
//! 1. The structure and all stripes are locked, and every page in use becomes dirty.
//! 2. The caller appends its record. *From here on nothing is there.*
//! 3. The pages are emptied in memory, and readers see it.

use super::chain::Chain;
use super::region::PageState;
use super::slot::Slot;
use super::stripes::AllStripes;
use super::{Structure, Table};
use crate::need::Step;
use crate::sync::MutexGuard;

/// An empty table, whose stripes are held.
pub(crate) struct Emptied<'t> {
    _all: AllStripes<'t>,
    _structure: MutexGuard<'t, Structure>,
}

impl Table {
    /// Removes every entry, and adds it to `gone`. `append` is called when nothing can run short any more.
    ///
    /// # Errors
    /// A [`Need`]; those of `append`. No entry is removed then. After `append`: `Corrupt` if a page that was read can no
    /// longer be read, and part of the entries is removed then.
    pub(crate) fn clear<T>(
        &self,
        mut gone: Option<&mut Vec<Slot>>,
        append: impl FnOnce() -> Step<T>,
    ) -> Step<(T, Emptied<'_>)> {
        let structure = self.structure.lock();
        // Pages in use: whatever else the table once had may have been given back. They have their blocks.
        let growth = self.growth();
        let pages = growth.pages() + self.overflow.pages().saturating_sub(self.pool.len());
        let bitmaps = self.bitmap_pages();
        self.index.check_journal(pages + bitmaps)?;
        let _lift = self.index.dirty.lift_limit();
        let all = self.lock_all();
        for number in 0..growth.pages() {
            let chain = self.chain(number)?;
            if chain.primary.is_used() {
                self.touch_chain(&chain, number, growth)?;
            }
        }
        let appended = append()?;
        for number in 0..growth.pages() {
            let mut chain = self.chain(number)?;
            if chain.primary.is_used() {
                gone.iter_mut().for_each(|gone| gone.extend(chain.live_slots()));
                self.empty_chain(&mut chain);
            }
        }
        self.spread_count(growth.stripes_log2(), 0);
        self.want_shrink();
        Ok((appended, Emptied { _all: all, _structure: structure }))
    }

    /// Bitmap pages of both regions.
    pub(crate) fn bitmap_pages(&self) -> u64 {
        self.extents().map(|extent| extent.bitmap_pages).sum()
    }

    fn empty_chain(&self, chain: &mut Chain<'_>) {
        self.assert_dirty(chain.pages());
        chain.primary.state.begin_move();
        for page in chain.pages() {
            page.page.clear_slots();
        }
        self.trim(chain);
        chain.primary.state.unset(PageState::MARKS);
        chain.primary.state.end_move();
    }
}
