//! The header of the index file: two slots of 4 KiB, written in turn.
//!
//! ```text
//!   0  magic "tophash1"
//!   8  read version 32 | write version 32
//!  16  crc32 of the page with this field zero | hash algorithm 32
//!  24  store uuid
//!  40  hash key 128
//!  56  serial 64: counts header writes; slot = serial mod 2
//!  64  generation 64: counts checkpoints
//!  72  cut LSN 64: the index holds exactly the records below it
//!  80  log directory id 64
//!  88  flags 64: bit 0 = closed cleanly
//!  96  home buckets 32 | stash buckets 32
//! 104  zero
//! ```
//!
//! A build reads a file whose *read version* it knows, and writes to one whose *write version* it knows.
#![deny(clippy::indexing_slicing, clippy::unwrap_used)]

use std::mem::offset_of;
use std::path::Path;

use bytemuck::{Pod, Zeroable};

use crate::address::Lsn;
use crate::checksum::{HASH_SIPHASH13, Uuid, crc32};
use crate::error::{Error, IoContext, Location, REPAIR_HINT, Result};
use crate::mutant::{Mutant, broken};
use crate::sys::{DiskFile, PAGE_BYTES, read_up_to, write_all_at};
use crate::table::page::Geometry;

pub(crate) const MAGIC: [u8; 8] = *b"tophash1";
/// The format that this build writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;
/// The page number of the first meta page: the header slots come before.
pub(crate) const FIRST_META_PAGE: u64 = 2;

/// The fields as they stand in the file.
#[repr(C)]
#[derive(Clone, Copy, Pod, Zeroable)]
struct Raw {
    magic: [u8; 8],
    read_version: u32,
    write_version: u32,
    crc: u32,
    hash_algorithm: u32,
    uuid: [u8; 16],
    hash_key: [u64; 2],
    serial: u64,
    generation: u64,
    cut: u64,
    log_dir: u64,
    flags: u64,
    homes: u32,
    stash: u32,
}

/// Bytes of the fields.
const RAW_BYTES: usize = 104;

const _: () = assert!(size_of::<Raw>() == RAW_BYTES);

/// A header slot, decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct IndexHeader {
    pub(crate) uuid: Uuid,
    pub(crate) hash_key: (u64, u64),
    pub(crate) serial: u64,
    pub(crate) generation: u64,
    pub(crate) cut: Lsn,
    pub(crate) log_dir: u64,
    pub(crate) clean: bool,
    pub(crate) geometry: Geometry,
}

/// What the two slots of a file say together.
#[derive(Debug)]
pub(crate) struct Headers {
    /// The newest valid one.
    pub(crate) newest: IndexHeader,
    /// The other slot is not valid: a torn write, or damage.
    pub(crate) other_invalid: bool,
}

impl IndexHeader {
    pub(crate) fn encode(&self) -> [u8; PAGE_BYTES] {
        let mut raw = Raw {
            magic: MAGIC,
            read_version: VERSION,
            write_version: VERSION,
            crc: 0,
            hash_algorithm: HASH_SIPHASH13,
            uuid: self.uuid.0,
            hash_key: [self.hash_key.0, self.hash_key.1],
            serial: self.serial,
            generation: self.generation,
            cut: self.cut.raw(),
            log_dir: self.log_dir,
            flags: u64::from(self.clean),
            homes: self.geometry.homes as u32,
            stash: self.geometry.stash as u32,
        };
        let mut page = [0; PAGE_BYTES];
        page[..RAW_BYTES].copy_from_slice(bytemuck::bytes_of(&raw));
        raw.crc = crc32(&page);
        page[..RAW_BYTES].copy_from_slice(bytemuck::bytes_of(&raw));
        page
    }

    /// Decodes a slot.
    ///
    /// # Errors
    /// `NotAStore` if the magic is not there, `NewerFormat`, `Corrupt`.
    pub(crate) fn decode(path: &Path, slot: u64, page: &[u8; PAGE_BYTES], writable: bool) -> Result<IndexHeader> {
        let raw: Raw = bytemuck::pod_read_unaligned(&page[..RAW_BYTES]);
        if raw.magic != MAGIC {
            let reason = format!("its index file does not begin with the magic of a tophash index{REPAIR_HINT}");
            return Err(Error::NotAStore { path: path.to_path_buf(), reason });
        }
        let mut without_crc = *page;
        without_crc[16..20].fill(0);
        let corrupt =
            |expected: String, found: String| Error::corrupt("header", Location::page(path, slot), expected, found);
        let crc = crc32(&without_crc);
        if crc != raw.crc {
            return Err(corrupt(format!("crc {crc:#010x}"), format!("crc {:#010x}", raw.crc)));
        }
        let newer = |found, access| Error::NewerFormat { path: path.to_path_buf(), found, supported: VERSION, access };
        if raw.read_version > VERSION {
            return Err(newer(raw.read_version, "read"));
        }
        if writable && raw.write_version > VERSION {
            return Err(newer(raw.write_version, "write"));
        }
        if raw.hash_algorithm != HASH_SIPHASH13 {
            return Err(corrupt("hash algorithm 1".into(), raw.hash_algorithm.to_string()));
        }
        let geometry = Geometry { homes: raw.homes as usize, stash: raw.stash as usize };
        if !geometry.is_valid()
            || raw.serial % 2 != slot
            || raw.serial.max(raw.generation) > COUNTER_MAX
            || !raw.cut.is_multiple_of(8)
        {
            return Err(corrupt(
                "fields within their limits".into(),
                format!("{geometry:?}, serial {}, generation {}", raw.serial, raw.generation),
            ));
        }
        Ok(IndexHeader {
            uuid: Uuid(raw.uuid),
            hash_key: (raw.hash_key[0], raw.hash_key[1]),
            serial: raw.serial,
            generation: raw.generation,
            cut: Lsn::from_raw(raw.cut),
            log_dir: raw.log_dir,
            clean: raw.flags & 1 != 0,
            geometry,
        })
    }

    /// True if a slot's bytes can be a mixture of two headers of this store: all bytes that are the same in
    /// every header are right. A write that was interrupted leaves nothing else.
    pub(crate) fn can_be_torn(&self, slot: &[u8; PAGE_BYTES]) -> bool {
        let changing =
            [offset_of!(Raw, crc)..offset_of!(Raw, hash_algorithm), offset_of!(Raw, serial)..offset_of!(Raw, log_dir)];
        let flags = offset_of!(Raw, flags)..offset_of!(Raw, homes);
        let mut pages = [self.encode(), *slot];
        for page in &mut pages {
            for range in changing.iter().chain([&flags]) {
                page.get_mut(range.clone()).into_iter().for_each(|bytes| bytes.fill(0));
            }
        }
        pages[0] == pages[1]
    }

    /// Writes the header into its slot and makes it durable. The slot is in the file from the start, so its bytes
    /// are all that must be synced: the file's times would cost a commit of the file system's journal.
    pub(crate) fn write(&self, file: &dyn DiskFile, path: &Path) -> Result<()> {
        let offset = self.serial % 2 * PAGE_BYTES as u64;
        write_all_at(file, &self.encode(), offset).context("write the header of", path)?;
        if self.generation > 1 && broken(Mutant::HeaderNotSynced) {
            return Ok(());
        }
        file.sync_data().context("sync", path)
    }
}

/// The largest serial and generation: no store writes so many headers, and the next number must be one too.
const COUNTER_MAX: u64 = 1 << 62;

/// Reads both slots.
///
/// # Errors
/// The first slot's error if neither is valid; `NewerFormat` if either says so.
pub(crate) fn read_headers(file: &dyn DiskFile, path: &Path, writable: bool) -> Result<Headers> {
    let mut slots = Vec::with_capacity(2);
    for slot in 0..2 {
        let mut page = [0; PAGE_BYTES];
        let read = read_up_to(file, &mut page, slot * PAGE_BYTES as u64).context("read", path)?;
        if slot == 0 && read == 0 {
            let reason = format!("its index file is empty{REPAIR_HINT}");
            return Err(Error::NotAStore { path: path.to_path_buf(), reason });
        }
        slots.push(IndexHeader::decode(path, slot, &page, writable));
    }
    let (second, first) = (slots.pop(), slots.pop());
    match (first, second) {
        (Some(Err(error @ Error::NewerFormat { .. })), _) | (_, Some(Err(error @ Error::NewerFormat { .. }))) => {
            Err(error)
        }
        (Some(Ok(a)), Some(Ok(b))) => {
            if a.uuid != b.uuid {
                let location = Location::page(path, 1);
                return Err(Error::WrongStore { location, expected: a.uuid.to_string(), found: b.uuid.to_string() });
            }
            Ok(Headers { newest: if a.serial > b.serial { a } else { b }, other_invalid: false })
        }
        (Some(Ok(newest)), _) | (_, Some(Ok(newest))) => Ok(Headers { newest, other_invalid: true }),
        // Neither is a header: prefer the error that says more than "not a store".
        (Some(Err(Error::NotAStore { .. })), Some(Err(error))) | (Some(Err(error)), _) => Err(error),
        _ => Err(Error::NotAStore { path: path.to_path_buf(), reason: format!("it has no header{REPAIR_HINT}") }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(serial: u64) -> IndexHeader {
        IndexHeader {
            uuid: Uuid([9; 16]),
            hash_key: (1, 2),
            serial,
            generation: 5,
            cut: Lsn::new(3, 512),
            log_dir: 1,
            clean: true,
            geometry: Geometry { homes: 60, stash: 3 },
        }
    }

    #[test]
    fn a_header_survives_and_every_flip_is_noticed() {
        let path = Path::new("index");
        let page = header(7).encode();
        assert_eq!(IndexHeader::decode(path, 1, &page, true).unwrap(), header(7));
        assert!(IndexHeader::decode(path, 0, &page, true).is_err(), "a slot in the wrong page");
        for bit in 0..page.len() * 8 {
            let mut damaged = page;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(IndexHeader::decode(path, 1, &damaged, true).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn newer_versions_are_named() {
        let path = Path::new("index");
        let set = |at: usize, version: u32| {
            let mut page = header(7).encode();
            page[at..at + 4].copy_from_slice(&version.to_le_bytes());
            page[16..20].fill(0);
            let crc = crc32(&page);
            page[16..20].copy_from_slice(&crc.to_le_bytes());
            page
        };
        let newer_read = IndexHeader::decode(path, 1, &set(8, 2), false);
        assert!(matches!(newer_read, Err(Error::NewerFormat { found: 2, access: "read", .. })));
        let newer_write = set(12, 3);
        assert!(IndexHeader::decode(path, 1, &newer_write, false).is_ok());
        let refused = IndexHeader::decode(path, 1, &newer_write, true);
        assert!(matches!(refused, Err(Error::NewerFormat { found: 3, access: "write", .. })));
    }
}
