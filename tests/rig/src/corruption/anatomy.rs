//! The structures in a store's files: what docs/FORMAT.md says, written down once more.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::image::{Image, Node, PAGE};

/// The store's path on the simulated disk.
pub const STORE: &str = "/s";
/// Bytes of a page's header, and of a segment's.
pub const PAGE_HEADER: usize = 64;
/// Bytes of a segment's header.
pub const SEGMENT_HEADER: usize = 128;
/// Where the main table's entry stands in the meta stream. Behind 40 bytes follow the first pages of its extents, of which the
/// first is the first page behind the meta pages.
pub const MAIN_TABLE: usize = 104;

/// Reads a word.
#[must_use]
pub fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes)
}

/// Writes a word.
pub fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

/// The path of a file of the store.
#[must_use]
pub fn path(name: &str) -> PathBuf {
    Path::new(STORE).join(name)
}

impl Image {
    /// A file's length; 0 if there is none.
    #[must_use]
    pub fn len(&self, name: &str) -> u64 {
        let node = self.find(&path(name)).map(|node| &self.nodes[node as usize]);
        node.and_then(Node::as_file).map_or(0, |data| data.len())
    }

    /// Bytes of a file, zeroes behind its end.
    #[must_use]
    pub fn read(&self, name: &str, at: u64, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        if let Some(data) = self.find(&path(name)).and_then(|node| self.nodes[node as usize].as_file()) {
            data.read(at, &mut buffer);
        }
        buffer
    }

    /// A file's bytes.
    #[must_use]
    pub fn contents(&self, name: &str) -> Vec<u8> {
        self.read(name, 0, self.len(name) as usize)
    }

    /// Writes into a file, which gets longer if need be.
    pub fn write(&mut self, name: &str, at: u64, bytes: &[u8]) {
        if let Some(node) = self.find(&path(name))
            && let Node::File(data) = &mut self.nodes[node as usize]
        {
            let data = Arc::make_mut(data);
            data.write(at, bytes);
            data.extend(at + bytes.len() as u64);
        }
    }

    /// Sets a file's length.
    pub fn set_len(&mut self, name: &str, bytes: u64) {
        if let Some(node) = self.find(&path(name))
            && let Node::File(data) = &mut self.nodes[node as usize]
        {
            Arc::make_mut(data).set_len(bytes);
        }
    }

    /// The names in a directory of the store.
    #[must_use]
    pub fn names(&self, dir: &str) -> Vec<String> {
        let node = self.find(&path(dir)).map(|node| &self.nodes[node as usize]);
        let entries = node.and_then(Node::as_dir);
        entries.map_or_else(Vec::new, |entries| entries.keys().map(|name| format!("{dir}{name}")).collect())
    }

    /// Adds a file or directory, in the place of what has its name.
    pub fn add(&mut self, name: &str, node: Node) {
        let child = self.nodes.len() as u32;
        self.nodes.push(node);
        self.link(name, Some(child));
    }

    /// Makes a name stand for a node, or for nothing.
    pub fn link(&mut self, name: &str, node: Option<u32>) {
        let path = path(name);
        let parent = path.parent().and_then(|parent| self.find(parent));
        let last = path.file_name().and_then(|name| name.to_str());
        if let (Some(parent), Some(last)) = (parent, last)
            && let Node::Dir(entries) = &mut self.nodes[parent as usize]
        {
            let entries = Arc::make_mut(entries);
            match node {
                Some(node) => _ = entries.insert(last.into(), node),
                None => _ = entries.remove(last),
            }
        }
    }

    /// A page of the index.
    #[must_use]
    pub fn page(&self, number: u64) -> Vec<u8> {
        self.read("index", number * PAGE as u64, PAGE)
    }

    /// Writes a page of the index with the checksum that its bytes have.
    pub fn put_page(&mut self, uuid: [u8; 16], number: u64, mut page: Vec<u8>) {
        seal_page(uuid, number, &mut page);
        self.write("index", number * PAGE as u64, &page);
    }
}

/// Mends a page's checksum.
pub fn seal_page(uuid: [u8; 16], number: u64, page: &mut [u8]) {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&uuid);
    hasher.update(&number.to_le_bytes());
    hasher.update(&page[4..]);
    page[..4].copy_from_slice(&hasher.finalize().to_le_bytes());
}

/// Mends the checksum of a header, which stands at an offset of it.
pub fn seal_at(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let crc = crc32fast::hash(bytes);
    bytes[at..at + 4].copy_from_slice(&crc.to_le_bytes());
}

/// Mends a record's checksum.
pub fn seal_record(bytes: &mut [u8], salt: u64, at: u64) {
    let mixed = (salt ^ at.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    let crc = crc32fast::hash(&bytes[4..]) ^ (mixed >> 32) as u32;
    bytes[..4].copy_from_slice(&crc.to_le_bytes());
}

/// A record in a segment.
#[derive(Debug, Clone)]
pub struct Record {
    /// Number of its segment in [`Anatomy::segments`].
    pub segment: usize,
    /// Offset in the file.
    pub at: u64,
    /// Bytes up to the end of the value.
    pub len: usize,
    /// Its kind, without the bits for a large header, a table, a deadline and an aligned value.
    pub kind: u8,
}

/// Where key and value lie in a record, and where the next one begins.
#[derive(Debug, Clone)]
pub struct Parts {
    /// The key.
    pub key: std::ops::Range<usize>,
    /// The value.
    pub value: std::ops::Range<usize>,
    /// Bytes up to the next record.
    pub total: usize,
}

/// The parts of the record that begins with these bytes, at an offset of its file.
#[must_use]
pub fn parts(bytes: &[u8], offset: u64) -> Parts {
    let front = word(bytes, 0);
    let (header, key, value) = if bytes.get(4).is_none_or(|kind| kind & 0x80 == 0) {
        (8, (front >> 40 & 0xff) as usize, (front >> 48) as usize)
    } else {
        (16, (front >> 48) as usize, (word(bytes, 8) & 0xffff_ffff) as usize)
    };
    let has = |bit: u8| bytes.get(4).is_some_and(|kind| kind & bit != 0);
    let start = header + if has(0x10) { 4 } else { 0 } + if has(0x08) { 8 } else { 0 };
    let end = start + key;
    let (place, longest) = match has(0x20) {
        false => (end, end),
        true => ((offset as usize + end).next_multiple_of(16) - offset as usize, end.next_multiple_of(8) + 8),
    };
    Parts { key: start..end, value: place..place + value, total: (longest + value).next_multiple_of(8) }
}

/// A segment file.
#[derive(Debug, Clone)]
pub struct Segment {
    /// The file, below the store.
    pub name: String,
    /// The salt of its header.
    pub salt: u64,
    /// Where its records end.
    pub end: u64,
}

/// Where everything lies in one store.
#[derive(Debug, Clone)]
pub struct Anatomy {
    /// The store's uuid.
    pub uuid: [u8; 16],
    /// Home and stash buckets of a page.
    pub buckets: usize,
    /// Bytes of the meta stream, all in page 2.
    pub stream: usize,
    /// Numbers of primary, overflow and bitmap pages that are in use.
    pub primary: Vec<u64>,
    /// See [`primary`](Self::primary).
    pub overflow: Vec<u64>,
    /// See [`primary`](Self::primary).
    pub bitmaps: Vec<u64>,
    /// Page images in the journal.
    pub images: u64,
    /// All segment files with a header.
    pub segments: Vec<Segment>,
    /// Their records.
    pub records: Vec<Record>,
    /// The blob files.
    pub blobs: Vec<String>,
}

impl Anatomy {
    /// Looks at a store that is whole.
    ///
    /// # Panics
    /// If it is not, or not of the kind that the tests make.
    #[must_use]
    pub fn of(image: &Image) -> Self {
        let header = (0..2).map(|slot| image.page(slot)).max_by_key(|page| word(page, 56)).expect("two slots");
        let uuid: [u8; 16] = header[24..40].try_into().expect("16 bytes");
        let buckets = word(&header, 96) as u32 as usize + (word(&header, 96) >> 32) as usize;
        let stream = word(&image.page(2), PAGE_HEADER) as usize;
        assert!((MAIN_TABLE + 40..4032).contains(&stream), "these tests read one meta page");
        let first = word(&image.page(2), PAGE_HEADER + MAIN_TABLE + 40);
        let pages = image.len("index") / PAGE as u64;
        let (mut primary, mut overflow, mut bitmaps) = (Vec::new(), Vec::new(), Vec::new());
        for number in first..pages {
            let page = image.page(number);
            match (&page[4..8], word(&page, 24) >> 16 & 0xffff) {
                (b"BKT1", 0) => primary.push(number),
                (b"BKT1", _) => overflow.push(number),
                (b"MAP1", _) => bitmaps.push(number),
                _ => {}
            }
        }
        let mut anatomy = Anatomy {
            uuid,
            buckets,
            stream,
            primary,
            overflow,
            bitmaps,
            images: word(&image.read("journal", 0, PAGE), 48),
            segments: Vec::new(),
            records: Vec::new(),
            blobs: Vec::new(),
        };
        for name in image.names("log-1/") {
            if name.ends_with(".blob") {
                anatomy.blobs.push(name);
            } else if name.ends_with(".log") {
                anatomy.add_segment(image, name);
            }
        }
        anatomy
    }

    fn add_segment(&mut self, image: &Image, name: String) {
        let bytes = image.contents(&name);
        if bytes.len() < SEGMENT_HEADER || bytes[..8] != *b"tophLOG1" {
            return;
        }
        let salt = word(&bytes, 40);
        let mut at = SEGMENT_HEADER;
        while at + 8 <= bytes.len() {
            let Parts { value, total, .. } = parts(&bytes[at..], at as u64);
            if at + value.end > bytes.len() {
                break;
            }
            let mut copy = bytes[at..at + value.end].to_vec();
            seal_record(&mut copy, salt, at as u64);
            if copy[..4] != bytes[at..at + 4] {
                break;
            }
            let (segment, kind) = (self.segments.len(), copy[4] & 0x47);
            self.records.push(Record { segment, at: at as u64, len: copy.len(), kind });
            at += total;
        }
        self.segments.push(Segment { name, salt, end: at as u64 });
    }

    /// The bytes that mean something: (file, first byte, end). Everything else is unused or filled with zeroes.
    #[must_use]
    pub fn regions(&self, image: &Image) -> Vec<(String, u64, u64)> {
        let index = "index".to_string();
        let page = |number: u64, bytes: usize| {
            let from = number * PAGE as u64;
            (index.clone(), from, from + bytes as u64)
        };
        let mut regions = vec![page(0, 104), page(1, 104), page(2, PAGE_HEADER + self.stream)];
        regions.extend(self.bitmaps.iter().map(|&number| page(number, PAGE_HEADER + 16)));
        let pages = self.primary.iter().chain(&self.overflow);
        regions.extend(pages.map(|&number| page(number, PAGE_HEADER + self.buckets * 64)));
        let journal =
            |block: u64, bytes: u64| ("journal".to_string(), block * PAGE as u64, block * PAGE as u64 + bytes);
        regions.push(journal(0, 64));
        regions.extend((1..=self.images).map(|block| journal(block, (PAGE_HEADER + self.buckets * 64) as u64)));
        regions.push(journal(self.images + 1, 56));
        regions.extend(
            self.segments
                .iter()
                .map(|segment| (segment.name.clone(), 0, (segment.end + 64).min(image.len(&segment.name)))),
        );
        regions.extend(self.blobs.iter().map(|blob| (blob.clone(), 0, image.len(blob))));
        regions
    }

    /// Mends the checksum of the structure that holds a byte of a file.
    pub fn reseal(&self, image: &mut Image, file: &str, at: u64) {
        let (block, page) = (at / PAGE as u64, PAGE as u64);
        match file {
            "index" if block < 2 => {
                let mut slot = image.page(block);
                seal_at(&mut slot, 16);
                image.write(file, block * page, &slot);
            }
            "index" => image.put_page(self.uuid, block, image.page(block)),
            "journal" => self.reseal_journal(image),
            _ if file.ends_with(".blob") => {
                let mut header = image.read(file, 0, 64);
                seal_at(&mut header, 12);
                image.write(file, 0, &header);
            }
            _ if at < SEGMENT_HEADER as u64 => {
                let mut header = image.read(file, 0, SEGMENT_HEADER);
                seal_at(&mut header, 12);
                image.write(file, 0, &header);
            }
            _ => self.reseal_records(image, file),
        }
    }

    /// Mends everything in the journal.
    fn reseal_journal(&self, image: &mut Image) {
        let page = PAGE as u64;
        let mut checksum = crc32fast::Hasher::new();
        for block in 1..=self.images {
            let mut bytes = image.read("journal", block * page, PAGE);
            let number = word(&bytes, 8);
            seal_page(self.uuid, number, &mut bytes);
            checksum.update(&bytes[..4]);
            image.write("journal", block * page, &bytes);
        }
        let mut head = image.read("journal", 0, PAGE);
        seal_at(&mut head, 12);
        checksum.update(&head);
        image.write("journal", 0, &head);
        let mut trailer = image.read("journal", (self.images + 1) * page, PAGE);
        put(&mut trailer, 48, checksum.finalize().into());
        seal_at(&mut trailer, 12);
        image.write("journal", (self.images + 1) * page, &trailer);
    }

    /// Mends all records of a segment, one after the other as their lengths lead, as long as they have a kind.
    fn reseal_records(&self, image: &mut Image, file: &str) {
        let mut bytes = image.contents(file);
        let Some(salt) = self.segments.iter().find(|segment| segment.name == file).map(|segment| segment.salt) else {
            return;
        };
        let mut at = SEGMENT_HEADER;
        while at + 8 <= bytes.len() && bytes[at + 4] != 0 {
            let Parts { value, total, .. } = parts(&bytes[at..], at as u64);
            if at + value.end > bytes.len() {
                break;
            }
            seal_record(&mut bytes[at..at + value.end], salt, at as u64);
            at += total;
        }
        image.write(file, 0, &bytes);
    }
}
