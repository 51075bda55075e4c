//! Structures that are wrong, with checksums that are right.

use super::Licence;
use super::anatomy::{
    Anatomy, MAIN_TABLE, PAGE_HEADER, Parts, Record, SEGMENT_HEADER, parts, put, seal_at, seal_page, seal_record, word,
};
use crate::image::{Image, Node, PAGE};
use crate::random::Random;

/// Damages a store in one way, or in two.
pub fn mutate(anatomy: &Anatomy, image: &mut Image, random: &mut Random) -> (String, Licence) {
    let first = one(anatomy, image, random);
    if !random.one_in(6) {
        return first;
    }
    let second = one(anatomy, image, random);
    (format!("{}; {}", first.0, second.0), first.1.and(second.1))
}

fn one(anatomy: &Anatomy, image: &mut Image, random: &mut Random) -> (String, Licence) {
    let mut mutant = Mutant { anatomy, image, random, licence: Licence::default() };
    let what = match mutant.random.below(32) {
        0..=2 => mutant.header(),
        3..=5 => mutant.meta(),
        6 | 7 => mutant.growth(),
        8..=10 => mutant.page_header(),
        11..=14 => mutant.slots(),
        15 | 16 => mutant.pages(),
        17 => mutant.bitmap(),
        18..=20 => mutant.journal(),
        21..=23 => mutant.segment_header(),
        24..=27 => mutant.record(),
        28 => mutant.blob(),
        _ => mutant.files(),
    };
    (what, mutant.licence)
}

struct Mutant<'m> {
    anatomy: &'m Anatomy,
    image: &'m mut Image,
    random: &'m mut Random,
    licence: Licence,
}

impl Mutant<'_> {
    fn of<T: Clone>(&mut self, all: &[T]) -> Option<T> {
        let n = all.len() as u64;
        (n > 0).then(|| all[self.random.below(n) as usize].clone())
    }

    /// What a number can be instead.
    fn other(&mut self, old: u64, bits: u32) -> u64 {
        let max = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
        let new = match self.random.below(16) {
            0 => 0,
            1 => 1,
            2 => max,
            3 => max - 1,
            4..=6 => old.wrapping_add(1),
            7 | 8 => old.wrapping_sub(1),
            9 => old.wrapping_mul(2),
            10 => 1 << self.random.below(u64::from(bits)),
            11 => old.wrapping_add(8),
            12 => old.wrapping_sub(8),
            13 => self.random.below(1 << 12),
            14 => self.random.word(),
            _ => old ^ 1 << self.random.below(u64::from(bits)),
        };
        new & max
    }

    /// Changes one of the fields (offset, bits) of a structure.
    fn field(&mut self, bytes: &mut [u8], fields: &[(usize, u32)]) -> String {
        let (at, bits) = self.of(fields).unwrap_or((0, 8));
        let width = bits as usize / 8;
        let mut word = [0; 8];
        word[..width].copy_from_slice(&bytes[at..at + width]);
        let old = u64::from_le_bytes(word);
        let new = self.other(old, bits);
        bytes[at..at + width].copy_from_slice(&new.to_le_bytes()[..width]);
        format!("byte {at}: {old:#x} -> {new:#x}")
    }

    fn header(&mut self) -> String {
        const FIELDS: [(usize, u32); 14] = [
            (8, 32),
            (12, 32),
            (20, 32),
            (24, 64),
            (40, 64),
            (56, 64),
            (64, 64),
            (64, 64),
            (72, 64),
            (72, 64),
            (80, 64),
            (88, 64),
            (96, 32),
            (100, 32),
        ];
        const GEOMETRY: [(usize, u32); 2] = [(96, 32), (100, 32)];
        // What is durable, which state counts, and which keys lead where: all that is said here and nowhere else.
        self.licence = Licence { absent: true, stale: true, ..Licence::default() };
        let fields: &[_] = if self.random.one_in(4) { &GEOMETRY } else { &FIELDS };
        let both = self.random.one_in(2);
        let mut slot = self.random.below(2);
        let mut page = self.image.page(slot);
        let mut what = self.field(&mut page, fields);
        seal_at(&mut page, 16);
        self.image.write("index", slot * PAGE as u64, &page);
        if both {
            slot = 1 - slot;
            let mut other = page.clone();
            let serial = word(&self.image.page(slot), 56);
            put(&mut other, 56, serial);
            seal_at(&mut other, 16);
            self.image.write("index", slot * PAGE as u64, &other);
            what += " in both";
        }
        format!("header slot {slot}: {what}")
    }

    fn edit_meta(&mut self, edit: impl FnOnce(&mut Self, &mut [u8]) -> String) -> String {
        self.licence = Licence { absent: true, stale: true, ..Licence::default() };
        let mut page = self.image.page(2);
        let what = edit(self, &mut page);
        self.image.put_page(self.anatomy.uuid, 2, page);
        format!("meta: {what}")
    }

    fn meta(&mut self) -> String {
        let words = self.anatomy.stream as u64 / 8;
        self.edit_meta(|m, page| match m.random.below(8) {
            0 => m.field(page, &[(4, 32), (8, 64), (48, 64)]),
            1 => {
                // One extent, or segment, where another is.
                let (a, b) = (m.random.below(words), m.random.below(words));
                let value = word(page, PAGE_HEADER + a as usize * 8);
                put(page, PAGE_HEADER + b as usize * 8, value);
                format!("word {b} is word {a}")
            }
            2 => {
                let front = MAIN_TABLE as u64 / 8;
                let at = PAGE_HEADER + MAIN_TABLE + m.random.below((words - front) * 2) as usize * 4;
                m.field(page, &[(at, 32)])
            }
            _ => {
                let at = PAGE_HEADER + m.random.below(words) as usize * 8;
                m.field(page, &[(at, 64)])
            }
        })
    }

    fn growth(&mut self) -> String {
        self.edit_meta(|m, page| {
            let old = word(page, PAGE_HEADER + MAIN_TABLE + 8);
            let level = if m.random.one_in(3) { m.random.below(64) } else { (old & 63) + m.random.below(3) };
            let stripes = m.random.below(level + 2) & 63;
            let bits = if m.random.one_in(4) { 16 } else { 4 };
            let flags = m.random.below(bits);
            let cursor = match m.random.below(4) {
                0 => 0,
                1 => m.random.below(1 << level.min(8)),
                2 => 1 << level.min(40),
                _ => old >> 16,
            };
            let new = (level & 63) | stripes << 6 | flags << 12 | cursor << 16;
            put(page, PAGE_HEADER + MAIN_TABLE + 8, new);
            format!("growth word {old:#x} -> {new:#x}")
        })
    }

    fn any_page(&mut self) -> u64 {
        let a = self.anatomy;
        let overflow = !a.overflow.is_empty() && self.random.one_in(3);
        self.of(if overflow { &a.overflow } else { &a.primary }).unwrap_or_else(|| a.primary[0])
    }

    fn page_header(&mut self) -> String {
        const FIELDS: [(usize, u32); 13] = [
            (4, 32),
            (8, 64),
            (16, 64),
            (24, 8),
            (25, 8),
            (26, 16),
            (28, 32),
            (32, 16),
            (34, 16),
            (36, 32),
            (40, 64),
            (40, 64),
            (48, 64),
        ];
        self.licence.absent = true;
        let number = self.any_page();
        let mut page = self.image.page(number);
        let what = self.field(&mut page, &FIELDS);
        self.image.put_page(self.anatomy.uuid, number, page);
        format!("page {number}: {what}")
    }

    fn slots(&mut self) -> String {
        // A slot that is made to point elsewhere can find an earlier record of its key.
        self.licence = Licence { absent: true, stale: true, ..Licence::default() };
        let (number, from) = (self.any_page(), self.any_page());
        let (mut page, source) = (self.image.page(number), self.image.page(from));
        let slots = self.anatomy.buckets as u64 * 8;
        let at = |slot: u64| PAGE_HEADER + slot as usize * 8;
        let (to, a) = (self.random.below(slots), self.random.below(slots));
        let old = word(&page, at(to));
        let what = match self.random.below(8) {
            0 => {
                put(&mut page, at(to), word(&source, at(a)));
                format!("slot {to} is slot {a} of page {from}")
            }
            1 => {
                let other = word(&page, at(a));
                put(&mut page, at(a), old);
                put(&mut page, at(to), other);
                format!("slots {to} and {a} swapped")
            }
            2 => {
                let new = self.random.below(2);
                put(&mut page, at(to), new);
                format!("slot {to} is {new}")
            }
            3 => {
                // Only the address.
                let new = old & !0x7f_ffff_ffff | self.random.word() & 0x7f_ffff_ffff;
                put(&mut page, at(to), new);
                format!("slot {to}: {old:#x} -> {new:#x}")
            }
            4 => {
                put(&mut page, at(to), old ^ 1 << 39);
                format!("slot {to} marked")
            }
            5 => {
                (0..slots).for_each(|slot| put(&mut page, at(slot), old.max(2)));
                format!("slot {to} everywhere")
            }
            6 => {
                let hole = self.anatomy.buckets * 64 + PAGE_HEADER + self.random.below(300) as usize * 8;
                let hole = hole.min(PAGE - 8);
                put(&mut page, hole, old);
                format!("slot {to} at byte {hole}, where no bucket is")
            }
            _ => self.field(&mut page, &[(at(to), 64)]),
        };
        self.image.put_page(self.anatomy.uuid, number, page);
        format!("page {number}: {what}")
    }

    fn pages(&mut self) -> String {
        self.licence = Licence { absent: true, stale: true, ..Licence::default() };
        let (a, b) = (self.any_page(), self.any_page());
        let uuid = self.anatomy.uuid;
        let (mut first, mut second) = (self.image.page(a), self.image.page(b));
        match self.random.below(6) {
            0 => {
                put(&mut first, 8, b);
                put(&mut second, 8, a);
                self.image.put_page(uuid, a, second);
                self.image.put_page(uuid, b, first);
                format!("pages {a} and {b} swapped")
            }
            1 => {
                put(&mut first, 8, b);
                self.image.put_page(uuid, b, first);
                format!("page {b} is page {a}")
            }
            2 => {
                self.image.write("index", a * PAGE as u64, &[0; PAGE]);
                format!("page {a} is zeroes")
            }
            3 => {
                // A chain that leads back into itself, or into another one.
                let next = 1 + self.random.below(self.anatomy.overflow.len() as u64 + 2);
                put(&mut first, 40, next);
                self.image.put_page(uuid, a, first);
                format!("page {a} goes on with overflow page {}", next - 1)
            }
            4 => {
                // The same, with an owner and a position that fit.
                let pages = self.anatomy.overflow.clone();
                for (n, &number) in pages.iter().enumerate() {
                    let mut page = self.image.page(number);
                    page[16..24].copy_from_slice(&first[16..24]);
                    put(&mut page, 40, (n as u64 + 1) % pages.len() as u64 + 1);
                    if self.random.one_in(2) {
                        page[26..28].copy_from_slice(&(n as u16 + 1).to_le_bytes());
                    }
                    self.image.put_page(uuid, number, page);
                }
                put(&mut first, 40, 1);
                self.image.put_page(uuid, a, first);
                format!("page {a} owns all overflow pages, in a circle")
            }
            _ => {
                // Its own bytes, of another generation or kind.
                first[4..8].copy_from_slice(if self.random.one_in(2) { b"MAP1" } else { b"MET1" });
                self.image.put_page(uuid, a, first);
                format!("page {a} is of another kind")
            }
        }
    }

    fn bitmap(&mut self) -> String {
        self.licence.absent = true;
        let Some(number) = self.of(&self.anatomy.bitmaps) else { return "nothing".into() };
        let mut page = self.image.page(number);
        let what = match self.random.below(4) {
            0 => {
                page[PAGE_HEADER..].fill(0xff);
                "all in use".into()
            }
            1 => {
                page[PAGE_HEADER..].fill(0);
                "none in use".into()
            }
            2 => self.field(&mut page, &[(4, 32), (8, 64), (16, 64), (48, 64)]),
            _ => {
                let bit = self.random.below(32) as usize;
                page[PAGE_HEADER + bit / 8] ^= 1 << (bit % 8);
                format!("bit {bit} flipped")
            }
        };
        self.image.put_page(self.anatomy.uuid, number, page);
        format!("bitmap page {number}: {what}")
    }

    fn journal(&mut self) -> String {
        self.licence = Licence { absent: true, stale: true, ..Licence::default() };
        let mut head = self.image.read("journal", 0, PAGE);
        let mut images: Vec<_> =
            (1..=self.anatomy.images).map(|n| self.image.read("journal", n * PAGE as u64, PAGE)).collect();
        let at = (self.anatomy.images + 1) * PAGE as u64;
        let mut trailer = self.image.read("journal", at, PAGE);
        let mut seal_images = true;
        let what = match self.random.below(6) {
            0 | 1 => {
                let what =
                    self.field(&mut head, &[(8, 32), (16, 64), (32, 64), (40, 64), (48, 64), (56, 64), (64, 64)]);
                format!("head: {what}")
            }
            2 => format!("trailer: {}", self.field(&mut trailer, &[(16, 64), (32, 64), (40, 64), (48, 64), (56, 64)])),
            3 => {
                // Complete for another generation.
                let generation = self.other(word(&head, 32), 64);
                put(&mut head, 32, generation);
                put(&mut trailer, 32, generation);
                images.iter_mut().for_each(|image| put(image, 48, generation));
                format!("all of generation {generation}")
            }
            4 => {
                let n = self.random.below(images.len().max(1) as u64) as usize;
                let Some(image) = images.get_mut(n) else { return "nothing".into() };
                let mut bytes = std::mem::take(image);
                let slots = PAGE_HEADER + self.random.below(self.anatomy.buckets as u64 * 8) as usize * 8;
                let fields = [(4, 32), (8, 64), (16, 64), (24, 32), (40, 64), (48, 64), (64 + 8, 64), (slots, 64)];
                let what = self.field(&mut bytes, &fields);
                images[n] = bytes;
                seal_images = !self.random.one_in(8);
                format!("image {n}: {what}")
            }
            _ => {
                // The checkpoint before, once more: as if it had never been carried out.
                let generation = word(&head, 32).wrapping_add(1);
                put(&mut head, 32, generation);
                put(&mut trailer, 32, generation);
                let cut = self.other(word(&head, 40), 64);
                put(&mut head, 40, cut);
                images.iter_mut().for_each(|image| put(image, 48, generation));
                format!("the next generation, with cut {cut:#x}")
            }
        };
        let mut checksum = crc32fast::Hasher::new();
        for image in &mut images {
            if seal_images {
                let number = word(image, 8);
                seal_page(self.anatomy.uuid, number, image);
            }
            checksum.update(&image[..4]);
        }
        seal_at(&mut head, 12);
        checksum.update(&head);
        if !what.starts_with("trailer: byte 48") {
            put(&mut trailer, 48, u64::from(checksum.finalize()));
        }
        seal_at(&mut trailer, 12);
        self.image.write("journal", 0, &head);
        for (n, image) in images.iter().enumerate() {
            self.image.write("journal", (n as u64 + 1) * PAGE as u64, image);
        }
        self.image.write("journal", at, &trailer);
        format!("journal: {what}")
    }

    fn segment_header(&mut self) -> String {
        const FIELDS: [(usize, u32); 14] = [
            (8, 32),
            (16, 64),
            (32, 64),
            (32, 64),
            (40, 64),
            (48, 64),
            (48, 64),
            (56, 64),
            (56, 64),
            (64, 64),
            (64, 64),
            (72, 32),
            (76, 32),
            (80, 64),
        ];
        // Where the log goes on, and what is durable.
        self.licence = Licence { absent: true, stale: true, ..Licence::default() };
        let (Some(segment), Some(other)) = (self.of(&self.anatomy.segments), self.of(&self.anatomy.segments)) else {
            return "nothing".into();
        };
        let mut bytes = self.image.read(&segment.name, 0, SEGMENT_HEADER);
        let what = if self.random.one_in(5) {
            let source = self.image.read(&other.name, 0, SEGMENT_HEADER);
            let (from, to) = [(32, 48), (48, 72), (72, 80), (8, 128)][self.random.below(4) as usize];
            bytes[from..to].copy_from_slice(&source[from..to]);
            format!("bytes {from}..{to} of {}", other.name)
        } else {
            self.field(&mut bytes, &FIELDS)
        };
        seal_at(&mut bytes, 12);
        self.image.write(&segment.name, 0, &bytes);
        format!("header of {}: {what}", segment.name)
    }

    fn bytes_of(&self, record: &Record) -> Vec<u8> {
        self.image.read(&self.anatomy.segments[record.segment].name, record.at, record.len)
    }

    /// Whatever the bytes say now may be found.
    fn license(&mut self, bytes: &[u8], at: u64) {
        self.licence.absent = true;
        self.licence.stale = true;
        let Parts { key, value, .. } = parts(bytes, at);
        if value.end <= bytes.len() {
            let blobs = self.anatomy.blobs.iter().filter(|_| bytes[4] & 0x47 == 6);
            let mut values: Vec<_> =
                blobs.filter_map(|name| self.image.contents(name).get(64..).map(<[u8]>::to_vec)).collect();
            values.push(bytes[value].to_vec());
            self.licence.made.entry(bytes[key].to_vec()).or_default().extend(values);
        }
    }

    fn record(&mut self) -> String {
        let Some(record) = self.of(&self.anatomy.records) else { return "nothing".into() };
        let segment = &self.anatomy.segments[record.segment];
        let mut bytes = self.bytes_of(&record);
        self.license(&bytes, record.at);
        let what = match (self.random.below(6), record.kind) {
            (0, _) => {
                bytes[4] = self.other(bytes[4].into(), 8) as u8;
                format!("kind {}", bytes[4])
            }
            // Frames, marks and links have numbers in their values.
            (1..=3, 4..=6) if bytes.len() >= 24 => {
                let words = (bytes.len() - 8) / 8;
                let at = 8 + self.random.below(words as u64) as usize * 8;
                let at = if record.kind == 6 { bytes.len() - 24 + at % 24 / 8 * 8 } else { at };
                self.field(&mut bytes, &[(at, 64)])
            }
            (1 | 2, _) => self.field(&mut bytes, &[(5, 8), (6, 16)]),
            (3, _) => {
                // Another record in its place.
                let Some(other) = self.of(&self.anatomy.records) else { return "nothing".into() };
                bytes = self.bytes_of(&other);
                format!("the record at {} of {}", other.at, self.anatomy.segments[other.segment].name)
            }
            (4, _) => {
                let header = if bytes[4] & 0x80 == 0 { 8 } else { 16 };
                let at = header.min(bytes.len() - 1);
                bytes[at..].fill(0xff);
                "key and value all ones".into()
            }
            _ => {
                let at = 5 + self.random.below(bytes.len() as u64 - 5) as usize;
                self.field(&mut bytes, &[(at, 8)])
            }
        };
        // The record is as long as it says now: what follows belongs to it.
        let value = parts(&bytes, record.at).value;
        if value.end > bytes.len() {
            let len = self.image.len(&segment.name).saturating_sub(record.at).min(value.end as u64) as usize;
            let all = self.image.read(&segment.name, record.at, len);
            // A record that was put here from elsewhere can reach beyond the file's end already.
            bytes.extend_from_slice(all.get(bytes.len()..).unwrap_or_default());
        }
        let sealed = value.end.clamp(8, bytes.len());
        seal_record(&mut bytes[..sealed], segment.salt, record.at);
        self.license(&bytes, record.at);
        self.image.write(&segment.name, record.at, &bytes[..sealed]);
        format!("record at {} of {}: {what}", record.at, segment.name)
    }

    fn blob(&mut self) -> String {
        let Some(name) = self.of(&self.anatomy.blobs) else { return "nothing".into() };
        let mut header = self.image.read(&name, 0, 64);
        let what = self.field(&mut header, &[(8, 32), (16, 64), (32, 64), (40, 64), (48, 32), (52, 32)]);
        seal_at(&mut header, 12);
        self.image.write(&name, 0, &header);
        format!("{name}: {what}")
    }

    fn files(&mut self) -> String {
        let mut names = vec!["index".to_string(), "journal".into(), "LOCK".into()];
        names.extend(self.image.names("log-1/"));
        let (Some(name), Some(other)) = (self.of(&names), self.of(&names)) else { return "nothing".into() };
        self.licence = Licence { absent: true, stale: true, shorter: true, ..Licence::default() };
        match self.random.below(8) {
            0 => {
                self.image.link(&name, None);
                format!("no {name}")
            }
            1 => {
                let find = |image: &Image, name: &str| image.find(&super::anatomy::path(name));
                let (a, b) = (find(self.image, &name), find(self.image, &other));
                self.image.link(&name, b);
                self.image.link(&other, a);
                format!("{name} and {other} swapped")
            }
            2 => {
                let contents = self.image.contents(&other);
                self.image.add(&name, Node::file());
                self.image.write(&name, 0, &contents);
                format!("{name} is {other}")
            }
            3 => {
                self.image.add(&name, Node::dir());
                format!("{name} is a directory")
            }
            4 => {
                let odd = [
                    "log-1/4294967295.log",
                    "log-1/99999999999.log",
                    "log-1/00000000.log",
                    "log-1/ffffffffffffffff.blob",
                ];
                let names = [odd[0], odd[1], odd[2], odd[3], "log-1/00000077.log", "index.new", "log-2"];
                let new = self.of(&names).unwrap_or_default();
                let contents = self.image.contents(&name);
                self.image.add(new, Node::file());
                self.image.write(new, 0, &contents);
                format!("a file {new}, like {name}")
            }
            5 => {
                let noise: Vec<u8> = (0..self.random.below(9000)).map(|_| self.random.word() as u8).collect();
                let at = self.random.below(self.image.len(&name) + 1);
                self.image.write(&name, at, &noise);
                format!("{} bytes of noise at {at} of {name}", noise.len())
            }
            6 => {
                let len = self.image.len(&name);
                let at = self.random.below(len + 1);
                let zeroes = vec![0; self.random.below(5000).min(len - at) as usize];
                self.image.write(&name, at, &zeroes);
                format!("{} zeroes at {at} of {name}", zeroes.len())
            }
            _ => {
                let len = self.other(self.image.len(&name), 22);
                self.image.set_len(&name, len);
                format!("{name} of {len} bytes")
            }
        }
    }
}
