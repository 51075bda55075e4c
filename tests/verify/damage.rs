//! Each rule of the index broken once, checksums mended where that is needed to get past them.

use crate::support::*;
use std::fs;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Where a finding must point: page, slot, byte offset. `None`: not looked at.
#[derive(Debug, Default)]
pub struct Place {
    pub page: Option<u64>,
    pub slot: Option<u32>,
    pub offset: Option<u64>,
}

pub fn at_page(page: u64) -> Place {
    Place { page: Some(page), ..Place::default() }
}

pub fn at_slot(page: u64, slot: u32) -> Place {
    Place { slot: Some(slot), offset: Some(page * PAGE as u64 + 64 + 8 * u64::from(slot)), ..at_page(page) }
}

pub fn at_byte(offset: u64) -> Place {
    Place { offset: Some(offset), ..Place::default() }
}

pub type Case = (&'static str, fn(&Files) -> Place);

/// Damages a copy of the store for each case and looks for the finding.
pub fn check_cases(store: &std::path::Path, cases: &[Case]) {
    verify_clean(store);
    for (kind, damage) in cases {
        let dir = crate::common::scratch();
        let path = dir.path().join("s");
        copy_store(store, &path);
        let place = damage(&Files::new(&path));
        let report = verify(&path);
        let fits = |f: &tophash::verify::Finding| {
            f.kind == *kind
                && (place.page.is_none() || f.page == place.page)
                && (place.slot.is_none() || f.slot == place.slot)
                && (place.offset.is_none() || f.offset == place.offset)
        };
        let found = report.findings.iter().find(|finding| fits(finding));
        let found = found.unwrap_or_else(|| panic!("no {kind:?} at {place:?}: {:#?}", report.findings));
        assert!(!found.expected.is_empty() && !found.found.is_empty() && !found.path.is_empty(), "{found:?}");
        assert!(found.harmless || !report.is_clean());
    }
}

/// A store with everything in it, closed cleanly.
pub fn base() -> &'static std::path::Path {
    static STORE: OnceLock<TempDir> = OnceLock::new();
    let dir = STORE.get_or_init(|| {
        let dir = crate::common::scratch();
        mixed_store(&dir.path().join("s")).close().unwrap();
        dir
    });
    Box::leak(dir.path().join("s").into_boxed_path())
}

/// A primary page in use, its number in the file.
fn primary(files: &Files) -> u64 {
    files.find_primary(|page| live_slots(page).len() > 4).1
}

/// A primary page with an overflow page: numbers in the file of both.
fn chained(files: &Files) -> (u64, u64) {
    let (_, number) = files.find_primary(|page| word(page, 40) != 0);
    (number, files.meta().overflow_page(word(&files.page(number), 40) - 1))
}

fn edit_primary(files: &Files, edit: impl FnOnce(&mut [u8])) -> Place {
    let number = primary(files);
    files.edit_page(number, edit);
    at_page(number)
}

/// Changes the first live slot of a page.
fn edit_slot(files: &Files, edit: impl FnOnce(u64) -> u64) -> Place {
    let number = primary(files);
    let (slot, word) = files.slots(number)[0];
    files.edit_page(number, |page| put(page, 64 + 8 * slot as usize, edit(word)));
    at_slot(number, slot)
}

const PAGES: &[Case] = &[
    ("page-checksum", |files| {
        let number = primary(files);
        let byte = files.page(number)[100];
        files.write(&files.index(), number * PAGE as u64 + 100, &[byte ^ 4]);
        at_page(number)
    }),
    ("page-number", |files| {
        let (_, overflow) = chained(files);
        let number = primary(files);
        let mut page = files.page(overflow);
        files.write_page(number, &mut page);
        at_page(number)
    }),
    ("page-kind", |files| edit_primary(files, |page| page[4..8].copy_from_slice(b"MAP1"))),
    ("page-generation", |files| {
        let generation = files.generation();
        edit_primary(files, |page| put(page, 48, generation + 1))
    }),
    ("page-reserved", |files| edit_primary(files, |page| put(page, 56, 1))),
    ("page-level", |files| edit_primary(files, |page| page[24] += 1)),
    ("page-split-base", |files| edit_primary(files, |page| page[25] = page[24] + 1)),
    ("page-owner", |files| edit_primary(files, |page| page[16] ^= 1)),
    ("page-live-count", |files| edit_primary(files, |page| page[32] += 1)),
    ("page-tombstone-count", |files| edit_primary(files, |page| page[34] += 1)),
    ("chain-position", |files| {
        let (_, overflow) = chained(files);
        files.edit_page(overflow, |page| page[26] = 9);
        at_page(overflow)
    }),
    ("page-owner", |files| {
        let (_, overflow) = chained(files);
        files.edit_page(overflow, |page| page[16] ^= 1);
        at_page(overflow)
    }),
    ("page-split-base", |files| {
        let (_, overflow) = chained(files);
        files.edit_page(overflow, |page| page[25] ^= 1);
        at_page(overflow)
    }),
    ("chain-link", |files| {
        let number = primary(files);
        files.edit_page(number, |page| put(page, 40, 1 << 40));
        Place { offset: Some(number * PAGE as u64 + 40), ..at_page(number) }
    }),
    ("chain-link", |files| {
        // An overflow page that exists and is not in use.
        let meta = files.meta();
        let last = (1u64 << meta.log2.1 << (meta.overflow.len() - 1)) - 1;
        let bitmap = files.page(*meta.overflow.last().unwrap());
        let bit = (last - (1 << last.ilog2())) as usize;
        assert_eq!(bitmap[64 + bit / 8] >> (bit % 8) & 1, 0);
        edit_primary(files, |page| put(page, 40, last + 1))
    }),
    ("chain-cross-link", |files| {
        let (_, overflow) = chained(files);
        let link = word(&files.page(files.find_primary(|page| word(page, 40) != 0).1), 40);
        files.edit_page(overflow, |page| put(page, 40, link));
        at_page(overflow)
    }),
    ("overflow-orphan", |files| {
        let (number, overflow) = chained(files);
        files.edit_page(number, |page| put(page, 40, 0));
        at_page(overflow)
    }),
    ("page-not-zero", |files| {
        let meta = files.meta();
        let number = meta.primary_page(meta.pages() + 1);
        files.write(&files.index(), number * PAGE as u64 + 2000, &[1]);
        at_page(number)
    }),
    ("page-beyond-cursor", |files| {
        let meta = files.meta();
        let (page, number) = (meta.pages() + 1, meta.primary_page(meta.pages() + 1));
        let mut image = files.page(primary(files));
        put(&mut image, 8, number);
        put(&mut image, 16, page);
        put(&mut image, 40, 0);
        files.write_page(number, &mut image);
        let bit = (page - (1 << page.ilog2())) as usize;
        files.edit_page(*meta.primary.last().unwrap(), |bitmap| bitmap[64 + bit / 8] |= 1 << (bit % 8));
        at_page(number)
    }),
    ("bitmap-page", |files| {
        let number = files.meta().primary[2];
        files.damage(&files.index(), number * PAGE as u64 + 64, &[0x55]);
        at_page(number)
    }),
    ("bitmap-bits", |files| {
        let number = files.meta().primary[2];
        files.edit_page(number, |page| page[4095] = 0x80);
        at_page(number)
    }),
];

const SLOTS: &[Case] = &[
    ("slot-unreachable", |files| {
        let live_stash = |page: &[u8]| live_slots(page).into_iter().find(|&(slot, _)| slot >= 16);
        let (_, number) = files.find_primary(|page| live_stash(page).is_some());
        let (slot, stash) = live_stash(&files.page(number)).unwrap();
        // Its home gets an emptyRest.
        files.edit_page(number, |page| put(page, 64 + 64 * home(stash, 2) as usize, 0));
        at_slot(number, slot)
    }),
    ("unreadable-at-split", |files| edit_slot(files, |word| word | 1 << 39)),
    ("slot-segment", |files| edit_slot(files, |word| word & !((1 << 39) - 1) | 4000 << 27 | 16)),
    ("slot-address", |files| edit_slot(files, |word| word | ((1 << 27) - 1))),
    ("slot-address", |files| edit_slot(files, |word| word & !((1 << 27) - 1) | 2)),
    ("slot-record", |files| edit_slot(files, |word| word + 1)),
    ("slot-fingerprint", |files| edit_slot(files, |word| word ^ 1 << 48)),
    ("slot-split", |files| edit_slot(files, |word| word ^ 1 << 40)),
    ("shared-address", |files| {
        let number = primary(files);
        let slots = files.slots(number);
        files.edit_page(number, |page| put(page, 64 + 8 * slots[1].0 as usize, slots[0].1));
        at_slot(number, slots[1].0)
    }),
    ("wrong-page", |files| {
        // The slot of one page, in another one.
        let (first, number) = files.find_primary(|page| live_slots(page).len() > 4);
        let other = files.find_primary(|page| word(page, 16) > first && live_slots(page).len() > 4).1;
        let (slot, _) = files.slots(other)[0];
        let stranger = files.slots(number)[0].1;
        files.edit_page(other, |page| put(page, 64 + 8 * slot as usize, stranger));
        // Its own address is free, so that nothing is shared.
        let own = files.slots(number)[0].0;
        files.edit_page(number, |page| put(page, 64 + 8 * own as usize, 1));
        at_slot(other, slot)
    }),
    ("duplicate-key", |files| {
        // A key whose older record is still in the log gets a second slot for that.
        let records = files.all_records();
        let puts = records.iter().filter(|record| record.kind == 1);
        let doubles = puts.filter_map(|old| {
            let is_newer = |new: &&Record| new.kind == 1 && new.key == old.key && new.address != old.address;
            let new = records.iter().find(is_newer)?;
            let (page, slot) = files.slot_of(new.address)?;
            let bucket = (slot / 8 * 8) as usize;
            let image = files.page(page);
            let free = (bucket..bucket + 8).find(|&i| word(&image, 64 + 8 * i) <= 1)?;
            Some((page, slot, free, old.address))
        });
        let (page, slot, free, old) = doubles.into_iter().next().expect("a key that was written twice");
        let twin = files.slots(page).into_iter().find(|&(i, _)| i == slot).unwrap().1 & !((1 << 39) - 1) | old;
        files.edit_page(page, |image| put(image, 64 + 8 * free, twin));
        at_page(page)
    }),
];

const WHOLE: &[Case] = &[
    ("header", |files| {
        let other = 1 - files.header().0;
        files.write(&files.index(), other * PAGE as u64 + 3000, &[1]);
        at_page(other)
    }),
    ("meta", |files| {
        files.write(&files.index(), 2 * PAGE as u64 + 3000, &[1]);
        at_page(2)
    }),
    ("meta", |files| {
        files.edit_page(2, |page| put(page, 64, 100));
        at_page(2)
    }),
    ("growth", |files| {
        let at = files.meta().at + GROWTH;
        files.edit_page(2, |page| page[at] = page[at] & 0xc0 | 30);
        at_page(2)
    }),
    ("record-count", |files| {
        let at = files.meta().at + RECORDS;
        files.edit_page(2, |page| page[at] ^= 1);
        at_page(2)
    }),
    ("extent", |files| {
        let (end, at) = (word(&files.page(2), END_PAGE), files.meta().at + EXTENTS);
        files.edit_page(2, |page| put(page, at + 8, end - 1));
        at_page(end - 1)
    }),
    ("extent-overlap", |files| {
        let first = files.meta().primary[1];
        let at = files.meta().at + EXTENTS;
        files.edit_page(2, |page| put(page, at, first));
        Place::default()
    }),
    ("index-length", |files| {
        let len = fs::metadata(files.index()).unwrap().len();
        fs::File::options().write(true).open(files.index()).unwrap().set_len(len - 4096).unwrap();
        Place::default()
    }),
    ("journal-missing", |files| {
        fs::remove_file(files.path.join("journal")).unwrap();
        Place::default()
    }),
    ("journal", |files| {
        files.write(&files.path.join("journal"), 1000, &[1]);
        at_byte(0)
    }),
    ("journal", |files| {
        let journal = files.path.join("journal");
        let mut head = files.read(&journal, 0, PAGE);
        head[32] = head[32].wrapping_add(7);
        head[12..16].fill(0);
        let crc = crc32fast::hash(&head);
        head[12..16].copy_from_slice(&crc.to_le_bytes());
        files.write(&journal, 0, &head);
        at_byte(32)
    }),
    ("cut", |files| {
        let (slot, header) = files.header();
        files.edit_header(slot, |page| put(page, 72, word(&header, 72) + 8));
        Place::default()
    }),
];

#[test]
fn pages() {
    check_cases(base(), PAGES);
}

#[test]
fn slots() {
    check_cases(base(), SLOTS);
}

#[test]
fn what_belongs_to_the_whole() {
    check_cases(base(), WHOLE);
}

#[test]
fn a_slot_off_its_path() {
    // With two home buckets every bucket is on every path, so this takes the default geometry.
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let store = tophash::Store::open(&path).unwrap();
    (0..3000u32).for_each(|i| _ = store.insert(i.to_le_bytes(), "v").unwrap());
    store.close().unwrap();
    check_cases(
        &path,
        &[("slot-path", |files| {
            let number = primary(files);
            let (from, word) = files.slots(number)[0];
            let to = (from + 8 * 20) % 480 / 8 * 8;
            files.edit_page(number, |page| {
                put(page, 64 + 8 * from as usize, 0);
                put(page, 64 + 8 * to as usize, word);
            });
            at_slot(number, to)
        })],
    );
}
