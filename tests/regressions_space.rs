//! Bugs that were found in what gives space back (compaction, shrinking, holes), each with its story. None may
//! come back.

mod common;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use common::{bytes, scratch, tiny_options};
use tophash::{Options, SyncPolicy, Tuning};

fn quiet() -> Options {
    Options::new().sync(SyncPolicy::Manual).tuning(Tuning { background: false, ..Tuning::default() })
}

fn key(n: u64) -> [u8; 8] {
    n.to_le_bytes()
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

/// A store was closed with segments that had just been emptied: the last checkpoint made spare files of them, after
/// the spare files had been removed.
#[test]
fn a_closed_store_has_no_spare_files() {
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
