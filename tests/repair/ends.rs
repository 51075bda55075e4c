//! Where the log ends: torn tails, holes, sealed segments, segments that nobody names.

use std::fs;

use crate::damage::mend;
use crate::stores::*;
use crate::support::*;
use tophash::Error;

#[test]
fn a_torn_tail_ends_the_log_as_for_an_open() {
    let (dir, files) = copy(killed());
    // The record behind the last sync. Behind it nothing says that anything was durable.
    let segment = files.log_files("log").into_iter().rfind(|path| files.read(path, 0, 8) != [0; 8]).unwrap();
    let at = find(&segment, b"behind the sync") - 8;
    files.damage(&segment, at, &[0x55]);
    let opened = dir.path().join("opened");
    copy_store(&files.path, &opened);
    drop(options().open(&opened).unwrap());
    let expected = read(&opened);
    assert!(!expected.contains_key(&b"behind the sync"[..]));
    let report = repairs_whole(&files.path, &expected);
    assert!(report.torn_bytes > 0, "{report:#?}");
    // Without an index, too: nothing else in the log says that there was more.
    fs::remove_file(files.index()).unwrap();
    assert!(repairs_whole(&files.path, &expected).torn_bytes > 0);
}

fn find(path: &std::path::Path, needle: &[u8]) -> u64 {
    fs::read(path).unwrap().windows(needle.len()).position(|window| window == needle).unwrap() as u64
}

#[test]
fn a_hole_before_a_sync_mark_is_acknowledged_data_and_what_follows_is_saved() {
    for with_index in [true, false] {
        let (_dir, files) = copy(killed());
        // Behind the cut and before the last sync: an open refuses.
        let cut = word(&files.header().1, 72);
        let segment = files.segment((cut >> 32) as u32);
        let at = (cut & 0xffff_ffff) + 64;
        let byte = files.read(&segment, at, 1)[0];
        files.write(&segment, at, &[byte ^ 1]);
        let refused = options().open(&files.path).unwrap_err();
        assert!(matches!(refused, Error::LostData { .. }), "{refused}");
        assert!(refused.to_string().contains("tophash repair"), "{refused}");
        if !with_index {
            fs::remove_file(files.index()).unwrap();
        }
        let (report, contents) = repair(&files.path);
        assert_eq!((report.losses_total, report.acknowledged_losses), (1, 1), "{report:#?}");
        assert!(differing(&contents, &killed().contents).len() <= 1, "{report:#?}");
        assert!(contents.contains_key(&key(ROUNDS - 1)));
    }
}

#[test]
fn a_missing_segment_behind_the_cut_is_a_gap() {
    let (_dir, files) = copy(killed());
    let cut = (word(&files.header().1, 72) >> 32) as u32;
    fs::remove_file(files.segment(cut + 1)).unwrap();
    for with_index in [true, false] {
        if !with_index {
            fs::remove_file(files.index()).unwrap();
        }
        let (report, contents) = repair(&files.path);
        assert_eq!((report.losses_total, report.acknowledged_losses), (1, with_index.into()), "{report:#?}");
        assert!(contents.contains_key(&key(ROUNDS - 1)), "what lies behind is saved");
    }
}

#[test]
fn what_a_recovery_declared_dead_never_comes_back() {
    let dir = scratch();
    let path = dir.path().join("s");
    let mut writer = Writer::new(&path);
    (0..30).for_each(|i| writer.put(&key(i), &value(i, 1)));
    writer.store.sync().unwrap();
    writer.put(b"torn", b"torn");
    // Valid, and behind the torn record: dead from the next open on.
    (0..10).for_each(|i| writer.put(&key(i), b"dead"));
    let crashed = dir.path().join("crashed");
    copy_store(&path, &crashed);
    let files = Files::new(&crashed);
    let segment = files.segment(1);
    files.damage(&segment, find(&segment, b"torntorn") - 8, &[0x55]);
    let before = fs::read(&segment).unwrap();

    // Recovered, written to, crashed again before a checkpoint.
    let store = options().open(&crashed).unwrap();
    store.insert("after", "the first crash").unwrap();
    let again = dir.path().join("again");
    copy_store(&crashed, &again);
    drop(store);
    let expected = {
        let copy = dir.path().join("read");
        copy_store(&again, &copy);
        read(&copy)
    };
    assert_eq!(expected.get(&key(3)), Some(&value(3, 1)));
    // The bytes stand in the file again, as if the recovery had not shortened it.
    fs::write(Files::new(&again).segment(1), before).unwrap();
    repairs_whole(&again, &expected);
    fs::remove_file(again.join("index")).unwrap();
    repairs_whole(&again, &expected);
}

#[test]
fn a_segment_that_the_checkpoint_does_not_name_is_left_out() {
    let (_dir, files) = copy(closed());
    // As a compaction leaves a segment that waits to be unlinked.
    let meta = files.meta();
    let first = meta.segments[0];
    files.edit_page(2, |page| {
        let end = 64 + word(page, 64) as usize;
        page.copy_within(first.at + 48..end, first.at);
        put(page, 64, word(page, 64) - 48);
        put(page, 64 + 72, word(page, 64 + 72) - 1);
    });
    let (report, _) = repair(&files.path);
    assert_eq!(report.segments as usize, meta.segments.len() - 1);
    assert!(report.files_left_out.iter().any(|file| file.contains("does not name it")), "{report:#?}");
    assert!(report.is_complete());
}

#[test]
fn a_segment_that_a_later_one_skips_is_left_out() {
    let (_dir, files) = copy(killed());
    let last = files.log_files("log").into_iter().rfind(|path| files.read(path, 0, 8) != [0; 8]).unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let sequence = word(&bytes, 32);
    let skipped = word(&bytes, 48);
    // The last one as a later one, which names the same predecessor.
    let later = sequence + 3;
    bytes[32..40].copy_from_slice(&later.to_le_bytes());
    mend(&mut bytes[..128]);
    fs::write(files.segment(later as u32), &bytes).unwrap();
    fs::remove_file(files.index()).unwrap();
    let (report, contents) = repair(&files.path);
    assert!(skipped < sequence && report.files_left_out.iter().any(|f| f.contains("skips it")), "{report:#?}");
    assert_eq!(contents, killed().contents, "the same records, once");
}

#[test]
fn an_empty_store_becomes_an_empty_store() {
    let dir = scratch();
    let path = dir.path().join("s");
    options().open(&path).unwrap().close().unwrap();
    repairs_whole(&path, &Contents::new());
    fs::remove_file(path.join("index")).unwrap();
    repairs_whole(&path, &Contents::new());
}
