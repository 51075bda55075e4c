//! Bugs that were found in what decides on the table's size, each with its story. None may come back.
//!
//! Most of them are of one kind: the table should have got another size, nobody had told the resize job, and nothing told it
//! later.

mod common;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use common::hooked::Hooked;
use common::{bytes, eventually, open, scratch};
use tophash::{Batch, Options, Store, SyncPolicy, Tuning};

/// The disk takes nothing more of a kind: calls of that name on files of that name.
#[derive(Clone, Default)]
struct Full {
    full: Arc<AtomicBool>,
    refused: Arc<AtomicU64>,
}

impl Full {
    fn on(&self, refused: &'static str, is_refused: impl Fn(&Path) -> bool + Send + Sync + 'static) -> Options {
        let full = self.clone();
        let hook = move |call: &'static str, path: &Path| {
            if call == refused && is_refused(path) && full.full.load(SeqCst) {
                full.refused.fetch_add(1, SeqCst);
                return Err(io::ErrorKind::StorageFull.into());
            }
            Ok(())
        };
        Options::new().sync(SyncPolicy::Manual).disk(Arc::new(Hooked(Arc::new(hook))))
    }

    fn set(&self, full: bool) {
        self.full.store(full, SeqCst);
    }
}

fn is_index(path: &Path) -> bool {
    path.ends_with("index")
}

fn fill(store: &Store, keys: std::ops::Range<u64>) {
    keys.for_each(|n| store.set(n.to_le_bytes(), "v").unwrap());
}

fn level(store: &Store) -> u32 {
    store.stats().index.level
}

fn at_rest(store: &Store) {
    eventually("rest", || store.rest().1);
}

/// A change of the size that made no page dirty was in no checkpoint, and a clean close lost it: the next open had the large table
/// again, and its reserve.
#[test]
fn a_table_that_was_made_small_is_small_after_a_clean_close() {
    let dir = scratch();
    let path = dir.path().join("s");
    let store = open(&Options::new(), &path);
    store.reserve(100_000).unwrap();
    let large = level(&store);
    store.close().unwrap();
    let store = open(&Options::new(), &path);
    store.shrink_to_fit().unwrap();
    let small = level(&store);
    assert!(small < large);
    store.close().unwrap();
    let store = open(&Options::new(), &path);
    assert_eq!(level(&store), small);
    // A reserve is kept as well.
    store.reserve(100_000).unwrap();
    store.close().unwrap();
    let store = open(&Options::new(), &path);
    at_rest(&store);
    assert_eq!(level(&store), large);
}

/// A batch made the table larger, the resize job wanted to make it smaller again and was refused because of the entries to come,
/// and the batch failed. Nobody asked again, and the table stayed as large as the batch had wanted it.
#[test]
fn a_table_shrinks_after_a_batch_that_failed() {
    let dir = scratch();
    let full = Full::default();
    let options = full.on("create", |path| path.extension().is_some_and(|extension| extension == "log"));
    let store = open(&options, &dir.path().join("s"));
    store.insert("a", "b").unwrap();
    at_rest(&store);
    let before = level(&store);
    let batch: Batch = (0..100_000u64).map(|n| (n.to_le_bytes(), bytes(100, n))).collect();
    full.set(true);
    assert!(matches!(store.apply(&batch), Err(tophash::Error::DiskFull { .. })));
    full.set(false);
    fill(&store, 0..100);
    eventually("a small table", || level(&store) <= before + 1);
}

/// Growth was wanted, and the disk was full. The resize job met that error each time before it looked whether the table should
/// shrink, so removing nearly all entries gave nothing back.
#[test]
fn a_full_disk_keeps_no_table_from_shrinking() {
    let dir = scratch();
    let full = Full::default();
    let tuning = Tuning { background: true, overflow_log2_min: 8, ..common::tiny() };
    let store = open(&full.on("set_len", is_index).tuning(tuning), &dir.path().join("s"));
    let mut n = 0u64;
    while level(&store) < 5 || store.stats().index.growing {
        fill(&store, n..n + 1);
        n += 1;
    }
    at_rest(&store);
    let before = level(&store);
    full.set(true);
    // The next extent can be there already: then the table grows once more, and the one after that is refused. One entry more than
    // the threshold, because at the threshold itself such a table does not grow, and this test waited for ever.
    eventually("a try to grow", || {
        let crowded = (store.stats().index.slots * 82 / 100 + 1).max(n);
        fill(&store, n..crowded);
        n = crowded;
        full.refused.load(SeqCst) > 0
    });
    let before = before.max(level(&store));
    (10..n).for_each(|n| assert!(store.delete(n.to_le_bytes()).unwrap()));
    eventually("a small table on a full disk", || level(&store) < before);
}

/// The table could not grow, and a chain got longer than the memory limit has pages. A change of it made the chain dirty page by
/// page, met the limit, ran a checkpoint and began again with the same page: thousands of checkpoints for one insert.
#[test]
fn a_change_of_a_chain_that_is_longer_than_the_limit_ends() {
    let dir = scratch();
    let full = Full::default();
    let tuning = Tuning { level_min: 0, overflow_log2_min: 12, stripes_log2_max: 4, ..common::tiny() };
    let options = full.on("set_len", is_index).memory_bytes(256 << 10).tuning(tuning);
    let store = open(&options, &dir.path().join("s"));
    let mut entries = 0u64;
    while store.stats().index.overflow_pages == 0 {
        fill(&store, entries..entries + 1);
        entries += 1;
    }
    full.set(true);
    let all = entries..entries + 24 * 2 * 70;
    fill(&store, all.clone());
    let index = store.stats().index;
    assert!(index.overflow_pages > 100, "{index:?}");
    let before = store.stats().checkpoint.count;
    fill(&store, all.end..all.end + 10);
    (all.start..all.start + 10).for_each(|n| assert!(store.delete(n.to_le_bytes()).unwrap()));
    let checkpoints = store.stats().checkpoint.count - before;
    assert!(checkpoints < 20 * 20, "{checkpoints} checkpoints for twenty changes");
    full.set(false);
    store.shrink_to_fit().unwrap();
    assert_eq!(store.iter().count() as u64, store.len());
    store.close().unwrap();
    assert!(tophash::verify::verify(dir.path().join("s")).unwrap().is_clean());
}

/// Two stores were closed right after they had been emptied: the resize job had no turn, and the next open asked for nothing.
#[test]
fn a_sparse_table_shrinks_after_an_open() {
    let dir = scratch();
    for kill in [false, true] {
        let mut path = dir.path().join(format!("killed {kill}"));
        let tuning = Tuning { background: false, ..Tuning::default() };
        let store = open(&Options::new().sync(SyncPolicy::Manual).tuning(tuning), &path);
        fill(&store, 0..20_000);
        store.checkpoint().unwrap();
        store.clear().unwrap();
        let before = level(&store);
        if kill {
            let copy = dir.path().join("copy");
            common::copy_store(&path, &copy);
            path = copy;
        }
        store.close().unwrap();
        let store = open(&Options::new(), &path);
        eventually("a small table", || level(&store) < before);
    }
}

/// A `reserve` on a full disk failed, and its room was kept all the same: the table never shrank again. And a smaller `reserve`
/// gave up the room of a larger one.
#[test]
fn a_reserve_keeps_its_room_or_fails() {
    let dir = scratch();
    let full = Full::default();
    let store = open(&full.on("set_len", is_index), &dir.path().join("s"));
    full.set(true);
    assert!(matches!(store.reserve(1_000_000), Err(tophash::Error::DiskFull { .. })));
    full.set(false);
    fill(&store, 0..20_000);
    at_rest(&store);
    let before = level(&store);
    (10..20_000u64).for_each(|n| assert!(store.delete(n.to_le_bytes()).unwrap()));
    eventually("a small table", || level(&store) < before);

    store.reserve(100_000).unwrap();
    let large = level(&store);
    store.reserve(10).unwrap();
    fill(&store, 0..100);
    (0..100u64).for_each(|n| assert!(store.delete(n.to_le_bytes()).unwrap()));
    at_rest(&store);
    assert_eq!(level(&store), large);
}

/// Entries went while the table grew, and asked for nothing. The changes ended the growth while the other job of the resize job's
/// thread waited for the disk. Then nobody asked any more.
#[test]
fn a_table_shrinks_after_a_growth_that_the_changes_have_ended() {
    let dir = scratch();
    let hold = Arc::new(AtomicBool::new(true));
    let held = Arc::clone(&hold);
    let hook = move |call: &'static str, _: &Path| {
        while call == "create" && thread::current().name() == Some("tophash-ahead") && held.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    };
    let options =
        Options::new().sync(SyncPolicy::Manual).segment_bytes(512 << 10).disk(Arc::new(Hooked(Arc::new(hook))));
    let store = open(&options, &dir.path().join("s"));
    let mut n = 0u64;
    // Until the growth from 8 to 16 pages has begun.
    while !(level(&store) == 3 && store.stats().index.growing) && n < 3_400 {
        store.set(n.to_le_bytes(), [7; 66]).unwrap();
        n += 1;
    }
    let keys: Vec<_> = (10..n).map(u64::to_le_bytes).collect();
    store.remove_many(&keys).unwrap();
    let mut absent = 1u64 << 32;
    while store.stats().index.growing && hold.load(SeqCst) {
        store.delete(absent.to_le_bytes()).unwrap();
        absent += 1;
    }
    hold.store(false, SeqCst);
    eventually("a small table", || level(&store) <= 2);
}

/// The resize job began to shrink the table at the moment in which `shrink_to_fit` wanted to. The call took that for "there is
/// nothing to shrink", and returned with a table of the job's size, which is twice what the entries need or more.
#[test]
fn shrink_to_fit_fits_beside_the_resize_job() {
    let dir = scratch();
    let store = open(&Options::new().sync(SyncPolicy::Manual), &dir.path().join("s"));
    fill(&store, 0..10);
    store.shrink_to_fit().unwrap();
    let fits = level(&store);
    for _ in 0..15 {
        store.reserve(1_000_000).unwrap();
        store.shrink_to_fit().unwrap();
        assert_eq!(level(&store), fits);
    }
}
