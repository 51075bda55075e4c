//! The index: from hashes to record addresses.
//!
//! ```text
//! table     addressing, stripes, growth word: the concurrent whole
//! ├── lookup   reading without locks
//! ├── edit     the one locked change
//! ├── clear    emptying the whole
//! ├── extend   new extents of primary and overflow pages
//! ├── split    evacuation of a page into two, rewrite in place
//! ├── shrink   merging two pages into one, giving space back
//! ├── pool     free overflow pages
//! ├── growth   the growth word
//! ├── chain    a primary page and its overflow pages: find, insert, remove with repair (pure)
//! ├── tables   the main table and the others; what all of them do at once
//! ├── index    the file of pages, and what is dirty of it: for all tables
//! ├── state    a table as the meta data list it
//! ├── cut      the table as a checkpoint sees it: cut, images, room in the journal
//! ├── dirty    what the next checkpoint must write
//! ├── copies   frozen pages that writers set aside
//! ├── region   pages by number
//! ├── page     one page
//! └── slot     one slot
//! ```

mod budget;
pub(crate) mod chain;
mod clear;
mod copies;
pub(crate) mod cut;
mod dirty;
pub(crate) mod edit;
pub(crate) mod extend;
pub(crate) mod growth;
pub(crate) mod index;
pub(crate) mod load;
pub(crate) mod lookup;
pub(crate) mod page;
pub(crate) mod pool;
pub(crate) mod region;
mod resize;
pub(crate) mod shrink;
pub(crate) mod slot;
pub(crate) mod split;
pub(crate) mod state;
mod stats;
pub(crate) mod stripes;
pub(crate) mod tables;

use std::sync::Arc;

use crossbeam_utils::CachePadded;

use crate::error::{Error, Location, Result};
use crate::need::Step;
use crate::sync::{AtomicBool, AtomicU64, Bell, Mutex, OnceLock, Ordering};
use crate::table_id::TableId;
use crate::tuning::Tuning;
use crate::words::some;
use chain::{Chain, OVERFLOW_MAX};
use growth::Growth;
use index::Index;
use page::{Geometry, PageKind, image};
use pool::OverflowPool;
use region::{Extent, PageSlot, PageState, Region, RegionKind, StateWord};
use slot::{Slot, Tag};
use split::SPLIT_BITS;
use state::TableState;
use stats::IndexCounters;
use stripes::Stripes;

/// What changes when the table gets a new extent or begins or ends to grow.
#[derive(Debug)]
struct Structure {
    /// First pages of the extents, by their numbers in the region.
    primary_extents: Vec<u64>,
    overflow_extents: Vec<u64>,
    /// Records that the table must have room for before it may shrink.
    floor: u64,
}

#[derive(Debug)]
pub(crate) struct Table {
    id: TableId,
    index: Arc<Index>,
    geometry: Geometry,
    tuning: Tuning,
    growth: CachePadded<AtomicU64>,
    primary: Region,
    overflow: Region,
    stripes: Stripes,
    pool: OverflowPool,
    growth_bell: Bell,
    structure: Mutex<Structure>,
    /// The load has passed the threshold or is near it: growth should start or be prepared.
    growth_wanted: AtomicBool,
    /// There are so few entries that the table should shrink.
    shrink_wanted: AtomicBool,
    /// It is to shrink once the expected entries have come, if they do not.
    shrink_put_off: AtomicBool,
    /// Entries that are about to come, and for which the table has grown.
    expected: AtomicU64,
    /// Pages may have gone out of use: the next checkpoint gives their space back.
    gives_back: AtomicBool,
    /// No call changes or reads it any more.
    dropped: AtomicBool,
    /// The name in the catalog, once it is known there.
    name: OnceLock<String>,
    /// The values of new records begin at multiples of 16 bytes.
    aligned: AtomicBool,
    counters: IndexCounters,
}

/// What it takes to make a table.
#[derive(Debug)]
pub(crate) struct TableParts {
    pub(crate) index: Arc<Index>,
    pub(crate) tuning: Tuning,
    pub(crate) state: TableState,
    /// Rung when the table should be resized, and when overflow pages run out.
    pub(crate) growth_bell: Bell,
}

impl Table {
    pub(crate) fn new(parts: TableParts) -> Self {
        let TableState { id, primary_log2, overflow_log2, growth, records, floor, primary_extents, overflow_extents } =
            parts.state;
        // The stripes are this process's own affair; the file's word was written by another.
        let growth = growth.with_stripes(growth.level().min(parts.tuning.stripes_log2_max));
        let table = Table {
            id,
            geometry: parts.index.geometry,
            index: parts.index,
            tuning: parts.tuning,
            growth: CachePadded::new(AtomicU64::new(growth.word())),
            primary: Region::new(id, RegionKind::Primary, primary_log2),
            overflow: Region::new(id, RegionKind::Overflow, overflow_log2),
            stripes: Stripes::new(parts.tuning.stripes_log2_max),
            pool: OverflowPool::new(parts.growth_bell.clone()),
            growth_bell: parts.growth_bell,
            structure: Mutex::new(Structure { primary_extents, overflow_extents, floor }),
            growth_wanted: AtomicBool::new(false),
            shrink_wanted: AtomicBool::new(false),
            shrink_put_off: AtomicBool::new(false),
            expected: AtomicU64::new(0),
            gives_back: AtomicBool::new(true),
            dropped: AtomicBool::new(false),
            name: OnceLock::new(),
            aligned: AtomicBool::new(false),
            counters: IndexCounters::default(),
        };
        table.spread_count(growth.stripes_log2(), records as i64);
        table
    }

    /// The number that its records carry.
    #[inline]
    pub(crate) fn id(&self) -> TableId {
        self.id
    }

    /// The first page of the file behind all of its extents.
    pub(super) fn end_page(&self) -> u64 {
        self.extents().map(Extent::gap).map(|extent| extent.first + extent.pages).max().unwrap_or(0)
    }

    /// The extents of both regions.
    fn extents(&self) -> impl Iterator<Item = &Extent> {
        [&self.primary, &self.overflow].into_iter().flat_map(|region| region.extents().map(|(_, extent)| extent))
    }

    /// The name in the catalog. `None` for the main table and the catalog, and for a table whose name is not written yet.
    pub(crate) fn name(&self) -> Option<String> {
        self.name.get().cloned()
    }

    /// Notes the name that the catalog has for the table.
    pub(crate) fn set_name(&self, name: &str) {
        // It never changes.
        let _ = self.name.set(name.to_string());
    }

    /// Notes whether the catalog asks for aligned values.
    pub(crate) fn set_aligned(&self, aligned: bool) {
        self.aligned.store(aligned, Ordering::Relaxed);
    }

    /// True if the values of new records begin at multiples of 16 bytes.
    #[inline]
    pub(crate) fn is_aligned(&self) -> bool {
        self.aligned.load(Ordering::Relaxed)
    }

    /// Entries that a caller finds here: none in a table that was dropped.
    pub(crate) fn records(&self) -> u64 {
        if self.is_dropped() { 0 } else { self.len() }
    }

    /// True if no call may change or read it any more.
    #[inline]
    pub(crate) fn is_dropped(&self) -> bool {
        self.dropped.load(Ordering::Acquire)
    }

    /// Marks the table as dropped, or takes the mark away. Whoever has found no mark under a stripe is done when this returns.
    pub(crate) fn mark_dropped(&self, dropped: bool) {
        let _structure = self.structure.lock();
        let _all = self.lock_all();
        self.dropped.store(dropped, Ordering::Release);
    }

    /// Call under a stripe or the structure before a change, and after a read.
    ///
    /// # Errors
    /// `TableDropped`.
    #[inline]
    pub(crate) fn check_there(&self) -> Result<()> {
        if self.is_dropped() { Err(self.dropped_error()) } else { Ok(()) }
    }

    #[cold]
    fn dropped_error(&self) -> Error {
        let path = self.index.path.parent().unwrap_or(&self.index.path).to_path_buf();
        Error::TableDropped { path, name: self.name().unwrap_or_else(|| self.id.to_string()) }
    }

    /// What the table shares with others.
    pub(crate) fn index(&self) -> &Arc<Index> {
        &self.index
    }

    #[inline]
    pub(crate) fn growth(&self) -> Growth {
        Growth::from_word(self.growth.load(Ordering::Acquire))
    }

    /// Publishes a growth word. The caller holds the structure lock and the stripes that the change concerns.
    pub(super) fn set_growth(&self, growth: Growth) {
        debug_assert!(growth.is_valid(), "{growth:?}");
        self.growth.store(growth.word(), Ordering::SeqCst);
    }

    /// Damage in an index page.
    pub(super) fn damaged(&self, page: &PageSlot<'_>, what: &'static str, expected: String, found: String) -> Error {
        Error::corrupt(what, Location::page(&self.index.path, page.number()), expected, found)
    }

    /// Checks a page that was not touched since the store was opened. Cheap afterwards. Call under the
    /// page's stripe, or repeat under it before believing an error: a writer may be making the page at this
    /// moment.
    #[inline]
    pub(super) fn verify(&self, page: &PageSlot<'_>) -> Result<()> {
        let seen = page.state.load();
        if seen.is_verified() { Ok(()) } else { self.verify_first(page, seen) }
    }

    /// The same for the first time. `seen` was loaded before.
    #[cold]
    fn verify_first(&self, page: &PageSlot<'_>, seen: StateWord) -> Result<()> {
        if !page.is_used() {
            // A primary page that is not in use is a hole or an empty page; a free overflow page has no meaning.
            if page.id.region == RegionKind::Primary && !page.page.is_empty() {
                return Err(self.damaged(page, "bucket page", "no entry (not in use)".into(), "other bytes".into()));
            }
            page.state.install(seen, seen.split_base(), PageState::VERIFIED);
            return Ok(());
        }
        let bytes = page.page.image();
        let (found, expected) = image::checksums(&bytes, self.index.uuid, page.number());
        if found != expected {
            let text = |crc: u32| format!("crc {crc:#010x}");
            return Err(self.damaged(page, "bucket page", text(expected), text(found)));
        }
        if page.page.kind() != PageKind::Bucket as u32 {
            return Err(self.damaged(page, "bucket page", "a bucket page".into(), "another kind of page".into()));
        }
        if page.page.generation() > self.index.opened_generation {
            let expected = format!("generation {} or older", self.index.opened_generation);
            return Err(self.damaged(page, "bucket page", expected, format!("generation {}", page.page.generation())));
        }
        let (level, split_base) = (image::level(&bytes), image::split_base(&bytes));
        let fields_fit = image::number(&bytes) == page.number()
            && level <= Growth::LEVEL_MAX
            && split_base <= level
            && level - split_base <= SPLIT_BITS;
        if !fields_fit {
            let expected = format!("number {}, split base at most {SPLIT_BITS} below the level", page.number());
            let found = format!("number {}, level {level}, split base {split_base}", image::number(&bytes));
            return Err(self.damaged(page, "bucket page", expected, found));
        }
        let marks = if self.has_marks(page) { PageState::MARKS } else { 0 };
        // If the state has changed since it was loaded, a writer has verified the page and may have split it
        // since: what was read here is old then.
        page.state.install(seen, split_base, PageState::VERIFIED | marks);
        Ok(())
    }

    fn has_marks(&self, page: &PageSlot<'_>) -> bool {
        let buckets = self.geometry.homes + self.geometry.stash;
        (0..buckets).flat_map(|b| page.page.bucket(b).slots()).any(|(_, slot)| slot.is_marked())
    }

    /// A primary page that the growth word leads to.
    #[inline]
    pub(crate) fn primary_page(&self, page: u64) -> Result<PageSlot<'_>> {
        self.primary.page(page).ok_or_else(|| {
            let location = Location::file(&self.index.path);
            Error::corrupt("growth state", location, format!("at most {}", some(self.primary.pages(), "page")), page)
        })
    }

    /// The chain of a primary page, every page checked. The caller holds the stripe.
    #[inline(always)]
    pub(super) fn chain(&self, number: u64) -> Result<Chain<'_>> {
        let mut chain = self.chain_start(number)?;
        if chain.primary.page.next().is_some() {
            self.follow(&mut chain, number)?;
        }
        Ok(chain)
    }

    /// The chain without its overflow pages.
    #[inline(always)]
    fn chain_start(&self, number: u64) -> Result<Chain<'_>> {
        let primary = self.primary_page(number)?;
        self.verify(&primary)?;
        Ok(Chain { geometry: self.geometry, primary, overflow: Vec::new() })
    }

    /// Calls `each` with every slot of every page in use.
    ///
    /// # Errors
    /// `Corrupt` if a page is damaged.
    pub(crate) fn each_slot(&self, each: &mut dyn FnMut(Slot)) -> Result<()> {
        let buckets = self.geometry.homes + self.geometry.stash;
        for number in 0..self.growth().pages() {
            let guard = self.lock(number);
            let chain = self.chain(guard.growth.page_of(number))?;
            for page in chain.pages() {
                (0..buckets).flat_map(|bucket| page.page.bucket(bucket).slots()).for_each(|(_, slot)| each(slot));
            }
        }
        Ok(())
    }

    /// All entries of a table that nobody changes, and the damage that hides others.
    pub(crate) fn slots_at_rest(&self) -> (Vec<Slot>, Vec<Error>) {
        let (mut slots, mut damage) = (Vec::with_capacity(self.len() as usize), Vec::new());
        for number in 0..self.growth().pages() {
            let guard = self.lock(number);
            match self.readable_chain(guard.growth.page_of(number)) {
                Ok((chain, error)) => {
                    slots.extend(chain.live_slots());
                    damage.extend(error);
                }
                Err(error) => damage.push(error),
            }
        }
        (slots, damage)
    }

    /// The chain up to its first damaged overflow page, and what is wrong with that.
    pub(crate) fn readable_chain(&self, number: u64) -> Result<(Chain<'_>, Option<Error>)> {
        let mut chain = self.chain_start(number)?;
        let followed = self.follow(&mut chain, number);
        Ok((chain, followed.err()))
    }

    /// Adds the overflow pages of a chain. Most have none.
    #[cold]
    fn follow<'t>(&'t self, chain: &mut Chain<'t>, number: u64) -> Result<()> {
        let mut next = chain.primary.page.next();
        while let Some(overflow) = next {
            let last = chain.overflow.last().map_or(&chain.primary, |(_, page)| page);
            let Some(page) = self.overflow.page(overflow) else {
                let expected = format!("an overflow page below {}", self.overflow.pages());
                return Err(self.damaged(last, "overflow link", expected, overflow.to_string()));
            };
            self.verify(&page)?;
            if !page.is_used() {
                return Err(self.damaged(&page, "overflow page", "a page in use".into(), "a free one".into()));
            }
            if page.state.load().has_marks() {
                // Lookups ask the primary page only.
                chain.primary.state.set(PageState::MARKS);
            }
            let expected = (number, chain.overflow.len() + 1);
            let found = (page.page.owner(), usize::from(page.page.chain_position()));
            if chain.overflow.len() >= OVERFLOW_MAX {
                let expected = format!("at most {OVERFLOW_MAX} overflow pages in a chain");
                return Err(self.damaged(&page, "overflow page", expected, "a further one".into()));
            }
            // Owner and position make a cycle or a cross-link impossible to follow: each page has one place.
            if found != expected {
                let text = |(owner, position)| format!("owner {owner}, chain position {position}");
                return Err(self.damaged(&page, "overflow page", text(expected), text(found)));
            }
            next = page.page.next();
            chain.overflow.push((overflow, page));
        }
        Ok(())
    }

    /// Makes a chain's page ready to be changed: dirty, in use, with a header. The caller holds the stripe.
    #[inline]
    pub(super) fn touch(&self, page: &PageSlot<'_>, owner: u64, growth: Growth) -> Step<()> {
        self.check_there()?;
        let is_fresh = !page.is_used();
        if !is_fresh && self.index.dirty.is_dirty(page) {
            Ok(())
        } else {
            self.touch_clean(page, owner, growth, is_fresh)
        }
    }

    /// The same for a page that is clean, or not in use.
    #[cold]
    fn touch_clean(&self, page: &PageSlot<'_>, owner: u64, growth: Growth, is_fresh: bool) -> Step<()> {
        self.index.dirty.mark(page)?;
        // Also when the page was dirty already: an earlier attempt can have run short in the middle of this.
        if is_fresh {
            self.index.dirty.set_used(&self.primary, page, true)?;
            let level = growth.level_of(owner);
            page.page.init(PageKind::Bucket, page.number(), owner, level, level, 0);
            page.state.set_split_base(level);
            page.state.set(PageState::VERIFIED);
        }
        Ok(())
    }

    /// Makes all pages of a chain ready to be changed.
    pub(super) fn touch_chain(&self, chain: &Chain<'_>, owner: u64, growth: Growth) -> Step<()> {
        chain.pages().try_for_each(|page| self.touch(page, owner, growth))
    }

    /// The tag of a hash in a chain's page.
    pub(super) fn tag(chain: &Chain<'_>, hash: u64) -> Tag {
        Tag::of(hash, chain.primary.state.load().split_base())
    }

    /// Takes an overflow page and links it to the end of the chain. The caller holds the stripe and has made
    /// the chain's pages dirty.
    pub(super) fn link_overflow<'t>(&'t self, chain: &mut Chain<'t>, owner: u64, number: u64) -> Step<()> {
        if chain.overflow.len() >= OVERFLOW_MAX {
            return Err(self.chain_full().into());
        }
        let missing = || Error::impossible(&self.index.path, "a free overflow page that no extent has");
        let page = self.overflow.page(number).ok_or_else(missing)?;
        self.index.dirty.mark(&page)?;
        self.index.dirty.set_used(&self.overflow, &page, true)?;
        let (level, split_base) = (chain.primary.page.level(), chain.primary.page.split_base());
        let position = chain.overflow.len() as u16 + 1;
        page.page.init(PageKind::Bucket, page.number(), owner, level, split_base, position);
        page.page.clear_slots();
        page.state.set(PageState::VERIFIED);
        let last = chain.overflow.last().map_or(&chain.primary, |(_, last)| last);
        self.assert_dirty([last]);
        last.page.set_next(Some(number));
        chain.overflow.push((number, page));
        Ok(())
    }

    /// The error for a chain that takes no further page.
    pub(super) fn chain_full(&self) -> Error {
        Error::LimitReached {
            path: self.index.path.clone(),
            what: "overflow pages of one chain, while the table cannot grow",
            limit: OVERFLOW_MAX as u64,
            remedy: "free some disk space; if `tophash verify` reports a damaged page, save the store with `tophash repair STORE NEW`",
        }
    }

    /// Unlinks the chain's last overflow pages down to `keep` of them. They are empty, and a move has begun.
    pub(super) fn unlink_overflow(&self, chain: &mut Chain<'_>, keep: usize) -> Step<()> {
        while chain.overflow.len() > keep {
            let Some((_, page)) = chain.overflow.last() else { break };
            // First the bitmap, which can run short of something; from then on nothing can fail.
            self.index.dirty.set_used(&self.overflow, page, false)?;
            let (number, _) = chain.overflow.pop().unwrap_or((0, chain.primary));
            let last = chain.overflow.last().map_or(&chain.primary, |(_, last)| last);
            self.assert_dirty([last]);
            last.page.set_next(None);
            self.pool.give([number]);
        }
        Ok(())
    }
}
