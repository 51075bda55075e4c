//! A store does what a `HashMap` does.
//!
//! Random histories of operations are carried out on a store and on a `HashMap`, and everything that the store
//! returns is compared. Pages have two to four home buckets, segments 4 KiB, checkpoints come every few KB, and
//! keys are few and often chosen so that their hashes collide: splits, overflow pages, path repair, rewrites,
//! segment switches and checkpoints happen all the time. In between the store is closed and opened, "crashes"
//! (its directory is copied while it is open, and the history goes on with the copy), and is opened read-only.
//!
//! After a crash everything that returned must be there: without background threads nothing goes on between
//! two calls, and the copy is made through the page cache, exactly as the kernel keeps it when a process is
//! killed. The variant with background threads therefore closes, but does not crash (tests/kill.rs does).
//!
//! A failing history is shrunk and printed; TOPHASH_TEST_SEED repeats the run.

mod common;

use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Instant;

use common::{bytes, hash};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestError, TestRunner};
use tophash::stats::Stats;
use tophash::{Batch, Options, Store, SyncPolicy, Tuning, Value};

/// A value by length and seed.
type Content = (u16, u16);

#[derive(Debug, Clone)]
enum Op {
    Insert(u16, Content),
    Remove(u16),
    Get(u16),
    GetMany(Vec<u16>),
    /// Expects the current value, another one, or absence.
    CompareExchange(u16, Expected, Option<Content>),
    Update(u16, Option<Content>),
    GetOrInsert(u16, Content),
    Apply(Vec<(u16, Option<Content>)>),
    RemoveMany(Vec<u16>),
    /// Inserts a run of keys.
    Fill(u16, u16, Content),
    /// Removes a run of keys at once.
    Drain(u16, u16),
    Clear,
    CompareAll,
    ScanStep(u8),
    Hold(u16),
    LetGo,
    Checkpoint,
    Compact,
    ShrinkToFit,
    Sync,
    Reserve(u16),
    Close,
    Crash,
    ReadOnly,
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    Current,
    Other,
    Absent,
}

#[derive(Debug, Clone)]
struct Setup {
    keys: usize,
    family: usize,
    homes: u8,
    stash: u8,
    segment_bytes: u64,
    checkpoint_bytes: u64,
    always: bool,
    background: bool,
    /// `remove_many` leaves tombstones however few keys a page loses, and they stay up to an eighth of its slots.
    tombstones: bool,
    /// One in so many questions for a page ends the attempt, and a checkpoint comes before the next one; 0: none does.
    shortages: u32,
}

impl Setup {
    fn options(&self) -> Options {
        let (large_part_permille, rewrite_permille) = if self.tombstones { (0, 125) } else { (125, 0) };
        let tuning = Tuning {
            large_part_permille,
            rewrite_permille,
            home_buckets: self.homes,
            stash_buckets: self.stash,
            background: self.background,
            shortages: self.shortages,
            ..common::tiny()
        };
        let options = Options::new()
            .tuning(tuning)
            .segment_bytes(self.segment_bytes)
            .checkpoint_bytes(self.checkpoint_bytes)
            .sync(if self.always { SyncPolicy::Always } else { SyncPolicy::Manual });
        if self.background || self.shortages > 0 { options.memory_bytes(256 << 10) } else { options }
    }
}

/// Families of keys: any; all in one page until the sixth doubling; all in one home bucket; equal fingerprints
/// in their high byte and equal pages.
const FAMILIES: usize = 4;
const KEYS_MAX: usize = 400;

fn keys(family: usize) -> &'static [Vec<u8>] {
    static KEYS: Mutex<[Option<&'static [Vec<u8>]>; FAMILIES]> = Mutex::new([None; FAMILIES]);
    let mut all = KEYS.lock().unwrap();
    all[family].get_or_insert_with(|| {
        let fits = |key: &Vec<u8>| match family {
            1 => hash(key) & 63 == 5,
            2 => hash(key) >> 61 == 0,
            3 => hash(key) >> 57 == 0x35 && hash(key) & 7 == 2,
            _ => true,
        };
        // The empty key and a long one belong to every family that has them.
        let special = [Vec::new(), vec![b'k'; 300], vec![b'z'; 5000]];
        let plain =
            (0u32..).map(|i| if i % 3 == 0 { i.to_le_bytes().to_vec() } else { format!("key {i}").into_bytes() });
        Box::leak(special.into_iter().chain(plain).filter(fits).take(KEYS_MAX).collect::<Vec<_>>().into_boxed_slice())
    })
}

fn setups(background: bool) -> impl Strategy<Value = Setup> {
    let sizes = (20..=KEYS_MAX, 0..FAMILIES, 2u8..=4, 1u8..=2);
    let log = (prop_oneof![Just(4096u64), Just(8192)], 2_000u64..40_000, prop::bool::weighted(0.2));
    let shortages = prop_oneof![2 => Just(0u32), 1 => Just(4), 1 => Just(30)];
    let log = (log, any::<bool>(), shortages);
    (sizes, log).prop_map(
        move |((keys, family, homes, stash), ((segment_bytes, checkpoint_bytes, always), tombstones, shortages))| {
            Setup {
                keys,
                family,
                homes,
                stash,
                segment_bytes,
                checkpoint_bytes,
                always,
                background,
                tombstones,
                shortages,
            }
        },
    )
}

fn contents() -> impl Strategy<Value = Content> {
    let len = prop_oneof![1 => Just(0u16), 20 => 1u16..300, 2 => 590u16..700, 1 => 1000u16..9000];
    (len, any::<u16>())
}

fn ops(background: bool) -> impl Strategy<Value = Op> {
    let key = 0..KEYS_MAX as u16;
    let some_keys = |most| prop::collection::vec(0..KEYS_MAX as u16, 0..most);
    let expected = prop_oneof![3 => Just(Expected::Current), 1 => Just(Expected::Other), 1 => Just(Expected::Absent)];
    let maybe = || prop::option::weighted(0.7, contents());
    let crash = if background { Just(Op::Close).boxed() } else { Just(Op::Crash).boxed() };
    let read_only = if background { Just(Op::CompareAll).boxed() } else { Just(Op::ReadOnly).boxed() };
    prop_oneof![
        30 => (key.clone(), contents()).prop_map(|(k, v)| Op::Insert(k, v)),
        15 => key.clone().prop_map(Op::Remove),
        8 => key.clone().prop_map(Op::Get),
        3 => some_keys(80).prop_map(Op::GetMany),
        8 => (key.clone(), expected, maybe()).prop_map(|(k, e, v)| Op::CompareExchange(k, e, v)),
        8 => (key.clone(), maybe()).prop_map(|(k, v)| Op::Update(k, v)),
        5 => (key.clone(), contents()).prop_map(|(k, v)| Op::GetOrInsert(k, v)),
        10 => prop::collection::vec((key.clone(), maybe()), 0..30).prop_map(Op::Apply),
        4 => some_keys(40).prop_map(Op::RemoveMany),
        5 => (key.clone(), 1u16..120, contents()).prop_map(|(k, n, v)| Op::Fill(k, n, v)),
        2 => (key.clone(), 1u16..150).prop_map(|(k, n)| Op::Drain(k, n)),
        1 => Just(Op::Clear),
        2 => Just(Op::CompareAll),
        10 => (1u8..40).prop_map(Op::ScanStep),
        8 => key.prop_map(Op::Hold),
        1 => Just(Op::LetGo),
        3 => Just(Op::Checkpoint),
        2 => Just(Op::Sync),
        1 => Just(Op::Compact),
        1 => Just(Op::ShrinkToFit),
        1 => (0u16..300).prop_map(Op::Reserve),
        2 => Just(Op::Close),
        3 => crash,
        1 => read_only,
    ]
}

/// A resumable scan, as the model sees it.
#[derive(Default)]
struct ScanModel {
    cursor: tophash::Cursor,
    /// Keys that were there at the beginning and have been since.
    throughout: HashSet<Vec<u8>>,
    seen: HashMap<Vec<u8>, u32>,
}

#[derive(Default)]
struct Model {
    map: HashMap<Vec<u8>, Vec<u8>>,
    scan: Option<ScanModel>,
}

impl Model {
    fn set(&mut self, key: &[u8], value: Option<Vec<u8>>) {
        match value {
            Some(value) => _ = self.map.insert(key.to_vec(), value),
            None => {
                self.map.remove(key);
                if let Some(scan) = &mut self.scan {
                    scan.throughout.remove(key);
                }
            }
        }
    }
}

/// Why a store is closed.
#[derive(PartialEq)]
enum End {
    History,
    Close,
    Crash,
}

struct History<'h> {
    setup: &'h Setup,
    dir: &'h Path,
    path: PathBuf,
    copies: usize,
    model: Model,
    total: &'h Mutex<Stats>,
}

impl History<'_> {
    fn key(&self, number: u16) -> &'static [u8] {
        let keys = keys(self.setup.family);
        &keys[number as usize % self.setup.keys.min(keys.len())]
    }

    fn next_copy(&mut self) -> PathBuf {
        self.copies += 1;
        self.dir.join(self.copies.to_string())
    }

    fn run(&mut self, ops: &[Op]) {
        let mut ops = ops.iter();
        loop {
            let store = common::open(&self.setup.options(), &self.path);
            self.compare_all(&store);
            let end = self.while_open(&store, &mut ops);
            note(self.total, &store.stats());
            match end {
                End::Crash => {
                    let copy = self.next_copy();
                    common::copy_store(&self.path, &copy);
                    drop(store);
                    std::fs::remove_dir_all(&self.path).unwrap();
                    self.path = copy;
                }
                End::Close | End::History => {
                    store.close().unwrap();
                    let report = tophash::verify::verify(&self.path).unwrap();
                    assert!(report.is_clean(), "{report:#?}");
                    if end == End::History {
                        return;
                    }
                    let store = common::open(&self.setup.options(), &self.path);
                    let recovery = store.stats().recovery;
                    assert!(!recovery.was_unclean && recovery.replayed_records == 0, "{recovery:?}");
                }
            }
        }
    }

    /// Carries out operations until one has the store closed. Values that are held live in here.
    fn while_open<'o>(&mut self, store: &Store, ops: &mut impl Iterator<Item = &'o Op>) -> End {
        let mut held: Vec<(Value<'_>, Vec<u8>)> = Vec::new();
        let end = loop {
            let Some(op) = ops.next() else { break End::History };
            match op {
                Op::Close => break End::Close,
                Op::Crash => break End::Crash,
                Op::Hold(key) => {
                    let key = self.key(*key);
                    let found = store.get(key).unwrap();
                    held.extend(found.zip(self.model.map.get(key).cloned()));
                }
                Op::LetGo => held.clear(),
                op => {
                    if let Some((value, expected)) = self.step(store, op) {
                        // What a change returns is held, now and then.
                        if expected.len() % 3 == 0 {
                            held.push((value, expected));
                        }
                    }
                }
            }
            assert_eq!(store.len(), self.model.map.len() as u64, "len after {op:?}");
        };
        for (value, expected) in &held {
            assert!(**value == **expected, "a value changed while it was held: {value:?}");
        }
        end
    }

    /// One operation. May return a value together with what it must be for as long as it is held.
    fn step<'s>(&mut self, store: &'s Store, op: &Op) -> Option<(Value<'s>, Vec<u8>)> {
        let content = |&(len, seed): &Content| bytes(len.into(), seed.into());
        match op {
            Op::Insert(key, value) => {
                let (key, value) = (self.key(*key), content(value));
                if value.len() % 3 == 0 {
                    store.set(key, &value).unwrap();
                    self.model.set(key, Some(value));
                    return None;
                }
                let before = store.insert(key, &value).unwrap();
                let expected = self.model.map.get(key).cloned();
                assert_eq!(before.as_deref(), expected.as_deref());
                self.model.set(key, Some(value));
                before.zip(expected)
            }
            Op::Remove(key) => {
                let number = *key;
                let key = self.key(number);
                if number % 3 == 0 {
                    assert_eq!(store.delete(key).unwrap(), self.model.map.contains_key(key));
                    self.model.set(key, None);
                    return None;
                }
                let before = store.remove(key).unwrap();
                let expected = self.model.map.get(key).cloned();
                assert_eq!(before.as_deref(), expected.as_deref());
                self.model.set(key, None);
                before.zip(expected)
            }
            Op::Get(key) => {
                let key = self.key(*key);
                let expected = self.model.map.get(key).cloned();
                assert_eq!(store.contains_key(key).unwrap(), expected.is_some());
                let found = store.get(key).unwrap();
                assert_eq!(found.as_deref(), expected.as_deref());
                found.zip(expected)
            }
            Op::GetMany(numbers) => {
                let keys: Vec<&[u8]> = numbers.iter().map(|&number| self.key(number)).collect();
                let found = store.get_many(&keys).unwrap();
                let found: Vec<Option<&[u8]>> = found.iter().map(Option::as_deref).collect();
                let expected: Vec<_> = keys.iter().map(|&key| self.model.map.get(key).map(Vec::as_slice)).collect();
                assert_eq!(found, expected);
                None
            }
            Op::CompareExchange(key, expected, new) => {
                let (key, new) = (self.key(*key), new.as_ref().map(content));
                let current = self.model.map.get(key).cloned();
                let expected = match expected {
                    Expected::Current => current.clone(),
                    Expected::Other => Some(b"never a value of this test".to_vec()),
                    Expected::Absent => None,
                };
                let outcome = store.compare_exchange(key, expected.as_deref(), new.as_deref()).unwrap();
                if expected == current {
                    assert_eq!(outcome, Ok(()));
                    self.model.set(key, new);
                } else {
                    assert_eq!(outcome.unwrap_err().current.as_deref(), current.as_deref());
                }
                None
            }
            Op::Update(key, new) => {
                let (key, mut new) = (self.key(*key), new.as_ref().map(content));
                let current = self.model.map.get(key).cloned();
                if let Some(new) = &mut new {
                    new.extend(current.iter().flatten().take(20));
                }
                let stored = store.update(key, |old| {
                    assert_eq!(old, current.as_deref());
                    new.clone()
                });
                let stored = stored.unwrap();
                assert_eq!(stored.as_deref(), new.as_deref());
                self.model.set(key, new.clone());
                stored.zip(new)
            }
            Op::GetOrInsert(key, value) => {
                let (key, value) = (self.key(*key), content(value));
                let mut made = false;
                let found = store.get_or_insert_with(key, || {
                    made = true;
                    &value
                });
                assert_eq!(made, !self.model.map.contains_key(key));
                let expected = self.model.map.get(key).cloned().unwrap_or(value);
                assert_eq!(&*found.unwrap(), &expected[..]);
                self.model.set(key, Some(expected));
                None
            }
            Op::Apply(changes) => {
                let mut batch = Batch::new();
                for (key, value) in changes {
                    let (key, value) = (self.key(*key), value.as_ref().map(content));
                    match &value {
                        Some(value) => batch.insert(key, value),
                        None => batch.remove(key),
                    };
                    self.model.set(key, value);
                }
                assert_eq!((batch.len(), batch.is_empty()), (changes.len(), changes.is_empty()));
                store.apply(&batch).unwrap();
                None
            }
            Op::RemoveMany(numbers) => {
                let keys: Vec<&[u8]> = numbers.iter().map(|&number| self.key(number)).collect();
                self.remove_many(store, &keys);
                None
            }
            Op::Drain(first, count) => {
                let keys: Vec<&[u8]> = (0..*count).map(|i| self.key(first + i)).collect();
                self.remove_many(store, &keys);
                None
            }
            Op::Fill(first, count, value) => {
                for i in 0..*count {
                    let (key, value) = (self.key(first + i), content(&(value.0 % 300, value.1 ^ i)));
                    let before = store.insert(key, &value).unwrap();
                    assert_eq!(before.as_deref(), self.model.map.get(key).map(Vec::as_slice));
                    self.model.set(key, Some(value));
                }
                None
            }
            Op::Clear => {
                store.clear().unwrap();
                self.model.map.clear();
                if let Some(scan) = &mut self.model.scan {
                    scan.throughout.clear();
                }
                None
            }
            Op::CompareAll => {
                self.compare_all(store);
                None
            }
            Op::ScanStep(limit) => {
                self.scan_step(store, (*limit).into());
                None
            }
            Op::Checkpoint => {
                let moved = store.stats().compaction.moved_bytes;
                store.checkpoint().unwrap();
                // Only compaction in the background can have appended something since. It appends first and counts
                // then, and `Stats` is no snapshot: what was appended may be counted a moment later.
                let deadline = Instant::now() + common::PATIENCE;
                loop {
                    let stats = store.stats();
                    if stats.checkpoint.log_bytes_since == 0 || stats.compaction.moved_bytes > moved {
                        break;
                    }
                    assert!(self.setup.background && Instant::now() < deadline, "{stats:?}");
                    std::thread::yield_now();
                }
                None
            }
            Op::Compact => {
                assert!(store.compact().unwrap().finished);
                None
            }
            Op::ShrinkToFit => {
                store.shrink_to_fit().unwrap();
                None
            }
            Op::Sync => {
                let before = store.stats().log.end_lsn;
                store.sync().unwrap();
                assert!(store.stats().log.durable_lsn >= before);
                None
            }
            Op::Reserve(more) => {
                store.reserve(u64::from(*more)).unwrap();
                None
            }
            Op::ReadOnly => {
                let copy = self.next_copy();
                common::copy_store(&self.path, &copy);
                let before = common::snapshot(&copy);
                {
                    let store = common::open(&self.setup.options().read_only(true), &copy);
                    self.compare_all(&store);
                    assert!(matches!(store.insert("k", "v"), Err(tophash::Error::ReadOnly { .. })));
                }
                assert_eq!(common::snapshot(&copy), before);
                std::fs::remove_dir_all(&copy).unwrap();
                None
            }
            Op::Hold(_) | Op::LetGo | Op::Close | Op::Crash => unreachable!("dealt with by `while_open`"),
        }
    }

    fn remove_many(&mut self, store: &Store, keys: &[&[u8]]) {
        let present: HashSet<&[u8]> = keys.iter().copied().filter(|&key| self.model.map.contains_key(key)).collect();
        assert_eq!(store.remove_many(keys).unwrap(), present.len() as u64);
        keys.iter().for_each(|key| self.model.set(key, None));
    }

    fn scan_step(&mut self, store: &Store, limit: usize) {
        let map = &self.model.map;
        let begin = || ScanModel { throughout: map.keys().cloned().collect(), ..ScanModel::default() };
        let mut scan = self.model.scan.take().unwrap_or_else(begin);
        let (entries, next) = store.scan(scan.cursor, limit).unwrap();
        assert!(entries.len() <= limit, "no two keys of this test have equal hashes");
        assert!(entries.len() == limit || next.is_none(), "{} entries, and {next:?} follows", entries.len());
        for entry in &entries {
            assert_eq!(map.get(entry.key()).map(Vec::as_slice), Some(entry.value()));
            *scan.seen.entry(entry.key().to_vec()).or_default() += 1;
        }
        match next {
            Some(next) => {
                assert!(next > scan.cursor, "a cursor that does not move: {next}");
                scan.cursor = next;
                self.model.scan = Some(scan);
            }
            None => {
                for key in &scan.throughout {
                    assert_eq!(
                        scan.seen.get(key),
                        Some(&1),
                        "{:?} was there throughout",
                        key.escape_ascii().to_string()
                    );
                }
            }
        }
    }

    fn compare_all(&self, store: &Store) {
        let map = &self.model.map;
        assert_eq!(store.len(), map.len() as u64);
        assert_eq!(store.is_empty(), map.is_empty());
        for key in &keys(self.setup.family)[..self.setup.keys.min(keys(self.setup.family).len())] {
            assert_eq!(store.get(key).unwrap().as_deref(), map.get(key).map(Vec::as_slice));
        }
        let found = common::contents(store);
        assert_eq!(found.len(), map.len());
        assert!(found.iter().all(|(key, value)| map.get(key) == Some(value)));
        let mut keys: Vec<Vec<u8>> = store.keys().map(|key| key.unwrap().to_vec()).collect();
        keys.sort();
        assert!(keys.iter().eq(found.keys()));
        let mut values: Vec<Vec<u8>> = store.values().map(|value| value.unwrap().to_vec()).collect();
        let mut expected: Vec<Vec<u8>> = map.values().cloned().collect();
        values.sort();
        expected.sort();
        assert!(values == expected);
        let (mut cursor, mut scanned) = (Some(tophash::Cursor::START), 0);
        while let Some(at) = cursor {
            let (entries, next) = store.scan(at, 17).unwrap();
            assert!(entries.iter().all(|entry| found.get(entry.key()).map(Vec::as_slice) == Some(entry.value())));
            scanned += entries.len();
            cursor = next;
        }
        assert_eq!(scanned, map.len());
    }
}

/// Adds what one open store did to what all of them did.
fn note(total: &Mutex<Stats>, stats: &Stats) {
    let mut total = total.lock().unwrap();
    let (sum, one) = (&mut total.index, &stats.index);
    sum.growths += one.growths;
    sum.splits += one.splits;
    sum.refills += one.refills;
    sum.rewrites += one.rewrites;
    sum.repairs += one.repairs;
    sum.inserts_into_empty_one += one.inserts_into_empty_one;
    sum.inserts_into_new_overflow += one.inserts_into_new_overflow;
    total.checkpoint.count += stats.checkpoint.count;
    total.checkpoint.images += stats.checkpoint.images;
    total.commit.syncs += stats.commit.syncs;
    total.waits.segment += stats.waits.segment;
    total.waits.memory += stats.waits.memory;
    total.recovery.replayed_records += stats.recovery.replayed_records;
    total.recovery.replayed_bytes += stats.recovery.replayed_bytes;
}

/// Runs histories, so many at scale 10, and returns what they did together, so that a test can tell whether it tested anything.
///
/// One table in ten is made so large that its slots' hash bits must be refilled: 512 pages. With background threads all are
/// made large enough for the memory limit to be reached.
fn run_histories(name: &str, background: bool, histories: u64) -> Stats {
    let seed = common::seed(name);
    let cases = common::share(histories) as u32;
    let large = if background { cases } else { cases.div_ceil(10) };
    let total = Mutex::new(Stats::default());
    for (cases, large) in [(cases - large, false), (large, true)] {
        run_some(name, seed, background, (cases, large), &total);
    }
    let total = total.into_inner().unwrap();
    println!(
        "{name}: {cases} histories of 200 operations; {:?} {:?} {:?} {:?}",
        total.index, total.checkpoint, total.waits, total.recovery
    );
    let index = &total.index;
    assert!(index.growths > 0 && index.splits > 0 && index.rewrites > 0 && index.repairs > 0, "{index:?}");
    assert!(index.inserts_into_empty_one > 0 && index.inserts_into_new_overflow > 0, "{index:?}");
    assert!(total.checkpoint.images > 0 && total.commit.syncs > 0);
    total
}

/// Runs histories in tables that are all made large, or none is.
fn run_some(name: &str, seed: u64, background: bool, (cases, large): (u32, bool), total: &Mutex<Stats>) {
    let config = Config {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        max_shrink_iters: 4000,
        max_shrink_time: 120_000,
        ..Config::default()
    };
    let strategy = (setups(background), Just(large), prop::collection::vec(ops(background), 200));
    let outcome = TestRunner::new(config).run(&strategy, |(setup, large, mut ops)| {
        if large {
            let pages = if background { 128 } else { 512 };
            let slots = u16::from(setup.homes + setup.stash) * 8;
            // More than 82 % of half the pages' slots.
            ops.insert(ops.len() / 2, Op::Reserve(pages / 2 * slots / 100 * 82 + 500));
        }
        let dir = common::scratch();
        let path = dir.path().join("0");
        let model = Model::default();
        History { setup: &setup, dir: dir.path(), path, copies: 0, model, total }.run(&ops);
        Ok(())
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(reason, (setup, large, ops))) => {
            panic!("{name}, TOPHASH_TEST_SEED={seed}: {reason}\nsmallest history: {setup:?}, large: {large}\n{ops:?}");
        }
        Err(TestError::Abort(reason)) => panic!("{name}, TOPHASH_TEST_SEED={seed}: {reason}"),
    }
}

#[test]
fn histories_agree_with_a_hash_map() {
    let total = run_histories("model", false, 2000);
    assert!(total.recovery.replayed_records > 0 && total.waits.segment > 0 && total.index.refills > 0);
}

#[test]
fn histories_with_background_threads_and_little_memory_agree_with_a_hash_map() {
    let total = run_histories("model, with background threads", true, 600);
    assert!(total.waits.memory > 0, "memory_bytes was never reached: {:?}", total.waits);
}
