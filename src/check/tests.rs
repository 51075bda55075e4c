//! What the public calls cannot reach: checks in several passes.

use std::path::Path;

use super::check;
use crate::check::Report;
use crate::progress::Progress;
use crate::sys::{Disk, DiskFile, OpenMode, RealDisk, write_all_at};
use crate::{Options, SyncPolicy, Tuning};

fn run(path: &Path, slots_max: usize) -> Report {
    let report = check(&RealDisk, path, &mut Progress::ignore, slots_max).unwrap();
    Report { bytes_read: 0, ..report }
}

fn segment(path: &Path) -> std::sync::Arc<dyn DiskFile> {
    RealDisk.open(&path.join("log-1/00000001.log"), OpenMode::Write).unwrap()
}

#[test]
fn many_passes_find_what_one_finds() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let tuning = Tuning { background: false, ..Tuning::default() };
    // One segment of several stretches, so that passes end inside of it.
    let options = Options::new().tuning(tuning).segment_bytes(64 << 20).sync(SyncPolicy::Manual);
    let store = options.open(&path).unwrap();
    for i in 0..9000u64 {
        store.insert(i.to_le_bytes(), vec![i as u8; 2000 + (i % 1000) as usize]).unwrap();
    }
    for i in 0..1500u64 {
        store.insert((i * 6).to_le_bytes(), b"short").unwrap();
    }
    store.close().unwrap();
    let whole = run(&path, usize::MAX);
    assert!(whole.is_clean() && whole.records == 9000, "{whole:?}");
    for slots_max in [2500, 4000, 8999] {
        assert_eq!(run(&path, slots_max), whole, "{slots_max} slots at a time");
    }

    // Damage in every mebibyte, live and dead records alike.
    let file = segment(&path);
    for at in (1..20u64).map(|i| (i << 20) + 7) {
        write_all_at(&*file, b"damage", at).unwrap();
    }
    let damaged = run(&path, usize::MAX);
    assert!(damaged.findings.len() > 15 && damaged.findings.iter().all(|f| f.kind == "log-record"), "{damaged:#?}");
    for slots_max in [2500, 8999] {
        let again = run(&path, slots_max);
        let live = |report: &Report| report.findings.iter().filter(|f| f.page.is_some()).cloned().collect::<Vec<_>>();
        assert_eq!(live(&again), live(&damaged));
        assert_eq!(again.records, damaged.records);
    }
}

#[test]
fn findings_beyond_a_thousand_are_counted() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let store = Options::new().segment_bytes(1 << 20).sync(SyncPolicy::Manual).open(&path).unwrap();
    for i in 0..3000u64 {
        store.insert(i.to_le_bytes(), b"value").unwrap();
    }
    store.close().unwrap();
    let file = segment(&path);
    for i in 0..3000 {
        write_all_at(&*file, &[0xff], 128 + 24 * i + 12).unwrap();
    }
    let report = run(&path, usize::MAX);
    assert_eq!((report.findings.len(), report.findings_total), (1000, 3000));
    assert_eq!((report.records, report.live_slots), (0, 3000));
}

#[test]
fn puts_that_no_slot_names_are_looked_up_in_several_passes() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s");
    let tuning = Tuning { background: false, ..Tuning::default() };
    let options = Options::new().tuning(tuning).segment_bytes(1 << 20).sync(SyncPolicy::Manual);
    let store = options.open(&path).unwrap();
    for i in 0..8000u64 {
        store.insert((i % 3000).to_le_bytes(), i.to_le_bytes()).unwrap();
    }
    (0..3000u64).step_by(3).for_each(|i| _ = store.remove(i.to_le_bytes()).unwrap());
    store.close().unwrap();
    for slots_max in [usize::MAX, 3000, 500, 100] {
        let report = run(&path, slots_max);
        assert!(report.findings.is_empty() && report.records == 2000, "{slots_max}: {:#?}", report.findings);
    }
}
