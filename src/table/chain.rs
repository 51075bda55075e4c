//! A primary page and its overflow pages: where keys are looked for, put and removed.
//!
//! The **path** of a key is: its home bucket, the neighbour of that, the stash buckets, then the buckets of
//! the overflow pages in order. A key goes into the first empty slot of its path. `emptyRest` in a bucket
//! says that no live entry's path passes beyond the bucket; `emptyOne` is any other empty slot.
//!
//! **Removing** a key repairs the paths through its bucket: the freed slot takes back an entry that had to go
//! further along (from overflow, else from the stash, else from the neighbour), and so on for the slot that
//! this frees. What is free in the end is `emptyRest`. All homes are computed from the slots; no key is read.
//!
//! These functions change pages; the caller holds the stripe, has made every page of the chain dirty, and
//! has begun a move where [`Chain::must_move`] or the function's docs say so.

use super::page::{BUCKET_SLOTS, Bucket, Geometry, PageRef};
use super::region::PageSlot;
use super::slot::{Slot, Tag};
use crate::mutant::{Mutant, broken};

/// Overflow pages of one chain at most. A table that can grow has chains of a few; this bounds what a lookup costs in one that
/// cannot, and in a file that was damaged or made up.
pub(crate) const OVERFLOW_MAX: usize = 128;

/// A primary page and the overflow pages that continue it.
pub(crate) struct Chain<'t> {
    pub(super) geometry: Geometry,
    pub(crate) primary: PageSlot<'t>,
    /// Overflow pages in chain order, with their numbers in the overflow region. Empty almost always.
    pub(super) overflow: Vec<(u64, PageSlot<'t>)>,
}

/// A slot of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Spot {
    /// 0 is the primary page, n the n-th overflow page.
    pub(super) page: usize,
    pub(super) bucket: usize,
    pub(super) slot: usize,
}

/// What a search found.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    /// The key's slot.
    Hit(Spot, Slot),
    /// The key is not there; the first empty slot of its path, if the path has one.
    Miss(Option<Spot>),
}

/// Iterates over the buckets of a path: (page of the chain, bucket).
fn path(geometry: Geometry, home: usize, overflow: usize) -> impl Iterator<Item = (usize, usize)> {
    let buckets = geometry.homes + geometry.stash;
    [home, geometry.neighbour(home)]
        .into_iter()
        .chain(geometry.homes..buckets)
        .map(|bucket| (0, bucket))
        .chain((1..=overflow).flat_map(move |page| (0..buckets).map(move |bucket| (page, bucket))))
}

impl<'t> Chain<'t> {
    /// A page of the chain: 0 is the primary page.
    pub(super) fn page(&self, page: usize) -> PageRef<'t> {
        self.slot_of(page).page
    }

    /// A page of the chain, with its state.
    pub(super) fn slot_of(&self, page: usize) -> &PageSlot<'t> {
        match page {
            0 => &self.primary,
            n => &self.overflow[n - 1].1,
        }
    }

    /// All pages of the chain.
    pub(super) fn pages(&self) -> impl Iterator<Item = &PageSlot<'t>> {
        std::iter::once(&self.primary).chain(self.overflow.iter().map(|(_, page)| page))
    }

    pub(super) fn get(&self, spot: Spot) -> Slot {
        self.page(spot.page).bucket(spot.bucket).slot(spot.slot)
    }

    fn set(&self, spot: Spot, slot: Slot) {
        self.page(spot.page).bucket(spot.bucket).set(spot.slot, slot);
    }

    /// Looks for a key. `is_match` is asked about each slot whose tag fits, and about marked slots of the
    /// same fingerprint if `marks`; it reads the key from the log.
    pub(super) fn find<E>(
        &self,
        tag: Tag,
        marks: bool,
        mut is_match: impl FnMut(Slot) -> Result<bool, E>,
    ) -> Result<Found, E> {
        let mut free = None;
        for (page, bucket_number) in path(self.geometry, tag.home(self.geometry.homes), self.overflow.len()) {
            let bucket = self.page(page).bucket(bucket_number);
            let scan = bucket.scan(tag);
            let mut matches = scan.matches;
            while matches != 0 {
                let i = matches.trailing_zeros() as usize;
                matches &= matches - 1;
                let slot = bucket.slot(i);
                if slot.is_live() && is_match(slot)? {
                    return Ok(Found::Hit(Spot { page, bucket: bucket_number, slot: i }, slot));
                }
            }
            if marks {
                for (i, slot) in bucket.slots() {
                    if slot.is_marked() && slot.tag().fingerprint() == tag.fingerprint() && is_match(slot)? {
                        return Ok(Found::Hit(Spot { page, bucket: bucket_number, slot: i }, slot));
                    }
                }
            }
            if free.is_none() {
                free = bucket.first_empty().map(|slot| Spot { page, bucket: bucket_number, slot });
            }
            if scan.ends_path {
                break;
            }
        }
        Ok(Found::Miss(free))
    }

    /// The buckets of a tag's path, in order.
    pub(super) fn path_buckets(&self, tag: Tag) -> impl Iterator<Item = Bucket<'t>> {
        let home = tag.home(self.geometry.homes);
        path(self.geometry, home, self.overflow.len()).map(|(page, bucket)| self.page(page).bucket(bucket))
    }

    /// Publishes an entry in an empty slot. Returns true if the slot was a tombstone.
    pub(super) fn fill(&self, spot: Spot, slot: Slot) -> bool {
        let was_tombstone = self.get(spot).is_empty_one();
        self.page(spot.page).count(1, -i32::from(was_tombstone), 0);
        self.set(spot, slot);
        was_tombstone
    }

    /// Points an entry to a newer record.
    pub(super) fn replace(&self, spot: Spot, slot: Slot) {
        self.set(spot, slot);
    }

    /// True if removing the entry can move others: then a move must have been begun.
    pub(super) fn must_move(&self, spot: Spot) -> bool {
        !self.page(spot.page).bucket(spot.bucket).has_empty_rest()
    }

    /// Removes an entry and repairs the paths through its bucket. Returns the number of entries moved.
    pub(super) fn remove(&self, spot: Spot) -> u32 {
        let mut hole = spot;
        let mut moves = 0;
        self.page(spot.page).count(-1, 0, 1);
        loop {
            let bucket = self.page(hole.page).bucket(hole.bucket);
            if bucket.has_empty_rest() || broken(Mutant::NoPathRepair) {
                break;
            }
            let Some(from) = self.filler(hole) else {
                // Nothing passes beyond this bucket any more, so its tombstones need not say otherwise.
                for (i, slot) in bucket.slots() {
                    if slot.is_empty_one() {
                        bucket.set(i, Slot::EMPTY_REST);
                        self.page(hole.page).count(0, -1, 0);
                    }
                }
                break;
            };
            // First the destination, then (in the next round) the source: a reader meets the entry twice,
            // never not at all.
            let moved = self.get(from);
            self.set(hole, moved);
            if !moved.is_marked() {
                self.page(hole.page).count(1, 0, 0);
                self.page(from.page).count(-1, 0, 0);
            }
            hole = from;
            moves += 1;
        }
        self.set(hole, Slot::EMPTY_REST);
        moves
    }

    /// Removes an entry without repair: a tombstone stays where paths go on. Moves nothing. The caller rewrites the page
    /// in the end.
    pub(super) fn remove_unrepaired(&self, spot: Spot) {
        let rest = self.page(spot.page).bucket(spot.bucket).has_empty_rest() || broken(Mutant::EmptyRestTooEarly);
        self.set(spot, if rest { Slot::EMPTY_REST } else { Slot::EMPTY_ONE });
        self.page(spot.page).count(-1, i32::from(!rest), 1);
    }

    /// An entry that lies beyond the hole's bucket although its path passes it; the furthest kind first.
    fn filler(&self, hole: Spot) -> Option<Spot> {
        let Geometry { homes, .. } = self.geometry;
        let buckets = homes + self.geometry.stash;
        let in_home = hole.page == 0 && hole.bucket < homes;
        let previous = in_home.then(|| self.geometry.previous(hole.bucket));
        let passes = |slot: Slot| {
            let home = slot.tag().home(homes);
            slot.is_live() && (!in_home || home == hole.bucket || Some(home) == previous)
        };
        // Buckets after the hole's that every path goes through, in path order.
        let first = if in_home { homes } else { hole.bucket + 1 };
        let last_page = self.overflow.len();
        let shared = (hole.page..=last_page)
            .flat_map(|page| (0..buckets).map(move |bucket| (page, bucket)))
            .filter(|&(page, bucket)| if page == hole.page { bucket >= first } else { true })
            .filter(|&(page, bucket)| page > 0 || bucket >= homes);
        let mut best = None;
        for (page, bucket_number) in shared {
            let bucket = self.page(page).bucket(bucket_number);
            let candidate = bucket.slots().rfind(|&(_, slot)| passes(slot));
            if let Some((slot, _)) = candidate {
                best = Some(Spot { page, bucket: bucket_number, slot });
            }
            if bucket.has_empty_rest() {
                break;
            }
        }
        if best.is_some() || !in_home {
            return best;
        }
        let neighbour = self.geometry.neighbour(hole.bucket);
        let bucket = self.page(0).bucket(neighbour);
        let (slot, _) = bucket.slots().find(|&(_, slot)| slot.is_live() && slot.tag().home(homes) == hole.bucket)?;
        Some(Spot { page: 0, bucket: neighbour, slot })
    }

    /// All live slots of the chain, marked ones included.
    pub(crate) fn live_slots(&self) -> Vec<Slot> {
        let buckets = self.geometry.homes + self.geometry.stash;
        let mut slots = Vec::with_capacity(self.pages().map(|p| p.page.live() as usize + 8).sum());
        for page in self.pages() {
            for bucket in 0..buckets {
                slots.extend(page.page.bucket(bucket).slots().map(|(_, slot)| slot).filter(|slot| slot.is_live()));
            }
        }
        slots
    }

    /// True if a tag's path has so many empty slots in the primary page.
    pub(super) fn has_empties(&self, tag: Tag, wanted: usize) -> bool {
        let mut buckets = path(self.geometry, tag.home(self.geometry.homes), 0);
        let mut empties = 0;
        buckets.any(|(page, bucket)| {
            empties += self.page(page).bucket(bucket).empties();
            empties >= wanted
        })
    }

    /// The empty slots of every bucket, for planning.
    pub(super) fn room(&self) -> Room {
        let buckets = self.geometry.homes + self.geometry.stash;
        let empty = |page: PageRef<'_>, bucket: usize| page.bucket(bucket).empties() as u8;
        let free = self.pages().map(|page| (0..buckets).map(|bucket| empty(page.page, bucket)).collect()).collect();
        Room { geometry: self.geometry, free }
    }
}

/// Empty slots of a chain that a plan has not yet given away.
#[derive(Debug)]
pub(super) struct Room {
    geometry: Geometry,
    /// By page and bucket.
    free: Vec<Vec<u8>>,
}

impl Room {
    /// Gives away the first empty slot of a key's path; false if there is none.
    pub(super) fn take(&mut self, tag: Tag) -> bool {
        let home = tag.home(self.geometry.homes);
        let slot = path(self.geometry, home, self.free.len() - 1).find(|&(page, bucket)| self.free[page][bucket] > 0);
        slot.inspect(|&(page, bucket)| self.free[page][bucket] -= 1).is_some()
    }
}

/// New contents for the pages of a chain, packed without a gap: every entry in the first slot of its path
/// that was empty when its turn came. No tombstones.
#[derive(Debug)]
pub(crate) struct Layout {
    geometry: Geometry,
    pages: Vec<LayoutPage>,
}

#[derive(Debug)]
struct LayoutPage {
    slots: Box<[Slot]>,
    live: u16,
    /// Slots filled per bucket; they are filled from the front.
    fill: [u8; super::page::BUCKETS],
}

impl LayoutPage {
    fn new(geometry: Geometry) -> Self {
        LayoutPage {
            slots: vec![Slot::EMPTY_REST; geometry.slots()].into_boxed_slice(),
            live: 0,
            fill: [0; super::page::BUCKETS],
        }
    }
}

impl Layout {
    /// An empty chain of one page.
    pub(crate) fn new(geometry: Geometry) -> Self {
        Layout { geometry, pages: vec![LayoutPage::new(geometry)] }
    }

    /// Overflow pages that the layout needs.
    pub(crate) fn overflow_pages(&self) -> usize {
        self.pages.len() - 1
    }

    /// True if a marked entry was added.
    pub(super) fn has_marks(&self) -> bool {
        self.pages.iter().any(|page| page.slots.iter().any(|slot| slot.is_marked()))
    }

    /// Adds an entry. Marked entries take room, but do not count.
    pub(crate) fn add(&mut self, slot: Slot) {
        let home = slot.tag().home(self.geometry.homes);
        let room = path(self.geometry, home, self.pages.len() - 1)
            .find(|&(page, bucket)| (self.pages[page].fill[bucket] as usize) < BUCKET_SLOTS);
        let (page, bucket) = room.unwrap_or_else(|| {
            self.pages.push(LayoutPage::new(self.geometry));
            (self.pages.len() - 1, 0)
        });
        let target = &mut self.pages[page];
        target.slots[bucket * BUCKET_SLOTS + target.fill[bucket] as usize] = slot;
        target.fill[bucket] += 1;
        target.live += u16::from(!slot.is_marked());
    }

    /// Writes the n-th page of the layout over a page: slots and counters.
    pub(super) fn write(&self, n: usize, page: PageRef<'_>) {
        let source = &self.pages[n];
        for (b, slots) in source.slots.chunks_exact(BUCKET_SLOTS).enumerate() {
            let bucket = page.bucket(b);
            for (i, &slot) in slots.iter().enumerate() {
                bucket.set(i, slot);
            }
        }
        page.set_counts(source.live, 0, 0);
    }
}

#[cfg(test)]
#[path = "chain_tests.rs"]
mod tests;
