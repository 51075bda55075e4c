//! Offline compaction: the new store holds the same, is smaller, and stands there whole or not at all.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{Random, bytes, scratch, seed, tiny_options};
use tophash::compact::{self, Shape, compact, compact_with};
use tophash::{Error, Options, Progress, Store, SyncPolicy, Table};

fn options() -> Options {
    Options::new().segment_bytes(64 << 10).sync(SyncPolicy::Manual).log_ratio(f64::INFINITY)
}

fn key(n: u64) -> Vec<u8> {
    format!("key-{n:012}").into_bytes()
}

/// A store with much dead weight: replaced, removed, with blobs and batches.
fn churned(path: &Path, seed: u64, close: bool) -> BTreeMap<Vec<u8>, Vec<u8>> {
    let mut random = Random(seed);
    let mut model = BTreeMap::new();
    let store = options().open(path).unwrap();
    for n in 0..30_000 {
        let key = key(random.below(3000));
        if random.chance(2, 5) {
            store.remove(&key).unwrap();
            model.remove(&key);
        } else {
            let len = if n % 5000 == 0 { 300_000 } else { random.below(150) as usize };
            let value = bytes(len, random.next());
            store.insert(&key, &value).unwrap();
            model.insert(key, value);
        }
    }
    if close {
        store.close().unwrap();
    } else {
        store.sync().unwrap();
        let copy = path.with_extension("copy");
        common::copy_store(path, &copy);
        drop(store);
        fs::remove_dir_all(path).unwrap();
        fs::rename(copy, path).unwrap();
    }
    model
}

fn assert_holds(path: &Path, model: &BTreeMap<Vec<u8>, Vec<u8>>) {
    let report = tophash::verify::verify(path).unwrap();
    assert!(report.is_clean(), "{report:#?}");
    let store = options().open(path).unwrap();
    assert!(common::contents(&store) == *model);
    assert_eq!(store.len(), model.len() as u64);
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_churned_store_becomes_small_and_holds_the_same() {
    let seed = seed("offline compaction");
    for close in [true, false] {
        let dir = scratch();
        let path = dir.path().join("store");
        let model = churned(&path, seed, close);
        let would = compact_with(&path, &compact::Options::new().dry_run(true), Progress::ignore).unwrap();
        assert!(would.dry_run && !would.switched && would.after.disk_bytes < would.before.disk_bytes, "{would:#?}");
        assert_eq!(names(&path), ["LOCK", "index", "journal", "log-1"], "a dry run changes nothing");
        let mut told = Vec::new();
        let report = compact_with(&path, &compact::Options::new(), |progress| {
            told.push((progress.done, progress.total));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(told.iter().all(|&(done, all)| done <= all) && told.len() > 2);
        assert!(report.switched && !report.dry_run);
        let (before, after) = (&report.before, &report.after);
        assert_eq!((before.records, after.records), (model.len() as u64, model.len() as u64));
        assert_eq!((after.empty_one_slots, after.overflow_pages, after.dead_bytes), (0, 0, 0), "{report:#?}");
        assert_eq!(after.log_bytes, before.log_bytes - before.dead_bytes);
        assert!(after.disk_bytes < before.disk_bytes / 2, "{report:#?}");
        assert_eq!(names(&path), ["LOCK", "index", "journal", "log-2"]);
        assert_holds(&path, &model);
        // What it predicted is what came of it, but for a few pages.
        assert!(
            would.after.disk_bytes.abs_diff(after.disk_bytes) < after.disk_bytes / 4 + (1 << 19),
            "{would:#?} {after:#?}"
        );
        // Once more: nothing to gain, and nothing is changed.
        let again = compact(&path).unwrap();
        assert!(again.after.disk_bytes <= again.before.disk_bytes, "{again:#?}");
        assert_holds(&path, &model);
    }
}

#[test]
fn an_abort_leaves_the_old_store() {
    let dir = scratch();
    let path = dir.path().join("store");
    let model = churned(&path, 5, true);
    for stop in [1, 2, 3] {
        let mut calls = 0;
        let result = compact_with(&path, &compact::Options::new(), |Progress { done, total, .. }| {
            calls += u32::from(done > total / 2);
            let goes_on = calls < stop && (stop < 3 || done < total);
            if goes_on { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        if let Err(error) = result {
            assert!(matches!(error, Error::Aborted { .. }), "{error}");
        }
        assert!(!path.join("compact.tmp").exists());
        assert_holds(&path, &model);
    }
}

#[test]
fn leftovers_of_a_dead_compaction_are_removed() {
    let dir = scratch();
    let path = dir.path().join("store");
    let model = churned(&path, 6, true);
    for name in ["log-2", "compact.tmp", "log-2x", "log-7"] {
        fs::create_dir(path.join(name)).unwrap();
    }
    for file in ["log-2/00000001.log", "compact.tmp/index", "compact.tmp/LOCK", "log-7/mine.txt"] {
        fs::write(path.join(file), "left over").unwrap();
    }
    assert_holds(&path, &model);
    // What is not ours stays.
    assert_eq!(names(&path), ["LOCK", "index", "journal", "log-1", "log-2x", "log-7"]);
    assert!(path.join("log-7/mine.txt").exists());
}

#[test]
fn owner_and_mode_are_kept() {
    let dir = scratch();
    let path = dir.path().join("store");
    churned(&path, 7, true);
    for file in common::files(&path) {
        fs::set_permissions(path.join(file), fs::Permissions::from_mode(0o640)).unwrap();
    }
    fs::set_permissions(path.join("log-1"), fs::Permissions::from_mode(0o750)).unwrap();
    assert!(compact(&path).unwrap().switched);
    for file in common::files(&path) {
        assert_eq!(fs::metadata(path.join(&file)).unwrap().mode() & 0o7777, 0o640, "{}", file.display());
    }
    assert_eq!(fs::metadata(path.join("log-2")).unwrap().mode() & 0o7777, 0o750);
}

#[test]
fn a_damaged_or_locked_store_is_refused() {
    let dir = scratch();
    let path = dir.path().join("store");
    let model = churned(&path, 8, true);
    let store = Store::open(&path).unwrap();
    assert!(matches!(compact(&path), Err(Error::Locked { .. })));
    drop(store);
    let segment = path.join("log-1").join(&names(&path.join("log-1"))[1]);
    let mut content = fs::read(&segment).unwrap();
    content[200] ^= 1;
    fs::write(&segment, content).unwrap();
    let before = common::snapshot(&path);
    let error = compact(&path).unwrap_err();
    assert!(error.is_corruption(), "{error}");
    assert!(common::snapshot(&path) == before, "a refused compaction changes nothing");
    drop(model);
}

#[test]
fn tiny_pages_and_an_empty_store() {
    let dir = scratch();
    let path = dir.path().join("tiny");
    let store = tiny_options().open(&path).unwrap();
    let mut model = BTreeMap::new();
    for n in 0..2000 {
        store.insert(key(n), key(n + 1)).unwrap();
        model.insert(key(n), key(n + 1));
        if n % 3 == 0 {
            store.remove(key(n / 2)).unwrap();
            model.remove(&key(n / 2));
        }
    }
    store.close().unwrap();
    let report =
        tophash::compact::compact_disk(&tiny_options(), &path, &compact::Options::new(), Progress::ignore).unwrap();
    assert!(report.switched && report.after.overflow_pages == 0, "{report:#?}");
    assert_holds(&path, &model);
    let path = dir.path().join("empty");
    Store::open(&path).unwrap().close().unwrap();
    compact(&path).unwrap();
    assert_holds(&path, &BTreeMap::new());
}

/// What a dry run promised was 300 KiB beside the result for each small store, because it took headers, journal and unused pages
/// for the same few hundred kilobytes everywhere.
#[test]
fn a_dry_run_tells_what_comes() {
    /// Pages that an estimate may be wrong by.
    const PAGES: u64 = 2;
    let dir = scratch();
    let kinds: [(&str, u64, usize, u64); 6] = [
        ("one", 1, 10, 6000),
        ("few", 40, 100, 40),
        ("small", 2000, 100, 3),
        ("medium", 20_000, 60, 2),
        ("long", 1500, 5000, 2),
        ("large", 40, 300_001, 2),
    ];
    for (name, records, len, rounds) in kinds {
        let path = dir.path().join(name);
        let s = Options::new().sync(SyncPolicy::Manual).log_ratio(f64::INFINITY).open(&path).unwrap();
        for n in 0..records * rounds {
            let len = if name == "long" { len - n as usize % 3000 } else { len };
            s.insert(key(n % records), bytes(len, n)).unwrap();
        }
        (0..records / 3).for_each(|n| _ = s.remove(key(n)).unwrap());
        s.close().unwrap();
        let would = compact_with(&path, &compact::Options::new().dry_run(true), Progress::ignore).unwrap();
        let report = compact(&path).unwrap();
        let (told, came) = (would.after.disk_bytes, report.after.disk_bytes);
        println!("{name}: {told} told, {came} came, of {}", would.before.disk_bytes);
        assert_eq!(would.after.segments, report.after.segments, "{name}");
        assert!(report.switched && told.abs_diff(came) <= PAGES * 4096, "{name}: {told} told, {came} came");
    }
}

/// A value and its deadline.
type Stored = (Vec<u8>, Option<SystemTime>);

/// Everything in a store: the main table under the empty name.
fn all(store: &Store) -> BTreeMap<String, BTreeMap<Vec<u8>, Stored>> {
    let content = |table: &Table| {
        let entries = table.iter().map(|entry| {
            let entry = entry.unwrap();
            (entry.key().to_vec(), (entry.value().to_vec(), entry.expires_at()))
        });
        let content: BTreeMap<_, _> = entries.collect();
        assert_eq!(content.len() as u64, table.len());
        content
    };
    let names = store.tables().unwrap();
    let others = names.into_iter().map(|name| {
        let table = store.existing_table(&name).unwrap();
        (name, content(&table))
    });
    std::iter::once((String::new(), content(store))).chain(others).collect()
}

/// Several tables, much of them dead, with deadlines and large values; one empty, one cleared, one dropped.
fn churned_tables(options: &Options, path: &Path) {
    let store = options.open(path).unwrap();
    let soon = SystemTime::now() + Duration::from_secs(1 << 20);
    for name in ["dropped", "empty", "cleared", "few", "many", "large"] {
        let table = store.table(name).unwrap();
        let (records, len) = match name {
            "empty" => (0, 0),
            "many" => (6_000, 40),
            "large" => (6, 300_000),
            _ => (700, 100),
        };
        for n in 0..2 * records {
            let deadline = (n % 3 == 0).then_some(soon);
            table.expiring(deadline).insert(key(n % records), bytes(len + n as usize % 7, n)).unwrap();
        }
        (0..records / 3).for_each(|n| _ = table.remove(key(n)).unwrap());
        // The names of other tables take room in the catalog, and overflow pages with tiny ones.
        for n in 0..if name == "few" { 40 } else { 0 } {
            store.table(&format!("{n}")).unwrap().insert("k", "v").unwrap();
        }
    }
    (0..5_000).for_each(|n| _ = store.insert(key(n % 50), bytes(100, n)).unwrap());
    assert!(store.drop_table("dropped").unwrap());
    store.table("cleared").unwrap().clear().unwrap();
    store.close().unwrap();
}

#[test]
fn each_table_is_copied_under_its_name() {
    let dir = scratch();
    for (name, options) in [("tiny", tiny_options()), ("usual", options())] {
        let path = dir.path().join(name);
        churned_tables(&options, &path);
        let store = options.open(&path).unwrap();
        let expected = all(&store);
        assert_eq!(expected.len(), 46, "the main one, five that were filled, and forty");
        store.close().unwrap();
        let dry = compact::Options::new().dry_run(true);
        let would = compact::compact_disk(&options, &path, &dry, Progress::ignore).unwrap();
        let mut told = Vec::new();
        let report = compact::compact_disk(&options, &path, &compact::Options::new(), |progress| {
            told.push((progress.done, progress.total));
            ControlFlow::Continue(())
        })
        .unwrap();
        assert!(report.switched && told.iter().all(|&(done, all)| done <= all) && told.is_sorted(), "{told:?}");
        let (before, after) = (&report.before, &report.after);
        let records = expected.values().map(|table| table.len() as u64).sum::<u64>();
        assert_eq!((before.tables, before.records), (45, records));
        assert_eq!((after.tables, after.records), (45, records));
        assert_eq!((after.empty_one_slots, after.overflow_pages), (0, 0), "{report:#?}");
        assert_eq!(after.live_slots, records + 45, "the catalog has a slot for each name");
        // Marks of the log, which count as dead.
        let live = |shape: &Shape| shape.log_bytes - shape.dead_bytes;
        assert!(live(after) == live(before) && after.dead_bytes < before.dead_bytes / 100, "{report:#?}");
        let found = tophash::verify::verify(&path).unwrap();
        assert!(found.is_clean(), "{found:#?}");
        let store = options.open(&path).unwrap();
        assert!(all(&store) == expected, "{name}");
        // Each is as large as its content, and none shrinks or grows now.
        for (table, content) in &expected {
            let stats = store.table(if table.is_empty() { "few" } else { table }).unwrap().stats();
            assert!(!stats.index.growing && !stats.index.shrinking && stats.index.overflow_pages == 0, "{table}");
            assert!(stats.index.slots < 3 * content.len() as u64 + 1100, "{table}: {stats:?}");
        }
        // The copy goes on as a store of its own.
        store.table("new").unwrap().insert("k", "v").unwrap();
        assert!(store.drop_table("many").unwrap());
        store.close().unwrap();
        let store = options.open(&path).unwrap();
        assert_eq!((store.stats().tables, store.table("new").unwrap().len()), (45, 1));
        if name == "usual" {
            // Tables of the usual size are not overfull, so the run is what the dry run told.
            let without_disk = |shape: &Shape| {
                let mut shape = shape.clone();
                shape.disk_bytes = 0;
                shape
            };
            assert_eq!(without_disk(&would.after), without_disk(after));
            let (told, came) = (would.after.disk_bytes, after.disk_bytes);
            assert!(told.abs_diff(came) <= 2 * 4096, "{told} told, {came} came");
        }
    }
}

#[test]
fn an_abort_leaves_all_tables() {
    let dir = scratch();
    let path = dir.path().join("store");
    churned_tables(&options(), &path);
    let store = options().open(&path).unwrap();
    let expected = all(&store);
    store.close().unwrap();
    // When the first record is to be copied, and when all are.
    for stop in [1, 2] {
        let mut calls = 0;
        let result = compact_with(&path, &compact::Options::new(), |Progress { done, total, .. }| {
            calls += u32::from(2 * done >= total);
            if calls < stop { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        });
        assert!(matches!(result, Err(Error::Aborted { .. })), "{stop}: {result:?}");
        assert!(!path.join("compact.tmp").exists());
        let store = options().open(&path).unwrap();
        assert!(all(&store) == expected, "{stop}");
        store.close().unwrap();
    }
}
