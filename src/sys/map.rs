//! Mapped memory behind safe interfaces.

use std::fmt::{self, Debug};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;

use crate::sync::{AtomicU64, Ordering};

/// Keeps a mapping alive, and passes advice about it to the system.
pub trait MapOwner: Send + Sync {
    /// Faults the range in for writing.
    fn populate(&self, offset: usize, bytes: usize) -> io::Result<()>;
    /// Drops private copies of the range: later reads see the file again.
    fn drop_private(&self, offset: usize, bytes: usize) -> io::Result<()>;
    /// Gives memory back that holds nothing but zeroes and empty pages: it reads as zeroes afterwards, or as the
    /// file does.
    fn discard(&self, offset: usize, bytes: usize) -> io::Result<()>;
}

/// Private memory of index pages: a copy-on-write mapping of the index file, or anonymous memory.
///
/// Accessed as atomics only, so concurrent readers and writers are never undefined behaviour.
pub struct IndexMap {
    words: NonNull<AtomicU64>,
    len: usize,
    owner: Box<dyn MapOwner>,
}

// SAFETY: the memory is accessed through `&[AtomicU64]` only, and `owner` is Send + Sync by its trait.
unsafe impl Send for IndexMap {}
// SAFETY: as above.
unsafe impl Sync for IndexMap {}

impl IndexMap {
    /// Wraps memory that `owner` keeps mapped.
    ///
    /// # Safety
    /// `memory` must be aligned to 8, readable and writable for `bytes` bytes for as long as `owner` lives,
    /// and nobody may access it other than by atomic operations.
    pub unsafe fn from_raw(memory: NonNull<u8>, bytes: usize, owner: Box<dyn MapOwner>) -> Self {
        IndexMap { words: memory.cast(), len: bytes / 8, owner }
    }

    /// A part of a mapping, which lives as long as any of its parts.
    ///
    /// # Panics
    /// If the part is not inside, or does not begin and end at words.
    pub(crate) fn part(whole: &Arc<IndexMap>, offset: usize, bytes: usize) -> IndexMap {
        assert!(offset.is_multiple_of(8) && bytes.is_multiple_of(8) && offset + bytes <= whole.len * 8);
        let owner = Part { whole: Arc::clone(whole), offset };
        // SAFETY: the words from `offset` on are inside the whole mapping (just checked).
        let words = unsafe { whole.words.add(offset / 8) };
        // SAFETY: `owner` keeps the whole mapping, whose maker promised the rest.
        unsafe { IndexMap::from_raw(words.cast(), bytes, Box::new(owner)) }
    }

    /// The memory as 64-bit words.
    #[inline]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: `from_raw`'s caller promised validity and alignment; `owner` lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.words.as_ptr(), self.len) }
    }

    /// Drops the private copies of a byte range (both multiples of 4096): later reads see the file.
    pub(crate) fn drop_private(&self, offset: usize, bytes: usize) -> io::Result<()> {
        debug_assert!(offset + bytes <= self.len * 8);
        self.owner.drop_private(offset, bytes)
    }

    /// Gives back memory that holds nothing of worth.
    pub(crate) fn discard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        debug_assert!(offset + bytes <= self.len * 8);
        self.owner.discard(offset, bytes)
    }

    /// Faults a byte range in for writing.
    pub(crate) fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        debug_assert!(offset + bytes <= self.len * 8);
        self.owner.populate(offset, bytes)
    }
}

impl Debug for IndexMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexMap").field("bytes", &(self.len * 8)).finish_non_exhaustive()
    }
}

/// Passes advice about a part on to the whole mapping.
struct Part {
    whole: Arc<IndexMap>,
    offset: usize,
}

impl MapOwner for Part {
    fn populate(&self, offset: usize, bytes: usize) -> io::Result<()> {
        self.whole.populate(self.offset + offset, bytes)
    }

    fn drop_private(&self, offset: usize, bytes: usize) -> io::Result<()> {
        self.whole.drop_private(self.offset + offset, bytes)
    }

    fn discard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        self.whole.discard(self.offset + offset, bytes)
    }
}

/// A shared mapping of a log segment or blob, with a watermark below which nothing changes any more.
pub struct LogMap {
    base: NonNull<u8>,
    len: u64,
    /// Bytes `0..written` are final. Only the one `LogWriter` of this map moves it, upwards only.
    written: AtomicU64,
    /// A number that the map's maker attached; the log keeps the segment's salt here, one load away.
    salt: u64,
    owner: Box<dyn MapOwner>,
}

// SAFETY: bytes below `written` are immutable, bytes above are accessed by the single `LogWriter` only.
unsafe impl Send for LogMap {}
// SAFETY: as above; `written` is atomic and published with Release after the bytes were stored.
unsafe impl Sync for LogMap {}

impl LogMap {
    /// Wraps memory that `owner` keeps mapped.
    ///
    /// # Safety
    /// `memory` must be readable for `bytes` bytes (and writable, if a [`LogWriter`] is made) for as long as
    /// `owner` lives; nobody but the map's `LogWriter` may change it, through the mapping or by writing to the file at or
    /// above the watermark.
    pub unsafe fn from_raw(memory: NonNull<u8>, bytes: usize, written: u64, owner: Box<dyn MapOwner>) -> Self {
        LogMap { base: memory, len: bytes as u64, written: AtomicU64::new(written.min(bytes as u64)), salt: 0, owner }
    }

    /// Attaches a number to the map.
    #[must_use]
    pub fn with_salt(mut self, salt: u64) -> Self {
        self.salt = salt;
        self
    }

    /// The number that was attached.
    #[inline]
    pub fn salt(&self) -> u64 {
        self.salt
    }

    /// The mapping's size in bytes.
    #[inline]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a mapping of no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes below this offset are final.
    #[inline]
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Acquire)
    }

    /// Bytes `start..start + len`, if they all lie below the watermark.
    #[inline]
    pub fn read(&self, start: u64, len: u64) -> Option<&[u8]> {
        let end = start.checked_add(len)?;
        if end > self.written() {
            return None;
        }
        // SAFETY: the range lies below `written <= self.len`, so it is mapped (by `from_raw`'s promise, while
        // `owner` lives) and immutable (LogWriter writes at or above the watermark only).
        Some(unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(start as usize), len as usize) })
    }

    /// Where the mapping begins.
    pub(super) fn base(&self) -> *const u8 {
        self.base.as_ptr()
    }

    /// Asks the processor to fetch the cache line at an offset. Any offset is allowed.
    #[inline]
    pub fn prefetch(&self, offset: u64) {
        if offset < self.len {
            // SAFETY: the offset is inside the mapping.
            prefetch_line(unsafe { self.base.as_ptr().add(offset as usize) });
        }
    }

    /// Faults a byte range in for writing.
    pub(crate) fn populate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        debug_assert!(offset + bytes <= self.len);
        self.owner.populate(offset as usize, bytes as usize)
    }
}

impl Debug for LogMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogMap").field("bytes", &self.len).field("written", &self.written()).finish_non_exhaustive()
    }
}

/// The one writer of a [`LogMap`]: appends at its end and publishes what it wrote.
#[derive(Debug)]
pub struct LogWriter {
    map: Arc<LogMap>,
    /// The next byte to write. At or above the map's watermark.
    at: u64,
}

impl LogWriter {
    /// Makes the map's writer. Takes the map by value, so there can be no second one.
    pub(crate) fn new(map: LogMap) -> Self {
        let at = map.written();
        LogWriter { map: Arc::new(map), at }
    }

    /// The map, for readers.
    pub(crate) fn map(&self) -> &Arc<LogMap> {
        &self.map
    }

    /// The offset of the next byte.
    #[inline]
    pub(crate) fn position(&self) -> u64 {
        self.at
    }

    /// Bytes left.
    #[inline]
    pub(crate) fn room(&self) -> u64 {
        self.map.len - self.at
    }

    /// Appends bytes; they become readable with [`publish`](Self::publish).
    ///
    /// # Panics
    /// If they do not fit: callers compare with [`room`](Self::room) first.
    #[inline]
    pub(crate) fn put(&mut self, bytes: &[u8]) {
        assert!(bytes.len() as u64 <= self.room(), "append past the end of a segment");
        // SAFETY: the target range is inside the mapping (just checked), at or above the watermark, so no
        // shared slice covers it; `&mut self` of the single writer excludes other stores; a source slice of
        // this map lies below the watermark and cannot overlap.
        unsafe {
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.map.base.as_ptr().add(self.at as usize), bytes.len());
        }
        self.at += bytes.len() as u64;
    }

    /// Appends bytes that are in the file already, at this place, because they were written there.
    ///
    /// # Panics
    /// If the mapping ends before them.
    pub(crate) fn adopt(&mut self, bytes: u64) {
        assert!(bytes <= self.room(), "bytes past the end of a segment");
        self.at += bytes;
    }

    /// Zeroes what lies behind the last byte, which stays the last one.
    ///
    /// # Panics
    /// If the mapping ends before the zeroes do.
    pub(crate) fn wipe(&mut self, bytes: u64) {
        let (at, zeroes) = (self.at, [0; 4096]);
        let mut left = bytes;
        while left > 0 {
            let piece = left.min(zeroes.len() as u64);
            self.put(zeroes.split_at(piece as usize).0);
            left -= piece;
        }
        self.at = at;
    }

    /// Makes everything appended so far readable.
    #[inline]
    pub(crate) fn publish(&mut self) {
        self.map.written.store(self.at, Ordering::Release);
    }
}

/// Asks the processor to fetch a cache line; any address is allowed.
#[inline(always)]
pub(crate) fn prefetch_line(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, whatever the address; SSE is part of x86-64.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}

/// [`prefetch_line`] for the line that holds a word.
#[inline(always)]
pub(crate) fn prefetch_word(word: &AtomicU64) {
    prefetch_line(std::ptr::from_ref(word).cast());
}
