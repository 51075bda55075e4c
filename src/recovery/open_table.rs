//! Opening a store: the tables (open.rs, step 3).
//!
//! What shows the file is one mapping, of which each extent is a part, and so is the memory that notes what the pages are
//! like: a mapping for each extent would take longer than all the rest of an open. Nothing but the bitmaps is read.

use std::sync::Arc;

use super::open::{Opening, PAGE};
use crate::checkpoint::header::IndexHeader;
use crate::checkpoint::meta::{Meta, check_page};
use crate::error::{Error, IoContext, Location, Result};
use crate::observe;
use crate::sys::IndexMap;
use crate::table::Table;
use crate::table::page::{PageImage, PageKind};
use crate::table::region::{BITMAP_START, Extent, ExtentShape, PageState, RegionKind};
use crate::table::state::TableState;
use crate::table::tables::Tables;
use crate::words::some;

/// An extent as the meta data list it.
#[derive(Clone, Copy)]
struct Listed<'t> {
    table: &'t Table,
    kind: RegionKind,
    /// Its number in the region.
    number: usize,
    /// Its first page in the file.
    first: u64,
    shape: ExtentShape,
    /// The file is long enough.
    in_file: bool,
}

impl Opening<'_> {
    /// True if an extent beyond the end of the file can be one that the journal's checkpoint has added: no more
    /// than a doubling of what there is.
    fn overlay_reaches(&self, shape: ExtentShape, len: u64) -> bool {
        !self.overlay.is_empty() && shape.total() <= 2 * (len / PAGE + self.overlay.len() as u64)
    }

    /// The bitmap pages of an extent, checked.
    fn bitmaps(&self, header: &IndexHeader, first: u64, shape: ExtentShape) -> Result<Vec<PageImage>> {
        let bitmap = |number| {
            let page = self.read_page(number)?;
            check_page(&self.index_path, header.uuid, header.generation, number, PageKind::Bitmap, &page)?;
            Ok(page)
        };
        (first..first + shape.bitmap_pages).map(bitmap).collect()
    }

    /// The extents of a table, each of which can be where the meta data say that it is.
    fn extents<'t>(&self, table: &'t Table, state: &TableState, len: u64) -> Result<Vec<Listed<'t>>> {
        let of = |kind, firsts: &[u64]| -> Result<Vec<Listed<'t>>> {
            let extent = |(number, &first): (usize, &u64)| {
                let shape = table.region(kind).shape(number);
                let bytes = shape.total().checked_mul(PAGE);
                let end = bytes.zip(first.checked_mul(PAGE)).and_then(|(bytes, start)| start.checked_add(bytes));
                let in_file = end.is_some_and(|end| end <= len);
                if !(in_file || self.options.read_only && self.overlay_reaches(shape, len)) {
                    let location = Location::file(&self.index_path);
                    let expected = format!("{} from page {first} on", some(shape.total(), "page"));
                    return Err(Error::corrupt("index file", location, expected, some(len, "byte")));
                }
                Ok(Listed { table, kind, number, first, shape, in_file })
            };
            firsts.iter().enumerate().map(extent).collect()
        };
        let mut extents = of(RegionKind::Primary, &state.primary_extents)?;
        extents.extend(of(RegionKind::Overflow, &state.overflow_extents)?);
        Ok(extents)
    }

    /// Step 3, the tables. What shows the file is one mapping, and so is the memory that notes what the pages are like: a
    /// mapping for each extent would take longer than all the rest.
    pub(super) fn map_tables(&self, tables: &Tables, header: &IndexHeader, meta: &Meta) -> Result<()> {
        let len = self.index.len().context("look at", &self.index_path)?;
        let all = tables.all();
        let mut extents = Vec::new();
        for (table, state) in all.iter().zip(&meta.tables) {
            extents.extend(self.extents(table, state, len)?);
        }
        let states = self.options.disk.map_anonymous(extents.iter().map(|listed| listed.shape.state_bytes()).sum());
        let states = Arc::new(states.context("reserve memory for the pages of", &self.index_path)?);
        let mut states_used = 0;
        let mut file = None;
        for listed in extents {
            let bytes = listed.shape.state_bytes();
            let states = IndexMap::part(&states, states_used, bytes);
            states_used += bytes;
            self.map_extent(header, &listed, states, &mut file, len)?;
        }
        Ok(())
    }

    /// `file` is the mapping of the whole file, once there is one.
    fn map_extent(
        &self,
        header: &IndexHeader,
        listed: &Listed<'_>,
        states: IndexMap,
        file: &mut Option<Arc<IndexMap>>,
        len: u64,
    ) -> Result<()> {
        let Listed { table, kind, number, first, shape, in_file } = *listed;
        let region = table.region(kind);
        let bytes = (shape.total() * PAGE) as usize;
        let bitmaps = self.bitmaps(header, first, shape)?;
        // No page of it was ever written, as in a table that was made large from the start.
        let is_unused = bitmaps.iter().all(|page| page.iter().skip(BITMAP_START).all(|&byte| byte == 0));
        let shows_file = in_file && (self.options.read_only || !is_unused);
        let map = if shows_file {
            let whole = match file {
                Some(whole) => whole,
                None => {
                    file.insert(Arc::new(self.index.map_private(0, len as usize).context("map", &self.index_path)?))
                }
            };
            IndexMap::part(whole, (first * PAGE) as usize, bytes)
        } else if in_file {
            table.index().map_unused(&*self.index, first, shape.total())?
        } else {
            let reserved = self.options.disk.map_anonymous(bytes);
            reserved.context("reserve memory for pages of", &self.index_path)?
        };
        observe::mapped(&self.index_path, first * PAGE, bytes as u64);
        let extent = region.install(number, Extent::new(shape, first, map, states, self.options.read_only));
        for (index, bitmap) in bitmaps.iter().enumerate() {
            let Some((page, state)) = extent.at(index as u64) else { continue };
            if !shows_file || self.overlay.contains_key(&(first + index as u64)) {
                page.load(bitmap);
            }
            state.set(PageState::VERIFIED);
        }
        let others = if self.overlay.is_empty() && in_file { 0 } else { shape.total() };
        for index in shape.bitmap_pages..others {
            let Some((page, _)) = extent.at(index) else { continue };
            let number = first + index;
            if let Some(image) = self.overlay.get(&number) {
                page.load(image);
            } else if !in_file && number * PAGE < len {
                page.load(&*self.read_page(number)?);
            }
        }
        if kind == RegionKind::Overflow {
            let before = region.pages() - shape.pages;
            let free = (0..shape.pages).rev().filter(|&page| !extent.is_used(page));
            table.add_free(free.map(|page| before + page));
        }
        Ok(())
    }
}
