//! Stripes: the locks of writers, and the count of entries, which they share.
//!
//!  A writer locks the stripe of its hash and then reads the growth word; page and chain stay put
//! until it unlocks, because a page is split under the stripe of its hashes, which both halves share. The
//! number of stripes never exceeds the number of primary pages; it changes with all stripes held only.
//!
//! **Order of locks.** structure → stripes in ascending order → log append → leaves (dirty set, pool). No
//! lock is held across a wait.

use crossbeam_utils::CachePadded;

use super::Table;
use super::growth::Growth;
use crate::sync::{AtomicI64, AtomicU64, Mutex, MutexGuard, OnceLock, Ordering, fence};

#[derive(Debug, Default)]
struct Stripe {
    lock: Mutex<()>,
    /// Entries of the stripe's pages; only the sum over all stripes is exact. Changes under `lock`.
    count: AtomicI64,
    /// Entries ever inserted under this stripe; changes under `lock`.
    inserts: AtomicU64,
    /// Changes of keys that callers asked for, by [`Tally`]; change under `lock`.
    tallies: [AtomicU64; 3],
}

/// What a caller's change did to a key. Records that are moved or replayed are no changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tally {
    Inserted,
    Replaced,
    Removed,
}

/// log2 of the stripes that every table has. The others come when a table has grown so far, each time as many as there are.
const FIRST_LOG2: u8 = 4;
/// Doublings of the first ones, at the most.
const DOUBLINGS: usize = 12;

/// The stripes of a table.
#[derive(Debug)]
pub(super) struct Stripes {
    first: Box<[CachePadded<Stripe>]>,
    /// Those behind the first ones, doubling by doubling, once one of them is used.
    rest: [OnceLock<Box<[CachePadded<Stripe>]>>; DOUBLINGS],
    /// Odd while the count of entries is distributed anew: no sum counts then.
    spreads: AtomicU64,
}

impl Stripes {
    pub(super) fn new(log2_max: u8) -> Self {
        debug_assert!(log2_max <= FIRST_LOG2 + DOUBLINGS as u8, "more stripes than there is room for");
        let first = stripes(1 << log2_max.min(FIRST_LOG2));
        Stripes { first, rest: [const { OnceLock::new() }; DOUBLINGS], spreads: AtomicU64::new(0) }
    }

    /// A stripe by number.
    #[inline]
    fn get(&self, stripe: usize) -> &Stripe {
        match self.first.get(stripe) {
            Some(stripe) => stripe,
            None => self.further(stripe),
        }
    }

    /// A stripe behind the first ones. There are as many of its doubling as before it.
    fn further(&self, stripe: usize) -> &Stripe {
        let log2 = stripe.ilog2();
        let doubling = &self.rest[(log2 - u32::from(FIRST_LOG2)) as usize];
        &doubling.get_or_init(|| stripes(1 << log2))[stripe - (1 << log2)]
    }

    /// Sees to it that so many stripes exist, as a power of two.
    fn provide(&self, log2: u8) {
        (FIRST_LOG2..log2).for_each(|doubling| _ = self.further(1 << doubling));
    }

    /// The stripes that exist, in their order. Nobody holds another one, and no other one counts.
    fn existing(&self) -> impl Iterator<Item = &Stripe> {
        let rest = self.rest.iter().filter_map(|doubling| doubling.get()).flatten();
        self.first.iter().chain(rest).map(|stripe| &**stripe)
    }
}

fn stripes(count: usize) -> Box<[CachePadded<Stripe>]> {
    (0..count).map(|_| CachePadded::new(Stripe::default())).collect()
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

impl StripeGuard<'_> {
    /// Counts changes that callers asked for. Plain load and store: the lock is held.
    #[inline]
    pub(super) fn tally(&self, tally: Tally, by: u64) {
        let counter = &self.stripe.tallies[tally as usize];
        counter.store(counter.load(Ordering::Relaxed) + by, Ordering::Relaxed);
    }
}

/// All stripes, held for a change of the whole table.
pub(crate) struct AllStripes<'t> {
    _locks: Vec<MutexGuard<'t, ()>>,
}

impl Table {
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
        let stripe = self.stripes.get(stripe);
        let lock = crate::sync::lock_soon(&stripe.lock);
        StripeGuard { stripe, growth: self.growth(), _lock: lock }
    }

    /// Locks all stripes, in order. The caller holds the structure lock, so their number is stable.
    pub(crate) fn lock_all(&self) -> AllStripes<'_> {
        let stripes = 1usize << self.growth().stripes_log2();
        AllStripes { _locks: (0..stripes).map(|stripe| self.stripes.get(stripe).lock.lock()).collect() }
    }

    /// Takes every stripe once, one after the other: whoever held one before has let go of it since.
    pub(crate) fn pass_all_stripes(&self) {
        self.stripes.existing().for_each(|stripe| drop(stripe.lock.lock()));
    }

    /// Entries in the table.
    pub(crate) fn len(&self) -> u64 {
        loop {
            let before = self.stripes.spreads.load(Ordering::Acquire);
            let sum: i64 = self.stripes.existing().map(|stripe| stripe.count.load(Ordering::Relaxed)).sum();
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.stripes.spreads.load(Ordering::Relaxed) == before {
                return u64::try_from(sum).unwrap_or(0);
            }
            crate::sync::yield_now();
        }
    }

    /// Entries inserted since the table was made.
    pub(crate) fn inserts(&self) -> u64 {
        self.stripes.existing().map(|stripe| stripe.inserts.load(Ordering::Relaxed)).sum()
    }

    /// Changes that callers asked for since the table was made.
    pub(crate) fn tally(&self, tally: Tally) -> u64 {
        self.stripes.existing().map(|stripe| stripe.tallies[tally as usize].load(Ordering::Relaxed)).sum()
    }

    /// Distributes a count evenly, so that each stripe's count hints at the whole. The caller holds all
    /// stripes or owns the table.
    pub(super) fn spread_count(&self, stripes_log2: u8, records: i64) {
        let stripes = 1i64 << stripes_log2;
        self.stripes.spreads.fetch_add(1, Ordering::Relaxed);
        fence(Ordering::Release);
        self.stripes.provide(stripes_log2);
        for (i, stripe) in self.stripes.existing().enumerate() {
            let i = i as i64;
            let count = if i < stripes { records / stripes + i64::from(i < records % stripes) } else { 0 };
            stripe.count.store(count, Ordering::Relaxed);
        }
        self.stripes.spreads.fetch_add(1, Ordering::Release);
    }
}
