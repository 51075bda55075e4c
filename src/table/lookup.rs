//! Reading without locks.
//!
//! 1. Load the growth word; it leads to a page.
//! 2. Load the page's state: version, split base.
//! 3. Scan the path. For each slot whose tag fits, the caller's probe pins the segment, makes sure that the
//!    slot has not changed meanwhile, and compares the key. A hit needs no more.
//! 4. A miss counts only if the version is even and unchanged and the growth word still leads to the same
//!    page. Else start again; after some rounds, look under the stripe lock.
//!
//! Whatever looks damaged without the lock may be a page in the middle of a change, so it is looked at again
//! under the stripe before it is reported.

use super::Table;
use super::chain::{Found, OVERFLOW_MAX};
use super::page::{Bucket, BucketScan};
use super::slot::{Slot, Tag};
use crate::address::Address;
use crate::error::Fault;
use crate::mutant::{Mutant, broken, pause_if};
use crate::sync::{Ordering, fence};
use crate::sys::{PAGE_BYTES, prefetch_word};

type Result<T> = std::result::Result<T, Fault>;

/// Rounds without the lock before a reader takes it.
const ROUNDS: usize = 64;

/// What a probe says about a slot whose tag fits. If it is the key, the probe keeps what it has found to itself:
/// a record that is handed from layer to layer would be copied by each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Probe {
    /// It is the key.
    Hit,
    /// It is another key with the same tag.
    Other,
    /// The slot has changed since it was read.
    Changed,
}

/// A slot as it was read, and where it can be read again.
#[derive(Clone, Copy)]
pub(crate) struct SeenSlot<'a> {
    pub(crate) slot: Slot,
    bucket: Option<(Bucket<'a>, usize)>,
}

impl SeenSlot<'_> {
    /// A slot that cannot change, because its stripe is held.
    pub(crate) fn held(slot: Slot) -> Self {
        SeenSlot { slot, bucket: None }
    }

    /// The moment at which another thread may change the slot. Nothing, but in a test of the tests.
    #[inline(always)]
    pub(crate) fn pause(&self) {
        if self.bucket.is_some() {
            pause_if(Mutant::PinnedUnseen);
        }
    }

    /// True if the slot still says the same. Call after pinning what it points to.
    #[inline]
    pub(crate) fn is_unchanged(&self) -> bool {
        broken(Mutant::PinnedUnseen) || self.bucket.is_none_or(|(bucket, i)| bucket.slot(i) == self.slot)
    }
}

/// How a lookup that takes no lock ends.
enum Round {
    Done(bool),
    Again,
}

enum Flow {
    Hit,
    EndOfPath,
    GoOn,
    Again,
}

impl Table {
    /// Fetches the cache lines that a lookup of the hash reads first.
    #[inline]
    pub(crate) fn prefetch(&self, hash: u64) {
        if let Some(page) = self.primary.page(self.growth().page_of(hash)) {
            let home = Tag::of(hash, 0).home(self.geometry.homes);
            prefetch_word(page.page.bucket(home).line());
            prefetch_word(page.page.bucket(self.geometry.neighbour(home)).line());
        }
    }

    /// The same for a change, which reads the page's header as well.
    #[inline]
    pub(crate) fn prefetch_for_change(&self, hash: u64) {
        if let Some(page) = self.primary.page(self.growth().page_of(hash)) {
            let home = Tag::of(hash, 0).home(self.geometry.homes);
            prefetch_word(page.page.bucket(home).line());
            prefetch_word(&page.page.words()[0]);
            prefetch_word(page.page.bucket(self.geometry.neighbour(home)).line());
        }
    }

    /// Gets primary pages ready to be changed, as far as they lie in one extent: one after the other, each would be
    /// mapped for reading, then copied for writing, and the other processors told so. Only advice.
    pub(crate) fn populate(&self, first: u64, pages: u64) {
        let Some(page) = self.primary.page(first) else { return };
        let start = u64::from(page.id.index);
        let pages = pages.min(page.extent.pages + page.extent.bitmap_pages - start);
        let _ = page.extent.map().populate(start as usize * PAGE_BYTES, pages as usize * PAGE_BYTES);
    }

    /// The first slot of the home bucket whose tag fits: a guess at what a lookup will find, for prefetching.
    #[inline]
    pub(crate) fn guess(&self, hash: u64) -> Option<Slot> {
        let page = self.primary.page(self.growth().page_of(hash))?;
        let tag = Tag::of(hash, page.state.load().split_base());
        let bucket = page.page.bucket(tag.home(self.geometry.homes));
        let matches = bucket.scan(tag).matches;
        (matches != 0).then(|| bucket.slot(matches.trailing_zeros() as usize)).filter(|slot| slot.is_live())
    }

    /// True if a slot of the hash names the record at this address. Once false, always false.
    ///
    /// # Errors
    /// `Corrupt` if a page is damaged.
    pub(crate) fn names(&self, hash: u64, address: Address) -> Result<bool> {
        self.lookup(hash, |seen| Ok(if seen.slot.address() == address { Probe::Hit } else { Probe::Other }))
    }

    /// Looks a hash up. `probe` decides whether a slot is the key's. Returns true if one is.
    #[inline(always)]
    pub(crate) fn lookup(&self, hash: u64, mut probe: impl FnMut(SeenSlot<'_>) -> Result<Probe>) -> Result<bool> {
        for _ in 0..ROUNDS {
            match self.round(hash, &mut probe) {
                Ok(Round::Done(answer)) => return Ok(answer),
                Ok(Round::Again) => crate::sync::spin_loop(),
                Err(_) => break,
            }
        }
        self.lookup_locked(hash, &mut probe)
    }

    #[inline(always)]
    fn round(&self, hash: u64, probe: &mut impl FnMut(SeenSlot<'_>) -> Result<Probe>) -> Result<Round> {
        let number = self.growth().page_of(hash);
        pause_if(Mutant::MissWithoutGrowth);
        let page = self.primary_page(number)?;
        let home = Tag::of(hash, 0).home(self.geometry.homes);
        let first = page.page.bucket(home);
        let second = page.page.bucket(self.geometry.neighbour(home));
        prefetch_word(first.line());
        prefetch_word(second.line());
        let mut state = page.state.load();
        if !state.is_verified() {
            self.verify(&page)?;
            state = page.state.load();
            if !state.is_verified() {
                return Ok(Round::Again);
            }
        }
        if state.has_marks() {
            return self.lookup_locked(hash, probe).map(Round::Done);
        }
        let tag = Tag::of(hash, state.split_base());
        let flow = match scan_pair(first, second, tag, probe)? {
            Flow::GoOn => self.scan_further(page.page, tag, probe)?,
            flow => flow,
        };
        match flow {
            Flow::Hit => Ok(Round::Done(true)),
            Flow::Again => Ok(Round::Again),
            Flow::EndOfPath | Flow::GoOn => {
                // The loads above are Acquire, so they are done before these.
                fence(Ordering::Acquire);
                let same = !state.is_moving()
                    && state.same_version(page.state.load())
                    && (self.growth().page_of(hash) == number || broken(Mutant::MissWithoutGrowth));
                Ok(if same { Round::Done(false) } else { Round::Again })
            }
        }
    }

    /// The stash and the overflow pages.
    #[cold]
    fn scan_further(
        &self,
        primary: super::page::PageRef<'_>,
        tag: Tag,
        probe: &mut dyn FnMut(SeenSlot<'_>) -> Result<Probe>,
    ) -> Result<Flow> {
        pause_if(Mutant::NoVersions);
        let buckets = self.geometry.homes + self.geometry.stash;
        let mut page = primary;
        let mut first = self.geometry.homes;
        // A chain that changes under us, or was made up, could lead in circles. The look under the stripe tells.
        for _ in 0..=OVERFLOW_MAX {
            for bucket in first..buckets {
                match scan(page.bucket(bucket), tag, probe)? {
                    Flow::GoOn => {}
                    flow => return Ok(flow),
                }
            }
            first = 0;
            let Some(next) = page.next() else { return Ok(Flow::GoOn) };
            let Some(overflow) = self.overflow.page(next) else { return Ok(Flow::Again) };
            self.verify(&overflow)?;
            if overflow.state.load().has_marks() {
                // The look under the stripe sees to marks.
                return Ok(Flow::Again);
            }
            page = overflow.page;
        }
        Ok(Flow::Again)
    }

    /// The cache lines of slots that a lookup of a hash reads if the key is absent, and the tombstones among their
    /// slots. For figures.
    pub(crate) fn survey(&self, hash: u64) -> Result<(u32, u32)> {
        let guard = self.lock(hash);
        let chain = self.chain(guard.growth.page_of(hash))?;
        let buckets = chain.path_buckets(Self::tag(&chain, hash));
        let (mut lines, mut tombstones) = (0, 0);
        for bucket in buckets {
            lines += 1;
            tombstones += bucket.slots().filter(|(_, slot)| slot.is_empty_one()).count() as u32;
            if bucket.has_empty_rest() {
                break;
            }
        }
        Ok((lines, tombstones))
    }

    /// The same under the stripe lock, where nothing moves and what looks damaged is damaged.
    #[cold]
    fn lookup_locked(&self, hash: u64, probe: &mut dyn FnMut(SeenSlot<'_>) -> Result<Probe>) -> Result<bool> {
        self.counters.reader_locks.fetch_add(1, Ordering::Relaxed);
        let guard = self.lock(hash);
        self.check_there()?;
        let chain = self.chain(guard.growth.page_of(hash))?;
        let marks = chain.primary.state.load().has_marks();
        let is_hit = |slot| Ok::<_, Fault>(probe(SeenSlot::held(slot))? == Probe::Hit);
        let found = chain.find(Self::tag(&chain, hash), marks, is_hit)?;
        Ok(matches!(found, Found::Hit(..)))
    }
}

/// The home bucket and its neighbour.
///
/// An absent key's path ends in the first or in the second, as chance will have it. Both lines were asked for anyway;
/// so without a fitting tag the two answers become one branch that is nearly always taken. A processor that guesses wrong
/// at the first line would wait for memory before it can go on with whatever comes after this lookup.
#[inline(always)]
fn scan_pair<P>(first: Bucket<'_>, second: Bucket<'_>, tag: Tag, probe: &mut P) -> Result<Flow>
where
    P: FnMut(SeenSlot<'_>) -> Result<Probe> + ?Sized,
{
    let one = first.scan(tag);
    if one.matches == 0 {
        let two = second.scan(tag);
        if two.matches == 0 {
            return Ok(if one.ends_path | two.ends_path { Flow::EndOfPath } else { Flow::GoOn });
        }
        return if one.ends_path { Ok(Flow::EndOfPath) } else { probe_matches(second, two, probe) };
    }
    match probe_matches(first, one, probe)? {
        Flow::GoOn => scan(second, tag, probe),
        flow => Ok(flow),
    }
}

#[inline(always)]
fn scan<P>(bucket: Bucket<'_>, tag: Tag, probe: &mut P) -> Result<Flow>
where
    P: FnMut(SeenSlot<'_>) -> Result<Probe> + ?Sized,
{
    probe_matches(bucket, bucket.scan(tag), probe)
}

/// Probes the slots whose tags fit.
#[inline(always)]
fn probe_matches<P>(bucket: Bucket<'_>, found: BucketScan, probe: &mut P) -> Result<Flow>
where
    P: FnMut(SeenSlot<'_>) -> Result<Probe> + ?Sized,
{
    let mut matches = found.matches;
    while matches != 0 {
        let i = matches.trailing_zeros() as usize;
        matches &= matches - 1;
        let slot = bucket.slot(i);
        if slot.is_live() {
            match probe(SeenSlot { slot, bucket: Some((bucket, i)) })? {
                Probe::Hit => return Ok(Flow::Hit),
                Probe::Other => {}
                Probe::Changed => return Ok(Flow::Again),
            }
        }
    }
    Ok(if found.ends_path { Flow::EndOfPath } else { Flow::GoOn })
}
