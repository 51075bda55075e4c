//! Space comes back: endless insert and remove, mass removal, forced compaction, and what holds it up.

mod common;

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Random, bytes, scale, scratch, seed, share, tiny_options};
use tophash::{Batch, Options, Store, SyncPolicy, Tuning};

/// Opens with small segments and background threads.
fn options() -> Options {
    Options::new().segment_bytes(64 << 10).checkpoint_bytes(256 << 10).sync(SyncPolicy::Manual)
}

fn key(n: u64) -> Vec<u8> {
    format!("key-{n:012}").into_bytes()
}

fn value(n: u64) -> Vec<u8> {
    bytes(100, n)
}

fn assert_clean(path: &Path) {
    let report = tophash::verify::verify(path).expect("verify runs");
    assert!(report.is_clean(), "{report:#?}");
}

/// The promise of `Options::log_ratio`: the multiple, and a few segments.
fn assert_bounded(store: &Store, ratio: f64, segment: u64) {
    let stats = store.stats();
    let live = (stats.log.bytes - stats.log.dead_bytes) as f64;
    let bound = live * ratio + 4.0 * segment as f64;
    assert!(stats.log.bytes as f64 <= bound, "{} bytes of log, {live} live: {stats:#?}", stats.log.bytes);
}

#[test]
fn endless_churn_keeps_the_log_within_its_bound() {
    endless_churn(40_000);
}

/// A CI machine found this: the background thread got no time, so no segment was prepared, and writers that should have
/// helped to compact did nothing, without one, and did not wait either: nothing had been emptied that a checkpoint could
/// free. The log grew by what they wrote.
#[test]
fn the_bound_holds_while_background_threads_get_little_time() {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        let result = std::panic::catch_unwind(|| endless_churn(40_000));
        stop.store(true, Ordering::Relaxed);
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn endless_churn(steps: u64) {
    let dir = scratch();
    let path = dir.path().join("store");
    let mut random = Random(seed("churn"));
    let options = || options().segment_bytes(256 << 10);
    let store = options().open(&path).unwrap();
    let live = 4000;
    let mut oldest = 0;
    for n in 0..live {
        store.insert(key(n), value(n)).unwrap();
    }
    let steps = steps * scale() as u64;
    for step in 0..steps {
        store.remove(key(oldest)).unwrap().expect("the oldest key is there");
        store.insert(key(oldest + live), value(oldest + live)).unwrap();
        oldest += 1;
        if random.chance(1, 8) {
            // Some keys are replaced while they live.
            let n = oldest + random.below(live - 1);
            store.insert(key(n), value(n)).unwrap();
        }
        if step % 1000 == 999 {
            assert_bounded(&store, 1.5, 256 << 10);
        }
    }
    let stats = store.stats();
    assert_eq!(stats.records, live);
    assert!(stats.compaction.freed_segments > 10, "{stats:#?}");
    for n in oldest..oldest + live {
        assert_eq!(store.get(key(n)).unwrap().expect("there"), &value(n)[..]);
    }
    assert!(store.get(key(oldest - 1)).unwrap().is_none());
    store.close().unwrap();
    assert_clean(&path);
    let store = options().open(&path).unwrap();
    assert_eq!(store.len(), live);
    println!("churn: {steps} steps, {:?}", stats.compaction);
}

/// A long run of the benchmark found this: a removal is kept until nothing older than itself is left, and is dead weight from
/// the start. Compaction took the segment with most to gain, which was hardly ever the oldest; so removals were moved on and
/// on, until they made up nine tenths of the dead bytes, and for each record written ten were copied.
#[test]
fn removals_do_not_crowd_out_what_can_be_gained() {
    const RECORDS: u64 = 5_000;
    let dir = scratch();
    let path = dir.path().join("store");
    let tuning = Tuning { background: false, ..Tuning::default() };
    let store = common::open(&options().segment_bytes(8 << 10).tuning(tuning), &path);
    for first in (0..RECORDS).step_by(500) {
        let mut batch = Batch::new();
        (first..first + 500).for_each(|n| _ = batch.insert(key(n), value(n)));
        store.apply(&batch).unwrap();
    }
    // In each round every record is replaced once; the order is the same, but begins elsewhere.
    let mut random = Random(5);
    for round in 0..10 {
        let start = random.below(RECORDS);
        for visit in 0..RECORDS {
            let n = round * RECORDS + (visit * 3_091 + start) % RECORDS;
            assert!(store.remove(key(n)).unwrap().is_some(), "record {n}");
            store.insert(key(n + RECORDS), value(n)).unwrap();
        }
        let log = store.stats().log;
        let (removals, dead) = (log.removal_bytes, log.dead_bytes);
        assert!(removals * 2 < dead, "round {round}: {removals} of {dead} dead bytes are removals");
    }
    assert_bounded(&store, 1.5, 8 << 10);
    store.close().unwrap();
    assert_clean(&path);
}

#[test]
fn compaction_gives_back_what_removals_left() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().log_ratio(f64::INFINITY).open(&path).unwrap();
    for n in 0..20_000 {
        store.insert(key(n), value(n)).unwrap();
    }
    for n in 0..20_000 {
        if n % 20 != 0 {
            store.remove(key(n)).unwrap();
        }
    }
    let before = store.stats().log;
    assert!(before.dead_bytes > before.bytes * 9 / 10);
    let mut told = Vec::new();
    let report = store
        .compact_with(|progress| {
            told.push((progress.done, progress.total));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert!(report.finished && told.len() > 2);
    assert_eq!(report.log_bytes_before, before.bytes);
    let live = before.bytes - before.dead_bytes;
    assert!(report.log_bytes_after <= live + live / 10 + 4096, "{live} live bytes: {report:#?}");
    assert!(report.moved_records >= 1000);
    assert!(store.stats().log.segments <= 4, "{:#?}", store.stats());
    for n in 0..20_000 {
        assert_eq!(store.get(key(n)).unwrap().is_some(), n % 20 == 0, "key {n}");
    }
    // A second time there is nothing to gain.
    assert_eq!(store.compact().unwrap().moved_records, 0);
    store.close().unwrap();
    assert_clean(&path);
}

#[test]
fn a_value_that_is_held_keeps_its_own_segment_and_nothing_else() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().log_ratio(f64::INFINITY).open(&path).unwrap();
    for n in 0..5000 {
        store.insert(key(n), value(n)).unwrap();
    }
    let held = store.get(key(7)).unwrap().unwrap();
    for n in 0..5000 {
        store.remove(key(n)).unwrap();
    }
    let report = store.compact().unwrap();
    assert!(report.held_bytes >= 64 << 10, "{report:#?}");
    // Whatever is written now must not touch the bytes that are held.
    for n in 0..20_000 {
        store.insert(key(n), value(n + 1)).unwrap();
    }
    assert_eq!(held, &value(7)[..]);
    drop(held);
    store.compact().unwrap();
    assert_eq!(store.stats().log.held_bytes, 0);
    store.close().unwrap();
    assert_clean(&path);
}

#[test]
fn a_compaction_that_is_ended_early_leaves_a_whole_store() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().log_ratio(f64::INFINITY).open(&path).unwrap();
    for n in 0..10_000 {
        store.insert(key(n % 2000), value(n)).unwrap();
    }
    let mut calls = 0;
    let report = store
        .compact_with(|_| {
            calls += 1;
            if calls < 8 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        })
        .unwrap();
    assert!(!report.finished);
    drop(store);
    assert_clean(&path);
    let store = options().open(&path).unwrap();
    for n in 0..2000 {
        assert_eq!(store.get(key(n)).unwrap().unwrap(), &value(8000 + n)[..]);
    }
}

/// Blobs, batches, `clear`, crashes and compaction in one history of a tiny store; the store is copied as a dying
/// process leaves it, and opened again.
#[test]
fn histories_with_compaction_survive_the_death_of_the_process() {
    let mut random = Random(seed("churn histories"));
    for round in 0..share(60) {
        let dir = scratch();
        let mut path = dir.path().join("0");
        let mut model: HashMap<Vec<u8>, Vec<u8>> = HashMap::new();
        for life in 1..4 {
            let store = tiny_options().checkpoint_bytes(6 << 10).open(&path).unwrap();
            assert_eq!(store.len(), model.len() as u64, "round {round}, life {life}");
            for _ in 0..500 {
                let key = key(random.below(40));
                match random.below(20) {
                    0..8 => {
                        let len = if random.chance(1, 20) { 900 } else { 30 + random.below(60) };
                        let value = bytes(len as usize, random.next());
                        store.insert(&key, &value).unwrap();
                        model.insert(key, value);
                    }
                    8..16 => {
                        store.remove(&key).unwrap();
                        model.remove(&key);
                    }
                    16 if random.chance(1, 10) => {
                        store.clear().unwrap();
                        model.clear();
                    }
                    17 if random.chance(1, 6) => _ = store.compact().unwrap(),
                    17 if random.chance(1, 6) => store.shrink_to_fit().unwrap(),
                    18 if random.chance(1, 6) => store.checkpoint().unwrap(),
                    _ => {
                        let mut batch = tophash::Batch::new();
                        for n in 0..random.below(6) {
                            batch.insert(self::key(n), &key);
                            model.insert(self::key(n), key.clone());
                        }
                        store.apply(&batch).unwrap();
                    }
                }
            }
            let next = dir.path().join(life.to_string());
            common::copy_store(&path, &next);
            std::mem::forget(store);
            path = next;
        }
        let store = tiny_options().open(&path).unwrap();
        assert_eq!(store.len(), model.len() as u64, "round {round}");
        for (key, value) in &model {
            assert_eq!(store.get(key).unwrap().expect("there"), &value[..], "round {round}");
        }
        store.close().unwrap();
        assert_clean(&path);
    }
}

#[test]
fn a_table_that_is_almost_empty_shrinks_in_use_and_gives_its_space_back() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().open(&path).unwrap();
    let many = 100_000;
    for n in 0..many {
        store.insert(key(n), value(n)).unwrap();
    }
    store.checkpoint().unwrap();
    let large = (store.stats().index, store.disk_bytes().unwrap());
    let keys: Vec<Vec<u8>> = (0..many).filter(|n| n % 20 != 0).map(key).collect();
    let (bulk, single) = keys.split_at(keys.len() / 2);
    assert_eq!(store.remove_many(bulk).unwrap(), bulk.len() as u64);
    for key in single {
        store.remove(key).unwrap().expect("there");
    }
    let live = (many / 20) * 128;
    common::eventually("a small table on a small disk", || {
        store.stats().index.pages <= large.0.pages / 8 && store.disk_bytes().unwrap() <= 3 * live + (2 << 20)
    });
    let stats = store.stats();
    assert!(stats.index.shrinks >= 3 && stats.index.merges > 0 && stats.index.pages_given_back > 0, "{stats:#?}");
    let holds = |store: &Store| {
        for n in 0..many {
            assert_eq!(store.get(key(n)).unwrap().is_some(), n % 20 == 0, "key {n}");
        }
    };
    holds(&store);
    println!("disk: {} bytes, then {}; {} live", large.1, store.disk_bytes().unwrap(), live);
    store.close().unwrap();
    assert_clean(&path);
    let store = options().open(&path).unwrap();
    holds(&store);
    // And it grows again.
    for n in 0..many {
        store.insert(key(n), value(n)).unwrap();
    }
    assert_eq!((store.len(), store.stats().index.level), (many, large.0.level));
    store.close().unwrap();
    assert_clean(&path);
}

#[test]
fn reserved_room_is_kept_until_it_is_given_up() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = options().capacity(50_000).open(&path).unwrap();
    let pages = store.stats().index.pages;
    for n in 0..1000 {
        store.insert(key(n), value(n)).unwrap();
    }
    for n in 0..900 {
        store.remove(key(n)).unwrap();
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(store.stats().index.pages, pages, "the capacity is kept");
    store.shrink_to_fit().unwrap();
    assert!(store.stats().index.pages <= 16);
    assert_eq!(store.iter().count(), 100);
    store.close().unwrap();
    assert_clean(&path);
}
