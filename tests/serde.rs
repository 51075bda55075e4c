//! The feature `serde`: what figures and reports are after a way through JSON.

mod common;

use std::fmt::Debug;

use common::{open, tiny_options};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tophash::stats::{
    CheckpointStats, CommitStats, CompactionReport, CompactionStats, IndexStats, LogStats, RecoveryStats, Stats,
    WaitStats,
};
use tophash::{Cursor, compact, doctor, repair, verify};

fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) -> serde_json::Value {
    let text = serde_json::to_string(value).unwrap();
    assert_eq!(&serde_json::from_str::<T>(&text).unwrap(), value);
    serde_json::from_str(&text).unwrap()
}

#[test]
fn reports_and_figures_survive_json() {
    let dir = common::scratch();
    let path = dir.path().join("store");
    let store = open(&tiny_options(), &path);
    for i in 0..1000u32 {
        store.insert(i.to_le_bytes(), [i as u8; 30]).unwrap();
        store.insert((i / 2).to_le_bytes(), "again").unwrap();
    }
    let stats = survives(&store.stats());
    assert_eq!(stats["records"], 1000);
    assert!(stats["log"]["bytes"].as_u64().unwrap() > 30_000 && stats["poisoned"].is_null(), "{stats}");
    survives(&store.compact().unwrap());
    survives(&RecoveryStats::default());
    survives(&Stats::default());
    store.close().unwrap();
    assert_eq!(survives(&verify::verify(&path).unwrap())["live_slots"], 1000);
    assert_eq!(survives(&doctor::diagnose(&path).unwrap())["records"], 1000);
    assert_eq!(survives(&repair::repair(&path, dir.path().join("new")).unwrap())["keys"], 1000);
    assert_eq!(survives(&compact::compact(&path).unwrap())["before"]["records"], 1000);
}

/// An older version's text lacks what a newer one has, and the other way round.
fn reads_other_versions<T: DeserializeOwned + PartialEq + Debug + Default>() {
    for text in ["{}", r#"{"of a later version": {"deep": [1, 2]}}"#] {
        assert_eq!(serde_json::from_str::<T>(text).unwrap(), T::default(), "{text}");
    }
}

#[test]
fn fields_may_be_missing_and_unknown() {
    reads_other_versions::<Stats>();
    reads_other_versions::<IndexStats>();
    reads_other_versions::<LogStats>();
    reads_other_versions::<CompactionStats>();
    reads_other_versions::<CheckpointStats>();
    reads_other_versions::<CommitStats>();
    reads_other_versions::<WaitStats>();
    reads_other_versions::<RecoveryStats>();
    reads_other_versions::<CompactionReport>();
    reads_other_versions::<compact::Report>();
    reads_other_versions::<compact::Shape>();
    reads_other_versions::<verify::Report>();
    reads_other_versions::<verify::Finding>();
    reads_other_versions::<repair::Report>();
    reads_other_versions::<repair::Loss>();
    reads_other_versions::<repair::LostKey>();
    reads_other_versions::<doctor::Diagnosis>();
    // What is there is read.
    let stats: Stats = serde_json::from_str(r#"{"log": {"blobs": 3, "later": 1}, "later": 2, "records": 7}"#).unwrap();
    assert_eq!((stats.records, stats.log.blobs, stats.log.bytes), (7, 3, 0));
    let report: compact::Report = serde_json::from_str(r#"{"before": {"pages": 8}, "switched": true}"#).unwrap();
    assert_eq!((report.before.pages, report.after.pages, report.switched), (8, 0, true));
    let advice: doctor::Advice = serde_json::from_str(r#"{"rule": "load", "severity": "info", "later": 1}"#).unwrap();
    assert_eq!(advice, doctor::Advice::new("load", doctor::Severity::Info));
}

#[test]
fn a_cursor_is_a_number() {
    let cursor = Cursor::from(u64::MAX - 1);
    assert_eq!(survives(&cursor), u64::MAX - 1);
    assert_eq!(serde_json::from_str::<Cursor>("0").unwrap(), Cursor::START);
}
