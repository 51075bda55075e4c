//! A reader of format version 1, written from its description and from nothing else: no code of the store is
//! used. It trusts nothing, and panics at the first byte that is not as the description says.

use std::collections::BTreeMap;
use std::fs;
use std::hash::Hasher;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use siphasher::sip::SipHasher13;

const PAGE: usize = 4096;

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(bytes[at..at + 2].try_into().unwrap())
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
}

/// The checksum of a structure that contains it: computed with zeroes in its place.
fn crc_without(bytes: &[u8], at: usize) -> u32 {
    let mut bytes = bytes.to_vec();
    bytes[at..at + 4].fill(0);
    crc32fast::hash(&bytes)
}

/// What was met on the way, so that a test can tell whether its sample is a good one.
#[derive(Debug, Default)]
pub struct Seen {
    /// Of the main table. So are the other figures, unless they say otherwise.
    pub records_in_index: u64,
    /// What each other table holds, by its name.
    pub tables: BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>,
    /// Records of tables that were dropped or cleared after them, of those that the index or the tail leads to.
    pub dead: u64,
    /// Overflow pages of all tables.
    pub overflow_pages: u64,
    pub evacuated_pages: u64,
    pub blobs: u64,
    /// Of all tables.
    pub tail_records: u64,
    pub frames: u64,
    pub marks: u64,
    pub removals: u64,
    pub clears: u64,
    /// Records that are left out because their deadline has passed.
    pub expired: u64,
    /// The deadlines of the others, by key.
    pub deadlines: BTreeMap<Vec<u8>, u64>,
    /// Segments with deadlines in the meta data.
    pub expiring_segments: u64,
    /// The meta data's moment up to which slots of expired records were removed.
    pub swept: u64,
    /// Bytes behind the last valid record that are not zero.
    pub torn_bytes: u64,
}

struct Header {
    uuid: [u8; 16],
    hash_key: (u64, u64),
    generation: u64,
    cut: u64,
    log_dir: u64,
    homes: u64,
    stash: u64,
}

struct Segment {
    path: PathBuf,
    salt: u64,
    end: u64,
}

struct Store {
    index: Vec<u8>,
    header: Header,
    log: PathBuf,
    /// By segment slot.
    segments: BTreeMap<u32, Segment>,
    seen: Seen,
}

/// A value, when it expires, and the LSN of its record.
type Kept = (Vec<u8>, Option<u64>, u64);

/// All records, by table and key.
type Contents = BTreeMap<(u32, Vec<u8>), Kept>;

/// The table of the names, and the first one that has a name.
const CATALOG: u32 = 1;
const FIRST: u32 = 2;

/// A record.
struct Decoded<'a> {
    kind: u8,
    table: u32,
    deadline: Option<u64>,
    key: &'a [u8],
    value: &'a [u8],
    /// Where the next one begins.
    end: u64,
}

/// Everything that the store at a path holds.
pub fn read(store: &Path) -> (BTreeMap<Vec<u8>, Vec<u8>>, Seen) {
    let index = fs::read(store.join("index")).unwrap();
    let header = newest_header(&index);
    // The journal of the next generation would have to be applied first; these samples have none.
    let journal = fs::read(store.join("journal")).unwrap();
    assert_eq!((&journal[..8], u32_at(&journal, 8)), (&b"tophJNL1"[..], 1));
    assert_eq!((crc_without(&journal[..PAGE], 12), &journal[16..32]), (u32_at(&journal, 12), &header.uuid[..]));
    assert_eq!(u64_at(&journal, 32), header.generation);

    let log = store.join(format!("log-{}", header.log_dir));
    let mut store = Store { index, header, log, segments: BTreeMap::new(), seen: Seen::default() };
    let mut contents = store.read_index();
    store.read_tail(&mut contents);
    let names = names(&contents);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let mut seen = store.seen;
    let mut living = BTreeMap::new();
    seen.tables = names.values().map(|(name, _)| (name.clone(), BTreeMap::new())).collect();
    for ((table, key), (value, deadline, lsn)) in contents {
        let is_over = deadline.is_some_and(|deadline| u128::from(deadline) <= now);
        match names.get(&table) {
            _ if table == CATALOG => {}
            None if table == 0 && is_over => seen.expired += 1,
            None if table == 0 => {
                seen.deadlines.extend(deadline.map(|deadline| (key.clone(), deadline)));
                living.insert(key, value);
            }
            Some((name, cleared)) if lsn >= *cleared => {
                let table = seen.tables.get_mut(name).unwrap();
                (!is_over).then(|| table.insert(key, value));
            }
            _ => seen.dead += 1,
        }
    }
    (living, seen)
}

/// What the catalog says: names and `cleared`, by id.
fn names(contents: &Contents) -> BTreeMap<u32, (String, u64)> {
    let mut names = BTreeMap::new();
    for ((_, name), (entry, deadline, lsn)) in contents.iter().filter(|((table, _), _)| *table == CATALOG) {
        let (id, zero, cleared) = (u32_at(entry, 0), u32_at(entry, 4), u64_at(entry, 8));
        assert!((1..=255).contains(&name.len()) && id >= FIRST && zero == 0 && cleared <= *lsn && deadline.is_none());
        let name = String::from_utf8(name.clone()).unwrap();
        check_options(&entry[16..]);
        assert!(names.insert(id, (name, cleared)).is_none(), "two names of one table");
    }
    names
}

/// Options are whole, and a table has two codecs or none.
fn check_options(mut options: &[u8]) {
    let mut tags = Vec::new();
    while !options.is_empty() {
        let (tag, len) = (u16_at(options, 0), usize::from(u16_at(options, 2)));
        match tag {
            1 | 2 => assert!((3..=130).contains(&len) && std::str::from_utf8(&options[6..4 + len]).is_ok()),
            3 => assert_eq!(len, 0),
            _ => {}
        }
        tags.push(tag);
        options = &options[4 + len..];
    }
    let count = |tag| tags.iter().filter(|&&other| other == tag).count();
    assert!(count(1) < 2 && count(1) == count(2) && count(3) <= count(1), "options {tags:?}");
}

fn newest_header(index: &[u8]) -> Header {
    let valid = |&slot: &usize| {
        let page = &index[slot * PAGE..][..PAGE];
        page[..8] == *b"tophash1" && crc_without(page, 16) == u32_at(page, 16)
    };
    let slot = (0..2).filter(valid).max_by_key(|slot| u64_at(index, slot * PAGE + 56)).expect("a valid header");
    let page = &index[slot * PAGE..][..PAGE];
    assert_eq!((u32_at(page, 8), u32_at(page, 12), u32_at(page, 20)), (1, 1, 1), "versions and hash algorithm");
    assert_eq!(u64_at(page, 56) % 2, slot as u64);
    assert!(page[104..].iter().all(|&byte| byte == 0));
    Header {
        uuid: page[24..40].try_into().unwrap(),
        hash_key: (u64_at(page, 40), u64_at(page, 48)),
        generation: u64_at(page, 64),
        cut: u64_at(page, 72),
        log_dir: u64_at(page, 80),
        homes: u32_at(page, 96).into(),
        stash: u32_at(page, 100).into(),
    }
}

impl Store {
    fn hash(&self, key: &[u8]) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.header.hash_key.0, self.header.hash_key.1);
        hasher.write(key);
        hasher.finish()
    }

    /// A page of the index file that is in use.
    fn page(&self, number: u64, kind: &[u8; 4]) -> &[u8] {
        let page = &self.index[number as usize * PAGE..][..PAGE];
        let mut crc = crc32fast::Hasher::new();
        crc.update(&self.header.uuid);
        crc.update(&number.to_le_bytes());
        crc.update(&page[4..]);
        assert_eq!(crc.finalize(), u32_at(page, 0), "checksum of page {number}");
        assert_eq!((&page[4..8], u64_at(page, 8)), (&kind[..], number));
        assert!(u64_at(page, 48) <= self.header.generation);
        page
    }

    /// The index file's number of a region's page; `None` if the page was never used.
    fn locate(&self, extents: &[u64], base_log2: u32, page: u64) -> Option<u64> {
        let (group, offset, pages) = match page.checked_ilog2() {
            Some(log2) if log2 >= base_log2 => ((log2 - base_log2 + 1) as usize, page - (1 << log2), 1u64 << log2),
            _ => (0, page, 1 << base_log2),
        };
        let (first, bits) = (extents[group], (PAGE as u64 - 64) * 8);
        let bitmap = self.page(first + offset / bits, b"MAP1");
        let bit = offset % bits;
        let used = bitmap[64 + bit as usize / 8] & 1 << (bit % 8) != 0;
        used.then(|| first + pages.div_ceil(bits) + offset)
    }

    fn read_index(&mut self) -> Contents {
        // The stream in the meta pages.
        let mut stream = self.page(2, b"MET1")[64..].to_vec();
        let len = u64_at(&stream, 0) as usize;
        for number in 3.. {
            if stream.len() >= len {
                break;
            }
            stream.extend_from_slice(&self.page(number, b"MET1")[64..]);
        }
        let word = |i: usize| u64_at(&stream, i * 8);
        let mut at = 13 * 8;
        let mut tables = Vec::new();
        for _ in 0..word(8) {
            let entry = stream[at..][..40].to_vec();
            let counts = [u32_at(&entry, 32) as usize, u32_at(&entry, 36) as usize];
            let [primary, overflow] = counts;
            let firsts =
                |from: usize, count: usize| (0..count).map(|i| u64_at(&stream, from + 8 * i)).collect::<Vec<_>>();
            let extents = [firsts(at + 40, primary), firsts(at + 40 + 8 * primary, overflow)];
            assert!(u16_at(&entry, 6) == 0 && u32_at(&entry, 0) < word(3) as u32, "a table's entry");
            at += 40 + 8 * (primary + overflow);
            tables.push((entry, extents));
        }
        assert!(tables.is_sorted_by(|(a, _), (b, _)| u32_at(a, 0) < u32_at(b, 0)) && u32_at(&tables[0].0, 0) == 0);
        let mut list = |count: u64, size: usize| {
            let items: Vec<&[u8]> = stream[at..][..count as usize * size].chunks(size).collect();
            at += count as usize * size;
            items
        };
        let mut sequences = Vec::new();
        for entry in list(word(9), 48) {
            let (sequence, slot) = (u32_at(entry, 0), u32_at(entry, 4));
            let path = self.log.join(format!("{sequence:08}.log"));
            sequences.push(u64::from(sequence));
            self.segments.insert(slot, Segment { path, salt: u64_at(entry, 8), end: u64_at(entry, 24) });
        }
        list(word(10) + word(11), 8);
        let deadlines = list(word(12), 32);
        assert!(deadlines.is_sorted_by(|a, b| u64_at(a, 0) < u64_at(b, 0)), "the order of the segments' deadlines");
        for entry in &deadlines {
            assert!(sequences.contains(&u64_at(entry, 0)), "deadlines of a segment of the table");
            assert!(u64_at(entry, 8) <= u64_at(entry, 16) && u64_at(entry, 24) > 0, "first, last, and bytes");
        }
        (self.seen.expiring_segments, self.seen.swept) = (deadlines.len() as u64, word(7));
        assert_eq!(at, len, "the stream's length");

        let mut contents = Contents::new();
        for (entry, extents) in &tables {
            self.read_table(entry, extents, &mut contents);
        }
        // What a checkpoint says of a table that was cleared has nothing of before.
        let names = names(&contents);
        let is_dead =
            |(&(table, _), &(.., lsn)): (&(u32, Vec<u8>), &Kept)| names.get(&table).is_some_and(|t| lsn < t.1);
        assert!(!contents.iter().any(is_dead));
        contents
    }

    fn read_table(&mut self, entry: &[u8], [primary, overflow]: &[Vec<u64>; 2], contents: &mut Contents) {
        let (id, primary_log2, overflow_log2) = (u32_at(entry, 0), u32::from(entry[4]), u32::from(entry[5]));
        let (growth, records) = (u64_at(entry, 8), u64_at(entry, 16));
        let (level, cursor) = (growth & 63, growth >> 16);
        let page_of = |hash: u64| {
            let page = hash % (1 << level);
            if page < cursor { hash % (2 << level) } else { page }
        };
        let mut slots = 0;
        for number in 0..(1 << level) + cursor {
            let mut next = self.locate(primary, primary_log2, number);
            let mut position = 0;
            while let Some(at) = next {
                let page = self.page(at, b"BKT1").to_vec();
                assert_eq!((u64_at(&page, 16), u16_at(&page, 26)), (number, position), "owner and chain position");
                let (page_level, split_base) = (u32::from(page[24]), u32::from(page[25]));
                assert!(u64::from(page_level) <= level + 1 && split_base <= page_level);
                let buckets = (self.header.homes + self.header.stash) as usize;
                for slot in page[64..][..buckets * 64].chunks(8).map(|slot| u64_at(slot, 0)).filter(|&slot| slot > 1) {
                    assert_eq!(slot >> 39 & 1, 0, "a marked slot");
                    let address = slot & ((1 << 39) - 1);
                    let (slot_of_segment, offset) = ((address >> 27) as u32, (address & ((1 << 27) - 1)) * 8);
                    let (kind, table, deadline, key, value, lsn) = self.record_at(slot_of_segment, offset);
                    assert_eq!(table, id, "the table of a slot's record");
                    let hash = self.hash(&key);
                    assert_eq!((page_of(hash), hash >> 48), (number, slot >> 48), "the slot's page and fingerprint");
                    assert_eq!(hash >> split_base & 0xff, slot >> 40 & 0xff, "the slot's split bits");
                    let value = self.value(kind, value);
                    assert!(contents.insert((id, key), (value, deadline, lsn)).is_none(), "a key in two slots");
                    slots += 1;
                }
                next = u64_at(&page, 40).checked_sub(1).map(|overflow_page| {
                    let at = self.locate(overflow, overflow_log2, overflow_page);
                    at.expect("an overflow page in use")
                });
                self.seen.overflow_pages += u64::from(position > 0);
                position += 1;
            }
        }
        assert_eq!(slots, records, "the number of records");
        if id == 0 {
            (self.seen.records_in_index, self.seen.evacuated_pages) = (records, cursor);
        }
    }

    /// The record that a slot points to.
    fn record_at(&self, slot: u32, offset: u64) -> (u8, u32, Option<u64>, Vec<u8>, Vec<u8>, u64) {
        let segment = &self.segments[&slot];
        let bytes = fs::read(&segment.path).unwrap();
        let record = decode(&bytes, segment.salt, offset).expect("a valid record");
        let Decoded { kind, table, deadline, key, value, end } = record;
        assert!(end <= segment.end && (kind == 1 || kind == 6), "kind {kind}");
        (kind, table, deadline, key.to_vec(), value.to_vec(), u64_at(&bytes, 32) << 32 | offset)
    }

    /// The value itself, or the content of the blob that it links.
    fn value(&mut self, kind: u8, value: Vec<u8>) -> Vec<u8> {
        if kind != 6 {
            return value;
        }
        self.seen.blobs += 1;
        assert_eq!((value.len(), u32_at(&value, 20)), (24, 0));
        let (id, len, crc) = (u64_at(&value, 0), u64_at(&value, 8), u32_at(&value, 16));
        let blob = fs::read(self.log.join(format!("{id:016x}.blob"))).unwrap();
        assert_eq!((&blob[..8], u32_at(&blob, 8), &blob[16..32]), (&b"tophBLB1"[..], 1, &self.header.uuid[..]));
        assert_eq!(crc_without(&blob[..64], 12), u32_at(&blob, 12));
        assert_eq!((u64_at(&blob, 32), u64_at(&blob, 40), u32_at(&blob, 48)), (id, len, crc));
        assert_eq!((blob.len() as u64, crc32fast::hash(&blob[64..])), (64 + len, crc));
        blob[64..].to_vec()
    }

    /// The records after the cut, in their order.
    fn read_tail(&mut self, contents: &mut Contents) {
        // Segments by the one that they follow: (sequence, salt, where that one ends).
        let mut followers: BTreeMap<u64, (u64, u64, u64)> = BTreeMap::new();
        for entry in fs::read_dir(&self.log).unwrap() {
            let path = entry.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if path.extension().is_none_or(|extension| extension != "log") || bytes[..128].iter().all(|&b| b == 0) {
                continue;
            }
            assert_eq!((&bytes[..8], u32_at(&bytes, 8), &bytes[16..32]), (&b"tophLOG1"[..], 1, &self.header.uuid[..]));
            assert_eq!(crc_without(&bytes[..128], 12), u32_at(&bytes, 12));
            let sequence = u64_at(&bytes, 32);
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), format!("{sequence:08}.log"));
            followers.insert(u64_at(&bytes, 48), (sequence, u64_at(&bytes, 40), u64_at(&bytes, 56)));
        }
        let (mut sequence, mut at) = (self.header.cut >> 32, self.header.cut & 0xffff_ffff);
        let mut salt = self.segments.values().find(|s| s.path.ends_with(format!("{sequence:08}.log"))).map(|s| s.salt);
        loop {
            let follower = followers.get(&sequence).copied();
            if let Some(salt) = salt {
                let bytes = fs::read(self.log.join(format!("{sequence:08}.log"))).unwrap();
                let end = self.read_units(&bytes, salt, at, contents);
                match follower {
                    Some((_, _, told)) => assert_eq!(end, told, "the end of segment {sequence}"),
                    // The bytes of a reused file's earlier life say nothing.
                    None if bytes[76] & 1 != 0 => {}
                    None => {
                        let behind = &bytes[end as usize..];
                        self.seen.torn_bytes = behind.iter().rposition(|&b| b != 0).map_or(0, |last| last as u64 + 1);
                    }
                }
            }
            let Some((next, next_salt, _)) = follower else { break };
            (sequence, salt, at) = (next, Some(next_salt), 128);
        }
    }

    /// Carries out records from an offset up to the first that is not valid, whose offset it returns.
    fn read_units(&mut self, bytes: &[u8], salt: u64, mut at: u64, contents: &mut Contents) -> u64 {
        let sequence = u64_at(bytes, 32);
        while let Some(Decoded { kind, table, deadline, key, value, end }) = decode(bytes, salt, at) {
            if kind == 4 {
                // All of the frame's records are valid, or none counts.
                let (records, frame_end) = (u64_at(value, 0), end + u64_at(value, 8));
                let mut inner = end;
                for _ in 0..records {
                    let Some(record) = decode(bytes, salt, inner) else { return at };
                    inner = record.end;
                }
                assert_eq!(inner, frame_end, "the frame's length");
                self.seen.frames += 1;
            }
            match kind {
                1 | 6 => {
                    let kept = (self.value(kind, value.to_vec()), deadline, sequence << 32 | at);
                    contents.insert((table, key.to_vec()), kept);
                }
                2 => _ = contents.remove(&(table, key.to_vec())),
                // It speaks of the main table.
                3 => contents.retain(|&(table, _), _| table != 0),
                4 => {}
                5 => assert_eq!((key.len(), &value[..8], value.len()), (0, &b"tophMARK"[..], 16)),
                kind => panic!("a record of kind {kind}"),
            }
            self.seen.marks += u64::from(kind == 5);
            self.seen.removals += u64::from(kind == 2);
            self.seen.clears += u64::from(kind == 3);
            self.seen.tail_records += u64::from(matches!(kind, 1..=3 | 6));
            at = end;
        }
        at
    }
}

/// The record at an offset, if it is valid.
fn decode(bytes: &[u8], salt: u64, offset: u64) -> Option<Decoded<'_>> {
    let record = &bytes[offset as usize..];
    let front = record.get(..8)?;
    let (header, key_len, value_len) = if front[4] & 0x80 == 0 {
        (8, usize::from(front[5]), usize::from(u16_at(front, 6)))
    } else {
        let zero = record.get(..16)?[5] == 0 && u32_at(record, 12) == 0;
        zero.then_some((16, usize::from(u16_at(front, 6)), u32_at(record, 8) as usize))?
    };
    let kind = front[4] & 0x47;
    let (expires, of_a_table) = (front[4] & 0x08 != 0, front[4] & 0x10 != 0);
    let aligned = front[4] & 0x20 != 0;
    if !(1..=6).contains(&kind) || expires && kind != 1 && kind != 6 || of_a_table && (3..=5).contains(&kind) {
        return None;
    }
    if aligned && kind != 1 {
        return None;
    }
    let deadline_start = if of_a_table { header + 4 } else { header };
    let key_start = if expires { deadline_start + 8 } else { deadline_start };
    let key_end = key_start + key_len;
    let (value_start, total) = match aligned {
        false => (key_end, key_end + value_len),
        true => {
            let place = (offset as usize + key_end).next_multiple_of(16);
            (place - offset as usize, key_end.next_multiple_of(8) + 8 + value_len)
        }
    };
    let len = value_start + value_len;
    let body = record.get(4..len)?;
    let mixed = (salt ^ offset.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    if crc32fast::hash(body) ^ (mixed >> 32) as u32 != u32_at(record, 0) {
        return None;
    }
    let table = if of_a_table { u32_at(record, header) } else { 0 };
    let deadline = expires.then(|| u64_at(record, deadline_start)).filter(|&deadline| deadline <= 1 << 62);
    let (key, value) = (&record[key_start..key_end], &record[value_start..len]);
    let end = offset + total.next_multiple_of(8) as u64;
    Some(Decoded { kind, table, deadline, key, value, end })
}
