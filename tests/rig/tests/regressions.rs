//! Bugs that the crash layer found, each with its story. None may come back.

use tophash_rig::corruption::anatomy::STORE;
use tophash_rig::corruption::base;
use tophash_rig::disk::SimDisk;
use tophash_rig::faults::Fault;
use tophash_rig::image::Image;
use tophash_rig::world::Call;
use tophash_rig::{crash, fault_layer, held, scripts, seed, space, story};

/// A power failure during a checkpoint left its images and its trailer in the journal, but not its head. The
/// recovery went back to the checkpoint before, and the next one had the same generation. When the power failed
/// again, that one's head was on the disk and nothing else of it: head, images and trailer were valid and agreed,
/// though they were of two checkpoints. The old images were put under the new cut, and all that had been written
/// and synced between the two was gone, or the store could not be opened any more.
#[test]
fn a_journal_is_not_completed_by_the_checkpoint_before() {
    story::journal_of_two_checkpoints().unwrap();
}

/// A clear-record is what keeps away everything before it. While an older segment stays because it is damaged, so
/// must the clear. No layer had a script with a clear behind damage: a compaction that dropped clear-records
/// early was noticed by none.
#[test]
fn a_clear_stays_while_an_older_segment_is_damaged() {
    story::a_clear_behind_damage().unwrap();
}

/// A repair mends a header in which one bit is wrong. Where this bit was the only one of its word, it may be the word that an
/// interrupted write had not reached: an open drops such a segment, and the repair brought a batch back that the open
/// said had never been. One of 170,000 random crashes with background threads showed it.
#[test]
fn a_repair_takes_a_header_for_torn_where_an_open_does() {
    story::a_header_without_a_word().unwrap();
}

/// The first mend of the above looked at the segment's own records alone: a repair lost a whole segment of acknowledged
/// records, of which only a later segment said that they were durable.
#[test]
fn a_rotten_header_before_a_later_durable_lsn_costs_nothing() {
    story::a_rotten_header_before_a_durable_lsn().unwrap();
}

/// The salt of a segment is in the checksum of its records. While freed files were used again, crashes met old records behind
/// the end of the log all the time, and a log without salts was noticed. Files are made anew now, no script leads there any
/// more, and a log without salts went unnoticed in 8 minutes of crashes. File systems that show old blocks after a
/// crash still do.
#[test]
fn old_blocks_behind_the_end_of_the_log_are_no_records() {
    story::old_blocks_behind_the_end().unwrap();
}

/// Pages of a dropped table are reused when a checkpoint has synced the holes in their place. A process that was killed before left
/// the holes in the cache only. The next one took what it saw for what was on the disk and laid another table there at once: when the
/// power failed between its journal and its pages, the entries of the dropped table stood in pages that the new one did not use yet.
/// One of five whole runs of the layer of killed processes showed it, because it kills at one boundary of eight.
#[test]
fn no_table_lies_where_the_holes_of_a_dead_process_are_not_on_the_disk() {
    story::a_table_in_the_pages_of_a_dropped_one().unwrap();
}

/// Segments are freed from the oldest on, and each unlink is durable before the next, so that no removal goes before what it
/// removes. A process that was killed after an unlink left it in the cache only; the next one freed the removals, the
/// power failed, and a repair without the index brought removed keys back. One of ten long runs of the layer of killed
/// processes showed it, because few of its scripts free several segments, and it kills at one boundary of eight.
#[test]
fn a_process_frees_nothing_before_what_the_last_one_freed_is_durable() {
    let script = scripts::fixed().into_iter().find(|script| script.name == "compaction").expect("a fixed script");
    let outcome = crash::run_freed(&script, &crash::Settings::of_scale(1, seed()));
    assert!(outcome.tally.killed > 0 && outcome.tally.nested > 0, "{}", outcome.tally);
    assert!(outcome.violations.is_empty(), "{}", outcome.violations.join("\n"));
}

/// A checkpoint ran behind a change that was made, and its error was returned as that of the change. To a caller an error
/// means that nothing has changed, and who repeats an update counts twice. The fault layer took a step that failed and was
/// done for right, so it noticed nothing.
#[test]
fn upkeep_behind_a_change_does_not_fail_it() {
    let script = scripts::fixed().into_iter().find(|script| script.name == "churn").expect("a fixed script");
    let cases = fault_layer::cases(&script, seed()).unwrap();
    let of_checkpoints =
        cases.into_iter().filter(|case| !case.for_ever && case.fault == Fault::Io && case.call == Call::Write);
    let all: Vec<_> = of_checkpoints.step_by(3).collect();
    assert!(all.len() > 20, "{}", all.len());
    for case in all {
        fault_layer::run(&script, seed(), case).unwrap();
    }
}

/// What a failed write of a large value had left was unlinked, without an fsync and without a list that names it.
#[test]
fn a_large_value_that_could_not_be_written_stays_gone() {
    story::a_large_value_given_up().unwrap();
}

/// A process died before it had written a record. The recovery replaced its empty segment by a fresh one, and yet took
/// that segment's end for the durable LSN; the segment after the fresh one had it in its header. Then the power failed, nothing had been synced, and of all that was written only that header had
/// reached the disk. The log ended before that LSN, and the store refused to open: acknowledged data was lost, it
/// said, of a store that had none.
#[test]
fn no_durable_lsn_lies_in_a_segment_that_was_replaced() {
    let disk = SimDisk::untracked(Image::empty(), 1);
    let store = base::options(&disk).open(STORE).expect("a new store");
    let disk = SimDisk::untracked(disk.cached(), 2);
    drop(store);
    let store = base::options(&disk).open(STORE).expect("a store whose process was killed");
    for n in 0..60u32 {
        store.insert(n.to_le_bytes(), [7; 100]).expect("room");
    }
    let mut image = disk.cached();
    let segments = image.names("log-1/");
    let [lost, _kept] = &segments[..] else { panic!("two segments, the first replaced: {segments:?}") };
    let bytes = image.len(lost) as usize;
    image.write(lost, 0, &vec![0; bytes]);
    let store = base::options(&SimDisk::untracked(image, 3)).open(STORE).expect("nothing was ever synced");
    assert!(store.is_empty());
}

/// Each process that wrote a record and ended without a close left a segment, because a recovery goes on in a fresh one.
/// Compaction in the background would have put them together, had a process lived long enough. After 4,096 of them the store could
/// not be opened for writing any more, nor compacted.
#[test]
fn short_runs_do_not_use_up_the_segments() {
    const RUNS: u32 = 400;
    let mut disk = SimDisk::untracked(Image::empty(), 1);
    for n in 0..RUNS {
        let store = base::options(&disk).open(STORE).expect("a store whose process was killed");
        store.insert(n.to_le_bytes(), [7; 40]).expect("room");
        assert!(store.stats().log.segments <= 330, "{} segments after {n} runs", store.stats().log.segments);
        tophash_rig::run::kill(&disk, store);
        disk = SimDisk::untracked(disk.cached(), u64::from(n) + 2);
    }
    let store = base::options(&disk).open(STORE).expect("a store whose process was killed");
    for n in 0..RUNS {
        assert!(store.get(n.to_le_bytes()).expect("readable").is_some(), "{n}");
    }
}

/// An open puts small segments together when there are many. One of them had a record that had rotted, and each open for
/// writing was refused, the one of an offline compaction too, though every other record could be read.
#[test]
fn one_rotten_record_among_many_small_segments_refuses_no_open() {
    const RUNS: u32 = 330;
    /// Smaller than the others, so that compaction meets it first, gives up, and leaves the segments to an open.
    const ROTTEN: u32 = 7;
    let mut disk = SimDisk::untracked(Image::empty(), 1);
    for n in 0..RUNS {
        let mut image = disk.cached();
        if n == 200 {
            let find = |name: &String| image.contents(name).windows(30).position(|bytes| bytes == [9; 30]);
            let found = image.names("log-1/").into_iter().find_map(|name| find(&name).map(|at| (name, at)));
            let (name, at) = found.expect("the record");
            image.write(&name, at as u64, b"rotten");
        }
        disk = SimDisk::untracked(image, u64::from(n) + 2);
        let store = base::options(&disk).open(STORE).expect("a store whose process was killed");
        let value = if n == ROTTEN { vec![9; 30] } else { vec![7; 40] };
        store.insert(n.to_le_bytes(), value).expect("room");
        store.checkpoint().expect("room");
        tophash_rig::run::kill(&disk, store);
    }
    let store = base::options(&SimDisk::untracked(disk.cached(), 0)).open(STORE).expect("damage elsewhere");
    assert!(store.stats().log.segments < 320, "{} segments", store.stats().log.segments);
    assert!(store.get(ROTTEN.to_le_bytes()).is_err_and(|error| error.is_corruption()));
    for n in (0..RUNS).filter(|&n| n != ROTTEN) {
        assert!(store.get(n.to_le_bytes()).expect("readable").is_some(), "{n}");
    }
}

/// A value in a blob kept its file, not the segment of the record that links it. While `update` ran its function, another
/// writer replaced the value, compaction freed that segment, and the writer's next record for the key came to the very
/// address of the old one. The update took the one for the other, and the writer's change was lost. No layer had large values
/// beside functions of the user that take their time.
#[test]
fn an_update_of_a_large_value_notices_every_change_meanwhile() {
    held::check(seed()).unwrap();
}

/// The bytes of replaced large values counted nowhere: one value of 4 MiB, replaced 300 times, took 1.2 GB. No layer looked at
/// the space that large values take.
#[test]
fn a_large_value_that_is_replaced_takes_little_more_than_itself() {
    space::replaced(seed()).unwrap();
}

/// When the log was far beyond its bound, the background left compaction to the writers. After a removal of many keys nobody
/// wrote, and the dead records stayed for ever. The churn tests always went on writing.
#[test]
fn dead_records_go_when_nobody_writes() {
    space::removed(seed()).unwrap();
}

/// An open unlinks the files of large values that a full list of a checkpoint had no room for. It tells them by the links that
/// it reads, so it may unlink none where a record cannot be read.
#[test]
fn no_large_value_is_unlinked_beside_a_record_that_cannot_be_read() {
    story::leftovers_beside_damage().unwrap();
}
