//! Reading goes on behind damage.
//!
//! A damaged page of the index ended `iter`: a caller that logged errors went on without an eighth of the store. A
//! damaged record stopped `scan` for ever, because the error came without a cursor to go on from.

use std::collections::BTreeSet;
use std::path::Path;

use crate::damage::base;
use crate::support::*;
use tophash::{Error, Store};

type Keys = BTreeSet<Vec<u8>>;

fn copy() -> (tempfile::TempDir, Files) {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    copy_store(base(), &path);
    (dir, Files::new(&path))
}

fn open(path: &Path) -> Store {
    options().read_only(true).open(path).unwrap()
}

/// What `iter` yields: keys, each once, and errors.
fn iterate(store: &Store) -> (Keys, Vec<Error>) {
    let (mut keys, mut errors) = (Keys::new(), Vec::new());
    for entry in store.iter() {
        match entry {
            Ok(entry) => assert!(keys.insert(entry.key().to_vec()), "twice: {entry:?}"),
            Err(error) => errors.push(error),
        }
    }
    (keys, errors)
}

/// The same of `scan`, so many entries at a time.
fn scan(store: &Store, limit: usize) -> (Keys, Vec<Error>) {
    let (mut keys, mut errors) = (Keys::new(), Vec::new());
    let (mut cursor, mut steps) = (Some(tophash::Cursor::START), 0);
    while let Some(at) = cursor {
        let (entries, next) = store.scan(at, limit).unwrap();
        for entry in &entries {
            assert!(keys.insert(entry.key().to_vec()), "twice: {entry:?}");
        }
        assert!(next.is_none_or(|next| next > at), "the cursor goes on");
        errors.extend(entries.damaged);
        (cursor, steps) = (next, steps + 1);
        assert!(steps < 10_000, "endless");
    }
    (keys, errors)
}

/// Reads a damaged store in every way. All must see the same keys and one error; returns the keys that are missing.
#[track_caller]
fn missing(path: &Path) -> (Keys, String) {
    let whole = iterate(&open(base())).0;
    let store = open(path);
    let (keys, errors) = iterate(&store);
    assert_eq!(errors.len(), 1, "{errors:?}");
    for limit in [1, 7, 64, 1 << 20] {
        let (scanned, errors) = scan(&store, limit);
        assert_eq!((&scanned, errors.len()), (&keys, 1), "{limit} at a time: {errors:?}");
        assert!(errors[0].is_corruption());
    }
    (whole.difference(&keys).cloned().collect(), errors[0].to_string())
}

/// The keys of the slots of some pages.
fn keys_of(files: &Files, pages: &[u64]) -> Keys {
    let records = files.all_records();
    let addresses: BTreeSet<u64> =
        pages.iter().flat_map(|&number| files.slots(number)).map(|(_, word)| word & ((1 << 39) - 1)).collect();
    records.into_iter().filter(|record| addresses.contains(&record.address)).map(|record| record.key).collect()
}

#[test]
fn iteration_and_scan_go_on_behind_a_damaged_page() {
    let (_dir, files) = copy();
    let (_, number) = files.find_primary(|page| word(page, 40) == 0 && live_slots(page).len() > 4);
    let hidden = keys_of(&files, &[number]);
    let byte = files.page(number)[100];
    files.write(&files.index(), number * PAGE as u64 + 100, &[byte ^ 4]);
    let (missing, error) = missing(&files.path);
    assert_eq!(missing, hidden);
    assert!(error.contains("from cursor"), "{error}");
}

#[test]
fn of_a_chain_everything_before_the_damaged_page_is_seen() {
    let (_dir, files) = copy();
    let (_, number) = files.find_primary(|page| word(page, 40) != 0);
    let overflow = files.meta().overflow_page(word(&files.page(number), 40) - 1);
    let before = keys_of(&files, &[number]);
    files.damage(&files.index(), overflow * PAGE as u64 + 50, &[0x77]);
    let (missing, _) = missing(&files.path);
    assert!(!missing.is_empty() && missing.is_disjoint(&before), "{missing:?}");
}

#[test]
fn iteration_and_scan_go_on_behind_a_damaged_record() {
    for kind in [1, 6] {
        let (_dir, files) = copy();
        let mut live = files.all_records().into_iter().filter(|record| record.kind == kind);
        let record = live.find(|record| files.slot_of(record.address).is_some() && record.len > 16).unwrap();
        files.damage(&record.file, record.at + record.len as u64 - 1, &[0xee]);
        assert_eq!(missing(&files.path).0, [record.key].into());
    }
}

#[test]
fn iteration_and_scan_go_on_behind_a_value_whose_file_is_damaged_or_gone() {
    for remove in [true, false] {
        let (_dir, files) = copy();
        let blob = files.log_files("blob").remove(0);
        if remove {
            std::fs::remove_file(&blob).unwrap();
        } else {
            files.damage(&blob, 300, &[0xee]);
        }
        assert_eq!(missing(&files.path).0.len(), 1);
        assert_eq!(open(&files.path).keys().filter(Result::is_err).count(), 0);
    }
}

/// An entry whose record could not be read when its page was split is in both halves. When the record could be read again, it
/// was seen twice.
#[test]
fn an_entry_that_is_in_two_pages_is_seen_once() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let options = options().log_ratio(f64::INFINITY);
    let key = |n: u32| n.to_le_bytes();
    let store = options.open(&path).unwrap();
    (0..20).for_each(|n| drop(store.insert(key(n), [7; 50]).unwrap()));
    store.close().unwrap();
    let files = Files::new(&path);
    let record = files.all_records().into_iter().find(|record| record.key == key(5)).unwrap();
    let last = record.at + record.len as u64 - 1;
    let whole = files.read(&record.file, last, 1);
    files.write(&record.file, last, &[whole[0] ^ 1]);
    // Past eight doublings, which read the hashes of all keys again.
    let store = options.open(&path).unwrap();
    (20..10_000).for_each(|n| drop(store.insert(key(n), "").unwrap()));
    assert!(store.stats().index.refills > 0);
    store.close().unwrap();
    assert!(verify(&path).marked_slots >= 2, "the entry is in one page only");
    files.write(&record.file, last, &whole);
    let store = open(&path);
    let wanted: Keys = (0..10_000).map(|n| key(n).to_vec()).collect();
    let (keys, errors) = iterate(&store);
    assert_eq!((keys == wanted, errors.len()), (true, 0), "{errors:?}");
    let (keys, errors) = scan(&store, 64);
    assert_eq!((keys == wanted, errors.len()), (true, 0), "{errors:?}");
}
