//! Counting: every page in use once, chain by chain, nothing kept of a page but sums.

use std::collections::HashSet;

use super::diagnosis::{Diagnosis, HeatCell, HeatMap, PageNote, TableFigures};
use crate::check::extents::Extent;
use crate::check::sink::Sink;
use crate::check::state::State;
use crate::check::tables::CheckedTable;
use crate::check::walk::is_bucket_page;
use crate::error::Result;
use crate::sys::PAGE_BYTES;
use crate::table::chain::Layout;
use crate::table::page::{BUCKET_SLOTS, BUCKETS, PAGE_HEADER_BYTES, image};
use crate::table::slot::Slot;

/// Pages read at a time.
const RUN_PAGES: u64 = 64;
/// Cells of the heat map, at most.
const CELLS_MAX: u64 = 1024;
/// Steps of the load histogram.
pub(super) const LOAD_STEPS: usize = 20;
/// Chains of more overflow pages are counted as this many.
const CHAINS_MAX: usize = 16;
/// Ways of more buckets are counted as this many.
const ABSENT_MAX: usize = 16;
/// Pseudo-full pages that are named.
const NOTES_MAX: usize = 16;
/// Entries of a chain that are packed on trial. A chain that long was made on purpose.
const PACKED_MAX: usize = 1 << 16;

/// A page is pseudo-full if more than this part of its slots are tombstones, fewer are live, and at least as many
/// removals have passed since it was rewritten.
const PSEUDO_FULL: u64 = 4;

type Page = [u8; PAGE_BYTES];

// The home buckets of a page fit into the bits of a word.
const _: () = assert!(BUCKETS < 64);

/// The walk over the pages of a table, and its sums.
struct Census<'c> {
    state: &'c State,
    table: &'c CheckedTable<'c>,
    /// What is counted of the table alone.
    figures: &'c mut TableFigures,
    /// Pages of the tables before it.
    before: u64,
    linked: HashSet<u64>,
    ways: Ways,
}

/// What lookups of absent keys read.
#[derive(Clone, Copy, Default)]
struct Ways {
    /// Buckets, each page weighted by its share of the hashes.
    way: f64,
    /// The same as it would be in packed pages of the same load.
    expected: f64,
    weight: f64,
}

/// A chain whose pages are being counted.
#[derive(Default)]
struct ChainSums {
    cell: HeatCell,
    pages: u64,
    /// Bit n: home bucket n has an `emptyRest`.
    home_rest: u64,
    /// Buckets that all paths go through, up to the first with an `emptyRest`.
    shared: u64,
    shared_ends: bool,
    /// Entries, collected where there are overflow pages.
    entries: Vec<Slot>,
}

/// Counts all pages of all tables into the diagnosis. `figures` are those of the tables, in the same order.
pub(super) fn run(
    state: &State,
    tables: &[CheckedTable<'_>],
    figures: &mut [TableFigures],
    sink: &mut Sink<'_>,
    to: &mut Diagnosis,
) -> Result<()> {
    let pages: u64 = tables.iter().map(|table| table.state.growth.pages()).fold(0, u64::saturating_add);
    let pages_per_cell = pages.div_ceil(CELLS_MAX).max(1);
    let cells = vec![HeatCell::default(); pages.div_ceil(pages_per_cell) as usize];
    to.heat = HeatMap { pages_per_cell, cells };
    to.load = vec![0; LOAD_STEPS];
    to.chains = vec![0; CHAINS_MAX + 1];
    to.absent = vec![0; ABSENT_MAX];
    let (mut before, mut ways, mut holes) = (0, Ways::default(), 0.0);
    for (table, figures) in tables.iter().zip(figures) {
        sink.table = table.number;
        let mut census = Census { state, table, figures, before, linked: HashSet::new(), ways };
        for (first, extent) in table.primary.iter() {
            census.extent(first, extent, sink, to)?;
        }
        ways = census.ways;
        census.figures.overflow_pages = census.linked.len() as u64;
        to.overflow.used += census.figures.overflow_pages;
        to.overflow.pages += table.overflow.iter().map(|(_, extent)| extent.pages()).sum::<u64>();
        // Pages that were never written to: one look at a hole.
        holes += table.state.growth.pages().saturating_sub(census.figures.pages_in_use) as f64;
        before += table.state.growth.pages();
    }
    sink.table = 0;
    let all = (ways.weight + holes).max(1.0);
    to.absent_mean = (ways.way + holes) / all;
    to.absent_expected = (ways.expected + holes) / all;
    to.chains.truncate(to.chains.iter().rposition(|&pages| pages > 0).map_or(1, |last| last + 1));
    to.absent.truncate(to.absent.iter().rposition(|&ways| ways > 0).map_or(1, |last| last + 1));
    to.overflow.free = to.overflow.pages.saturating_sub(to.overflow.used);
    Ok(())
}

impl Census<'_> {
    fn extent(&mut self, before: u64, extent: &Extent, sink: &mut Sink<'_>, to: &mut Diagnosis) -> Result<()> {
        let pages = &self.state.pages;
        let mut images = Vec::with_capacity(RUN_PAGES as usize);
        let mut next = extent.next_used(0);
        while let Some(first) = next.filter(|&page| extent.number(page) < pages.end()) {
            let run = RUN_PAGES.min(extent.pages() - first).min(pages.end() - extent.number(first));
            images.resize(run as usize, [0; PAGE_BYTES]);
            pages.read_run(extent.number(first), &mut images, sink)?;
            for (page, image) in (first..).zip(&images) {
                if extent.is_used(page) && before + page < self.table.state.growth.pages() {
                    self.chain(before + page, extent.number(page), image, sink, to)?;
                }
            }
            next = extent.next_used(first + run);
        }
        Ok(())
    }

    fn chain(&mut self, owner: u64, number: u64, image: &Page, sink: &mut Sink<'_>, to: &mut Diagnosis) -> Result<()> {
        if !is_bucket_page(self.state, number, image, sink) {
            return Ok(());
        }
        self.figures.pages_in_use += 1;
        let mut sums = ChainSums::default();
        let keep = Header::of(image).next.is_some();
        self.page(owner, number, image, keep, &mut sums, to);
        let mut next = Header::of(image).next;
        // What is wrong with a chain is for verify to say; here it ends.
        while let Some(link) = next {
            let Some((extent, offset)) = self.table.overflow.locate(link) else { break };
            if !extent.is_used(offset) || !self.linked.insert(link) {
                break;
            }
            let number = extent.number(offset);
            let page = self.state.pages.read(number, sink)?;
            if !is_bucket_page(self.state, number, &page, sink) {
                break;
            }
            self.page(owner, number, &page, true, &mut sums, to);
            next = Header::of(&page).next;
        }
        self.sum_up(owner, &sums, to);
        Ok(())
    }

    fn page(&mut self, owner: u64, number: u64, image: &Page, keep: bool, sums: &mut ChainSums, to: &mut Diagnosis) {
        let geometry = self.state.header.geometry;
        let header = Header::of(image);
        let (mut live, mut tombstones, mut empty_rest) = (0u64, 0u64, 0u64);
        for bucket in 0..geometry.homes + geometry.stash {
            let mut ends = false;
            for slot in slots(image, bucket) {
                ends |= slot.is_empty_rest();
                if slot.is_empty_one() {
                    tombstones += 1;
                } else if slot.is_empty_rest() {
                    empty_rest += 1;
                } else {
                    live += u64::from(!slot.is_marked());
                    to.slots.marked += u64::from(slot.is_marked());
                    if keep && sums.entries.len() < PACKED_MAX {
                        sums.entries.push(slot);
                    }
                }
            }
            if sums.pages == 0 && bucket < geometry.homes {
                sums.home_rest |= u64::from(ends) << bucket;
            } else if !sums.shared_ends {
                sums.shared += 1;
                sums.shared_ends = ends;
            }
        }
        let slots = geometry.slots() as u64;
        to.slots.live += live;
        to.slots.empty_one += tombstones;
        to.slots.empty_rest += empty_rest;
        if sums.pages == 0 {
            count(&mut to.load, live * LOAD_STEPS as u64 / slots.max(1));
        } else {
            to.slots.stranded += tombstones + empty_rest;
        }
        let old = u64::from(header.removals) * PSEUDO_FULL >= slots;
        if tombstones * PSEUDO_FULL > slots && live * PSEUDO_FULL < slots && old {
            to.pseudo_full_pages += 1;
            self.figures.pseudo_full_pages += 1;
            let note = PageNote {
                table: self.figures.name.clone(),
                page: number,
                owner,
                chain_position: sums.pages,
                live,
                tombstones,
                removals: u64::from(header.removals),
            };
            to.pseudo_full.push(note);
            to.pseudo_full.sort_by_key(|note| std::cmp::Reverse((note.tombstones, note.removals)));
            to.pseudo_full.truncate(NOTES_MAX);
        }
        let cell = &mut sums.cell;
        cell.slots += slots;
        cell.live += live;
        cell.tombstones += tombstones;
        cell.removals += u64::from(header.removals);
        cell.overflow += u64::from(sums.pages > 0);
        sums.pages += 1;
    }

    fn sum_up(&mut self, owner: u64, sums: &ChainSums, to: &mut Diagnosis) {
        let geometry = self.state.header.geometry;
        let growth = self.table.state.growth;
        let overflow = sums.cell.overflow;
        count(&mut to.chains, overflow);
        to.chain_longest = to.chain_longest.max(overflow);
        self.figures.removals += sums.cell.removals;
        if let Some(cell) = to.heat.cells.get_mut(((self.before + owner) / to.heat.pages_per_cell) as usize) {
            cell.slots += sums.cell.slots;
            cell.live += sums.cell.live;
            cell.tombstones += sums.cell.tombstones;
            cell.removals += sums.cell.removals;
            cell.overflow += overflow;
        }
        if overflow > 0 && sums.entries.len() < PACKED_MAX {
            let mut layout = Layout::new(geometry);
            sums.entries.iter().for_each(|&slot| layout.add(slot));
            to.overflow.needless += overflow.saturating_sub(layout.overflow_pages() as u64);
        }
        // A page that growth has divided gets half as many of the hashes.
        let weight = if growth.level_of(owner) > growth.level() { 0.5 } else { 1.0 };
        let ends = |home: usize| sums.home_rest >> home & 1 == 1;
        let mut buckets = 0;
        for home in 0..geometry.homes {
            let way = match (ends(home), ends(geometry.neighbour(home))) {
                (true, _) => 1,
                (false, true) => 2,
                (false, false) => 2 + sums.shared,
            };
            buckets += way;
            count(&mut to.absent, way - 1);
        }
        let ways = &mut self.ways;
        ways.way += weight * buckets as f64 / geometry.homes as f64;
        ways.expected += weight * expected_way(sums.cell.live as f64 / geometry.slots() as f64);
        ways.weight += weight;
    }
}

/// Buckets that a lookup of an absent key reads on average in a page without tombstones, by its load: measured on
/// pages of 60 home and 3 stash buckets that had only been filled.
fn expected_way(load: f64) -> f64 {
    const FULL: f64 = 6.0;
    const WAYS: [(f64, f64); 9] = [
        (0.0, 1.0),
        (0.30, 1.0),
        (0.48, 1.05),
        (0.61, 1.2),
        (0.70, 1.4),
        (0.78, 1.8),
        (0.82, 2.2),
        (0.90, 3.5),
        (1.0, FULL),
    ];
    for (&(from, low), &(to, high)) in WAYS.iter().zip(WAYS.iter().skip(1)) {
        if load <= to {
            return low + (high - low) * (load - from) / (to - from);
        }
    }
    FULL
}

/// Counts one more in a row of figures, of which the last one is for everything larger.
fn count(figures: &mut [u64], at: u64) {
    let last = figures.len().saturating_sub(1) as u64;
    if let Some(figure) = figures.get_mut(at.min(last) as usize) {
        *figure += 1;
    }
}

/// The fields of a page's header that are counted.
struct Header {
    removals: u32,
    next: Option<u64>,
}

impl Header {
    fn of(image: &Page) -> Header {
        let words = image::words(image);
        let (counts, next) = (u64::from_le_bytes(words[4]), u64::from_le_bytes(words[5]));
        Header { removals: (counts >> 32) as u32, next: next.checked_sub(1) }
    }
}

/// The slots of a bucket.
fn slots(image: &Page, bucket: usize) -> impl Iterator<Item = Slot> + '_ {
    let start = PAGE_HEADER_BYTES / 8 + bucket * BUCKET_SLOTS;
    let words = image::words(image).iter().skip(start).take(BUCKET_SLOTS);
    words.map(|bytes| Slot::from_word(u64::from_le_bytes(*bytes)))
}
