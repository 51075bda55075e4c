//! The growth state: one atomic word that maps hashes to pages.

use std::fmt;

use crate::words::some;

/// Level, evacuation cursor, whether the table is being resized and in which direction, and the stripe
/// exponent.
///
/// At level L there are `2^L` primary pages and a hash belongs to page `hash mod 2^L`. While the table is being
/// resized between L and L + 1, pages `0..cursor` are divided: their hashes belong to page `hash mod 2^(L+1)`.
/// Growth moves the cursor up, shrinking moves it down; a resize can turn round at any cursor.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Growth(u64);

impl Growth {
    /// One page, at rest.
    pub(crate) const ONE_PAGE: Growth = Growth(0);

    const RESIZING: u64 = 1 << 12;
    const SHRINKING: u64 = 1 << 13;
    /// The highest level of a page.
    pub(crate) const LEVEL_MAX: u8 = 38;

    /// A table of `2^level` pages that is not growing.
    pub(crate) fn resting(level: u8, stripes_log2: u8) -> Self {
        Growth(u64::from(level) | u64::from(stripes_log2) << 6)
    }

    pub(crate) fn from_word(word: u64) -> Self {
        Growth(word)
    }

    pub(crate) fn word(self) -> u64 {
        self.0
    }

    #[inline]
    pub(crate) fn level(self) -> u8 {
        (self.0 & 63) as u8
    }

    #[inline]
    pub(super) fn stripes_log2(self) -> u8 {
        (self.0 >> 6 & 63) as u8
    }

    /// The table is between two levels.
    #[inline]
    pub(crate) fn is_resizing(self) -> bool {
        self.0 & Self::RESIZING != 0
    }

    /// It is on its way to the lower one.
    #[inline]
    pub(crate) fn is_shrinking(self) -> bool {
        self.0 & Self::SHRINKING != 0
    }

    #[inline]
    pub(crate) fn cursor(self) -> u64 {
        self.0 >> 16
    }

    /// The primary page of a hash.
    #[inline]
    pub(crate) fn page_of(self, hash: u64) -> u64 {
        let page = hash & ((1 << self.level()) - 1);
        if page < self.cursor() { hash & ((2 << self.level()) - 1) } else { page }
    }

    /// The level of the page of a hash: the number of hash bits that the page implies.
    pub(crate) fn level_of(self, hash: u64) -> u8 {
        let page = hash & ((1 << self.level()) - 1);
        self.level() + u8::from(page < self.cursor())
    }

    /// The stripe of a hash or of a page: the same for all pages that the hash can belong to.
    #[inline]
    pub(super) fn stripe_of(self, hash: u64) -> usize {
        (hash & ((1 << self.stripes_log2()) - 1)) as usize
    }

    /// Primary pages in use.
    pub(crate) fn pages(self) -> u64 {
        (1 << self.level()) + self.cursor()
    }

    /// The same table, beginning to grow.
    pub(crate) fn started(self) -> Self {
        Growth(self.0 | Self::RESIZING)
    }

    /// The same table, beginning to shrink: one level down, with every page divided. The stripes must not be
    /// more than the pages of that level.
    pub(super) fn shrinking(self) -> Self {
        let level = self.level() - 1;
        let word = Growth::resting(level, self.stripes_log2().min(level)).0;
        Growth(word | Self::RESIZING | Self::SHRINKING | 1 << (level + 16))
    }

    /// The same resize, the other way round.
    pub(super) fn turned(self) -> Self {
        Growth(self.0 ^ Self::SHRINKING)
    }

    /// The same table with one more page divided.
    pub(crate) fn advanced(self) -> Self {
        Growth(self.0 + (1 << 16))
    }

    /// The same table with one page less divided.
    pub(super) fn receded(self) -> Self {
        Growth(self.0 - (1 << 16))
    }

    /// True if the cursor has arrived where the resize leads.
    pub(super) fn is_complete(self) -> bool {
        let end = if self.is_shrinking() { 0 } else { 1 << self.level() };
        self.is_resizing() && self.cursor() == end
    }

    /// The table after the resize.
    pub(super) fn finished(self) -> Self {
        Growth::resting(self.level() + u8::from(!self.is_shrinking()), self.stripes_log2())
    }

    /// The same table with another number of stripes.
    pub(crate) fn with_stripes(self, stripes_log2: u8) -> Self {
        Growth(self.0 & !(63 << 6) | u64::from(stripes_log2) << 6)
    }

    /// True if the word makes sense: for words that come from a file.
    pub(crate) fn is_valid(self) -> bool {
        self.level() <= Self::LEVEL_MAX
            && self.stripes_log2() <= self.level()
            && self.cursor() <= 1 << self.level()
            && (self.is_resizing() || self.cursor() == 0)
            && (self.is_resizing() || !self.is_shrinking())
            && self.0 >> 14 & 3 == 0
    }
}

impl fmt::Debug for Growth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "level {}, {}", self.level(), some(1 << self.stripes_log2(), "stripe"))?;
        let direction = if self.is_shrinking() { "shrinking" } else { "growing" };
        if self.is_resizing() { write!(f, ", {direction}, {} divided", self.cursor()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addressing_follows_the_cursor() {
        let mut growth = Growth::resting(2, 1);
        assert_eq!((growth.page_of(0b1101), growth.pages()), (1, 4));
        growth = growth.started();
        assert_eq!(growth.page_of(0b1101), 1);
        growth = growth.advanced().advanced();
        assert_eq!((growth.page_of(0b1101), growth.level_of(0b1101)), (5, 3));
        assert_eq!((growth.page_of(0b1110), growth.level_of(0b1110)), (2, 2));
        assert_eq!(growth.pages(), 6);
        growth = growth.advanced().advanced();
        assert!(growth.is_complete() && growth.is_valid());
        let after = growth.finished();
        for hash in 0..64 {
            assert_eq!(after.page_of(hash), growth.page_of(hash));
            assert_eq!(after.stripe_of(hash), growth.stripe_of(growth.page_of(hash)));
        }
        assert_eq!(after.with_stripes(3).stripes_log2(), 3);
        let mut growth = after.with_stripes(3).shrinking();
        assert_eq!((growth.level(), growth.cursor(), growth.stripes_log2(), growth.pages()), (2, 4, 2, 8));
        for cursor in (0..4).rev() {
            assert!(growth.is_valid() && growth.is_shrinking() && !growth.is_complete());
            assert_eq!(growth.turned().turned(), growth);
            growth = growth.receded();
            assert_eq!(growth.cursor(), cursor);
        }
        assert!(growth.is_complete());
        assert_eq!(growth.finished(), Growth::resting(2, 2));
        assert!(!Growth::from_word(u64::MAX).is_valid());
    }
}
