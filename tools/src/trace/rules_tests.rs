//! Each rule: a workload at which it speaks at each of its severities, and the like of it at which it does not.

use tophash::Options;
use tophash::doctor::Severity;

use super::profile::{BLOB_BYTES, Profile, Profiler};
use super::rules::{RULES, advice};
use super::{Call, Entry, Print, Syncs};

/// A workload of one thread, a call every `gap` microseconds.
struct Workload {
    profiler: Profiler,
    micros: u64,
    gap: u64,
}

impl Workload {
    fn new(syncs: Syncs, gap: u64) -> Self {
        let mut workload = Workload { profiler: Profiler::default(), micros: 0, gap };
        workload.call(Call::Open { syncs, records: 0 });
        workload
    }

    fn call(&mut self, call: Call) {
        self.micros += self.gap;
        self.profiler.add(Entry { micros: self.micros, thread: 0, call });
    }

    fn calls(syncs: Syncs, gap: u64, calls: impl IntoIterator<Item = Call>) -> Profile {
        let mut workload = Workload::new(syncs, gap);
        calls.into_iter().for_each(|call| workload.call(call));
        workload.profiler.finish()
    }
}

fn put(key: u64, value: u64) -> Call {
    sized(key, value, 100)
}

fn sized(key: u64, value: u64, value_bytes: u64) -> Call {
    Call::Put { key: Print(key), key_bytes: 16, value_bytes, value: Print(value) }
}

fn get(key: u64) -> Call {
    Call::Get { key: Print(key) }
}

fn remove(key: u64) -> Call {
    Call::Remove { key: Print(key) }
}

/// The severity at which a rule speaks about a profile.
fn severity(profile: &Profile, rule: &str) -> Option<Severity> {
    assert!(RULES.iter().any(|known| known.name == rule), "{rule}");
    advice(profile).iter().find(|advice| advice.rule == rule).map(|advice| advice.severity)
}

fn later(calls: impl IntoIterator<Item = Call>) -> Profile {
    Workload::calls(Syncs::Later, 100, calls)
}

#[test]
fn unbatched_removals() {
    let rule = "unbatched-removals";
    assert_eq!(severity(&later((0..999).map(remove)), rule), None);
    assert_eq!(severity(&later((0..1_000).map(remove)), rule), Some(Severity::Info));
    assert_eq!(severity(&later((0..100_000).map(remove)), rule), Some(Severity::Warning));
    // Churn is no mass removal, and neither is a call that removes many.
    assert_eq!(severity(&later((0..100_000).flat_map(|i| [remove(i), put(i + 1_000_000, 0)])), rule), None);
    assert_eq!(severity(&later((0..1000).map(|_| Call::RemoveMany { keys: 1000 })), rule), None);
}

#[test]
fn no_reserve() {
    let rule = "no-reserve";
    let fill = |records: u64| (0..records).map(|i| put(i, i));
    assert_eq!(severity(&later(fill(49_999)), rule), None);
    assert_eq!(severity(&later(fill(50_000)), rule), Some(Severity::Info));
    assert_eq!(severity(&later(fill(1_000_000)), rule), Some(Severity::Warning));
    let reserve = |records| [Call::Reserve { records }];
    assert_eq!(severity(&later(reserve(1_000_000).into_iter().chain(fill(1_000_000))), rule), None);
    assert_eq!(severity(&later(reserve(400_000).into_iter().chain(fill(1_000_000))), rule), Some(Severity::Info));
    // Past the room, but no doubling.
    assert_eq!(severity(&later(reserve(940_000).into_iter().chain(fill(1_000_000))), rule), None);
    // Batches load, too.
    let batches = (0..100).map(|_| Call::Batch { puts: 10_000, removes: 0, bytes: 1_000_000 });
    assert_eq!(severity(&later(batches), rule), Some(Severity::Warning));
    // A store that grows by a half does not double.
    let large = [Call::Open { syncs: Syncs::Later, records: 200_000 }];
    assert_eq!(severity(&later(large.into_iter().chain(fill(100_000))), rule), None);
    // The second store begins anew.
    let open = || [Call::Open { syncs: Syncs::Later, records: 0 }];
    assert_eq!(severity(&later(fill(40_000).chain(open()).chain(fill(40_000))), rule), None);
}

#[test]
fn same_values() {
    let rule = "same-value";
    // Ten keys; every n-th put repeats the value.
    let puts = |n: u64| {
        later((0..10_000).map(|i| put(i % 10, if i / 10 % n == 0 { (i / 10).saturating_sub(1) } else { i / 10 })))
    };
    assert_eq!(severity(&puts(100), rule), None);
    assert_eq!(severity(&puts(15), rule), Some(Severity::Info));
    assert_eq!(severity(&puts(3), rule), Some(Severity::Warning));
    let profile = later((0..2_000).map(|_| put(7, 1)).chain([put(8, 1), put(8, 1)]));
    assert_eq!((profile.same_values, profile.same_value_keys), (2_000, 2));
    assert_eq!((profile.same_value_hottest.as_deref(), profile.same_value_hottest_puts), (Some("7"), 1_999));
    // A key that was removed in between did not have the value.
    let profile = later((0..2_000).flat_map(|_| [put(7, 1), remove(7)]));
    assert_eq!((profile.same_values, severity(&profile, rule)), (0, None));
    // Neither has the same key of another store, nor after a clear.
    for between in [Call::Clear, Call::Open { syncs: Syncs::Later, records: 0 }] {
        let fill = || (0..1_000).map(|i| put(i, i));
        assert_eq!(later(fill().chain([between]).chain(fill())).same_values, 0);
    }
}

#[test]
fn sizes_near_the_blob_threshold() {
    let with = |large: u64, bytes: u64| later((0..1_000).map(|i| sized(i, i, if i < large { bytes } else { 10 })));
    assert_eq!(severity(&with(9, BLOB_BYTES + 1), "above-blob-threshold"), None);
    assert_eq!(severity(&with(10, BLOB_BYTES + 1), "above-blob-threshold"), Some(Severity::Info));
    assert_eq!(severity(&with(50, 2 * BLOB_BYTES), "above-blob-threshold"), Some(Severity::Warning));
    assert_eq!(severity(&with(50, 2 * BLOB_BYTES + 1), "above-blob-threshold"), None, "well worth a file");
    assert_eq!(severity(&with(50, BLOB_BYTES), "above-blob-threshold"), None);
    assert_eq!(severity(&with(50, BLOB_BYTES), "below-blob-threshold"), Some(Severity::Info));
    assert_eq!(severity(&with(49, BLOB_BYTES), "below-blob-threshold"), None);
    assert_eq!(severity(&with(50, BLOB_BYTES / 10 * 9), "below-blob-threshold"), None);
}

#[test]
fn the_threshold_is_the_stores() {
    let dir = tempfile::tempdir().unwrap();
    let store = Options::new().open(dir.path().join("s")).unwrap();
    store.insert("a", vec![0; BLOB_BYTES as usize]).unwrap();
    assert_eq!(store.stats().log.blobs, 0);
    store.insert("a", vec![0; BLOB_BYTES as usize + 1]).unwrap();
    assert_eq!(store.stats().log.blobs, 1);
}

#[test]
fn sizes_near_the_limits() {
    let rule = "near-limits";
    let call = |key_bytes, value_bytes| Call::Put { key: Print(1), key_bytes, value_bytes, value: Print(1) };
    assert_eq!(severity(&later([call(58_977, 3 << 30)]), rule), None);
    assert_eq!(severity(&later([call(58_978, 10)]), rule), Some(Severity::Warning));
    assert_eq!(severity(&later([call(10, 0xfff0_0000)]), rule), Some(Severity::Warning));
}

#[test]
fn tiny_batches() {
    let rule = "tiny-batches";
    let batches = |tiny: u64, all: u64| {
        later((0..all).map(|i| Call::Batch { puts: if i < tiny { 1 } else { 100 }, removes: 1, bytes: 1000 }))
    };
    assert_eq!(severity(&batches(99, 99), rule), None);
    assert_eq!(severity(&batches(24, 100), rule), None);
    assert_eq!(severity(&batches(25, 100), rule), Some(Severity::Info));
    assert_eq!(severity(&batches(75, 100), rule), Some(Severity::Warning));
}

#[test]
fn lone_durable_writes() {
    let rule = "lone-durable-writes";
    let puts = |puts: u64| (0..puts).map(|i| put(i, i));
    assert_eq!(severity(&Workload::calls(Syncs::Always, 100, puts(99)), rule), None);
    assert_eq!(severity(&Workload::calls(Syncs::Always, 100, puts(100)), rule), Some(Severity::Info));
    assert_eq!(severity(&Workload::calls(Syncs::Always, 100, puts(10_000)), rule), Some(Severity::Warning));
    // Nobody waits for writes that are far apart, and a read between them may decide what is written.
    assert_eq!(severity(&Workload::calls(Syncs::Always, 10_001, puts(10_000)), rule), None);
    let mixed = (0..10_000).flat_map(|i| [get(i), put(i, i)]);
    assert_eq!(severity(&Workload::calls(Syncs::Always, 100, mixed), rule), None);
    // A sync after each write is the same under another policy; one after many is not.
    assert_eq!(severity(&later(puts(10_000)), rule), None);
    assert_eq!(severity(&later(puts(10_000).flat_map(|put| [put, Call::Sync])), rule), Some(Severity::Warning));
    let grouped = (0..10_000).flat_map(|i| [put(i, 0), put(i, 1), put(i, 2), Call::Sync]);
    assert_eq!(severity(&later(grouped), rule), None);
}

#[test]
fn unbatched_reads() {
    let rule = "unbatched-reads";
    let gets = |gets: u64| (0..gets).map(get);
    assert_eq!(severity(&Workload::calls(Syncs::Later, 1, gets(9_999)), rule), None);
    assert_eq!(severity(&Workload::calls(Syncs::Later, 1, gets(10_000)), rule), Some(Severity::Info));
    assert_eq!(severity(&Workload::calls(Syncs::Later, 21, gets(10_000)), rule), None);
    let mixed =
        gets(20_000).enumerate().flat_map(|(i, get)| [Some(get), (i % 31 == 0).then_some(Call::GetMany { keys: 9 })]);
    assert_eq!(severity(&Workload::calls(Syncs::Later, 1, mixed.flatten()), rule), None);
}

#[test]
fn the_table_is_in_order() {
    let mut names: Vec<&str> = RULES.iter().map(|rule| rule.name).collect();
    for rule in RULES {
        assert!(rule.thresholds.windows(2).all(|pair| pair[0] < pair[1]), "{}", rule.name);
        assert!(!rule.reason.is_empty() && !rule.action.is_empty(), "{}", rule.name);
        assert!(!(rule.finding)(&Profile::default()).is_empty(), "{}", rule.name);
    }
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), RULES.len());
    assert!(advice(&Profile::default()).is_empty(), "a workload of nothing");
}
