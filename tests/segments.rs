//! How segments begin and end: one of its own for a large batch, small ones for somebody who waits, for bulk writing only
//! while somebody writes in bulk, and no unwritten end behind a sealed one; and a journal no longer than what it is for.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{bytes, contents, open, scratch};
use tophash::{Batch, Options, Store, SyncPolicy, Tuning};

/// Where a segment's header says how it was prepared (docs/FORMAT.md), and the bit for bulk writing.
const FLAGS: u64 = 76;
const BULK: u8 = 2;

fn key(n: u64) -> Vec<u8> {
    format!("key-{n:012}").into_bytes()
}

fn batch_of(numbers: std::ops::Range<u64>) -> Batch {
    let mut batch = Batch::new();
    numbers.for_each(|n| _ = batch.insert(key(n), bytes(100, n)));
    batch
}

fn assert_holds(store: &Store, numbers: std::ops::Range<u64>) {
    let expected: BTreeMap<_, _> = numbers.map(|n| (key(n), bytes(100, n))).collect();
    assert!(contents(store) == expected);
}

/// The same of a store that is opened for it and closed; nothing in its files is wrong.
fn assert_stored(options: &Options, path: &Path, numbers: std::ops::Range<u64>) {
    let store = open(options, path);
    assert_holds(&store, numbers);
    store.close().unwrap();
    assert!(tophash::verify::verify(path).unwrap().is_clean());
}

/// Sizes of the log's files.
fn sizes(path: &Path) -> Vec<u64> {
    // A segment that is prepared can be thrown away in the meantime.
    let size = |file: &PathBuf| match fs::metadata(file) {
        Ok(meta) => Some(meta.len()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
        Err(error) => panic!("{}: {error}", file.display()),
    };
    common::segments(path).iter().filter_map(size).collect()
}

#[test]
fn a_batch_of_many_segments_gets_one_of_its_own() {
    for policy in [SyncPolicy::Manual, SyncPolicy::Always, SyncPolicy::default()] {
        let dir = scratch();
        let path = dir.path().join("store");
        let options = Options::new().segment_bytes(64 << 10).sync(policy);
        let store = open(&options, &path);
        store.insert(key(0), bytes(100, 0)).unwrap();
        store.apply(&batch_of(1..5_000)).unwrap();
        // 4,999 records of 124 bytes and padding: nothing beside them but some room.
        let largest = sizes(&path).into_iter().max().unwrap();
        assert!((640_000..740_000).contains(&largest), "{largest}");
        // What follows goes on elsewhere, and the next large batch too.
        store.insert(key(5_000), bytes(100, 5_000)).unwrap();
        store.apply(&batch_of(5_001..9_000)).unwrap();
        drop(store);
        assert_stored(&options, &path, 0..9_000);
    }
}

/// Others need segments while a batch's own is written: whoever comes first discards the other's, and nobody waits for ever.
#[test]
fn large_batches_and_single_writes_do_not_hinder_each_other() {
    const THREADS: u64 = 3;
    const EACH: u64 = 4_000;
    let dir = scratch();
    let path = dir.path().join("store");
    let options = Options::new().segment_bytes(8 << 10).log_ratio(f64::INFINITY).sync(SyncPolicy::Manual);
    let store = open(&options, &path);
    std::thread::scope(|scope| {
        for thread in 0..THREADS {
            let store = &store;
            scope.spawn(move || {
                let numbers = thread * EACH..(thread + 1) * EACH;
                match thread {
                    0 => numbers.for_each(|n| _ = store.insert(key(n), bytes(100, n)).unwrap()),
                    _ => {
                        for first in numbers.step_by(400) {
                            store.apply(&batch_of(first..first + 400)).unwrap();
                        }
                    }
                }
            });
        }
    });
    assert_holds(&store, 0..THREADS * EACH);
    drop(store);
    assert_stored(&options, &path, 0..THREADS * EACH);
}

/// A batch that cannot be applied takes its segment with it.
#[test]
fn a_batch_that_fails_leaves_no_segment() {
    let dir = scratch();
    let path = dir.path().join("store");
    let tuning = Tuning { background: false, ..Tuning::default() };
    let options = Options::new().segment_bytes(64 << 10).tuning(tuning).sync(SyncPolicy::Manual);
    let store = open(&options, &path);
    store.apply(&batch_of(0..100)).unwrap();
    store.close().unwrap();
    // All bucket pages are rotten: whichever the batch needs first.
    let index = path.join("index");
    let bytes = fs::read(&index).unwrap();
    let rotten: Vec<_> = bytes.chunks_exact(4096).enumerate().filter(|(_, page)| page[4..8] == *b"BKT1").collect();
    assert!(!rotten.is_empty());
    rotten.iter().for_each(|(number, _)| common::flip_bit(&index, *number as u64 * 4096 + 2000, 3));
    let store = open(&options, &path);
    let before = common::segments(&path);
    store.apply(&batch_of(0..5_000)).expect_err("rotten pages");
    assert_eq!(common::segments(&path), before);
}

/// The file of the newest segment that holds a record was prepared for bulk writing.
fn is_bulk(path: &Path) -> bool {
    let newest = common::segments(path).into_iter().rev().find_map(|file| {
        let mut header = [0; 128];
        fs::File::open(file).ok()?.read_exact_at(&mut header, 0).ok()?;
        (header != [0; 128]).then_some(header)
    });
    newest.is_some_and(|header| header[FLAGS as usize] & BULK != 0)
}

#[test]
fn segments_are_for_bulk_writing_while_much_is_written() {
    let dir = scratch();
    let path = dir.path().join("store");
    // Small segments: a few records within half a second are a hurry, on the slowest machine too.
    let options = Options::new().sync(SyncPolicy::Every(Duration::from_millis(5))).segment_bytes(16 << 10);
    let store = open(&options, &path);
    assert!(!is_bulk(&path), "nobody is in a hurry yet");
    let mut n = 0;
    common::eventually("a segment for bulk writing", || {
        for _ in 0..100 {
            store.insert(key(n), bytes(1_000, n)).unwrap();
            n += 1;
        }
        is_bulk(&path)
    });
    // Now and then a record: each sync would write a large piece.
    common::eventually("a segment for small syncs", || {
        store.insert(key(n), bytes(10, n)).unwrap();
        n += 1;
        !is_bulk(&path)
    });
    store.close().unwrap();
    assert!(tophash::verify::verify(&path).unwrap().is_clean());
}

/// Under `Manual` each segment was prepared for bulk writing, in pieces of megabytes, and each small sync wrote a piece.
#[test]
fn a_caller_that_syncs_each_write_gets_segments_for_it() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = open(&Options::new().sync(SyncPolicy::Manual), &path);
    store.insert("a", "1").unwrap();
    assert!(is_bulk(&path), "bulk loading is what `Manual` is for");
    let mut n = 0;
    common::eventually("a segment for small syncs", || {
        store.insert(key(n), bytes(10, n)).unwrap();
        store.sync().unwrap();
        n += 1;
        !is_bulk(&path)
    });
    store.close().unwrap();
    assert!(tophash::verify::verify(&path).unwrap().is_clean());
}

/// The unwritten end of a sealed segment stayed, unless it was more than a sixteenth of the file.
#[test]
fn a_sealed_segment_ends_with_its_records() {
    use std::os::unix::fs::MetadataExt;
    let dir = scratch();
    let path = dir.path().join("store");
    // No threads: the call that needs the next segment does it.
    let tuning = Tuning { background: false, ..Tuning::default() };
    let options = Options::new().segment_bytes(256 << 10).tuning(tuning).sync(SyncPolicy::Manual);
    let store = open(&options, &path);
    // Of 492 records of 124 bytes each, with a frame's header: four fit, and two pages stay.
    let mut held = Vec::new();
    for first in (0..492 * 12).step_by(492) {
        store.apply(&batch_of(first..first + 492)).unwrap();
        // The last record of each batch, some of them the last of their segments.
        held.push((first + 491, store.get(key(first + 491)).unwrap().unwrap()));
    }
    let sizes = sizes(&path);
    assert!(sizes.len() >= 3, "{sizes:?}");
    // The last one is the active one, and the one before it was sealed after the last was prepared.
    for (file, size) in common::segments(&path).iter().zip(&sizes).rev().skip(2) {
        assert!((244 << 10..=248 << 10).contains(size) && size.is_multiple_of(4096), "{sizes:?}");
        let blocks = fs::metadata(file).unwrap().blocks() * 512;
        assert!(blocks <= size + 4096, "{blocks} for {size}");
    }
    // Readers have the whole length mapped still, and what they hold is there.
    for (n, value) in &held {
        assert!(**value == bytes(100, *n)[..]);
    }
    assert_holds(&store, 0..492 * 12);
    drop(held);
    // As an unclean end leaves it, and a clean one.
    let copy = dir.path().join("copy");
    common::copy_store(&path, &copy);
    assert_stored(&options, &copy, 0..492 * 12);
    store.close().unwrap();
    assert_stored(&options, &path, 0..492 * 12);
}

/// The journal had blocks for a table of twice the size, for as long as the table was not a quarter of that.
#[test]
fn the_journal_is_as_long_as_what_it_is_for() {
    let dir = scratch();
    let path = dir.path().join("store");
    let options = Options::new().sync(SyncPolicy::Manual);
    let store = open(&options, &path);
    store.apply(&batch_of(0..200_000)).unwrap();
    let loaded = store.stats().checkpoint;
    assert!(loaded.journal_bytes >= loaded.dirty_pages * 4096, "{loaded:#?}");
    store.checkpoint().unwrap();
    // Nobody writes, and nothing is dirty.
    common::eventually("a short journal", || store.stats().checkpoint.journal_bytes < 1 << 20);
    let length = || fs::metadata(path.join("journal")).unwrap().len();
    common::eventually("a short journal file", || length() < 1 << 20);
    // It grows again with what is dirty, and a checkpoint has its room.
    store.apply(&batch_of(100_000..200_000)).unwrap();
    let again = store.stats().checkpoint;
    assert!(again.journal_bytes >= again.dirty_pages * 4096, "{again:#?}");
    store.checkpoint().unwrap();
    store.apply(&batch_of(150_000..160_000)).unwrap();
    store.close().unwrap();
    assert!(length() < 1 << 20, "{}", length());
    assert_stored(&options, &path, 0..200_000);
}
