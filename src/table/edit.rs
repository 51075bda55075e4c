//! The one locked change of the table: every call that changes entries stands on it.
//!
//! 1. [`Table::edit`] locks the stripe of a hash, and checks the pages of its chain. A batch locks the stripes of all its
//!    keys with [`Table::lock_set`], and edits page after page.
//! 2. [`Edit::find`] looks for a key. The caller compares keys, because the table does not know the log.
//! 3. [`Edit::reserve_put`], [`Edit::reserve_removal`], [`Edit::reserve_removals`] or [`Edit::reserve_pages`] finds
//!    everything that can run short: pages become dirty (journal blocks, disk blocks, memory), and a full path gets an
//!    overflow page. On a shortage the caller drops the edit, finds what is missing, and starts again. Nothing has
//!    changed then, because an empty overflow page is harmless.
//! 4. The caller appends the record to the log. *From here on the change survives the death of the process.*
//! 5. [`Edit::publish`], [`Edit::remove_many`] or [`Edit::set`] changes the slots, and readers see that. Each runs
//!    short of nothing, counts the entries, and asks for growth or shrinking where the count says so.
//! 6. Dropping the edit unlocks the stripe.

use std::borrow::Borrow;
use std::convert::Infallible;

use super::Table;
use super::chain::{Chain, Found, OVERFLOW_MAX, Spot};
use super::growth::Growth;
use super::slot::{Slot, Tag};
use super::stripes::{StripeGuard, Tally};
use crate::address::Address;
use crate::error::{Error, Result};
use crate::mutant::{Mutant, broken};
use crate::need::{Need, Step};
use crate::sync::Ordering;

/// A page whose stripe is held. `G` is the guard of the stripe, or a reference to it.
pub(crate) struct Edit<'t, G> {
    table: &'t Table,
    guard: G,
    /// The table's size and state while the stripe is held.
    growth: Growth,
    owner: u64,
    chain: Chain<'t>,
}

/// What [`Edit::find`] has found.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sought {
    hash: u64,
    found: Found,
}

impl Sought {
    /// The entry's slot, if the key is there.
    pub(crate) fn slot(&self) -> Option<Slot> {
        match self.found {
            Found::Hit(_, slot) => Some(slot),
            Found::Miss(_) => None,
        }
    }

    /// Where the entry is, if the key is there.
    fn spot(&self) -> Option<Spot> {
        match self.found {
            Found::Hit(spot, _) => Some(spot),
            Found::Miss(_) => None,
        }
    }

    /// True if a put of the key would make its chain longer.
    pub(crate) fn is_full(&self) -> bool {
        self.found == Found::Miss(None)
    }
}

/// A change that lacks nothing but its record.
#[derive(Debug)]
#[must_use]
pub(crate) struct Reserved {
    hash: u64,
    change: Change,
}

#[derive(Debug, Clone, Copy)]
enum Change {
    Replace(Spot),
    Fill(Spot),
    Remove(Spot),
}

/// The stripes of several hashes, held.
pub(crate) struct StripeSet<'t> {
    growth: Growth,
    /// In ascending order.
    guards: Vec<(usize, StripeGuard<'t>)>,
}

impl<'t> StripeSet<'t> {
    pub(crate) fn growth(&self) -> Growth {
        self.growth
    }
}

impl Table {
    /// Locks the stripe of a hash for a change of the hash's page.
    ///
    /// # Errors
    /// `Corrupt` if a page of the chain is damaged.
    #[inline(always)]
    pub(crate) fn edit(&self, hash: u64) -> Result<Edit<'_, StripeGuard<'_>>> {
        let guard = self.lock(hash);
        self.check_there()?;
        let growth = guard.growth;
        let owner = growth.page_of(hash);
        Ok(Edit { table: self, guard, growth, owner, chain: self.chain(owner)? })
    }

    /// The same for the page `owner`, whose stripe is held already.
    ///
    /// # Errors
    /// As for [`edit`](Self::edit).
    pub(crate) fn edit_page<'t, 's>(
        &'t self,
        stripes: &'s StripeSet<'t>,
        owner: u64,
    ) -> Result<Edit<'t, &'s StripeGuard<'t>>> {
        self.check_there()?;
        let growth = stripes.growth;
        let wanted = growth.stripe_of(owner);
        let at = stripes.guards.partition_point(|(stripe, _)| *stripe < wanted);
        let held = stripes.guards.get(at).filter(|(stripe, _)| *stripe == wanted);
        let (_, guard) =
            held.ok_or_else(|| Error::impossible(&self.index.path, "an edit of a page whose stripe is free"))?;
        Ok(Edit { table: self, guard, growth, owner, chain: self.chain(owner)? })
    }

    /// Locks the stripes of some hashes in ascending order. `None` if the number of stripes changed meanwhile.
    pub(crate) fn lock_set(&self, hashes: impl Iterator<Item = u64>) -> Option<StripeSet<'_>> {
        let before = self.growth();
        let mut wanted = vec![false; 1 << before.stripes_log2()];
        hashes.for_each(|hash| wanted[before.stripe_of(hash)] = true);
        let stripes = wanted.iter().enumerate().filter(|&(_, &wanted)| wanted);
        let guards = stripes.map(|(stripe, _)| (stripe, self.lock_number(stripe))).collect();
        // With all of them held, the growth word of now counts: a cursor that moved while the locks were being taken
        // concerns other stripes, or was seen by the guard taken last.
        let growth = self.growth();
        (growth.stripes_log2() == before.stripes_log2()).then_some(StripeSet { growth, guards })
    }
}

impl<'t, G: Borrow<StripeGuard<'t>>> Edit<'t, G> {
    /// Looks for a key. `is_match` is asked about each slot whose tag fits.
    ///
    /// # Errors
    /// Those of `is_match`.
    pub(crate) fn find<E>(
        &self,
        hash: u64,
        is_match: impl FnMut(Slot) -> std::result::Result<bool, E>,
    ) -> std::result::Result<Sought, E> {
        let marks = self.chain.primary.state.load().has_marks();
        Ok(Sought { hash, found: self.chain.find(self.tag(hash), marks, is_match)? })
    }

    /// Looks for the entry that points to a record; without one, for an empty slot.
    pub(crate) fn find_address(&self, hash: u64, address: Option<Address>) -> Sought {
        let Ok(sought) = self.find::<Infallible>(hash, |slot| Ok(Some(slot.address()) == address));
        sought
    }

    /// True if keys of the hash are in this page.
    pub(crate) fn covers(&self, hash: u64) -> bool {
        self.growth.page_of(hash) == self.owner
    }

    /// Counts changes of the page's keys that a caller asked for.
    #[inline]
    pub(crate) fn tally(&self, tally: Tally, by: u64) {
        self.guard.borrow().tally(tally, by);
    }

    /// Overflow pages of the chain.
    pub(crate) fn overflow_pages(&self) -> usize {
        self.chain.overflow.len()
    }

    fn tag(&self, hash: u64) -> Tag {
        Table::tag(&self.chain, hash)
    }

    fn touch(&self, page: usize) -> Step<()> {
        self.table.touch(self.chain.slot_of(page), self.owner, self.growth)
    }

    fn touch_all(&self) -> Step<()> {
        self.table.touch_chain(&self.chain, self.owner, self.growth)
    }

    /// Finds all that putting the key can run short of.
    ///
    /// # Errors
    /// A [`Need`]; `LimitReached` if the chain takes no further page.
    #[inline(always)]
    pub(crate) fn reserve_put(&mut self, sought: Sought) -> Step<Reserved> {
        let change = match sought.found {
            Found::Hit(spot, _) => {
                self.touch(spot.page)?;
                Change::Replace(spot)
            }
            Found::Miss(Some(spot)) => {
                self.touch(spot.page)?;
                Change::Fill(spot)
            }
            Found::Miss(None) => Change::Fill(self.lengthen()?),
        };
        Ok(Reserved { hash: sought.hash, change })
    }

    /// The first slot of a new overflow page.
    #[cold]
    fn lengthen(&mut self) -> Step<Spot> {
        if self.chain.overflow.len() >= OVERFLOW_MAX {
            return Err(self.table.chain_full().into());
        }
        self.touch_all()?;
        let pages = self.chain.overflow.len() + 1;
        self.table.extend_chain(&mut self.chain, self.owner, pages)?;
        self.table.counters.into_new_overflow.fetch_add(1, Ordering::Relaxed);
        Ok(Spot { page: pages, bucket: 0, slot: 0 })
    }

    /// Finds all that removing the key can run short of. `None` if it is not there.
    ///
    /// # Errors
    /// A [`Need`].
    pub(crate) fn reserve_removal(&mut self, sought: Sought) -> Step<Option<Reserved>> {
        let Found::Hit(spot, _) = sought.found else { return Ok(None) };
        // Other entries can be moved, or a page given back.
        if self.chain.must_move(spot) || !self.chain.overflow.is_empty() {
            self.touch_all()?;
        } else {
            self.touch(spot.page)?;
        }
        Ok(Some(Reserved { hash: sought.hash, change: Change::Remove(spot) }))
    }

    /// Publishes a change whose record is in the log, which nothing can fail. `address` is that of the record.
    #[inline(always)]
    pub(crate) fn publish(&mut self, reserved: Reserved, address: Address) {
        match reserved.change {
            Change::Replace(spot) => self.replace(spot, Slot::new(self.tag(reserved.hash), address)),
            Change::Fill(spot) => self.fill(spot, Slot::new(self.tag(reserved.hash), address)),
            Change::Remove(spot) => {
                self.remove(spot);
                self.trim();
            }
        }
    }

    fn replace(&self, spot: Spot, slot: Slot) {
        self.table.assert_dirty([self.chain.slot_of(spot.page)]);
        self.chain.replace(spot, slot);
    }

    fn fill(&self, spot: Spot, slot: Slot) {
        self.table.assert_dirty([self.chain.slot_of(spot.page)]);
        if self.chain.fill(spot, slot) {
            self.table.counters.into_empty_one.fetch_add(1, Ordering::Relaxed);
        }
        let guard = self.guard.borrow();
        let count = guard.add_count(1);
        if self.table.is_crowded(self.growth, count) {
            self.table.want_growth();
        }
    }

    /// Removes an entry and repairs the paths through its bucket.
    fn remove(&self, spot: Spot) {
        if self.chain.must_move(spot) {
            self.table.assert_dirty(self.chain.pages());
            self.chain.primary.state.begin_move();
            let moves = self.chain.remove(spot);
            self.chain.primary.state.end_move();
            self.table.counters.repairs.fetch_add(u64::from(moves), Ordering::Relaxed);
        } else {
            self.table.assert_dirty([self.chain.slot_of(spot.page)]);
            self.chain.remove(spot);
        }
        self.count_removed(1);
    }

    fn count_removed(&self, removed: usize) {
        let count = self.guard.borrow().add_count(-(removed as i64));
        // The exact sum is taken at multiples of sixteen, of which several removals may have passed by one.
        let hint = if removed > 1 { count / 16 * 16 } else { count };
        if self.table.is_sparse(self.growth, hint) {
            self.table.want_shrink();
        }
    }

    /// Gives empty overflow pages at the chain's end back. One that cannot be given back at this moment stays.
    pub(crate) fn trim(&mut self) {
        if self.chain.overflow.is_empty() {
            return;
        }
        self.chain.primary.state.begin_move();
        self.table.trim(&mut self.chain);
        self.chain.primary.state.end_move();
    }
}

/// Many changes of one page.
impl<'t, G: Borrow<StripeGuard<'t>>> Edit<'t, G> {
    /// Finds all that removing any keys of the page can run short of.
    ///
    /// # Errors
    /// A [`Need`].
    pub(crate) fn reserve_removals(&self) -> Step<()> {
        self.touch_all()
    }

    /// Removes entries whose records are in the log.
    ///
    /// * *Few of them:* the paths are repaired after each removal, as by [`publish`](Self::publish).
    /// * *A large part of the page:* each removal leaves a tombstone. Then one rewrite packs the chain, because that is
    ///   cheaper than a repair for each. Tombstones stay if the packed order would need a page more.
    ///
    /// [`reserve_removals`](Self::reserve_removals) has found what that takes, so nothing can fail it.
    pub(crate) fn remove_many<'e>(&mut self, entries: impl ExactSizeIterator<Item = &'e Sought>) {
        let removed = entries.len();
        if self.table.is_large_part(removed) {
            self.table.assert_dirty(self.chain.pages());
            entries.filter_map(Sought::spot).for_each(|spot| self.chain.remove_unrepaired(spot));
            self.count_removed(removed);
            if self.chain.pages().any(|page| self.table.is_littered(page)) {
                // All pages are dirty: this runs short of nothing.
                self.table.put_off(self.table.rewrite(&mut self.chain, self.owner, self.growth));
            }
        } else {
            for sought in entries {
                if let Some(spot) = self.find_again(sought) {
                    self.remove(spot);
                }
            }
        }
        self.trim();
    }

    /// Where an entry is that repairs of earlier removals may have moved.
    fn find_again(&self, sought: &Sought) -> Option<Spot> {
        match sought.found {
            Found::Hit(spot, slot) if self.chain.get(spot) == slot || broken(Mutant::MovedEntryForgotten) => Some(spot),
            Found::Hit(_, slot) => self.find_address(sought.hash, Some(slot.address())).spot(),
            Found::Miss(_) => None,
        }
    }

    /// Overflow pages that are missing for an empty slot for each of the hashes, whether or not its key is there.
    pub(crate) fn missing_pages(&self, puts: impl Iterator<Item = u64> + Clone) -> usize {
        /// Up to so many puts are worth a look at their paths, one by one.
        const FEW: usize = 8;
        let tags = puts.map(|hash| Tag::of(hash, 0));
        let count = tags.clone().take(FEW + 1).count();
        // Most often each path has enough empty slots near its beginning for all of them, and the rest of the page need
        // not be read.
        if count <= FEW && tags.clone().all(|tag| self.chain.has_empties(tag, count)) {
            return 0;
        }
        let mut room = self.chain.room();
        tags.filter(|&tag| !room.take(tag)).count().div_ceil(self.chain.geometry.slots())
    }

    /// Finds all that changes of the page can run short of: its pages become dirty, and some of `free` are linked. What was
    /// linked before a shortage stays in the chain, empty, so the next attempt counts it.
    ///
    /// # Errors
    /// A [`Need`].
    pub(crate) fn reserve_pages(&mut self, missing: usize, free: &mut Vec<u64>) -> Step<()> {
        self.touch_all()?;
        for _ in 0..missing {
            let none = || Error::impossible(&self.table.index.path, "fewer overflow pages than were taken");
            let &page = free.last().ok_or_else(none)?;
            self.table.link_overflow(&mut self.chain, self.owner, page)?;
            free.pop();
        }
        Ok(())
    }

    /// Makes a key's entry point to `new`, or removes it. `old` is the record that it points to now.
    /// [`reserve_pages`](Self::reserve_pages) has found what that takes. The caller trims the chain in the end, because
    /// empty pages may be meant for later changes.
    ///
    /// # Errors
    /// `Corrupt` if there is no empty slot.
    pub(crate) fn set(&mut self, hash: u64, old: Option<Address>, new: Option<Address>) -> Result<()> {
        // Repairs of earlier changes may have moved the entry: it is looked for again.
        match (self.find_address(hash, old).found, new) {
            (Found::Hit(spot, _), None) => self.remove(spot),
            (Found::Hit(spot, _), Some(address)) => self.replace(spot, Slot::new(self.tag(hash), address)),
            (Found::Miss(_), None) => {}
            (Found::Miss(Some(spot)), Some(address)) => self.fill(spot, Slot::new(self.tag(hash), address)),
            (Found::Miss(None), Some(_)) => {
                let (expected, found) = ("an empty slot, reserved for the batch".into(), "a full path".into());
                return Err(self.table.damaged(&self.chain.primary, "bucket page", expected, found));
            }
        }
        Ok(())
    }
}

/// Overflow pages for several chains, taken from the pool until they are linked.
pub(crate) struct FreePages<'t> {
    table: &'t Table,
    pub(crate) pages: Vec<u64>,
}

impl Drop for FreePages<'_> {
    fn drop(&mut self) {
        self.table.pool.give(std::mem::take(&mut self.pages));
    }
}

impl Table {
    /// Takes overflow pages. What is not linked when they are dropped goes back.
    ///
    /// # Errors
    /// [`Need::Overflow`], [`Need::OverflowBlocks`].
    pub(crate) fn take_free_pages(&self, pages: usize) -> Step<FreePages<'_>> {
        let wanted = pages as u64;
        let Some(pages) = self.pool.take(pages) else {
            return Err(Need::Overflow { table: self.id(), pages: wanted }.into());
        };
        let free = FreePages { table: self, pages };
        if free.pages.iter().any(|&page| self.without_blocks(page).is_some()) {
            return Err(Need::OverflowBlocks { table: self.id(), pages: wanted }.into());
        }
        Ok(free)
    }
}
