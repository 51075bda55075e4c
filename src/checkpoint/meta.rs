//! What the store knows besides its pages, as a stream of bytes in the meta pages.
//!
//! The meta pages follow the header slots. They are written like bucket pages: as images, through the
//! journal. A page holds 4032 bytes of the stream after its 64-byte header; pages beyond the stream's end
//! mean nothing.
//!
//! ```text
//! length of the stream 64 | end page | next sequence | next table id | blob: next id, count, bytes
//! moment up to which expired records were removed from the index (64)
//! counts 64 each: tables, segments, blobs in flight, blobs dying, segments with records that expire
//! tables, the main one first, then by ascending id:
//!     id 32, log2 of the pages in the first extents 8 8, zero 16, growth word, records, floor 64, counts of extents 32 32
//!     first page of each primary extent, of each overflow extent (64 each)
//! segments: sequence 32, slot 32, salt, capacity, end, dead bytes, removals (64 each)
//! ids of blobs in flight, of blobs dying (64 each)
//! segments with records that expire: sequence, first and last moment, bytes (64 each)
//! ```
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::path::Path;

use bytemuck::{Pod, Zeroable};

use super::header::{FIRST_META_PAGE, IndexHeader};
use crate::address::Address;
use crate::address::Lsn;
use crate::checksum::Uuid;
use crate::error::{Error, Location, Result};
use crate::layout::BLOB_IDS;
use crate::log::blob::{BlobSnapshot, FREED_MAX};
use crate::log::deadlines::Expiring;
use crate::log::segment::SEGMENT_HEADER_BYTES;
use crate::sys::PAGE_BYTES;
use crate::table::growth::Growth;
use crate::table::index::Listed;
use crate::table::page::{BUCKET_SLOTS, PageImage, PageKind, image};
use crate::table::region::{BASE_LOG2_MAX, EXTENTS_MAX, Gap, INDEX_EXTENTS_MAX};
use crate::table::state::TableState;
use crate::table_id::{TABLES_MAX, TableId};
use crate::words::some;

/// Pages kept for meta data: enough for all segments, as many blob ids as can wait, and all tables.
pub(crate) const META_PAGES: u64 = 512;
/// Bytes of a page's header.
const PAGE_HEADER: usize = 64;
/// Bytes of the stream in a page.
const PAYLOAD: usize = PAGE_BYTES - PAGE_HEADER;

/// A segment as the checkpoint knows it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct SegmentEntry {
    pub(crate) sequence: u32,
    pub(crate) slot: u32,
    pub(crate) salt: u64,
    pub(crate) capacity: u64,
    /// Where its records end; for the active segment the cut.
    pub(crate) end: u64,
    pub(crate) dead: u64,
    pub(crate) removals: u64,
}

/// When the records of a segment expire, as the checkpoint knows it. Only segments with such records have one.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Pod, Zeroable)]
pub(crate) struct ExpiringEntry {
    pub(crate) sequence: u64,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) bytes: u64,
}

impl ExpiringEntry {
    /// Without the segment.
    pub(crate) fn deadlines(self) -> Expiring {
        Expiring { first: self.first, last: self.last, bytes: self.bytes }
    }
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RawMeta {
    len: u64,
    end_page: u64,
    next_sequence: u64,
    next_table: u64,
    blob_next_id: u64,
    blob_count: u64,
    blob_bytes: u64,
    swept: u64,
    tables: u64,
    segments: u64,
    in_flight: u64,
    dying: u64,
    expiring: u64,
}

#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct RawTable {
    id: u32,
    primary_log2: u8,
    overflow_log2: u8,
    zero: u16,
    growth: u64,
    records: u64,
    floor: u64,
    primary_extents: u32,
    overflow_extents: u32,
}

/// The meta data of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    /// The main one first, then by ascending id.
    pub(crate) tables: Vec<TableState>,
    pub(crate) end_page: u64,
    pub(crate) next_sequence: u32,
    /// Above the id of every table that there ever was.
    pub(crate) next_table: u32,
    pub(crate) segments: Vec<SegmentEntry>,
    /// By ascending sequence.
    pub(crate) expiring: Vec<ExpiringEntry>,
    /// Expired records were removed from the index up to this moment.
    pub(crate) swept: u64,
    pub(crate) blobs: BlobSnapshot,
}

/// Bytes of the stream for a segment with records that expire.
const SEGMENT_BYTES: usize = size_of::<SegmentEntry>() + size_of::<ExpiringEntry>();

/// Bytes of the stream for so many tables with so many extents.
const fn table_bytes(tables: usize, extents: usize) -> usize {
    size_of::<RawTable>() * tables + 8 * extents
}

// The longest stream fits into the meta pages. In-flight blobs are as many as writing threads; the rest of the
// room is theirs.
const _: () = assert!(
    size_of::<RawMeta>()
        + table_bytes(TABLES_MAX + 1, INDEX_EXTENTS_MAX)
        + SEGMENT_BYTES * Address::SEGMENTS
        + 8 * 2 * FREED_MAX
        < META_PAGES as usize * PAYLOAD
);

impl Meta {
    /// When the records of a segment expire, if some do.
    pub(crate) fn expiring_of(&self, segment: &SegmentEntry) -> Option<Expiring> {
        let found = self.expiring.binary_search_by_key(&u64::from(segment.sequence), |entry| entry.sequence).ok()?;
        self.expiring.get(found).map(|entry| entry.deadlines())
    }

    /// The main table as the checkpoint knows it.
    pub(crate) fn main(&self) -> &TableState {
        static NONE: TableState = TableState::none();
        self.tables.first().unwrap_or(&NONE)
    }

    /// The pages of each extent, from the first one on up to the one behind the last, in their order in the file.
    fn ranges(&self) -> Vec<(u64, u64)> {
        let extents = self.tables.iter().flat_map(TableState::extents).flatten();
        let mut ranges: Vec<_> = extents.map(|(first, shape)| (first, first.saturating_add(shape.total()))).collect();
        ranges.sort_unstable();
        ranges
    }

    /// Pages that no extent has, between extents.
    pub(crate) fn gaps(&self) -> Vec<Gap> {
        let mut first = FIRST_META_PAGE + META_PAGES;
        let mut gaps = Vec::new();
        for (start, end) in self.ranges() {
            if start > first {
                gaps.push(Gap { first, pages: start - first });
            }
            first = first.max(end);
        }
        gaps
    }

    /// What is listed of the index.
    pub(crate) fn listed(&self) -> Listed {
        let extents = |table: &TableState| (table.primary_extents.len() + table.overflow_extents.len()) as u64;
        Listed { tables: self.tables.len() as u64, extents: self.tables.iter().map(extents).sum() }
    }

    /// Meta pages that so many segments can need, with what the index lists and so many blobs that wait to be unlinked.
    pub(crate) fn pages_for(segments: usize, listed: Listed, freed: usize) -> u64 {
        let lists = Self::bytes_without_freed(segments, listed) + 8 * freed.min(FREED_MAX);
        (lists.div_ceil(PAYLOAD) as u64).min(META_PAGES)
    }

    /// Blobs waiting to be unlinked that so many pages have room for, beside all else.
    pub(crate) fn freed_for(pages: u64, segments: usize, listed: Listed) -> usize {
        let bytes = (pages as usize * PAYLOAD).saturating_sub(Self::bytes_without_freed(segments, listed));
        (bytes / 8).min(FREED_MAX)
    }

    /// Bytes of all but the blobs that wait to be unlinked.
    fn bytes_without_freed(segments: usize, listed: Listed) -> usize {
        /// Blobs that many threads write at one moment.
        const IN_FLIGHT: usize = 256;
        // Some segments more than there are, because several threads can each prepare one after this was asked.
        let segments = (segments + segments.clamp(16, 64)).min(Address::SEGMENTS);
        size_of::<RawMeta>()
            + table_bytes(listed.tables as usize, listed.extents as usize)
            + SEGMENT_BYTES * segments
            + 8 * IN_FLIGHT
    }

    fn encode(&self) -> Vec<u8> {
        let blobs = &self.blobs;
        let raw = RawMeta {
            len: 0,
            end_page: self.end_page,
            next_sequence: u64::from(self.next_sequence),
            next_table: u64::from(self.next_table),
            blob_next_id: blobs.next_id,
            blob_count: blobs.count,
            blob_bytes: blobs.bytes,
            swept: self.swept,
            tables: self.tables.len() as u64,
            segments: self.segments.len() as u64,
            in_flight: blobs.in_flight.len() as u64,
            dying: blobs.dying.len() as u64,
            expiring: self.expiring.len() as u64,
        };
        let mut bytes = bytemuck::bytes_of(&raw).to_vec();
        for table in &self.tables {
            let raw = RawTable {
                id: table.id.raw(),
                primary_log2: table.primary_log2,
                overflow_log2: table.overflow_log2,
                zero: 0,
                growth: table.growth.word(),
                records: table.records,
                floor: table.floor,
                primary_extents: table.primary_extents.len() as u32,
                overflow_extents: table.overflow_extents.len() as u32,
            };
            bytes.extend_from_slice(bytemuck::bytes_of(&raw));
            bytes.extend_from_slice(bytemuck::cast_slice(&table.primary_extents));
            bytes.extend_from_slice(bytemuck::cast_slice(&table.overflow_extents));
        }
        let lists = [
            bytemuck::cast_slice::<SegmentEntry, u8>(&self.segments),
            bytemuck::cast_slice(&blobs.in_flight),
            bytemuck::cast_slice(&blobs.dying),
            bytemuck::cast_slice(&self.expiring),
        ];
        lists.iter().for_each(|list| bytes.extend_from_slice(list));
        let len = (bytes.len() as u64).to_le_bytes();
        bytes.iter_mut().zip(len).for_each(|(to, from)| *to = from);
        bytes
    }

    /// The pages that hold the stream, without generation and checksum.
    pub(crate) fn pages(&self) -> Vec<PageImage> {
        let stream = self.encode();
        let pages = stream.chunks(PAYLOAD).zip(FIRST_META_PAGE..).map(|(chunk, number)| {
            let mut page = image::empty(PageKind::Meta, number);
            page.split_at_mut(PAGE_HEADER).1.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            page
        });
        pages.collect()
    }

    /// Decodes the stream; `read_page` yields meta pages by number.
    ///
    /// # Errors
    /// `Corrupt` if a page or a field cannot be right; whatever `read_page` fails with.
    pub(crate) fn decode(
        path: &Path,
        uuid: Uuid,
        generation: u64,
        mut read_page: impl FnMut(u64) -> Result<PageImage>,
    ) -> Result<Meta> {
        let mut stream = Vec::new();
        let mut len = PAYLOAD as u64;
        for number in FIRST_META_PAGE..FIRST_META_PAGE + META_PAGES {
            if stream.len() as u64 >= len {
                break;
            }
            let page = read_page(number)?;
            check_page(path, uuid, generation, number, PageKind::Meta, &page)?;
            stream.extend_from_slice(page.split_at(PAGE_HEADER).1);
            if number == FIRST_META_PAGE {
                // The length stands at the front.
                len = stream.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
            }
        }
        Self::parse(stream.get(..len as usize).unwrap_or(&[])).ok_or_else(|| {
            Error::corrupt("meta data", Location::page(path, FIRST_META_PAGE), "fields within their limits", "others")
        })
    }

    fn parse(stream: &[u8]) -> Option<Meta> {
        let mut rest = stream;
        let raw: RawMeta = read(&mut rest)?;
        let ids_max = META_PAGES as usize * PAYLOAD / 8;
        let tables = usize::try_from(raw.tables).ok().filter(|tables| (1..=TABLES_MAX + 1).contains(tables))?;
        let tables: Option<Vec<TableState>> = (0..tables).map(|_| Self::parse_table(&mut rest)).collect();
        let mut meta = Meta {
            tables: tables?,
            end_page: raw.end_page,
            next_sequence: u32::try_from(raw.next_sequence).ok()?,
            next_table: u32::try_from(raw.next_table).ok()?,
            segments: list(&mut rest, raw.segments, Address::SEGMENTS)?,
            expiring: Vec::new(),
            swept: raw.swept,
            blobs: BlobSnapshot {
                next_id: raw.blob_next_id,
                count: raw.blob_count,
                bytes: raw.blob_bytes,
                in_flight: list(&mut rest, raw.in_flight, ids_max)?,
                dying: list(&mut rest, raw.dying, ids_max)?,
            },
        };
        meta.expiring = list(&mut rest, raw.expiring, Address::SEGMENTS)?;
        (rest.is_empty() && meta.is_sane()).then_some(meta)
    }

    fn parse_table(rest: &mut &[u8]) -> Option<TableState> {
        let raw: RawTable = read(rest)?;
        let state = TableState {
            id: TableId::from_raw(raw.id),
            primary_log2: raw.primary_log2,
            overflow_log2: raw.overflow_log2,
            growth: Growth::from_word(raw.growth),
            records: raw.records,
            floor: raw.floor,
            primary_extents: list(rest, raw.primary_extents.into(), EXTENTS_MAX)?,
            overflow_extents: list(rest, raw.overflow_extents.into(), EXTENTS_MAX)?,
        };
        (raw.zero == 0).then_some(state)
    }

    /// Checks what later code relies on: slots and sequences are unique, sizes are possible.
    fn is_sane(&self) -> bool {
        let mut slots = vec![false; Address::SEGMENTS];
        let segments_fit = self.segments.iter().all(|segment| {
            let fresh = slots.get_mut(segment.slot as usize).is_some_and(|used| !std::mem::replace(used, true));
            fresh
                && segment.sequence < self.next_sequence
                && segment.capacity <= Address::SEGMENT_BYTES_MAX
                && (SEGMENT_HEADER_BYTES..=segment.capacity).contains(&segment.end)
        });
        let ascending = self.segments.is_sorted_by(|a, b| a.sequence < b.sequence);
        let ids = self.tables.is_sorted_by(|a, b| a.id < b.id) && self.main().id == TableId::MAIN;
        let tables_fit = ids && self.tables.iter().all(|table| self.is_sane_table(table));
        let expiring = self.expiring.is_sorted_by(|a, b| a.sequence < b.sequence);
        let blobs = &self.blobs;
        let blobs_fit = blobs.next_id <= BLOB_IDS && blobs.count < 1 << 48 && blobs.bytes <= 1 << 62;
        segments_fit && ascending && expiring && tables_fit && self.end_page < 1 << 48 && blobs_fit
    }

    fn is_sane_table(&self, table: &TableState) -> bool {
        let first = FIRST_META_PAGE + META_PAGES;
        let mut extents = table.primary_extents.iter().chain(&table.overflow_extents);
        extents.all(|&page| (first..self.end_page).contains(&page))
            && table.id.raw() < self.next_table
            && table.primary_log2.max(table.overflow_log2) <= BASE_LOG2_MAX
            && table.records < 1 << 48
            && table.growth.is_valid()
    }
}

/// A value at the front of some bytes, which it is taken from.
fn read<T: Pod>(rest: &mut &[u8]) -> Option<T> {
    let (bytes, after) = rest.split_at_checked(size_of::<T>())?;
    *rest = after;
    Some(bytemuck::pod_read_unaligned(bytes))
}

/// The same for a list of at most `most` values.
fn list<T: Pod>(rest: &mut &[u8], count: u64, most: usize) -> Option<Vec<T>> {
    let count = usize::try_from(count).ok().filter(|&count| count <= most)?;
    let (bytes, after) = rest.split_at_checked(count * size_of::<T>())?;
    *rest = after;
    Some(bytemuck::allocation::pod_collect_to_vec(bytes))
}

impl Meta {
    /// Checks what the header has its part in: the last segment ends at the cut; each extent has its own pages of
    /// the file, up to its end page; there are pages for all that the growth word leads to, and slots for all
    /// records. A number that was believed here would be paid for in memory and disk.
    ///
    /// # Errors
    /// `Corrupt`.
    pub(crate) fn check_against(&self, path: &Path, header: &IndexHeader) -> Result<()> {
        let corrupt = |expected: String, found: String| {
            Error::corrupt("meta data", Location::page(path, FIRST_META_PAGE), expected, found)
        };
        let last = self.segments.last().map_or(Lsn::default(), |last| Lsn::new(last.sequence, last.end));
        if last != header.cut {
            return Err(corrupt(
                format!("a last segment that ends at the cut, {:?}", header.cut),
                format!("at {last:?}"),
            ));
        }
        for table in &self.tables {
            let pages =
                table.extents().map(|extents| extents.map(|(_, shape)| shape.pages).fold(0, u64::saturating_add));
            Self::check_table(table, header, pages)
                .map_err(|(expected, found)| corrupt(format!("{expected} of {}", table.id), found))?;
        }
        let ranges = self.ranges();
        if let Some(two) = ranges.iter().zip(ranges.iter().skip(1)).find(|(one, next)| one.1 > next.0) {
            return Err(corrupt("extents with pages of their own".into(), format!("{two:?}")));
        }
        let end = ranges.last().map_or(FIRST_META_PAGE + META_PAGES, |range| range.1);
        if end != self.end_page {
            return Err(corrupt(format!("an end at page {}", self.end_page), format!("extents up to page {end}")));
        }
        Ok(())
    }

    /// The pages of a table, primary and overflow, against what its state says. Else what was expected, and what is there.
    fn check_table(
        table: &TableState,
        header: &IndexHeader,
        [primary, overflow]: [u64; 2],
    ) -> std::result::Result<(), (String, String)> {
        let in_use = table.growth.pages();
        if primary < in_use {
            return Err((format!("extents for {}", some(in_use, "page")), format!("for {primary}")));
        }
        let slots = (header.geometry.homes + header.geometry.stash) as u64 * BUCKET_SLOTS as u64;
        let most = in_use.saturating_add(overflow).saturating_mul(slots);
        if table.records > most {
            return Err((format!("at most {}", some(most, "record")), table.records.to_string()));
        }
        Ok(())
    }
}

/// Checks that an image from a file is the page that it should be.
pub(crate) fn check_page(
    path: &Path,
    uuid: Uuid,
    generation: u64,
    number: u64,
    kind: PageKind,
    page: &[u8; PAGE_BYTES],
) -> Result<()> {
    let corrupt =
        |expected: String, found: String| Error::corrupt("index page", Location::page(path, number), expected, found);
    let (found, expected) = image::checksums(page, uuid, number);
    if found != expected {
        return Err(corrupt(format!("crc {expected:#010x}"), format!("crc {found:#010x}")));
    }
    if image::number(page) != number || image::kind(page) != kind as u32 {
        return Err(corrupt(format!("{kind:?} page {number}"), format!("page {}", image::number(page))));
    }
    if image::generation(page) > generation {
        let found = format!("generation {}", image::generation(page));
        return Err(corrupt(format!("generation {generation} or older"), found));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(id: u32) -> TableState {
        TableState {
            id: TableId::from_raw(id),
            primary_log2: 4,
            overflow_log2: 1,
            growth: Growth::resting(5, 5).started().advanced(),
            records: 1000,
            floor: 0,
            primary_extents: vec![530, 547],
            overflow_extents: vec![600],
        }
    }

    fn meta(segments: u32) -> Meta {
        Meta {
            tables: [0, 1, 7].map(table).to_vec(),
            end_page: 5000,
            next_table: 8,
            next_sequence: segments + 1,
            segments: (0..segments)
                .map(|i| SegmentEntry {
                    sequence: i,
                    slot: i,
                    salt: 7,
                    capacity: 4096,
                    end: 4000,
                    dead: 1,
                    removals: 2,
                })
                .collect(),
            expiring: (0..segments.div_ceil(2))
                .map(|i| ExpiringEntry { sequence: u64::from(i * 2), first: 5, last: 9, bytes: 100 })
                .collect(),
            swept: 77,
            blobs: BlobSnapshot { next_id: 4, count: 2, bytes: 9, in_flight: vec![3], dying: vec![1, 2] },
        }
    }

    fn sealed(meta: &Meta) -> Vec<PageImage> {
        let mut pages = meta.pages();
        pages.iter_mut().for_each(|page| image::seal(page, Uuid([1; 16]), 3));
        pages
    }

    fn decode(pages: &[PageImage]) -> Result<Meta> {
        Meta::decode(Path::new("index"), Uuid([1; 16]), 3, |number| {
            Ok(pages[(number - FIRST_META_PAGE) as usize].clone())
        })
    }

    #[test]
    fn meta_data_survives_short_and_long() {
        for segments in [0, 1, 500, 4096] {
            let meta = meta(segments);
            assert_eq!(decode(&sealed(&meta)).unwrap(), meta, "{segments} segments");
        }
    }

    #[test]
    fn nonsense_is_refused_even_with_a_valid_checksum() {
        let mut twice = meta(3);
        twice.segments[1].slot = 0;
        let mut long = meta(3);
        long.segments[2].end = 5000;
        let mut outside = meta(1);
        outside.tables[2].primary_extents[0] = 1;
        let mut unsorted = meta(1);
        unsorted.tables.swap(1, 2);
        let mut without_main = meta(1);
        without_main.tables.remove(0);
        let mut late = meta(1);
        late.next_table = 7;
        for meta in [twice, long, outside, unsorted, without_main, late] {
            assert!(decode(&sealed(&meta)).is_err_and(|error| error.is_corruption()));
        }
        let pages = sealed(&meta(1));
        let older = Meta::decode(Path::new("index"), Uuid([1; 16]), 2, |_| Ok(pages[0].clone()));
        assert!(older.is_err(), "a page newer than the header");
    }

    #[test]
    fn any_stream_parses_without_panic() {
        let stream = meta(5).encode();
        for at in 0..stream.len() {
            for value in [0, 1, 0x7f, 0xff] {
                let mut damaged = stream.clone();
                damaged[at] = value;
                let _ = Meta::parse(&damaged);
            }
            assert!(Meta::parse(&stream[..at]).is_none());
        }
    }
}
