//! The size of the table: room reserved, doubled, or given up.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::need::Step;
use crate::sync::Ordering;

/// Pages divided or merged between two looks at the world.
const PAGES: usize = 64;

impl Engine {
    /// Makes room for more entries, and keeps it.
    pub(crate) fn reserve(&self, additional: u64) -> Result<()> {
        let (wanted, limit) = (self.table.len().saturating_add(additional), self.table.records_max());
        if wanted > limit {
            return Err(Error::LimitReached {
                path: self.path.clone(),
                what: "entries to reserve room for",
                limit,
                remedy: "reserve room for fewer, or split the store",
            });
        }
        self.table.structure.lock().floor = wanted;
        self.grow_for(wanted)
    }

    /// Makes the table as small as its entries allow.
    pub(crate) fn shrink_to_fit(&self) -> Result<()> {
        self.table.structure.lock().floor = 0;
        loop {
            if self.table.growth().is_resizing() {
                self.retry(|| {
                    let mut structure = self.table.structure.lock();
                    self.table.evacuate(PAGES, self, &mut structure)
                })?;
            } else if !self.table.start_shrink(true)? {
                break;
            }
        }
        // What the new floor and size are, and that pages went out of use, must be durable before they go.
        self.run_checkpoint(false)
    }

    /// Grows the table by one level.
    pub(crate) fn double(&self) -> Result<()> {
        self.grow_for(self.table.threshold(self.table.growth().level()) + 1)
    }

    /// No room is kept for entries to come.
    pub(crate) fn give_up_reserve(&self) {
        self.table.structure.lock().floor = 0;
    }

    /// Grows the table until so many entries fit.
    pub(crate) fn grow_for(&self, wanted: u64) -> Result<()> {
        let level = self.table.level_for(wanted);
        while self.table.growth().level() < level {
            self.retry(|| {
                let mut structure = self.table.structure.lock();
                self.table.turn_round(&mut structure);
                if !self.table.growth().is_resizing() {
                    self.table.begin_growth(&mut structure)?;
                }
                self.table.evacuate(PAGES, self, &mut structure)
            })?;
        }
        Ok(())
    }
}

/// Growth by the way: changes that come do some of it.
impl Engine {
    /// Does a little of the growth that is under way. Called before changes, with no lock held; `hash` is that of a
    /// change's key.
    ///
    /// The growth thread evacuates page after page. Should it get no time, the changes do without it: one in so many
    /// evacuates a page, so that the last one is done when the table holds a thirteenth more than at the start. Which
    /// one is left to the hash.
    ///
    /// On a full disk, at a damaged page, or without descriptors or memory for a moment, growth stands still; that alone
    /// keeps no change from being made.
    #[inline]
    pub(crate) fn help_growth(&self, hash: u64) -> Result<()> {
        if self.table.growth().is_resizing() && !hash.is_multiple_of(self.changes_per_page()) {
            return Ok(());
        }
        self.help_growth_by(1)
    }

    /// The same for many changes at once.
    pub(crate) fn help_growth_for(&self, changes: usize) -> Result<()> {
        self.help_growth_by(changes.div_ceil(self.changes_per_page() as usize))
    }

    /// In so many changes one evacuates a page.
    #[inline]
    fn changes_per_page(&self) -> u64 {
        (self.table.geometry.slots() / 16).max(1) as u64
    }

    fn help_growth_by(&self, pages: usize) -> Result<()> {
        let growing = self.table.growth().is_resizing();
        if !growing && !self.table.growth_wanted.load(Ordering::Relaxed) {
            if !self.tuning.background && self.table.shrink_wanted.load(Ordering::Relaxed) {
                self.table.start_shrink(false)?;
            }
            return Ok(());
        }
        if !growing && self.tuning.background && !self.table.is_extended() {
            // The growth thread is adding the extent.
            return Ok(());
        }
        let turns = growing && self.table.growth_wanted.load(Ordering::Relaxed) && self.table.growth().is_shrinking();
        let helped =
            self.retry(|| if growing && !turns { self.evacuate(pages) } else { self.table.try_start_growth() });
        match helped {
            Err(error) if error.can_wait() => Ok(()),
            other => other,
        }
    }

    /// Evacuates some pages, if growth is under way and nobody else is at it.
    pub(crate) fn evacuate(&self, pages: usize) -> Step<()> {
        self.table.help_growth(pages, self).map(|_| ())
    }

    /// An insert met a long chain: growth is moved along, or begun.
    #[cold]
    pub(super) fn shorten_chains(&self, pages: usize) -> Step<()> {
        if self.table.growth().is_shrinking()
            && let Some(mut structure) = self.table.structure.try_lock()
        {
            self.table.turn_round(&mut structure);
        }
        if self.table.growth().is_resizing() {
            self.table.help_growth(pages, self)?;
            return Ok(());
        }
        let growth = self.table.growth();
        let crowded = self.table.len() > self.table.threshold(growth.level()) / 2;
        if crowded
            && let Some(mut structure) = self.table.structure.try_lock()
            && !self.table.growth().is_resizing()
        {
            self.table.begin_growth(&mut structure)?;
        }
        Ok(())
    }
}
