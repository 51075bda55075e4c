//! Extents and bitmaps: which pages the index has, and which of them are in use.

use std::collections::BTreeMap;

use super::kind;
use super::sink::Sink;
use super::state::{PAGE, State};
use crate::checkpoint::meta::check_page;
use crate::error::{Location, Result};
use crate::sys::PAGE_BYTES;
use crate::table::page::{PageImage, PageKind};
use crate::table::region::{BITMAP_BITS, BITMAP_WORDS, ExtentShape, locate};
use crate::table::state::TableState;
use crate::words::some;

/// Where the words of a bitmap page begin that hold bits.
const BITS_START: usize = PAGE_BYTES - 8 * BITMAP_WORDS;

/// One extent.
#[derive(Debug)]
pub(super) struct Extent {
    /// Page number in the file of its first page.
    first: u64,
    shape: ExtentShape,
    /// Bitmap pages by their number in the extent. Damaged ones are not there: none of their pages is looked at.
    bitmaps: BTreeMap<u64, PageImage>,
}

impl Extent {
    /// Pages, bitmap pages not counted.
    pub(super) fn pages(&self) -> u64 {
        self.shape.pages
    }

    /// The number in the file of a page of the extent.
    pub(super) fn number(&self, page: u64) -> u64 {
        self.first + self.shape.bitmap_pages + page
    }

    /// True if the bitmap that speaks of the page is whole.
    pub(super) fn is_known(&self, page: u64) -> bool {
        self.bitmaps.contains_key(&(page / BITMAP_BITS))
    }

    /// True if the page is in use.
    pub(super) fn is_used(&self, page: u64) -> bool {
        let Some(bitmap) = self.bitmaps.get(&(page / BITMAP_BITS)) else { return false };
        is_set(bitmap, (page % BITMAP_BITS) as usize)
    }

    /// The first page at or after `page` that is in use.
    pub(super) fn next_used(&self, page: u64) -> Option<u64> {
        let first_bitmap = page / BITMAP_BITS;
        for (&number, bitmap) in self.bitmaps.range(first_bitmap..) {
            let from = if number == first_bitmap { page % BITMAP_BITS } else { 0 };
            let mut mask = 0xffu8 << (from % 8);
            for (byte, bits) in bits(bitmap).iter().enumerate().skip((from / 8) as usize) {
                let bits = bits & mask;
                if bits != 0 {
                    let found = number * BITMAP_BITS + byte as u64 * 8 + u64::from(bits.trailing_zeros());
                    return Some(found).filter(|&found| found < self.shape.pages);
                }
                mask = 0xff;
            }
        }
        None
    }
}

/// The bytes of a bitmap page that hold bits.
fn bits(page: &PageImage) -> &[u8] {
    let (_, bits) = page.split_at(BITS_START);
    bits
}

/// True if a bit of a bitmap page is set.
fn is_set(page: &PageImage, bit: usize) -> bool {
    bits(page).get(bit / 8).is_some_and(|byte| byte & 1 << (bit % 8) != 0)
}

/// The extents of a region.
#[derive(Debug)]
pub(super) struct Extents {
    /// log2 of the pages in the first extent.
    base_log2: u8,
    /// By number. `None` if the extent cannot be where the meta data says.
    by_number: Vec<Option<Extent>>,
    /// Everything that describes the region was whole.
    pub(super) whole: bool,
}

impl Extents {
    /// The extents that exist, with the region's number of their first page.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Extent)> {
        self.by_number.iter().enumerate().filter_map(|(number, extent)| {
            let extent = extent.as_ref()?;
            Some((if number == 0 { 0 } else { extent.shape.pages }, extent))
        })
    }

    /// The extent of a page of the region, and the page's number there.
    pub(super) fn locate(&self, page: u64) -> Option<(&Extent, u64)> {
        let (number, offset) = locate(self.base_log2, page);
        Some((self.by_number.get(number)?.as_ref()?, offset))
    }

    /// The pages of each extent that exists, bitmap pages included: the first, and the one behind the last.
    pub(super) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> {
        self.by_number.iter().flatten().map(|extent| (extent.first, extent.first + extent.shape.total()))
    }

    /// Pages of the region, up to the first extent that cannot be.
    fn pages(&self) -> u64 {
        self.by_number.iter().map_while(|extent| extent.as_ref()).map(Extent::pages).sum()
    }
}

/// Finds the extents of both regions of a table: primary, overflow.
pub(super) fn find(state: &State, table: &TableState, sink: &mut Sink<'_>) -> Result<(Extents, Extents)> {
    let [of_primary, of_overflow] = table.extents();
    let primary = extents(state, table.primary_log2, of_primary, sink)?;
    let overflow = extents(state, table.overflow_log2, of_overflow, sink)?;
    let growth = table.growth;
    let wanted = if growth.is_resizing() { 2 << growth.level() } else { 1 << growth.level() };
    if primary.pages() < wanted {
        let location = Location::page(&state.pages.index.path, crate::checkpoint::header::FIRST_META_PAGE);
        sink.damage(
            kind::GROWTH,
            location,
            format!("extents for {}", some(wanted, "page")),
            format!("for {}", primary.pages()),
        );
    }
    Ok((primary, overflow))
}

fn extents(
    state: &State,
    base_log2: u8,
    listed: impl Iterator<Item = (u64, ExtentShape)>,
    sink: &mut Sink<'_>,
) -> Result<Extents> {
    let path = &state.pages.index.path;
    let mut extents = Extents { base_log2, by_number: Vec::new(), whole: true };
    for (first, shape) in listed {
        let end = first.checked_add(shape.total()).filter(|&end| end <= state.meta.end_page);
        let Some(end) = end else {
            let expected = format!("an end at or below page {}", state.meta.end_page);
            let found = format!("{} from page {first} on", some(shape.total(), "page"));
            sink.damage(kind::EXTENT, Location::page(path, first), expected, found);
            extents.whole = false;
            extents.by_number.push(None);
            continue;
        };
        // While a checkpoint waits in the journal, the file may be as long as it was before.
        if end * PAGE > state.pages.index.len && !state.pages.is_pending() {
            let found = some(state.pages.index.len, "byte");
            sink.damage(kind::INDEX_LENGTH, Location::file(path), format!("at least {} bytes", end * PAGE), found);
            extents.whole = false;
        }
        let mut extent = Extent { first, shape, bitmaps: BTreeMap::new() };
        extents.whole &= read_bitmaps(state, &mut extent, sink)?;
        extents.by_number.push(Some(extent));
    }
    Ok(extents)
}

/// Reads an extent's bitmap pages. False if one of them is damaged.
fn read_bitmaps(state: &State, extent: &mut Extent, sink: &mut Sink<'_>) -> Result<bool> {
    let path = &state.pages.index.path;
    let mut whole = true;
    for i in 0..extent.shape.bitmap_pages {
        let number = extent.first + i;
        if number >= state.pages.end() {
            let found = format!("the file ends at page {}", state.pages.end());
            sink.damage(kind::BITMAP, Location::page(path, number), "a bitmap page", found);
            return Ok(false);
        }
        let page = state.pages.read(number, sink)?;
        let (uuid, generation) = (state.header.uuid, state.header.generation);
        if let Err(error) = check_page(path, uuid, generation, number, PageKind::Bitmap, &page) {
            sink.error(kind::BITMAP, error);
            whole = false;
            continue;
        }
        let covered = (extent.shape.pages - i * BITMAP_BITS).min(BITMAP_BITS) as usize;
        let last = bits(&page).iter().rposition(|&byte| byte != 0).unwrap_or(0);
        let surplus = (covered..(last + 1) * 8).find(|&bit| is_set(&page, bit));
        if let Some(bit) = surplus {
            let location = Location { slot: None, ..Location::page(path, number) };
            sink.damage(
                kind::BITMAP_BITS,
                location,
                format!("bits for {}", some(covered as u64, "page")),
                format!("bit {bit} is set"),
            );
        }
        extent.bitmaps.insert(i, page);
    }
    Ok(whole)
}
