//! How the segments' files get mapped when a store is opened.
//!
//! The tail is mapped at once. Of a segment before it the open looks at name and length only, and the first reader who
//! wants a record of it has it mapped; a background thread sees to the rest. So an open takes as long as its tail,
//! however many segments there are.
//!
//! 1. A segment is **known**: in the registry and in `late`, with nothing in its segment slot's place in the pin table.
//! 2. A reader that pins nothing looks into `late`. If the segment is there, it is mapped under the lock of `late`,
//!    installed in the pin table and taken out of `late`; then the reader pins again. Like any pin, this one counts
//!    only if the index still says the same afterwards.
//! 3. A segment that is freed is taken out of `late` before its mapping is retired: nobody maps it any more.

use std::path::Path;
use std::sync::Arc;

use super::segment::Segment;
use super::segments::Log;
use crate::error::{Error, Fault, IoContext, Location, Result};
use crate::index::slot::Place;
use crate::observe;
use crate::sys::pins::{Pinned, Retired};
use crate::sys::{Disk, DiskFile, LogMap, OpenMode};

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
    let map = file.map_log(len as usize, end, writable).context("map", path)?.with_cookie(salt);
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
    let len = len.min(Place::SEGMENT_BYTES_MAX);
    if len < end {
        return Err(Error::corrupt("segment", Location::file(path), format!("at least {end} bytes"), format!("{len}")));
    }
    Ok(len)
}

fn missing(path: &Path, end: u64) -> Error {
    Error::corrupt("segment", Location::file(path), format!("{end} bytes"), "no such file")
}

impl Log {
    /// Adds a sealed segment that existed when the store was opened. It is mapped when it is needed.
    pub(crate) fn adopt_late(&self, segment: Arc<Segment>) {
        self.late.lock().insert(segment.slot, Arc::clone(&segment));
        self.adopt(segment);
    }

    /// Pins the segment of a place. `None` if there is no such segment (any more).
    ///
    /// # Errors
    /// As [`map_segment`], if it has to be mapped first.
    #[inline]
    pub(crate) fn pin(&self, place: Place) -> std::result::Result<Option<Pinned<'_>>, Fault> {
        match self.pins.pin(place.segment()) {
            Some(pinned) => Ok(Some(pinned)),
            None => self.pin_late(place.segment()),
        }
    }

    #[cold]
    fn pin_late(&self, slot: u32) -> std::result::Result<Option<Pinned<'_>>, Fault> {
        self.map_late(slot)?;
        Ok(self.pins.pin(slot))
    }

    /// Maps a segment that waits for it.
    fn map_late(&self, slot: u32) -> Result<()> {
        let mut late = self.late.lock();
        let Some(segment) = late.get(&slot) else { return Ok(()) };
        let end = segment.end().unwrap_or_default();
        let (map, ..) = map_segment(&*self.config.disk, &segment.path, segment.salt, end, false)?;
        observe::mapped(&segment.path, 0, segment.capacity);
        self.pins.install(slot, Arc::new(map));
        late.remove(&slot);
        Ok(())
    }

    /// Maps every segment that waits for it. Whoever needs one that cannot be mapped is told why.
    pub(crate) fn map_all_late(&self) {
        let waiting: Vec<u32> = self.late.lock().keys().copied().collect();
        for slot in waiting {
            // As the comment above says.
            let _ = self.map_late(slot);
        }
    }

    /// Takes a segment's mapping away, if it has one, so that nobody can pin it any more.
    pub(super) fn unmap(&self, slot: u32) -> Option<Retired> {
        self.late.lock().remove(&slot);
        self.pins.retire(slot)
    }
}
