//! Making stores, and reaching into their files: what docs/FORMAT says, written down a second time.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use tophash::verify::{Finding, Report};
use tophash::{Options, Store, SyncPolicy, Tuning};

pub const PAGE: usize = 4096;

/// Pages of 24 slots, one page at first, no threads: growth, overflow and blobs come early.
pub fn tiny() -> Tuning {
    Tuning {
        level_min: 0,
        home_buckets: 2,
        stash_buckets: 1,
        overflow_log2_min: 1,
        background: false,
        blob_bytes_min: 600,
        hash_key: Some((1, 2)),
        ..Tuning::default()
    }
}

pub fn options() -> Options {
    Options::new().tuning(tiny()).segment_bytes(16 << 10).checkpoint_bytes(1 << 30).sync(SyncPolicy::Manual)
}

/// A small source of numbers that look random.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        (self.next() >> 16) % n
    }
}

/// Copies a store's files as they stand: what a killed process leaves.
pub fn copy_store(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_store(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

pub fn verify(path: &Path) -> Report {
    for _ in 0..200 {
        match tophash::verify::verify(path) {
            // Another test of this process is just starting a child, which has our locks until it is another
            // program.
            Err(tophash::Error::Locked { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Ok(report) => return report,
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
    panic!("{} stays locked", path.display());
}

/// Verifies a store in which nothing may be found, not even something harmless.
#[track_caller]
pub fn verify_clean(path: &Path) -> Report {
    let report = verify(path);
    assert!(report.findings.is_empty() && report.findings_total == 0, "{:#?}", report.findings);
    assert!(report.is_clean());
    report
}

/// The files of a store.
pub struct Files {
    pub path: PathBuf,
}

pub fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

pub fn put(bytes: &mut [u8], at: usize, word: u64) {
    bytes[at..at + 8].copy_from_slice(&word.to_le_bytes());
}

/// An entry of the segment table.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub sequence: u32,
    pub slot: u32,
    pub salt: u64,
    pub end: u64,
    /// Where the entry stands in the stream.
    pub at: usize,
}

/// What the meta stream says.
#[derive(Debug, Clone)]
pub struct Meta {
    /// The main one first.
    pub tables: Vec<TableMeta>,
    pub segments: Vec<Entry>,
}

/// Without a table, a question is one about the main one.
impl std::ops::Deref for Meta {
    type Target = TableMeta;

    fn deref(&self) -> &TableMeta {
        &self.tables[0]
    }
}

/// A table of the meta stream.
#[derive(Debug, Clone)]
pub struct TableMeta {
    pub id: u32,
    pub growth: u64,
    pub primary: Vec<u64>,
    pub overflow: Vec<u64>,
    pub log2: (u32, u32),
    /// Where its entry stands in page 2.
    pub at: usize,
}

/// Where the end page stands in page 2, and the parts of a table's entry, counted from its beginning.
pub const END_PAGE: usize = 64 + 8;
pub const GROWTH: usize = 8;
pub const RECORDS: usize = 16;
pub const EXTENTS: usize = 40;

impl TableMeta {
    pub fn level(&self) -> u32 {
        (self.growth & 63) as u32
    }

    pub fn cursor(&self) -> u64 {
        self.growth >> 16
    }

    fn place(firsts: &[u64], log2: u32, page: u64) -> u64 {
        let (group, offset, pages) = if page >> log2 == 0 {
            (0, page, 1u64 << log2)
        } else {
            let bit = page.ilog2();
            ((bit - log2 + 1) as usize, page - (1 << bit), 1u64 << bit)
        };
        firsts[group] + pages.div_ceil(504 * 64) + offset
    }

    /// The number in the file of a primary page.
    pub fn primary_page(&self, page: u64) -> u64 {
        Self::place(&self.primary, self.log2.0, page)
    }

    /// The number in the file of an overflow page.
    pub fn overflow_page(&self, page: u64) -> u64 {
        Self::place(&self.overflow, self.log2.1, page)
    }

    /// Primary pages in use.
    pub fn pages(&self) -> u64 {
        (1 << self.level()) + self.cursor()
    }
}

impl Files {
    pub fn new(path: &Path) -> Self {
        Files { path: path.to_path_buf() }
    }

    pub fn index(&self) -> PathBuf {
        self.path.join("index")
    }

    pub fn segment(&self, sequence: u32) -> PathBuf {
        self.path.join(format!("log-1/{sequence:08}.log"))
    }

    /// The log's files of a kind, sorted.
    pub fn log_files(&self, extension: &str) -> Vec<PathBuf> {
        let names = fs::read_dir(self.path.join("log-1")).unwrap().map(|entry| entry.unwrap().path());
        let mut files: Vec<_> = names.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
        files.sort();
        files
    }

    pub fn read(&self, file: &Path, at: u64, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        File::open(file).unwrap().read_exact_at(&mut buffer, at).unwrap();
        buffer
    }

    /// Writes other bytes than there were: those, or where one is there already, its complement. Checksums are random, because
    /// salts are.
    pub fn damage(&self, file: &Path, at: u64, bytes: &[u8]) {
        let there = self.read(file, at, bytes.len());
        let others: Vec<u8> =
            bytes.iter().zip(there).map(|(&byte, there)| if byte == there { !byte } else { byte }).collect();
        self.write(file, at, &others);
    }

    pub fn write(&self, file: &Path, at: u64, bytes: &[u8]) {
        fs::OpenOptions::new().write(true).open(file).unwrap().write_all_at(bytes, at).unwrap();
    }

    pub fn page(&self, number: u64) -> Vec<u8> {
        self.read(&self.index(), number * PAGE as u64, PAGE)
    }

    /// The number of the header slot that counts, and its bytes.
    pub fn header(&self) -> (u64, Vec<u8>) {
        (0..2).map(|slot| (slot, self.page(slot))).max_by_key(|(_, page)| word(page, 56)).unwrap()
    }

    pub fn uuid(&self) -> [u8; 16] {
        self.page(0)[24..40].try_into().unwrap()
    }

    pub fn generation(&self) -> u64 {
        word(&self.header().1, 64)
    }

    /// Writes a page with the checksum that its bytes have.
    pub fn write_page(&self, number: u64, page: &mut [u8]) {
        let crc = page_crc(self.uuid(), number, page);
        page[..4].copy_from_slice(&crc.to_le_bytes());
        self.write(&self.index(), number * PAGE as u64, page);
    }

    /// Changes a page and mends its checksum.
    pub fn edit_page(&self, number: u64, edit: impl FnOnce(&mut [u8])) {
        let mut page = self.page(number);
        edit(&mut page);
        self.write_page(number, &mut page);
    }

    /// Changes a header slot and mends its checksum.
    pub fn edit_header(&self, slot: u64, edit: impl FnOnce(&mut [u8])) {
        let mut page = self.page(slot);
        edit(&mut page);
        page[16..20].fill(0);
        let crc = crc32fast::hash(&page);
        page[16..20].copy_from_slice(&crc.to_le_bytes());
        self.write(&self.index(), slot * PAGE as u64, &page);
    }

    pub fn meta(&self) -> Meta {
        let page = self.page(2);
        let stream = &page[64..];
        assert!(word(stream, 0) <= 4032, "these tests read one meta page");
        let list = |from: usize, n: usize| (0..n).map(|i| word(stream, from + 8 * i)).collect::<Vec<_>>();
        let mut at = 104;
        let mut tables = Vec::new();
        for _ in 0..word(stream, 64) {
            let (front, counts) = (word(stream, at), word(stream, at + 32));
            let (primary, overflow) = (counts as u32 as usize, (counts >> 32) as usize);
            tables.push(TableMeta {
                id: front as u32,
                growth: word(stream, at + GROWTH),
                primary: list(at + EXTENTS, primary),
                overflow: list(at + EXTENTS + 8 * primary, overflow),
                log2: ((front >> 32 & 0xff) as u32, (front >> 40 & 0xff) as u32),
                at: at + 64,
            });
            at += EXTENTS + 8 * (primary + overflow);
        }
        let segments_at = at;
        let segments = (0..word(stream, 72) as usize).map(|i| {
            let at = segments_at + 48 * i;
            let first = word(stream, at);
            let (sequence, slot) = (first as u32, (first >> 32) as u32);
            Entry { sequence, slot, salt: word(stream, at + 8), end: word(stream, at + 24), at: at + 64 }
        });
        Meta { tables, segments: segments.collect() }
    }

    /// The first page behind the meta pages, where the first extent begins.
    pub fn first_page(&self) -> u64 {
        self.meta().tables.iter().flat_map(|table| table.primary.iter().chain(&table.overflow)).copied().min().unwrap()
    }

    /// Live slots of a page: (slot, word).
    pub fn slots(&self, number: u64) -> Vec<(u32, u64)> {
        live_slots(&self.page(number))
    }

    /// The first primary page in use that `wanted` likes: (page, number in the file).
    pub fn find_primary(&self, wanted: impl Fn(&[u8]) -> bool) -> (u64, u64) {
        self.find_primary_of(&self.meta(), wanted)
    }

    /// The same in one table.
    pub fn find_primary_of(&self, meta: &TableMeta, wanted: impl Fn(&[u8]) -> bool) -> (u64, u64) {
        let numbers = (0..meta.pages()).map(|page| (page, meta.primary_page(page)));
        let mut found = numbers.filter(|&(_, number)| {
            let page = self.page(number);
            page[4..8] == *b"BKT1" && wanted(&page)
        });
        found.next().expect("no such page in this store")
    }

    /// All records of a segment up to its end.
    pub fn records(&self, entry: &Entry) -> Vec<Record> {
        let file = self.segment(entry.sequence);
        let bytes = self.read(&file, 0, entry.end as usize);
        let (mut at, mut records) = (128usize, Vec::new());
        while at < bytes.len() {
            let (kind, front) = (bytes[at + 4] & 0x47, word(&bytes, at));
            assert_eq!(bytes[at + 4] & 0x20, 0, "these tests make no aligned values");
            let (header, key, value) = if bytes[at + 4] & 0x80 == 0 {
                (8, (front >> 40 & 0xff) as usize, (front >> 48) as usize)
            } else {
                (16, (front >> 48) as usize, word(&bytes, at + 8) as usize)
            };
            let table = if bytes[at + 4] & 0x10 == 0 { 0 } else { word(&bytes, at + header) as u32 };
            let header = if bytes[at + 4] & 0x10 == 0 { header } else { header + 4 };
            let header = if bytes[at + 4] & 0x08 == 0 { header } else { header + 8 };
            let (key_at, len) = (at + header, header + key + value);
            records.push(Record {
                file: file.clone(),
                salt: entry.salt,
                at: at as u64,
                address: u64::from(entry.slot) << 27 | at as u64 >> 3,
                kind,
                table,
                len,
                value_at: (key_at + key) as u64,
                key: bytes[key_at..key_at + key].to_vec(),
            });
            at = (at + len).next_multiple_of(8);
        }
        records
    }

    /// All records of all segments that the checkpoint knows.
    pub fn all_records(&self) -> Vec<Record> {
        self.meta().segments.iter().flat_map(|entry| self.records(entry)).collect()
    }

    /// The slot that holds an address: (page number in the file, slot).
    pub fn slot_of(&self, address: u64) -> Option<(u64, u32)> {
        let pages = fs::metadata(self.index()).unwrap().len() / PAGE as u64;
        (self.first_page()..pages).find_map(|number| {
            let page = self.page(number);
            let is_it = |&(_, word): &(u32, u64)| word & ((1 << 39) - 1) == address;
            (page[4..8] == *b"BKT1").then(|| live_slots(&page).into_iter().find(is_it))?.map(|(slot, _)| (number, slot))
        })
    }

    /// Changes a record's bytes and mends its checksum.
    pub fn edit_record(&self, record: &Record, edit: impl FnOnce(&mut [u8])) {
        let mut bytes = self.read(&record.file, record.at, record.len);
        edit(&mut bytes);
        let mixed = (record.salt ^ record.at.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
        let crc = crc32fast::hash(&bytes[4..]) ^ (mixed >> 32) as u32;
        bytes[..4].copy_from_slice(&crc.to_le_bytes());
        self.write(&record.file, record.at, &bytes);
    }
}

/// A record of the log.
#[derive(Debug, Clone)]
pub struct Record {
    pub file: PathBuf,
    pub salt: u64,
    pub at: u64,
    /// As a slot names it.
    pub address: u64,
    pub kind: u8,
    /// The id of its table.
    pub table: u32,
    /// Up to the end of the value.
    pub len: usize,
    pub value_at: u64,
    pub key: Vec<u8>,
}

/// Live slots of a page: (slot, word).
pub fn live_slots(page: &[u8]) -> Vec<(u32, u64)> {
    (0..504).map(|i| (i, word(page, 64 + 8 * i as usize))).filter(|&(_, word)| word > 1).collect()
}

/// The home bucket of a slot among so many.
pub fn home(slot: u64, homes: u64) -> u64 {
    ((slot >> 48) * homes) >> 16
}

pub fn page_crc(uuid: [u8; 16], number: u64, page: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&uuid);
    hasher.update(&number.to_le_bytes());
    hasher.update(&page[4..]);
    hasher.finalize()
}

/// The finding of a kind, which must be there.
#[track_caller]
pub fn finding<'r>(report: &'r Report, kind: &str) -> &'r Finding {
    let found = report.findings.iter().find(|finding| finding.kind == kind);
    found.unwrap_or_else(|| panic!("no {kind:?} in {:#?}", report.findings))
}

/// A store with everything in it: overflow, growth under way, tombstones, batches, blobs, many segments.
pub fn mixed_store(path: &Path) -> Store {
    let tuning = Tuning { large_part_permille: 0, rewrite_permille: 125, ..tiny() };
    let store = options().tuning(tuning).open(path).unwrap();
    let mut batch = tophash::Batch::new();
    for i in 0..700u32 {
        store.insert(i.to_le_bytes(), vec![i as u8; (i % 90) as usize]).unwrap();
        if i % 50 == 0 {
            store.insert(format!("blob {i}"), vec![i as u8; 700 + i as usize]).unwrap();
            batch.clear();
            (0..10u32).for_each(|j| _ = batch.insert((i + 10_000 * j).to_be_bytes(), vec![3; 20]));
            batch.remove((i / 2).to_le_bytes());
            store.apply(&batch).unwrap();
        }
        if i % 7 == 0 {
            store.insert((i / 3).to_le_bytes(), b"again").unwrap();
            store.remove((i / 5).to_le_bytes()).unwrap();
        }
    }
    // Its blob is unlinked by the first checkpoint and forgotten by the second.
    store.remove("blob 100").unwrap();
    store.checkpoint().unwrap();
    let keys: Vec<_> = (0..40u32).map(|i| (i * 17).to_le_bytes()).collect();
    store.remove_many(&keys).unwrap();
    let mut next = 1000u32;
    while !store.stats().index.growing {
        store.insert(next.to_le_bytes(), b"until it grows").unwrap();
        next += 1;
    }
    // Removals without repair, which leave tombstones in full buckets. They help growth along: a few at most.
    let keys: Vec<_> = (1000..next).step_by(9).take(4).map(u32::to_le_bytes).collect();
    store.remove_many(&keys).unwrap();
    while !store.stats().index.growing || store.stats().index.evacuated_pages < 3 {
        store.insert(next.to_le_bytes(), b"until it grows").unwrap();
        next += 1;
    }
    store
}

/// What a store with tables goes through, a step for each call. Nothing of it is left to chance.
pub const STEPS: [fn(&Store); 11] = [
    |store| put_many(store, 0..60),
    |store| put_many(&store.table("a").unwrap(), 0..90),
    |store| {
        put_many(&store.table("b").unwrap(), 30..100);
        store.table("b").unwrap().insert("large", vec![5; 700]).unwrap();
    },
    |store| put_many(&store.table("dropped").unwrap(), 0..70),
    |store| store.table("b").unwrap().clear().unwrap(),
    |store| put_many(&store.table("b").unwrap(), 0..12),
    |store| assert!(store.drop_table("dropped").unwrap()),
    |store| {
        let (a, empty) = (store.table("a").unwrap(), store.table("empty").unwrap());
        a.remove_many(&(0..9u32).map(u32::to_le_bytes).collect::<Vec<_>>()).unwrap();
        a.delete(30u32.to_le_bytes()).unwrap();
        empty.insert("k", "v").unwrap();
        empty.remove("k").unwrap();
    },
    |store| {
        let mut batch = tophash::Batch::new();
        batch.insert("batch", "main").remove(3u32.to_le_bytes());
        batch.table(&store.table("a").unwrap()).insert("batch", "a").insert("large", vec![6; 800]);
        batch.table(&store.table("b").unwrap()).insert("batch", "b");
        store.apply(&batch).unwrap();
    },
    |store| store.clear().unwrap(),
    |store| {
        put_many(store, 200..230);
        // Another table of the name.
        put_many(&store.table("dropped").unwrap(), 60..80);
        assert!(store.drop_table("empty").unwrap());
    },
];

fn put_many(table: &tophash::Table, keys: std::ops::Range<u32>) {
    for i in keys {
        table.insert(i.to_le_bytes(), vec![i as u8; (i % 40) as usize]).unwrap();
    }
}

/// A store that has gone through all steps, with a checkpoint before one of them.
pub fn store_with_tables(path: &Path, checkpoint_before: usize) -> Store {
    let store = options().open(path).unwrap();
    for (number, step) in STEPS.iter().enumerate() {
        if number == checkpoint_before {
            store.checkpoint().unwrap();
        }
        step(&store);
    }
    store
}

impl Meta {
    /// The table of an id.
    pub fn table(&self, id: u32) -> &TableMeta {
        self.tables.iter().find(|table| table.id == id).expect("the table")
    }
}

impl Files {
    /// The last record of the catalog for a name, and the id in it.
    pub fn catalog_record(&self, name: &str) -> (Record, u32) {
        let records = self.all_records();
        let of_name = |record: &&Record| record.table == 1 && record.kind == 1 && record.key == name.as_bytes();
        let record = records.iter().rfind(of_name).expect("a record of the catalog").clone();
        let id = self.read(&record.file, record.value_at, 4);
        (record, u32::from_le_bytes(id.try_into().unwrap()))
    }
}
