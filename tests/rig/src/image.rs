//! What is on a disk: files and directories, shared page by page, so that thousands of images of one disk cost
//! hardly more than their differences.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::random::mix;

/// What a device writes as a whole, or tears.
pub const SECTOR: usize = 512;
/// What the page cache and images are divided into.
pub const PAGE: usize = 4096;

/// The number of a file or directory; the root is 0.
pub type NodeId = u32;

/// The root directory.
pub const ROOT: NodeId = 0;

#[derive(Debug)]
struct Page {
    bytes: [u8; PAGE],
    /// 0 if not computed since the last change.
    hash: AtomicU64,
}

impl Clone for Page {
    fn clone(&self) -> Self {
        Page { bytes: self.bytes, hash: AtomicU64::new(0) }
    }
}

impl Page {
    fn hash(&self) -> u64 {
        let known = self.hash.load(Ordering::Relaxed);
        if known != 0 {
            return known;
        }
        let mut lanes = [1u64, 2, 3, 4];
        for words in self.bytes.as_chunks::<32>().0 {
            for (lane, word) in lanes.iter_mut().zip(words.as_chunks::<8>().0) {
                *lane = (*lane ^ u64::from_le_bytes(*word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            }
        }
        let hash = lanes.iter().fold(7, |hash, &lane| mix(hash ^ lane)).max(1);
        self.hash.store(hash, Ordering::Relaxed);
        hash
    }
}

/// The bytes of a file.
#[derive(Debug, Clone, Default)]
pub struct FileData {
    len: u64,
    /// A page that is not there is zeroes. Pages may lie behind the length: their data was written before the
    /// length that covers them.
    pages: Vec<Option<Arc<Page>>>,
}

impl FileData {
    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True for a file of no bytes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Reads, as if zeroes followed the end.
    pub fn read(&self, mut at: u64, mut buffer: &mut [u8]) {
        while !buffer.is_empty() {
            let from = (at % PAGE as u64) as usize;
            let n = buffer.len().min(PAGE - from);
            match self.pages.get((at / PAGE as u64) as usize) {
                Some(Some(page)) => buffer[..n].copy_from_slice(&page.bytes[from..from + n]),
                _ => buffer[..n].fill(0),
            }
            buffer = &mut buffer[n..];
            at += n as u64;
        }
    }

    /// One page; `None` for zeroes.
    #[must_use]
    pub fn page(&self, number: u64) -> Option<&[u8; PAGE]> {
        self.pages.get(number as usize)?.as_ref().map(|page| &page.bytes)
    }

    /// One sector.
    #[must_use]
    pub fn sector(&self, number: u32) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        self.read(u64::from(number) * SECTOR as u64, &mut bytes);
        bytes
    }

    /// Writes, without a change of the length.
    pub fn write(&mut self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let from = (at % PAGE as u64) as usize;
            let n = bytes.len().min(PAGE - from);
            let number = (at / PAGE as u64) as usize;
            if self.pages.len() <= number {
                self.pages.resize(number + 1, None);
            }
            let page =
                self.pages[number].get_or_insert_with(|| Arc::new(Page { bytes: [0; PAGE], hash: AtomicU64::new(0) }));
            let page = Arc::make_mut(page);
            page.bytes[from..from + n].copy_from_slice(&bytes[..n]);
            *page.hash.get_mut() = 0;
            bytes = &bytes[n..];
            at += n as u64;
        }
    }

    /// Makes the file at least that long.
    pub fn extend(&mut self, len: u64) {
        self.len = self.len.max(len);
    }

    /// Sets the length. What lies behind a shorter one is gone.
    pub fn set_len(&mut self, len: u64) {
        if len < self.len {
            self.cut(len);
        }
        self.len = len;
    }

    /// Makes a page a hole.
    pub fn punch(&mut self, page: u64) {
        if let Some(page) = self.pages.get_mut(page as usize) {
            *page = None;
        }
    }

    /// Removes what lies behind the length: a file after a crash.
    pub fn cut_to_length(&mut self) {
        self.cut(self.len);
    }

    /// True if [`cut_to_length`](Self::cut_to_length) would change something.
    #[must_use]
    pub fn is_uncut(&self) -> bool {
        let pages = self.len.div_ceil(PAGE as u64) as usize;
        if self.pages.iter().skip(pages).any(Option::is_some) {
            return true;
        }
        let tail = (self.len % PAGE as u64) as usize;
        tail != 0 && self.page(self.len / PAGE as u64).is_some_and(|page| page[tail..].iter().any(|&byte| byte != 0))
    }

    fn cut(&mut self, len: u64) {
        self.pages.truncate(len.div_ceil(PAGE as u64) as usize);
        let tail = (len % PAGE as u64) as usize;
        let has_tail = tail != 0 && self.page(len / PAGE as u64).is_some();
        if has_tail {
            self.write(len, &[0; PAGE][tail..]);
        }
    }

    fn hash(&self) -> u64 {
        let mut hash = mix(self.len ^ 0x5eed);
        for (number, page) in self.pages.iter().enumerate() {
            if let Some(page) = page {
                hash = mix(hash ^ page.hash().wrapping_add(number as u64));
            }
        }
        hash
    }
}

/// A file or directory.
#[derive(Debug, Clone)]
pub enum Node {
    /// A file.
    File(Arc<FileData>),
    /// A directory: names and what they name.
    Dir(Arc<BTreeMap<Arc<str>, NodeId>>),
}

impl Node {
    /// A new, empty file.
    #[must_use]
    pub fn file() -> Self {
        Node::File(Arc::default())
    }

    /// A new, empty directory.
    #[must_use]
    pub fn dir() -> Self {
        Node::Dir(Arc::default())
    }

    /// The file, if it is one.
    #[must_use]
    pub fn as_file(&self) -> Option<&Arc<FileData>> {
        match self {
            Node::File(data) => Some(data),
            Node::Dir(_) => None,
        }
    }

    /// The directory's entries, if it is one.
    #[must_use]
    pub fn as_dir(&self) -> Option<&BTreeMap<Arc<str>, NodeId>> {
        match self {
            Node::File(_) => None,
            Node::Dir(entries) => Some(entries),
        }
    }
}

/// One change that is not durable yet.
#[derive(Debug, Clone)]
pub struct Change {
    /// The file or directory that it belongs to.
    pub node: NodeId,
    /// What it changes.
    pub kind: ChangeKind,
}

/// What a change changes.
#[derive(Debug, Clone)]
pub enum ChangeKind {
    /// A sector of a file gets other bytes.
    Sector(u32, Arc<[u8; SECTOR]>),
    /// A file gets another length.
    Len(u64),
    /// A page of a file becomes a hole.
    Hole(u64),
    /// A name appears in a directory.
    Link(Arc<str>, NodeId),
    /// A name disappears.
    Unlink(Arc<str>),
    /// A name of a directory (the number, the name) takes the place of a name in this one, in one step. Durable with
    /// this one: the file systems that stores live on never make half of a rename durable.
    Rename(NodeId, Arc<str>, Arc<str>, NodeId),
}

/// Which words of 8 bytes of a torn sector are the new ones: bit 0 is the first of the sector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tear(pub u64);

/// What a torn sector consists of.
pub const WORD: usize = 8;

impl Tear {
    /// So many words of the sector are new, the others old.
    #[must_use]
    pub fn first(words: u32) -> Self {
        Tear(u64::MAX.checked_shr(64 - words.min(64)).unwrap_or(0))
    }

    /// So many words of the sector are old, the others new.
    #[must_use]
    pub fn behind(words: u32) -> Self {
        Tear(!Tear::first(words).0)
    }

    /// The words in which two sectors differ.
    #[must_use]
    pub fn between(old: &[u8; SECTOR], new: &[u8; SECTOR]) -> Self {
        let words = old.as_chunks::<WORD>().0.iter().zip(new.as_chunks::<WORD>().0);
        Tear(words.enumerate().fold(0, |bits, (i, (old, new))| bits | u64::from(old != new) << i))
    }
}

impl Change {
    /// True for a sector's bytes.
    #[must_use]
    pub fn is_sector(&self) -> bool {
        matches!(self.kind, ChangeKind::Sector(..))
    }

    /// True if nothing stays in that sector of the file when this is done.
    pub(crate) fn erases(&self, sector: u32) -> bool {
        let at = u64::from(sector) * SECTOR as u64;
        match self.kind {
            ChangeKind::Hole(page) => at / PAGE as u64 == page,
            ChangeKind::Len(len) => at >= len,
            _ => false,
        }
    }

    /// Carries the change out. With `torn`, some words of a sector stay as they were.
    pub fn apply(&self, nodes: &mut [Node], torn: Option<Tear>) {
        if let ChangeKind::Rename(from_dir, from, _, _) = &self.kind
            && let Node::Dir(entries) = &mut nodes[*from_dir as usize]
        {
            Arc::make_mut(entries).remove(from);
        }
        match (&mut nodes[self.node as usize], &self.kind) {
            (Node::File(data), ChangeKind::Sector(sector, bytes)) => {
                let at = u64::from(*sector) * SECTOR as u64;
                let data = Arc::make_mut(data);
                let Some(Tear(new)) = torn else { return data.write(at, &bytes[..]) };
                for (i, word) in (0..).zip(bytes.as_chunks::<WORD>().0) {
                    if new >> i & 1 == 1 {
                        data.write(at + i * WORD as u64, word);
                    }
                }
            }
            (Node::File(data), ChangeKind::Len(len)) => Arc::make_mut(data).set_len(*len),
            (Node::File(data), ChangeKind::Hole(page)) => Arc::make_mut(data).punch(*page),
            (Node::Dir(entries), ChangeKind::Link(name, target)) => {
                Arc::make_mut(entries).insert(Arc::clone(name), *target);
            }
            (Node::Dir(entries), ChangeKind::Unlink(name)) => _ = Arc::make_mut(entries).remove(name),
            (Node::Dir(entries), ChangeKind::Rename(_, _, to, target)) => {
                Arc::make_mut(entries).insert(Arc::clone(to), *target);
            }
            (node, kind) => unreachable!("{kind:?} of {node:?}"),
        }
    }
}

/// A whole disk at rest.
#[derive(Debug, Clone)]
pub struct Image {
    /// Files and directories by number. Those that no directory names do not count.
    pub nodes: Vec<Node>,
}

impl Image {
    /// A disk with an empty root directory.
    #[must_use]
    pub fn empty() -> Self {
        Image { nodes: vec![Node::dir()] }
    }

    /// What a crash leaves of durable nodes and those changes that happened to reach the disk.
    pub fn after_crash<'c>(durable: &[Node], kept: impl Iterator<Item = (&'c Change, Option<Tear>)>) -> Self {
        let mut nodes = durable.to_vec();
        kept.for_each(|(change, torn)| change.apply(&mut nodes, torn));
        for node in &mut nodes {
            if let Node::File(data) = node
                && data.is_uncut()
            {
                Arc::make_mut(data).cut_to_length();
            }
        }
        Image { nodes }
    }

    /// The same without one file.
    #[must_use]
    pub fn without(&self, path: &std::path::Path) -> Option<Self> {
        self.find(path)?;
        let directory = self.find(path.parent()?)?;
        let mut image = self.clone();
        let change = Change { node: directory, kind: ChangeKind::Unlink(path.file_name()?.to_str()?.into()) };
        change.apply(&mut image.nodes, None);
        Some(image)
    }

    /// Tells images apart.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash_of(ROOT)
    }

    fn hash_of(&self, node: NodeId) -> u64 {
        match &self.nodes[node as usize] {
            Node::File(data) => data.hash(),
            Node::Dir(entries) => entries.iter().fold(11, |hash, (name, &child)| {
                let name = name.bytes().fold(hash, |hash, byte| mix(hash ^ u64::from(byte)));
                mix(name ^ self.hash_of(child).rotate_left(7))
            }),
        }
    }

    /// The node at a path.
    #[must_use]
    pub fn find(&self, path: &std::path::Path) -> Option<NodeId> {
        find(&self.nodes, path)
    }
}

/// The node at an absolute path.
pub(crate) fn find(nodes: &[Node], path: &std::path::Path) -> Option<NodeId> {
    let mut at = ROOT;
    for part in path.components() {
        let std::path::Component::Normal(name) = part else { continue };
        at = *nodes[at as usize].as_dir()?.get(name.to_str()?)?;
    }
    Some(at)
}
