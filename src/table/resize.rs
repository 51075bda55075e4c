//! When the table changes its size, as seen from outside: what it asks for, and single steps of it.
//!
//! extend.rs begins growth, shrink.rs begins shrinking, split.rs moves the pages.

use super::Table;
use super::split::ReadHash;
use crate::error::Result;
use crate::need::Step;
use crate::observe;
use crate::sync::Ordering;

impl Table {
    /// True if growth should start or its extent be added.
    pub(crate) fn wants_growth(&self) -> bool {
        self.growth_wanted.load(Ordering::Relaxed)
    }

    /// True if the table should shrink.
    pub(crate) fn wants_shrink(&self) -> bool {
        self.shrink_wanted.load(Ordering::Relaxed)
    }

    /// From now on the table keeps room for so many records, or for those that it kept it for before.
    pub(crate) fn raise_floor(&self, records: u64) {
        let mut structure = self.structure.lock();
        structure.floor = structure.floor.max(records);
    }

    /// From now on the table keeps no room.
    pub(crate) fn give_up_floor(&self) {
        self.structure.lock().floor = 0;
    }

    /// In so many changes one evacuates a page, so that growth ends before the table is full.
    #[inline]
    pub(crate) fn changes_per_page(&self) -> u64 {
        (self.geometry.slots() / 16).max(1) as u64
    }

    /// Pages of overflow chains.
    pub(crate) fn overflow_pages(&self) -> u64 {
        self.overflow.pages().saturating_sub(self.pool.len())
    }

    /// Moves some pages of the resize that is under way. Waits for the structure.
    ///
    /// # Errors
    /// A [`Need`](crate::need::Need); `Corrupt` for a damaged page.
    pub(crate) fn resize_step(&self, pages: usize, log: &dyn ReadHash) -> Step<()> {
        let mut structure = self.structure.lock();
        self.evacuate(pages, log, &mut structure).map(|_| ())
    }

    /// Moves some pages of a growth towards a level, which begins if none is under way. A table that shrinks turns round.
    ///
    /// # Errors
    /// As for [`resize_step`](Self::resize_step); `LimitReached` at the last level.
    pub(crate) fn growth_step(&self, level: u8, pages: usize, log: &dyn ReadHash) -> Step<()> {
        let mut structure = self.structure.lock();
        self.turn_round(&mut structure);
        // Looked at here, because another thread may have ended the growth that the caller has seen.
        if self.growth().level() >= level {
            return Ok(());
        }
        if !self.growth().is_resizing() {
            self.begin_growth(&mut structure)?;
        }
        self.evacuate(pages, log, &mut structure).map(|_| ())
    }

    /// An insert met a long chain: growth is moved along, or begun.
    ///
    /// # Errors
    /// As for [`growth_step`](Self::growth_step).
    #[cold]
    pub(crate) fn shorten_chains(&self, pages: usize, log: &dyn ReadHash) -> Step<()> {
        if self.growth().is_shrinking()
            && let Some(mut structure) = self.structure.try_lock()
        {
            self.turn_round(&mut structure);
        }
        if self.growth().is_resizing() {
            self.help_growth(pages, log)?;
            return Ok(());
        }
        let crowded = self.len() > self.threshold(self.growth().level()) / 2;
        if crowded
            && let Some(mut structure) = self.structure.try_lock()
            && !self.growth().is_resizing()
        {
            self.begin_growth(&mut structure)?;
        }
        Ok(())
    }

    /// Gives back the space of pages that went out of use since the last call. The caller has made a checkpoint durable and
    /// keeps others from running.
    ///
    /// # Errors
    /// `Io`; the next call tries again.
    pub(crate) fn give_back_unused(&self) -> Result<()> {
        if !self.gives_back.swap(false, Ordering::AcqRel) {
            return Ok(());
        }
        let given = self.give_back();
        let pages = given.inspect_err(|_| self.gives_back.store(true, Ordering::Release))?;
        observe::pages_given_back(&self.index.path, pages);
        self.counters.given_back.fetch_add(pages, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    /// A `reserve` saw a growth that the resize job was helping with. It ended before the call's next step, and the step began
    /// another one: the table got twice the room that was asked for. Found by a test that looked at the level on a busy machine.
    #[test]
    fn a_step_towards_a_level_that_is_reached_begins_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let tuning = crate::Tuning { background: false, ..crate::Tuning::default() };
        let store = crate::Options::new().tuning(tuning).open(dir.path().join("s")).unwrap();
        let (engine, table) = (store.engine(), &store.engine().tables.main());
        let level = table.growth().level() + 1;
        while table.growth().level() < level {
            engine.retry(|| table.growth_step(level, 1, engine)).unwrap();
        }
        engine.retry(|| table.growth_step(level, 1, engine)).unwrap();
        assert!(table.growth().level() == level && !table.growth().is_resizing());
        store.close().unwrap();
    }
}
