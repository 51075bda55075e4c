//! The size of the table: room reserved, doubled, or given up.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::need::Step;

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
        // The table does not shrink before the floor is set, and a call that fails sets none.
        let _expected = self.table.expect_entries(additional);
        self.grow_for(wanted)?;
        self.table.raise_floor(wanted);
        Ok(())
    }

    /// Makes the table as small as its entries allow.
    pub(crate) fn shrink_to_fit(&self) -> Result<()> {
        self.table.give_up_floor();
        loop {
            if self.table.growth().is_resizing() {
                self.retry(|| self.table.resize_step(PAGES, self))?;
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
        self.table.give_up_floor();
    }

    /// Grows the table until so many entries fit.
    pub(crate) fn grow_for(&self, wanted: u64) -> Result<()> {
        let level = self.table.level_for(wanted);
        while self.table.growth().level() < level {
            self.retry(|| self.table.growth_step(level, PAGES, self))?;
        }
        Ok(())
    }
}

/// Growth by the way: changes that come do some of it.
impl Engine {
    /// Does a little of the growth that is under way. Called before changes, with no lock held; `hash` is that of a
    /// change's key.
    ///
    /// The resize job evacuates page after page. Should it get no time, the changes do without it: one in so many
    /// evacuates a page, so that the last one is done when the table holds a thirteenth more than at the start. Which
    /// one is left to the hash.
    ///
    /// On a full disk, at a damaged page, or without descriptors or memory for a moment, growth stands still; that alone
    /// keeps no change from being made.
    #[inline]
    pub(crate) fn help_growth(&self, hash: u64) -> Result<()> {
        if self.table.growth().is_resizing() && !hash.is_multiple_of(self.table.changes_per_page()) {
            return Ok(());
        }
        self.help_growth_by(1)
    }

    /// The same for many changes at once.
    pub(crate) fn help_growth_for(&self, changes: usize) -> Result<()> {
        self.help_growth_by(changes.div_ceil(self.table.changes_per_page() as usize))
    }

    fn help_growth_by(&self, pages: usize) -> Result<()> {
        let growing = self.table.growth().is_resizing();
        if !growing && !self.table.wants_growth() {
            if !self.tuning.background && self.table.wants_shrink() {
                self.table.start_shrink(false)?;
            }
            return Ok(());
        }
        if !growing && self.tuning.background && !self.table.is_extended() && !self.table.is_tiny() {
            // The resize job is adding the extent.
            return Ok(());
        }
        let turns = growing && self.table.wants_growth() && self.table.growth().is_shrinking();
        let helped = self.retry(|| match growing && !turns {
            true => self.evacuate(pages),
            // Nobody holds the structure of a tiny table for long.
            false if self.table.is_tiny() => self.table.start_growth(),
            false => self.table.try_start_growth(),
        });
        match helped {
            Err(error) if error.can_wait() => Ok(()),
            other => other,
        }
    }

    /// Evacuates some pages, if growth is under way and nobody else is at it.
    pub(crate) fn evacuate(&self, pages: usize) -> Step<()> {
        self.table.help_growth(pages, self).map(|_| ())
    }
}
