//! The size of the table: room reserved, doubled, or given up.

use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::need::Step;
use crate::table::Table;

/// Pages divided or merged between two looks at the world.
const PAGES: usize = 64;

impl Engine {
    /// Makes room for more entries, and keeps it.
    pub(crate) fn reserve(&self, table: &Table, additional: u64) -> Result<()> {
        let (wanted, limit) = (table.len().saturating_add(additional), table.records_max());
        if wanted > limit {
            return Err(Error::LimitReached {
                path: self.path.clone(),
                what: "entries to reserve room for",
                limit,
                remedy: "reserve room for fewer, or split the store",
            });
        }
        // The table does not shrink before the floor is set, and a call that fails sets none.
        let _expected = table.expect_entries(additional);
        self.grow_for(table, wanted)?;
        table.raise_floor(wanted);
        Ok(())
    }

    /// Makes the table as small as its entries allow.
    pub(crate) fn shrink_to_fit(&self, table: &Table) -> Result<()> {
        table.give_up_floor();
        loop {
            if table.growth().is_resizing() {
                self.retry(|| table.resize_step(PAGES, self))?;
            } else if !table.start_shrink(true)? {
                break;
            }
        }
        // What the new floor and size are, and that pages went out of use, must be durable before they go.
        self.run_checkpoint(false)
    }

    /// Grows the table by one level.
    pub(crate) fn double(&self, table: &Table) -> Result<()> {
        self.grow_for(table, table.threshold(table.growth().level()) + 1)
    }

    /// No room is kept for entries to come.
    pub(crate) fn give_up_reserve(&self, table: &Table) {
        table.give_up_floor();
    }

    /// Grows the table until so many entries fit.
    pub(crate) fn grow_for(&self, table: &Table, wanted: u64) -> Result<()> {
        let level = table.level_for(wanted);
        while table.growth().level() < level {
            self.retry(|| table.growth_step(level, PAGES, self))?;
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
    pub(crate) fn help_growth(&self, table: &Table, hash: u64) -> Result<()> {
        if table.growth().is_resizing() && !hash.is_multiple_of(table.changes_per_page()) {
            return Ok(());
        }
        self.help_growth_by(table, 1)
    }

    /// The same for many changes at once.
    pub(crate) fn help_growth_for(&self, table: &Table, changes: usize) -> Result<()> {
        self.help_growth_by(table, changes.div_ceil(table.changes_per_page() as usize))
    }

    #[inline]
    fn help_growth_by(&self, table: &Table, pages: usize) -> Result<()> {
        let growing = table.growth().is_resizing();
        if growing || table.wants_growth() {
            return self.grow_by_the_way(table, growing, pages);
        }
        if !self.tuning.background && table.wants_shrink() {
            table.start_shrink(false)?;
        }
        Ok(())
    }

    #[cold]
    fn grow_by_the_way(&self, table: &Table, growing: bool, pages: usize) -> Result<()> {
        if !growing && self.tuning.background && !table.is_extended() && !table.is_tiny() {
            // The resize job is adding the extent.
            return Ok(());
        }
        let turns = growing && table.wants_growth() && table.growth().is_shrinking();
        let helped = self.retry(|| match growing && !turns {
            true => self.evacuate(table, pages),
            // Nobody holds the structure of a tiny table for long.
            false if table.is_tiny() => table.start_growth(),
            false => table.try_start_growth(),
        });
        match helped {
            Err(error) if error.can_wait() => Ok(()),
            other => other,
        }
    }

    /// Evacuates some pages, if growth is under way and nobody else is at it.
    pub(crate) fn evacuate(&self, table: &Table, pages: usize) -> Step<()> {
        table.help_growth(pages, self).map(|_| ())
    }
}
