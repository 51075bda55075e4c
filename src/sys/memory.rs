//! Mappings that are ordinary memory, for the simulated disks of the tests. Nothing in the store uses them.

use std::fmt::{self, Debug};
use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
// The log's bytes are plain memory to everybody but the simulated disk.
use std::sync::atomic::{AtomicU64 as PlainU64, Ordering};

use super::map::{IndexMap, LogMap, MapOwner};
use crate::sync::AtomicU64;

/// Memory for the pages of an index, shared by the [`IndexMap`] made of it and the disk that made it.
#[doc(hidden)]
#[derive(Clone)]
pub struct IndexMemory(Arc<[AtomicU64]>);

impl IndexMemory {
    /// Zeroes; `bytes` is a multiple of 8.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        // The layers make this memory at each open, in debug builds too: zeroes as a whole, not word by word.
        IndexMemory(bytemuck::zeroed_slice_box(bytes / 8).into())
    }

    /// The memory. Whoever has it may store into it at any time: the map is accessed as atomics only.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        &self.0
    }

    /// A mapping of this memory. `advise` does what the kernel would do to a range (offset and length in bytes).
    pub fn map(&self, advise: Box<Advise>) -> IndexMap {
        let memory = NonNull::from(&*self.0).cast::<u8>();
        let owner = IndexOwner { _memory: self.clone(), advise };
        // SAFETY: a slice of `AtomicU64` is aligned to 8 and writable through `&`; `owner` keeps it alive; it
        // can be reached as atomics only, here and through `words`.
        unsafe { IndexMap::from_raw(memory, self.0.len() * 8, Box::new(owner)) }
    }
}

impl Debug for IndexMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IndexMemory").field("bytes", &(self.0.len() * 8)).finish()
    }
}

/// What is to become of a part of an index mapping.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Private copies are dropped: later reads see the file.
    DropPrivate,
    /// The memory is given back: it reads as zeroes, or as the file does.
    Discard,
}

/// Carries out an [`Advice`] for a range: offset and length in bytes.
#[doc(hidden)]
pub type Advise = dyn Fn(Advice, usize, usize) -> io::Result<()> + Send + Sync;

struct IndexOwner {
    _memory: IndexMemory,
    advise: Box<Advise>,
}

impl MapOwner for IndexOwner {
    fn populate(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn drop_private(&self, offset: usize, bytes: usize) -> io::Result<()> {
        (self.advise)(Advice::DropPrivate, offset, bytes)
    }

    fn discard(&self, offset: usize, bytes: usize) -> io::Result<()> {
        (self.advise)(Advice::Discard, offset, bytes)
    }
}

/// Zeroes, or an error: a vector that finds no memory ends the process.
///
/// # Errors
/// `OutOfMemory`.
pub(crate) fn zeroed(bytes: usize) -> io::Result<Vec<u8>> {
    bytemuck::allocation::try_zeroed_vec(bytes).map_err(|()| io::ErrorKind::OutOfMemory.into())
}

/// An empty vector with room for so many bytes, or an error.
///
/// # Errors
/// `OutOfMemory`.
pub(crate) fn reserved(bytes: usize) -> io::Result<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes).map_err(|_| io::Error::from(io::ErrorKind::OutOfMemory))?;
    Ok(memory)
}

/// Memory for a part of the log. [`map`](Self::map) makes the one mapping of it.
#[doc(hidden)]
pub struct LogMemory {
    words: Arc<[PlainU64]>,
    bytes: usize,
}

impl LogMemory {
    /// Memory of `bytes` bytes that begins with `contents` and goes on with zeroes.
    #[must_use]
    pub fn new(bytes: usize, contents: &[u8]) -> Self {
        let mut words: Box<[PlainU64]> = bytemuck::zeroed_slice_box(bytes.div_ceil(8));
        for (word, piece) in words.iter_mut().zip(contents[..contents.len().min(bytes)].chunks(8)) {
            let mut filled = [0; 8];
            filled[..piece.len()].copy_from_slice(piece);
            *word.get_mut() = u64::from_ne_bytes(filled);
        }
        LogMemory { words: words.into(), bytes }
    }

    /// A mapping of this memory, and its other side.
    pub fn map(self, written: u64) -> (LogMap, LogView) {
        let memory = NonNull::from(&*self.words).cast::<u8>();
        let bytes = self.bytes;
        let view = LogView { words: Arc::clone(&self.words), bytes };
        // SAFETY: the words cover `bytes` bytes and may be written through `&`, as they are atomics; `self`
        // keeps them alive. Nobody but the map's LogWriter writes to them: `self` is consumed, so there is one
        // map, and a `LogView` shows what that writer's file is given, above the watermark.
        let map = unsafe { LogMap::from_raw(memory, bytes, written, Box::new(self)) };
        (map, view)
    }
}

impl MapOwner for LogMemory {
    fn populate(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn drop_private(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        Ok(())
    }

    fn discard(&self, _offset: usize, _bytes: usize) -> io::Result<()> {
        Ok(())
    }
}

impl Debug for LogMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogMemory").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}

/// What a simulated disk sees of a log mapping: its kernel's side of the shared memory.
#[doc(hidden)]
pub struct LogView {
    words: Arc<[PlainU64]>,
    bytes: usize,
}

impl LogView {
    /// Bytes of the mapping.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// True while the mapping exists.
    #[must_use]
    pub fn is_mapped(&self) -> bool {
        Arc::strong_count(&self.words) > 1
    }

    /// Copies the memory from an offset (a multiple of 8) on.
    ///
    /// # Safety
    /// What another thread is appending meanwhile is seen in part, word by word, and must not be relied on.
    pub unsafe fn copy_out(&self, offset: usize, buffer: &mut [u8]) {
        assert!(offset.is_multiple_of(8) && offset + buffer.len() <= self.bytes);
        for (bytes, word) in buffer.chunks_mut(8).zip(&self.words[offset / 8..]) {
            let word = word.load(Ordering::Relaxed).to_ne_bytes();
            bytes.copy_from_slice(&word[..bytes.len()]);
        }
    }

    /// Shows bytes in the memory that were written to the file.
    ///
    /// # Safety
    /// No other thread may be appending to the mapping or reading this part of it meanwhile.
    pub unsafe fn copy_in(&self, offset: usize, bytes: &[u8]) {
        assert!(offset + bytes.len() <= self.bytes);
        for (at, byte) in (offset..).zip(bytes) {
            let word = &self.words[at / 8];
            let mut now = word.load(Ordering::Relaxed).to_ne_bytes();
            now[at % 8] = *byte;
            word.store(u64::from_ne_bytes(now), Ordering::Relaxed);
        }
    }
}

impl Debug for LogView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogView").field("bytes", &self.bytes).finish_non_exhaustive()
    }
}
