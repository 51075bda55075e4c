//! Mappings of real files, and why none of them touches a block that is not there.
//!
//! A page of a mapped file for which the file system finds no block is SIGBUS, and the end of the process. That
//! concerns holes only, and depends on who touches them:
//!
//! | | a disk's file system | tmpfs |
//! |---|---|---|
//! | store through a shared mapping | takes a block | takes a block |
//! | load, or first store to a private page | takes none | takes a block |
//!
//! So blocks are allocated before a log segment is mapped writable, by its callers; and on tmpfs, other mappings never
//! show a hole: where the file has one, there is anonymous memory in its place, which reads as zeroes just the same.
//! Holes are ordinary: pages of the table that were never used, or were given back; zeroes in a copy of a store
//! that was made with `cp --sparse=always` or the like.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::ptr::NonNull;
use std::sync::Arc;

use memmap2::{Mmap, MmapMut, MmapOptions};
use rustix::mm::{Advice, MapFlags, ProtFlags};

use super::map::MapOwner;
use super::{IndexMap, LogMap, PAGE_BYTES};
use crate::sync::Mutex;

/// Pieces that one mapping can be split into: a process may have 65,530 mappings, and the log needs some.
const PIECES_MAX: usize = 4096;

/// Zeroed private memory.
pub(super) fn anonymous(bytes: usize) -> io::Result<IndexMap> {
    let mut map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
    let memory = non_null(map.as_mut_ptr())?;
    // SAFETY: the mapping is page-aligned and writable, and the owner keeps it; `MmapMut` is never
    // dereferenced again, so only atomics touch it.
    Ok(unsafe { IndexMap::from_raw(memory, bytes, Box::new(Anonymous { map })) })
}

/// A private mapping of a part of a file.
pub(super) fn private(file: &Arc<File>, offset: u64, bytes: usize) -> io::Result<IndexMap> {
    let on_tmpfs = is_tmpfs(file)?;
    let holes = if on_tmpfs { holes(file, offset, bytes)? } else { Vec::new() };
    let (mut map, file_below) = if holes.len() > PIECES_MAX {
        (copied(file, offset, bytes, &holes)?, false)
    } else {
        // SAFETY: a private mapping; other processes are kept out by the store's lock, our own writes to the
        // file go to pages that are private already or through the same bytes, and the memory is accessed as
        // atomics only. A file truncated by others is SIGBUS, as documented.
        (unsafe { MmapOptions::new().offset(offset).len(bytes).no_reserve_swap().map_copy(&**file)? }, true)
    };
    let memory = non_null(map.as_mut_ptr())?;
    let owner = Pages { map, file: Arc::clone(file), offset, on_tmpfs, file_below, changed: Mutex::default() };
    if file_below {
        for hole in holes {
            owner.cover(&mut owner.changed.lock(), hole)?;
        }
    }
    // SAFETY: page-aligned, writable (privately), kept by the owner, accessed as atomics only.
    Ok(unsafe { IndexMap::from_raw(memory, bytes, Box::new(owner)) })
}

/// Memory for a part of a file that holds nothing yet.
pub(super) fn fresh(file: &Arc<File>, offset: u64, bytes: usize) -> io::Result<IndexMap> {
    let mut map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
    let memory = non_null(map.as_mut_ptr())?;
    let (file, on_tmpfs) = (Arc::clone(file), is_tmpfs(file)?);
    let owner = Pages { map, file, offset, on_tmpfs, file_below: false, changed: Mutex::default() };
    // SAFETY: the range is a mapping that `owner` owns. Only advice: without huge pages it is slower.
    let _ = unsafe { rustix::mm::madvise(memory.as_ptr().cast(), bytes, Advice::LinuxHugepage) };
    // SAFETY: page-aligned, writable, kept by the owner, accessed as atomics only.
    Ok(unsafe { IndexMap::from_raw(memory, bytes, Box::new(owner)) })
}

/// A shared mapping for the log's writer. The caller has allocated all blocks.
pub(super) fn log_writable(file: &File, bytes: usize, written: u64) -> io::Result<LogMap> {
    // SAFETY: the store's lock keeps other processes out; within this one, stores go through the one
    // LogWriter only.
    let mut map = unsafe { MmapOptions::new().len(bytes).map_mut(file)? };
    let memory = non_null(map.as_mut_ptr())?;
    // SAFETY: mapped readable and writable for `bytes`, kept by the owner.
    Ok(unsafe { LogMap::from_raw(memory, bytes, written, Box::new(Anonymous { map })) })
}

/// A shared mapping for readers. The file does not change while it lives, so a hole stays one.
pub(super) fn log(file: &File, bytes: usize, written: u64) -> io::Result<LogMap> {
    let holes = if is_tmpfs(file)? { holes(file, 0, bytes)? } else { Vec::new() };
    let map = if holes.len() > PIECES_MAX {
        copied(file, 0, bytes, &holes)?.make_read_only()?
    } else {
        // SAFETY: as in `log_writable`, without stores.
        let map = unsafe { MmapOptions::new().len(bytes).map(file)? };
        for hole in holes {
            put_zeroes(map.as_ptr().cast_mut(), map.len(), hole, ProtFlags::READ)?;
        }
        map
    };
    let memory = non_null(map.as_ptr().cast_mut())?;
    // SAFETY: mapped readable for `bytes`, kept by the owner; no LogWriter is made for it.
    Ok(unsafe { LogMap::from_raw(memory, bytes, written, Box::new(ReadOnly { map })) })
}

fn non_null(memory: *mut u8) -> io::Result<NonNull<u8>> {
    NonNull::new(memory).ok_or_else(|| io::Error::other("a mapping at address zero"))
}

/// True if loads from holes take blocks.
fn is_tmpfs(file: &File) -> io::Result<bool> {
    /// TMPFS_MAGIC of the system's headers.
    const TMPFS: u64 = 0x0102_1994;
    Ok(rustix::fs::fstatfs(file)?.f_type as u64 == TMPFS)
}

/// The holes in a part of a file, counted from its start: whole pages.
fn holes(file: &File, offset: u64, bytes: usize) -> io::Result<Vec<Range<usize>>> {
    use rustix::fs::{SeekFrom, seek};
    use rustix::io::Errno;
    let page = rustix::param::page_size() as u64;
    let end = offset + (bytes as u64).next_multiple_of(page);
    let mut found = Vec::new();
    let mut at = offset;
    while at < end {
        let data = match seek(file, SeekFrom::Data(at)) {
            Ok(data) => data.min(end),
            Err(Errno::NXIO) => end,
            Err(error) => return Err(error.into()),
        };
        let (from, to) = (at.next_multiple_of(page), data / page * page);
        if from < to {
            found.push((from - offset) as usize..(to - offset) as usize);
        }
        at = if data < end { seek(file, SeekFrom::Hole(data))? } else { end };
    }
    Ok(found)
}

/// A copy of a part of a file, which has more holes than a mapping can have pieces.
fn copied(file: &File, offset: u64, bytes: usize, holes: &[Range<usize>]) -> io::Result<MmapMut> {
    let mut map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon()?;
    let starts = std::iter::once(0).chain(holes.iter().map(|hole| hole.end));
    let ends = holes.iter().map(|hole| hole.start).chain(std::iter::once(bytes));
    for (start, end) in starts.zip(ends) {
        if start < end.min(bytes) {
            file.read_exact_at(&mut map[start..end.min(bytes)], offset + start as u64)?;
        }
    }
    Ok(map)
}

/// Puts anonymous memory into the place of a part of a mapping.
fn put_zeroes(memory: *mut u8, bytes: usize, range: Range<usize>, access: ProtFlags) -> io::Result<()> {
    assert!(range.start < range.end && range.end <= bytes.next_multiple_of(rustix::param::page_size()));
    let flags = MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE;
    // SAFETY: the range lies inside a mapping that the caller owns (which takes whole pages), and stays mapped: the
    // zeroes take its place in one step. They are what a hole reads as. It is unmapped with the rest.
    unsafe { rustix::mm::mmap_anonymous(memory.add(range.start).cast(), range.len(), access, flags)? };
    Ok(())
}

/// Passes advice about a part of a mapping that the caller owns.
///
/// # Safety
/// With advice that drops memory: the caller relies on the mapping's bytes no more, or knows what is read instead.
unsafe fn advise(map: &MmapMut, advice: Advice, offset: usize, bytes: usize) -> io::Result<()> {
    assert!(offset + bytes <= map.len());
    // SAFETY: the range is inside the mapping; no advice that is used here unmaps.
    unsafe { rustix::mm::madvise(map.as_ptr().add(offset).cast_mut().cast(), bytes, advice)? };
    Ok(())
}

/// Dropping works by the page, and only where the system's pages are as small as ours: a larger one would take
/// the neighbours' changes along.
fn one_page(bytes: usize) -> io::Result<()> {
    if bytes == PAGE_BYTES && rustix::param::page_size() == PAGE_BYTES {
        return Ok(());
    }
    Err(io::Error::other("private memory is dropped one page of 4096 bytes at a time"))
}

/// Memory is discarded by whole pages of the system.
fn whole_pages(offset: usize, bytes: usize) -> io::Result<()> {
    let page = rustix::param::page_size();
    if offset.is_multiple_of(page) && bytes.is_multiple_of(page) {
        return Ok(());
    }
    Err(io::Error::other("memory is discarded by whole pages"))
}

/// Owns anonymous memory, or the mapping that the log's writer stores to.
struct Anonymous {
    map: MmapMut,
}

/// Faults a range in for writing, a piece at a time: whoever else of the process wants to change its mappings waits for each
/// piece, and whoever then meets a page that is not there waits for them.
fn populate(map: &MmapMut, offset: usize, bytes: usize) -> io::Result<()> {
    /// A huge page.
    const PIECE: usize = 2 << 20;
    let end = offset + bytes;
    let mut at = offset;
    while at < end {
        let next = (at / PIECE + 1) * PIECE;
        // SAFETY: drops nothing.
        unsafe { advise(map, Advice::LinuxPopulateWrite, at, next.min(end) - at) }?;
        at = next;
    }
    Ok(())
}

impl MapOwner for Anonymous {
    fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        populate(&self.map, offset, bytes)
    }

    /// There is no file behind it, or nothing private: dropping would lose data.
    fn drop_private(&self, _offset: usize, bytes: usize) -> io::Result<()> {
        one_page(bytes)
    }

    fn discard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        whole_pages(offset, bytes)?;
        // SAFETY: `discard`'s caller needs the bytes no more.
        unsafe { advise(&self.map, Advice::LinuxDontNeed, offset, bytes) }
    }
}

/// Owns private pages that stand for a part of a file: some show the file until they are changed, the others are
/// anonymous memory.
struct Pages {
    map: MmapMut,
    file: Arc<File>,
    /// Where in the file the memory's first byte belongs.
    offset: u64,
    /// Loads from holes take blocks.
    on_tmpfs: bool,
    /// What a page shows that is not in `changed`: the file, or anonymous memory.
    file_below: bool,
    changed: Mutex<Changed>,
}

/// Pages that show the other thing than at first, a bit each.
#[derive(Default)]
struct Changed {
    pages: Vec<u64>,
    /// Runs of such pages that began with a page of their own.
    pieces: usize,
}

impl Changed {
    fn has(&self, page: usize) -> bool {
        self.pages.get(page / 64).is_some_and(|word| word & 1 << (page % 64) != 0)
    }

    fn set(&mut self, page: usize, changed: bool) {
        if self.pages.len() <= page / 64 {
            self.pages.resize(page / 64 + 1, 0);
        }
        let bit = 1 << (page % 64);
        if changed { self.pages[page / 64] |= bit } else { self.pages[page / 64] &= !bit }
    }
}

impl Pages {
    fn shows_file(&self, changed: &Changed, page: usize) -> bool {
        changed.has(page) != self.file_below
    }

    /// Takes the file away from below a range of pages that hold nothing: there are no blocks for them.
    fn cover(&self, changed: &mut Changed, range: Range<usize>) -> io::Result<()> {
        let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
        put_zeroes(self.map.as_ptr().cast_mut(), self.map.len(), range, ProtFlags::READ | ProtFlags::WRITE)?;
        pages.for_each(|page| changed.set(page, self.file_below));
        Ok(())
    }
}

impl MapOwner for Pages {
    fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        populate(&self.map, offset, bytes)
    }

    fn discard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        whole_pages(offset, bytes)?;
        if self.on_tmpfs {
            // The caller has punched a hole into the file.
            return self.cover(&mut self.changed.lock(), offset..offset + bytes);
        }
        // SAFETY: `discard`'s caller needs the bytes no more; anonymous pages read as zeroes afterwards, the others as
        // the file does.
        unsafe { advise(&self.map, Advice::LinuxDontNeed, offset, bytes) }
    }

    fn drop_private(&self, offset: usize, bytes: usize) -> io::Result<()> {
        assert!(offset + bytes <= self.map.len());
        one_page(bytes)?;
        let page = offset / PAGE_BYTES;
        let mut changed = self.changed.lock();
        if self.shows_file(&changed, page) {
            // SAFETY: the page shows the file, so dropping the private copy brings the file's bytes back.
            return unsafe { advise(&self.map, Advice::LinuxDontNeed, offset, bytes) };
        }
        let alone = !(self.shows_file(&changed, page + 1) || page > 0 && self.shows_file(&changed, page - 1));
        if alone && changed.pieces >= PIECES_MAX {
            return Err(io::Error::other("the mapping is in too many pieces"));
        }
        // SAFETY: the range is inside a mapping that `self` owns and stays mapped: the file's pages take the
        // memory's place in one step. They hold the same bytes, as `drop_private`'s callers see to, and so they have
        // blocks; the mapping is unmapped as a whole when `map` is dropped.
        unsafe {
            rustix::mm::mmap(
                self.map.as_ptr().add(offset).cast_mut().cast(),
                bytes,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE | MapFlags::FIXED | MapFlags::NORESERVE,
                &*self.file,
                self.offset + offset as u64,
            )?;
        }
        changed.set(page, !self.file_below);
        changed.pieces += usize::from(alone);
        Ok(())
    }
}

/// Owns a mapping that is read-only.
struct ReadOnly {
    map: Mmap,
}

impl MapOwner for ReadOnly {
    fn populate(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn drop_private(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        debug_assert!(!self.map.is_empty());
        Ok(())
    }

    fn discard(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        Ok(())
    }
}
