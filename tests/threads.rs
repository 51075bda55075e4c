//! Many threads on one store.
//!
//! Values say which key they belong to and which version they are, and carry a checksum: a wrong value is
//! noticed wherever it turns up. The tests ask for
//!
//! * **linearizable keys**: with one writer per key, a read returns a version between the last one that had been
//!   written when the read began and the last one that had been begun when it ended, and never goes back; while
//!   the table grows, pages overflow and are rewritten, checkpoints and compaction run, and other keys come and go;
//!   with many writers per key, the history of all calls can be explained by some order (common/linear.rs), while
//!   the table grows and shrinks and is cleared, and small segments are compacted, freed and used again;
//! * **no lost change**: counters counted up by `update` and `compare_exchange` end at the exact sum, and with
//!   all threads writing the same keys each value that was put is given back exactly once;
//! * **complete scans** beside all that: each key that is there throughout comes exactly once;
//! * **values that do not change** while they are held, whatever happens to their key.
//!
//! Each runs with tiny pages, with tiny pages and background threads and little memory, and with the defaults.
//! At the end the store is opened again; without background threads also "crashed" (its directory is copied
//! while it is open), which shows that the order of the log is the order of the index.

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::calls::{Calls, Task};
use common::linear::{self, Call, Event};
use common::{Random, bytes};
use tophash::stats::Stats;
use tophash::{Batch, Options, Store, SyncPolicy, Tuning, Value};

/// The ways of setting up a store.
fn setups() -> [(&'static str, Options); 3] {
    let tiny = common::tiny_options();
    let background = Tuning { background: true, ..common::tiny() };
    [
        ("tiny", tiny.clone().checkpoint_bytes(100 << 10).segment_bytes(32 << 10)),
        (
            "tiny, background threads, little memory",
            tiny.tuning(background)
                .segment_bytes(32 << 10)
                .checkpoint_bytes(60 << 10)
                .memory_bytes(256 << 10)
                .sync(SyncPolicy::Every(Duration::from_millis(5))),
        ),
        ("defaults", Options::new()),
    ]
}

/// How long the writers of one test and setup write.
fn time() -> Duration {
    Duration::from_millis(common::share(7_000))
}

/// The value of a key at a version.
fn make(key: u64, version: u64) -> Vec<u8> {
    let filler = (key ^ version.wrapping_mul(0x9E37_79B9)) % 180;
    let len = if version % 211 == 7 { 700 + filler } else { filler };
    let mut value = Vec::with_capacity(20 + len as usize);
    value.extend_from_slice(&key.to_le_bytes());
    value.extend_from_slice(&version.to_le_bytes());
    value.extend_from_slice(&bytes(len as usize, key ^ version));
    let crc = crc32fast::hash(&value);
    value.extend_from_slice(&crc.to_le_bytes());
    value
}

/// The version that a value is, after checking that it is a whole value of this key.
fn version(key: u64, value: &[u8]) -> u64 {
    let (content, crc) = value.split_last_chunk::<4>().expect("a value of this test");
    assert_eq!(crc32fast::hash(content), u32::from_le_bytes(*crc), "a damaged value of key {key}");
    let word = |at: usize| u64::from_le_bytes(content[at..at + 8].try_into().unwrap());
    assert_eq!(word(0), key, "the value of another key");
    word(8)
}

fn name(key: u64) -> [u8; 8] {
    key.to_be_bytes()
}

/// Keys below this are never removed once they are there.
const PERMANENT: u64 = 400;
const KEYS: u64 = 1600;
const WRITERS: u64 = 2;

/// A key with one writer. Its changes are numbered, and the number says what the change does.
#[derive(Default)]
struct Key {
    begun: AtomicU64,
    finished: AtomicU64,
}

/// Every fourth change of a key that is not permanent removes it. Before the first change it is absent.
fn removes(key: u64, change: u64) -> bool {
    change == 0 || change.is_multiple_of(4) && key >= PERMANENT
}

/// The value of a key after a change.
fn after(key: u64, change: u64) -> Option<Vec<u8>> {
    (!removes(key, change)).then(|| make(key, change))
}

impl Key {
    fn begin(&self) -> u64 {
        self.begun.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn finish(&self, change: u64) {
        self.finished.store(change, Ordering::SeqCst);
    }

    /// Checks what a read returned against what it may return. `seen` is the latest change that this reader
    /// knows of, `finished` was loaded before the read.
    fn judge(&self, key: u64, seen: &mut u64, finished: u64, found: Option<&[u8]>) {
        let begun = self.begun.load(Ordering::SeqCst);
        let first = finished.max(*seen);
        *seen = match found {
            Some(value) => {
                let change = version(key, value);
                assert!(!removes(key, change), "key {key}: change {change} was a removal");
                assert!((first..=begun).contains(&change), "key {key}: {change} is not in {first}..={begun}");
                change
            }
            None => (first..=begun)
                .find(|&change| removes(key, change))
                .unwrap_or_else(|| panic!("key {key} is absent, but none of {first}..={begun} is a removal")),
        };
    }
}

/// What each thread does at least, however slow the machine is.
const LEAST: u64 = 101;

/// Writes the keys of one writer until told to stop.
fn write(store: &Store, keys: &[Key], writer: u64, stop: &AtomicBool, random: &mut Random) -> u64 {
    let mut writes = 0;
    // The keys in use widen and narrow: the table grows, its pages fill and empty.
    let mut wide = false;
    while writes < LEAST || !stop.load(Ordering::Relaxed) {
        if random.chance(1, 400) {
            wide = !wide;
        }
        let some = |random: &mut Random| {
            let key =
                if random.chance(1, 3) { random.below(PERMANENT) } else { random.below(if wide { KEYS } else { 500 }) };
            key / WRITERS * WRITERS + writer
        };
        writes += 1;
        match random.below(20) {
            // A batch, each key once.
            0 => {
                let chosen: HashSet<u64> = (0..random.below(12)).map(|_| some(random)).collect();
                let changes: Vec<_> = chosen.iter().map(|&key| (key, keys[key as usize].begin())).collect();
                let mut batch = Batch::new();
                for &(key, change) in &changes {
                    match after(key, change) {
                        Some(value) => batch.insert(name(key), value),
                        None => batch.remove(name(key)),
                    };
                }
                store.apply(&batch).unwrap();
                changes.iter().for_each(|&(key, change)| keys[key as usize].finish(change));
            }
            // Bulk removal of keys whose turn it is.
            1 => {
                let due = |key: &u64| removes(*key, keys[*key as usize].finished.load(Ordering::SeqCst) + 1);
                let chosen = (writer..KEYS).step_by(WRITERS as usize).filter(due).take(80);
                let changes: Vec<_> = chosen.map(|key| (key, keys[key as usize].begin())).collect();
                let names: Vec<_> = changes.iter().map(|&(key, _)| name(key)).collect();
                assert_eq!(store.remove_many(&names).unwrap(), changes.len() as u64);
                changes.iter().for_each(|&(key, change)| keys[key as usize].finish(change));
            }
            way => {
                let key = some(random);
                let change = keys[key as usize].begin();
                let (old, new) = (after(key, change - 1), after(key, change));
                match (way, &new) {
                    (2..=4, new) => {
                        store.compare_exchange(name(key), old.as_deref(), new.as_deref()).unwrap().unwrap();
                    }
                    (5..=7, new) => {
                        let stored = store.update(name(key), |found| {
                            assert_eq!(found, old.as_deref(), "key {key} before change {change}");
                            new.clone()
                        });
                        assert_eq!(stored.unwrap().as_deref(), new.as_deref());
                    }
                    (_, Some(new)) => assert_eq!(store.insert(name(key), new).unwrap().as_deref(), old.as_deref()),
                    (_, None) => assert_eq!(store.remove(name(key)).unwrap().as_deref(), old.as_deref()),
                }
                keys[key as usize].finish(change);
            }
        }
    }
    writes
}

/// Tells readers to stop when dropped, also by a panic that would else wait for them for ever.
struct StopAtEnd<'a>(&'a AtomicBool);

impl Drop for StopAtEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Reads in all ways until told to stop, and holds on to some of what it got.
fn read(store: &Store, keys: &[Key], stop: &AtomicBool, random: &mut Random) -> u64 {
    let mut seen = vec![0; keys.len()];
    let mut held: Vec<(u64, u64, Value<'_>)> = Vec::new();
    let mut reads = 0;
    while reads < LEAST || !stop.load(Ordering::Relaxed) {
        reads += 1;
        let key = random.below(KEYS);
        let state = &keys[key as usize];
        match random.below(8) {
            0 => {
                let chosen: Vec<u64> = (0..40).map(|_| random.below(KEYS)).collect();
                let finished: Vec<u64> =
                    chosen.iter().map(|&key| keys[key as usize].finished.load(Ordering::SeqCst)).collect();
                let names: Vec<_> = chosen.iter().map(|&key| name(key)).collect();
                let found = store.get_many(&names).unwrap();
                for ((&key, finished), found) in chosen.iter().zip(finished).zip(&found) {
                    keys[key as usize].judge(key, &mut seen[key as usize], finished, found.as_deref());
                }
            }
            1 => {
                let finished = state.finished.load(Ordering::SeqCst);
                let there = store.contains_key(name(key)).unwrap();
                let begun = state.begun.load(Ordering::SeqCst);
                let possible = (finished..=begun).any(|change| removes(key, change) != there);
                assert!(possible, "key {key}: contains_key says {there}, the changes are {finished}..={begun}");
            }
            _ => {
                let finished = state.finished.load(Ordering::SeqCst);
                let found = store.get(name(key)).unwrap();
                state.judge(key, &mut seen[key as usize], finished, found.as_deref());
                if let Some(value) = found.filter(|_| random.chance(1, 50)) {
                    held.push((key, seen[key as usize], value));
                }
                if held.len() > 100 {
                    let (key, expected, value) = held.swap_remove(random.below(100) as usize);
                    assert_eq!(version(key, &value.clone()), expected, "a value changed while it was held");
                }
            }
        }
    }
    for (key, expected, value) in held {
        assert_eq!(version(key, &value), expected, "a value changed while it was held");
    }
    reads
}

/// Scans again and again. Each permanent key comes exactly once.
fn scan(store: &Store, keys: &[Key], stop: &AtomicBool) -> u64 {
    let mut scans = 0;
    while scans == 0 || !stop.load(Ordering::Relaxed) {
        scans += 1;
        let finished: Vec<u64> = keys.iter().map(|key| key.finished.load(Ordering::SeqCst)).collect();
        let mut count: HashMap<u64, u64> = HashMap::new();
        let mut note = |name: &[u8], value: Option<&[u8]>| {
            let key = u64::from_be_bytes(name.try_into().expect("a key of this test"));
            if let Some(value) = value {
                keys[key as usize].judge(key, &mut 0, finished[key as usize], Some(value));
            }
            *count.entry(key).or_default() += 1;
        };
        match scans % 3 {
            0 => store.iter().map(Result::unwrap).for_each(|entry| note(entry.key(), Some(entry.value()))),
            1 => store.keys().map(Result::unwrap).for_each(|key| note(&key, None)),
            _ => {
                let mut cursor = Some(tophash::Cursor::START);
                while let Some(at) = cursor {
                    let (entries, next) = store.scan(at, 50).unwrap();
                    entries.iter().for_each(|entry| note(entry.key(), Some(entry.value())));
                    cursor = next;
                }
            }
        }
        for key in 0..PERMANENT {
            assert_eq!(count.get(&key), Some(&1), "permanent key {key} in a scan");
        }
    }
    scans
}

/// Compares with what opening the store again finds, after a crash (if the store is quiet) and after closing.
fn compare_reopened(setup: &str, options: &Options, dir: &std::path::Path, store: Store) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let contents = common::contents(&store);
    assert_eq!(store.len(), contents.len() as u64);
    if setup == "tiny" {
        let copy = dir.join("copy");
        common::copy_store(&dir.join("store"), &copy);
        let recovered = common::open(options, &copy);
        assert!(common::contents(&recovered) == contents, "the log's order is another than the index's");
        assert_eq!(recovered.len(), contents.len() as u64);
    }
    store.close().unwrap();
    let store = common::open(options, &dir.join("store"));
    assert!(!store.stats().recovery.was_unclean);
    assert!(common::contents(&store) == contents);
    contents
}

#[test]
fn keys_with_one_writer_are_linearizable() {
    let seed = common::seed("linearizable keys");
    for (setup, options) in setups() {
        let dir = common::scratch();
        let store = common::open(&options, &dir.path().join("store"));
        let keys: Vec<Key> = (0..KEYS).map(|_| Key::default()).collect();
        for key in 0..PERMANENT {
            let change = keys[key as usize].begin();
            store.insert(name(key), make(key, change)).unwrap();
            keys[key as usize].finish(change);
        }
        let (started, until) = (Instant::now(), Instant::now() + time());
        let (stop, enough) = (AtomicBool::new(false), AtomicBool::new(false));
        let (store_ref, keys_ref, stop_ref, enough_ref) = (&store, &keys, &stop, &enough);
        // Growth is certain with so many keys, and so are freed segments with so many records, after some time. Repairs
        // depend on which threads meet; the histories of model.rs make thousands of them.
        let lacks =
            |stats: &Stats| setup != "defaults" && (stats.index.growths == 0 || stats.compaction.freed_segments == 0);
        let mut checkpoints = 0;
        let (writes, reads, scans) = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    scope.spawn(move || write(store_ref, keys_ref, writer, enough_ref, &mut Random(seed + writer)))
                })
                .collect();
            let readers: Vec<_> = (0..2)
                .map(|reader| {
                    scope.spawn(move || read(store_ref, keys_ref, stop_ref, &mut Random(seed ^ (77 + reader))))
                })
                .collect();
            let scanner = scope.spawn(move || scan(store_ref, keys_ref, stop_ref));
            let (end, enough) = (StopAtEnd(&stop), StopAtEnd(&enough));
            while Instant::now() < until || lacks(&store.stats()) {
                assert!(started.elapsed() < common::PATIENCE, "{setup}: {:?}", store.stats());
                thread::sleep(Duration::from_millis(3));
                store.checkpoint().unwrap();
                checkpoints += 1;
                if checkpoints % 20 == 0 {
                    store.compact().unwrap();
                }
            }
            drop(enough);
            let writes: u64 = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
            // Once more beside the readers, when there is certainly something to gain.
            store.compact().unwrap();
            drop(end);
            let reads: u64 = readers.into_iter().map(|reader| reader.join().unwrap()).sum();
            (writes, reads, scanner.join().unwrap())
        });
        let stats = store.stats();
        println!(
            "threads, {setup}: {writes} writes, {reads} reads, {scans} scans, {checkpoints} checkpoints, {} growths, {} rewrites, \
             {} repairs, {} reads under a lock, {:?}",
            stats.index.growths, stats.index.rewrites, stats.index.repairs, stats.waits.reader_locks, stats.waits
        );
        let contents = compare_reopened(setup, &options, dir.path(), store);
        for key in 0..KEYS {
            let finished = keys[key as usize].finished.load(Ordering::SeqCst);
            assert_eq!(contents.get(&name(key)[..]), after(key, finished).as_ref(), "key {key}");
        }
    }
}

/// What one thread of a history does: mostly changes and reads of a few keys, that many threads want.
fn call_at_random(t: &Task<'_>, random: &mut Random, calls: usize) {
    const NAMES: u64 = 150;
    for _ in 0..calls {
        let wanted = if random.chance(1, 2) { 6 } else { NAMES };
        let key = random.below(wanted);
        match random.below(1000) {
            0..140 => t.insert(key),
            140..200 => t.set(key),
            200..260 => t.remove(key),
            260..300 => t.delete(key),
            300..400 => t.update(key),
            400..450 => t.exchange(key, random.chance(1, 2)),
            450..500 => t.insert_if_absent(key),
            500..530 => {
                let other = (key + 1 + random.below(NAMES - 1)) % NAMES;
                t.apply(&[key], &[other]);
            }
            530..550 => t.remove_many([key]),
            550..555 => t.remove_many(20..NAMES),
            555..560 => (20..NAMES).for_each(|key| t.insert(key)),
            560..565 => t.iterate(0..NAMES),
            565..568 => t.clear(0..NAMES),
            568..572 => t.checkpoint(),
            572..574 => t.compact(),
            574..600 => t.contains(key),
            600..620 => t.get_many([key, (key + 7) % NAMES]),
            620..660 => t.hold(key),
            660..670 => t.let_go(),
            _ => _ = t.get(key),
        }
    }
}

#[test]
fn keys_with_many_writers_are_linearizable() {
    const THREADS: u64 = 4;
    let seed = common::seed("linearizable histories");
    let names: Vec<Vec<u8>> = (0..150).map(|key| name(key).to_vec()).collect();
    for (setup, options) in setups() {
        let (started, until) = (Instant::now(), Instant::now() + time());
        let (mut histories, mut judged, mut growths, mut shrinks, mut freed) = (0, 0, 0, 0, 0);
        while Instant::now() < until || freed == 0 || setup != "defaults" && growths == 0 {
            assert!(
                started.elapsed() < common::PATIENCE,
                "{setup}: {histories} histories, {growths} growths, {freed} freed"
            );
            let dir = common::scratch();
            let store = common::open(&options.clone().segment_bytes(8 << 10), &dir.path().join("store"));
            let calls = Calls::new(&store, &names, 100, &|_| true);
            thread::scope(|scope| {
                for thread in 0..THREADS {
                    let (calls, mut random) = (&calls, Random(seed ^ (histories << 8 | thread)));
                    scope.spawn(move || {
                        let task = Task::new(calls, thread as usize);
                        call_at_random(&task, &mut random, 600);
                        task.let_go();
                    });
                }
            });
            calls.judge();
            histories += 1;
            judged += calls.count();
            let stats = store.stats();
            (growths, shrinks) = (growths + stats.index.growths, shrinks + stats.index.shrinks);
            freed += stats.compaction.freed_segments;
            compare_reopened(setup, &options, dir.path(), store);
        }
        println!(
            "histories, {setup}: {histories} of them, {judged} calls judged, {growths} growths, {shrinks} shrinks, {freed} segments \
             freed"
        );
    }
}

#[test]
fn the_judge_of_histories_tells_good_ones_from_bad_ones() {
    use Call::{Present, Read, Removed, Replace, Write};
    // `(begin, end, call)` of one key.
    let verdict = |calls: &[(u64, u64, Call)]| {
        let event = |(thread, &(begin, end, call))| Event { thread, key: 1, begin, end, call };
        linear::check(&calls.iter().enumerate().map(event).collect::<Vec<_>>()).is_ok()
    };
    let put = |old, new| Replace { old, new: Some(new) };
    // One after the other.
    assert!(verdict(&[(1, 2, put(None, 7)), (3, 4, Read(Some(7))), (5, 6, Removed(true)), (7, 8, Present(false))]));
    assert!(!verdict(&[(1, 2, put(None, 7)), (3, 4, Read(None))]));
    assert!(!verdict(&[(1, 2, put(Some(7), 8))]));
    assert!(!verdict(&[(1, 2, Write(Some(7))), (3, 4, Removed(false))]));
    // A read beside a write sees either, but what one reader has seen, no later reader has not.
    assert!(verdict(&[(1, 6, Write(Some(7))), (2, 3, Read(None)), (4, 5, Read(Some(7)))]));
    assert!(!verdict(&[(1, 6, Write(Some(7))), (2, 3, Read(Some(7))), (4, 5, Read(None))]));
    // A key that is replaced is never absent.
    assert!(!verdict(&[(1, 2, Write(Some(7))), (3, 6, Write(Some(8))), (4, 5, Read(None))]));
    // Two that replace the same value.
    assert!(!verdict(&[(1, 4, put(None, 7)), (2, 3, put(None, 8))]));
    assert!(verdict(&[(1, 4, put(Some(8), 7)), (2, 3, put(None, 8)), (5, 6, Read(Some(7)))]));
    assert!(!verdict(&[(1, 4, put(Some(8), 7)), (2, 3, put(None, 8)), (5, 6, Read(Some(8)))]));
    // A value that comes back.
    assert!(!verdict(&[(1, 2, Write(Some(7))), (3, 4, Removed(true)), (5, 8, Write(Some(8))), (6, 7, Read(Some(7)))]));
}

#[test]
fn counters_end_at_the_exact_sum() {
    const THREADS: u64 = 4;
    for (setup, options) in setups() {
        // With little memory, checkpoints run beside each other: more chances for a change to get lost.
        let rounds = common::share(if setup.contains("memory") { 60_000 } else { 25_000 });
        let dir = common::scratch();
        let store = common::open(&options, &dir.path().join("store"));
        let number = |value: Option<&[u8]>| value.map_or(0, |value| u64::from_le_bytes(value.try_into().unwrap()));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let store = &store;
                scope.spawn(move || {
                    let mut random = Random(thread);
                    for round in 0..rounds {
                        // Few keys, so that the threads meet; and one more that only this thread has.
                        let key = name(random.below(7));
                        if round % 2 == 0 {
                            let mut tries = 0;
                            let next = store.update(key, |old| {
                                tries += 1;
                                Some((number(old) + 1).to_le_bytes().to_vec())
                            });
                            assert!(next.unwrap().is_some() && tries > 0);
                        } else {
                            let mut old = store.get(key).unwrap().map(|value| value.to_vec());
                            loop {
                                let new = (number(old.as_deref()) + 1).to_le_bytes();
                                match store.compare_exchange(key, old.as_deref(), Some(&new)).unwrap() {
                                    Ok(()) => break,
                                    Err(found) => old = found.current.map(|value| value.to_vec()),
                                }
                            }
                        }
                        store.insert(name(1000 + thread * rounds + round), "filler").unwrap();
                    }
                });
            }
        });
        let sum: u64 = (0..7).map(|key| number(store.get(name(key)).unwrap().as_deref())).sum();
        assert_eq!(sum, THREADS * rounds, "{setup}");
        assert_eq!(store.len(), 7 + THREADS * rounds);
        compare_reopened(setup, &options, dir.path(), store);
    }
}

#[test]
fn each_value_put_comes_back_exactly_once() {
    const THREADS: u64 = 4;
    let rounds = common::share(30_000);
    for (setup, options) in setups() {
        let dir = common::scratch();
        let store = common::open(&options, &dir.path().join("store"));
        let (mut put, mut back) = (Vec::new(), Vec::new());
        thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let store = &store;
                    scope.spawn(move || {
                        let mut random = Random(thread ^ 0xabc);
                        let (mut put, mut back) = (Vec::new(), Vec::new());
                        let mut held = Vec::new();
                        for round in 0..rounds {
                            let key = random.below(40);
                            let old = if random.chance(2, 3) {
                                let id = thread << 40 | round;
                                put.push((key, id));
                                store.insert(name(key), make(key, id)).unwrap()
                            } else {
                                store.remove(name(key)).unwrap()
                            };
                            if let Some(old) = old {
                                back.push((key, version(key, &old)));
                                held.push((key, version(key, &old), old));
                            }
                            if held.len() > 200 {
                                held.drain(..150).for_each(|(key, id, value)| assert_eq!(version(key, &value), id));
                            }
                        }
                        (put, back)
                    })
                })
                .collect();
            for thread in threads {
                let (some_put, some_back) = thread.join().unwrap();
                put.extend(some_put);
                back.extend(some_back);
            }
        });
        for entry in store.iter() {
            let entry = entry.unwrap();
            let key = u64::from_be_bytes(entry.key().try_into().unwrap());
            back.push((key, version(key, entry.value())));
        }
        put.sort_unstable();
        back.sort_unstable();
        assert!(put == back, "{setup}: {} values were put, {} came back", put.len(), back.len());
        compare_reopened(setup, &options, dir.path(), store);
    }
}

#[test]
fn one_of_many_makers_wins() {
    for (setup, options) in setups() {
        let dir = common::scratch();
        let store = common::open(&options, &dir.path().join("store"));
        let keys = common::share(6_000);
        let made = AtomicU64::new(0);
        let winners: Vec<Vec<u64>> = thread::scope(|scope| {
            let threads: Vec<_> = (0..4u64)
                .map(|thread| {
                    let (store, made) = (&store, &made);
                    scope.spawn(move || {
                        let winner = |key| {
                            let make = || {
                                made.fetch_add(1, Ordering::Relaxed);
                                make(key, thread)
                            };
                            version(key, &store.get_or_insert_with(name(key), make).unwrap())
                        };
                        (0..keys).map(winner).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(winners.iter().all(|other| *other == winners[0]), "{setup}: two threads got different values");
        assert!(made.load(Ordering::Relaxed) >= keys);
        assert_eq!(store.len(), keys);
        compare_reopened(setup, &options, dir.path(), store);
    }
}

#[test]
fn batches_over_the_same_keys_end_as_one_of_them() {
    const THREADS: u64 = 4;
    const GROUP: u64 = 24;
    // No divisor in common with the group's size: each thread's batches have all its keys, in its own order.
    const STEPS: [u64; THREADS as usize] = [5, 7, 11, 13];
    let rounds = common::share(1_500);
    for (setup, options) in setups() {
        let dir = common::scratch();
        let store = common::open(&options, &dir.path().join("store"));
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let stamp = thread << 40 | round;
                        let mut batch = Batch::new();
                        // A stray key in each, so that the table grows.
                        for i in 0..GROUP {
                            let key = i * STEPS[thread as usize] % GROUP;
                            batch.insert(name(key), make(key, stamp));
                        }
                        batch.insert(name(1000 + stamp), "stray");
                        if round > 3 {
                            batch.remove(name(1000 + stamp - 3));
                        }
                        store.apply(&batch).unwrap();
                    }
                });
            }
        });
        let versions: HashSet<u64> =
            (0..GROUP).map(|key| version(key, &store.get(name(key)).unwrap().expect("a key of the batches"))).collect();
        assert_eq!(versions.len(), 1, "{setup}: batches are interleaved: {versions:x?}");
        compare_reopened(setup, &options, dir.path(), store);
    }
}

#[test]
fn clearing_beside_writers_leaves_a_whole_store() {
    for (setup, options) in setups() {
        let dir = common::scratch();
        let store = common::open(&options, &dir.path().join("store"));
        let until = Instant::now() + time() / 2;
        let mut clears = 0;
        thread::scope(|scope| {
            for thread in 0..3u64 {
                let store = &store;
                scope.spawn(move || {
                    let mut random = Random(thread);
                    let mut round = 0;
                    while Instant::now() < until {
                        let key = random.below(1500);
                        round += 1;
                        match random.below(6) {
                            0 => _ = store.remove(name(key)).unwrap(),
                            1 => {
                                if let Some(value) = store.get(name(key)).unwrap() {
                                    version(key, &value);
                                }
                            }
                            2 => {
                                let mut batch = Batch::new();
                                for key in key..key + 10 {
                                    batch.insert(name(key), make(key, round));
                                }
                                store.apply(&batch).unwrap();
                            }
                            _ => {
                                if let Some(value) = store.insert(name(key), make(key, round)).unwrap() {
                                    version(key, &value);
                                }
                            }
                        }
                    }
                });
            }
            while clears == 0 || Instant::now() < until {
                thread::sleep(Duration::from_millis(10));
                store.clear().unwrap();
                clears += 1;
            }
        });
        for (name, value) in compare_reopened(setup, &options, dir.path(), store) {
            version(u64::from_be_bytes(name.try_into().unwrap()), &value);
        }
    }
}

#[test]
fn writers_that_sync_share_their_syncs() {
    const THREADS: u64 = 8;
    let rounds = 60 * common::scale() as u64;
    let dir = common::disk_scratch();
    let options = Options::new().sync(SyncPolicy::Always);
    let store = common::open(&options, &dir.path().join("store"));
    let syncs_before = store.stats().commit.syncs;
    let mut writes = 0;
    // Again, if no two threads met: on a disk that syncs at once, or beside others that want the processors.
    common::eventually("two writes that share a sync", || {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let store = &store;
                scope.spawn(move || {
                    for round in 0..rounds {
                        let before = store.stats().log.end_lsn;
                        let key = thread * rounds + round;
                        store.insert(name(key), make(key, 1)).unwrap();
                        // The record lies at or after `before`; had it not been synced, this would lie below.
                        assert!(store.stats().log.durable_lsn > before, "returned before it was durable");
                    }
                });
            }
        });
        writes += THREADS * rounds;
        let syncs = store.stats().commit.syncs - syncs_before;
        println!("{writes} writes, {syncs} syncs");
        syncs < writes
    });
    assert_eq!(store.len(), THREADS * rounds);
}
