//! The background threads: what wakes them, what their failures and their ends mean, and what a thread that ends itself may
//! do.
//!
//! Each test was written for a fault that no layer saw, because the model and the crash rig ran without background
//! threads, and nobody counted how often a thread wakes up.

mod common;

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use common::hooked::Hooked;
use common::{bytes, open, scratch};
use tophash::{Error, Options, Store, SyncPolicy, Tuning};

/// Waits until something is so.
fn wait_for(what: &str, mut is_so: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} never came");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until every background thread waits for its bell alone; returns how often they were woken.
fn at_rest(store: &Store) -> u64 {
    wait_for("rest", || store.rest().1);
    store.rest().0
}

fn is_durable(store: &Store) -> bool {
    let log = store.stats().log;
    log.durable_lsn >= log.end_lsn
}

/// 200 idle stores took a fifth of a processor: each of six threads looked around ten to twenty times a second. A thread
/// without work now has no deadline. That is asked here, and not how often something happens in some time.
#[test]
fn an_idle_store_wakes_nobody() {
    let dir = scratch();
    for (name, options) in [
        ("default", Options::new()),
        ("manual", Options::new().sync(SyncPolicy::Manual)),
        ("short interval", Options::new().sync(SyncPolicy::Every(Duration::from_millis(1)))),
    ] {
        let store = open(&options, &dir.path().join(name));
        at_rest(&store);
        for round in 0..2u64 {
            for n in 0..2_000u64 {
                store.insert(n.to_le_bytes(), bytes(100, n ^ round)).unwrap();
            }
            let woken = at_rest(&store);
            assert!(name == "manual" || is_durable(&store), "{name}: at rest, and not everything is durable");
            store.get([0; 8]).unwrap();
            assert_eq!(store.rest(), (woken, true), "{name}: a read woke somebody");
        }
        store.close().unwrap();
    }
}

/// The first record after a rest has no tick to wait for: it must arm the sync itself.
#[test]
fn the_first_append_after_a_rest_is_synced() {
    let dir = scratch();
    let store = open(&Options::new().sync(SyncPolicy::Every(Duration::from_millis(1))), &dir.path().join("store"));
    for n in 0..12u64 {
        at_rest(&store);
        match n % 4 {
            0 => _ = store.insert(n.to_le_bytes(), "value").unwrap(),
            1 => _ = store.remove((n - 1).to_le_bytes()).unwrap(),
            2 => store.clear().unwrap(),
            _ => {
                let mut batch = tophash::Batch::new();
                batch.insert("a", n.to_le_bytes());
                store.apply(&batch).unwrap();
            }
        }
        wait_for("the sync", || is_durable(&store));
    }
}

/// What polling used to find out: a table that was emptied shrinks, and the space of dead records comes back, though
/// nobody writes any more.
#[test]
fn what_is_left_to_do_is_done_before_the_rest() {
    let dir = scratch();
    let tuning = Tuning { background: true, ..common::tiny() };
    let store = open(&Options::new().tuning(tuning).segment_bytes(32 << 10), &dir.path().join("store"));
    for n in 0..20_000u64 {
        store.insert(n.to_le_bytes(), bytes(60, n)).unwrap();
    }
    at_rest(&store);
    let grown = store.stats().index.level;
    for n in 0..19_900u64 {
        store.remove(n.to_le_bytes()).unwrap();
    }
    at_rest(&store);
    let stats = store.stats();
    assert!(stats.index.level < grown && !stats.index.growing, "{:?}", stats.index);
    assert!(stats.log.bytes < 1 << 20, "{:?}", stats.log);
}

fn is_thread(name: &str) -> bool {
    thread::current().name() == Some(name)
}

/// The thread that syncs died of a panic, and `Every` was broken without a word: nothing was ever synced again. The death of
/// any background thread refuses every later change, by the thread's name.
#[test]
fn a_panic_in_a_background_thread_refuses_changes() {
    for name in ["tophash-sync", "tophash-ahead", "tophash-behind"] {
        let dir = scratch();
        let armed = Arc::new(AtomicBool::new(false));
        let hook = {
            let armed = Arc::clone(&armed);
            move |_: &'static str, _: &Path| {
                assert!(!(armed.load(SeqCst) && is_thread(name)), "the disk of this test");
                Ok(())
            }
        };
        let options = Options::new().sync(SyncPolicy::Every(Duration::from_millis(1))).checkpoint_bytes(200 << 10);
        let store = open(&options.disk(Arc::new(Hooked(Arc::new(hook)))), &dir.path().join("store"));
        armed.store(true, SeqCst);
        let begun = Instant::now();
        let refused = (0u64..).find_map(|n| {
            assert!(begun.elapsed() < Duration::from_secs(60), "{name}: never refused");
            // Whoever waits for the very sync in which the thread dies is told that it has failed.
            store.insert(n.to_le_bytes(), bytes(100, n)).err().filter(|error| matches!(error, Error::Poisoned { .. }))
        });
        let Some(Error::Poisoned { cause, .. }) = &refused else { panic!("{name}: {refused:?}") };
        assert!(cause.contains(name) && cause.contains("panicked"), "{cause}");
        assert_eq!(store.stats().poisoned.as_ref(), Some(cause));
        assert!(store.get(0u64.to_le_bytes()).unwrap().is_some(), "reads go on");
        assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
    }
}

/// The end of an interval beyond all that a clock can tell was computed with an overflow, which ended the syncing thread.
#[test]
fn an_interval_without_end_is_as_good_as_manual() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = open(&Options::new().sync(SyncPolicy::Every(Duration::MAX)), &path);
    store.insert("a", "b").unwrap();
    // The syncing thread waits for the end of its interval, which is to say for the end of the store.
    at_rest(&store);
    assert_eq!(store.stats().poisoned, None);
    store.sync().unwrap();
    store.close().unwrap();
    assert_eq!(open(&Options::new(), &path).get("a").unwrap().unwrap(), &b"b"[..]);
}

/// A destructor of a thread's own value changed the store after the buffer for records was gone: the process was aborted.
#[test]
fn a_thread_that_ends_may_write() {
    static STORE: OnceLock<Store> = OnceLock::new();
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    struct Flush;
    impl Drop for Flush {
        fn drop(&mut self) {
            let n = WRITTEN.fetch_add(1, SeqCst);
            let store = STORE.get().unwrap();
            store.insert(n.to_le_bytes(), "from a destructor").unwrap();
            assert!(store.get(n.to_le_bytes()).unwrap().is_some());
        }
    }
    thread_local!(static FLUSH: Flush = const { Flush });
    let dir = scratch();
    let store = STORE.get_or_init(|| open(&Options::new(), &dir.path().join("store")));
    // The order in which the two were first used is the order in which they go, or the other way round.
    for store_first in [true, false] {
        let work = move || {
            if store_first {
                store.insert("a", "b").unwrap();
                FLUSH.with(|_| ());
            } else {
                FLUSH.with(|_| ());
                store.insert("a", "b").unwrap();
            }
        };
        thread::spawn(work).join().unwrap();
    }
    assert_eq!(WRITTEN.load(SeqCst), 2);
    assert_eq!(store.len(), 3);
}

/// A segment that could not be prepared was tried again at once, for every append: 2,270 times in half a second.
#[test]
fn a_failed_preparation_is_not_tried_again_at_once() {
    let dir = scratch();
    let tries = Arc::new(AtomicU64::new(0));
    let full = Arc::new(AtomicBool::new(false));
    let hook = {
        let (tries, full) = (Arc::clone(&tries), Arc::clone(&full));
        move |call: &'static str, _: &Path| {
            if call == "create" && is_thread("tophash-ahead") && full.load(SeqCst) {
                tries.fetch_add(1, SeqCst);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        }
    };
    let options = Options::new().sync(SyncPolicy::Manual).disk(Arc::new(Hooked(Arc::new(hook))));
    let store = open(&options, &dir.path().join("store"));
    full.store(true, SeqCst);
    let begun = Instant::now();
    for n in 0..50_000u64 {
        store.insert((n % 1000).to_le_bytes(), bytes(100, n)).unwrap();
    }
    // Pauses of 100 ms, 200 ms and so on; each attempt that succeeds begins them anew, and here none does.
    let (tries, time) = (tries.load(SeqCst), begun.elapsed());
    let most = 2 + time.as_millis() as u64 / 100;
    assert!((1..=most).contains(&tries), "{tries} tries in {time:?}");
}

/// The sum over all stripes was taken while their counts were distributed anew at the end of a doubling: a fully loaded table
/// seemed half empty, though nobody wrote.
#[test]
fn the_number_of_entries_is_right_while_growth_ends() {
    let dir = scratch();
    for round in 0..2u64 {
        let store = open(&Options::new().sync(SyncPolicy::Manual), &dir.path().join(round.to_string()));
        let mut entries = 0u64;
        for level in 4..7u64 {
            while entries < (504 << level) * 82 / 100 + 400 {
                store.insert(entries.to_le_bytes(), "v").unwrap();
                entries += 1;
            }
            // Nobody writes, and the table is divided page by page.
            loop {
                let done = store.rest().1;
                (0..50).for_each(|_| assert_eq!(store.len(), entries, "level {level}"));
                if done {
                    break;
                }
            }
        }
    }
}

/// An open that could not start its threads said Ok, and the store was poisoned a moment later. It fails now, and leaves
/// nothing behind that stands in the next one's way.
#[test]
fn an_open_without_threads_fails() {
    const CHILD: &str = "TOPHASH_TEST_NO_THREADS";
    if let Some(path) = std::env::var_os(CHILD) {
        let none = rustix::process::Rlimit { current: Some(1), maximum: Some(1) };
        rustix::process::setrlimit(rustix::process::Resource::Nproc, none).unwrap();
        let path = Path::new(&path).join("store");
        for _ in 0..3 {
            let error = Options::new().open(&path).expect_err("no thread can be had");
            common::says(&error, &["start a thread"]);
        }
        let store = Options::new().tuning(Tuning { background: false, ..Tuning::default() }).open(&path).unwrap();
        assert!(!store.stats().recovery.was_unclean, "it was closed again");
        store.insert("a", "b").unwrap();
        store.close().unwrap();
        println!("the child has seen it");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    use std::os::unix::process::CommandExt;
    let dir = scratch();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
    // A copy that any user may run.
    let program = dir.path().join("test");
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let mut child = std::process::Command::new(&program);
    child.args(["--exact", "an_open_without_threads_fails", "--nocapture"]).env(CHILD, dir.path());
    if rustix::process::geteuid().is_root() {
        // Root's threads are not limited.
        child.uid(65_534).gid(65_534);
    }
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("the child has seen it"), "{text}{output:?}");
}

/// `reserve` of more than a store can ever hold grew the table until the disk was full, and a capacity of 2^40 cut page numbers
/// off at 32 bits.
#[test]
fn impossible_sizes_are_refused_at_once() {
    let dir = scratch();
    let path = dir.path().join("store");
    for capacity in [u64::MAX, 1 << 40, (1 << 38) + 1] {
        let error = Options::new().capacity(capacity).open(&path).expect_err("too much");
        assert!(matches!(error, Error::InvalidOption { option: "capacity", .. }), "{error}");
        assert!(!path.exists());
    }
    let store = open(&Options::new(), &path);
    store.insert("a", "b").unwrap();
    let before = store.stats().index;
    for additional in [u64::MAX, 1 << 38] {
        let error = store.reserve(additional).expect_err("too much");
        assert!(matches!(error, Error::LimitReached { limit, .. } if limit <= 1 << 38), "{error}");
    }
    assert_eq!((store.stats().index.pages, store.len()), (before.pages, 1));
    store.reserve(10_000).unwrap();
    assert!(store.stats().index.slots > 10_000);
}

/// A table that was made large from the start took a mebibyte of disk and a huge page of memory for nearly each of its first
/// keys: 659 MiB and 904 MiB for 1,000 keys, with a limit of 64 MiB.
#[test]
fn a_large_table_takes_what_its_keys_need() {
    let dir = scratch();
    let options = Options::new().capacity(20_000_000).memory_bytes(16 << 20).sync(SyncPolicy::Manual);
    let store = open(&options, &dir.path().join("store"));
    for n in 0..500u64 {
        store.insert(n.to_le_bytes(), "v").unwrap();
    }
    let bytes = store.disk_bytes().unwrap();
    assert!(bytes < 32 << 20, "{} MiB of disk", bytes >> 20);
    for n in 0..500u64 {
        assert_eq!(store.get(n.to_le_bytes()).unwrap().unwrap(), &b"v"[..]);
    }
    store.close().unwrap();
    assert_eq!(open(&Options::new(), &dir.path().join("store")).len(), 500);
}

/// Where the table could not grow, each insert into a full chain helped once and then made it longer, up to a position that
/// was cut off at 16 bits. The chain has a limit now, and the error names it.
#[test]
fn a_chain_has_a_limit() {
    let dir = scratch();
    let full = Arc::new(AtomicBool::new(false));
    let hook = {
        let full = Arc::clone(&full);
        move |call: &'static str, path: &Path| {
            let extends = call == "set_len" && path.ends_with("index");
            if extends && full.load(SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
        }
    };
    // Overflow pages enough are there before the index cannot be extended any more.
    let tuning = Tuning { level_min: 0, overflow_log2_min: 12, stripes_log2_max: 4, ..common::tiny() };
    let options = Options::new().sync(SyncPolicy::Manual).tuning(tuning).disk(Arc::new(Hooked(Arc::new(hook))));
    let store = open(&options, &dir.path().join("store"));
    let mut entries = 0u64;
    while store.stats().index.overflow_pages == 0 {
        store.insert(entries.to_le_bytes(), "v").unwrap();
        entries += 1;
        assert!(entries < 10_000);
    }
    full.store(true, SeqCst);
    let most = store.stats().index.slots * 2 * 130;
    let error = loop {
        match store.insert(entries.to_le_bytes(), "v") {
            Ok(_) => entries += 1,
            Err(error) => break error,
        }
        assert!(entries < most, "no limit after {entries} entries");
    };
    assert!(matches!(error, Error::DiskFull { .. } | Error::LimitReached { limit: 128, .. }), "{error}");
    for n in 0..entries {
        assert!(store.get(n.to_le_bytes()).unwrap().is_some(), "{n}");
    }
    full.store(false, SeqCst);
    store.insert(entries.to_le_bytes(), "v").unwrap();
    assert_eq!(store.len(), entries + 1);
}
