//! Handles: clones of a store, and closing it beside calls of other handles.
//!
//! What is asked for:
//!
//! * **nothing acknowledged is lost**: every change that returned `Ok` is there when the store is opened again, whichever
//!   handle closed it, and whenever;
//! * **nothing is done afterwards**: once `close` has returned, each call of another handle is `Closed`, and the next opener's
//!   files stay as that opener left them;
//! * **reads are right or refused**: a key that is there throughout is found, or the read is `Closed`.

mod common;

use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Random;
use tophash::{Batch, Cursor, Error, Options, Store, SyncPolicy, Tuning};

fn is_closed<T>(what: &str, path: &Path, outcome: tophash::Result<T>) {
    match outcome {
        Err(Error::Closed { path: told, .. }) => assert_eq!(told, path, "{what}"),
        Err(error) => panic!("{what} of a closed store: {error}"),
        Ok(_) => panic!("{what} of a closed store was carried out"),
    }
}

#[test]
fn handles_go_anywhere() {
    common::goes_anywhere::<Store>();
}

#[test]
fn the_last_handle_closes_the_store() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = Store::open(&path).unwrap();
    let other = store.clone();
    drop(store);
    other.insert("a", "1").unwrap();
    assert!(matches!(Store::open(&path), Err(Error::Locked { .. })));
    thread::spawn(move || assert_eq!(other.get("a").unwrap().unwrap(), "1")).join().unwrap();
    let store = Store::open(&path).unwrap();
    assert!(!store.stats().recovery.was_unclean);
    assert_eq!(store.len(), 1);
}

#[test]
fn every_call_of_a_closed_store_says_so() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    // The same hashes each time, and many pages: an iterator that has met one of two keys has pages before it.
    let tuning = Tuning { hash_key: Some((3, 5)), ..Tuning::default() };
    let options = Options::new().capacity(50_000).tuning(tuning);
    let store = options.open(&path).unwrap();
    store.insert("a", "1").unwrap();
    store.insert("large", vec![7; 1 << 20]).unwrap();
    let other = store.clone();
    let (held, large) = (other.get("a").unwrap().unwrap(), other.get("large").unwrap().unwrap());
    let (mut begun, not_begun) = (other.iter(), other.keys());
    assert_eq!(begun.next().unwrap().unwrap().value().len() % ((1 << 20) - 1), 1);
    store.close().unwrap();

    let path = &path;
    let mut batch = Batch::new();
    batch.insert("a", "2");
    is_closed("get", path, other.get("a"));
    is_closed("get of what is not there", path, other.get("b"));
    is_closed("get of a large value", path, other.get("large"));
    is_closed("get_many", path, other.get_many(&["a"]));
    is_closed("contains_key", path, other.contains_key("a"));
    is_closed("scan", path, other.scan(Cursor::START, 10));
    is_closed("insert", path, other.insert("a", "2"));
    is_closed("insert of a large value", path, other.insert("a", vec![0; 1 << 20]));
    is_closed("remove", path, other.remove("a"));
    is_closed("update", path, other.update("a", |_| Some(b"2".to_vec())));
    is_closed("compare_exchange", path, other.compare_exchange("b", None, Some(b"2")));
    is_closed("get_or_insert_with", path, other.get_or_insert_with("b", || "2"));
    is_closed("apply", path, other.apply(&batch));
    is_closed("remove_many", path, other.remove_many(&["a"]));
    is_closed("clear", path, other.clear());
    is_closed("reserve", path, other.reserve(1_000_000));
    is_closed("shrink_to_fit", path, other.shrink_to_fit());
    is_closed("compact", path, other.compact());
    is_closed("sync", path, other.sync());
    is_closed("checkpoint", path, other.checkpoint());
    is_closed("disk_bytes", path, other.disk_bytes());
    is_closed("a second close", path, other.clone().close());
    assert_eq!(not_begun.count(), 1, "the error is the last item");
    // What a page of the index held when the iterator was there may come; then comes the error.
    assert!(begun.any(|entry| matches!(entry, Err(Error::Closed { .. }))));
    assert_eq!((other.len(), other.stats().records, other.stats().poisoned), (2, 2, None));

    // The lock is free, and what is held can be read beside the next opener, whatever that does.
    let again = options.open(path).unwrap();
    assert!(!again.stats().recovery.was_unclean);
    assert_eq!(again.len(), 2);
    again.clear().unwrap();
    for i in 0..20_000u32 {
        again.insert(i.to_le_bytes(), "new").unwrap();
    }
    again.compact().unwrap();
    assert_eq!(held, "1");
    assert!(large.len() == 1 << 20 && large.iter().all(|&byte| byte == 7));
    is_closed("get beside the next opener", path, other.get("a"));
    is_closed("insert beside the next opener", path, other.insert("a", "2"));
    drop((held, large, begun));
    drop(other);
    assert!(matches!(options.open(path), Err(Error::Locked { .. })), "the old handle has taken the lock with it");
    again.close().unwrap();
    assert_eq!(options.open(path).unwrap().len(), 20_000);
}

#[test]
fn a_read_only_store_is_closed_for_all_handles() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    Store::open(&path).unwrap().insert("a", "1").map(drop).unwrap();
    let reader = Options::new().read_only(true).open(&path).unwrap();
    let other = reader.clone();
    reader.close().unwrap();
    is_closed("get", &path, other.get("a"));
    is_closed("insert", &path, other.insert("a", "1"));
    // A writer finds no reader's lock.
    assert_eq!(Store::open(&path).unwrap().len(), 1);
}

/// User code may close the store from inside of any call that runs it.
#[test]
fn closing_inside_of_a_call_ends() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let again = |store: &Store| {
        store.clone().close().unwrap();
        Store::open(&path).unwrap()
    };
    let store = Store::open(&path).unwrap();
    let mut next = None;
    is_closed(
        "update",
        &path,
        store.update("a", |_| {
            next = Some(again(&store));
            Some(b"1".to_vec())
        }),
    );
    let store = next.take().unwrap();
    is_closed(
        "get_or_insert_with",
        &path,
        store.get_or_insert_with("a", || {
            next = Some(again(&store));
            "1"
        }),
    );
    let store = next.take().unwrap();
    is_closed(
        "compact_with",
        &path,
        store.compact_with(|_| {
            next.get_or_insert_with(|| again(&store));
            std::ops::ControlFlow::Continue(())
        }),
    );
    assert!(next.unwrap().is_empty());
}

/// The value of a key. Some are too long for a segment of the tiny setups.
fn value(writer: u64, n: u64) -> Vec<u8> {
    let len = if n % 97 == 5 { 9000 } else { 20 + (n % 50) as usize };
    common::bytes(len, writer << 32 | n)
}

fn key(writer: u64, n: u64) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&writer.to_le_bytes());
    key[8..].copy_from_slice(&n.to_le_bytes());
    key
}

const WRITERS: u64 = 2;
const PERMANENT: u64 = 50;

/// Writes until the store is closed. Returns how many of its changes were acknowledged: change `n` sets key `n`, by one call
/// or another.
fn write(store: &Store, writer: u64) -> u64 {
    for n in 0.. {
        let (key, value) = (key(writer, n), value(writer, n));
        let outcome = match n % 7 {
            0 => {
                let mut batch = Batch::new();
                batch.insert(key, &value).remove("nothing");
                store.apply(&batch)
            }
            1 => store.update(key, |_| Some(value.clone())).map(drop),
            2 => store.compare_exchange(key, None, Some(&value)).map(Result::unwrap),
            3 => store.get_or_insert_with(key, || &value).map(drop),
            _ => store.insert(key, &value).map(drop),
        };
        match outcome {
            Ok(()) => {}
            Err(Error::Closed { .. }) => return n,
            Err(error) => panic!("change {n} of writer {writer}: {error}"),
        }
    }
    unreachable!()
}

fn close_beside_calls(name: &str, options: &Options) {
    let rounds = 12 * common::scale() as u64;
    let seed = common::seed(name);
    let mut random = Random(seed);
    let (acknowledged, reads) = (AtomicU64::new(0), AtomicU64::new(0));
    for round in 0..rounds {
        let dir = common::scratch();
        let path = dir.path().join("store");
        let store = options.open(&path).unwrap();
        for n in 0..PERMANENT {
            store.insert(key(9, n), value(9, n)).unwrap();
        }
        let pause = Duration::from_micros(random.below(20_000));
        let (start, over) = (Barrier::new(WRITERS as usize + 3), AtomicBool::new(false));
        let (written, again) = thread::scope(|scope| {
            let writers: Vec<_> = (0..WRITERS)
                .map(|writer| {
                    let (store, start) = (store.clone(), &start);
                    scope.spawn(move || {
                        start.wait();
                        write(&store, writer)
                    })
                })
                .collect();
            let reader = store.clone();
            let (start, over, reads) = (&start, &over, &reads);
            scope.spawn(move || {
                start.wait();
                // Whatever the next opener does to the files.
                for n in (0..PERMANENT).cycle() {
                    match reader.get(key(9, n)) {
                        Ok(found) => assert!(*found.expect("it is always there") == value(9, n), "another value"),
                        Err(Error::Closed { .. }) if over.load(Ordering::Relaxed) => break,
                        Err(Error::Closed { .. }) => {}
                        Err(error) => panic!("a read: {error}"),
                    }
                    reads.fetch_add(1, Ordering::Relaxed);
                }
            });
            let upkeep = store.clone();
            scope.spawn(move || {
                start.wait();
                let mut outcome = Ok(());
                while outcome.is_ok() {
                    outcome =
                        upkeep.checkpoint().and_then(|()| upkeep.compact().map(drop)).and_then(|()| upkeep.sync());
                }
                assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
            });
            start.wait();
            thread::sleep(pause);
            store.close().unwrap();
            let again = options.open(&path).unwrap();
            assert!(!again.stats().recovery.was_unclean, "round {round}: the clean mark is not there");
            // Over whatever a writer of the closed store might still append.
            for n in 0..200 {
                again.insert(key(10, n), value(10, n)).unwrap();
            }
            again.checkpoint().unwrap();
            over.store(true, Ordering::Relaxed);
            let written: Vec<u64> = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
            (written, again)
        });
        let check = |store: &Store| {
            for (writer, &count) in
                (0..).zip(written.iter().chain(std::iter::repeat_n(&0, 7)).chain([&PERMANENT, &200]))
            {
                for n in 0..count {
                    let found = store.get(key(writer, n)).unwrap();
                    let found = found.unwrap_or_else(|| panic!("round {round}: change {n} of {writer} is lost"));
                    assert!(*found == value(writer, n));
                }
            }
        };
        check(&again);
        again.close().unwrap();
        check(&options.clone().read_only(true).open(&path).unwrap());
        assert!(tophash::verify::verify(&path).unwrap().is_clean());
        acknowledged.fetch_add(written.iter().sum(), Ordering::Relaxed);
    }
    println!(
        "handles, {name}: {rounds} stores closed beside calls, {} changes acknowledged, {} reads",
        acknowledged.load(Ordering::Relaxed),
        reads.load(Ordering::Relaxed)
    );
}

#[test]
fn closing_beside_calls_of_other_handles() {
    let tiny = common::tiny_options().checkpoint_bytes(100 << 10).segment_bytes(32 << 10);
    close_beside_calls("close, tiny", &tiny);
    let background = Tuning { background: true, ..common::tiny() };
    let background = tiny.tuning(background).sync(SyncPolicy::Every(Duration::from_millis(5)));
    close_beside_calls("close, tiny with background threads", &background);
    close_beside_calls("close, synced", &Options::new().sync(SyncPolicy::Always));
    close_beside_calls("close, defaults", &Options::new());
}

#[test]
fn a_second_close_waits_for_the_first() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let until = Instant::now() + Duration::from_millis(300);
    while Instant::now() < until {
        let store = Store::open(&path).unwrap();
        store.insert("a", vec![1; 1 << 20]).unwrap();
        let others: Vec<Store> = (0..2).map(|_| store.clone()).collect();
        let closers: Vec<_> = others
            .into_iter()
            .map(|other| {
                let path = path.clone();
                thread::spawn(move || {
                    let outcome = other.close();
                    // Whoever closed it, it is closed.
                    let lock = Options::new().read_only(true).open(&path);
                    assert!(!matches!(lock, Err(Error::Locked { reading: false, .. })), "closed, and still locked");
                    outcome.is_ok()
                })
            })
            .collect();
        let firsts = usize::from(store.close().is_ok())
            + closers.into_iter().map(|closer| usize::from(closer.join().unwrap())).sum::<usize>();
        assert_eq!(firsts, 1);
    }
}
