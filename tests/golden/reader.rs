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
    pub records_in_index: u64,
    pub overflow_pages: u64,
    pub evacuated_pages: u64,
    pub blobs: u64,
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
    primary_log2: u32,
    overflow_log2: u32,
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

/// A value, and when it expires.
type Kept = (Vec<u8>, Option<u64>);

/// A record: kind, deadline, key, value, where the next one begins.
type Decoded<'a> = (u8, Option<u64>, &'a [u8], &'a [u8], u64);

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
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_millis();
    let mut seen = store.seen;
    let mut living = BTreeMap::new();
    for (key, (value, deadline)) in contents {
        match deadline {
            Some(deadline) if u128::from(deadline) <= now => seen.expired += 1,
            deadline => {
                seen.deadlines.extend(deadline.map(|deadline| (key.clone(), deadline)));
                living.insert(key, value);
            }
        }
    }
    (living, seen)
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
    assert!(page[112..].iter().all(|&byte| byte == 0));
    Header {
        uuid: page[24..40].try_into().unwrap(),
        hash_key: (u64_at(page, 40), u64_at(page, 48)),
        generation: u64_at(page, 64),
        cut: u64_at(page, 72),
        log_dir: u64_at(page, 80),
        homes: u32_at(page, 96).into(),
        stash: u32_at(page, 100).into(),
        primary_log2: u32_at(page, 104),
        overflow_log2: u32_at(page, 108),
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

    fn read_index(&mut self) -> BTreeMap<Vec<u8>, Kept> {
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
        let (growth, records) = (word(1), word(2));
        let mut at = 16 * 8;
        let mut list = |count: u64, size: usize| {
            let items: Vec<&[u8]> = stream[at..][..count as usize * size].chunks(size).collect();
            at += count as usize * size;
            items
        };
        let numbers = |items: Vec<&[u8]>| items.into_iter().map(|item| u64_at(item, 0)).collect::<Vec<_>>();
        let primary = numbers(list(word(9), 8));
        let overflow = numbers(list(word(10), 8));
        let mut sequences = Vec::new();
        for entry in list(word(11), 48) {
            let (sequence, slot) = (u32_at(entry, 0), u32_at(entry, 4));
            let path = self.log.join(format!("{sequence:08}.log"));
            sequences.push(u64::from(sequence));
            self.segments.insert(slot, Segment { path, salt: u64_at(entry, 8), end: u64_at(entry, 24) });
        }
        list(word(12) + word(13), 8);
        let deadlines = list(word(14), 32);
        assert!(deadlines.is_sorted_by(|a, b| u64_at(a, 0) < u64_at(b, 0)), "the order of the segments' deadlines");
        for entry in &deadlines {
            assert!(sequences.contains(&u64_at(entry, 0)), "deadlines of a segment of the table");
            assert!(u64_at(entry, 8) <= u64_at(entry, 16) && u64_at(entry, 24) > 0, "first, last, and bytes");
        }
        (self.seen.expiring_segments, self.seen.swept) = (deadlines.len() as u64, word(15));
        assert_eq!(at, len, "the stream's length");

        let (level, cursor) = (growth & 63, growth >> 16);
        self.seen.evacuated_pages = cursor;
        let page_of = |hash: u64| {
            let page = hash % (1 << level);
            if page < cursor { hash % (2 << level) } else { page }
        };
        let mut contents = BTreeMap::new();
        let mut slots = 0;
        for number in 0..(1 << level) + cursor {
            let mut next = self.locate(&primary, self.header.primary_log2, number);
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
                    let (kind, deadline, key, value) =
                        self.record_at((address >> 27) as u32, (address & ((1 << 27) - 1)) * 8);
                    let hash = self.hash(&key);
                    assert_eq!((page_of(hash), hash >> 48), (number, slot >> 48), "the slot's page and fingerprint");
                    assert_eq!(hash >> split_base & 0xff, slot >> 40 & 0xff, "the slot's split bits");
                    let value = self.value(kind, value);
                    assert!(contents.insert(key, (value, deadline)).is_none(), "a key in two slots");
                    slots += 1;
                }
                next = u64_at(&page, 40).checked_sub(1).map(|overflow_page| {
                    let at = self.locate(&overflow, self.header.overflow_log2, overflow_page);
                    at.expect("an overflow page in use")
                });
                self.seen.overflow_pages += u64::from(position > 0);
                position += 1;
            }
        }
        assert_eq!(slots, records, "the number of records");
        self.seen.records_in_index = records;
        contents
    }

    /// The record that a slot points to.
    fn record_at(&self, slot: u32, offset: u64) -> (u8, Option<u64>, Vec<u8>, Vec<u8>) {
        let segment = &self.segments[&slot];
        let bytes = fs::read(&segment.path).unwrap();
        let (kind, deadline, key, value, end) = decode(&bytes, segment.salt, offset).expect("a valid record");
        assert!(end <= segment.end && (kind == 1 || kind == 6), "kind {kind}");
        (kind, deadline, key.to_vec(), value.to_vec())
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
    fn read_tail(&mut self, contents: &mut BTreeMap<Vec<u8>, Kept>) {
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
    fn read_units(&mut self, bytes: &[u8], salt: u64, mut at: u64, contents: &mut BTreeMap<Vec<u8>, Kept>) -> u64 {
        while let Some((kind, deadline, key, value, end)) = decode(bytes, salt, at) {
            if kind == 4 {
                // All of the frame's records are valid, or none counts.
                let (records, frame_end) = (u64_at(value, 0), end + u64_at(value, 8));
                let mut inner = end;
                for _ in 0..records {
                    let Some((.., inner_end)) = decode(bytes, salt, inner) else { return at };
                    inner = inner_end;
                }
                assert_eq!(inner, frame_end, "the frame's length");
                self.seen.frames += 1;
            }
            match kind {
                1 | 6 => _ = contents.insert(key.to_vec(), (self.value(kind, value.to_vec()), deadline)),
                2 => _ = contents.remove(key),
                3 => contents.clear(),
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
    let kind = front[4] & 0x77;
    let expires = front[4] & 0x08 != 0;
    if expires && kind != 1 && kind != 6 {
        return None;
    }
    let key_start = if expires { header + 8 } else { header };
    let len = key_start + key_len + value_len;
    let body = record.get(4..len)?;
    let mixed = (salt ^ offset.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_mul(0xD6E8_FEB8_6659_FD93);
    if crc32fast::hash(body) ^ (mixed >> 32) as u32 != u32_at(record, 0) {
        return None;
    }
    let deadline = expires.then(|| u64_at(record, header)).filter(|&deadline| deadline <= 1 << 62);
    let (key, value) = record[key_start..len].split_at(key_len);
    Some((kind, deadline, key, value, offset + len.next_multiple_of(8) as u64))
}
