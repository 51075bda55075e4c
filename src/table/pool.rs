//! Free overflow pages.
//!
//! A page comes back here only after it was emptied and unlinked inside a move of its chain: a reader that
//! still follows the old link cannot trust a miss, because the version of its primary page has changed, and
//! never trusts a hit without comparing the key.

use crate::sync::{Bell, Mutex};

/// With no more than this part of all pages left, it is time to add some.
const FEW: u64 = 8;

/// The numbers of the overflow pages that no chain uses.
#[derive(Debug)]
pub(crate) struct OverflowPool {
    inner: Mutex<Inner>,
    /// Rung when few pages are left, so that some are added before the last one is taken.
    few_left: Bell,
}

#[derive(Debug, Default)]
struct Inner {
    free: Vec<u64>,
    /// Pages of the region, free or not.
    all: u64,
}

impl Inner {
    fn has_few(&self) -> bool {
        self.all > 0 && self.free.len() as u64 <= self.all / FEW
    }
}

impl OverflowPool {
    pub(super) fn new(few_left: Bell) -> Self {
        OverflowPool { inner: Mutex::default(), few_left }
    }

    /// Takes that many pages, or none. The last one of them is the first to be used.
    pub(super) fn take(&self, pages: usize) -> Option<Vec<u64>> {
        if pages == 0 {
            return Some(Vec::new());
        }
        let mut inner = self.inner.lock();
        let at = inner.free.len().checked_sub(pages)?;
        let taken = inner.free.split_off(at);
        if inner.has_few() {
            self.few_left.ring();
        }
        Some(taken)
    }

    /// The pages that are taken next.
    pub(super) fn next(&self, pages: u64) -> Vec<u64> {
        let inner = self.inner.lock();
        let pages = usize::try_from(pages).unwrap_or(usize::MAX);
        inner.free[inner.free.len().saturating_sub(pages)..].to_vec()
    }

    /// Sees to it that pages with disk blocks are taken before others, and returns their number. For a full disk: it looks
    /// at all free pages.
    pub(super) fn prefer(&self, has_blocks: impl Fn(u64) -> bool) -> u64 {
        let mut inner = self.inner.lock();
        let (with, without): (Vec<u64>, Vec<u64>) = inner.free.iter().partition(|&&page| has_blocks(page));
        let count = with.len() as u64;
        inner.free = without;
        inner.free.extend(with);
        count
    }

    /// Gives pages back.
    pub(crate) fn give(&self, pages: impl IntoIterator<Item = u64>) {
        self.inner.lock().free.extend(pages);
    }

    /// The region has that many pages from now on.
    pub(crate) fn set_all(&self, pages: u64) {
        self.inner.lock().all = pages;
    }

    /// Free pages.
    pub(crate) fn len(&self) -> u64 {
        self.inner.lock().free.len() as u64
    }

    /// True if it is time to add pages.
    pub(super) fn has_few(&self) -> bool {
        self.inner.lock().has_few()
    }
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;

    /// An extent was added, and its pages, which have no blocks, were taken before older ones that have. On a full disk a write
    /// failed while pages with blocks were free.
    #[test]
    fn pages_with_blocks_are_taken_first() {
        let pool = OverflowPool::new(Bell::unheard());
        pool.give([3, 2, 1, 0]);
        pool.give([14, 13, 12, 11, 10]);
        assert_eq!(pool.prefer(|page| page < 4 && page != 2), 3);
        assert_eq!(pool.take(1), Some(vec![0]));
        assert_eq!(pool.take(2), Some(vec![3, 1]));
        assert_eq!(pool.next(2), [11, 10]);
        assert_eq!(pool.take(7), None);
        assert_eq!(pool.take(6), Some(vec![2, 14, 13, 12, 11, 10]));
    }
}
