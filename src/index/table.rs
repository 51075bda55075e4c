//! The table: the concurrent whole of the index.
//!
//! **Stripes.** A writer locks the stripe of its hash and then reads the growth word; page and chain stay put
//! until it unlocks, because a page is split under the stripe of its hashes, which both halves share. The
//! number of stripes never exceeds the number of primary pages; it changes with all stripes held only.
//!
//! **Order of locks.** structure → stripes in ascending order → log append → leaves (dirty set, pool). No
//! lock is held across a wait.

use std::path::PathBuf;
use std::sync::Arc;

use crossbeam_utils::CachePadded;

use super::Step;
use super::chain::{Chain, OVERFLOW_MAX};
use super::dirty::DirtySet;
use super::growth::Growth;
use super::page::{Geometry, PageKind, image};
use super::pool::OverflowPool;
use super::region::{PageSlot, PageState, Region, RegionKind};
use super::slot::{Slot, Tag};
use super::split::SPLIT_BITS;
use crate::checksum::Uuid;
use crate::error::{Error, Location, Result};
use crate::options::Tuning;
use crate::sync::{AtomicBool, AtomicI64, AtomicU64, Bell, Mutex, MutexGuard, Ordering, fence};
use crate::sys::{Disk, DiskFile};

/// The highest level of a table: the pages of each extent are numbered in 32 bits.
pub(super) const LEVEL_LIMIT: u8 = 31;
/// Entries that a store can hold: the log has 4 TiB, and a record of a key of its own takes 16 bytes.
pub(crate) const RECORDS_MAX: u64 = 1 << 38;

/// The extent for the next growth is added this fraction of the threshold before growth starts.
const EXTEND_AHEAD: u64 = 12;

/// Counters that [`IndexStats`](crate::IndexStats) reports.
#[derive(Debug, Default)]
pub(crate) struct IndexCounters {
    pub(crate) growths: AtomicU64,
    pub(crate) splits: AtomicU64,
    pub(crate) shrinks: AtomicU64,
    pub(crate) merges: AtomicU64,
    pub(crate) given_back: AtomicU64,
    pub(crate) refills: AtomicU64,
    pub(crate) rewrites: AtomicU64,
    pub(crate) repairs: AtomicU64,
    pub(crate) into_empty_one: AtomicU64,
    pub(crate) into_new_overflow: AtomicU64,
    pub(crate) reader_locks: AtomicU64,
}

#[derive(Debug, Default)]
struct Stripe {
    lock: Mutex<()>,
    /// Entries of the stripe's pages; only the sum over all stripes is exact. Changes under `lock`.
    count: AtomicI64,
    /// Entries ever inserted under this stripe; changes under `lock`.
    inserts: AtomicU64,
}

/// What changes when the table gets a new extent or begins or ends to grow.
#[derive(Debug)]
pub(crate) struct Structure {
    /// The first page of the index file that no extent uses.
    pub(crate) end_page: u64,
    /// First pages of the extents, by group.
    pub(crate) primary_extents: Vec<u64>,
    pub(crate) overflow_extents: Vec<u64>,
    /// Records that the table must have room for before it may shrink.
    pub(crate) floor: u64,
}

#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) geometry: Geometry,
    pub(crate) tuning: Tuning,
    pub(super) uuid: Uuid,
    /// The index file's path, for error messages.
    pub(crate) path: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    /// `None` if nothing may be written.
    pub(super) file: Option<Arc<dyn DiskFile>>,
    growth: CachePadded<AtomicU64>,
    pub(super) primary: Region,
    pub(crate) overflow: Region,
    stripes: Box<[CachePadded<Stripe>]>,
    /// Odd while the count of entries is distributed anew: no sum counts then.
    spreads: AtomicU64,
    pub(crate) dirty: DirtySet,
    pub(crate) pool: OverflowPool,
    growth_bell: Arc<Bell>,
    pub(crate) structure: Mutex<Structure>,
    /// Held while disk blocks of pages are allocated or given back.
    pub(super) blocks: Mutex<()>,
    /// The load has passed the threshold or is near it: growth should start or be prepared.
    pub(crate) growth_wanted: AtomicBool,
    /// There are so few entries that the table should shrink.
    pub(crate) shrink_wanted: AtomicBool,
    /// Pages may have gone out of use: the next checkpoint gives their space back.
    pub(crate) gives_back: AtomicBool,
    pub(crate) counters: IndexCounters,
    /// No page of the file can be of a later generation than this before it is touched.
    opened_generation: u64,
}

/// What it takes to make a table.
#[derive(Debug)]
pub(crate) struct TableParts {
    pub(crate) geometry: Geometry,
    pub(crate) tuning: Tuning,
    pub(crate) uuid: Uuid,
    pub(crate) path: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) file: Option<Arc<dyn DiskFile>>,
    pub(crate) growth: Growth,
    pub(crate) primary_base_log2: u8,
    pub(crate) overflow_base_log2: u8,
    pub(crate) structure: Structure,
    pub(crate) records: u64,
    pub(crate) limit_pages: u64,
    /// The generation that the store was opened with.
    pub(crate) generation: u64,
    /// Rung when overflow pages run out, and when much is dirty.
    pub(crate) growth_bell: Arc<Bell>,
    pub(crate) checkpoint_bell: Arc<Bell>,
}

/// A held stripe. While it lives, the pages of its hashes keep their entries in place.
pub(crate) struct StripeGuard<'t> {
    stripe: &'t Stripe,
    pub(crate) growth: Growth,
    _lock: MutexGuard<'t, ()>,
}

impl StripeGuard<'_> {
    /// Adds to the number of entries. Plain load and store: the lock is held.
    #[inline]
    pub(super) fn add_count(&self, by: i64) -> i64 {
        let count = self.stripe.count.load(Ordering::Relaxed) + by;
        self.stripe.count.store(count, Ordering::Relaxed);
        if by > 0 {
            self.stripe.inserts.store(self.stripe.inserts.load(Ordering::Relaxed) + by as u64, Ordering::Relaxed);
        }
        count
    }
}

/// All stripes, held for a change of the whole table.
pub(crate) struct AllStripes<'t> {
    _locks: Vec<MutexGuard<'t, ()>>,
}

impl Table {
    pub(crate) fn new(parts: TableParts) -> Self {
        let stripes: Box<[_]> =
            (0..1usize << parts.tuning.stripes_log2_max).map(|_| CachePadded::new(Stripe::default())).collect();
        let table = Table {
            geometry: parts.geometry,
            tuning: parts.tuning,
            uuid: parts.uuid,
            path: parts.path,
            disk: parts.disk,
            file: parts.file,
            growth: CachePadded::new(AtomicU64::new(parts.growth.word())),
            primary: Region::new(RegionKind::Primary, parts.primary_base_log2),
            overflow: Region::new(RegionKind::Overflow, parts.overflow_base_log2),
            stripes,
            spreads: AtomicU64::new(0),
            dirty: DirtySet::new(parts.limit_pages, parts.checkpoint_bell),
            pool: OverflowPool::new(parts.growth_bell.clone()),
            growth_bell: parts.growth_bell,
            structure: Mutex::new(parts.structure),
            blocks: Mutex::new(()),
            growth_wanted: AtomicBool::new(false),
            shrink_wanted: AtomicBool::new(false),
            gives_back: AtomicBool::new(true),
            counters: IndexCounters::default(),
            opened_generation: parts.generation,
        };
        table.spread_count(parts.growth.stripes_log2(), parts.records as i64);
        table
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

    /// Locks the stripe of a hash.
    #[inline]
    pub(crate) fn lock(&self, hash: u64) -> StripeGuard<'_> {
        loop {
            let stripe = self.growth().stripe_of(hash);
            let guard = self.lock_number(stripe);
            if guard.growth.stripe_of(hash) == stripe {
                return guard;
            }
        }
    }

    /// Locks a stripe by number. The caller checks `growth` against what the number was computed from.
    pub(super) fn lock_number(&self, stripe: usize) -> StripeGuard<'_> {
        let stripe: &Stripe = &self.stripes[stripe];
        let lock = crate::sync::lock_soon(&stripe.lock);
        StripeGuard { stripe, growth: self.growth(), _lock: lock }
    }

    /// Locks all stripes, in order. The caller holds the structure lock, so their number is stable.
    pub(crate) fn lock_all(&self) -> AllStripes<'_> {
        let stripes = 1usize << self.growth().stripes_log2();
        AllStripes { _locks: self.stripes[..stripes].iter().map(|stripe| stripe.lock.lock()).collect() }
    }

    /// Takes every stripe once, one after the other: whoever held one before has let go of it since.
    pub(crate) fn pass_all_stripes(&self) {
        self.stripes.iter().for_each(|stripe| drop(stripe.lock.lock()));
    }

    /// Entries in the table.
    pub(crate) fn len(&self) -> u64 {
        loop {
            let before = self.spreads.load(Ordering::Acquire);
            let sum: i64 = self.stripes.iter().map(|stripe| stripe.count.load(Ordering::Relaxed)).sum();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.spreads.load(Ordering::Relaxed) == before {
                return u64::try_from(sum).unwrap_or(0);
            }
            crate::sync::yield_now();
        }
    }

    /// Entries inserted since the table was made.
    pub(crate) fn inserts(&self) -> u64 {
        self.stripes.iter().map(|stripe| stripe.inserts.load(Ordering::Relaxed)).sum()
    }

    /// Distributes a count evenly, so that each stripe's count hints at the whole. The caller holds all
    /// stripes or owns the table.
    pub(super) fn spread_count(&self, stripes_log2: u8, records: i64) {
        let stripes = 1i64 << stripes_log2;
        self.spreads.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        for (i, stripe) in self.stripes.iter().enumerate() {
            let i = i as i64;
            let count = if i < stripes { records / stripes + i64::from(i < records % stripes) } else { 0 };
            stripe.count.store(count, Ordering::Relaxed);
        }
        self.spreads.fetch_add(1, Ordering::Release);
    }

    /// Entries at which growth starts.
    pub(crate) fn threshold(&self, level: u8) -> u64 {
        threshold(self.geometry, &self.tuning, level)
    }

    /// Entries that the table can have room for.
    pub(crate) fn records_max(&self) -> u64 {
        self.threshold(LEVEL_LIMIT).min(RECORDS_MAX)
    }

    /// The level at which that many entries fit without growth.
    pub(crate) fn level_for(&self, records: u64) -> u8 {
        level_for(self.geometry, &self.tuning, records)
    }

    /// Called after an insert with the stripe's new count: true if growth should start, or is so near that its
    /// extent should be added.
    #[inline]
    pub(super) fn is_crowded(&self, growth: Growth, stripe_count: i64) -> bool {
        if growth.is_resizing() && !growth.is_shrinking() {
            return false;
        }
        let threshold = self.threshold(growth.level());
        // The stripe's share hints at the whole; the exact sum is taken only near the threshold.
        let hint = (stripe_count.max(0) as u64) << growth.stripes_log2();
        if hint < threshold - threshold / 8 || (growth.stripes_log2() > 4 && stripe_count % 16 != 0) {
            return false;
        }
        self.len() > threshold - threshold / EXTEND_AHEAD
    }

    /// Growth should start: by the growth thread, or by the next change.
    pub(super) fn want_growth(&self) {
        self.growth_wanted.store(true, Ordering::Relaxed);
        self.ring_growth();
    }

    /// The table should shrink: by the growth thread, or by the next change.
    pub(super) fn want_shrink(&self) {
        self.shrink_wanted.store(true, Ordering::Relaxed);
        self.ring_growth();
    }

    fn ring_growth(&self) {
        if self.tuning.background {
            self.growth_bell.ring();
        }
    }

    /// True if the extent for the next growth is there: growth can start at once.
    pub(crate) fn is_extended(&self) -> bool {
        let growth = self.growth();
        // Group k + 1 holds the pages from 2^(base + k) on.
        let group = (growth.level() + 1).saturating_sub(self.primary.base_log2());
        self.primary.group(group.into()).is_some()
    }

    /// Damage in an index page.
    pub(super) fn damaged(&self, page: &PageSlot<'_>, what: &'static str, expected: String, found: String) -> Error {
        Error::corrupt(what, Location::page(&self.path, page.number()), expected, found)
    }

    /// Checks a page that was not touched since the store was opened. Cheap afterwards. Call under the
    /// page's stripe, or repeat under it before believing an error: a writer may be making the page at this
    /// moment.
    pub(super) fn verify(&self, page: &PageSlot<'_>) -> Result<()> {
        let seen = page.state.load();
        if seen.is_verified() {
            return Ok(());
        }
        if !page.is_used() {
            // A primary page that is not in use is a hole or an empty page; a free overflow page has no meaning.
            if page.id.region == RegionKind::Primary && !page.page.is_empty() {
                return Err(self.damaged(page, "bucket page", "no entry (not in use)".into(), "other bytes".into()));
            }
            page.state.install(seen, seen.split_base(), PageState::VERIFIED);
            return Ok(());
        }
        let bytes = page.page.image();
        let (found, expected) = image::checksums(&bytes, self.uuid, page.number());
        if found != expected {
            let text = |crc: u32| format!("crc {crc:#010x}");
            return Err(self.damaged(page, "bucket page", text(expected), text(found)));
        }
        if page.page.kind() != PageKind::Bucket as u32 {
            return Err(self.damaged(page, "bucket page", "a bucket page".into(), "another kind of page".into()));
        }
        if page.page.generation() > self.opened_generation {
            let expected = format!("generation {} or older", self.opened_generation);
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
            let location = Location::file(&self.path);
            Error::corrupt("growth state", location, format!("at most {} pages", self.primary.pages()), page)
        })
    }

    /// The chain of a primary page, every page checked. The caller holds the stripe.
    pub(super) fn chain(&self, number: u64) -> Result<Chain<'_>> {
        match self.readable_chain(number)? {
            (chain, None) => Ok(chain),
            (_, Some(error)) => Err(error),
        }
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

    /// The chain up to its first damaged overflow page, and what is wrong with that.
    pub(crate) fn readable_chain(&self, number: u64) -> Result<(Chain<'_>, Option<Error>)> {
        let primary = self.primary_page(number)?;
        self.verify(&primary)?;
        let mut chain = Chain { geometry: self.geometry, primary, overflow: Vec::new() };
        let followed = self.follow(&mut chain, number);
        Ok((chain, followed.err()))
    }

    /// Adds the overflow pages of a chain.
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
    pub(super) fn touch(&self, page: &PageSlot<'_>, owner: u64, growth: Growth) -> Step<()> {
        let is_fresh = !page.is_used();
        if !is_fresh && self.dirty.is_dirty(page) {
            return Ok(());
        }
        self.dirty.mark(page)?;
        // Also when the page was dirty already: an earlier attempt can have run short in the middle of this.
        if is_fresh {
            self.dirty.set_used(&self.primary, page, true)?;
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
        let missing = || Error::impossible(&self.path, "a free overflow page that no extent has");
        let page = self.overflow.page(number).ok_or_else(missing)?;
        self.dirty.mark(&page)?;
        self.dirty.set_used(&self.overflow, &page, true)?;
        let (level, split_base) = (chain.primary.page.level(), chain.primary.page.split_base());
        let position = chain.overflow.len() as u16 + 1;
        page.page.init(PageKind::Bucket, page.number(), owner, level, split_base, position);
        page.page.clear_slots();
        page.state.set(PageState::VERIFIED);
        chain.overflow.last().map_or(&chain.primary, |(_, last)| last).page.set_next(Some(number));
        chain.overflow.push((number, page));
        Ok(())
    }

    /// The error for a chain that takes no further page.
    pub(super) fn chain_full(&self) -> Error {
        Error::LimitReached {
            path: self.path.clone(),
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
            self.dirty.set_used(&self.overflow, page, false)?;
            let (number, _) = chain.overflow.pop().unwrap_or((0, chain.primary));
            chain.overflow.last().map_or(&chain.primary, |(_, last)| last).page.set_next(None);
            self.pool.give([number]);
        }
        Ok(())
    }
}

/// Entries of a table at which it grows. Cannot overflow: 504 slots, level 38, factor 1000 are below 2^57.
fn threshold(geometry: Geometry, tuning: &Tuning, level: u8) -> u64 {
    ((geometry.slots() as u64) << level) * u64::from(tuning.grow_permille.min(1000)) / 1000
}

/// The level of a table in which `records` entries fit without growth.
pub(crate) fn level_for(geometry: Geometry, tuning: &Tuning, records: u64) -> u8 {
    (tuning.level_min..LEVEL_LIMIT)
        .find(|&level| threshold(geometry, tuning, level) >= records)
        .unwrap_or(LEVEL_LIMIT.max(tuning.level_min))
}
