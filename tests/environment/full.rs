//! File systems without a free block. What is promised: docs/OPERATIONS.md, "A full disk".

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use tophash::{Error, Options, Store, SyncPolicy};

use crate::common::{self, contents, open};
use crate::mounts::{Mount, for_test};

type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

fn key(n: u32) -> Vec<u8> {
    format!("key {n}").into_bytes()
}

/// Inserts values of so many bytes until the disk is full.
fn insert_until_full(store: &Store, len: usize, from: u32, expected: &mut Contents) {
    for n in from..from + 1_000_000 {
        let value = common::bytes(len, n.into());
        match store.insert(key(n), &value) {
            Ok(old) => {
                assert!(old.is_none());
                expected.insert(key(n), value);
            }
            Err(Error::DiskFull { .. }) => return,
            Err(error) => panic!("an insert on a full disk: {error}"),
        }
    }
    panic!("a million inserts, and the disk is not full");
}

/// Everything that only reads, of keys that are there and of keys that are not.
fn reads_go_on(store: &Store, expected: &Contents) {
    assert_eq!(contents(store), *expected);
    for (key, value) in expected {
        assert_eq!(store.get(key).unwrap().unwrap(), &value[..]);
    }
    for n in 0..20_000u32 {
        assert!(!store.contains_key(format!("absent {n}")).unwrap());
    }
    assert_eq!(store.len(), expected.len() as u64);
}

/// Removes keys until that is refused as well, or as many as the reserve is good for at least.
fn removals_go_on(store: &Store, expected: &mut Contents) {
    let keys: Vec<Vec<u8>> = expected.keys().take(500).cloned().collect();
    for key in keys {
        assert!(store.remove(&key).unwrap().is_some());
        expected.remove(&key);
    }
}

/// The whole story on one file system: filled by the store itself, then by somebody else to the last block.
///
/// **Three megabytes come back, and the index gets none.** The background thread took all of it for two segments that waited to be
/// written, while the active one had room, and an insert that needed 32 KiB of index was refused. Seen in one of two runs that were alone
/// on a machine; beside other tests the thread was slower. What waits is given back now before an insert is refused.
fn story(mount: &Mount, policy: SyncPolicy) {
    let options = &Options::new().sync(policy);
    // Where each insert costs a sync, there are fewer of them.
    let len = if policy == SyncPolicy::Always { 10_000 } else { 500 };
    let path = mount.path().join("store");
    let ballast = mount.path().join("ballast");
    fs::write(&ballast, vec![1; 3 << 20]).unwrap();
    let store = open(options, &path);
    let mut expected = Contents::new();
    insert_until_full(&store, len, 0, &mut expected);
    assert!(expected.len() > 300, "{} records", expected.len());
    mount.fill();
    reads_go_on(&store, &expected);
    removals_go_on(&store, &mut expected);
    store.sync().unwrap();
    store.checkpoint().unwrap();
    reads_go_on(&store, &expected);
    store.close().unwrap();

    // Closing gives prepared files back; what is freed is taken at once by somebody else.
    mount.fill();
    let reading = open(&options.clone().read_only(true), &path);
    reads_go_on(&reading, &expected);
    drop(reading);
    let store = open(options, &path);
    assert!(!store.stats().recovery.was_unclean);
    reads_go_on(&store, &expected);
    insert_until_full(&store, len, 2_000_000, &mut Contents::new());
    drop(store);

    fs::remove_file(ballast).unwrap();
    let store = open(options, &path);
    let extra: Contents = contents(&store).into_iter().filter(|(key, _)| !expected.contains_key(key)).collect();
    assert!(extra.keys().all(|key| key.starts_with(b"key 20")), "only what was inserted meanwhile");
    expected.extend(extra);
    for n in 3_000_000..3_000_500 {
        store.insert(key(n), "room again").unwrap();
        expected.insert(key(n), b"room again".to_vec());
    }
    store.close().unwrap();
    let store = open(options, &path);
    reads_go_on(&store, &expected);
    drop(store);
    let report = tophash::verify::verify(&path).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    println!("full disk: {} records when it was full", expected.len());
}

const POLICIES: [SyncPolicy; 3] =
    [SyncPolicy::Every(Duration::from_millis(100)), SyncPolicy::Always, SyncPolicy::Manual];

#[test]
fn a_full_tmpfs() {
    for policy in POLICIES {
        let Some(mount) = for_test("a_full_tmpfs", Mount::tmpfs(8 << 10)) else { return };
        story(&mount, policy);
    }
}

#[test]
fn a_full_ext4() {
    for policy in &POLICIES[..2] {
        let Some(mount) = for_test("a_full_ext4", Mount::ext4(12)) else { return };
        story(&mount, *policy);
    }
}

/// One large value, replaced over and over, filled a small disk with files that no record named any more. The insert
/// failed with `DiskFull`, although a checkpoint would have freed nearly everything.
#[test]
fn a_full_disk_is_freed_before_it_is_told() {
    let name = "a_full_disk_is_freed_before_it_is_told";
    let Some(mount) = for_test(name, Mount::tmpfs(14 << 10)) else { return };
    let path = mount.path().join("store");
    let store = open(&Options::new(), &path);
    for n in 0..30 {
        store.insert("large", vec![n; 3 << 20]).unwrap();
    }
    // Without room for a second value, that is told, and nothing is lost.
    let room = mount.fill();
    assert!(matches!(store.insert("other", vec![1; 12 << 20]), Err(Error::DiskFull { .. })));
    fs::remove_file(room).unwrap();
    store.insert("large", vec![30; 3 << 20]).unwrap();
    store.close().unwrap();
    let store = open(&Options::new(), &path);
    assert_eq!(&*store.get("large").unwrap().unwrap(), &[30; 3 << 20]);
}

/// **SIGBUS.** A page of the table that was never used is a hole of the index file. On a tmpfs, reading a hole through a
/// mapping takes a block; without one left, a lookup of an absent key ended the process.
#[test]
fn unused_pages_take_no_blocks() {
    let Some(mount) = for_test("unused_pages_take_no_blocks", Mount::tmpfs(16 << 10)) else { return };
    let path = mount.path().join("store");
    // Blocks come a MiB at a time: most of the 32 MiB of the index are holes.
    let store = open(&Options::new().capacity(2_000_000), &path);
    let mut expected = Contents::new();
    for n in 0..6 {
        store.insert(key(n), "value").unwrap();
        expected.insert(key(n), b"value".to_vec());
    }
    store.close().unwrap();
    let before = common::blocks(&path);
    for options in [Options::new().read_only(true), Options::new()] {
        let store = open(&options, &path);
        reads_go_on(&store, &expected);
        drop(store);
        assert_eq!(common::blocks(&path), before, "reading took blocks: {options:?}");
    }
    mount.fill();
    for options in [Options::new().read_only(true), Options::new()] {
        let store = open(&options, &path);
        reads_go_on(&store, &expected);
        drop(store);
    }
    let store = open(&Options::new(), &path);
    insert_until_full(&store, 300, 1000, &mut expected);
    reads_go_on(&store, &expected);
    store.close().unwrap();
}

/// The same for pages that were given back: a table that has shrunk has holes where its upper half was. (And the journal is
/// cut at a close: it was once cut to less than the next open asks for, which then failed on the full disk.)
#[test]
fn given_back_pages_take_no_blocks() {
    let Some(mount) = for_test("given_back_pages_take_no_blocks", Mount::tmpfs(24 << 10)) else { return };
    for reopen in [true, false] {
        let path = mount.path().join(format!("store {reopen}"));
        let mut expected = Contents::new();
        let mut store = open(&common::tiny_options(), &path);
        for n in 0..6000 {
            store.insert(key(n), "value").unwrap();
        }
        if reopen {
            // So that the pages are file mappings when they are given back.
            store.close().unwrap();
            store = open(&common::tiny_options(), &path);
            (0..6000).for_each(|n| assert!(store.contains_key(key(n)).unwrap()));
        }
        for n in 0..5990 {
            store.remove(key(n)).unwrap();
        }
        (5990..6000).for_each(|n| _ = expected.insert(key(n), b"value".to_vec()));
        store.shrink_to_fit().unwrap();
        store.compact().unwrap();
        store.checkpoint().unwrap();
        assert!(store.stats().index.pages < 16, "{:?}", store.stats().index);
        let filler = mount.fill();
        reads_go_on(&store, &expected);
        // The table wants to grow into them again, and looks at them first.
        insert_until_full(&store, 8, 10_000, &mut expected);
        reads_go_on(&store, &expected);
        drop(store);
        let store = open(&common::tiny_options(), &path);
        reads_go_on(&store, &expected);
        insert_until_full(&store, 8, 20_000, &mut expected);
        drop(store);
        mount.empty(filler);
    }
}

/// Makes a hole of every 4 KiB of zeroes, as `cp --sparse=always`, `rsync --sparse` and `tar --sparse` do.
fn dig_holes(dir: &Path) {
    for name in common::files(dir) {
        let file = File::options().read(true).write(true).open(dir.join(name)).unwrap();
        let mut page = [0; 4096];
        for at in (0..file.metadata().unwrap().len()).step_by(page.len()) {
            page.fill(0);
            let read = file.read_at(&mut page, at).unwrap();
            if read == page.len() && page == [0; 4096] {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, at, 4096).unwrap();
            }
        }
    }
}

/// **SIGBUS.** The unused end of the last segment is zeroes, which some ways of copying a store turn into a hole. The
/// store went on writing there through its mapping, without a block.
///
/// The size of segments is fixed, so that the last one has an unused end. Otherwise it depends on when the background thread
/// prepares which size: on a busy machine the last one was full to its last page, had no hole, and could be opened.
fn a_copy_with_holes(name: &str, mount: Result<Mount, String>) {
    let Some(mount) = for_test(name, mount) else { return };
    let path = mount.path().join("store");
    let store = open(&Options::new().segment_bytes(1 << 20), &path);
    let mut expected = Contents::new();
    for (n, len) in [(1, 10), (2, 100_000), (3, 10), (4, 600_000)].into_iter().chain((5..400).map(|n| (n, 10))) {
        store.insert(key(n), vec![0; len]).unwrap();
        expected.insert(key(n), vec![0; len]);
    }
    store.close().unwrap();
    dig_holes(&path);

    // No block is left: the open says so, and a read-only one works.
    let filler = mount.fill();
    let reading = open(&Options::new().read_only(true), &path);
    assert_eq!(contents(&reading), expected);
    drop(reading);
    let error = Options::new().open(&path).unwrap_err();
    assert!(matches!(error, Error::DiskFull { .. }), "{error}");

    mount.empty(filler);
    // Nothing is compacted: what is written over and over would find room for ever.
    let store = open(&Options::new().log_ratio(f64::INFINITY), &path);
    // The first change makes sure of the blocks that a checkpoint needs.
    store.insert(key(5), "value").unwrap();
    expected.insert(key(5), b"value".to_vec());
    mount.fill();
    // Keys that are there: their pages have blocks, so it is the log that runs out.
    let mut written = 0;
    let refused = loop {
        let (key, value) = (key(5 + written % 390), common::bytes(300, written.into()));
        match store.insert(&key, &value) {
            Ok(_) => expected.insert(key, value),
            Err(error) => break error,
        };
        written += 1;
    };
    assert!(matches!(refused, Error::DiskFull { .. }), "{refused}");
    println!("{name}: {written} writes when it was full");
    assert!(written > 100, "the active segment was full already");
    assert_eq!(contents(&store), expected);
    store.close().unwrap();
    assert_eq!(contents(&open(&Options::new(), &path)), expected);
}

#[test]
fn a_copy_with_holes_on_tmpfs() {
    a_copy_with_holes("a_copy_with_holes_on_tmpfs", Mount::tmpfs(8 << 10));
}

#[test]
fn a_copy_with_holes_on_ext4() {
    a_copy_with_holes("a_copy_with_holes_on_ext4", Mount::ext4(16));
}
