//! Owned values: bytes in place, without a lifetime, that outlive everything but the process.

mod common;

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::thread;

use common::Random;
use tophash::{Options, OwnedValue, Store, SyncPolicy, Tuning};

/// More than a segment of these tests takes.
const LARGE: usize = 300 << 10;

fn value(n: u64) -> Vec<u8> {
    common::bytes(if n.is_multiple_of(50) { LARGE } else { 100 + (n % 400) as usize }, n)
}

fn owned(store: &Store, n: u64) -> OwnedValue {
    store.get(n.to_le_bytes()).unwrap().unwrap().into_owned()
}

fn small_segments() -> Options {
    Options::new().segment_bytes(64 << 10).log_ratio(1.2).sync(SyncPolicy::Manual)
}

#[test]
fn owned_values_go_anywhere() {
    common::goes_anywhere::<OwnedValue>();
}

#[test]
fn owned_values_behave_as_their_bytes() {
    let dir = common::scratch();
    let store = Store::open(dir.path().join("store")).unwrap();
    store.insert("a", "abc").unwrap();
    store.insert("b", "abd").unwrap();
    let (a, b) = (store.get("a").unwrap().unwrap(), store.get("b").unwrap().unwrap());
    let (x, y) = (a.clone().into_owned(), OwnedValue::from(b.clone()));
    let (string, vector, boxed) = (String::from("abc"), b"abc".to_vec(), Box::<[u8]>::from(*b"abc"));
    let left = [x == "abc", x == *b"abc", x == b"abc", x == b"abc"[..], x == vector, x == string, x == boxed, x == a];
    let right = ["abc" == x, *b"abc" == x, b"abc" == &*x, vector == x, string == x, boxed == x, a == x, x < y];
    assert_eq!((left, right, x == b), ([true; 8], [true; 8], false));
    assert_eq!((x.len(), x.as_ref(), Borrow::<[u8]>::borrow(&x)), (3, &b"abc"[..], &b"abc"[..]));
    assert_eq!(format!("{x:?}"), "OwnedValue(3 bytes, \"abc\")");
    let map: HashMap<OwnedValue, u32> = [(x.clone(), 1), (y.clone(), 2)].into();
    assert_eq!((map[&b"abc"[..]], map.get(&b"abd"[..]), map.get(&b""[..])), (1, Some(&2), None));
    let set: BTreeSet<OwnedValue> = [y.clone(), x.clone(), x.clone()].into();
    assert_eq!(set.iter().map(|value| value.to_vec()).collect::<Vec<_>>(), [b"abc", b"abd"]);
    assert_eq!((Vec::from(x.clone()), Box::<[u8]>::from(x)), (b"abc".to_vec(), Box::from(*b"abc")));
    assert_eq!((Vec::from(a), Box::<[u8]>::from(b)), (b"abc".to_vec(), Box::from(*b"abd")));
    let mut entries: Vec<_> = store.iter().map(|entry| entry.unwrap().into_owned()).collect();
    entries.sort();
    drop(store);
    assert!(entries[0].0 == "a" && entries[1].1 == "abd");
}

#[test]
fn owned_values_outlive_their_store() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = small_segments().open(&path).unwrap();
    for n in 0..2000u64 {
        store.insert(n.to_le_bytes(), value(n)).unwrap();
    }
    let held: Vec<(u64, OwnedValue)> = (0..2000).step_by(25).map(|n| (n, owned(&store, n))).collect();
    let unchanged = |held: &[(u64, OwnedValue)]| held.iter().for_each(|(n, bytes)| assert!(*bytes == value(*n), "{n}"));
    let threads: Vec<_> = held
        .chunks(20)
        .map(|part| {
            let part = part.to_vec();
            thread::spawn(move || {
                part.iter().for_each(|(n, bytes)| assert!(*bytes == value(*n)));
                part
            })
        })
        .collect();
    store.close().unwrap();
    unchanged(&held);

    // The next opener replaces everything, several times, compacts, and shrinks to nothing.
    let store = small_segments().open(&path).unwrap();
    let mut random = Random(common::seed("owned values"));
    for _ in 0..10_000 {
        let n = random.below(2000);
        store.insert(n.to_le_bytes(), common::bytes(200, random.next())).unwrap();
    }
    store.compact().unwrap();
    unchanged(&held);
    store.clear().unwrap();
    store.compact().unwrap();
    store.close().unwrap();
    unchanged(&held);
    tophash::compact::compact(&path).unwrap();
    unchanged(&held);
    std::fs::remove_dir_all(&path).unwrap();
    for thread in threads {
        unchanged(&thread.join().unwrap());
    }
    unchanged(&held);
}

/// What owned values keep is counted as long as they live, and comes back with the last of them.
#[test]
fn what_is_held_is_counted_and_comes_back() {
    for background in [false, true] {
        let dir = common::disk_scratch();
        let path = dir.path().join("store");
        let options = small_segments().tuning(Tuning { background, ..Tuning::default() });
        let store = options.open(&path).unwrap();
        for n in 0..500u64 {
            store.insert(n.to_le_bytes(), value(n)).unwrap();
        }
        let (small, large) = (owned(&store, 1), owned(&store, 50));
        // Nothing else has its segment pinned; the active one is its writer's, which is no reader.
        assert_eq!(store.stats().log.pinned_segments, 1);
        store.clear().unwrap();
        store.compact().unwrap();
        let stats = store.stats();
        assert_eq!((stats.log.held_bytes / LARGE as u64, stats.log.pinned_segments), (1, 1), "{stats:#?}");
        let with = store.disk_bytes().unwrap();
        let (again, value_of_small) = (small.clone(), small.to_vec());
        drop(small);
        assert!(store.stats().log.held_bytes > LARGE as u64 + 64, "a clone keeps it");
        assert_eq!(again, value_of_small);
        drop(again);
        let held = store.stats().log.held_bytes;
        assert!(held >= LARGE as u64 && held < LARGE as u64 + 4096, "the large value alone: {held}");
        drop(large);
        let stats = store.stats();
        assert_eq!((stats.log.held_bytes, stats.log.pinned_segments), (0, 0));
        assert!(store.disk_bytes().unwrap() + LARGE as u64 + (60 << 10) <= with);
        store.close().unwrap();
    }
}

/// A segment that was freed while a value was owned stayed mapped for ever, if the store was closed meanwhile.
#[test]
fn nothing_stays_mapped_after_the_last_value() {
    let dir = common::disk_scratch();
    let path = dir.path().join("a store of its own");
    let store = small_segments().open(&path).unwrap();
    for n in 1..50u64 {
        store.insert(n.to_le_bytes(), value(n)).unwrap();
    }
    let held = owned(&store, 1);
    store.clear().unwrap();
    store.compact().unwrap();
    assert!(store.stats().log.held_bytes > 0);
    let mappings = || {
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        maps.lines().filter(|line| line.contains("a store of its own")).count()
    };
    store.close().unwrap();
    assert_eq!(mappings(), 1, "the value's segment, unlinked");
    assert!(held == value(1));
    drop(held);
    assert_eq!(mappings(), 0);
}

/// Owners come and go while segments are freed.
#[test]
fn owners_beside_compaction() {
    let dir = common::scratch();
    let store = small_segments().segment_bytes(16 << 10).open(dir.path().join("store")).unwrap();
    for n in 0..300u64 {
        store.insert(n.to_le_bytes(), value(n * 50 + 1)).unwrap();
    }
    let readers: Vec<_> = (0..2)
        .map(|reader| {
            let store = store.clone();
            thread::spawn(move || {
                let mut random = Random(common::seed("owners") ^ reader);
                let mut held: Vec<(u64, OwnedValue)> = Vec::new();
                let rounds = 3000 * common::scale() as u64;
                for _ in 0..rounds {
                    let n = random.below(300);
                    held.push((n, owned(&store, n)));
                    if held.len() > 40 {
                        let at = random.below(40) as usize;
                        let (n, bytes) = held.swap_remove(at);
                        assert!(bytes == value(n * 50 + 1), "the value of {n} has changed");
                    }
                }
                held
            })
        })
        .collect();
    while !readers.iter().all(|reader| reader.is_finished()) {
        for n in 0..300u64 {
            store.insert(n.to_le_bytes(), value(n * 50 + 1)).unwrap();
        }
        store.compact().unwrap();
    }
    let held: Vec<_> = readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect();
    store.clear().unwrap();
    store.compact().unwrap();
    assert!(store.stats().log.held_bytes > 0);
    assert!(held.iter().all(|(n, bytes)| *bytes == value(n * 50 + 1)));
    drop(held);
    assert_eq!(store.stats().log.held_bytes, 0);
}

#[cfg(feature = "bytes")]
#[test]
fn bytes_keep_what_the_value_keeps() {
    let dir = common::scratch();
    let store = small_segments().open(dir.path().join("store")).unwrap();
    store.insert("a", "header: body").unwrap();
    store.insert("large", vec![7; LARGE]).unwrap();
    let value = store.get("a").unwrap().unwrap();
    let address = value.as_ptr();
    let bytes = bytes::Bytes::from(value.into_owned());
    let large = bytes::Bytes::from(store.get("large").unwrap().unwrap().into_owned());
    assert_eq!(bytes.as_ptr(), address, "no copy");
    let body = bytes.slice(8..);
    drop(bytes);
    store.clear().unwrap();
    store.compact().unwrap();
    assert!(store.stats().log.held_bytes > LARGE as u64);
    assert_eq!((&body[..], large.len(), large[LARGE - 1]), (&b"body"[..], LARGE, 7));
    drop((body, large));
    assert_eq!(store.stats().log.held_bytes, 0);
}
