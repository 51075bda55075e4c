//! What the store knows besides its pages, as a stream of bytes in the meta pages.
//!
//! The meta pages follow the header slots. They are written like bucket pages: as images, through the
//! journal. A page holds 4032 bytes of the stream after its 64-byte header; pages beyond the stream's end
//! mean nothing.
//!
//! ```text
//! length of the stream 64 | growth word | records | end page | floor | next sequence | blob: next id, count, bytes
//! counts 64 each: primary extents, overflow extents, segments, blobs in flight, blobs dying, segments with records that expire
//! moment up to which expired records were removed from the index (64)
//! first page of each primary extent, of each overflow extent (64 each)
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
use crate::table::cut::TableState;
use crate::table::growth::Growth;
use crate::table::page::{BUCKET_SLOTS, PageImage, PageKind, image};
use crate::table::region::{EXTENTS_MAX, Region, RegionKind};
use crate::words::some;

/// Pages kept for meta data: enough for all segments and as many blob ids as can wait.
pub(crate) const META_PAGES: u64 = 128;
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
    growth: u64,
    records: u64,
    end_page: u64,
    floor: u64,
    next_sequence: u64,
    blob_next_id: u64,
    blob_count: u64,
    blob_bytes: u64,
    primary_extents: u64,
    overflow_extents: u64,
    segments: u64,
    in_flight: u64,
    dying: u64,
    expiring: u64,
    swept: u64,
}

/// The meta data of a checkpoint.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Meta {
    pub(crate) table: TableState,
    pub(crate) end_page: u64,
    pub(crate) next_sequence: u32,
    pub(crate) segments: Vec<SegmentEntry>,
    /// By ascending sequence.
    pub(crate) expiring: Vec<ExpiringEntry>,
    /// Expired records were removed from the index up to this moment.
    pub(crate) swept: u64,
    pub(crate) blobs: BlobSnapshot,
}

/// Bytes of the stream for a segment with records that expire.
const SEGMENT_BYTES: usize = size_of::<SegmentEntry>() + size_of::<ExpiringEntry>();

// The longest stream fits into the meta pages. In-flight blobs are as many as writing threads; the rest of the
// room is theirs.
const _: () = assert!(
    size_of::<RawMeta>() + 16 * EXTENTS_MAX + SEGMENT_BYTES * Address::SEGMENTS + 8 * 2 * FREED_MAX
        < META_PAGES as usize * PAYLOAD
);

impl Meta {
    /// When the records of a segment expire, if some do.
    pub(crate) fn expiring_of(&self, segment: &SegmentEntry) -> Option<Expiring> {
        let found = self.expiring.binary_search_by_key(&u64::from(segment.sequence), |entry| entry.sequence).ok()?;
        self.expiring.get(found).map(|entry| entry.deadlines())
    }

    /// Meta pages that so many segments can need, and so many blobs that wait to be unlinked.
    pub(crate) fn pages_for(segments: usize, freed: usize) -> u64 {
        let lists = Self::bytes_without_freed(segments) + 8 * freed.min(FREED_MAX);
        (lists.div_ceil(PAYLOAD) as u64).min(META_PAGES)
    }

    /// Blobs waiting to be unlinked that so many pages have room for, beside so many segments.
    pub(crate) fn freed_for(pages: u64, segments: usize) -> usize {
        let bytes = (pages as usize * PAYLOAD).saturating_sub(Self::bytes_without_freed(segments));
        (bytes / 8).min(FREED_MAX)
    }

    /// Bytes of all but the blobs that wait to be unlinked.
    fn bytes_without_freed(segments: usize) -> usize {
        /// Blobs that many threads write at one moment.
        const IN_FLIGHT: usize = 256;
        // Some segments more than there are, because several threads can each prepare one after this was asked.
        let segments = (segments + segments.clamp(16, 64)).min(Address::SEGMENTS);
        size_of::<RawMeta>() + SEGMENT_BYTES * segments + 16 * EXTENTS_MAX + 8 * IN_FLIGHT
    }

    fn encode(&self) -> Vec<u8> {
        let (table, blobs) = (&self.table, &self.blobs);
        let mut raw = RawMeta {
            len: 0,
            growth: table.growth.word(),
            records: table.records,
            end_page: self.end_page,
            floor: table.floor,
            next_sequence: u64::from(self.next_sequence),
            blob_next_id: blobs.next_id,
            blob_count: blobs.count,
            blob_bytes: blobs.bytes,
            primary_extents: table.primary_extents.len() as u64,
            overflow_extents: table.overflow_extents.len() as u64,
            segments: self.segments.len() as u64,
            in_flight: blobs.in_flight.len() as u64,
            dying: blobs.dying.len() as u64,
            expiring: self.expiring.len() as u64,
            swept: self.swept,
        };
        let lists = [
            bytemuck::cast_slice::<u64, u8>(&table.primary_extents),
            bytemuck::cast_slice(&table.overflow_extents),
            bytemuck::cast_slice(&self.segments),
            bytemuck::cast_slice(&blobs.in_flight),
            bytemuck::cast_slice(&blobs.dying),
            bytemuck::cast_slice(&self.expiring),
        ];
        raw.len = (size_of::<RawMeta>() + lists.iter().map(|list| list.len()).sum::<usize>()) as u64;
        let mut bytes = bytemuck::bytes_of(&raw).to_vec();
        lists.iter().for_each(|list| bytes.extend_from_slice(list));
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
        let (head, mut rest) = stream.split_at_checked(size_of::<RawMeta>())?;
        let raw: RawMeta = bytemuck::pod_read_unaligned(head);
        fn list<T: Pod>(rest: &mut &[u8], count: u64, most: usize) -> Option<Vec<T>> {
            let count = usize::try_from(count).ok().filter(|&count| count <= most)?;
            let (bytes, after) = rest.split_at_checked(count * size_of::<T>())?;
            *rest = after;
            Some(bytemuck::allocation::pod_collect_to_vec(bytes))
        }
        let ids_max = META_PAGES as usize * PAYLOAD / 8;
        let mut meta = Meta {
            table: TableState {
                growth: Growth::from_word(raw.growth),
                records: raw.records,
                floor: raw.floor,
                primary_extents: list(&mut rest, raw.primary_extents, EXTENTS_MAX)?,
                overflow_extents: list(&mut rest, raw.overflow_extents, EXTENTS_MAX)?,
            },
            end_page: raw.end_page,
            next_sequence: u32::try_from(raw.next_sequence).ok()?,
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
        let first = FIRST_META_PAGE + META_PAGES;
        let extents = self.table.primary_extents.iter().chain(&self.table.overflow_extents);
        let extents_fit = extents.into_iter().all(|&page| (first..self.end_page).contains(&page));
        let ends = self.end_page < 1 << 48 && self.table.records < 1 << 48;
        let expiring = self.expiring.is_sorted_by(|a, b| a.sequence < b.sequence);
        let blobs = &self.blobs;
        let blobs_fit = blobs.next_id <= BLOB_IDS && blobs.count < 1 << 48 && blobs.bytes <= 1 << 62;
        segments_fit && ascending && expiring && extents_fit && ends && blobs_fit && self.table.growth.is_valid()
    }
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
        let (mut ranges, mut pages) = (Vec::new(), [0u64; 2]);
        let regions = [
            Region::new(RegionKind::Primary, header.primary_log2),
            Region::new(RegionKind::Overflow, header.overflow_log2),
        ];
        let extents = [&self.table.primary_extents, &self.table.overflow_extents];
        for ((region, extents), pages) in regions.iter().zip(extents).zip(&mut pages) {
            for (number, &first) in extents.iter().enumerate() {
                let shape = region.shape(number);
                ranges.push((first, first.saturating_add(shape.total())));
                *pages = pages.saturating_add(shape.pages);
            }
        }
        ranges.sort_unstable();
        if let Some(two) = ranges.iter().zip(ranges.iter().skip(1)).find(|(one, next)| one.1 > next.0) {
            return Err(corrupt("extents with pages of their own".into(), format!("{two:?}")));
        }
        let end = ranges.last().map_or(FIRST_META_PAGE + META_PAGES, |range| range.1);
        if end != self.end_page {
            return Err(corrupt(format!("an end at page {}", self.end_page), format!("extents up to page {end}")));
        }
        if pages[0] < self.table.growth.pages() {
            return Err(corrupt(
                format!("extents for {}", some(self.table.growth.pages(), "page")),
                format!("for {}", pages[0]),
            ));
        }
        let slots = (header.geometry.homes + header.geometry.stash) as u64 * BUCKET_SLOTS as u64;
        let most = self.table.growth.pages().saturating_add(pages[1]).saturating_mul(slots);
        if self.table.records > most {
            return Err(corrupt(format!("at most {}", some(most, "record")), self.table.records.to_string()));
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

    fn meta(segments: u32) -> Meta {
        Meta {
            table: TableState {
                growth: Growth::resting(5, 5).started().advanced(),
                records: 1000,
                floor: 0,
                primary_extents: vec![130, 147],
                overflow_extents: vec![200],
            },
            end_page: 5000,
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
        outside.table.primary_extents[0] = 1;
        for meta in [twice, long, outside] {
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
