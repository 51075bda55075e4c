//! Stores that are whole: nothing is found in them, not even something harmless.

use crate::support::*;
use std::collections::HashMap;
use std::fs;
use std::ops::ControlFlow;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tophash::{Batch, Error, Options, Store};

#[test]
fn a_store_that_was_just_created() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let store = Store::open(&path).unwrap();
    let copy = dir.path().join("copy");
    copy_store(&path, &copy);
    let report = verify_clean(&copy);
    assert_eq!((report.live_slots, report.records, report.generation), (0, 0, 1));
    store.close().unwrap();
    assert!(verify_clean(&path).closed_cleanly);
    // A table that is sized in advance is a hole in the file.
    let path = dir.path().join("large");
    Options::new().capacity(10_000_000).open(&path).unwrap().close().unwrap();
    let report = verify_clean(&path);
    assert!(report.bytes_read < 8 << 20, "{report:?}");
}

#[test]
fn everything_at_once_open_and_closed() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let store = mixed_store(&path);
    let (len, stats) = (store.len(), store.stats());
    assert!(stats.index.growing && stats.index.evacuated_pages > 0);
    let copy = dir.path().join("copy");
    copy_store(&path, &copy);
    let report = verify_clean(&copy);
    assert!(!report.closed_cleanly && report.tail_records > 0);
    store.close().unwrap();
    let report = verify_clean(&path);
    assert!(
        report.closed_cleanly && report.overflow_pages > 0 && report.tombstones > 0 && report.blobs > 0,
        "{report:#?}"
    );
    assert_eq!((report.live_slots, report.records, report.tail_records), (len, len, 0));
    assert!(report.log_records > report.records && report.segments > 2);
    assert_eq!(report.leftover_segments + report.leftover_blobs + report.leftover_files + report.torn_bytes, 0);
    // What the crash left is replayed to the same.
    options().open(&copy).unwrap().close().unwrap();
    assert_eq!(verify_clean(&copy).records, len);
}

#[test]
fn a_large_store_with_the_default_geometry() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let store = Store::open(&path).unwrap();
    for i in 0..60_000u64 {
        store.insert(i.to_le_bytes(), i.to_be_bytes()).unwrap();
    }
    let keys: Vec<_> = (0..20_000u64).map(|i| (i * 3).to_le_bytes()).collect();
    store.remove_many(&keys).unwrap();
    store.insert("large", vec![7; 3 << 20]).unwrap();
    store.close().unwrap();
    let report = verify_clean(&path);
    assert_eq!((report.records, report.blobs, report.blob_bytes), (40_001, 1, 3 << 20));
}

/// What a random sequence of operations, checkpoints, closes and crashes leaves.
fn random_operations(seed: u64) {
    let dir = crate::common::scratch();
    let mut path = dir.path().join("0");
    let mut rng = Rng(seed * 7919 + 12345);
    let options = options().capacity(rng.below(2) * 2000);
    let keys = 10 + rng.below(1500);
    let mut store = options.open(&path).unwrap();
    let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
    for step in 1..60 {
        let key = |rng: &mut Rng| rng.below(keys).to_le_bytes().to_vec();
        match rng.below(12) {
            0..=3 => {
                for _ in 0..rng.below(200) {
                    let len = if rng.below(40) == 0 { 600 + rng.below(3000) } else { rng.below(80) };
                    let (key, value) = (key(&mut rng), vec![rng.next() as u8; len as usize]);
                    store.insert(&key, &value).unwrap();
                    model.insert(key, value);
                }
            }
            4..=5 => (0..rng.below(100)).for_each(|_| {
                let key = key(&mut rng);
                assert_eq!(store.remove(&key).unwrap().map(|v| v.to_vec()), model.remove(&key));
            }),
            6 => {
                let keys: Vec<_> = (0..rng.below(200)).map(|_| key(&mut rng)).collect();
                store.remove_many(&keys).unwrap();
                keys.iter().for_each(|key| _ = model.remove(key));
            }
            7 => {
                let mut batch = Batch::new();
                for _ in 0..rng.below(20) {
                    let key = key(&mut rng);
                    batch.remove(&key);
                    model.remove(&key);
                }
                for _ in 0..rng.below(60) {
                    let len = if rng.below(30) == 0 { 900 } else { rng.below(50) };
                    let (key, value) = (key(&mut rng), vec![rng.next() as u8; len as usize]);
                    batch.insert(&key, &value);
                    model.insert(key, value);
                }
                for _ in 0..rng.below(20) {
                    let key = key(&mut rng);
                    batch.remove(&key);
                    model.remove(&key);
                }
                store.apply(&batch).unwrap();
            }
            8 => store.checkpoint().unwrap(),
            9 => store.sync().unwrap(),
            10 => {
                store.close().unwrap();
                assert!(verify_clean(&path).closed_cleanly, "seed {seed} step {step}");
                store = options.open(&path).unwrap();
            }
            _ => {
                let crashed = dir.path().join(step.to_string());
                copy_store(&path, &crashed);
                drop(store);
                path = crashed;
                verify_clean(&path);
                store = options.open(&path).unwrap();
                assert_eq!(store.len(), model.len() as u64, "seed {seed} step {step}");
                for (key, value) in &model {
                    assert_eq!(store.get(key).unwrap().as_deref(), Some(&value[..]), "seed {seed} step {step}");
                }
            }
        }
    }
    store.close().unwrap();
    assert_eq!(verify_clean(&path).records, model.len() as u64);
}

#[test]
fn whatever_random_operations_and_crashes_leave() {
    let seeds = std::env::var("TOPHASH_SEEDS").map_or(8, |seeds| seeds.parse().unwrap());
    (0..seeds).for_each(random_operations);
}

#[test]
fn a_checkpoint_that_waits_in_the_journal() {
    let dir = crate::common::scratch();
    let (path, waiting) = (dir.path().join("s"), dir.path().join("waiting"));
    mixed_store(&path).close().unwrap();
    let store = options().open(&path).unwrap();
    let index = fs::read(path.join("index")).unwrap();
    (0..200u32).for_each(|i| _ = store.insert(i.to_le_bytes(), "newer").unwrap());
    let keys: Vec<_> = (300..340u32).map(u32::to_le_bytes).collect();
    store.remove_many(&keys).unwrap();
    let len = store.len();
    store.checkpoint().unwrap();
    // The journal is complete, and of the pages in place some have been written.
    copy_store(&path, &waiting);
    let files = Files::new(&waiting);
    let applied = files.page(140);
    fs::write(waiting.join("index"), &index).unwrap();
    files.write(&files.index(), 140 * PAGE as u64, &applied);
    let report = verify_clean(&waiting);
    assert!(report.journal_pending && !report.closed_cleanly);
    assert_eq!((report.records, report.tail_records), (len, 0));

    // Damage in an image makes the journal incomplete: then the pages that it had reached are too new.
    let damaged = dir.path().join("damaged");
    copy_store(&waiting, &damaged);
    let files = Files::new(&damaged);
    let written = (files.first_page()..files.first_page() + 70)
        .find(|&page| word(&files.page(page), 48) + 1 == report.generation)
        .unwrap();
    files.edit_page(written, |page| put(page, 48, report.generation));
    files.damage(&damaged.join("journal"), PAGE as u64 + 100, &[0x99]);
    let found = verify(&damaged);
    assert_eq!(finding(&found, "page-generation").page, Some(written));
    assert_eq!(found.torn_blocks, 1);

    // A head that tells another growth state than the meta data.
    let damaged = dir.path().join("growth");
    copy_store(&waiting, &damaged);
    let (files, journal) = (Files::new(&damaged), damaged.join("journal"));
    let mut head = files.read(&journal, 0, PAGE);
    head[56] ^= 1;
    head[12..16].fill(0);
    let crc = crc32fast::hash(&head);
    head[12..16].copy_from_slice(&crc.to_le_bytes());
    // The trailer's checksum covers the head, besides the images' checksums.
    let blocks = word(&head, 48);
    let mut hasher = crc32fast::Hasher::new();
    (1..=blocks).for_each(|block| hasher.update(&files.read(&journal, block * PAGE as u64, 4)));
    hasher.update(&head);
    let mut trailer = files.read(&journal, (blocks + 1) * PAGE as u64, PAGE);
    put(&mut trailer, 48, u64::from(hasher.finalize()));
    trailer[12..16].fill(0);
    let crc = crc32fast::hash(&trailer);
    trailer[12..16].copy_from_slice(&crc.to_le_bytes());
    files.write(&journal, (blocks + 1) * PAGE as u64, &trailer);
    files.write(&journal, 0, &head);
    finding(&verify(&damaged), "journal-content");

    let store = options().open(&waiting).unwrap();
    assert_eq!(store.len(), len);
    store.close().unwrap();
    verify_clean(&waiting);
}

/// The child of the next test: writes until it is killed.
#[test]
#[ignore = "run by a_process_that_was_killed"]
fn child_that_writes() {
    let Ok(path) = std::env::var("TOPHASH_CHILD") else { return };
    let store = options().checkpoint_bytes(100 << 10).open(&path).unwrap();
    fs::write(Path::new(&path).with_extension("opened"), "").unwrap();
    let mut rng = Rng(u64::from(std::process::id()));
    loop {
        let key = rng.below(3000).to_le_bytes();
        match rng.below(10) {
            0 => _ = store.remove(key).unwrap(),
            1 => _ = store.insert(key, vec![1; 700]).unwrap(),
            2 => store.sync().unwrap(),
            _ => _ = store.insert(key, vec![rng.next() as u8; rng.below(90) as usize]).unwrap(),
        }
    }
}

#[test]
fn a_process_that_was_killed() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    for round in 0..8 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--ignored", "--exact", "clean::child_that_writes"])
            .env("TOPHASH_CHILD", &path)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let opened = path.with_extension("opened");
        crate::common::eventually("the child's open", || opened.exists());
        fs::remove_file(&opened).unwrap();
        std::thread::sleep(Duration::from_millis(37 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        let report = verify_clean(&path);
        let store = options().read_only(true).open(&path).unwrap();
        let read = store.iter().filter(|entry| entry.is_ok()).count() as u64;
        assert_eq!(read, store.len(), "after {report:?}");
    }
}

fn contents(path: &Path) -> Vec<(String, Vec<u8>)> {
    let mut files: Vec<_> = fs::read_dir(path)
        .unwrap()
        .flat_map(|entry| {
            let path = entry.unwrap().path();
            if path.is_dir() { contents(&path) } else { vec![(path.display().to_string(), fs::read(&path).unwrap())] }
        })
        .collect();
    files.sort();
    files
}

#[test]
fn nothing_is_changed_and_readers_are_no_hindrance() {
    let dir = crate::common::scratch();
    let (path, copy) = (dir.path().join("s"), dir.path().join("copy"));
    let store = mixed_store(&path);
    copy_store(&path, &copy);
    let before = contents(&copy);
    let reader = options().read_only(true).open(&copy).unwrap();
    verify_clean(&copy);
    drop(reader);
    assert!(before == contents(&copy));
    let error = tophash::verify::verify(&path).unwrap_err();
    assert!(matches!(error, Error::Locked { .. }), "{error}");
    drop(store);
}

#[test]
fn progress_ends_at_the_end_and_can_stop_the_check() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    mixed_store(&path).close().unwrap();
    let mut seen = Vec::new();
    let report = tophash::verify::verify_with(&path, |progress| {
        seen.push((progress.done, progress.total));
        ControlFlow::Continue(())
    });
    assert!(seen.is_sorted() && seen.iter().all(|(done, all)| done <= all));
    assert_eq!(seen.last().unwrap().0, report.unwrap().bytes_read);
    for calls in 0..seen.len() {
        let mut left = calls;
        let result = tophash::verify::verify_with(&path, |_| {
            left = left.wrapping_sub(1);
            if left == usize::MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(result, Err(Error::Aborted { .. })), "{result:?}");
    }
}

#[test]
fn what_is_no_store_is_refused() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    assert!(matches!(tophash::verify::verify(&path), Err(Error::NotFound { .. })));
    fs::create_dir(&path).unwrap();
    assert!(matches!(tophash::verify::verify(&path), Err(Error::NotFound { .. })));
    fs::write(path.join("index"), vec![1; 9000]).unwrap();
    fs::write(path.join("LOCK"), b"").unwrap();
    assert!(matches!(tophash::verify::verify(&path), Err(Error::NotAStore { .. })));
    fs::write(path.join("index"), b"").unwrap();
    assert!(matches!(tophash::verify::verify(&path), Err(Error::NotAStore { .. })));
    assert!(matches!(tophash::verify::verify(path.join("index")), Err(Error::NotAStore { .. })));
}
