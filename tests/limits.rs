//! Each limit of the format that a small store can reach: the error names what is limited, the limit, and what mends it. What it
//! names does mend it. (The limits that only a huge store reaches are tested where they are: segments.rs, blob.rs, extend.rs.)

mod common;

use std::path::Path;

use common::{scratch, tiny};
use tophash::{Batch, Error, Options, SyncPolicy, Tuning};

/// Compares what a `LimitReached` says with what it should say.
fn says(error: &Error, path: &Path, limited: &str, most: u64, mends: &[&str]) {
    let Error::LimitReached { path: of, what, limit, remedy, .. } = error else { panic!("{error}") };
    assert_eq!((*what, *limit), (limited, most), "{error}");
    assert!(of.starts_with(path), "{error}");
    mends.iter().for_each(|mend| assert!(remedy.contains(mend), "no `{mend}` in: {error}"));
    let text = error.to_string();
    assert!(text.contains(&format!("{limited}: the limit of {most} is reached; {remedy}")), "{text}");
}

#[test]
fn more_entries_than_a_table_can_hold() {
    let dir = scratch();
    let path = dir.path().join("s");
    let s = common::quiet().open(&path).unwrap();
    s.insert("a", "1").unwrap();
    for additional in [1 << 38, u64::MAX] {
        let error = s.reserve(additional).unwrap_err();
        says(&error, &path, "entries to reserve room for", 1 << 38, &["reserve room for fewer", "split the store"]);
    }
    s.reserve(1000).unwrap();
    s.close().unwrap();
}

/// The error names an offline compaction, and that failed with the same error: its open wanted to put segments together, for which
/// it took another one. Thousands had nothing alive in them, and a checkpoint would have freed them.
#[test]
fn more_segments_than_addresses_can_name() {
    let dir = scratch();
    let path = dir.path().join("s");
    let options = Options::new()
        .segment_bytes(4096)
        .log_ratio(f64::INFINITY)
        .checkpoint_bytes(1 << 30)
        .sync(SyncPolicy::Manual)
        .tuning(Tuning { background: false, ..Tuning::default() });
    let s = options.open(&path).unwrap();
    let mut n = 0u64;
    let error = loop {
        // A segment full of records.
        let mut batch = Batch::new();
        for key in 3 * n..3 * n + 3 {
            batch.insert((key % 99).to_le_bytes(), [7; 1000]);
        }
        match s.apply(&batch) {
            Ok(()) => n += 1,
            Err(error) => break error,
        }
        assert!(n < 4100, "no limit");
    };
    says(&error, &path, "log segments", 4096, &["tophash compact", "larger segments", "tophash export"]);
    assert!(s.stats().log.segments > 4000 && s.len() == 99);
    // Nothing else has happened: the store is read, closed and opened again.
    assert_eq!(s.get(5u64.to_le_bytes()).unwrap().as_deref(), Some(&[7; 1000][..]));
    s.close().unwrap();
    tophash::compact::compact(&path).unwrap();
    let s = options.open(&path).unwrap();
    assert_eq!(s.len(), 99);
    s.insert("there is", "room again").unwrap();
}

#[test]
fn more_overflow_pages_than_a_chain_may_have() {
    let dir = scratch();
    let path = dir.path().join("s");
    // All keys are of one page, and there are too few of them for the table to grow.
    let tuning = Tuning { level_min: 8, grow_permille: 1000, chain_help: 1000, ..tiny() };
    let s = Options::new().sync(SyncPolicy::Manual).tuning(tuning).open(&path).unwrap();
    let keys = (0u64..).map(u64::to_le_bytes).filter(|key| common::hash(key).is_multiple_of(256));
    let mut stored = Vec::new();
    let mut error = None;
    for key in keys.take(24 * 130) {
        match s.insert(key, b"") {
            Ok(_) => stored.push(key),
            Err(refused) => {
                error = Some(refused);
                break;
            }
        }
    }
    let error = error.expect("a limit");
    let mends = ["free some disk space", "tophash verify", "tophash repair"];
    says(&error, &path, "overflow pages of one chain, while the table cannot grow", 128, &mends);
    assert_eq!(s.stats().index.overflow_pages, 128);
    assert!(stored.iter().all(|key| s.contains_key(key).unwrap()));
    // As soon as the table grows, there is room again.
    s.reserve(20_000).unwrap();
    s.insert("there is", "room again").unwrap();
    s.close().unwrap();
}
