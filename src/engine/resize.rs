//! The size of the table: room reserved, doubled, or given up.

use crate::engine::Engine;
use crate::error::{Error, Result};

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
