//! Copies of frozen pages, which writers set aside while a checkpoint is under way.
//!
//! A writer that changes a frozen page waits for its copy, so the memory should be there, faulted in: whoever runs the
//! checkpoint provides as much as the last one took, before the cut and along the way. It comes in slabs of its own, which
//! go back to the system afterwards but for a few; an allocator would keep it all, scattered over its heap.

use std::collections::HashMap;
use std::io;

use super::page::{PAGE_WORDS, PageRef};
use super::region::{PageId, PageSlot};
use crate::sys::{Disk, IndexMap, PAGE_BYTES};

/// Pages of the smallest and of the largest slab.
const SLAB_PAGES: (u64, u64) = (16, 512);
/// Pages that are provided, should the last checkpoint have taken fewer.
const PROVIDED_MIN: u64 = 512;

/// Where a copy stands: a slab, and a page of it.
type Slot = (u32, u32);

#[derive(Debug, Default)]
pub(super) struct Copies {
    slabs: Vec<IndexMap>,
    free: Vec<Slot>,
    by_page: HashMap<PageId, Slot>,
    /// Copies made in this checkpoint, and in the last one.
    made: u64,
    made_before: u64,
}

/// Memory for at least so many copies, as far as a slab goes.
pub(super) fn slab(disk: &dyn Disk, pages: u64) -> io::Result<IndexMap> {
    let pages = pages.clamp(SLAB_PAGES.0, SLAB_PAGES.1);
    disk.map_anonymous(pages as usize * PAGE_BYTES)
}

impl Copies {
    /// Copies that are set aside.
    pub(super) fn len(&self) -> u64 {
        self.by_page.len() as u64
    }

    /// Pages of memory that copies take, or that is provided for them.
    pub(super) fn pages(&self) -> u64 {
        self.by_page.len() as u64 + self.free.len() as u64
    }

    /// How many pages should be provided, if so many frozen ones may still be copied, and `most` of them.
    pub(super) fn missing(&self, frozen: u64, most: u64) -> u64 {
        let expected = self.made_before.saturating_sub(self.made).max(PROVIDED_MIN).min(frozen).min(most);
        expected.saturating_sub(self.free.len() as u64)
    }

    /// Adds a slab.
    pub(super) fn add(&mut self, slab: IndexMap) {
        let (number, pages) = (self.slabs.len() as u32, slab.words().len() / PAGE_WORDS);
        self.slabs.push(slab);
        self.free.extend((0..pages as u32).rev().map(|page| (number, page)));
        // No writer shall wait while the map is made larger.
        self.by_page.reserve(self.free.len());
    }

    fn at(&self, (slab, page): Slot) -> Option<PageRef<'_>> {
        let start = page as usize * PAGE_WORDS;
        Some(PageRef::new(self.slabs.get(slab as usize)?.words().get(start..)?.first_chunk()?))
    }

    /// Sets a copy of the page aside; false if there is no memory for it.
    pub(super) fn put(&mut self, page: &PageSlot<'_>) -> bool {
        let Some(slot) = self.free.pop() else { return false };
        let Some(copy) = self.at(slot) else { return false };
        copy.copy_from(page.page);
        self.by_page.insert(page.id, slot);
        self.made += 1;
        true
    }

    /// Takes the copy of a page, if there is one.
    pub(super) fn take(&mut self, page: PageId, image: &mut [u8; PAGE_BYTES]) -> bool {
        let Some(slot) = self.by_page.remove(&page) else { return false };
        let Some(copy) = self.at(slot) else { return false };
        copy.copy_to(image);
        self.free.push(slot);
        true
    }

    /// The checkpoint is done, and so many pages are kept for the next one. Returns the others; the caller drops them
    /// without a lock.
    pub(super) fn finish(&mut self, kept_pages: u64) -> Vec<IndexMap> {
        self.made_before = std::mem::take(&mut self.made);
        if !self.by_page.is_empty() {
            return Vec::new();
        }
        let mut room = kept_pages as usize * PAGE_WORDS;
        let is_kept = |slab: &IndexMap| {
            let is_kept = slab.words().len() <= room;
            room -= if is_kept { slab.words().len() } else { 0 };
            is_kept
        };
        let (kept, rest) = std::mem::take(&mut self.slabs).into_iter().partition(is_kept);
        self.free.clear();
        Vec::into_iter(kept).for_each(|slab| self.add(slab));
        rest
    }
}

#[cfg(test)]
mod tests {
    use super::super::budget::Budget;
    use super::super::dirty::DirtySet;
    use super::super::region::{Extent, Region, RegionKind};
    use super::*;
    use crate::need::{Chance, Need, Shortage};
    use crate::sync::{Bell, Ordering};
    use crate::sys::RealDisk;

    #[test]
    fn a_writer_that_finds_no_memory_for_a_copy_asks_for_it() {
        let region = region();
        let page = |number: u64| region.page(number).unwrap();
        let dirty = DirtySet::new(Budget::new(1000), Bell::unheard(), Chance::new(0));
        dirty.set_journal_pages(100);
        for number in 0..40 {
            dirty.mark(&page(number)).unwrap();
            page(number).page.words()[7].store(1, Ordering::Relaxed);
        }
        assert_eq!(dirty.freeze().len(), 40);
        for number in 0..40 {
            let mut asked = 0;
            while let Err(shortage) = dirty.mark(&page(number)) {
                assert!(matches!(shortage, Shortage::Need(Need::Copies)), "{shortage:?}");
                dirty.add_copies(&RealDisk).unwrap();
                asked += 1;
            }
            assert_eq!(asked, u32::from(number == 0), "{number}");
            page(number).page.words()[7].store(2, Ordering::Relaxed);
        }
        let mut image = [0; PAGE_BYTES];
        for number in 0..40 {
            assert!(dirty.capture(&page(number), &mut image) && image[56] == 1);
            assert!(!dirty.capture(&page(number), &mut image));
        }
        dirty.release_copies();
    }

    /// Pages of a new extent were made dirty some time after a look at the journal. Others could use the blocks up in between.
    #[test]
    fn blocks_of_the_journal_that_are_set_aside_are_for_nobody_else() {
        let region = region();
        let page = |number: u64| region.page(number).unwrap();
        let dirty = DirtySet::new(Budget::new(1000), Bell::unheard(), Chance::new(0));
        dirty.set_journal_pages(10);
        let mut blocks = dirty.reserve(4).unwrap();
        (0..6).for_each(|number| dirty.mark(&page(number)).unwrap());
        let refused = dirty.mark(&page(6)).unwrap_err();
        assert!(matches!(refused, Shortage::Need(Need::Journal { pages: 11, alone: 1 })), "{refused:?}");
        let refused = dirty.reserve(3).unwrap_err();
        assert!(matches!(refused, Need::Journal { pages: 13, alone: 3 }), "{refused:?}");
        assert!(!dirty.shrink_journal(9) && dirty.journal_pages() == 10);
        // One that is dirty already takes none.
        blocks.mark(&page(0)).unwrap();
        (7..9).for_each(|number| blocks.mark(&page(number)).unwrap());
        assert_eq!(dirty.len(), 8);
        drop(blocks);
        assert!(dirty.shrink_journal(8) && dirty.mark(&page(9)).is_err());
        dirty.set_journal_pages(9);
        dirty.mark(&page(9)).unwrap();
    }

    /// A merge asked for the bitmap page of its source, a writer of another stripe for the same one. Both found it clean, and it was
    /// in the dirty set twice: the next cut found a page that no checkpoint had captured.
    #[test]
    fn a_bitmap_page_becomes_dirty_once() {
        let region = region();
        let (one, other) = (region.page(0).unwrap(), region.page(1).unwrap());
        // Where others take the processors, each meeting waits for them.
        let begun = std::time::Instant::now();
        for _ in (0..20_000).take_while(|_| begun.elapsed().as_secs() < 10) {
            let dirty = DirtySet::new(Budget::new(1000), Bell::unheard(), Chance::new(0));
            dirty.set_journal_pages(100);
            other.extent.set_used(u64::from(other.id.index) - other.extent.bitmap_pages, false);
            region.extents().for_each(|(_, extent)| extent.states()[0].unset(!0));
            let met = std::sync::atomic::AtomicU32::new(0);
            let meet = || {
                met.fetch_add(1, Ordering::SeqCst);
                while met.load(Ordering::SeqCst) < 2 {
                    std::thread::yield_now();
                }
            };
            std::thread::scope(|scope| {
                scope.spawn(|| {
                    meet();
                    dirty.reserve_bit(&region, &one).unwrap();
                });
                meet();
                dirty.set_used(&region, &other, true).unwrap();
            });
            assert_eq!(dirty.len(), 1);
        }
    }

    fn region() -> Region {
        let region = Region::new(crate::table_id::TableId::MAIN, RegionKind::Primary, 12);
        let shape = region.shape(0);
        let map = RealDisk.map_anonymous(shape.total() as usize * PAGE_BYTES).unwrap();
        let states = RealDisk.map_anonymous(shape.state_bytes()).unwrap();
        region.install(0, Extent::new(shape, 0, map, states, true));
        region
    }

    #[test]
    fn copies_stay_as_they_were_and_memory_goes_back() {
        let region = region();
        let page = |number: u64| region.page(number).unwrap();
        let mut copies = Copies::default();
        assert!(!copies.put(&page(0)) && copies.missing(10, 2048) == 10 && copies.missing(5_000, 2048) == PROVIDED_MIN);
        for number in 0..4_000 {
            page(number).page.words()[7].store(number, Ordering::Relaxed);
            if copies.missing(1, 2048) > 0 {
                copies.add(slab(&RealDisk, copies.missing(4_000 - number, 2048)).unwrap());
            }
            assert!(copies.put(&page(number)), "{number}");
            page(number).page.words()[7].store(u64::MAX, Ordering::Relaxed);
        }
        assert_eq!(copies.len(), 4_000);
        let mut image = [0; PAGE_BYTES];
        for number in (0..4_000).rev() {
            assert!(copies.take(page(number).id, &mut image));
            assert_eq!(image[56..64], number.to_le_bytes());
            assert!(!copies.take(page(number).id, &mut image));
        }
        let pages = |slabs: &[IndexMap]| slabs.iter().map(|slab| slab.words().len() / PAGE_WORDS).sum::<usize>();
        let before = pages(&copies.slabs);
        let dropped = pages(&copies.finish(2048));
        assert!(pages(&copies.slabs) == before - dropped && pages(&copies.slabs) <= 2048 && dropped > 1_500);
        assert_eq!(copies.free.len(), pages(&copies.slabs));
        assert_eq!(copies.pages(), copies.free.len() as u64);
        // The next checkpoint is expected to take as much, if there is memory for it.
        assert_eq!(copies.missing(10_000, copies.pages() + 7), 7);
        assert_eq!(copies.missing(10_000, 8192), 4_000 - copies.free.len() as u64);
    }
}
