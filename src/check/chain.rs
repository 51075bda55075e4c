//! One chain: headers, counters, and the rule of the paths.
//!
//! The pages of a chain come one after another and are not kept. For a slot it is enough to know which home
//! buckets of the primary page have an `emptyRest`, and whether any of the buckets that all paths share (stash,
//! then overflow pages, in order) had one before.

use std::path::Path;
use std::rc::Rc;

use super::kind;
use super::sink::Sink;
use super::slots::{Entry, LiveSlot, Spot};
use super::state::{PAGE, State};
use super::tables::CheckedTable;
use crate::address::Address;
use crate::error::Location;
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::sync::AtomicU64;
use crate::sys::PAGE_BYTES;
use crate::table::growth::Growth;
use crate::table::page::{BUCKET_SLOTS, PAGE_WORDS, PageRef};
use crate::table::slot::Slot;
use crate::table::split::SPLIT_BITS;
use crate::words::some;

/// Entries of a chain that are compared with one another. No chain is that long, unless made so on purpose.
const ENTRIES_MAX: usize = 1 << 20;

/// How a chain goes on.
pub(super) enum Next {
    /// With an overflow page, as the page `from` says.
    Overflow { from: u64, link: u64 },
    /// It ends here.
    End,
    /// This is no page of the chain.
    Broken,
}

/// Memory for one page, used for one after the other.
pub(super) type PageMemory = Rc<[AtomicU64; PAGE_WORDS]>;

/// A chain that is being checked.
pub(super) struct ChainCheck<'c> {
    state: &'c State,
    table: &'c CheckedTable<'c>,
    path: &'c Path,
    ends: &'c [u64],
    owner: u64,
    memory: PageMemory,
    /// Pages seen.
    pages: u64,
    split_base: u8,
    /// Home buckets with an `emptyRest`, a bit for each.
    home_rest: u64,
    /// The first shared bucket with an `emptyRest`: page number, bucket.
    shared_rest: Option<(u64, usize)>,
    pub(super) live: u64,
    pub(super) marked: u64,
    pub(super) tombstones: u64,
    /// Where marked slots point, as far as they are remembered.
    pub(super) marked_addresses: Vec<Address>,
    entries: Vec<Entry>,
}

impl<'c> ChainCheck<'c> {
    pub(super) fn new(
        state: &'c State,
        table: &'c CheckedTable<'c>,
        ends: &'c [u64],
        memory: PageMemory,
        owner: u64,
    ) -> Self {
        ChainCheck {
            state,
            table,
            path: &state.pages.index.path,
            ends,
            owner,
            memory,
            pages: 0,
            split_base: 0,
            home_rest: 0,
            shared_rest: None,
            live: 0,
            marked: 0,
            tombstones: 0,
            marked_addresses: Vec::new(),
            entries: Vec::new(),
        }
    }

    /// The entries of the chain, to be compared.
    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }

    /// Checks the chain's next page, whose checksum, kind, number and generation are right.
    pub(super) fn page(
        &mut self,
        number: u64,
        image: &[u8; PAGE_BYTES],
        sink: &mut Sink<'_>,
        each: &mut dyn FnMut(LiveSlot),
    ) -> Next {
        let memory = Rc::clone(&self.memory);
        let page = PageRef::new(&memory);
        page.load(image);
        let next = if self.check_header(number, page, sink) {
            self.check_slots(number, page, sink, each);
            page.next().map_or(Next::End, |link| Next::Overflow { from: number, link })
        } else {
            Next::Broken
        };
        self.pages += 1;
        next
    }

    /// False if the page belongs to another chain.
    fn check_header(&mut self, number: u64, page: PageRef<'_>, sink: &mut Sink<'_>) -> bool {
        let at = |offset: u64| Location { offset: Some(number * PAGE + offset), ..Location::page(self.path, number) };
        if page.owner() != self.owner {
            sink.damage(kind::PAGE_OWNER, at(16), format!("owner {}", self.owner), format!("owner {}", page.owner()));
            return false;
        }
        if u64::from(page.chain_position()) != self.pages {
            let (expected, found) = (format!("chain position {}", self.pages), format!("{}", page.chain_position()));
            sink.damage(kind::CHAIN_POSITION, at(26), expected, found);
            return false;
        }
        if !page.reserved_is_zero() {
            sink.damage(kind::PAGE_RESERVED, at(28), "zeroes in flags and word 7", "other bits");
        }
        let growth = self.table.state.growth;
        let (level, split_base) = (page.level(), page.split_base());
        let expected = growth.level_of(self.owner);
        // Made ready to be the destination of the next split, which then ran short of something.
        let waiting = self.owner >= growth.pages() && level == growth.level();
        if level != expected && !waiting {
            sink.damage(kind::PAGE_LEVEL, at(24), format!("level {expected}"), format!("level {level}"));
        }
        if self.pages == 0 {
            self.split_base = split_base;
            if split_base > level || level - split_base > SPLIT_BITS {
                let expected = format!("split base {} to {level}", level.saturating_sub(SPLIT_BITS));
                sink.damage(kind::PAGE_SPLIT_BASE, at(25), expected, format!("{split_base}"));
                // A hash has no bits there: the slots are compared with some.
                self.split_base = split_base.min(Growth::LEVEL_MAX);
            }
        } else if split_base != self.split_base {
            let expected = format!("split base {} as in the chain's first page", self.split_base);
            sink.damage(kind::PAGE_SPLIT_BASE, at(25), expected, format!("{split_base}"));
        }
        true
    }

    fn check_slots(&mut self, number: u64, page: PageRef<'_>, sink: &mut Sink<'_>, each: &mut dyn FnMut(LiveSlot)) {
        let geometry = self.state.header.geometry;
        let buckets = geometry.homes + geometry.stash;
        if self.pages == 0 {
            for home in 0..geometry.homes {
                self.home_rest |= u64::from(page.bucket(home).has_empty_rest()) << home;
            }
        }
        let (mut live, mut marked, mut tombstones) = (0u64, 0u64, 0u64);
        for bucket in 0..buckets {
            let shared = self.pages > 0 || bucket >= geometry.homes;
            for (i, slot) in page.bucket(bucket).slots() {
                if slot.is_empty() {
                    tombstones += u64::from(slot.is_empty_one());
                    continue;
                }
                let spot = Spot::new(number, (bucket * BUCKET_SLOTS + i) as u32);
                self.check_path(spot, bucket, shared, slot, sink);
                if slot.is_marked() {
                    marked += 1;
                    if self.marked_addresses.len() < ENTRIES_MAX {
                        self.marked_addresses.push(slot.address());
                    }
                    let found = format!("{slot:?}");
                    let expected = "a record that could be read when the page was split";
                    sink.damage(kind::UNREADABLE_AT_SPLIT, spot.location(self.path), expected, found);
                } else {
                    live += 1;
                    self.check_address(spot, slot, sink, each);
                }
            }
            if shared && self.shared_rest.is_none() && page.bucket(bucket).has_empty_rest() {
                self.shared_rest = Some((number, bucket));
            }
        }
        self.check_counts(number, page, (live, marked, tombstones), sink);
        self.live += live;
        self.marked += marked;
        self.tombstones += tombstones;
    }

    /// The slot lies on its entry's path, and a lookup gets there.
    fn check_path(&self, spot: Spot, bucket: usize, shared: bool, slot: Slot, sink: &mut Sink<'_>) {
        let geometry = self.state.header.geometry;
        let home = slot.tag().home(geometry.homes);
        let neighbour = geometry.neighbour(home);
        if !shared && bucket == home {
            return;
        }
        if !shared && bucket != neighbour {
            let expected = format!("an entry whose home is bucket {bucket} or {}", geometry.previous(bucket));
            sink.damage(kind::SLOT_PATH, spot.location(self.path), expected, format!("{slot:?}, home {home}"));
            return;
        }
        let has_rest = |home: usize| self.home_rest >> home & 1 == 1;
        let rest = if has_rest(home) {
            Some(format!("bucket {home}, its home"))
        } else if shared && has_rest(neighbour) {
            Some(format!("bucket {neighbour}, its home's neighbour"))
        } else {
            self.shared_rest.filter(|_| shared).map(|(page, bucket)| format!("page {page}, bucket {bucket}"))
        };
        if let Some(rest) = rest {
            let found = format!("{slot:?}, emptyRest in {rest}");
            sink.damage(kind::SLOT_UNREACHABLE, spot.location(self.path), "no emptyRest before the slot", found);
        }
    }

    /// The slot's address lies inside a segment that the checkpoint knows.
    fn check_address(&mut self, spot: Spot, slot: Slot, sink: &mut Sink<'_>, each: &mut dyn FnMut(LiveSlot)) {
        let address = slot.address();
        let end = self.ends.get(address.segment() as usize).copied().unwrap_or(0);
        if end == 0 {
            sink.damage(
                kind::SLOT_SEGMENT,
                spot.location(self.path),
                "a segment of the checkpoint",
                format!("{address:?}"),
            );
            return;
        }
        if !(SEGMENT_HEADER_BYTES..end).contains(&address.offset()) {
            let expected = format!("an address from {SEGMENT_HEADER_BYTES} to below {end}");
            sink.damage(kind::SLOT_ADDRESS, spot.location(self.path), expected, format!("{address:?}"));
            return;
        }
        each(LiveSlot::new(slot, spot, self.table.number, self.owner, self.split_base));
        if !sink.muted && self.entries.len() < ENTRIES_MAX {
            self.entries.push(Entry { slot, spot });
        }
    }

    fn check_counts(
        &self,
        number: u64,
        page: PageRef<'_>,
        (live, marked, tombstones): (u64, u64, u64),
        sink: &mut Sink<'_>,
    ) {
        let at = |offset: u64| Location { offset: Some(number * PAGE + offset), ..Location::page(self.path, number) };
        // Removals move marked entries, which count for nothing, like others.
        if u64::from(page.live()) != live && self.marked + marked == 0 {
            sink.damage(kind::PAGE_LIVE_COUNT, at(32), some(live, "live slot"), page.live());
        }
        if u64::from(page.tombstones()) != tombstones {
            sink.damage(kind::PAGE_TOMBSTONE_COUNT, at(34), some(tombstones, "tombstone"), page.tombstones());
        }
        if live > 0 && self.owner >= self.table.state.growth.pages() {
            let expected = format!("no entries: {:?}", self.table.state.growth);
            sink.damage(
                kind::PAGE_BEYOND_CURSOR,
                at(0),
                expected,
                format!("{} in page {}", some(live, "live slot"), self.owner),
            );
        }
    }
}
