//! Memory for many page images at once.

use std::fmt::{self, Debug};
use std::io;

use memmap2::{Advice, MmapMut, MmapOptions};

use super::PAGE_BYTES;

/// Page images one behind the other, in memory that goes back to the system when the buffer is dropped. (What an allocator
/// has had for a while it keeps.)
pub(crate) struct PageBuffer {
    /// `None` if there is room for nothing.
    map: Option<MmapMut>,
    len: usize,
}

impl PageBuffer {
    /// Room for so many pages.
    pub(crate) fn new(pages: usize) -> io::Result<Self> {
        let map = match pages {
            0 => None,
            _ => Some(MmapOptions::new().len(pages * PAGE_BYTES).map_anon()?),
        };
        #[cfg(target_os = "linux")]
        if let Some(map) = &map {
            // Only advice: without huge pages it is slower.
            let _ = map.advise(Advice::HugePage);
        }
        Ok(PageBuffer { map, len: 0 })
    }

    /// Pages that it has room for in all.
    pub(crate) fn room(&self) -> usize {
        self.map.as_ref().map_or(0, |map| map.len() / PAGE_BYTES)
    }

    /// Pages in it.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes it empty.
    pub(crate) fn clear(&mut self) {
        self.len = 0;
    }

    fn pages(&mut self) -> &mut [[u8; PAGE_BYTES]] {
        self.map.as_mut().map_or(&mut [], |map| map.as_chunks_mut().0)
    }

    /// Adds a page.
    ///
    /// # Panics
    /// If there is no room for it.
    pub(crate) fn push(&mut self, page: &[u8; PAGE_BYTES]) {
        let at = self.len;
        self.pages()[at] = *page;
        self.len += 1;
    }

    /// A page, if it is there.
    pub(crate) fn get_mut(&mut self, at: usize) -> Option<&mut [u8; PAGE_BYTES]> {
        let len = self.len;
        self.pages()[..len].get_mut(at)
    }
}

impl Debug for PageBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PageBuffer").field("len", &self.len).finish_non_exhaustive()
    }
}
