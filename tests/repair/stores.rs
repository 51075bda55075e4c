//! Stores to damage, what they hold, and what a repair makes of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use tempfile::TempDir;
use tophash::repair::Report;
use tophash::{Batch, Options, Store};

pub use crate::common::scratch;
use crate::support::*;
use crate::watch::Watched;

pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store, and every value that each of its keys ever had.
pub struct History {
    dir: TempDir,
    pub contents: Contents,
    pub ever: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

impl History {
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("s")
    }
}

/// Writes a store, notes what it holds.
pub struct Writer {
    pub store: Store,
    pub contents: Contents,
    pub ever: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

impl Writer {
    pub fn new(path: &Path) -> Self {
        Writer { store: options().open(path).unwrap(), contents: Contents::new(), ever: BTreeMap::new() }
    }

    fn note(&mut self, key: &[u8], value: &[u8]) {
        self.contents.insert(key.to_vec(), value.to_vec());
        self.ever.entry(key.to_vec()).or_default().insert(value.to_vec());
    }

    pub fn put(&mut self, key: &[u8], value: &[u8]) {
        self.store.insert(key, value).unwrap();
        self.note(key, value);
    }

    pub fn remove(&mut self, key: &[u8]) {
        self.store.remove(key).unwrap();
        self.contents.remove(key);
    }

    pub fn batch(&mut self, puts: &[(Vec<u8>, Vec<u8>)], removes: &[Vec<u8>]) {
        let mut batch = Batch::new();
        puts.iter().for_each(|(key, value)| _ = batch.insert(key, value));
        removes.iter().for_each(|key| _ = batch.remove(key));
        self.store.apply(&batch).unwrap();
        puts.iter().for_each(|(key, value)| self.note(key, value));
        removes.iter().for_each(|key| _ = self.contents.remove(key));
    }
}

pub fn key(i: u64) -> Vec<u8> {
    format!("key {i:04}").into_bytes()
}

/// Values of different lengths, all different.
pub fn value(i: u64, version: u64) -> Vec<u8> {
    format!("{version}:{i}:{}", "x".repeat((i * 7 % 90) as usize)).into_bytes()
}

/// Keys `key(0)` to `key(ROUNDS - 1)` are written.
pub const ROUNDS: u64 = 700;

/// Many segments, batches, blobs, removals, sync marks, a checkpoint in the middle; the same every time.
pub fn write_history(writer: &mut Writer) {
    for i in 0..ROUNDS {
        writer.put(&key(i), &value(i, 0));
        if i % 5 == 0 {
            writer.put(&key(i / 2), &value(i / 2, i));
        }
        if i % 9 == 0 {
            writer.remove(&key(i / 3));
        }
        if i % 40 == 0 {
            writer.put(format!("blob {i}").as_bytes(), &vec![i as u8; 700 + i as usize]);
            writer.store.sync().unwrap();
            let puts: Vec<_> = (0..6).map(|j| (format!("batch {i} {j}").into_bytes(), value(j, i))).collect();
            writer.batch(&puts, &[key(i / 4)]);
        }
        if i == 250 {
            writer.store.checkpoint().unwrap();
        }
    }
    writer.store.sync().unwrap();
    writer.put(b"behind the sync", b"1");
}

fn history(close: bool) -> History {
    let dir = scratch();
    let made = dir.path().join("made");
    let mut writer = Writer::new(&made);
    write_history(&mut writer);
    let Writer { store, contents, ever } = writer;
    if close {
        store.close().unwrap();
        fs::rename(&made, dir.path().join("s")).unwrap();
    } else {
        copy_store(&made, &dir.path().join("s"));
    }
    History { dir, contents, ever }
}

/// Closed cleanly: the whole log is below the cut.
pub fn closed() -> &'static History {
    static STORE: OnceLock<History> = OnceLock::new();
    STORE.get_or_init(|| history(true))
}

/// As a killed process leaves it: a tail behind the checkpoint's cut.
pub fn killed() -> &'static History {
    static STORE: OnceLock<History> = OnceLock::new();
    STORE.get_or_init(|| history(false))
}

/// A copy of a store to damage.
pub fn copy(history: &History) -> (TempDir, Files) {
    let dir = scratch();
    copy_store(&history.path(), &dir.path().join("s"));
    let files = Files::new(&dir.path().join("s"));
    (dir, files)
}

/// Repairs a store. The old one must be as it was, the new one whole; its contents come back, too.
#[track_caller]
pub fn repair(path: &Path) -> (Report, Contents) {
    let new = path.with_file_name(format!("{}.repaired", path.file_name().unwrap().to_string_lossy()));
    // Every write to the old store, and every mapping of it, is a panic.
    let disk = Watched::default();
    let report = loop {
        match tophash::repair::repair_disk(&disk, path, &new, &options(), tophash::Progress::ignore) {
            // Another test of this process is just starting a child, which has our locks for a moment.
            Err(tophash::Error::Locked { .. }) => std::thread::sleep(std::time::Duration::from_millis(10)),
            Ok(report) => break report,
            Err(error) => panic!("{error}"),
        }
    };
    assert_eq!(verify_clean(&new).live_slots, report.keys);
    let contents = read(&new);
    assert_eq!(contents.len() as u64, report.keys);
    assert!(report.lost_keys.len() as u64 <= report.lost_keys_total);
    for lost in &report.lost_keys {
        let there = contents.keys().any(|key| key.escape_ascii().to_string() == lost.key);
        assert_eq!(there, lost.older_value_kept, "{lost:?}");
    }
    fs::remove_dir_all(&new).unwrap();
    (report, contents)
}

/// What a store holds.
pub fn read(path: &Path) -> Contents {
    let store = Options::new().read_only(true).create(false).open(path).unwrap();
    store.iter().map(|entry| entry.map(|e| (e.key().to_vec(), e.value().to_vec())).unwrap()).collect()
}

/// A repair that saves everything.
#[track_caller]
pub fn repairs_whole(path: &Path, contents: &Contents) -> Report {
    let (report, found) = repair(path);
    assert!(report.is_complete() && report.stale_keys_max == 0, "{report:#?}");
    assert!(found == *contents, "{report:#?}");
    report
}

/// Keys whose value is not the one that it should be.
pub fn differing<'c>(a: &'c Contents, b: &'c Contents) -> BTreeSet<&'c [u8]> {
    let keys = a.keys().chain(b.keys());
    keys.filter(|key| a.get(*key) != b.get(*key)).map(Vec::as_slice).collect()
}
