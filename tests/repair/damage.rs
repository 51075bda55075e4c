//! One kind of damage after the other.

use std::fs;
use std::path::Path;

use tophash::sys::Disk as _;

use crate::stores::*;
use crate::support::*;
use crate::watch::Watched;

/// A live record of a segment in the middle of the log, of a kind, and its key's latest value.
fn live(files: &Files, kind: u8) -> Record {
    let meta = files.meta();
    let records = meta.segments[1..].iter().flat_map(|entry| files.records(entry));
    let mut live = records.filter(|record| record.kind == kind && files.slot_of(record.address).is_some());
    live.nth(3).expect("a live record")
}

fn remove(path: &Path) {
    fs::remove_file(path).unwrap();
}

/// What it is called, and how it is done.
type Case = (&'static str, fn(&Files));

/// Ways to lose the index, none of which loses a record.
const INDEX_DAMAGE: &[Case] = &[
    ("no index", |files| remove(&files.index())),
    ("no index and no journal", |files| {
        remove(&files.index());
        remove(&files.path.join("journal"));
    }),
    ("no journal", |files| remove(&files.path.join("journal"))),
    ("a journal of noise", |files| {
        let noise: Vec<u8> = (0..200_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        fs::write(files.path.join("journal"), noise).unwrap();
    }),
    ("both headers", |files| {
        files.damage(&files.index(), 30, &[0x55; 40]);
        files.damage(&files.index(), 4096 + 30, &[0x55; 40]);
    }),
    ("an empty index", |files| fs::write(files.index(), b"").unwrap()),
    ("meta data", |files| files.damage(&files.index(), 2 * 4096 + 100, &[0x55; 40])),
    ("a cut that cannot be", |files| (0..2).for_each(|slot| files.edit_header(slot, |page| page[72] ^= 8))),
    ("bucket pages", |files| {
        let zeroes = vec![0; 40 * 4096];
        files.write(&files.index(), files.first_page() * 4096, &zeroes);
    }),
    ("no LOCK", |files| remove(&files.path.join("LOCK"))),
];

#[test]
fn without_an_index_nothing_is_lost() {
    for history in [closed(), killed()] {
        repairs_whole(&history.path(), &history.contents);
        for (name, damage) in INDEX_DAMAGE {
            println!("{name}");
            let (_dir, files) = copy(history);
            damage(&files);
            repairs_whole(&files.path, &history.contents);
        }
    }
}

#[test]
fn the_report_says_why_the_index_was_of_no_use() {
    let (_dir, files) = copy(closed());
    assert_eq!(repair(&files.path).0.index_problem, "");
    remove(&files.index());
    let (report, _) = repair(&files.path);
    assert!(report.index_problem.contains("index") && report.index_entries_lost.is_none(), "{report:#?}");
}

#[test]
fn a_flipped_value_costs_one_key_and_names_it() {
    for with_index in [true, false] {
        let (_dir, files) = copy(closed());
        let record = live(&files, 1);
        let byte = files.read(&record.file, record.value_at, 1)[0];
        files.write(&record.file, record.value_at, &[byte ^ 4]);
        if !with_index {
            remove(&files.index());
        }
        let (report, contents) = repair(&files.path);
        assert_eq!((report.losses_total, report.lost_keys_total), (1, 1), "{report:#?}");
        let loss = &report.losses[0];
        assert_eq!((loss.kind.as_str(), loss.from, loss.path.as_str()), ("record", record.at, path_of(&record)));
        assert_eq!(loss.to, (record.at + record.len as u64).next_multiple_of(8));
        assert!(loss.acknowledged, "a mark or the cut says so");
        assert_eq!(report.lost_keys[0].key.as_bytes(), record.key);
        assert_eq!(report.index_entries_lost, with_index.then_some(1));
        let differing = differing(&contents, &closed().contents);
        assert_eq!(differing.into_iter().collect::<Vec<_>>(), [&record.key[..]]);
        assert!(report.stale_keys_max > 0);
    }
}

fn path_of(record: &Record) -> &str {
    record.file.to_str().unwrap()
}

#[test]
fn a_superseded_record_that_is_damaged_costs_no_key() {
    let (_dir, files) = copy(closed());
    let dead = files.all_records().into_iter().find(|record| {
        record.kind == 1 && files.slot_of(record.address).is_none() && closed().contents.contains_key(&record.key)
    });
    let dead = dead.unwrap();
    files.damage(&dead.file, dead.value_at, &[0xee]);
    let (report, contents) = repair(&files.path);
    assert_eq!(contents, closed().contents);
    assert_eq!((report.losses_total, report.lost_keys_total, report.index_entries_lost), (1, 0, Some(0)));
}

#[test]
fn a_sector_of_noise_costs_what_was_in_it() {
    for with_index in [true, false] {
        let (_dir, files) = copy(closed());
        let segment = files.segment(files.meta().segments[1].sequence);
        let noise: Vec<u8> = (0..512u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 11) as u8).collect();
        files.write(&segment, 8192, &noise);
        if !with_index {
            remove(&files.index());
        }
        let (report, contents) = repair(&files.path);
        let loss = &report.losses[0];
        assert!(report.losses_total == 1 && loss.from <= 8192 && loss.to >= 8704 && loss.to < 9000, "{report:#?}");
        let records = whole_records(&segment);
        for key in differing(&contents, &closed().contents) {
            let hit = records.iter().any(|r| r.key == key && r.at < loss.to && r.at + r.len as u64 > loss.from);
            assert!(hit, "{} was not in the sector", key.escape_ascii());
        }
    }
}

/// The records of a segment before it was damaged.
fn whole_records(segment: &Path) -> Vec<Record> {
    let files = Files::new(&closed().path());
    let name = segment.file_name().unwrap();
    files.all_records().into_iter().filter(|record| record.file.file_name() == Some(name)).collect()
}

#[test]
fn a_block_that_cannot_be_read_is_a_loss() {
    let (dir, files) = copy(closed());
    let segment = files.segment(files.meta().segments[1].sequence);
    let disk = Watched { bad: Some((segment.clone(), 2)), ..Watched::default() };
    let new = dir.path().join("new");
    let report = tophash::repair::repair_disk(&disk, &files.path, &new, &options(), tophash::Progress::ignore).unwrap();
    let loss = &report.losses[0];
    assert!(report.losses_total == 1 && loss.from <= 8192 && loss.to >= 12288, "{report:#?}");
    assert!(loss.reason.contains("medium error"), "{loss:?}");
    verify_clean(&new);
    assert!(disk.kind(&new).is_ok());
}

#[test]
fn a_missing_segment_costs_what_was_in_it() {
    for with_index in [true, false] {
        let (_dir, files) = copy(closed());
        let entry = files.meta().segments[1];
        let keys: Vec<_> = files.records(&entry).into_iter().map(|record| record.key).collect();
        let live = files.records(&entry).iter().filter(|record| files.slot_of(record.address).is_some()).count() as u64;
        remove(&files.segment(entry.sequence));
        if !with_index {
            remove(&files.index());
        }
        let (report, contents) = repair(&files.path);
        let loss = &report.losses[0];
        // Without an index, it may as well have been freed.
        let kind = if with_index { "segment-missing" } else { "segment-gap" };
        assert_eq!((report.losses_total, loss.kind.as_str(), loss.from), (1, kind, 128), "{report:#?}");
        assert_eq!((loss.to, loss.acknowledged), (entry.end, with_index), "{report:#?}");
        assert_eq!(report.index_entries_lost, with_index.then_some(live));
        let differing = differing(&contents, &closed().contents);
        assert!(!differing.is_empty() && differing.iter().all(|&key| keys.iter().any(|k| k == key)));
        assert!(report.stale_keys_max as usize + differing.len() >= differing.len());
    }
}

#[test]
fn a_segment_without_a_header_is_read_with_the_salt_of_the_index() {
    let (_dir, files) = copy(closed());
    let entry = files.meta().segments[1];
    for header in [[0; 128], [0x5a; 128]] {
        files.write(&files.segment(entry.sequence), 0, &header);
        repairs_whole(&files.path, &closed().contents);
    }
    remove(&files.index());
    let (report, _) = repair(&files.path);
    let loss = &report.losses[0];
    assert_eq!((report.losses_total, loss.kind.as_str(), loss.to), (1, "segment-header", entry.end), "{report:#?}");
}

#[test]
fn a_segment_that_ends_too_early_costs_its_end() {
    let (_dir, files) = copy(closed());
    let entry = files.meta().segments[1];
    let file = fs::File::options().write(true).open(files.segment(entry.sequence)).unwrap();
    file.set_len(entry.end / 2).unwrap();
    let (report, contents) = repair(&files.path);
    assert_eq!(report.losses.last().unwrap().to, entry.end, "{report:#?}");
    assert!(report.acknowledged_losses > 0 && !differing(&contents, &closed().contents).is_empty());
}

#[test]
fn a_blob_that_is_gone_or_damaged_costs_its_key() {
    let damages: [fn(&Files, &Path); 4] = [
        |_, blob| remove(blob),
        |files, blob| files.damage(blob, 200, &[0x99]),
        |_, blob| fs::File::options().write(true).open(blob).unwrap().set_len(100).unwrap(),
        |files, blob| {
            // Of another store, and whole.
            let mut header = files.read(blob, 0, 64);
            header[16] ^= 1;
            header[12..16].fill(0);
            let crc = crc32fast::hash(&header);
            header[12..16].copy_from_slice(&crc.to_le_bytes());
            files.write(blob, 0, &header);
        },
    ];
    for damage in damages {
        let (_dir, files) = copy(closed());
        let record = live(&files, 6);
        let id = word(&files.read(&record.file, record.value_at, 8), 0);
        damage(&files, &files.path.join(format!("log-1/{id:016x}.blob")));
        let (report, contents) = repair(&files.path);
        assert_eq!((report.losses_total, report.lost_keys_total, report.is_complete()), (0, 1, false), "{report:#?}");
        assert_eq!(report.lost_keys[0].key.as_bytes(), record.key);
        assert!(report.lost_keys[0].reason.contains(".blob"), "{report:#?}");
        let lost = [&record.key[..]];
        assert_eq!(differing(&contents, &closed().contents).into_iter().collect::<Vec<_>>(), lost);
    }
}

#[test]
fn the_header_of_a_blob_is_not_needed() {
    let (_dir, files) = copy(closed());
    let record = live(&files, 6);
    let id = word(&files.read(&record.file, record.value_at, 8), 0);
    files.write(&files.path.join(format!("log-1/{id:016x}.blob")), 0, &[0; 64]);
    repairs_whole(&files.path, &closed().contents);
}

/// A batch of half a million records with one damaged byte was left out as a whole, though the index named each of its
/// records: whether a batch was committed was decided by its checksums, not by what was durable.
#[test]
fn of_a_committed_batch_every_whole_record_is_saved() {
    let (_dir, files) = copy(closed());
    let records = files.all_records();
    let frame = records.iter().rposition(|record| record.kind == 4).unwrap();
    let member = &records[frame + 3];
    files.damage(&member.file, member.value_at, &[0xaa]);
    let (report, contents) = repair(&files.path);
    assert_eq!((report.losses_total, report.batches_left_out, report.batches_in_part), (1, 0, 1), "{report:#?}");
    assert_eq!((report.losses[0].kind.as_str(), report.losses[0].from), ("record", member.at));
    assert_eq!((report.lost_keys_total, report.index_entries_lost), (1, Some(1)), "{report:#?}");
    assert_eq!(report.lost_keys[0].key.as_bytes(), member.key);
    assert_eq!(differing(&contents, &closed().contents).into_iter().collect::<Vec<_>>(), [&member.key[..]]);
    // The frame's header, too: nothing tells the batch from single records any more, so the report says that it can be.
    files.damage(&records[frame].file, records[frame].at, &[0xaa]);
    let (report, contents) = repair(&files.path);
    assert_eq!((report.losses_total, report.batches_uncertain, report.lost_keys_total), (2, 1, 1), "{report:#?}");
    assert_eq!(differing(&contents, &closed().contents).into_iter().collect::<Vec<_>>(), [&member.key[..]]);
}

/// Two batches and nothing behind them: no mark, and no index that would tell that they were durable.
fn unconfirmed_batches() -> (tempfile::TempDir, Files) {
    let dir = scratch();
    let path = dir.path().join("s");
    let mut writer = Writer::new(&path);
    writer.batch(&[(key(1), value(1, 1)), (key(2), value(2, 1)), (key(3), value(3, 1))], &[]);
    writer.batch(&[(key(4), value(4, 1))], &[]);
    writer.store.close().unwrap();
    let files = Files::new(&path);
    (dir, files)
}

#[test]
fn a_batch_that_nothing_declares_durable_is_saved_whole_or_not_at_all() {
    let (_dir, files) = unconfirmed_batches();
    let records = files.all_records();
    let frame = records.iter().position(|record| record.kind == 4).unwrap();
    files.damage(&records[frame + 2].file, records[frame + 2].value_at, &[0xaa]);
    remove(&files.index());
    let (report, contents) = repair(&files.path);
    assert_eq!((report.losses_total, report.batches_left_out, report.batches_in_part), (1, 1, 0), "{report:#?}");
    assert_eq!((report.losses[0].kind.as_str(), report.losses[0].from), ("batch", records[frame].at));
    assert_eq!((report.lost_keys_total, contents.len()), (3, 1), "{report:#?}");
}

#[test]
fn a_batch_whose_frame_is_damaged_may_be_partial_only_with_a_warning() {
    let (_dir, files) = unconfirmed_batches();
    let records = files.all_records();
    let frame = records.iter().position(|record| record.kind == 4).unwrap();
    remove(&files.index());
    files.damage(&records[frame].file, records[frame].at, &[0xaa]);
    // The header alone: all its records are there.
    let (report, contents) = repair(&files.path);
    assert_eq!((contents.len(), report.batches_uncertain, report.losses_total), (4, 0, 1), "{report:#?}");
    // A record of it, too: what was taken of it is told.
    files.damage(&records[frame + 2].file, records[frame + 2].value_at, &[0xaa]);
    let (report, _) = repair(&files.path);
    assert_eq!((report.losses_total, report.batches_uncertain), (2, 1), "{report:#?}");
}

#[test]
fn a_foreign_file_is_left_out() {
    let other = scratch();
    let foreign = other.path().join("other");
    let store = options().open(&foreign).unwrap();
    (0..300u64).for_each(|i| _ = store.insert(key(i), b"foreign").unwrap());
    store.close().unwrap();
    for with_index in [true, false] {
        let (_dir, files) = copy(closed());
        // In the place of one of ours, and behind the last one.
        let entry = files.meta().segments[1];
        fs::copy(Files::new(&foreign).segment(1), files.segment(entry.sequence)).unwrap();
        fs::copy(Files::new(&foreign).segment(1), files.segment(900)).unwrap();
        let mut header = files.read(&files.segment(900), 0, 128);
        header[32..40].copy_from_slice(&900u64.to_le_bytes());
        mend(&mut header);
        files.write(&files.segment(900), 0, &header);
        if !with_index {
            remove(&files.index());
        }
        let (report, contents) = repair(&files.path);
        assert!(report.files_left_out.iter().any(|file| file.contains("another store")), "{report:#?}");
        assert!(contents.values().all(|value| value != b"foreign"));
        assert!(report.losses.iter().any(|loss| loss.path == files.segment(entry.sequence).to_str().unwrap()));
    }
}

/// Mends the checksum of a segment's header.
pub fn mend(header: &mut [u8]) {
    header[12..16].fill(0);
    let crc = crc32fast::hash(header);
    header[12..16].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn the_index_of_another_store_is_not_believed() {
    let (_dir, files) = copy(closed());
    let other = scratch();
    let foreign = other.path().join("other");
    options().open(&foreign).unwrap().close().unwrap();
    fs::copy(foreign.join("index"), files.index()).unwrap();
    fs::copy(foreign.join("journal"), files.path.join("journal")).unwrap();
    let report = repairs_whole(&files.path, &closed().contents);
    assert!(report.index_problem.contains("no segment belongs"), "{report:#?}");
}

#[test]
fn clear_is_honoured_and_makes_losses_before_it_unimportant() {
    for with_index in [true, false] {
        let dir = scratch();
        let path = dir.path().join("s");
        let mut writer = Writer::new(&path);
        write_history(&mut writer);
        writer.store.clear().unwrap();
        writer.contents.clear();
        (0..50).for_each(|i| writer.put(&key(i), &value(i, 7)));
        writer.store.close().unwrap();
        let files = Files::new(&path);
        let record = files.all_records().into_iter().find(|record| record.kind == 1).unwrap();
        files.damage(&record.file, record.value_at, &[0xaa]);
        if !with_index {
            remove(&files.index());
        }
        let (report, contents) = repair(&path);
        assert_eq!(contents, writer.contents);
        assert_eq!((report.clears, report.stale_keys_max, report.lost_keys_total), (1, 0, 0), "{report:#?}");
        // Segments that held nothing but cleared records may have been freed, which without the index is a gap.
        let records = report.losses.iter().filter(|loss| loss.kind != "segment-gap").count();
        assert_eq!((records, report.index_entries_lost), (1, with_index.then_some(0)));
        assert!(!with_index || report.losses_total == 1, "{report:#?}");
    }
}

/// An offline compaction that was killed leaves a second log directory, whose segment has its blocks and no records. Without
/// an index the larger files were preferred: nothing was saved.
#[test]
fn without_an_index_the_log_directory_with_the_records_is_read() {
    for partial in [false, true] {
        let (_dir, files) = copy(closed());
        remove(&files.index());
        let log = files.path.join("log-2");
        fs::create_dir(&log).unwrap();
        let first = files.segment(files.log_files("log")[0].file_stem().unwrap().to_str().unwrap().parse().unwrap());
        let mut bytes = fs::read(first).unwrap();
        if !partial {
            bytes.truncate(128);
        }
        bytes.resize(8 << 20, 0);
        fs::write(log.join(files.log_files("log")[0].file_name().unwrap()), bytes).unwrap();
        let (report, contents) = repair(&files.path);
        assert_eq!(contents, closed().contents, "{report:#?}");
        assert!(report.files_left_out.iter().any(|left| left.contains("log-2")), "{report:#?}");
    }
}

/// A store whose index is lost, with two logs: `log-1` as it was, and `log-2` as an offline compaction makes it.
fn with_two_logs() -> (tempfile::TempDir, Files) {
    let (dir, files) = copy(closed());
    let before = dir.path().join("before");
    copy_store(&files.path, &before);
    let report = tophash::compact::compact(&files.path).unwrap();
    assert!(report.switched, "{report:?}");
    fs::rename(before.join("log-1"), files.path.join("log-1")).unwrap();
    fs::remove_dir_all(before).unwrap();
    remove(&files.index());
    (dir, files)
}

/// The old log, of which an offline compaction has removed a segment, holds more bytes than the new one, because it is full
/// of dead records. So a repair without an index took the old one, and lost what was in that segment. No test killed a
/// compaction at its last step and lost the index as well.
#[test]
fn without_an_index_the_new_log_counts_once_it_was_switched_in() {
    let (_dir, files) = with_two_logs();
    fs::create_dir(files.path.join("compact.tmp")).unwrap();
    fs::write(files.path.join("compact.tmp/LOCK"), "").unwrap();
    fs::remove_file(files.log_files("log").into_iter().find(|file| file.parent().unwrap().ends_with("log-1")).unwrap())
        .unwrap();
    let (report, contents) = repair(&files.path);
    assert_eq!(contents, closed().contents, "{report:#?}");
    assert!(report.files_left_out.iter().any(|left| left.contains("log-1")), "{report:#?}");
}

/// The other way round: the new log is not whole before its index is switched in.
#[test]
fn without_an_index_the_old_log_counts_until_then() {
    for index in ["index", "index.new"] {
        let (_dir, files) = with_two_logs();
        fs::create_dir(files.path.join("compact.tmp")).unwrap();
        fs::write(files.path.join("compact.tmp").join(index), "unfinished").unwrap();
        let new = fs::read_dir(files.path.join("log-2")).unwrap().map(|entry| entry.unwrap().path());
        fs::remove_file(new.max().unwrap()).unwrap();
        let (report, contents) = repair(&files.path);
        assert_eq!(contents, closed().contents, "{report:#?}");
        assert!(report.files_left_out.iter().any(|left| left.contains("log-2")), "{report:#?}");
    }
}

#[test]
fn what_a_killed_repair_has_left_is_named() {
    let (dir, files) = copy(closed());
    let left = dir.path().join("new.unfinished-0123456789abcdef");
    fs::create_dir(&left).unwrap();
    let report = tophash::repair::repair(&files.path, dir.path().join("new")).unwrap();
    assert_eq!(report.unfinished, [left.display().to_string()]);
    assert!(left.exists(), "it may be that of another repair");
}
