//! Bugs that were found in what gives space back (compaction, shrinking, holes), each with its story. None may
//! come back.

mod common;

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::passed_on::passed_on;
use common::{bytes, scratch, tiny_options};
use tophash::sys::*;
use tophash::{Batch, Options, Store, SyncPolicy, Tuning};

fn quiet() -> Options {
    Options::new().sync(SyncPolicy::Manual).tuning(Tuning { background: false, ..Tuning::default() })
}

fn key(n: u64) -> [u8; 8] {
    n.to_le_bytes()
}

/// Removals were kept as long as any older segment held records, and a segment of nothing but live records was
/// never moved. So behind one such segment a removal lived for ever: inserting and removing one key after another
/// made the log grow without end.
#[test]
fn removals_die_although_older_records_live() {
    const SEGMENT: u64 = 4096;
    let dir = scratch();
    let path = dir.path().join("s");
    let s = tiny_options().open(&path).unwrap();
    for n in 0..200 {
        s.insert(key(n), bytes(100, n)).unwrap();
    }
    for n in 1000..16_000 {
        s.insert(key(n), b"short-lived").unwrap();
        s.remove(key(n)).unwrap();
        if n % 500 == 0 {
            let log = s.stats().log;
            let live = log.bytes - log.dead_bytes;
            assert!(log.bytes <= live + live / 2 + 4 * SEGMENT, "after key {n}: {:#?}", s.stats());
        }
    }
    for n in 0..200 {
        assert_eq!(s.get(key(n)).unwrap().expect("never removed"), &bytes(100, n)[..]);
    }
    s.close().unwrap();
    // Whatever died, no removed key comes back, not even without the index.
    std::fs::remove_file(path.join("index")).unwrap();
    let repaired = dir.path().join("r");
    tophash::repair::repair(&path, &repaired).unwrap();
    assert_eq!(Options::new().open(&repaired).unwrap().len(), 200);
}

/// The same with a call of `compact`, which promises to empty whatever is worth it.
#[test]
fn compact_ends_removals_too() {
    let dir = scratch();
    // No compaction but by the call.
    let s = tiny_options().log_ratio(f64::INFINITY).open(dir.path().join("s")).unwrap();
    for n in 0..200 {
        s.insert(key(n), bytes(100, n)).unwrap();
    }
    for n in 1000..3000 {
        s.insert(key(n), b"short-lived").unwrap();
        s.remove(key(n)).unwrap();
    }
    s.compact().unwrap();
    s.compact().unwrap();
    let log = s.stats().log;
    assert!(log.dead_bytes < log.bytes / 5, "{log:#?}");
}

/// `compact` ended the active segment whenever anything anywhere was dead, and a segment that was ended early was
/// not worth being emptied: each call left a file of a whole segment behind.
#[test]
fn compact_again_and_again_leaves_no_segments_behind() {
    let dir = scratch();
    let s = quiet().segment_bytes(64 << 10).open(dir.path().join("s")).unwrap();
    for n in 0..300 {
        s.insert(key(n), bytes(100, n)).unwrap();
    }
    for n in 0..60 {
        s.insert(key(n), bytes(100, n + 1)).unwrap();
        s.compact().unwrap();
        assert!(s.stats().log.segments <= 4, "after {n} calls: {:#?}", s.stats().log);
    }
    for n in 0..60 {
        s.remove(key(n)).unwrap();
        s.compact().unwrap();
        assert!(s.stats().log.segments <= 4, "after {n} removals: {:#?}", s.stats().log);
    }
}

/// `compact` switched segments without a stripe, and so between a checkpoint's cut and its look at the segments:
/// the checkpoint named a segment behind its cut as one that it covered, and a recovery did not read it. Whatever
/// was written before the next checkpoint was lost without a word. (The engine asserts it in debug builds.)
#[test]
fn no_segment_begins_while_a_checkpoint_is_cut() {
    let dir = scratch();
    // So many segments that a cut takes its time to look at them.
    let s = quiet().segment_bytes(4096).open(dir.path().join("s")).unwrap();
    for n in 0..300 {
        s.insert(key(n), bytes(3000, n)).unwrap();
    }
    let stop = AtomicBool::new(false);
    let (cuts, switches) = (AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let checkpoints = scope.spawn(|| {
            while !stop.load(SeqCst) {
                s.checkpoint().unwrap();
                cuts.fetch_add(1, SeqCst);
                // The lock is to be had by others too.
                std::thread::sleep(Duration::from_micros(20));
            }
        });
        let until = Instant::now() + Duration::from_millis(1500);
        while Instant::now() < until && !checkpoints.is_finished() {
            s.insert(key(0), bytes(100, switches.load(SeqCst))).unwrap();
            s.compact().unwrap();
            switches.fetch_add(1, SeqCst);
        }
        stop.store(true, SeqCst);
        checkpoints.join().unwrap();
    });
    println!("cuts: {cuts:?}, switches: {switches:?}");
}

/// A store was closed with segments that had just been emptied: the last checkpoint kept their files for later, after
/// such files had been removed. Files of freed segments are unlinked since.
#[test]
fn a_closed_store_has_only_segments_with_records() {
    for rounds in 20..60 {
        let dir = scratch();
        let path = dir.path().join("s");
        let s = tiny_options().open(&path).unwrap();
        for n in 0..rounds * 20 {
            s.insert(key(n % 50), bytes(100, n)).unwrap();
        }
        s.close().unwrap();
        for entry in std::fs::read_dir(path.join("log-1")).unwrap() {
            let file = entry.unwrap().path();
            let bytes = std::fs::read(&file).unwrap();
            assert!(bytes[..8] == *b"tophLOG1", "{rounds} rounds: {} has no header", file.display());
        }
    }
}

/// After the table had shrunk, `clear` asked for blocks, and for room in the journal, for every page that the table
/// had ever had: what had been given back was taken again, and on a full disk nothing could be cleared.
#[test]
fn clear_takes_nothing_that_was_given_back() {
    let dir = scratch();
    let s = quiet().open(dir.path().join("s")).unwrap();
    for n in 0..60_000 {
        s.insert(key(n), b"v").unwrap();
    }
    for n in 100..60_000 {
        s.remove(key(n)).unwrap();
    }
    s.shrink_to_fit().unwrap();
    s.checkpoint().unwrap();
    let before = s.stats();
    s.clear().unwrap();
    s.checkpoint().unwrap();
    let after = s.stats();
    assert!(after.index.file_bytes <= before.index.file_bytes, "{before:#?} {after:#?}");
    assert!(after.checkpoint.journal_bytes <= before.checkpoint.journal_bytes, "{before:#?} {after:#?}");
}

/// A disk that becomes full: then only ranges that have their blocks can be allocated, as with a real one.
#[derive(Debug, Clone, Default)]
struct Filling(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    full: AtomicBool,
    /// No file can be unlinked at this moment, or no directory synced.
    keeps_files: AtomicBool,
    keeps_names: AtomicBool,
    /// Blocks of the index file.
    blocks: Mutex<BTreeSet<u64>>,
}

#[derive(Debug)]
struct FillingFile {
    file: Arc<dyn DiskFile>,
    shared: Arc<Shared>,
    is_index: bool,
}

#[derive(Debug)]
struct NoLock;

impl LockGuard for NoLock {}

fn blocks(offset: u64, bytes: u64) -> std::ops::Range<u64> {
    offset / 4096..(offset + bytes).div_ceil(4096)
}

impl Disk for Filling {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let is_index = path.file_name().is_some_and(|name| name == "index" || name == "index.new");
        Ok(Arc::new(FillingFile { file: RealDisk.open(path, mode)?, shared: self.0.clone(), is_index }))
    }
    fn unlink(&self, path: &Path) -> io::Result<()> {
        if self.0.keeps_files.load(SeqCst) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        RealDisk.unlink(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        if self.0.keeps_names.load(SeqCst) {
            return Err(io::ErrorKind::OutOfMemory.into());
        }
        RealDisk.sync_dir(path)
    }
    /// No lock: a store that is forgotten is dead.
    fn lock(&self, _path: &Path, _mode: LockMode) -> io::Result<LockOutcome> {
        Ok(LockOutcome::Held(Box::new(NoLock)))
    }
    passed_on!(RealDisk: create_dir read_dir kind rename map_anonymous random);
}

impl DiskFile for FillingFile {
    fn write_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        if self.is_index {
            let mut known = self.shared.blocks.lock().unwrap();
            let missing = blocks(offset, buffer.len() as u64).find(|block| !known.contains(block));
            if let (Some(_), true) = (missing, self.shared.full.load(SeqCst)) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            known.extend(blocks(offset, buffer.len() as u64));
        }
        self.file.write_at(buffer, offset)
    }
    fn allocate(&self, offset: u64, bytes: u64) -> io::Result<()> {
        if self.is_index {
            let mut known = self.shared.blocks.lock().unwrap();
            let missing = blocks(offset, bytes).find(|block| !known.contains(block));
            if let (Some(_), true) = (missing, self.shared.full.load(SeqCst)) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            known.extend(blocks(offset, bytes));
        } else if self.shared.full.load(SeqCst) && offset + bytes > self.file.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.file.allocate(offset, bytes)
    }
    fn punch_hole(&self, offset: u64, bytes: u64) -> io::Result<()> {
        let mut known = self.shared.blocks.lock().unwrap();
        blocks(offset, bytes).for_each(|block| _ = known.remove(&block));
        self.file.punch_hole(offset, bytes)
    }
    passed_on!(self.file: read_at write_mapped_at len allocated set_len sync_data sync_all map_private map_fresh map_log);
}

/// The space of unused pages was given back, and others filled the disk. The pages in use beside them had their
/// blocks, but blocks were asked for by the chunk, so that removing a key failed with `DiskFull`: what should go on
/// longest of all. The same after the store was opened again, when no chunk was known to be whole.
#[test]
fn removals_go_on_beside_pages_that_were_given_back() {
    let dir = scratch();
    let path = dir.path().join("s");
    let disk = Filling::default();
    // One extent from the start, so that pages in use and others share a chunk.
    let open = || quiet().capacity(60_000).disk(Arc::new(disk.clone())).open(&path).unwrap();
    let s = open();
    for n in 0..60_000 {
        s.insert(key(n), b"v").unwrap();
    }
    for n in 2000..60_000 {
        s.remove(key(n)).unwrap();
    }
    s.shrink_to_fit().unwrap();
    s.checkpoint().unwrap();
    assert!(s.stats().index.pages_given_back > 0, "{:#?}", s.stats().index);
    disk.0.full.store(true, SeqCst);
    let remove = |s: &Store, keys: std::ops::Range<u64>| {
        for n in keys {
            assert!(s.remove(key(n)).expect("there is room for removals").is_some());
        }
        s.checkpoint().expect("a checkpoint needs no space");
    };
    remove(&s, 0..200);
    s.clear().expect("clearing needs no new blocks");
    drop(s);

    disk.0.full.store(false, SeqCst);
    let s = open();
    for n in 0..2000 {
        s.insert(key(n), b"v").unwrap();
    }
    s.close().unwrap();
    let s = open();
    s.checkpoint().unwrap();
    disk.0.full.store(true, SeqCst);
    remove(&s, 0..200);
}

/// Each unclean end leaves a segment behind, and one with live records only was never emptied. After 4,096 of them all
/// segment slots were taken, and nothing could be written any more.
#[test]
fn unclean_ends_do_not_use_up_the_segment_slots() {
    let dir = scratch();
    let path = dir.path().join("s");
    let open = || quiet().disk(Arc::new(Filling::default())).open(&path).unwrap();
    for n in 0..350 {
        let s = open();
        s.insert(key(n), bytes(100, n)).unwrap();
        assert!(s.stats().log.segments <= 300, "after {n} ends: {:#?}", s.stats().log);
        if n % 100 == 99 {
            s.checkpoint().unwrap();
        }
        std::mem::forget(s);
    }
    let s = quiet().open(&path).unwrap();
    for n in 0..350 {
        assert_eq!(s.get(key(n)).unwrap().expect("there"), &bytes(100, n)[..]);
    }
    s.close().unwrap();
    assert!(tophash::verify::verify(&path).unwrap().is_clean());
}

/// Dead bytes in segments that cannot be emptied, because a record in them cannot be read, kept the log over its bound
/// for good. So everything else was copied again as soon as a thirtieth of it was dead.
#[test]
fn damage_does_not_make_compaction_run_in_circles() {
    let dir = scratch();
    let path = dir.path().join("s");
    let s = tiny_options().open(&path).unwrap();
    for n in 0..600 {
        s.insert(key(n), bytes(100, n)).unwrap();
    }
    for entry in std::fs::read_dir(path.join("log-1")).unwrap() {
        let file = entry.unwrap().path();
        let mut content = std::fs::read(&file).unwrap();
        for n in (0..600).step_by(25) {
            let value = bytes(100, n);
            if let Some(at) = content.windows(100).position(|window| window == value) {
                content[at] ^= 1;
                // In place: the store has it mapped.
                let file = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
                std::os::unix::fs::FileExt::write_all_at(&file, &content[at..=at], at as u64).unwrap();
            }
        }
    }
    let before = s.stats();
    for round in 1..10 {
        for n in (0..600).filter(|n| n % 25 != 0) {
            s.insert(key(n), bytes(100, n + round)).unwrap();
        }
    }
    let after = s.stats();
    let moved = after.compaction.moved_bytes - before.compaction.moved_bytes;
    let written = 9 * 576 * 128;
    println!("{moved} bytes moved, {written} written, {} segments damaged", after.compaction.damaged_segments);
    assert!(after.compaction.damaged_segments >= 5, "{after:#?}");
    assert!(moved < 3 * written, "{moved} bytes moved, {written} written: {after:#?}");
    for n in 0..600 {
        let found = s.get(key(n));
        assert_eq!(found.is_err(), n % 25 == 0, "key {n}");
    }
}

/// An active segment that is far too large for the log is replaced by a smaller one, unless it has no record yet. The
/// smaller one was made all the same: a new file, filled with zeroes and synced, ten times a second, for ever.
#[test]
fn an_idle_store_makes_no_segments() {
    let dir = scratch();
    let path = dir.path().join("s");
    let s = Options::new().sync(SyncPolicy::Manual).open(&path).unwrap();
    for n in 0..12_000 {
        s.insert(key(n), bytes(1000, n)).unwrap();
    }
    s.clear().unwrap();
    s.compact().unwrap();
    let last = || {
        let names = std::fs::read_dir(path.join("log-1")).unwrap().map(|entry| entry.unwrap().file_name());
        names.max().expect("a segment")
    };
    // Whatever is prepared ahead is prepared at some time; then half a second goes by without a new file.
    common::eventually("no more new segments", || {
        let before = last();
        std::thread::sleep(Duration::from_millis(500));
        last() == before
    });
    // With the first record it is replaced.
    s.insert("k", "v").unwrap();
    common::eventually("a small segment", || s.stats().log.file_bytes < 4 << 20);
}

/// An open after kill -9 prepared a segment of the usual size, an eighth of the log: with ten million records that is 256 MiB of
/// zeroes, two seconds, however short the tail was. (Found by benches/store/recovery.) It is no larger than what is replayed now.
#[test]
fn an_unclean_open_prepares_no_more_than_it_replays() {
    let dir = common::scratch();
    let (path, copy) = (dir.path().join("store"), dir.path().join("copy"));
    let store = common::open(&common::quiet(), &path);
    for n in 0..16_000u32 {
        store.insert(n.to_le_bytes(), [1; 1000]).unwrap();
    }
    store.checkpoint().unwrap();
    store.insert("the tail", "is short").unwrap();
    let bytes = |path: &std::path::Path| std::fs::metadata(path).unwrap().len();
    assert!(common::segments(&path).iter().any(|segment| bytes(segment) >= 1 << 20), "usual ones are large");
    common::copy_store(&path, &copy);
    drop(store);
    let store = common::open(&common::quiet(), &copy);
    assert!(store.stats().recovery.was_unclean);
    let last = common::segments(&copy).pop().unwrap();
    assert_eq!(bytes(&last), 256 << 10, "{}", last.display());
    // And then it goes on as usual.
    for n in 0..2000u32 {
        store.insert(n.to_le_bytes(), [2; 1000]).unwrap();
    }
    let last = common::segments(&copy).pop().unwrap();
    assert!(bytes(&last) >= 1 << 20, "{}", last.display());
    assert_eq!(store.len(), 16_001);
}

/// A checkpoint was durable, and then a file that it did not need any more could not be unlinked, or the directory not be
/// synced, for want of a descriptor. That poisoned the store for good, and the segment was forgotten. No layer saw it:
/// the faults that they knew were those of a device.
#[test]
fn a_checkpoint_that_frees_nothing_is_still_a_checkpoint() {
    let dir = scratch();
    let disk = Filling::default();
    let options = tiny_options().disk(Arc::new(disk.clone()));
    let s = options.open(dir.path().join("s")).unwrap();
    for (fails, round) in [(&disk.0.keeps_files, 1), (&disk.0.keeps_names, 2)] {
        for n in 0..300 {
            s.insert(key(n % 20), bytes(100, n + round)).unwrap();
        }
        s.insert("large", vec![round as u8; 5000]).unwrap();
        s.insert("large", vec![round as u8 + 1; 5000]).unwrap();
        let before = s.stats();
        assert!(before.log.freed_blobs > 0, "{before:#?}");
        fails.store(true, SeqCst);
        s.checkpoint().unwrap();
        let during = s.stats();
        assert!(during.poisoned.is_none() && during.checkpoint.put_off > before.checkpoint.put_off, "{during:#?}");
        assert_eq!(during.log.freed_blobs, before.log.freed_blobs, "forgotten");
        // Emptied segments stay as well. Without synced names there is no next segment to write to.
        for n in 0..if round == 1 { 300 } else { 0 } {
            s.insert(key(n % 20), bytes(100, n)).unwrap();
        }
        fails.store(false, SeqCst);
        s.compact().unwrap();
        let after = s.stats();
        assert_eq!((after.log.freed_blobs, after.compaction.evacuated_bytes), (0, 0), "{after:#?}");
    }
    s.close().unwrap();
    let s = options.open(dir.path().join("s")).unwrap();
    assert_eq!(&*s.get("large").unwrap().unwrap(), &[3; 5000]);
}

/// A value in a blob kept its file, not the segment of the record that links it. Compaction freed that segment, its address
/// was given to another record, and `update` and `compare_exchange`, which compare by address, took the one for the other:
/// another writer's change was lost. What readers held showed in no figure.
#[test]
fn a_held_large_value_keeps_the_address_of_its_record_and_is_counted() {
    let dir = scratch();
    let s = tiny_options().open(dir.path().join("s")).unwrap();
    s.insert("large", vec![1; 100_000]).unwrap();
    let value = s.get("large").unwrap().unwrap();
    assert_eq!(s.stats().log.pinned_segments, 1);
    s.insert("large", vec![2; 100_000]).unwrap();
    for n in 0..500 {
        s.insert(key(n % 20), bytes(100, n)).unwrap();
    }
    s.compact().unwrap();
    let held = s.stats();
    assert_eq!(held.log.pinned_segments, 1, "{held:#?}");
    assert!(held.log.held_bytes > 100_000, "{held:#?}");
    let disk = s.disk_bytes().unwrap();
    assert_eq!(&*value, &[1; 100_000]);
    drop(value);
    let free = s.stats();
    assert_eq!((free.log.pinned_segments, free.log.held_bytes), (0, 0), "{free:#?}");
    assert!(s.disk_bytes().unwrap() + 100_000 < disk, "held files count as disk space");
}

/// The bytes of replaced large values counted nowhere: one value, replaced over and over, took all of the disk until the
/// log had grown enough for a checkpoint, which it hardly did.
#[test]
fn replaced_large_values_ask_for_a_checkpoint() {
    let dir = scratch();
    let s = quiet().open(dir.path().join("s")).unwrap();
    for n in 0..40 {
        s.insert("large", vec![n; 1 << 20]).unwrap();
        let freed = s.stats().log.freed_blob_bytes;
        assert!(freed <= 16 << 20, "{freed} bytes of freed blobs wait");
    }
    assert!(s.stats().checkpoint.count >= 2);
}

/// When the log was far beyond its bound, the background left compaction to the writers. After many removals nobody
/// wrote, and the dead records stayed for ever.
#[test]
fn compaction_goes_on_when_nobody_writes() {
    let dir = scratch();
    let s = Options::new().sync(SyncPolicy::Manual).segment_bytes(64 << 10).open(dir.path().join("s")).unwrap();
    let keys: Vec<_> = (0..20_000).map(key).collect();
    for &key in &keys {
        s.insert(key, bytes(100, 1)).unwrap();
    }
    s.remove_many(&keys[200..]).unwrap();
    common::eventually("the log to be within its bound", || {
        let log = s.stats().log;
        log.bytes < (log.bytes - log.dead_bytes) * 3 / 2 + 4 * (64 << 10)
    });
}

/// The same however records die, and for a store that is opened with a smaller ratio than it was written with.
#[test]
fn dead_records_go_however_they_died() {
    let dir = scratch();
    let options = Options::new().sync(SyncPolicy::Manual).segment_bytes(64 << 10);
    for how in ["clear", "batch of removals", "batch of smaller values", "smaller ratio"] {
        let path = dir.path().join(how);
        let mut s = options.clone().log_ratio(f64::INFINITY).open(&path).unwrap();
        let keys: Vec<_> = (0..20_000).map(key).collect();
        for (round, &key) in keys.iter().enumerate() {
            s.insert(key, bytes(100, round as u64)).unwrap();
        }
        if how == "smaller ratio" {
            keys.iter().for_each(|key| drop(s.insert(key, b"").unwrap()));
        }
        s.close().unwrap();
        s = options.open(&path).unwrap();
        let mut batch = Batch::new();
        match how {
            "clear" => s.clear().unwrap(),
            "batch of removals" => keys[200..].iter().for_each(|key| _ = batch.remove(key)),
            "batch of smaller values" => keys[200..].iter().for_each(|key| _ = batch.insert(key, "")),
            _ => {}
        }
        s.apply(&batch).unwrap();
        common::eventually("the log to be within its bound", || {
            let log = s.stats().log;
            log.bytes <= (log.bytes - log.dead_bytes) * 3 / 2 + 4 * (64 << 10)
        });
        s.close().unwrap();
    }
}

/// The progress of a compaction went back whenever a checkpoint had run, because it counted the bytes that waited for one.
#[test]
fn the_progress_of_a_compaction_never_goes_back() {
    let dir = scratch();
    let s = tiny_options().log_ratio(f64::INFINITY).checkpoint_bytes(1 << 30).open(dir.path().join("s")).unwrap();
    for n in 0..1000 {
        s.insert(key(n), bytes(100, n)).unwrap();
    }
    for n in (0..1000).filter(|n| n % 3 > 0) {
        s.insert(key(n), b"").unwrap();
    }
    let (mut seen, before) = (Vec::new(), s.stats());
    let report = s
        .compact_with(|progress| {
            seen.push((progress.done, progress.total));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    assert!(report.finished && s.stats().checkpoint.count > before.checkpoint.count + 1, "{report:#?}");
    assert!(seen.is_sorted(), "{seen:?}");
    assert!(seen.iter().all(|(done, total)| done <= total), "{seen:?}");
    assert!(seen.last().unwrap().0 > before.log.bytes / 2, "{seen:?}");
}

/// A large batch had an extent of overflow pages added, and left some of it. They were taken before the pages of older
/// extents. On a full disk an insert failed for want of blocks while pages with blocks were free.
#[test]
fn on_a_full_disk_pages_with_blocks_are_used_first() {
    let dir = scratch();
    let disk = Filling::default();
    // All keys are of one page, whose chain gets longer and longer. Extents have 16 overflow pages.
    let tuning = Tuning { level_min: 6, overflow_log2_min: 4, grow_permille: 1000, chain_help: 200, ..common::tiny() };
    let keys: Vec<_> = (0..).map(key).filter(|key| common::hash(key).is_multiple_of(64)).take(1000).collect();
    let s = quiet().tuning(tuning).disk(Arc::new(disk.clone())).open(dir.path().join("s")).unwrap();
    let in_use = || s.stats().index.overflow_pages;
    let mut n = 0;
    while in_use() < 3 {
        s.insert(keys[n], b"").unwrap();
        n += 1;
    }
    // More than are left of the first extent.
    let mut batch = Batch::new();
    for key in &keys[n..n + 24 * 14] {
        batch.insert(key, b"");
    }
    n += 24 * 14;
    s.apply(&batch).unwrap();
    let before = in_use();
    disk.0.full.store(true, SeqCst);
    let error = loop {
        match s.insert(keys[n], b"") {
            Ok(_) => n += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, tophash::Error::DiskFull { .. }), "{error}");
    // Blocks come in chunks of eight pages. Of the first extent, whose bitmap is one of them, four pages are left of a
    // chunk.
    let free = s.stats().index;
    println!("{before} pages in use, then {free:#?}");
    assert!(in_use() >= before + 4, "{before} pages in use, then {}", in_use());
    disk.0.full.store(false, SeqCst);
    s.insert(keys[n], b"").unwrap();
    for key in &keys[..=n] {
        assert!(s.contains_key(key).unwrap());
    }
    s.close().unwrap();
}

/// The record that counts a batch's records was never dead while the store was open. Small batches that replaced keys made the
/// log's bound grow with the log: with a ratio of two, 100 keys of 24 bytes took 5.7 MB, and nothing was compacted.
#[test]
fn the_records_of_batches_themselves_are_dead_weight() {
    let dir = scratch();
    let options = quiet().segment_bytes(16 << 10).log_ratio(2.0);
    let store = options.open(dir.path().join("s")).unwrap();
    let mut most = 0;
    for n in 0..60_000u64 {
        store.apply(tophash::Batch::new().insert((n % 100).to_le_bytes(), n.to_le_bytes())).unwrap();
        if n % 1000 == 999 {
            most = store.stats().log.bytes.max(most);
        }
    }
    assert!(most < 100_000, "{most}");
    store.compact().unwrap();
    let log = store.stats().log;
    assert!(log.bytes < 3 * 2400, "{log:?}");
    store.close().unwrap();
    assert!(tophash::verify::verify(dir.path().join("s")).unwrap().is_clean());
}
