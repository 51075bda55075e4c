//! A store with several tables does what a map of `HashMap`s does.
//!
//! Random histories make, fill, clear and drop tables, change keys of one or of several at once, and compare what the store
//! returns with the maps. Everything is tiny, so that tables grow and shrink, segments are compacted, and checkpoints come all the
//! time. In between the store is closed and opened, copied as a kill leaves it, opened read-only, compacted offline, verified, and
//! repaired, with its index and without.
//!
//! Half of the histories run with the shortages of [`Tuning::shortages`], and half with background threads; the latter do not
//! copy an open store. TOPHASH_TEST_SEED repeats a run.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use common::aligned::Aligned;
use common::{Random, bytes};
use tophash::{Batch, Error, Options, Store, Table, Tuning};

type Content = BTreeMap<Vec<u8>, Vec<u8>>;
/// The main table under the empty name.
type Tables = BTreeMap<String, Content>;

const NAMES: u64 = 5;
const STEPS: usize = 150;

fn name(number: u64) -> String {
    if number == 0 { String::new() } else { format!("table {number}") }
}

fn key(number: u64) -> Vec<u8> {
    format!("key {number}").into_bytes()
}

fn contents(table: &Table) -> Content {
    let entries = table.iter().map(|entry| entry.map(|entry| (entry.key().to_vec(), entry.value().to_vec())));
    let all: Vec<_> = entries.collect::<tophash::Result<_>>().unwrap();
    let content: Content = all.iter().cloned().collect();
    assert_eq!(content.len(), all.len(), "a key came twice");
    content
}

fn all(store: &Store) -> Tables {
    let mut tables = Tables::from([(String::new(), contents(store))]);
    for name in store.tables().unwrap() {
        let table = store.existing_table(&name).unwrap();
        tables.insert(name, contents(&table));
    }
    tables
}

/// Tells what differs, and not all that is there.
fn compare(found: &Tables, expected: &Tables, what: &str) {
    assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>(), "{what}");
    for (name, content) in expected {
        let text = |key: &Vec<u8>| String::from_utf8_lossy(key).into_owned();
        let missing: Vec<_> = content.keys().filter(|&key| !found[name].contains_key(key)).map(text).collect();
        let back: Vec<_> = found[name].keys().filter(|&key| !content.contains_key(key)).map(text).collect();
        let other = content.iter().filter(|&(key, value)| found[name].get(key).is_some_and(|found| found != value));
        let other: Vec<_> = other.map(|(key, _)| text(key)).collect();
        let same = missing.is_empty() && back.is_empty() && other.is_empty();
        assert!(same, "{what}, {name:?}: missing {missing:?}, back {back:?}, others {other:?}");
    }
}

struct History<'h> {
    rng: &'h mut Random,
    options: Options,
    background: bool,
    dir: &'h Path,
    path: PathBuf,
    copies: u32,
    model: Tables,
    /// A handle for each table that is there. It must stay good as long as the table does.
    handles: BTreeMap<String, Table>,
    /// Handles to tables that were dropped.
    dropped: Vec<Table>,
    expires: bool,
}

impl History<'_> {
    fn table(&mut self, store: &Store, name: &str) -> Table {
        if name.is_empty() {
            return (**store).clone();
        }
        self.model.entry(name.to_string()).or_default();
        let table = self.handles.entry(name.to_string());
        // Values of some tables are aligned.
        let make = || match name.ends_with(['1', '3']) {
            true => store.table_of::<[u8], Aligned>(name).unwrap().table().clone(),
            false => store.table(name).unwrap(),
        };
        table.or_insert_with(make).clone()
    }

    fn some_name(&mut self) -> String {
        name(self.rng.below(NAMES))
    }

    fn some_value(&mut self) -> Vec<u8> {
        let len = match self.rng.below(20) {
            0 => 700 + self.rng.below(2_000),
            n => n * 5,
        };
        bytes(len as usize, self.rng.next())
    }

    fn insert(&mut self, store: &Store) {
        let (name, key, value) = (self.some_name(), key(self.rng.below(120)), self.some_value());
        let table = self.table(store, &name);
        let before = self.model.get_mut(&name).unwrap().insert(key.clone(), value.clone());
        assert_eq!(table.insert(&key, &value).unwrap().map(|value| value.to_vec()), before);
    }

    fn fill(&mut self, store: &Store) {
        let (name, first, count) = (self.some_name(), self.rng.below(300), 20 + self.rng.below(150));
        let table = self.table(store, &name);
        for n in first..first + count {
            let value = bytes(12, n);
            self.model.get_mut(&name).unwrap().insert(key(n), value.clone());
            table.set(key(n), value).unwrap();
        }
    }

    fn remove(&mut self, store: &Store) {
        let name = self.some_name();
        let table = self.table(store, &name);
        let content = self.model.get_mut(&name).unwrap();
        if self.rng.chance(1, 2) {
            let key = key(self.rng.below(120));
            assert_eq!(table.remove(&key).unwrap().map(|value| value.to_vec()), content.remove(&key));
            return;
        }
        let first = self.rng.below(300);
        let keys: Vec<_> = (first..first + self.rng.below(200)).map(key).collect();
        let there = keys.iter().filter(|&key| content.remove(key).is_some()).count();
        assert_eq!(table.remove_many(&keys).unwrap(), there as u64);
    }

    /// A deadline that has passed, or one that is far away.
    fn expire(&mut self, store: &Store) {
        let (name, key, value) = (self.some_name(), key(self.rng.below(120)), self.some_value());
        let table = self.table(store, &name);
        let content = self.model.get_mut(&name).unwrap();
        self.expires = true;
        if self.rng.chance(1, 2) {
            table.expiring(SystemTime::UNIX_EPOCH).set(&key, &value).unwrap();
            content.remove(&key);
        } else {
            table.expiring(Duration::from_secs(1 << 30)).set(&key, &value).unwrap();
            content.insert(key, value);
        }
    }

    fn apply(&mut self, store: &Store) {
        let mut batch = Batch::new();
        for _ in 0..self.rng.below(60) {
            let (name, key, value) = (self.some_name(), key(self.rng.below(200)), self.some_value());
            let table = self.table(store, &name);
            let content = self.model.get_mut(&name).unwrap();
            if self.rng.chance(1, 4) {
                batch.table(&table).remove(&key);
                content.remove(&key);
            } else {
                batch.table(&table).insert(&key, &value);
                content.insert(key, value);
            }
        }
        store.apply(&batch).unwrap();
    }

    fn clear(&mut self, store: &Store) {
        let name = self.some_name();
        self.table(store, &name).clear().unwrap();
        self.model.get_mut(&name).unwrap().clear();
    }

    fn drop_one(&mut self, store: &Store) {
        let name = name(1 + self.rng.below(NAMES - 1));
        assert_eq!(store.drop_table(&name).unwrap(), self.model.remove(&name).is_some());
        self.dropped.extend(self.handles.remove(&name));
    }

    fn compare(&mut self, store: &Store) {
        compare(&all(store), &self.model, "open");
        for (name, content) in &self.model {
            let table = if name.is_empty() { (**store).clone() } else { store.existing_table(name).unwrap() };
            let len = table.len();
            assert!(len == content.len() as u64 || self.expires && len > content.len() as u64, "{name}: {len}");
            for n in 0..120 {
                assert_eq!(table.get(key(n)).unwrap().as_deref(), content.get(&key(n)).map(Vec::as_slice));
            }
        }
        for table in self.dropped.drain(..) {
            assert!(matches!(table.get("k"), Err(Error::TableDropped { .. })));
            assert!(matches!(table.insert("k", "v"), Err(Error::TableDropped { .. })));
        }
    }

    fn next_copy(&mut self) -> PathBuf {
        self.copies += 1;
        self.dir.join(format!("copy-{}", self.copies))
    }

    /// What a kill leaves is verified, opened read-only, repaired in both ways, and compacted.
    fn examine(&mut self, store: &Store) {
        let copy = self.next_copy();
        common::copy_store(&self.path, &copy);
        let check = |path: &Path, what: &str| {
            let report = tophash::verify::verify(path).unwrap();
            assert!(report.is_clean(), "{what}: {report:#?}");
            compare(&all(&common::open(&self.options.clone().read_only(true), path)), &self.model, what);
        };
        check(&copy, "killed");
        for without_index in [false, true] {
            if without_index {
                std::fs::remove_file(copy.join("index")).unwrap();
            }
            let mended = self.dir.join("mended");
            tophash::repair::repair(&copy, &mended).unwrap();
            check(&mended, if without_index { "repaired without an index" } else { "repaired" });
            std::fs::remove_dir_all(&mended).unwrap();
        }
        std::fs::remove_dir_all(&copy).unwrap();
        drop(store.stats());
    }

    fn close(&mut self, store: Store) {
        self.handles.clear();
        self.dropped.clear();
        store.close().unwrap();
        if self.rng.chance(1, 3) {
            tophash::compact::compact(&self.path).unwrap();
        }
        let report = tophash::verify::verify(&self.path).unwrap();
        assert!(report.is_clean(), "{report:#?}");
    }

    fn run(&mut self) {
        let mut store = common::open(&self.options, &self.path);
        for _ in 0..STEPS {
            match self.rng.below(100) {
                0..30 => self.insert(&store),
                30..40 => self.remove(&store),
                40..50 => self.apply(&store),
                50..58 => self.fill(&store),
                58..62 => self.expire(&store),
                62..67 => self.clear(&store),
                67..75 => self.drop_one(&store),
                75..79 => store.checkpoint().unwrap(),
                79..83 => _ = store.compact().unwrap(),
                83..87 => self.compare(&store),
                87..90 => {
                    let name = self.some_name();
                    self.table(&store, &name).shrink_to_fit().unwrap();
                }
                90..92 if !self.background => self.examine(&store),
                92..95 => {
                    self.close(store);
                    store = common::open(&self.options, &self.path);
                }
                95..98 if !self.background => {
                    self.handles.clear();
                    self.dropped.clear();
                    let copy = self.next_copy();
                    common::copy_store(&self.path, &copy);
                    drop(std::mem::replace(&mut store, common::open(&self.options, &copy)));
                    std::fs::remove_dir_all(std::mem::replace(&mut self.path, copy)).unwrap();
                }
                _ => store.sync().unwrap(),
            }
        }
        self.compare(&store);
        let there: BTreeSet<_> = self.model.keys().filter(|name| !name.is_empty()).cloned().collect();
        assert_eq!(store.tables().unwrap().into_iter().collect::<BTreeSet<_>>(), there);
        self.close(store);
        compare(&all(&common::open(&self.options, &self.path)), &self.model, "at the end");
    }
}

#[test]
fn tables_agree_with_maps() {
    let seed = common::seed("tables");
    let histories = common::share(1_000);
    for n in 0..histories {
        let mut rng = Random(seed.wrapping_add(n));
        let (background, short) = (rng.chance(1, 3), rng.chance(1, 2));
        let shortages = if short { 4 + rng.below(30) as u32 } else { 0 };
        let tuning = Tuning { background, shortages, ..common::tiny() };
        let options = common::tiny_options().tuning(tuning).checkpoint_bytes(2_000 + rng.below(30_000));
        let options = if short || background { options.memory_bytes(256 << 10) } else { options };
        let dir = common::scratch();
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let (model, handles) = (Tables::from([(String::new(), Content::new())]), BTreeMap::new());
            let path = dir.path().join("0");
            let (rng, dir) = (&mut rng, dir.path());
            History {
                rng,
                options,
                background,
                dir,
                path,
                copies: 0,
                model,
                handles,
                dropped: Vec::new(),
                expires: false,
            }
            .run();
        }));
        if let Err(panic) = outcome {
            println!("history {n} of TOPHASH_TEST_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
    println!("tables: {histories} histories of {STEPS} steps");
}
