//! How a segment's file is mapped when a store is opened.
//!
//! An open maps every segment. So no read needs a descriptor or a mapping later: a moment without them can fail an open,
//! and never a lookup.

use std::path::Path;
use std::sync::Arc;

use super::segments::Log;
use crate::address::Address;
use crate::error::{Error, IoContext, Location, Result};
use crate::sys::pins::Pinned;
use crate::sys::{Disk, DiskFile, LogMap, OpenMode};
use crate::words::some;

/// Maps a segment for use: readable up to `end`, and writable behind it if it goes on being the active one.
///
/// # Errors
/// `Corrupt` if there is no file, or it ends before `end`; `Io`.
pub(crate) fn map_segment(
    disk: &dyn Disk,
    path: &Path,
    salt: u64,
    end: u64,
    writable: bool,
) -> Result<(LogMap, u64, Arc<dyn DiskFile>)> {
    let mode = if writable { OpenMode::Write } else { OpenMode::Read };
    let file = match disk.open(path, mode) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(path, end)),
        Err(error) => return Err(Error::io("open", path, error)),
    };
    let len = usable_len(path, file.len().context("look at", path)?, end)?;
    if writable {
        // Its unused end is zeroes, of which a copy of the store may have made a hole; and on tmpfs even a load from a
        // hole among its records takes a block.
        file.allocate(0, len).context("allocate blocks of", path)?;
    }
    let map = file.map_log(len as usize, end, writable).context("map", path)?.with_salt(salt);
    Ok((map, len, file))
}

/// The length of a segment's file, which holds records up to `end`, without opening it.
///
/// # Errors
/// As [`map_segment`].
pub(crate) fn segment_len(disk: &dyn Disk, path: &Path, end: u64) -> Result<u64> {
    match disk.len_of(path).context("look at", path)? {
        Some(len) => usable_len(path, len, end),
        None => Err(missing(path, end)),
    }
}

fn usable_len(path: &Path, len: u64, end: u64) -> Result<u64> {
    let len = len.min(Address::SEGMENT_BYTES_MAX);
    if len < end {
        return Err(Error::corrupt(
            "segment",
            Location::file(path),
            format!("at least {end} bytes"),
            some(len, "byte"),
        ));
    }
    Ok(len)
}

fn missing(path: &Path, end: u64) -> Error {
    Error::corrupt("segment", Location::file(path), format!("{end} bytes"), "no such file")
}

impl Log {
    /// Pins the segment of a record address. `None` if there is no such segment (any more).
    #[inline]
    pub(crate) fn pin(&self, address: Address) -> Option<Pinned<'_>> {
        self.pins.pin(address.segment())
    }
}
