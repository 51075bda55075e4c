//! Bugs that were found and that need a disk that misbehaves, each with its story. None may come back.

mod common;

use common::passed_on::passed_on;
use std::io;
use std::path::Path;
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
};
use tophash::sys::*;
use tophash::{Batch, Options, SyncPolicy, Tuning};
#[derive(Debug, Default)]
struct Flags {
    full: AtomicBool,
    index_fails: AtomicBool,
}
#[derive(Debug, Clone)]
struct D(Arc<Flags>);
#[derive(Debug)]
struct F(Arc<dyn DiskFile>, Arc<Flags>, bool);
impl Disk for D {
    fn open(&self, p: &Path, m: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let is = p.file_name().unwrap() == "index";
        Ok(Arc::new(F(RealDisk.open(p, m)?, self.0.clone(), is)))
    }
    passed_on!(RealDisk: create_dir read_dir kind rename unlink sync_dir lock map_anonymous random);
}
impl DiskFile for F {
    fn write_at(&self, b: &[u8], o: u64) -> io::Result<usize> {
        if self.2 && self.1.index_fails.load(SeqCst) {
            return Err(io::Error::other("crash point"));
        }
        self.0.write_at(b, o)
    }
    fn allocate(&self, o: u64, n: u64) -> io::Result<()> {
        if self.1.full.load(SeqCst) && o + n > self.0.len()? {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.allocate(o, n)
    }
    passed_on!(self.0: read_at write_mapped_at len allocated set_len sync_data sync_all map_private map_fresh map_log);
}
fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}
fn quiet() -> Options {
    Options::new().sync(SyncPolicy::Manual).tuning(Tuning { background: false, ..Tuning::default() })
}

/// The index was extended for growth, the journal completed, and the power failed before the new length was
/// durable. The redo wrote the pages but not the length of the whole extent, and the store never opened again.
#[test]
fn an_extension_of_the_index_is_redone() {
    let d = dir();
    let p = d.path().join("s");
    let disk = D(Arc::default());
    let s = quiet().disk(Arc::new(disk.clone())).open(&p).unwrap();
    s.insert("first", "v").unwrap();
    s.checkpoint().unwrap();
    let before = std::fs::metadata(p.join("index")).unwrap().len();
    for i in 0..6_620u32 {
        s.insert(i.to_le_bytes(), "v").unwrap();
    }
    println!("{:?}", s.stats().index);
    disk.0.index_fails.store(true, SeqCst);
    assert!(s.checkpoint().is_err()); // the journal is complete, nothing in place
    let q = d.path().join("c");
    common::copy_store(&p, &q);
    let now = std::fs::metadata(q.join("index")).unwrap().len();
    println!("index length {before} -> {now}");
    // Power loss: the extension of the index was never fsynced.
    std::fs::OpenOptions::new().write(true).open(q.join("index")).unwrap().set_len(before).unwrap();
    let r = quiet().open(&q);
    println!("{:?}", r.as_ref().map(|s| s.len()).map_err(|e| e.to_string()));
    assert!(r.is_ok());
}
/// Clear needs journal blocks for all pages; on a full disk it ran checkpoints for ever in the hope of some.
#[test]
fn clear_on_a_full_disk_answers() {
    common::returns("clear on a full disk", || {
        let d = dir();
        let p = d.path().join("s");
        let disk = D(Arc::default());
        let s = quiet().disk(Arc::new(disk.clone())).capacity(60_000).open(&p).unwrap();
        for i in 0..100u32 {
            s.insert(i.to_le_bytes(), "v").unwrap();
            s.checkpoint().unwrap();
        }
        disk.0.full.store(true, SeqCst);
        println!("clear: {:?}", s.clear().map_err(|e| e.to_string()));
    });
}
/// Clean private pages were dropped after the checkpoint lock was released: a second checkpoint had captured a
/// page and not yet written it in place, the drop brought the old bytes back, and the next writer built on
/// them. Keys went missing with four writers and a small memory limit.
#[test]
fn clean_pages_are_dropped_by_the_one_checkpoint() {
    for round in 0..6u64 {
        let d = dir();
        let p = d.path().join("s");
        let s = quiet().memory_bytes(256 << 10).capacity(300_000).open(&p).unwrap();
        s.insert("init", "").unwrap();
        s.checkpoint().unwrap();
        std::thread::scope(|t| {
            for n in 0..4u64 {
                let s = &s;
                t.spawn(move || {
                    for i in 0..1500u64 {
                        s.insert((i * 4 + n).to_le_bytes(), "v").unwrap();
                    }
                });
            }
        });
        let missing = (0..6000u64).filter(|i| !matches!(s.get(i.to_le_bytes()), Ok(Some(_)))).count();
        println!("round {round}: missing {missing} len {} ckpts {}", s.len(), s.stats().checkpoint.count);
        assert_eq!(missing, 0);
    }
}
/// Journal blocks were reserved for bucket pages, not for the meta pages that a checkpoint writes besides: on a
/// full disk a checkpoint could fail, and poison the store.
#[test]
fn a_checkpoint_needs_no_block_that_was_not_reserved() {
    // Images in the journal at most its reserved blocks?
    let d = dir();
    let p = d.path().join("s");
    let s = quiet().capacity(60_000).open(&p).unwrap();
    s.insert("k", "v").unwrap();
    s.checkpoint().unwrap();
    let reserved = s.stats().checkpoint.journal_bytes / 4096;
    let mut i = 0u32;
    while s.stats().checkpoint.dirty_pages < reserved {
        s.insert(i.to_le_bytes(), "v").unwrap();
        i += 1;
        assert_eq!(s.stats().checkpoint.journal_bytes / 4096, reserved);
    }
    let len = std::fs::metadata(p.join("journal")).unwrap().len();
    s.checkpoint().unwrap();
    let after = std::fs::metadata(p.join("journal")).unwrap().len();
    println!("reserved {reserved}, journal {len} -> {after}");
    assert_eq!(len, after, "the journal needed blocks that were not reserved");
}

/// The second piece of a frame cannot be written, and a writer waits for the append lock meanwhile.
#[derive(Debug, Default)]
struct Pieces {
    armed: AtomicBool,
    inside: AtomicBool,
    pieces: AtomicU64,
}

#[derive(Debug, Clone)]
struct FailingFrames(Arc<Pieces>);

#[derive(Debug)]
struct FailingFile(Arc<dyn DiskFile>, Arc<Pieces>);

impl Disk for FailingFrames {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(FailingFile(RealDisk.open(path, mode)?, Arc::clone(&self.0))))
    }
    passed_on!(RealDisk: create_dir read_dir kind rename unlink sync_dir lock map_anonymous random);
}

impl DiskFile for FailingFile {
    fn write_mapped_at(&self, buffer: &[u8], offset: u64) -> io::Result<usize> {
        if self.1.armed.load(SeqCst) && self.1.pieces.fetch_add(1, SeqCst) == 1 {
            // The device refuses this piece, after a while.
            self.1.inside.store(true, SeqCst);
            std::thread::sleep(std::time::Duration::from_millis(500));
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.write_mapped_at(buffer, offset)
    }
    passed_on!(self.0: read_at write_at set_len allocate sync_data sync_all len allocated map_private map_fresh map_log);
}

/// A batch is written in pieces. One failed after others had been written, and the batch was refused. A writer that waited for
/// the log meanwhile put its record over the frame's header, and the changes behind it became records of their own: after a kill
/// they were there, a part of a batch that had failed.
#[test]
fn a_frame_that_failed_is_not_applied_in_part() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let pieces = Arc::<Pieces>::default();
    let tuning = Tuning { background: false, hash_key: Some(common::HASH_KEY), ..Tuning::default() };
    let options = Options::new().sync(SyncPolicy::Manual).segment_bytes(1 << 20).capacity(1_000_000).tuning(tuning);
    let store = common::open(&options.clone().disk(Arc::new(FailingFrames(Arc::clone(&pieces)))), &path);
    store.set("before", "1").unwrap();
    let mut batch = Batch::new();
    let key = |n: u64| format!("batch {n:03}");
    for n in 0..100 {
        batch.insert(key(n), vec![7; 1000]);
    }
    pieces.armed.store(true, SeqCst);
    let (failed, other) = std::thread::scope(|scope| {
        let failed = scope.spawn(|| store.apply(&batch));
        common::eventually("the piece", || pieces.inside.load(SeqCst));
        // 8 + 4 + 12 bytes: as long as the frame's header.
        let other = scope.spawn(|| store.set("othe", "twelve bytes"));
        (failed.join().unwrap(), other.join().unwrap())
    });
    assert!(failed.is_err() && other.is_ok());
    for n in 0..100 {
        assert!(store.get(key(n)).unwrap().is_none());
    }
    // As after a kill.
    let killed = dir.path().join("killed");
    common::copy_store(&path, &killed);
    let again = common::open(&Options::new(), &killed);
    assert_eq!(again.get("othe").unwrap().unwrap(), "twelve bytes");
    let there = (0..100).filter(|&n| again.contains_key(key(n)).unwrap()).count();
    assert!(there == 0 || there == 100, "{there} of 100 changes of a batch that has failed are there");
}
