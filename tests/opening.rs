//! What an open does.

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{bytes, copy_store, open, quiet, says, scratch, segments, snapshot};
use tophash::Options;

/// Enough for a log of several segments.
const RECORDS: u64 = 3_000;

fn key(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

/// A store that was closed: many sealed segments, the active one, a few blobs.
fn closed_store(path: &Path) -> Options {
    let options = quiet().segment_bytes(64 << 10);
    let store = open(&options, path);
    for n in 0..RECORDS {
        store.insert(key(n), bytes(100, n)).unwrap();
    }
    store.insert("blob", bytes(300_000, 1)).unwrap();
    store.close().unwrap();
    assert!(segments(path).len() > 4);
    options
}

/// What another process would find if this one were killed now.
fn after_a_kill(path: &Path) -> (tempfile::TempDir, PathBuf) {
    let dir = scratch();
    let copy = dir.path().join("store");
    copy_store(path, &copy);
    (dir, copy)
}

fn was_unclean(options: &Options, path: &Path) -> bool {
    open(options, path).stats().recovery.was_unclean
}

/// An open says that the store is in use before it returns. It used to leave that to the first change, and removed the
/// garbage of an offline compaction before it had synced the directory: a power loss brought an index back whose log was gone.
#[test]
fn a_store_is_in_use_from_its_open_on_and_stays_as_it_was_read() {
    let dir = scratch();
    let path = dir.path().join("store");
    let options = closed_store(&path);
    let store = open(&options, &path);
    let (_dir, copy) = after_a_kill(&path);
    assert!(was_unclean(&options, &copy));
    for n in 0..RECORDS {
        assert_eq!(store.get(key(n)).unwrap().unwrap(), &bytes(100, n)[..]);
    }
    assert!(store.remove("absent").unwrap().is_none());
    let contents = common::contents(&store);
    store.close().unwrap();
    assert!(common::contents(&open(&options, &path)) == contents);
}

#[test]
fn a_change_of_any_kind_right_after_an_open_survives_a_kill() {
    type Change = fn(&tophash::Store);
    let changes: [(&str, Change); 9] = [
        ("insert", |store| _ = store.insert("key", "value").unwrap()),
        ("remove", |store| _ = store.remove(key(1)).unwrap().unwrap()),
        ("blob", |store| _ = store.insert("key", bytes(300_000, 2)).unwrap()),
        ("batch", |store| {
            let mut batch = tophash::Batch::new();
            batch.insert("key", "value");
            store.apply(&batch).unwrap();
        }),
        ("large batch", |store| {
            let mut batch = tophash::Batch::new();
            (0..2_000).for_each(|n| _ = batch.insert(key(RECORDS + n), bytes(100, n)));
            store.apply(&batch).unwrap();
        }),
        ("clear", |store| store.clear().unwrap()),
        ("remove_many", |store| _ = store.remove_many(&[key(1), key(2)]).unwrap()),
        ("update", |store| _ = store.update(key(3), |_| Some(b"value".to_vec())).unwrap()),
        ("several", |store| {
            (0..RECORDS).for_each(|n| _ = store.remove(key(n)).unwrap());
            _ = store.compact().unwrap();
        }),
    ];
    for (name, change) in changes {
        let dir = scratch();
        let path = dir.path().join("store");
        let options = closed_store(&path);
        let store = open(&options, &path);
        assert!(tophash::Options::new().open(&path).is_err());
        change(&store);
        let (_dir, copy) = after_a_kill(&path);
        assert!(was_unclean(&options, &copy), "{name}");
        assert!(tophash::verify::verify(&copy).unwrap().is_clean(), "{name}");
        let contents = common::contents(&store);
        store.close().unwrap();
        assert!(common::contents(&open(&options, &path)) == contents, "{name}");
        assert!(common::contents(&open(&options, &copy)) == contents, "{name}");
    }
}

#[test]
fn a_segment_that_is_compacted_right_after_an_open() {
    let dir = scratch();
    let path = dir.path().join("store");
    let options = closed_store(&path).log_ratio(f64::INFINITY);
    let store = open(&options, &path);
    for n in 0..RECORDS {
        if n % 10 != 0 {
            store.remove(key(n)).unwrap();
        }
    }
    store.close().unwrap();
    // Some segments hold nothing that lives.
    let store = open(&options, &path);
    let before = segments(&path).len();
    let report = store.compact().unwrap();
    assert!(report.finished && segments(&path).len() < before);
    for n in 0..RECORDS {
        assert_eq!(store.get(key(n)).unwrap().is_some(), n % 10 == 0, "{n}");
    }
    store.close().unwrap();
    assert!(tophash::verify::verify(&path).unwrap().is_clean());
}

#[test]
fn a_segment_that_is_missing_or_too_short_is_noticed_by_the_open() {
    for missing in [true, false] {
        let dir = scratch();
        let path = dir.path().join("store");
        let options = closed_store(&path);
        let victim = &segments(&path)[1];
        if missing {
            fs::remove_file(victim).unwrap();
        } else {
            fs::File::options().write(true).open(victim).unwrap().set_len(8192).unwrap();
        }
        let before = snapshot(&path).without_times();
        let error = options.open(&path).expect_err("the open should be refused");
        assert_eq!(snapshot(&path).without_times(), before);
        let found = if missing { "no such file" } else { "8192" };
        says(&error, &[victim.file_name().unwrap().to_str().unwrap(), found]);
    }
}

/// Segments were mapped by the first read that needed one. A moment without descriptors made records unreadable then,
/// and a doubling in that moment marked them as damaged for ever.
#[test]
fn an_open_maps_the_whole_log_and_no_read_needs_a_file() {
    let dir = scratch();
    let path = dir.path().join("store");
    let options = closed_store(&path);
    let store = open(&options, &path);
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    for segment in segments(&path) {
        assert!(maps.contains(segment.to_str().unwrap()), "{segment:?} is not mapped");
    }
    let aside = dir.path().join("aside");
    fs::create_dir(&aside).unwrap();
    for segment in segments(&path) {
        fs::rename(&segment, aside.join(segment.file_name().unwrap())).unwrap();
    }
    for n in 0..RECORDS {
        assert_eq!(store.get(key(n)).unwrap().unwrap(), &bytes(100, n)[..]);
    }
}

/// A file in the log directory had the name of a blob with the highest number there is. The open took the number for one
/// of its own, the next checkpoint wrote down the one after it, and the open after that refused the meta data: the store
/// was lost to a file that was none of its own.
#[test]
fn a_file_that_is_called_like_a_blob_of_an_impossible_number_does_no_harm() {
    let dir = scratch();
    let path = dir.path().join("store");
    let options = quiet();
    let open_and_close = |round: u64| {
        let store = open(&options, &path);
        assert_eq!(store.len(), round);
        store.insert(key(round), bytes(300_000, round)).unwrap();
        store.close().unwrap();
    };
    open_and_close(0);
    let strays =
        ["ffffffffffffffff", "3fffffffffffffff", "0000000100000100"].map(|id| path.join(format!("log-1/{id}.blob")));
    strays.iter().for_each(|stray| fs::write(stray, "not a blob").unwrap());
    (1..4).for_each(open_and_close);
    strays.iter().for_each(|stray| assert_eq!(fs::read(stray).unwrap(), b"not a blob"));
}

/// The same for a segment: an empty file with the highest number was taken for a segment that had been prepared, and no number
/// was left for the next one, now or ever again.
#[test]
fn an_empty_file_that_is_called_like_the_last_of_all_segments_does_no_harm() {
    let dir = scratch();
    let path = dir.path().join("store");
    let options = quiet().segment_bytes(4096);
    drop(open(&options, &path));
    fs::write(path.join("log-1/4294967295.log"), "").unwrap();
    for round in 0..3u64 {
        let store = open(&options, &path);
        assert_eq!(store.len(), round * 100);
        (round * 100..(round + 1) * 100).for_each(|n| _ = store.insert(key(n), bytes(100, n)).unwrap());
        store.close().unwrap();
    }
}
