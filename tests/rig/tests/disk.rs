//! The simulated disk itself: it loses what a disk may lose, keeps what it must keep, and lies where disks lie.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tophash::sys::{Disk, DiskFile, LockMode, LockOutcome, OpenMode, PathKind};
use tophash_rig::crash::{Depth, Fate, after, choices};
use tophash_rig::disk::SimDisk;
use tophash_rig::faults::{Fault, FaultPlan};
use tophash_rig::image::{Image, Tear};
use tophash_rig::random::Random;
use tophash_rig::run::blank;

fn disk() -> SimDisk {
    SimDisk::new(blank(), 1)
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new("/disk").join(name)
}

fn create(disk: &SimDisk, name: &str) -> Arc<dyn DiskFile> {
    disk.open(&path(name), OpenMode::CreateNew).unwrap()
}

/// The disk after a crash in which `fate` says what becomes of each pending change.
fn crash(disk: &SimDisk, fate: impl Fn(usize) -> Fate) -> SimDisk {
    let moment = disk.moment();
    let fates: Vec<Fate> = (0..moment.pending.len()).map(fate).collect();
    SimDisk::new(after(&moment, &fates), 2)
}

fn lost(disk: &SimDisk) -> SimDisk {
    crash(disk, |_| Fate::Lost)
}

fn kept(disk: &SimDisk) -> SimDisk {
    crash(disk, |_| Fate::Kept)
}

fn read(disk: &SimDisk, name: &str) -> Option<Vec<u8>> {
    let file = disk.open(&path(name), OpenMode::Read).ok()?;
    let mut bytes = vec![0; file.len().unwrap() as usize];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), bytes.len());
    Some(bytes)
}

#[test]
fn a_name_is_durable_after_fsync_of_its_directory_alone() {
    let disk = disk();
    let file = create(&disk, "a");
    file.write_at(b"bytes", 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(read(&lost(&disk), "a"), None, "fsync of a file is no fsync of its directory");
    assert_eq!(read(&kept(&disk), "a").unwrap(), b"bytes");
    disk.sync_dir(Path::new("/disk")).unwrap();
    assert_eq!(read(&lost(&disk), "a").unwrap(), b"bytes");
}

#[test]
fn a_directory_takes_what_is_in_it_along() {
    let disk = disk();
    disk.create_dir(&path("d")).unwrap();
    create(&disk, "d/a").sync_all().unwrap();
    disk.sync_dir(&path("d")).unwrap();
    assert_eq!(lost(&disk).kind(&path("d")).unwrap(), PathKind::Missing);
    disk.sync_dir(Path::new("/disk")).unwrap();
    assert_eq!(lost(&disk).kind(&path("d/a")).unwrap(), PathKind::Other);
}

#[test]
fn a_rename_happens_whole_or_not_at_all() {
    let disk = disk();
    for (name, bytes) in [("old", b"1"), ("new", b"2")] {
        let file = create(&disk, name);
        file.write_at(bytes, 0).unwrap();
        file.sync_all().unwrap();
    }
    disk.sync_dir(Path::new("/disk")).unwrap();
    disk.rename(&path("new"), &path("old")).unwrap();
    assert_eq!(read(&disk, "old").unwrap(), b"2");
    let (before, after) = (lost(&disk), kept(&disk));
    assert_eq!((read(&before, "old").unwrap(), read(&before, "new").unwrap()), (b"1".to_vec(), b"2".to_vec()));
    assert_eq!((read(&after, "old").unwrap(), read(&after, "new")), (b"2".to_vec(), None));
    disk.sync_dir(Path::new("/disk")).unwrap();
    assert_eq!(read(&lost(&disk), "old").unwrap(), b"2");
}

#[test]
fn an_unlink_can_be_lost() {
    let disk = disk();
    create(&disk, "a");
    disk.sync_dir(Path::new("/disk")).unwrap();
    disk.unlink(&path("a")).unwrap();
    assert_eq!(disk.kind(&path("a")).unwrap(), PathKind::Missing);
    assert_eq!(lost(&disk).kind(&path("a")).unwrap(), PathKind::Other);
    disk.sync_dir(Path::new("/disk")).unwrap();
    assert_eq!(lost(&disk).kind(&path("a")).unwrap(), PathKind::Missing);
}

#[test]
fn sectors_are_lost_and_torn_one_by_one() {
    let disk = disk();
    let file = create(&disk, "a");
    file.write_at(&[1; 2048], 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/disk")).unwrap();
    file.write_at(&[2; 1024], 512).unwrap();
    assert_eq!(disk.moment().pending.len(), 2);
    let bytes = read(&crash(&disk, |i| if i == 0 { Fate::Kept } else { Fate::Lost }), "a").unwrap();
    assert!(bytes[512..1024].iter().all(|&byte| byte == 2) && bytes[1024..1536].iter().all(|&byte| byte == 1));
    let torn = crash(&disk, |i| Fate::Torn(if i == 0 { Tear::first(32) } else { Tear::behind(32) }));
    let bytes = read(&torn, "a").unwrap();
    let quarters: Vec<u8> = bytes.chunks(256).map(|quarter| quarter[0]).collect();
    assert_eq!(quarters, [1, 1, 2, 1, 1, 2, 1, 1]);
    let bytes = read(&crash(&disk, |i| if i == 0 { Fate::Torn(Tear(0b101)) } else { Fate::Lost }), "a").unwrap();
    let words: Vec<u8> = bytes[512..544].chunks(8).map(|word| word[7]).collect();
    assert_eq!(words, [2, 1, 2, 1], "a tear can be at every word");
    // Both versions of a sector can be what a crash leaves.
    file.write_at(&[3; 512], 512).unwrap();
    let older = crash(&disk, |i| if i == 0 { Fate::Kept } else { Fate::Lost });
    assert_eq!(read(&older, "a").unwrap()[600], 2);
}

#[test]
fn a_length_is_lost_without_fsync() {
    let disk = disk();
    let file = create(&disk, "a");
    disk.sync_dir(Path::new("/disk")).unwrap();
    file.allocate(0, 8192).unwrap();
    file.write_at(&[1; 512], 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(read(&lost(&disk), "a").unwrap().len(), 512, "fdatasync: as far as the data needs it");
    assert_eq!(read(&kept(&disk), "a").unwrap().len(), 8192);
    file.sync_all().unwrap();
    assert_eq!(read(&lost(&disk), "a").unwrap().len(), 8192);
    file.set_len(100).unwrap();
    assert_eq!(read(&lost(&disk), "a").unwrap().len(), 8192);
    file.set_len(1000).unwrap();
    file.sync_all().unwrap();
    let bytes = read(&lost(&disk), "a").unwrap();
    assert!(bytes[..100].iter().all(|&byte| byte == 1) && bytes[100..].iter().all(|&byte| byte == 0));
}

#[test]
fn data_behind_a_lost_length_is_gone() {
    let disk = disk();
    let file = create(&disk, "a");
    disk.sync_dir(Path::new("/disk")).unwrap();
    file.write_at(&[5; 700], 0).unwrap();
    // The length is lost, the sectors were written.
    let after = crash(&disk, |i| if i == 0 { Fate::Lost } else { Fate::Kept });
    assert_eq!(read(&after, "a").unwrap(), b"");
    let file = after.open(&path("a"), OpenMode::Write).unwrap();
    file.set_len(700).unwrap();
    assert_eq!(read(&after, "a").unwrap(), [0; 700]);
}

#[test]
fn a_failed_fsync_lies_from_then_on() {
    let disk = disk();
    let file = create(&disk, "a");
    file.write_at(&[1; 4096], 0).unwrap();
    file.sync_all().unwrap();
    disk.sync_dir(Path::new("/disk")).unwrap();
    file.write_at(&[2; 4096], 0).unwrap();
    disk.set_faults(Some(FaultPlan::new(0, Fault::Io, false)));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    disk.set_faults(None);
    assert_eq!(read(&disk, "a").unwrap(), [2; 4096], "the cache shows what was written");
    file.sync_all().unwrap();
    assert_ne!(read(&kept(&disk), "a").unwrap(), [2; 4096], "and a later fsync that succeeds does not write it");
    file.write_at(&[2; 4096], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(read(&lost(&disk), "a").unwrap(), [2; 4096], "only writing it again does");
}

/// A page was punched and written again, and the fsync failed. The simulated disk took some of the sectors for written, and
/// at the next fsync it punched them: a checkpoint's page was gone after its recovery had written and synced it.
#[test]
fn a_hole_or_a_shorter_length_never_comes_after_what_was_written_later() {
    for (seed, shortens) in (0..40).flat_map(|seed| [(seed, false), (seed, true)]) {
        let disk = SimDisk::new(blank(), seed);
        let file = create(&disk, "a");
        file.write_at(&[1; 4096], 0).unwrap();
        file.sync_all().unwrap();
        disk.sync_dir(Path::new("/disk")).unwrap();
        if shortens {
            file.set_len(512).unwrap();
        } else {
            file.punch_hole(0, 4096).unwrap();
        }
        file.write_at(&[2; 4096], 0).unwrap();
        disk.set_faults(Some(FaultPlan::new(0, Fault::Io, false)));
        file.sync_all().unwrap_err();
        disk.set_faults(None);
        file.write_at(&[2; 4096], 0).unwrap();
        file.sync_all().unwrap();
        assert_eq!(read(&lost(&disk), "a").unwrap(), [2; 4096], "seed {seed}, shorter: {shortens}");
    }
}

#[test]
fn a_failed_fsync_of_a_directory_lies_from_then_on() {
    let (mut there, mut gone) = (0, 0);
    for seed in 0..20 {
        let disk = SimDisk::new(blank(), seed);
        create(&disk, "a").sync_all().unwrap();
        disk.set_faults(Some(FaultPlan::new(0, Fault::Io, false)));
        assert_eq!(disk.sync_dir(Path::new("/disk")).unwrap_err().raw_os_error(), Some(5));
        disk.set_faults(None);
        assert_eq!(disk.kind(&path("a")).unwrap(), PathKind::Other, "the cache shows the name");
        disk.sync_dir(Path::new("/disk")).unwrap();
        match kept(&disk).kind(&path("a")).unwrap() {
            PathKind::Missing => gone += 1,
            _ => there += 1,
        }
        assert!(kept(&disk).kind(&path("a")).unwrap() == PathKind::Other || disk.has_lying_names());
    }
    assert!(there > 0 && gone > 5, "{there} written all the same, {gone} not, though a later fsync succeeds");
}

#[test]
fn what_a_process_lacks_for_a_moment_changes_nothing() {
    for fault in Fault::OF_THE_MOMENT {
        let disk = disk();
        create(&disk, "a");
        for for_ever in [false, true] {
            disk.set_faults(Some(FaultPlan::new(0, fault, for_ever)));
            let made = disk.open(&path("b"), OpenMode::CreateNew);
            assert_eq!(made.unwrap_err().raw_os_error(), Some(fault.errno()));
            let again = disk.open(&path("a"), OpenMode::Read);
            assert_eq!(again.is_err(), for_ever && fault != Fault::Quota, "{fault:?}");
            assert_eq!(disk.open(&path("b"), OpenMode::CreateNew).is_err(), for_ever);
            disk.set_faults(None);
            _ = disk.unlink(&path("b"));
        }
        disk.set_faults(Some(FaultPlan::new(0, fault, false)));
        assert_eq!(disk.sync_dir(Path::new("/disk")).is_err(), fault != Fault::Quota);
        disk.set_faults(None);
        disk.sync_dir(Path::new("/disk")).unwrap();
        assert_eq!(lost(&disk).kind(&path("a")).unwrap(), PathKind::Other, "nothing lies");
    }
}

#[test]
fn a_log_mapping_is_seen_by_its_disk() {
    let disk = disk();
    let options = tophash::Options::new()
        .sync(tophash::SyncPolicy::Manual)
        .segment_bytes(4096)
        .tuning(tophash::Tuning { background: false, ..tophash::Tuning::default() })
        .disk(Arc::new(disk.clone()));
    let store = options.open(path("s")).unwrap();
    store.sync().unwrap();
    let before = disk.moment().pending.len();
    store.insert("key", "value").unwrap();
    let moment = disk.moment();
    assert_eq!(moment.pending.len(), before + 1, "one sector of the log, written by no call");
    let sector = &moment.pending[before];
    assert!(sector.is_sector());
    store.sync().unwrap();
    assert_eq!(disk.moment().pending.len(), before);
}

#[test]
fn clean_private_pages_show_a_write_or_never_will() {
    let (mut shown, mut hidden) = (0, 0);
    for seed in 0..40 {
        let disk = SimDisk::new(blank(), seed);
        let file = create(&disk, "a");
        file.write_at(&[1; 8192], 0).unwrap();
        let map = file.map_private(0, 8192).unwrap();
        let word = |at: usize| map.words()[at / 8].load(Ordering::Relaxed) as u8;
        map.words()[512].store(0x0909, Ordering::Relaxed);
        file.write_at(&[2; 8192], 0).unwrap();
        assert_eq!(word(4096), 9, "a private page is the process's own");
        match word(0) {
            1 => hidden += 1,
            2 => shown += 1,
            other => panic!("{other}"),
        }
        let before = word(0);
        assert_eq!(word(8 * 511), before, "a page changes as a whole");
    }
    assert!(shown > 5 && hidden > 5, "{shown} shown, {hidden} not");
}

#[test]
fn a_full_disk_has_room_for_what_was_allocated() {
    let disk = disk();
    let file = create(&disk, "a");
    disk.set_faults(Some(FaultPlan::count()));
    file.allocate(0, 8192).unwrap();
    disk.set_faults(None);
    disk.set_faults(Some(FaultPlan::new(0, Fault::Full, true)));
    // The first call fails in any case, as by a quota.
    assert!(disk.open(&path("b"), OpenMode::CreateNew).is_err());
    assert_eq!(file.write_at(&[1; 4096], 4096).unwrap(), 4096);
    assert_eq!(file.write_at(&[1; 4096], 8192).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(file.allocate(0, 16384).unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    file.sync_all().unwrap();
    assert_eq!(read(&disk, "a").unwrap().len(), 8192);
}

#[test]
fn calls_are_interrupted_and_shortened() {
    let disk = disk();
    let file = create(&disk, "a");
    disk.set_faults(Some(FaultPlan::new(0, Fault::Short, false)));
    assert_eq!(file.write_at(&[1; 100], 0).unwrap(), 50);
    assert_eq!(file.write_at(&[1; 100], 0).unwrap(), 100);
    disk.set_faults(Some(FaultPlan::new(0, Fault::Interrupted, true)));
    let kinds: Vec<bool> = (0..4).map(|_| file.write_at(&[1], 0).is_ok()).collect();
    assert_eq!(kinds, [false, true, false, true]);
}

#[test]
fn locks_end_with_their_guards() {
    let disk = disk();
    let held = |mode| matches!(disk.lock(&path("LOCK"), mode).unwrap(), LockOutcome::Held(_));
    let LockOutcome::Held(guard) = disk.lock(&path("LOCK"), LockMode::Exclusive).unwrap() else { panic!("busy") };
    assert!(!held(LockMode::Exclusive) && !held(LockMode::Shared));
    drop(guard);
    let LockOutcome::Held(reader) = disk.lock(&path("LOCK"), LockMode::Shared).unwrap() else { panic!("busy") };
    assert!(held(LockMode::Shared) && !held(LockMode::Exclusive));
    drop(reader);
    assert!(held(LockMode::Exclusive));
}

#[test]
fn few_changes_make_every_subset() {
    let disk = disk();
    let file = create(&disk, "a");
    disk.sync_dir(Path::new("/disk")).unwrap();
    file.write_at(&[1; 1024], 0).unwrap();
    let moment = disk.moment();
    assert_eq!(moment.pending.len(), 3, "a length and two sectors");
    let depth = Depth { exhaustive: 3, random: 0, each: 0, torn: 0, tears: 0 };
    let mut images = std::collections::HashSet::new();
    choices(&moment, depth, &mut Random::new(1), &mut |fates| {
        let kept = moment.pending.iter().zip(fates).filter(|(_, fate)| **fate == Fate::Kept);
        images.insert(Image::after_crash(&moment.durable, kept.map(|(change, _)| (change, None))).hash());
    });
    // Without the length, all four are an empty file.
    assert_eq!(images.len(), 5);
}

/// The disk counted blocks only while a call was to fail. The resources layer repeats a failed step with no call failing, and
/// goes on with the fault: what the step had allocated was forgotten, and writes into it were refused for want of quota.
/// A checkpoint that had reserved all its blocks seemed to poison the store.
#[test]
fn blocks_that_were_allocated_while_nothing_failed_are_there_when_the_quota_is_used_up() {
    let disk = disk();
    let file = create(&disk, "a");
    file.allocate(0, 8 * 4096).unwrap();
    file.punch_hole(4096, 4096).unwrap();
    disk.set_faults(Some(FaultPlan::new(0, Fault::Quota, true)));
    let refused = |result: std::io::Result<usize>| result.unwrap_err().raw_os_error();
    assert_eq!(refused(file.write_at(&[1], 8 * 4096)), Some(Fault::Quota.errno()), "behind what was allocated");
    assert_eq!(refused(file.write_at(&[1], 4096)), Some(Fault::Quota.errno()), "into a hole that was punched");
    assert_eq!(file.write_at(&[1; 4096], 0).unwrap(), 4096);
    assert_eq!(file.write_at(&[1; 4096], 2 * 4096).unwrap(), 4096);
    disk.set_faults(None);
    file.allocate(4096, 4096).unwrap();
    disk.set_faults(Some(FaultPlan::new(0, Fault::Quota, true)));
    assert_eq!(file.write_at(&[1; 4096], 4096).unwrap(), 4096, "it has a block again");
}
