//! Each rule of the log and of the blobs broken once.

use crate::damage::{Case, Place, at_byte, at_slot, base, check_cases};
use crate::support::*;
use std::fs;

/// A live record of a kind, and its slot.
fn live(files: &Files, kind: u8) -> (Record, (u64, u32)) {
    let mut records = files.all_records().into_iter().filter(|record| record.kind == kind);
    records.find_map(|record| Some((record.clone(), files.slot_of(record.address)?))).expect("no live record")
}

fn blobs(files: &Files) -> Vec<Record> {
    let records = files.all_records().into_iter();
    records.filter(|record| record.kind == 6 && files.slot_of(record.address).is_some()).collect()
}

fn blob_file(files: &Files) -> std::path::PathBuf {
    files.log_files("blob").remove(0)
}

fn edit_segment_header(files: &Files, edit: impl FnOnce(&mut [u8])) {
    let file = files.segment(files.meta().segments[1].sequence);
    let mut header = files.read(&file, 0, 128);
    edit(&mut header);
    header[12..16].fill(0);
    let crc = crc32fast::hash(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    files.write(&file, 0, &header);
}

const SEGMENTS: &[Case] = &[
    ("segment-missing", |files| {
        fs::remove_file(files.segment(files.meta().segments[1].sequence)).unwrap();
        Place::default()
    }),
    ("segment-length", |files| {
        let file = files.segment(files.meta().segments[1].sequence);
        fs::File::options().write(true).open(file).unwrap().set_len(300).unwrap();
        Place::default()
    }),
    ("segment-length", |files| {
        let file = files.segment(files.meta().segments[1].sequence);
        fs::File::options().write(true).open(file).unwrap().set_len(0).unwrap();
        Place::default()
    }),
    ("segment-header", |files| {
        files.write(&files.segment(files.meta().segments[1].sequence), 100, &[1]);
        at_byte(0)
    }),
    ("segment-header", |files| {
        edit_segment_header(files, |header| header[40] ^= 1);
        at_byte(32)
    }),
    ("segment-header", |files| {
        edit_segment_header(files, |header| header[56] ^= 8);
        at_byte(48)
    }),
    ("wrong-store", |files| {
        edit_segment_header(files, |header| header[16] ^= 1);
        at_byte(16)
    }),
    ("newer-format", |files| {
        edit_segment_header(files, |header| header[8] = 9);
        Place::default()
    }),
    ("segment-accounting", |files| {
        let at = files.meta().segments[1].at;
        files.edit_page(2, |page| page[at + 32] ^= 8);
        Place::default()
    }),
    ("segment-accounting", |files| {
        let at = files.meta().segments[1].at;
        files.edit_page(2, |page| page[at + 40] ^= 1);
        Place::default()
    }),
];

const RECORDS: &[Case] = &[
    ("log-record", |files| {
        // A live record: the finding names its slot.
        let (record, (page, slot)) = live(files, 1);
        files.damage(&record.file, record.at, &[0x77]);
        Place { page: Some(page), slot: Some(slot), offset: Some(record.at) }
    }),
    ("log-record", |files| {
        let record = files.all_records().into_iter().find(|record| record.kind == 2).unwrap();
        files.damage(&record.file, record.at + 8, &[0x77]);
        at_byte(record.at)
    }),
    ("log-record", |files| {
        // A length that is made up: what follows is found again.
        let (record, _) = live(files, 1);
        files.damage(&record.file, record.at + 6, &[0xff, 0xff]);
        at_byte(record.at)
    }),
    ("record-kind", |files| {
        let (record, (page, slot)) = live(files, 1);
        files.edit_record(&record, |bytes| bytes[4] = 2);
        at_slot(page, slot)
    }),
    ("slot-fingerprint", |files| {
        let (record, (page, slot)) = live(files, 1);
        files.edit_record(&record, |bytes| bytes[8] ^= 0x20);
        at_slot(page, slot)
    }),
    ("frame", |files| {
        let record = files.all_records().into_iter().find(|record| record.kind == 4).unwrap();
        files.edit_record(&record, |bytes| bytes[8] += 1);
        Place::default()
    }),
    ("frame", |files| {
        let record = files.all_records().into_iter().find(|record| record.kind == 4).unwrap();
        files.edit_record(&record, |bytes| bytes[18] = 0xff);
        at_byte(record.at)
    }),
];

const BLOBS: &[Case] = &[
    ("blob-missing", |files| {
        fs::remove_file(blob_file(files)).unwrap();
        Place::default()
    }),
    ("blob-length", |files| {
        fs::File::options().write(true).open(blob_file(files)).unwrap().set_len(500).unwrap();
        Place::default()
    }),
    ("blob-header", |files| {
        files.write(&blob_file(files), 60, &[1]);
        at_byte(0)
    }),
    ("blob-checksum", |files| {
        files.damage(&blob_file(files), 300, &[0xee]);
        at_byte(64)
    }),
    ("blob-link", |files| {
        let record = blobs(files).remove(0);
        files.edit_record(&record, |bytes| *bytes.last_mut().unwrap() = 1);
        let (page, slot) = files.slot_of(record.address).unwrap();
        at_slot(page, slot)
    }),
    ("blob-shared", |files| {
        let blobs = blobs(files);
        let link = files.read(&blobs[0].file, blobs[0].value_at, 24);
        files.edit_record(&blobs[1], |bytes| {
            let at = bytes.len() - 24;
            bytes[at..].copy_from_slice(&link);
        });
        Place::default()
    }),
    ("blob-accounting", |files| {
        files.edit_page(2, |page| page[64 + 40] ^= 1);
        Place::default()
    }),
    ("blob-orphan", |files| {
        let id = (1u64..).find(|id| !files.path.join(format!("log-1/{id:016x}.blob")).exists()).unwrap();
        fs::write(files.path.join(format!("log-1/{id:016x}.blob")), b"x").unwrap();
        Place::default()
    }),
];

#[test]
fn segments() {
    check_cases(base(), SEGMENTS);
}

#[test]
fn records() {
    check_cases(base(), RECORDS);
}

#[test]
fn blob_files() {
    check_cases(base(), BLOBS);
}

/// A store whose process was killed: the last checkpoint, and a tail with a sync in the middle.
fn killed(dir: &std::path::Path, synced: bool) -> std::path::PathBuf {
    fs::create_dir_all(dir).unwrap();
    let (path, killed) = (dir.join("s"), dir.join("killed"));
    let store = options().open(&path).unwrap();
    store.insert("checkpointed", "1").unwrap();
    store.checkpoint().unwrap();
    store.insert("tail 1", "1").unwrap();
    store.insert("tail blob", vec![1; 1000]).unwrap();
    if synced {
        store.sync().unwrap();
    }
    store.insert("tail 2", "2").unwrap();
    copy_store(&path, &killed);
    killed
}

#[test]
fn a_damaged_tail_is_torn_or_lost_data() {
    let dir = crate::common::scratch();
    for synced in [false, true] {
        let path = killed(&dir.path().join(synced.to_string()), synced);
        let report = verify_clean(&path);
        assert_eq!((report.tail_records, report.closed_cleanly, report.blobs), (3, false, 1));
        let files = Files::new(&path);
        let cut = word(&files.header().1, 72) & 0xffff_ffff;
        files.damage(&files.segment(1), cut + 9, &[0xff]);
        let report = verify(&path);
        if synced {
            let found = finding(&report, "lost-data");
            assert_eq!(found.offset, Some(cut));
            assert!(options().open(&path).is_err());
        } else {
            assert!(report.is_clean() && report.torn_bytes > 0 && report.leftover_blobs == 1, "{report:#?}");
            assert_eq!(options().open(&path).unwrap().len(), 1);
        }
    }
}

#[test]
fn a_tail_record_without_its_blob() {
    let dir = crate::common::scratch();
    let path = killed(dir.path(), false);
    fs::remove_file(blob_file(&Files::new(&path))).unwrap();
    finding(&verify(&path), "blob-missing");
}

#[test]
fn two_segments_of_one_slot() {
    let dir = crate::common::scratch();
    let (path, killed) = (dir.path().join("s"), dir.path().join("killed"));
    let store = options().open(&path).unwrap();
    store.insert("checkpointed", "1").unwrap();
    store.checkpoint().unwrap();
    (0..2000u32).for_each(|i| _ = store.insert(i.to_le_bytes(), "fills segments").unwrap());
    copy_store(&path, &killed);
    verify_clean(&killed);
    let file = Files::new(&killed).segment(2);
    let files = Files::new(&killed);
    let mut header = files.read(&file, 0, 128);
    header[72] = 0;
    header[12..16].fill(0);
    let crc = crc32fast::hash(&header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
    files.write(&file, 0, &header);
    finding(&verify(&killed), "segment-slot");
}
