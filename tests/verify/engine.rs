//! Bugs of the engine that the check found, each as small as it could be made. None may come back.

use crate::support::*;
use tophash::Batch;

/// A batch reserves overflow pages for its puts; a removal before them in the same batch gives the empty
/// pages back (`trim`), so that a put finds no room *after* the frame is in the log. The change starts again, half
/// done, and the records' checksums are XORed with their mask a second time: none of them is valid.
#[test]
fn a_removal_in_a_batch_leaves_the_room_reserved_for_its_puts() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let store = options().open(&path).unwrap();
    store.insert("old", "value").unwrap();
    let mut batch = Batch::new();
    batch.remove("old");
    (0..60u32).for_each(|i| _ = batch.insert(i.to_le_bytes(), "new"));
    store.apply(&batch).unwrap();
    for i in 0..60u32 {
        assert_eq!(store.get(i.to_le_bytes()).unwrap().unwrap(), &b"new"[..]);
    }
    assert_eq!(store.len(), 60);
    store.close().unwrap();
    verify_clean(&path);
}

/// Replaying a clear-record frees every blob file in the directory, those included that later records of the tail
/// link: the next checkpoint unlinks them.
#[test]
fn replaying_a_clear_keeps_the_blobs_that_later_records_link() {
    let dir = crate::common::scratch();
    let (path, crashed) = (dir.path().join("s"), dir.path().join("crashed"));
    let store = options().open(&path).unwrap();
    store.insert("before", vec![1; 1000]).unwrap();
    store.clear().unwrap();
    store.insert("after", vec![2; 1000]).unwrap();
    copy_store(&path, &crashed);
    let store = options().open(&crashed).unwrap();
    store.checkpoint().unwrap();
    assert_eq!(store.get("after").unwrap().unwrap(), &[2; 1000][..]);
    store.close().unwrap();
    verify_clean(&crashed);
}

/// Replaying a clear-record counts the records behind it in the tail as dead.
#[test]
fn replaying_a_clear_leaves_the_later_records_alive() {
    let dir = crate::common::scratch();
    let (path, crashed) = (dir.path().join("s"), dir.path().join("crashed"));
    let store = options().open(&path).unwrap();
    store.insert("before", "1").unwrap();
    store.clear().unwrap();
    store.insert("after", "2").unwrap();
    copy_store(&path, &crashed);
    options().open(&crashed).unwrap().close().unwrap();
    verify_clean(&crashed);
}

/// A page that becomes dirty while the journal has no block left for its bitmap page stays without a header:
/// `touch` takes it for ready when the change starts again. Its entries are in no checkpoint.
#[test]
fn a_first_entry_of_a_page_survives_a_full_journal() {
    // One key for each of the first pages.
    let mut keys = vec![None; 256];
    for key in 0..100_000u64 {
        let page = siphasher::sip::SipHasher13::new_with_keys(1, 2).hash(&key.to_le_bytes()) % 256;
        keys[page as usize].get_or_insert(key);
    }
    let keys: Vec<u64> = keys.into_iter().map(Option::unwrap).collect();
    for used in 1..80u64 {
        let dir = crate::common::scratch();
        let path = dir.path().join("s");
        let store = options().capacity(4000).open(&path).unwrap();
        for key in &keys[..used as usize] {
            store.insert(key.to_le_bytes(), "first").unwrap();
        }
        store.checkpoint().unwrap();
        for key in &keys[..used as usize] {
            store.insert(key.to_le_bytes(), "second").unwrap();
        }
        let new = keys[used as usize];
        store.insert(new.to_le_bytes(), "new").unwrap();
        store.close().unwrap();
        let report = verify(&path);
        assert!(report.findings.is_empty(), "{used} pages: {:#?}", report.findings);
        let store = options().open(&path).unwrap();
        assert!(store.get(new.to_le_bytes()).unwrap().is_some(), "{used} pages: the entry is gone");
    }
}

/// The journal of a checkpoint can be durable before the length of the index file is (power loss between steps 3
/// and 4). Then the file must be made long enough for the extents, not only for the pages in the journal.
#[test]
fn a_pending_journal_brings_the_extents_that_the_file_has_lost() {
    let dir = crate::common::scratch();
    let path = dir.path().join("s");
    let store = options().capacity(1000).open(&path).unwrap();
    store.insert("k", "v").unwrap();
    store.close().unwrap();
    let store = options().capacity(1000).open(&path).unwrap();
    let before = dir.path().join("before");
    copy_store(&path, &before);
    store.insert("l", "w").unwrap();
    store.reserve(10_000).unwrap();
    store.checkpoint().unwrap();
    let lost = dir.path().join("lost");
    copy_store(&path, &lost);
    std::fs::copy(before.join("index"), lost.join("index")).unwrap();
    let report = verify(&lost);
    assert!(report.is_clean() && report.journal_pending, "{:#?}", report.findings);
    let reader = options().read_only(true).open(&lost).unwrap();
    assert_eq!(reader.len(), 2);
    drop(reader);
    let store = options().open(&lost).unwrap();
    assert_eq!(store.len(), 2);
    store.close().unwrap();
    verify_clean(&lost);
}
