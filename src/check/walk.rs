//! The walk over all pages of some tables: primary pages in the order of the file, each with its chain.
//!
//! Nothing is kept of a page once its slots were handed on, so memory does not grow with the index: only the
//! numbers of the overflow pages that chains have are remembered, and those of chains that are damaged, so that
//! what follows from the damage is not reported a second time.

use std::collections::HashSet;
use std::path::Path;
use std::rc::Rc;

use super::chain::{ChainCheck, Next, PageMemory};
use super::extents::Extent;
use super::keys::KeyReader;
use super::kind;
use super::sink::Sink;
use super::slots::LiveSlot;
use super::state::{PAGE, State};
use super::tables::CheckedTable;
use crate::address::Address;
use crate::error::{Location, Result};
use crate::sys::PAGE_BYTES;
use crate::table::page::{PAGE_HEADER_BYTES, PageKind, image};

/// Pages read at a time.
const RUN_PAGES: u64 = 64;

/// Marked slots whose addresses are remembered.
const MARKED_MAX: usize = 1 << 20;

/// What the walk needs to know.
pub(super) struct Walk<'w> {
    pub(super) state: &'w State,
    pub(super) tables: &'w [CheckedTable<'w>],
    /// Where the records of each segment slot end; 0 if there is no such segment.
    pub(super) ends: &'w [u64],
    pub(super) keys: KeyReader<'w>,
    pub(super) memory: PageMemory,
}

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Walked {
    /// Live slots of each table, in the order of the tables.
    pub(super) live: Vec<u64>,
    pub(super) marked: u64,
    pub(super) tombstones: u64,
    /// Where marked slots point, up to a bound.
    pub(super) marked_addresses: Vec<Address>,
    pub(super) primary_pages: u64,
    /// Overflow pages that a chain has: number of the table, page.
    pub(super) overflow_pages: HashSet<(u16, u64)>,
    /// Primary pages whose chain could not be followed to its end: number of the table, page.
    pub(super) broken: HashSet<(u16, u64)>,
    /// The file ends before its last page.
    pub(super) cut_short: bool,
}

impl<'w> Walk<'w> {
    pub(super) fn index_path(&self) -> &Path {
        &self.state.pages.index.path
    }

    /// Walks over all pages. Live slots whose address can be one are handed to `each`.
    pub(super) fn run(&mut self, sink: &mut Sink<'_>, each: &mut dyn FnMut(LiveSlot)) -> Result<Walked> {
        let mut walked = Walked::default();
        for table in self.tables {
            sink.table = table.number;
            walked.live.push(0);
            for (before, extent) in table.primary.iter() {
                self.extent(table, before, extent, &mut walked, sink, each)?;
            }
            self.check_orphans(table, &walked, sink)?;
        }
        sink.table = 0;
        Ok(walked)
    }

    fn extent(
        &mut self,
        table: &'w CheckedTable<'w>,
        before: u64,
        extent: &Extent,
        walked: &mut Walked,
        sink: &mut Sink<'_>,
        each: &mut dyn FnMut(LiveSlot),
    ) -> Result<()> {
        let pages = &self.state.pages;
        let mut images = Vec::with_capacity(RUN_PAGES as usize);
        let mut at = 0;
        while at < extent.pages() {
            // What is neither in use nor anything but a hole need not be read.
            let used = extent.next_used(at);
            let data = pages.next_data(extent.number(at)).map(|number| number - extent.number(0));
            let Some(next) = used.into_iter().chain(data).min().filter(|&next| next < extent.pages()) else { break };
            if extent.number(next) >= pages.end() {
                let found = format!("the file ends at page {}", pages.end());
                let expected = format!("page {} is in use", extent.number(next));
                sink.damage(kind::INDEX_LENGTH, Location::file(self.index_path()), expected, found);
                walked.broken.insert((table.number, before + next));
                walked.cut_short = true;
                break;
            }
            let run = RUN_PAGES.min(extent.pages() - next).min(pages.end() - extent.number(next));
            images.resize(run as usize, [0; PAGE_BYTES]);
            pages.read_run(extent.number(next), &mut images, sink)?;
            for (page, image) in (next..).zip(&images) {
                if extent.is_used(page) {
                    self.chain(table, before + page, extent.number(page), image, walked, sink, each)?;
                } else if extent.is_known(page) && !self.is_unused(extent.number(page), image) {
                    let location = Location::page(self.index_path(), extent.number(page));
                    sink.damage(kind::PAGE_NOT_ZERO, location, "zeroes, or a page without entries", "other bytes");
                }
            }
            at = next + run;
        }
        Ok(())
    }

    /// True for what stands where a page is not in use: nothing, or the empty page that a merge has left.
    fn is_unused(&self, number: u64, page: &[u8; PAGE_BYTES]) -> bool {
        let is_zero = |bytes: &[u8]| bytes.iter().all(|&byte| byte == 0);
        let (found, expected) = image::checksums(page, self.state.header.uuid, number);
        let (_, content) = page.split_at(PAGE_HEADER_BYTES);
        is_zero(page) || (is_zero(content) && !image::has_next(page) && found == expected)
    }

    /// Checks a primary page and its overflow pages.
    #[allow(clippy::too_many_arguments, reason = "a page, of which table, and where things go")]
    fn chain(
        &mut self,
        table: &'w CheckedTable<'w>,
        owner: u64,
        number: u64,
        page: &[u8; PAGE_BYTES],
        walked: &mut Walked,
        sink: &mut Sink<'_>,
        each: &mut dyn FnMut(LiveSlot),
    ) -> Result<()> {
        walked.primary_pages += 1;
        if !self.is_valid(number, page, sink) {
            walked.broken.insert((table.number, owner));
            return Ok(());
        }
        let mut chain = ChainCheck::new(self.state, table, self.ends, Rc::clone(&self.memory), owner);
        let mut next = chain.page(number, page, sink, each);
        while let Next::Overflow { from, link } = next {
            let Some(image) = self.overflow_page(table, from, link, walked, sink)? else {
                walked.broken.insert((table.number, owner));
                break;
            };
            let Some((extent, offset)) = table.overflow.locate(link) else { break };
            next = chain.page(extent.number(offset), &image, sink, each);
        }
        if matches!(next, Next::Broken) {
            walked.broken.insert((table.number, owner));
        }
        if let Some(live) = walked.live.last_mut() {
            *live += chain.live;
        }
        walked.marked += chain.marked;
        walked.tombstones += chain.tombstones;
        if walked.marked_addresses.len() < MARKED_MAX {
            walked.marked_addresses.append(&mut chain.marked_addresses);
        }
        if !sink.muted {
            self.keys.check_duplicates(&self.state.pages.index.path, chain.into_entries(), sink)?;
        }
        Ok(())
    }

    /// Follows a link; `None` if it leads to no page that the chain can have.
    fn overflow_page(
        &self,
        table: &CheckedTable<'_>,
        from: u64,
        link: u64,
        walked: &mut Walked,
        sink: &mut Sink<'_>,
    ) -> Result<Option<crate::table::page::PageImage>> {
        let location = Location { offset: Some(from * PAGE + 40), ..Location::page(self.index_path(), from) };
        let Some((extent, offset)) = table.overflow.locate(link) else {
            sink.damage(kind::CHAIN_LINK, location, "an overflow page that exists", format!("overflow page {link}"));
            return Ok(None);
        };
        if extent.is_known(offset) && !extent.is_used(offset) {
            let found = format!("overflow page {link}, which is not in use");
            sink.damage(kind::CHAIN_LINK, location, "an overflow page in use", found);
            return Ok(None);
        }
        if !walked.overflow_pages.insert((table.number, link)) {
            let found = format!("overflow page {link}, which a chain has already");
            sink.damage(kind::CHAIN_CROSS_LINK, location, "an overflow page of its own", found);
            return Ok(None);
        }
        let number = extent.number(offset);
        let page = self.state.pages.read(number, sink)?;
        Ok(self.is_valid(number, &page, sink).then_some(page))
    }

    /// Checks that an image is the bucket page that it should be.
    fn is_valid(&self, number: u64, page: &[u8; PAGE_BYTES], sink: &mut Sink<'_>) -> bool {
        is_bucket_page(self.state, number, page, sink)
    }

    /// Every overflow page in use belongs to a chain.
    fn check_orphans(&self, table: &CheckedTable<'_>, walked: &Walked, sink: &mut Sink<'_>) -> Result<()> {
        for (before, extent) in table.overflow.iter() {
            let mut next = extent.next_used(0);
            while let Some(page) = next {
                next = extent.next_used(page + 1);
                if walked.overflow_pages.contains(&(table.number, before + page)) {
                    continue;
                }
                let number = extent.number(page);
                if number >= self.state.pages.end() {
                    let found = format!("the file ends at page {}", self.state.pages.end());
                    let expected = format!("page {number} is in use");
                    sink.damage(kind::INDEX_LENGTH, Location::file(self.index_path()), expected, found);
                    break;
                }
                let image = self.state.pages.read(number, sink)?;
                let owner = image::owner(&image);
                let lost = walked.broken.contains(&(table.number, owner)) || !table.primary.whole;
                if self.is_valid(number, &image, sink) && !lost {
                    let location = Location::page(self.index_path(), number);
                    let found = format!("overflow page {} of page {owner}, which does not have it", before + page);
                    sink.damage(kind::OVERFLOW_ORPHAN, location, "a page of a chain", found);
                }
            }
        }
        Ok(())
    }
}

/// Checks that an image is the bucket page that it should be.
pub(super) fn is_bucket_page(state: &State, number: u64, page: &[u8; PAGE_BYTES], sink: &mut Sink<'_>) -> bool {
    let header = &state.header;
    let (found, expected) = image::checksums(page, header.uuid, number);
    let location = Location::page(&state.pages.index.path, number);
    if found != expected {
        let text = |crc: u32| format!("crc {crc:#010x}");
        sink.damage(kind::PAGE_CHECKSUM, location, text(expected), text(found));
    } else if image::kind(page) != PageKind::Bucket as u32 {
        let expected = format!("a bucket page ({:#010x})", PageKind::Bucket as u32);
        sink.damage(kind::PAGE_KIND, location, expected, format!("kind {:#010x}", image::kind(page)));
    } else if image::number(page) != number {
        sink.damage(kind::PAGE_NUMBER, location, format!("page {number}"), format!("page {}", image::number(page)));
    } else if image::generation(page) > header.generation {
        let expected = format!("generation {} or older", header.generation);
        sink.damage(kind::PAGE_GENERATION, location, expected, format!("generation {}", image::generation(page)));
    } else {
        return true;
    }
    false
}
