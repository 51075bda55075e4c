//! Free overflow pages.
//!
//! A page comes back here only after it was emptied and unlinked inside a move of its chain: a reader that
//! still follows the old link cannot trust a miss, because the version of its primary page has changed, and
//! never trusts a hit without comparing the key.

use crate::sync::Mutex;

/// The numbers of the overflow pages that no chain uses.
#[derive(Debug, Default)]
pub(crate) struct OverflowPool {
    free: Mutex<Vec<u64>>,
}

impl OverflowPool {
    /// Takes that many pages, or none.
    pub(crate) fn take(&self, pages: usize) -> Option<Vec<u64>> {
        if pages == 0 {
            return Some(Vec::new());
        }
        let mut free = self.free.lock();
        let at = free.len().checked_sub(pages)?;
        Some(free.split_off(at))
    }

    /// Gives pages back.
    pub(crate) fn give(&self, pages: impl IntoIterator<Item = u64>) {
        self.free.lock().extend(pages);
    }

    /// Free pages.
    pub(crate) fn len(&self) -> u64 {
        self.free.lock().len() as u64
    }
}
