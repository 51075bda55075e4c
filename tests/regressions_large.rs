//! Bugs of large values, whose files are outside the segments, each with its story. None may come back.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use common::{bytes, open, scratch, tiny_options};
use tophash::{Options, Store, Tuning};

/// Large values that a checkpoint lists at the most: 8,192 in a store of ordinary tuning.
const LISTED: usize = 8;
/// Those that `clear` frees at once.
const CLEARED: u64 = 40;
/// Large values of later on, which records link.
const LINKED: u64 = 3;

fn options() -> Options {
    let tuning = Tuning { listed_blobs_max: LISTED, ..common::tiny() };
    tiny_options().tuning(tuning).log_ratio(f64::INFINITY).checkpoint_bytes(1 << 30)
}

fn key(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

fn value(n: u64) -> Vec<u8> {
    bytes(if n.is_multiple_of(2) { 700 } else { 2000 }, n)
}

/// The names of the files of large values.
fn files(path: &Path) -> BTreeSet<String> {
    let names =
        fs::read_dir(path.join("log-1")).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".blob")).collect()
}

/// A store whose process has died: it had removed many large values at once, and one checkpoint had run. A segment of small
/// records lies before the large values that are linked.
fn left_behind(dir: &Path) -> PathBuf {
    let (path, killed) = (dir.join("s"), dir.join("killed"));
    let store = open(&options(), &path);
    (0..CLEARED).for_each(|n| store.set(key(n), value(n)).unwrap());
    store.checkpoint().unwrap();
    store.clear().unwrap();
    (1000..1060).for_each(|n| store.set(key(n), bytes(100, n)).unwrap());
    (2000..2000 + LINKED).for_each(|n| store.set(key(n), value(n)).unwrap());
    store.checkpoint().unwrap();
    // One more, in the tail, and one that the tail supersedes.
    store.set(key(2000 + LINKED), value(2000 + LINKED)).unwrap();
    store.set(key(2000), value(3000)).unwrap();
    common::copy_store(&path, &killed);
    let left = CLEARED as usize - LISTED;
    assert_eq!(files(&killed).len() as u64, left as u64 + LINKED + 2);
    killed
}

fn check(store: &Store) {
    assert_eq!(store.get(key(2000)).unwrap().unwrap(), value(3000));
    for n in 2001..=2000 + LINKED {
        assert_eq!(store.get(key(n)).unwrap().unwrap(), value(n), "{n}");
    }
    (1001..1060).for_each(|n| assert_eq!(store.get(key(n)).unwrap().unwrap(), bytes(100, n), "{n}"));
    assert_eq!(store.len(), 60 + LINKED + 1);
}

/// `clear` of a store with 20,000 large values freed them all, and a checkpoint lists 8,192. The process kept the others in its
/// memory until a later checkpoint. When it was killed before, their files stayed for ever: the next process knew them
/// neither as linked nor as garbage, and `verify` called them harmless.
#[test]
fn what_a_full_list_has_no_room_for_goes_with_the_next_open() {
    let dir = scratch();
    let path = left_behind(dir.path());
    let before = common::snapshot(&path);
    check(&open(&options().read_only(true), &path));
    assert_eq!(common::snapshot(&path), before, "an open for reading only has changed something");
    let store = open(&options(), &path);
    check(&store);
    // The one that the tail has superseded goes with a checkpoint.
    assert_eq!(files(&path).len() as u64, LINKED + 2);
    store.checkpoint().unwrap();
    assert_eq!(files(&path).len() as u64, LINKED + 1);
    store.close().unwrap();
    let report = tophash::verify::verify(&path).unwrap();
    assert!(report.is_clean() && report.harmless_total == 0 && report.leftover_blobs == 0, "{report:#?}");
    check(&open(&options(), &path));
}

/// The same beside a record that cannot be read. It could be the one that links a file, so all files stay. When it can be
/// read again, the next open unlinks those that no record links.
#[test]
fn all_large_values_stay_beside_a_record_that_cannot_be_read() {
    let dir = scratch();
    let path = left_behind(dir.path());
    let before = files(&path);
    let mut rotten = bytes(100, 1000);
    common::rot(&path, &rotten);
    let store = open(&options(), &path);
    check(&store);
    assert!(store.get(key(1000)).unwrap_err().is_corruption());
    assert_eq!(files(&path), before);
    store.close().unwrap();
    // Now also of a store that was closed: without the one that the tail had superseded.
    drop(open(&options(), &path));
    assert_eq!(files(&path).len(), before.len() - 1);
    rotten[0] ^= 1;
    common::rot(&path, &rotten);
    let store = open(&options(), &path);
    check(&store);
    assert_eq!(files(&path).len() as u64, LINKED + 1);
}

/// Files of such names that are none of this store's stay.
#[test]
fn a_file_that_the_store_has_not_written_stays() {
    let dir = scratch();
    let other = dir.path().join("other");
    let store = open(&options(), &other);
    store.set("a", value(1)).unwrap();
    store.close().unwrap();
    let path = left_behind(dir.path());
    open(&options(), &path).close().unwrap();
    // Ids that this store has given out, and that no checkpoint lists any more.
    let name = |id: u64| format!("{id:016x}.blob");
    let gone: Vec<u64> = (1..=CLEARED).filter(|&id| !files(&path).contains(&name(id))).take(2).collect();
    let theirs = other.join("log-1").join(files(&other).first().unwrap());
    fs::copy(theirs, path.join("log-1").join(name(gone[0]))).unwrap();
    fs::write(path.join("log-1").join(name(gone[1])), "notes").unwrap();
    let store = open(&options(), &path);
    check(&store);
    store.checkpoint().unwrap();
    let left = files(&path);
    assert!(left.len() as u64 == LINKED + 1 + 2 && gone.iter().all(|&id| left.contains(&name(id))), "{left:?}");
}

/// Spoils a page of the index in which some of these keys are, but not all. Returns how many.
fn spoil_page(path: &Path, keys: std::ops::Range<u64>) -> u64 {
    let index = path.join("index");
    for page in (2..fs::metadata(&index).unwrap().len() / 4096).rev() {
        common::flip_bit(&index, page * 4096 + 2000, 3);
        let unread = |store: Store| keys.clone().filter(|&n| store.get(key(n)).is_err()).count() as u64;
        let spoilt = options().read_only(true).open(path).map_or(0, unread);
        if spoilt > 0 && spoilt < keys.end - keys.start {
            return spoilt;
        }
        common::flip_bit(&index, page * 4096 + 2000, 3);
    }
    panic!("no page of the index has some of the keys");
}

/// One large value whose page of the index was damaged kept others that had expired: after an open, reading the deadlines of its
/// segment ended there, so those behind it were never known to expire.
#[test]
fn expired_large_values_go_beside_a_damaged_page() {
    let dir = scratch();
    let path = dir.path().join("s");
    let options = options().tuning(common::tiny()).segment_bytes(64 << 10);
    let store = open(&options, &path);
    (0..60).for_each(|n| store.expiring(SystemTime::UNIX_EPOCH).set(key(n), value(n)).unwrap());
    // The segment is worth keeping.
    (100..300).for_each(|n| store.set(key(n), bytes(200, n)).unwrap());
    store.close().unwrap();
    let spoilt = spoil_page(&path, 0..60);
    let store = open(&options, &path);
    for _ in 0..3 {
        _ = store.compact();
    }
    store.checkpoint().unwrap();
    let files = files(&path).len() as u64;
    assert!(files == spoilt, "{files} files, and {spoilt} of 60 keys are in the damaged page");
}
