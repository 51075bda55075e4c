//! What is mapped: the log's files, through which the store writes, and private mappings of the index.

use std::sync::{Arc, Weak};

use tophash::sys::{Advice, IndexMemory, LogView};

use super::World;
use crate::image::{NodeId, PAGE};

/// A private mapping of a file.
#[derive(Debug)]
pub(super) struct PrivateMap {
    node: NodeId,
    /// Where in the file it begins, in pages.
    first: u64,
    memory: IndexMemory,
    /// Pages that still show the file (no private copy was made).
    clean: Vec<bool>,
    /// Pages that have the file behind them; the others are anonymous memory.
    backed: Vec<bool>,
    alive: Weak<()>,
    number: u64,
}

impl World {
    /// The bytes that a mapping of the log begins with.
    pub(crate) fn bytes(&mut self, node: NodeId, bytes: usize) -> Vec<u8> {
        self.look_at_logs(Some(node));
        let data = self.file(node);
        assert!(bytes as u64 <= data.len().next_multiple_of(PAGE as u64), "a mapping past the end of the file");
        let mut buffer = vec![0; bytes];
        data.read(0, &mut buffer);
        buffer
    }

    /// A mapping through which the store may write from now on.
    pub(crate) fn watch(&mut self, node: NodeId, view: LogView) {
        self.logs.push((node, view));
    }

    /// Finds out what was stored through mappings since the last look.
    #[allow(unsafe_code)]
    pub(super) fn look_at_logs(&mut self, node: Option<NodeId>) {
        if self.logs.is_empty() {
            return;
        }
        let logs = std::mem::take(&mut self.logs);
        for (n, view) in &logs {
            if node.is_some_and(|node| node != *n) {
                continue;
            }
            let mut page = [0; PAGE];
            for at in (0..view.bytes()).step_by(PAGE) {
                let bytes = &mut page[..PAGE.min(view.bytes() - at)];
                // SAFETY: the bytes are read as atomic words. A thread that appends beside this writes above the
                // watermark only; what is seen there is what a kernel's writeback would see, and no record counts
                // before its writer has asked for a sync, which looks again.
                unsafe { view.copy_out(at, bytes) };
                let same = match self.file(*n).page((at / PAGE) as u64) {
                    Some(known) => known[..bytes.len()] == *bytes,
                    None => bytes.iter().all(|&byte| byte == 0),
                };
                if !same {
                    let end = self.file(*n).len().next_multiple_of(PAGE as u64);
                    assert!(
                        (at as u64) < end,
                        "a store behind the end of a file of the log, which a kernel answers with SIGBUS"
                    );
                    self.write_sectors(*n, at as u64, bytes);
                }
            }
        }
        // What was stored through a mapping that is gone was stored all the same: it goes when it was looked at.
        let stays = |n: NodeId, view: &LogView| view.is_mapped() || node.is_some_and(|node| node != n);
        self.logs = logs.into_iter().filter(|(n, view)| stays(*n, view)).collect();
    }

    /// A write under a writable mapping of the log, which shows it.
    #[allow(unsafe_code)]
    pub(crate) fn write_mapped(&mut self, node: NodeId, at: u64, bytes: &[u8]) {
        self.look_at_logs(Some(node));
        let views = self.logs.iter().filter(|(n, view)| *n == node && view.is_mapped());
        let mut shown = false;
        for (_, view) in views {
            // SAFETY: as above; and nobody reads what lies above the watermark.
            unsafe { view.copy_in(at as usize, bytes) };
            shown = true;
        }
        assert!(shown, "a write under a mapping that does not exist");
        self.write_seen(node, at, bytes);
    }

    /// Maps a part of a file privately. Returns the map's number, and what must live as long as the map.
    pub(crate) fn map_private(&mut self, node: NodeId, at: u64, memory: IndexMemory, fresh: bool) -> (u64, Arc<()>) {
        assert!(at.is_multiple_of(PAGE as u64));
        let (first, pages) = (at / PAGE as u64, memory.words().len() * 8 / PAGE);
        if !fresh {
            let end = at + (pages * PAGE) as u64;
            assert!(end <= self.file(node).len().next_multiple_of(PAGE as u64), "a mapping past the end of the file");
            (0..pages).for_each(|page| self.show(node, &memory, first, page));
        }
        self.privates.retain(|map| map.alive.strong_count() > 0);
        let alive = Arc::new(());
        self.maps_made += 1;
        let number = self.maps_made;
        let (clean, backed, weak) = (vec![!fresh; pages], vec![!fresh; pages], Arc::downgrade(&alive));
        self.privates.push(PrivateMap { node, first, memory, clean, backed, alive: weak, number });
        (number, alive)
    }

    /// Private copies of a range are dropped, so that it shows the file; or the range is given back.
    pub(crate) fn advise(&mut self, number: u64, advice: Advice, offset: usize, bytes: usize) {
        let Some(at) = self.privates.iter().position(|map| map.number == number) else { return };
        for page in offset / PAGE..(offset + bytes).div_ceil(PAGE) {
            let map = &mut self.privates[at];
            if advice == Advice::Discard && !map.backed[page] {
                let words = &map.memory.words()[page * PAGE / 8..(page + 1) * PAGE / 8];
                words.iter().for_each(|word| word.store(0, std::sync::atomic::Ordering::Relaxed));
                continue;
            }
            (map.clean[page], map.backed[page]) = (true, true);
            let (node, first, memory) = (map.node, map.first, map.memory.clone());
            self.show(node, &memory, first, page);
        }
    }

    /// Copies a page of the file into a mapping.
    fn show(&self, node: NodeId, memory: &IndexMemory, first: u64, page: usize) {
        let words = &memory.words()[page * PAGE / 8..(page + 1) * PAGE / 8];
        match self.file(node).page(first + page as u64) {
            Some(bytes) => {
                for (word, bytes) in words.iter().zip(bytes.as_chunks::<8>().0) {
                    word.store(u64::from_le_bytes(*bytes), std::sync::atomic::Ordering::Relaxed);
                }
            }
            None => words.iter().for_each(|word| word.store(0, std::sync::atomic::Ordering::Relaxed)),
        }
    }

    /// Before a write: pages that no longer show the file were copied by the store.
    pub(super) fn note_private(&mut self, node: NodeId, at: u64, len: usize) {
        let mut privates = std::mem::take(&mut self.privates);
        for map in privates.iter_mut().filter(|map| map.node == node) {
            for page in pages_of(map, at, len) {
                if map.clean[page] {
                    map.clean[page] = self.shows(node, map, page);
                }
            }
        }
        self.privates = privates;
    }

    fn shows(&self, node: NodeId, map: &PrivateMap, page: usize) -> bool {
        let words = &map.memory.words()[page * PAGE / 8..(page + 1) * PAGE / 8];
        let load = |word: &std::sync::atomic::AtomicU64| word.load(std::sync::atomic::Ordering::Relaxed);
        match self.file(node).page(map.first + page as u64) {
            Some(bytes) => {
                words.iter().zip(bytes.as_chunks::<8>().0).all(|(word, bytes)| load(word) == u64::from_le_bytes(*bytes))
            }
            None => words.iter().all(|word| load(word) == 0),
        }
    }

    /// After a write: clean pages show it, or never will.
    pub(super) fn show_private(&mut self, node: NodeId, at: u64, len: usize) {
        let mut privates = std::mem::take(&mut self.privates);
        for map in privates.iter_mut().filter(|map| map.node == node) {
            for page in pages_of(map, at, len) {
                if map.clean[page] {
                    if !self.threads && self.random.one_in(2) {
                        self.show(node, &map.memory, map.first, page);
                    } else {
                        map.clean[page] = false;
                    }
                }
            }
        }
        self.privates = privates;
    }
}

/// The pages of a mapping that a write touches.
fn pages_of(map: &PrivateMap, at: u64, len: usize) -> std::ops::Range<usize> {
    let end = (at + len as u64).div_ceil(PAGE as u64);
    let inside = |page: u64| (page.saturating_sub(map.first) as usize).min(map.clean.len());
    inside(at / PAGE as u64)..inside(end)
}
