//! A store with little in it takes little: on the disk, and of the memory that it was allowed.

mod common;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use common::{open, scratch};
use tophash::{Options, SyncPolicy};

/// Bytes that a directory and everything in it occupy on the disk.
fn occupied(path: &Path) -> u64 {
    let own = fs::metadata(path).unwrap().blocks() * 512;
    let entries = fs::read_dir(path).into_iter().flatten().map(|entry| entry.unwrap().path());
    own + entries.map(|entry| if entry.is_dir() { occupied(&entry) } else { occupied_by_file(&entry) }).sum::<u64>()
}

fn occupied_by_file(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks() * 512
}

/// A new store took 592 KiB: meta pages for 8,192 blobs that wait to be unlinked, a table of sixteen pages, a segment of 256 KiB.
#[test]
fn three_records_take_less_than_100_kib() {
    let dir = scratch();
    for (name, sync) in [
        ("manual", SyncPolicy::Manual),
        ("always", SyncPolicy::Always),
        ("every", SyncPolicy::Every(Duration::from_millis(1))),
    ] {
        let (path, options) = (dir.path().join(name), Options::new().sync(sync));
        for round in 0..3u32 {
            let store = open(&options, &path);
            for key in ["one", "two", "three"] {
                store.insert(key, format!("{key}, {round}")).unwrap();
            }
            store.sync().unwrap();
            assert!(occupied(&path) < 100 << 10, "{name}, in use: {} KiB", occupied(&path) >> 10);
            store.checkpoint().unwrap();
            assert!(occupied(&path) < 100 << 10, "{name}, after a checkpoint: {} KiB", occupied(&path) >> 10);
            store.close().unwrap();
            assert!(occupied(&path) < 100 << 10, "{name}, closed: {} KiB", occupied(&path) >> 10);
        }
    }
}
