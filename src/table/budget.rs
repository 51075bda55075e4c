//! What [`Options::memory_bytes`](crate::Options::memory_bytes) is spent on. Memory that the kernel takes back by itself, which
//! is the page cache of index and log, is not in it.
//!
//! | part | pages |
//! |---|---|
//! | private pages (dirty, frozen and clean ones), and copies of frozen pages | three quarters |
//! | images that a checkpoint has captured and not yet written | an eighth, and [`IMAGES_MAX`] at most |
//! | the rest: the heap, which grows with the number of segments and index pages | an eighth |
//!
//! Extents of a thirty-second each are anonymous memory, whose clean pages cannot go back. All of them together take less
//! than two of that size, because each is twice as large as the one before, and they count as private pages.

/// Page images that are captured before the first of them is written. As long as a frozen page is not captured, a writer
/// that changes it must copy it aside first, and the disk takes far longer than copies.
const IMAGES_MAX: u64 = 8192;
/// The fewest images that are captured at a time.
const IMAGES_MIN: u64 = 16;
/// Pages for copies that are kept from one checkpoint to the next, and provided before one, at the most.
const COPIES_MAX: u64 = 2048;

/// Pages that may be in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    pages: u64,
}

impl Budget {
    pub(super) fn new(pages: u64) -> Self {
        Budget { pages }
    }

    /// Private pages and copies beyond which writers wait for a checkpoint.
    pub(super) fn private(self) -> u64 {
        (self.pages / 4 * 3).max(1)
    }

    /// Dirty pages beyond which it is time for a checkpoint: it ends before writers have to wait.
    pub(super) fn dirty(self) -> u64 {
        self.private() / 2
    }

    /// Private pages that a checkpoint leaves, clean ones among them. They are few, because a writer seldom comes back to one
    /// of a table that does not fit, and each leaves less for the next pages.
    pub(super) fn kept(self) -> u64 {
        self.private() / 16
    }

    /// Images that are captured at a time.
    pub(super) fn images(self) -> u64 {
        (self.pages / 8).clamp(IMAGES_MIN, IMAGES_MAX)
    }

    /// Copies for which memory is provided before anybody needs it.
    pub(super) fn copies(self) -> u64 {
        (self.pages / 16).min(COPIES_MAX)
    }

    /// True if all pages of a new extent of this size may stay in memory for good.
    pub(super) fn has_room_for_all(self, extent_pages: u64) -> bool {
        extent_pages <= self.pages / 32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_are_no_more_than_the_whole() {
        for pages in (64..4096).chain([1 << 20, u64::MAX]) {
            let budget = Budget::new(pages);
            let parts = u128::from(budget.private()) + u128::from(budget.images());
            assert!(parts <= u128::from(pages), "{pages}");
            assert!(budget.kept() < budget.dirty() && budget.dirty() < budget.private(), "{pages}");
            assert!(budget.copies() + budget.dirty() + budget.kept() < budget.private(), "{pages}");
        }
        // A store of one page can still be written.
        assert!(Budget::new(0).private() == 1);
    }
}
