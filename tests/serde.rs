//! The feature `serde`: what figures and reports are after a way through JSON.

mod common;

use std::fmt::Debug;

use common::{open, tiny_options};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tophash::stats::{RecoveryStats, Stats};
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
    // An older report lacks what a newer one has.
    let older: verify::Report = serde_json::from_str("{\"live_slots\": 7}").unwrap();
    assert_eq!((older.live_slots, older.is_clean()), (7, true));
}

#[test]
fn a_cursor_is_a_number() {
    let cursor = Cursor::from(u64::MAX - 1);
    assert_eq!(survives(&cursor), u64::MAX - 1);
    assert_eq!(serde_json::from_str::<Cursor>("0").unwrap(), Cursor::START);
}
