//! The stores that are damaged, with everything that was ever in them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tophash::{Batch, Options, Store, SyncPolicy, Tuning};

use super::anatomy::{Anatomy, STORE};
use super::judge::Facts;
use crate::aligned::Aligned;
use crate::disk::SimDisk;
use crate::image::{Image, Node};
use crate::script::NOW;

/// Keys and values.
pub type Contents = BTreeMap<Vec<u8>, Vec<u8>>;

/// A store at rest.
#[derive(Debug, Clone)]
pub struct Base {
    /// Its name.
    pub name: &'static str,
    /// The disk.
    pub image: Image,
    /// Where everything lies.
    pub anatomy: Anatomy,
    /// What can be in it: the states after each change behind the checkpoint's cut, the present one last.
    pub states: Vec<Contents>,
    /// Of these, how many lie before the last durable LSN and can be no outcome of a torn end.
    pub sure: usize,
    /// What is known of each key that was ever in it.
    pub facts: Facts,
}

impl Base {
    /// What is in the store.
    ///
    /// # Panics
    /// Never: there is always a present state.
    #[must_use]
    pub fn present(&self) -> &Contents {
        self.states.last().expect("a present state")
    }
}

/// Options for stores on a simulated disk.
#[must_use]
pub fn options(disk: &SimDisk) -> Options {
    let tuning = Tuning {
        level_min: 0,
        home_buckets: 2,
        stash_buckets: 1,
        overflow_log2_min: 1,
        blob_bytes_min: 400,
        background: false,
        stripes_log2_max: 2,
        reserve_bytes: 512,
        tiny_pages: 4,
        journal_step: 12,
        hash_key: Some((3, 5)),
        // Tombstones, for the damage that hits them.
        large_part_permille: 0,
        rewrite_permille: 125,
        ..Tuning::default()
    };
    let options = Options::new().tuning(tuning).segment_bytes(4096).checkpoint_bytes(1 << 30);
    options.memory_bytes(1 << 20).sync(SyncPolicy::Manual).disk(Arc::new(disk.clone()))
}

/// A store that is being written, and what was written.
struct Making {
    disk: SimDisk,
    store: Store,
    states: Vec<Contents>,
    sure: usize,
    ever: BTreeMap<Vec<u8>, BTreeSet<Vec<u8>>>,
}

fn key(i: u32) -> Vec<u8> {
    format!("key {i}").into_bytes()
}

/// The table that a key belongs to, if it is not the main one. Keys of tables begin with the name, so no key is in two of them.
#[must_use]
pub fn table_of(key: &[u8]) -> Option<&str> {
    let name = key.split(|&byte| byte == b'/').next().filter(|name| name.len() < key.len())?;
    std::str::from_utf8(name).ok()
}

fn key_in(table: &str, i: u32) -> Vec<u8> {
    format!("{table}/{i}").into_bytes()
}

/// A value that tells whose it is.
fn value(i: u32, version: u32) -> Vec<u8> {
    let mut value = format!("{i}.{version} ").into_bytes();
    value.resize(value.len() + (i as usize * 7 + version as usize * 13) % 50, b'a' + (i % 26) as u8);
    value
}

impl Making {
    fn new() -> Self {
        let disk = SimDisk::untracked(Image::empty(), 77);
        let store = options(&disk).open(STORE).expect("a new store");
        Making { disk, store, states: vec![Contents::new()], sure: 0, ever: BTreeMap::new() }
    }

    /// Makes a change, all of it or nothing.
    fn change(&mut self, change: impl FnOnce(&Store) -> tophash::Result<()>, edit: impl FnOnce(&mut Contents)) {
        change(&self.store).expect("a whole store");
        let mut state = self.states.last().cloned().unwrap_or_default();
        edit(&mut state);
        for (key, value) in &state {
            self.ever.entry(key.clone()).or_default().insert(value.clone());
        }
        self.states.push(state);
    }

    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let (k, v) = (key.clone(), value.clone());
        self.change(|store| store.insert(&k, &v).map(|_| ()), |state| _ = state.insert(key, value));
    }

    /// Puts a value into the table that the key names, which is made if need be.
    fn insert_in(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let name = table_of(&key).expect("a table").to_string();
        // Made alone, so that each state is that of one record.
        // One of the tables has types, and aligned values.
        let make = |store: &Store| match &*name {
            "a" => store.table_of::<[u8], Aligned>("a").map(drop),
            name => store.table(name).map(drop),
        };
        self.change(make, |_| {});
        let (k, v) = (key.clone(), value.clone());
        self.change(|store| store.table(&name)?.insert(&k, &v).map(drop), |state| _ = state.insert(key, value));
    }

    fn remove_in(&mut self, key: &[u8]) {
        let name = table_of(key).expect("a table");
        self.change(|store| store.table(name)?.remove(key).map(drop), |state| _ = state.remove(key));
    }

    fn clear_table(&mut self, name: &str) {
        let is_kept = |key: &[u8]| table_of(key) != Some(name);
        self.change(|store| store.table(name)?.clear(), |state| state.retain(|key, _| is_kept(key)));
    }

    fn drop_table(&mut self, name: &str) {
        let is_kept = |key: &[u8]| table_of(key) != Some(name);
        self.change(|store| store.drop_table(name).map(drop), |state| state.retain(|key, _| is_kept(key)));
    }

    /// Tables that are filled, cleared and dropped, before and behind a checkpoint.
    fn tables(&mut self) {
        for i in 0..24 {
            self.insert(key(i), value(i, 0));
            self.insert_in(key_in("a", i), value(i, 1));
            self.insert_in(key_in("cleared", i), value(i, 2));
            self.insert_in(key_in("dropped", i), value(i, 3));
        }
        self.insert_in(b"a/large".to_vec(), vec![b'7'; 430]);
        self.clear_table("cleared");
        self.drop_table("dropped");
        self.insert_in(key_in("cleared", 3), value(3, 4));
        self.remove_in(&key_in("a", 5));
        self.sync();
        self.checkpoint();
    }

    /// What becomes of them behind it.
    fn tables_in_the_tail(&mut self) {
        self.insert_in(key_in("a", 1), value(1, 5));
        self.remove_in(&key_in("a", 2));
        self.insert_in(key_in("made", 1), value(1, 6));
        self.sync();
        self.insert_in(key_in("dropped", 1), value(1, 7));
        self.clear_table("cleared");
        self.insert_in(key_in("cleared", 9), value(9, 8));
        self.change(
            |store| {
                let (a, cleared) = (store.table("a")?, store.table("cleared")?);
                let mut batch = Batch::new();
                batch.insert(key(100), value(100, 9));
                batch.table(&a).insert(key_in("a", 100), value(100, 9)).remove(key_in("a", 4));
                batch.table(&cleared).insert(key_in("cleared", 100), value(100, 9));
                store.apply(&batch)
            },
            |state| {
                let keys = [key(100), key_in("a", 100), key_in("cleared", 100)];
                state.extend(keys.into_iter().map(|key| (key, value(100, 9))));
                state.remove(&key_in("a", 4));
            },
        );
        self.drop_table("dropped");
        self.insert(key(1), value(1, 10));
    }

    /// A record whose deadline comes long after the clock, which stands still.
    fn insert_lasting(&mut self, key: Vec<u8>, value: Vec<u8>) {
        let (k, v) = (key.clone(), value.clone());
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW + 1_000_000);
        self.change(|store| store.expiring(deadline).insert(&k, &v).map(|_| ()), |state| _ = state.insert(key, value));
    }

    /// A record whose deadline has passed: the key is absent.
    fn insert_expired(&mut self, key: &[u8], value: &[u8]) {
        let deadline = SystemTime::UNIX_EPOCH + Duration::from_millis(NOW - 1000);
        self.change(|store| store.expiring(deadline).insert(key, value).map(|_| ()), |state| _ = state.remove(key));
    }

    fn remove(&mut self, key: &[u8]) {
        self.change(|store| store.remove(key).map(|_| ()), |state| _ = state.remove(key));
    }

    fn batch(&mut self, keys: std::ops::Range<u32>, version: u32, removed: &[u8]) {
        let mut batch = Batch::new();
        keys.clone().for_each(|i| _ = batch.insert(key(i), value(i, version)));
        batch.remove(removed);
        self.change(
            |store| store.apply(&batch),
            |state| {
                state.extend(keys.map(|i| (key(i), value(i, version))));
                state.remove(removed);
            },
        );
    }

    fn checkpoint(&mut self) {
        self.store.checkpoint().expect("a whole store");
        self.states.drain(..self.states.len() - 1);
        self.sure = 0;
    }

    /// Everything so far is durable, and the next change says so in the log.
    fn sync(&mut self) {
        self.store.sync().expect("a whole store");
        self.sure = self.states.len() - 1;
    }

    /// Everything that can be in a file, before the last checkpoint.
    fn fill(&mut self) {
        for i in 0..90 {
            self.insert(key(i), value(i, 0));
        }
        self.batch(90..96, 0, b"key 3");
        for i in (0..60).step_by(7) {
            self.insert(key(i), value(i, 1));
        }
        for i in (1..50).step_by(9) {
            self.remove(&key(i));
        }
        for i in (2..70).step_by(11) {
            self.insert_lasting(key(i), value(i, 9));
            self.insert_expired(&key(i + 1), &value(i + 1, 9));
        }
        self.insert_lasting(b"blob that lasts".to_vec(), vec![b'5'; 430]);
        self.insert_expired(b"blob that is over", &[b'6'; 440]);
        self.insert(b"blob one".to_vec(), vec![b'1'; 450]);
        self.insert(b"blob two".to_vec(), vec![b'2'; 500]);
        self.insert(Vec::new(), b"the empty key".to_vec());
        self.insert(b"empty".to_vec(), Vec::new());
        self.insert(vec![b'k'; 300], b"a large header".to_vec());
        self.sync();
        self.checkpoint();
        self.insert(b"blob two".to_vec(), vec![b'3'; 410]);
        for i in 100..140 {
            self.insert(key(i), value(i, 2));
        }
        let keys: Vec<_> = (20..30).map(key).collect();
        let gone = keys.clone();
        self.change(
            |store| store.remove_many(&keys).map(|_| ()),
            |state| gone.iter().for_each(|key| _ = state.remove(key)),
        );
        self.checkpoint();
    }

    /// A tail over several segments, its last part above the last durable LSN.
    fn tail(&mut self) {
        for i in (0..40).step_by(3) {
            self.insert(key(i), value(i, 3));
        }
        self.remove(&key(50));
        self.batch(200..205, 3, b"key 51");
        self.insert(b"blob three".to_vec(), vec![b'4'; 420]);
        self.sync();
        for i in 210..240 {
            self.insert(key(i), value(i, 4));
        }
        for _ in 0..3 {
            self.sync();
            self.insert(key(60), value(60, self.states.len() as u32));
            self.remove(&key(61));
        }
        self.insert_lasting(key(64), value(64, 9));
        self.insert_expired(&key(65), &value(65, 9));
        self.insert_expired(&key(64), &value(64, 10));
        self.batch(100..104, 5, b"key 62");
        self.insert(key(63), value(63, 6));
    }

    fn done(self, name: &'static str, image: Image) -> Base {
        let facts = Facts::new(&self.ever, &self.states, self.sure);
        Base { name, anatomy: Anatomy::of(&image), image, sure: self.sure, states: self.states, facts }
    }
}

/// Closed cleanly: nothing behind the checkpoint.
fn closed() -> Base {
    let mut making = Making::new();
    making.fill();
    let disk = making.disk.clone();
    let Making { store, states, ever, .. } = making;
    store.close().expect("a whole store");
    let image = disk.cached();
    let states = states[states.len() - 1..].to_vec();
    let facts = Facts::new(&ever, &states, 0);
    Base { name: "closed", anatomy: Anatomy::of(&image), image, states, sure: 0, facts }
}

/// The process was killed.
fn killed() -> Base {
    let mut making = Making::new();
    making.fill();
    making.tail();
    let image = making.disk.cached();
    making.done("killed", image)
}

/// A checkpoint was interrupted: the journal is complete and nothing was carried into the index.
fn interrupted() -> Base {
    let mut making = Making::new();
    making.fill();
    making.tail();
    let before = making.disk.cached();
    making.checkpoint();
    for i in 70..80 {
        making.insert(key(i), value(i, 7));
    }
    making.sync();
    making.insert(key(81), value(81, 8));
    let mut image = making.disk.cached();
    // The index as it was, in a file as long as it is now.
    let len = image.len("index");
    image.add("index", Node::file());
    image.write("index", 0, &before.contents("index"));
    image.set_len("index", len);
    making.done("interrupted", image)
}

/// With tables, killed.
fn tables() -> Base {
    let mut making = Making::new();
    making.tables();
    making.tables_in_the_tail();
    let image = making.disk.cached();
    making.done("tables", image)
}

/// All of them.
#[must_use]
pub fn all() -> Vec<Base> {
    vec![closed(), killed(), interrupted(), tables()]
}
