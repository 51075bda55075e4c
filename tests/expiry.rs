//! Records with a deadline: absent from then on, for every call, after every restart, and their space comes back.
//!
//! The clock is a part of the test's disk, so nothing here depends on how fast the machine is.

mod common;

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use common::passed_on::passed_on;
use common::{eventually, open};
use tophash::sys::{Disk, DiskFile, OpenMode, RealDisk};
use tophash::{Batch, Expiry, Options, Store, SyncPolicy};

/// The real disk with a clock that stands still until it is set.
#[derive(Debug, Clone)]
struct Clocked(Arc<AtomicU64>);

impl Clocked {
    /// Some moment.
    fn new() -> Self {
        Clocked(Arc::new(AtomicU64::new(1_000_000_000_000)))
    }

    fn forward(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as u64, Ordering::SeqCst);
    }

    fn back(&self, by: Duration) {
        self.0.fetch_sub(by.as_millis() as u64, Ordering::SeqCst);
    }

    fn time(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn options(&self) -> Options {
        common::tiny_options().disk(Arc::new(self.clone()))
    }
}

impl Disk for Clocked {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        RealDisk.open(path, mode)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        RealDisk.remove_dir(path)
    }
    passed_on!(RealDisk: create_dir read_dir kind rename unlink sync_dir lock map_anonymous random);
}

const MINUTE: Duration = Duration::from_secs(60);

/// A way to write a key, and its name.
type Write<'w> = (&'w str, &'w dyn Fn(&str));

fn is_gone(store: &Store, key: &str) {
    assert!(store.get(key).unwrap().is_none());
    assert!(!store.contains_key(key).unwrap());
    assert!(store.get_many(&[key]).unwrap()[0].is_none());
    assert_eq!(store.expires_at(key).unwrap(), None);
    assert!(store.iter().all(|entry| entry.unwrap().key() != key.as_bytes()));
    assert!(store.keys().all(|found| found.unwrap() != key));
    assert!(!store.expire(key, MINUTE).unwrap() && !store.persist(key).unwrap());
    assert_eq!(store.compare_exchange(key, Some(b"value"), None).unwrap().unwrap_err().current, None);
    assert!(store.remove(key).unwrap().is_none() && !store.delete(key).unwrap());
    assert_eq!(store.remove_many(&[key]).unwrap(), 0);
}

#[test]
fn an_expired_key_is_absent_for_every_call() {
    let dir = common::scratch();
    let clock = Clocked::new();
    let store = open(&clock.options(), &dir.path().join("s"));
    let expiring = store.expiring(MINUTE);
    assert_eq!((store.expiry(), expiring.expiry()), (Expiry::Never, Expiry::After(MINUTE)));
    let large = vec![7; 3000];
    let writes: [Write<'_>; 8] = [
        ("insert", &|key| drop(expiring.insert(key, "value").unwrap())),
        ("set", &|key| expiring.set(key, "value").unwrap()),
        ("large", &|key| expiring.set(key, &large).unwrap()),
        ("exchange", &|key| expiring.compare_exchange(key, None, Some(b"value")).unwrap().unwrap()),
        ("update", &|key| drop(expiring.update(key, |_| Some(b"value".to_vec())).unwrap())),
        ("get_or_insert", &|key| drop(expiring.get_or_insert_with(key, || "value").unwrap())),
        ("batch", &|key| store.apply(Batch::new().insert_expiring(key, "value", clock.time() + MINUTE)).unwrap()),
        ("expire", &|key| {
            store.set(key, "value").unwrap();
            assert!(store.expire(key, MINUTE).unwrap());
        }),
    ];
    for round in 0..3 {
        for (name, write) in &writes {
            write(name);
            assert!(store.get(name).unwrap().is_some(), "{name}");
            assert_eq!(store.expires_at(name).unwrap(), Some(clock.time() + MINUTE), "{name}");
        }
        let entry = store.iter().next().unwrap().unwrap();
        assert_eq!(entry.expires_at(), Some(clock.time() + MINUTE));
        clock.forward(MINUTE - Duration::from_millis(1));
        writes.iter().for_each(|(name, _)| assert!(store.get(name).unwrap().is_some(), "{name}"));
        clock.forward(Duration::from_millis(1));
        for (name, write) in &writes {
            // A later write finds nothing, and the key lives again.
            if round == 1 {
                write(name);
                assert!(store.contains_key(name).unwrap(), "{name}");
                clock.forward(MINUTE);
            }
            is_gone(&store, name);
        }
        assert_eq!(store.iter().count(), 0);
        let (entries, _) = store.scan(tophash::Cursor::START, 1000).unwrap();
        assert!(entries.is_empty());
    }
}

#[test]
fn what_a_write_does_to_a_deadline() {
    let dir = common::scratch();
    let clock = Clocked::new();
    let store = open(&clock.options(), &dir.path().join("s"));
    let at = |key: &str| store.expires_at(key).unwrap();
    let end = clock.time() + MINUTE;
    for (key, value) in [("small", vec![1; 10]), ("large", vec![2; 5000])] {
        store.expiring(end).set(key, &value).unwrap();
        assert_eq!(at(key), Some(end));
        // An update through a handle without expiry keeps it, a set takes it away.
        store.update(key, |old| old.map(<[u8]>::to_vec)).unwrap();
        assert_eq!(at(key), Some(end));
        store.expiring(end + MINUTE).update(key, |old| old.map(<[u8]>::to_vec)).unwrap();
        assert_eq!(at(key), Some(end + MINUTE));
        assert!(store.persist(key).unwrap());
        assert_eq!(at(key), None);
        assert!(store.expire(key, end).unwrap());
        assert_eq!((at(key), store.get(key).unwrap().unwrap().to_vec()), (Some(end), value.clone()));
        store.set(key, &value).unwrap();
        assert_eq!(at(key), None);
        store.expiring(end).set(key, &value).unwrap();
        store.compare_exchange(key, Some(&value), Some(&value)).unwrap().unwrap();
        assert_eq!(at(key), None);
        // What had no deadline is not expired by that of an earlier record.
        clock.forward(2 * MINUTE);
        assert_eq!(store.get(key).unwrap().unwrap(), value);
        clock.back(2 * MINUTE);
    }
    // No blob was left behind by changes of deadlines.
    store.checkpoint().unwrap();
    assert_eq!(store.stats().log.blobs, 1);
    // A deadline that is no time, and one before there were any.
    store.expiring(Duration::MAX).set("for ever", "value").unwrap();
    assert_eq!(at("for ever"), None);
    store.expiring(SystemTime::UNIX_EPOCH - MINUTE).set("small", "value").unwrap();
    assert!(store.get("small").unwrap().is_none());
    // A handle is a handle: it can be cloned, and closes the store for all.
    let other = store.expiring(MINUTE).clone();
    assert_eq!(other.expiry(), Expiry::After(MINUTE));
    other.close().unwrap();
    assert!(store.get("for ever").is_err());
}

/// Restarts, crashes, an offline compaction and a repair keep deadlines.
#[test]
fn deadlines_survive() {
    let dir = common::scratch();
    let clock = Clocked::new();
    let path = dir.path().join("s");
    let end = clock.time() + MINUTE;
    let fill = |store: &Store| {
        for n in 0..300u32 {
            let (key, value) = (n.to_le_bytes(), vec![n as u8; if n % 50 == 0 { 3000 } else { 20 }]);
            match n % 3 {
                0 => store.set(key, value).unwrap(),
                1 => store.expiring(end).set(key, value).unwrap(),
                _ => store.apply(Batch::new().insert_expiring(key, value, end + MINUTE)).unwrap(),
            }
        }
    };
    let check = |store: &Store, passed: u32| {
        for n in 0..300u32 {
            let expected = match n % 3 {
                0 => Some(None),
                class if class <= passed => None,
                1 => Some(Some(end)),
                _ => Some(Some(end + MINUTE)),
            };
            let key = n.to_le_bytes();
            assert_eq!(store.contains_key(key).unwrap(), expected.is_some(), "{n}");
            assert_eq!(store.expires_at(key).unwrap(), expected.flatten(), "{n}");
        }
        assert_eq!(store.iter().count(), 300 - 100 * passed as usize);
    };
    let store = open(&clock.options(), &path);
    fill(&store);
    // Killed, with all of it in the tail.
    let copy = dir.path().join("killed");
    common::copy_store(&path, &copy);
    check(&open(&clock.options(), &copy), 0);
    store.close().unwrap();
    let store = open(&clock.options(), &path);
    check(&store, 0);
    let before = store.stats().log;
    assert!(before.expiring_bytes > 200 * 40 && before.expired_bytes == 0, "{before:?}");
    store.close().unwrap();
    let store = open(&clock.options().read_only(true), &path);
    check(&store, 0);
    clock.forward(MINUTE);
    check(&store, 1);
    drop(store);
    let verified = |path: &Path| {
        let report = tophash::verify::verify(path).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    };
    verified(&path);

    // Into new stores, without those that are expired.
    let repaired = dir.path().join("repaired");
    let report =
        tophash::repair::repair_disk(&clock, &path, &repaired, &clock.options(), tophash::Progress::ignore).unwrap();
    assert!(report.is_complete(), "{report:#?}");
    check(&open(&clock.options(), &repaired), 1);
    let compact = |options: &tophash::compact::Options| {
        tophash::compact::compact_disk(&clock.options(), &path, options, tophash::Progress::ignore).unwrap()
    };
    let (would, done) =
        (compact(&tophash::compact::Options::new().dry_run(true)), compact(&tophash::compact::Options::new()));
    assert!(done.switched && would.before.records == 300, "{would:#?}");
    assert_eq!((would.after.records, would.after.live_slots), (200, 200), "{would:#?}");
    assert_eq!(done.after.records, 200, "{done:#?}");
    verified(&path);
    check(&open(&clock.options(), &path), 1);
    clock.forward(MINUTE);
    check(&open(&clock.options(), &path), 2);
}

/// The space of expired records comes back with nobody calling, and so do their slots.
#[test]
fn space_comes_back_by_itself() {
    let dir = common::scratch();
    let clock = Clocked::new();
    let path = dir.path().join("s");
    let options = clock.options().tuning(tophash::Tuning { background: true, ..common::tiny() });
    let options = options.segment_bytes(8 << 10);
    let store = open(&options, &path);
    let expiring = store.expiring(MINUTE);
    for n in 0..5000u32 {
        match n % 10 {
            0 => store.set(n.to_le_bytes(), [7; 50]).unwrap(),
            _ => expiring.set(n.to_le_bytes(), [7; 50]).unwrap(),
        }
    }
    eventually("all live", || store.stats().log.expiring_bytes >= 4500 * 72);
    let before = store.stats().log;
    assert_eq!(before.expired_bytes, 0);
    clock.forward(MINUTE + Duration::from_secs(200));
    // The job looks again 100 ms after the last write, and when a deadline comes.
    eventually("what is expired is gone", || {
        let log = store.stats().log;
        log.bytes < before.bytes / 4 && log.expired_bytes < 16 << 10
    });
    eventually("its slots are free", || store.len() < 900);
    assert!(store.stats().compaction.expired_records > 4000, "{:?}", store.stats().compaction);
    // The job can remove some more meanwhile.
    let before = store.len();
    let mut entries = store.iter();
    let (lasting, expired) = (entries.by_ref().count(), entries.expired());
    drop(entries);
    let after = store.len();
    assert_eq!(lasting, 500);
    assert!((after - 500..=before - 500).contains(&expired), "{expired} of {before} and then {after}");
    store.close().unwrap();
    let report = tophash::verify::verify(&path).unwrap();
    assert!(report.is_clean(), "{report:#?}");
}

/// What expires all at once is far over the log's bound, and comes back in few steps: each is a checkpoint of nearly the whole
/// index. There was one for each segment, and ten million records took 19 seconds to go.
#[test]
fn what_expires_at_once_is_freed_in_few_steps() {
    let dir = common::scratch();
    let clock = Clocked::new();
    let options = clock.options().segment_bytes(8 << 10).checkpoint_bytes(1 << 30);
    let store = open(&options, &dir.path().join("s"));
    let expiring = store.expiring(MINUTE);
    (0..10_000u32).for_each(|n| expiring.set(n.to_le_bytes(), [7; 50]).unwrap());
    let before = store.stats();
    assert!(before.log.segments > 80, "{before:#?}");
    clock.forward(2 * MINUTE);
    // The look comes with what is written, and is followed to its end.
    let mut written = 0;
    while store.len() > 1000 {
        store.set([9; 50], [9; 50]).unwrap();
        written += 1;
        assert!(written < 1000, "{:#?}", store.stats());
    }
    let after = store.stats();
    let freed = after.compaction.freed_segments - before.compaction.freed_segments;
    let checkpoints = after.checkpoint.count - before.checkpoint.count;
    assert!(freed > 75 && checkpoints < 15, "{freed} segments freed by {checkpoints} checkpoints: {after:#?}");
}

/// Without background threads a call does it. Of a store that was opened, the checkpoint has kept when its segments expire.
#[test]
fn compact_removes_what_is_expired_after_an_open_too() {
    for reopen in [false, true] {
        let dir = common::scratch();
        let clock = Clocked::new();
        let path = dir.path().join("s");
        let mut store = open(&clock.options(), &path);
        for n in 0..2000u32 {
            store
                .expiring(clock.time() + MINUTE + Duration::from_millis(100 * u64::from(n)))
                .set(n.to_le_bytes(), [7; 50])
                .unwrap();
        }
        if reopen {
            store.close().unwrap();
            store = open(&clock.options(), &path);
        }
        let log = store.stats().log;
        assert_eq!((log.expired_bytes, log.expiring_bytes), (0, 2000 * 72), "{log:?}");
        clock.forward(MINUTE + Duration::from_secs(100));
        let half = store.stats().log.expired_bytes;
        assert!((800 * 72..1200 * 72).contains(&half), "{half}");
        clock.forward(Duration::from_secs(130));
        assert_eq!(store.stats().log.expired_bytes, 2000 * 72);
        store.compact().unwrap();
        assert_eq!(store.len(), 0);
        let log = store.stats().log;
        assert_eq!((log.expired_bytes, log.expiring_bytes), (0, 0), "{log:?}");
        store.close().unwrap();
        let report = tophash::verify::verify(&path).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// After an open, the deadlines of a segment counted as spread evenly between its first and its last. A few sessions that were to
/// last ten years hid for months that all the others had expired: half of the log was dead, nobody gave it back, and `compact`
/// found nothing to do.
#[test]
fn late_deadlines_hide_nothing_after_an_open() {
    for (reopen, background) in [(false, false), (true, false), (true, true)] {
        let dir = common::scratch();
        let clock = Clocked::new();
        let path = dir.path().join("s");
        let options = clock.options().segment_bytes(16 << 10);
        let options = options.tuning(tophash::Tuning { background, ..common::tiny() });
        let mut store = open(&options, &path);
        let set = |store: &Store, n: u32| {
            let writer = match n % 100 {
                0 => store.expiring(MINUTE * 60 * 24 * 3650),
                1..50 => store.clone(),
                _ => store.expiring(30 * MINUTE),
            };
            writer.set(n.to_le_bytes(), [7; 50]).unwrap();
        };
        (0..6000).for_each(|n| set(&store, n));
        if reopen {
            store.close().unwrap();
            store = open(&options, &path);
            // The last segment goes on, and some records of the others are superseded.
            (5000..5020).chain(6000..6020).for_each(|n| set(&store, n));
        }
        let before = store.stats().log;
        clock.forward(MINUTE * 60 * 24 * 180);
        if background {
            // The job looks again 100 ms after that.
            store.set("one more", "").unwrap();
            eventually("what is expired is gone", || store.stats().log.bytes < before.bytes * 3 / 4);
        } else {
            store.compact().unwrap();
            let log = store.stats().log;
            assert!(
                log.bytes < before.bytes * 6 / 10 && log.expired_bytes == 0,
                "reopen {reopen}: {before:?}, {log:?}"
            );
            let late = store.iter().filter(|entry| entry.as_ref().unwrap().expires_at().is_some()).count();
            assert_eq!(log.expiring_bytes, late as u64 * 72, "{log:?}");
        }
        assert_eq!(store.iter().count(), 3000 + if reopen { 20 } else { 0 } + usize::from(background));
        store.close().unwrap();
        let report = tophash::verify::verify(&path).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }
}

/// A value without a deadline, superseded by one with a deadline: when that is removed from the index, the older one must not
/// come back, neither in a crash nor by a repair from the log alone.
#[test]
fn an_expired_record_brings_no_older_one_back() {
    let dir = common::scratch();
    let clock = Clocked::new();
    let path = dir.path().join("s");
    let store = open(&clock.options().log_ratio(f64::INFINITY), &path);
    let keep = |n: u32| (n + 100_000).to_le_bytes();
    for n in 0..500u32 {
        store.set(n.to_le_bytes(), "old").unwrap();
        store.set(keep(n), [1; 60]).unwrap();
    }
    for n in 0..500u32 {
        store.expiring(MINUTE).set(n.to_le_bytes(), [2; 200]).unwrap();
    }
    // Spans of deadlines are about a second long.
    clock.forward(MINUTE + Duration::from_secs(2));
    // The later segments have most to gain, so they are emptied while the older ones are there.
    let mut copies = 0;
    let mut check = |store: &Store| {
        copies += 1;
        let copy = dir.path().join(format!("copy {copies}"));
        common::copy_store(&path, &copy);
        let recovered = open(&clock.options(), &copy);
        (0..500u32).for_each(|n| assert!(!recovered.contains_key(n.to_le_bytes()).unwrap(), "{n}"));
        assert_eq!(recovered.iter().count(), 500);
        recovered.close().unwrap();
        let report = tophash::verify::verify(&copy).unwrap();
        assert!(report.is_clean(), "{report:#?}");
        let repaired = dir.path().join(format!("repaired {copies}"));
        std::fs::remove_file(copy.join("index")).unwrap();
        let progress = tophash::Progress::ignore;
        tophash::repair::repair_disk(&clock, &copy, &repaired, &clock.options(), progress).unwrap();
        let repaired = open(&clock.options(), &repaired);
        (0..500u32).for_each(|n| assert!(!repaired.contains_key(n.to_le_bytes()).unwrap(), "{n}"));
        assert_eq!(repaired.iter().count(), 500);
        (0..500u32).for_each(|n| assert!(store.get(n.to_le_bytes()).unwrap().is_none()));
    };
    check(&store);
    store.close().unwrap();
    let store = open(&clock.options().log_ratio(1.1), &path);
    // Each write compacts a little.
    for n in 0..3000u32 {
        store.set(keep(n % 500), [3; 60]).unwrap();
        if n % 500 == 0 {
            check(&store);
        }
    }
    assert!(
        store.stats().compaction.expired_records > 0,
        "{:#?}",
        (store.stats().log, store.stats().compaction, store.len())
    );
    store.compact().unwrap();
    check(&store);
    assert_eq!(store.len(), 500);
}

/// The clock is put forward and back: what was removed meanwhile stays away, the rest lives on, and nothing is damage.
#[test]
fn the_clock_may_jump() {
    let dir = common::scratch();
    let clock = Clocked::new();
    let path = dir.path().join("s");
    let store = open(&clock.options(), &path);
    for n in 0..1000u32 {
        store.expiring(MINUTE).set(n.to_le_bytes(), [7; 50]).unwrap();
    }
    clock.forward(2 * MINUTE);
    assert_eq!(store.iter().count(), 0);
    clock.back(2 * MINUTE);
    assert_eq!(store.iter().count(), 1000, "nothing had been removed");
    clock.forward(2 * MINUTE);
    store.compact().unwrap();
    clock.back(2 * MINUTE);
    assert_eq!(store.iter().count(), 0, "what was removed stays so");
    // New ones live.
    for n in 0..100u32 {
        store.expiring(MINUTE).set(n.to_le_bytes(), [8; 50]).unwrap();
    }
    assert_eq!(store.iter().count(), 100);
    // Verified by a clock that is behind.
    store.checkpoint().unwrap();
    let copy = dir.path().join("killed");
    common::copy_store(&path, &copy);
    for path in [&copy, &path] {
        if path == &copy {
            open(&clock.options(), path).close().unwrap();
        }
    }
    store.close().unwrap();
    for path in [&copy, &path] {
        let report = tophash::verify::verify(path).unwrap();
        assert!(report.is_clean(), "{report:#?}");
        assert_eq!(open(&clock.options(), path).iter().count(), 100);
    }
}

/// Random histories against a map with deadlines, with a clock that goes on, and now and then back.
#[test]
fn histories_with_a_clock() {
    let mut random = common::Random(common::seed("histories_with_a_clock"));
    for history in 0..common::share(200).max(20) {
        let dir = common::scratch();
        let clock = Clocked::new();
        let mut path = dir.path().join("s");
        let segment = 4096 << random.below(2);
        let options = clock.options().segment_bytes(segment).checkpoint_bytes(2000 + random.below(30_000));
        let options = if random.chance(1, 4) { options.sync(SyncPolicy::Always) } else { options };
        let mut store = open(&options, &path);
        // What was written last, and until when.
        let mut model: HashMap<u64, (Vec<u8>, Option<SystemTime>)> = HashMap::new();
        for step in 0..600 {
            let key = random.below(120);
            let bytes = key.to_le_bytes();
            let now = clock.time();
            let seen = model.get(&key).filter(|(_, until)| until.is_none_or(|until| until > now)).cloned();
            let found = store.get(bytes).unwrap();
            assert_eq!(found.as_deref(), seen.as_ref().map(|(value, _)| &value[..]), "history {history}, step {step}");
            assert_eq!(store.expires_at(bytes).unwrap(), seen.as_ref().and_then(|(_, until)| *until));
            drop(found);
            let until = random.chance(2, 3).then(|| now + Duration::from_secs(random.below(100)));
            let length = if random.chance(1, 15) { 700 } else { random.below(200) as usize };
            let value = common::bytes(length, random.next());
            let writer = store.expiring(until);
            match random.below(12) {
                0..4 => {
                    let before = writer.insert(bytes, &value).unwrap();
                    assert_eq!(before.as_deref(), seen.as_ref().map(|(value, _)| &value[..]));
                    model.insert(key, (value, until));
                }
                4 => {
                    assert_eq!(store.delete(bytes).unwrap(), seen.is_some());
                    // An expired record is not removed by a call, and may be there again if the clock goes back.
                    if seen.is_some() {
                        model.remove(&key);
                    }
                }
                5 => {
                    let mut batch = Batch::new();
                    for n in 0..random.below(8) {
                        let key = (key + n) % 120;
                        match until {
                            Some(until) => batch.insert_expiring(key.to_le_bytes(), &value, until),
                            None => batch.insert(key.to_le_bytes(), &value),
                        };
                        model.insert(key, (value.clone(), until));
                    }
                    store.apply(&batch).unwrap();
                }
                6 => {
                    assert_eq!(store.expire(bytes, until).unwrap(), seen.is_some());
                    if let Some((value, _)) = seen {
                        model.insert(key, (value, until));
                    }
                }
                7 => {
                    let made = store.update(bytes, |_| Some(value.clone())).unwrap();
                    assert_eq!(made.unwrap(), value);
                    model.insert(key, (value, seen.and_then(|(_, until)| until)));
                }
                8 => {
                    let outcome = writer.compare_exchange(bytes, None, Some(&value)).unwrap();
                    assert_eq!(outcome.is_ok(), seen.is_none());
                    if seen.is_none() {
                        model.insert(key, (value, until));
                    }
                }
                9 => clock.forward(Duration::from_secs(random.below(20))),
                10 if random.chance(1, 6) => {
                    store.compact().unwrap();
                    // Now they may be gone for good.
                    let now = clock.time();
                    model.retain(|_, (_, until)| until.is_none_or(|until| until > now));
                    store.iter().for_each(|entry| assert!(entry.unwrap().expires_at().is_none_or(|until| until > now)));
                }
                11 if random.chance(1, 4) => {
                    let next = dir.path().join(step.to_string());
                    if random.chance(1, 2) {
                        store.close().unwrap();
                        let report = tophash::verify::verify(&path).unwrap();
                        assert!(report.is_clean(), "{report:#?}");
                    } else {
                        common::copy_store(&path, &next);
                        drop(store);
                        path = next;
                    }
                    store = open(&options, &path);
                }
                _ => {}
            }
            // Compaction by the way removes some for good, so the clock does not go back here.
        }
        let now = clock.time();
        let expected = model.values().filter(|(_, until)| until.is_none_or(|until| until > now)).count();
        assert_eq!(store.iter().count(), expected, "history {history}");
    }
}

/// A removal of an expired key wrote nothing, because the key was absent. When the clock was put back, what had been removed was
/// there again.
#[test]
fn what_was_removed_stays_removed_when_the_clock_is_put_back() {
    let mut back = Vec::new();
    type Remove<'r> = (&'r str, &'r dyn Fn(&Store, &str));
    let ways: [Remove<'_>; 6] = [
        ("remove", &|store, key| assert!(store.remove(key).unwrap().is_none())),
        ("delete", &|store, key| assert!(!store.delete(key).unwrap())),
        ("update", &|store, key| assert!(store.update(key, |_| None).unwrap().is_none())),
        ("exchange", &|store, key| store.compare_exchange(key, None, None).unwrap().unwrap()),
        ("remove_many", &|store, key| assert_eq!(store.remove_many(&[key]).unwrap(), 0)),
        ("batch", &|store, key| store.apply(Batch::new().remove(key)).unwrap()),
    ];
    for (name, remove) in ways {
        let dir = common::scratch();
        let clock = Clocked::new();
        let store = open(&clock.options(), &dir.path().join("s"));
        store.expiring(MINUTE).set(name, "session").unwrap();
        clock.forward(2 * MINUTE);
        remove(&store, name);
        clock.back(2 * MINUTE);
        if store.get(name).unwrap().is_some() {
            back.push(name);
        }
    }
    assert_eq!(back, Vec::<&str>::new());
}

/// A rotten deadline had passed, so a removal found nothing to remove, and each read of the key stayed an error.
#[test]
fn a_key_with_a_rotten_deadline_can_be_deleted() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let clock = Clocked::new();
    let store = open(&clock.options(), &path);
    store.expiring(MINUTE * 1_000_000).set("key", common::bytes(100, 1)).unwrap();
    store.set("plain", common::bytes(100, 2)).unwrap();
    let file = path.join("log-1").join("00000001.log");
    let content = std::fs::read(&file).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&file).unwrap();
    let flip =
        |at: usize, bit: u8| std::os::unix::fs::FileExt::write_all_at(&file, &[content[at] ^ bit], at as u64).unwrap();
    // The deadline stands 8 bytes before the key: its bit 45 is set.
    let at = content.windows(3).position(|window| window == b"key").unwrap() - 8;
    let millis = u64::from_le_bytes(content[at..at + 8].try_into().unwrap());
    let bit = 63 - millis.leading_zeros();
    flip(at + bit as usize / 8, 1 << (bit % 8));
    flip(content.windows(100).position(|window| window == common::bytes(100, 2)).unwrap(), 1);
    assert!(store.get("key").is_err() && store.get("plain").is_err());
    assert!(!store.delete("key").unwrap() && store.delete("plain").unwrap());
    assert!(store.get("plain").unwrap().is_none() && store.get("key").unwrap().is_none());
}

/// `expire` copies the record, and without verified reads nobody had looked at its checksum: the copy of a rotten value had a right
/// one.
#[test]
fn a_rotten_record_gets_no_new_checksum() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let store = open(&common::tiny_options().verify_reads(false), &path);
    store.set("key", common::bytes(100, 1)).unwrap();
    common::rot(&path, &common::bytes(100, 1));
    let expired = store.expire("key", std::time::Duration::from_secs(1000));
    assert!(expired.unwrap_err().is_corruption());
    store.close().unwrap();
    let store = open(&common::tiny_options(), &path);
    let found = store.get("key");
    assert!(found.is_err() || found.unwrap().unwrap() == common::bytes(100, 1), "a rotten value with a right checksum");
}

/// Compaction had freed the blobs of expired records, and ended before the segment that has the records was empty. A repair took
/// the keys for lost.
#[test]
fn an_expired_large_value_is_no_loss() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let clock = Clocked::new();
    let options = clock.options().log_ratio(f64::INFINITY);
    let store = open(&options, &path);
    // The first segment: large values that expire, and behind them a record that keeps the segment.
    for n in 0..10u32 {
        store.expiring(MINUTE).set(n.to_le_bytes(), common::bytes(700, n.into())).unwrap();
    }
    for n in 100..400u32 {
        store.set(n.to_le_bytes(), common::bytes(60, n.into())).unwrap();
    }
    clock.forward(2 * MINUTE);
    // Compaction is ended by its caller after its first step.
    let mut calls = 0;
    store
        .compact_with(|_| {
            calls += 1;
            if calls > 1 { std::ops::ControlFlow::Break(()) } else { std::ops::ControlFlow::Continue(()) }
        })
        .unwrap();
    store.close().unwrap();
    assert!(tophash::verify::verify(&path).unwrap().is_clean());
    let to = dir.path().join("r");
    let report = tophash::repair::repair_disk(&clock, &path, &to, &options, tophash::Progress::ignore).unwrap();
    assert!(report.is_complete(), "{report:#?}");
}

/// Files of large values.
fn large_files(path: &Path) -> usize {
    let files = std::fs::read_dir(path.join("log-1")).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|file| file.extension().is_some_and(|extension| extension == "blob")).count()
}

/// The log counted the bytes of the records that link large values, and not what their end would free. A hundred expired values of
/// 300 KiB stayed for ever, whether anybody wrote or not, and also after an open.
#[test]
fn expired_large_values_go_by_themselves() {
    let dir = common::scratch();
    let clock = Clocked::new();
    let tuning = tophash::Tuning { background: true, ..common::tiny() };
    let options = clock.options().tuning(tuning).segment_bytes(64 << 10);
    for (name, reopen) in [("open", false), ("opened again", true)] {
        let path = dir.path().join(name);
        let mut store = open(&options, &path);
        for n in 0..100u32 {
            let end = if n % 10 == 0 { MINUTE * 10 } else { MINUTE };
            store.expiring(end).set(n.to_le_bytes(), [7; 5000]).unwrap();
        }
        store.set("for ever", [7; 5000]).unwrap();
        if reopen {
            store.close().unwrap();
            store = open(&options, &path);
        }
        // One is replaced by a lasting one, one is prolonged, one lasts from now on.
        store.set(1u32.to_le_bytes(), [8; 5000]).unwrap();
        assert!(store.expire(2u32.to_le_bytes(), MINUTE * 20).unwrap() && store.persist(3u32.to_le_bytes()).unwrap());
        clock.forward(MINUTE * 2);
        // Nothing has told the job that the clock of this test has moved.
        store.set("a", "1").unwrap();
        eventually("what is expired is gone", || large_files(&path) == 10 + 4);
        assert_eq!(store.len(), 10 + 4 + 1);
        clock.forward(MINUTE * 10);
        store.set("a", "2").unwrap();
        eventually("more of it is", || large_files(&path) == 4);
        for n in 1..4u32 {
            assert_eq!(store.get(n.to_le_bytes()).unwrap().unwrap().len(), 5000, "{n}");
        }
        store.close().unwrap();
        assert!(tophash::verify::verify(&path).unwrap().is_clean());
    }
}

/// The same with writers and without background threads: a cache of large values holds little more than those that live.
#[test]
fn a_cache_of_large_values_holds_little_more_than_those_that_live() {
    let dir = common::scratch();
    let path = dir.path().join("s");
    let clock = Clocked::new();
    let store = open(&clock.options().segment_bytes(256 << 10).checkpoint_bytes(1 << 30), &path);
    let mut most = 0;
    for n in 0..6000u32 {
        store.expiring(MINUTE).set(n.to_le_bytes(), vec![7; 40_000]).unwrap();
        clock.forward(Duration::from_secs(1));
        if n % 100 == 0 {
            most = most.max(store.stats().log.blobs);
        }
    }
    // Sixty, a mebibyte, and those of a look's distance.
    assert!(most < 60 + 27 + 700, "{most}");
    store.compact().unwrap();
    assert!(store.stats().log.blobs <= 60, "{:?}", store.stats().log);
    store.checkpoint().unwrap();
    assert!(large_files(&path) <= 60);
}
