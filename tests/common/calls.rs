//! Calls to a store, written down: what each task asked for, when, and what it was told.
//!
//! Keys go by number; each value says whose it is and is a new one, so a wrong or a stale one is noticed. At the
//! end [`Calls::judge`] reads everything once more and asks `linear` whether the history can be explained.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use tophash::{Batch, Error, Store, Value};

use super::linear::{self, Call, Event};

/// Stands for a key that did not come.
const ABSENT: u64 = u64::MAX;

/// What the tasks of one history share. Locks and counters are the standard library's, and none is held across a
/// call: where schedules are explored, using them is no scheduling point.
pub struct Calls<'w> {
    store: &'w Store,
    keys: &'w [Vec<u8>],
    /// True for bytes that are certainly in the log on the disk.
    is_durable: &'w (dyn Fn(&[u8]) -> bool + Sync),
    value_bytes: usize,
    clock: AtomicU64,
    ids: AtomicU64,
    events: Mutex<Vec<Event>>,
}

impl<'w> Calls<'w> {
    /// `keys` are the names of the keys, which go by number; values have `value_bytes` bytes, at least 16.
    pub fn new(
        store: &'w Store,
        keys: &'w [Vec<u8>],
        value_bytes: usize,
        is_durable: &'w (dyn Fn(&[u8]) -> bool + Sync),
    ) -> Self {
        let (clock, ids) = (AtomicU64::new(0), AtomicU64::new(0));
        Calls { store, keys, is_durable, value_bytes, clock, ids, events: Mutex::default() }
    }

    /// Calls made so far.
    pub fn count(&self) -> usize {
        lock(&self.events).len()
    }

    fn stamp(&self) -> u64 {
        self.clock.fetch_add(1, Ordering::Relaxed)
    }

    /// The bytes of a value: which key's it is, which value it is, and filler.
    fn bytes(&self, key: u64, id: u64) -> Vec<u8> {
        let mut bytes = super::bytes(self.value_bytes.max(16), key << 32 | id);
        bytes[..8].copy_from_slice(&key.to_le_bytes());
        bytes[8..16].copy_from_slice(&id.to_le_bytes());
        bytes
    }

    /// Which value of a key these bytes are.
    fn id(&self, key: u64, bytes: &[u8]) -> u64 {
        let id = bytes.get(8..16).map_or(0, |id| u64::from_le_bytes(id.try_into().unwrap()));
        assert!(bytes == self.bytes(key, id), "no value of key {key}: {}", bytes.escape_ascii());
        id
    }

    fn key_of(&self, name: &[u8]) -> u64 {
        self.keys.iter().position(|key| key == name).unwrap_or_else(|| panic!("no key of this test: {name:?}")) as u64
    }

    /// Reads everything once more, and judges all calls. Returns the contents.
    pub fn judge(&self) -> BTreeMap<Vec<u8>, Vec<u8>> {
        let contents = super::contents(self.store);
        assert!(super::counts(self.store, contents.len() as u64), "len() is wrong");
        let reader = Task::new(self, usize::MAX);
        for key in self.touched() {
            reader.get(key);
            let (begin, end) = (self.stamp(), self.stamp());
            let found = contents.get(&self.keys[key as usize]).map(|bytes| self.id(key, bytes));
            reader.note(key, begin, end, Call::Read(found));
        }
        for name in contents.keys() {
            assert!(self.touched().contains(&self.key_of(name)), "a key that nobody has put");
        }
        if let Err(why) = linear::check(&lock(&self.events)) {
            panic!("not linearizable: {why}");
        }
        contents
    }

    /// Keys that any call was about.
    fn touched(&self) -> Vec<u64> {
        let mut keys: Vec<u64> = lock(&self.events).iter().map(|event| event.key).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// What one task does goes through here and is written down. Keys go by number.
pub struct Task<'w> {
    calls: &'w Calls<'w>,
    pub store: &'w Store,
    number: usize,
    held: Mutex<Vec<(u64, u64, Value<'w>)>>,
}

impl<'w> Task<'w> {
    pub fn new(calls: &'w Calls<'w>, number: usize) -> Self {
        Task { calls, store: calls.store, number, held: Mutex::default() }
    }

    fn note(&self, key: u64, begin: u64, end: u64, call: Call) {
        lock(&self.calls.events).push(Event { thread: self.number, key, begin, end, call });
    }

    /// Makes a call about one key and writes it down.
    fn call<T>(&self, key: u64, call: impl FnOnce(&'w Store, &'w [u8]) -> (Call, T)) -> T {
        let begin = self.calls.stamp();
        let (call, value) = call(self.store, &self.calls.keys[key as usize]);
        self.note(key, begin, self.calls.stamp(), call);
        value
    }

    fn fresh(&self, key: u64) -> (u64, Vec<u8>) {
        let id = self.calls.ids.fetch_add(1, Ordering::Relaxed) + 1;
        (id, self.calls.bytes(key, id))
    }

    fn id(&self, key: u64, bytes: Option<&[u8]>) -> Option<u64> {
        bytes.map(|bytes| self.calls.id(key, bytes))
    }

    pub fn get(&self, key: u64) -> Option<u64> {
        self.call(key, |store, name| {
            let id = self.id(key, store.get(name).unwrap().as_deref());
            (Call::Read(id), id)
        })
    }

    pub fn contains(&self, key: u64) {
        self.call(key, |store, name| (Call::Present(store.contains_key(name).unwrap()), ()));
    }

    pub fn get_many(&self, keys: impl IntoIterator<Item = u64>) {
        let keys: Vec<u64> = keys.into_iter().collect();
        let names: Vec<&[u8]> = keys.iter().map(|&key| &self.calls.keys[key as usize][..]).collect();
        let begin = self.calls.stamp();
        let found = self.store.get_many(&names).unwrap();
        let end = self.calls.stamp();
        for (&key, found) in keys.iter().zip(&found) {
            self.note(key, begin, end, Call::Read(self.id(key, found.as_deref())));
        }
    }

    /// Reads a key and holds on to its value until [`let_go`](Self::let_go) or the end of the task.
    pub fn hold(&self, key: u64) {
        let value = self.call(key, |store, name| {
            let value = store.get(name).unwrap();
            let id = self.id(key, value.as_deref());
            (Call::Read(id), id.zip(value))
        });
        if let Some((id, value)) = value {
            lock(&self.held).push((key, id, value));
        }
    }

    /// Checks what is held.
    pub fn look_at_held(&self) {
        for (key, id, value) in lock(&self.held).iter() {
            assert!(
                **value == self.calls.bytes(*key, *id),
                "a value of key {key} changed while it was held: {value:?}"
            );
        }
    }

    pub fn let_go(&self) {
        self.look_at_held();
        let held = std::mem::take(&mut *lock(&self.held));
        drop(held);
    }

    pub fn insert(&self, key: u64) {
        let (new, bytes) = self.fresh(key);
        self.call(key, |store, name| {
            let old = store.insert(name, &bytes).unwrap();
            (Call::Replace { old: self.id(key, old.as_deref()), new: Some(new) }, ())
        });
    }

    /// The same on a disk that may be full: then nothing has happened. Returns false for that.
    pub fn insert_unless_full(&self, key: u64) -> bool {
        let (new, bytes) = self.fresh(key);
        let (begin, name) = (self.calls.stamp(), &self.calls.keys[key as usize]);
        match self.store.insert(name, &bytes) {
            Ok(old) => {
                let call = Call::Replace { old: self.id(key, old.as_deref()), new: Some(new) };
                self.note(key, begin, self.calls.stamp(), call);
                true
            }
            Err(Error::DiskFull { .. }) => false,
            Err(error) => panic!("an insert on a full disk: {error}"),
        }
    }

    /// Puts a value without asking for the old one.
    pub fn set(&self, key: u64) {
        let (new, bytes) = self.fresh(key);
        self.call(key, |store, name| {
            store.set(name, &bytes).unwrap();
            (Call::Write(Some(new)), ())
        });
    }

    /// Puts a value with a deadline. One that has passed makes the key absent.
    pub fn set_until(&self, key: u64, until: SystemTime, has_passed: bool) {
        let (new, bytes) = self.fresh(key);
        self.call(key, |store, name| {
            store.expiring(until).set(name, &bytes).unwrap();
            (Call::Write((!has_passed).then_some(new)), ())
        });
    }

    /// Gives a key a deadline that has not passed. An absent one stays absent.
    pub fn prolong(&self, key: u64, until: SystemTime) {
        self.call(key, |store, name| (Call::Present(store.expire(name, until).unwrap()), ()));
    }

    /// Takes a key's deadline away.
    pub fn persist(&self, key: u64) {
        self.call(key, |store, name| (Call::Present(store.persist(name).unwrap()), ()));
    }

    /// Removes a key without asking for its value.
    pub fn delete(&self, key: u64) {
        self.call(key, |store, name| (Call::Removed(store.delete(name).unwrap()), ()));
    }

    pub fn remove(&self, key: u64) {
        self.call(key, |store, name| {
            let old = self.id(key, store.remove(name).unwrap().as_deref());
            (Call::Replace { old, new: None }, ())
        });
    }

    /// Replaces the value by another one, by `update`; an absent key stays absent.
    pub fn update(&self, key: u64) {
        let (new, bytes) = self.fresh(key);
        self.call(key, |store, name| {
            let mut seen = None;
            let stored = store.update(name, |old| {
                seen = self.id(key, old);
                old.map(|_| bytes.clone())
            });
            let stored = self.id(key, stored.unwrap().as_deref());
            assert_eq!(stored, seen.map(|_| new), "update returned another value than it stored");
            (Call::Replace { old: seen, new: stored }, ())
        });
    }

    /// Puts a value where the key is absent.
    pub fn insert_if_absent(&self, key: u64) {
        let (new, bytes) = self.fresh(key);
        self.call(key, |store, name| {
            let found = store.get_or_insert_with(name, || &bytes[..]).unwrap();
            let found = self.calls.id(key, &found);
            let call = if found == new { Call::Replace { old: None, new: Some(new) } } else { Call::Read(Some(found)) };
            (call, ())
        });
    }

    /// Replaces or removes the value that was read before, if it is still there.
    pub fn exchange(&self, key: u64, removing: bool) {
        let old = self.get(key);
        let (new, bytes) = self.fresh(key);
        let new = (!removing).then_some(new);
        self.call(key, |store, name| {
            let expected = old.map(|id| self.calls.bytes(key, id));
            let outcome = store.compare_exchange(name, expected.as_deref(), new.map(|_| &bytes[..]));
            match outcome.unwrap() {
                Ok(()) => (Call::Replace { old, new }, ()),
                Err(found) => (Call::Read(self.id(key, found.current.as_deref())), ()),
            }
        });
    }

    /// Applies a batch that puts some keys and removes others.
    pub fn apply(&self, puts: &[u64], removals: &[u64]) {
        let mut batch = Batch::new();
        let mut calls = Vec::new();
        for &key in puts {
            let (new, bytes) = self.fresh(key);
            batch.insert(&self.calls.keys[key as usize], bytes);
            calls.push((key, Call::Write(Some(new))));
        }
        for &key in removals {
            batch.remove(&self.calls.keys[key as usize]);
            calls.push((key, Call::Write(None)));
        }
        let begin = self.calls.stamp();
        self.store.apply(&batch).unwrap();
        let end = self.calls.stamp();
        calls.into_iter().for_each(|(key, call)| self.note(key, begin, end, call));
    }

    /// Removes keys at once.
    pub fn remove_many(&self, keys: impl IntoIterator<Item = u64>) {
        let keys: Vec<u64> = keys.into_iter().collect();
        let names: Vec<&[u8]> = keys.iter().map(|&key| &self.calls.keys[key as usize][..]).collect();
        let begin = self.calls.stamp();
        let removed = self.store.remove_many(&names).unwrap();
        let end = self.calls.stamp();
        for &key in &keys {
            // Of one key the number says whether it was there.
            let call = if keys.len() == 1 { Call::Removed(removed == 1) } else { Call::Write(None) };
            self.note(key, begin, end, call);
        }
    }

    /// Removes everything. `keys` are all that could be there.
    pub fn clear(&self, keys: impl IntoIterator<Item = u64>) {
        let begin = self.calls.stamp();
        self.store.clear().unwrap();
        let end = self.calls.stamp();
        keys.into_iter().for_each(|key| self.note(key, begin, end, Call::Write(None)));
    }

    /// Goes through the store. A key that comes had the value that came with it at some moment, and comes once;
    /// one of `keys` that does not come was absent at some moment.
    pub fn iterate(&self, keys: impl IntoIterator<Item = u64>) {
        let begin = self.calls.stamp();
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        for entry in self.store.iter() {
            let entry = entry.unwrap();
            let key = self.calls.key_of(entry.key());
            let twice = seen.insert(key, self.calls.id(key, entry.value()));
            assert!(twice.is_none(), "key {key} came twice");
        }
        let end = self.calls.stamp();
        for key in keys {
            seen.entry(key).or_insert(ABSENT);
        }
        for (key, id) in seen {
            self.note(key, begin, end, Call::Read(Some(id).filter(|&id| id != ABSENT)));
        }
    }

    pub fn checkpoint(&self) {
        self.store.checkpoint().unwrap();
    }

    pub fn compact(&self) {
        assert!(self.store.compact().unwrap().finished);
    }

    /// Syncs. Every value that was put before is durable then, unless it was superseded and its segment freed.
    pub fn sync(&self) {
        let begin = self.calls.stamp();
        self.store.sync().unwrap();
        let put: Vec<(u64, u64)> = lock(&self.calls.events)
            .iter()
            .filter(|event| event.end < begin)
            .filter_map(|event| match event.call {
                Call::Write(Some(id)) | Call::Replace { new: Some(id), .. } => Some((event.key, id)),
                _ => None,
            })
            .collect();
        put.into_iter().for_each(|(key, id)| self.must_be_durable(key, id));
    }

    /// Inserts with `SyncPolicy::Always`: the value is durable when the call returns.
    pub fn insert_durably(&self, key: u64) {
        let (new, bytes) = self.fresh(key);
        let before = self.store.stats().log.end_lsn;
        self.call(key, |store, name| {
            let old = store.insert(name, &bytes).unwrap();
            (Call::Replace { old: self.id(key, old.as_deref()), new: Some(new) }, ())
        });
        self.must_be_durable(key, new);
        assert!(self.store.stats().log.durable_lsn > before, "the durable position is behind an acknowledged record");
    }

    fn must_be_durable(&self, key: u64, id: u64) {
        let bytes = self.calls.bytes(key, id);
        assert!((self.calls.is_durable)(&bytes), "value {id} of key {key} is acknowledged, and not on the disk");
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
