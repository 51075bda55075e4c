//! Closing a store beside calls of other handles.

use std::sync::{Arc, Mutex, PoisonError};

use tophash::{Error, Options, Store, SyncPolicy, Tuning};

use crate::common;
use crate::disk::PointDisk;
use crate::explore::explore;

/// Inserts keys `from..` until the store is closed. Returns those that were acknowledged.
fn write(store: &Store, keys: std::ops::Range<u8>) -> Vec<u8> {
    let mut acknowledged = Vec::new();
    for key in keys {
        match store.insert([key], [key; 20]) {
            Ok(_) => acknowledged.push(key),
            Err(Error::Closed { .. }) => break,
            Err(error) => panic!("an insert: {error}"),
        }
    }
    acknowledged
}

#[test]
fn closing_beside_calls_of_other_handles() {
    let schedules = 200 * common::scale() as u64;
    let totals = Arc::new(Mutex::new([0u64; 2]));
    let counts = Arc::clone(&totals);
    let explored = explore("close", schedules, move || {
        let tuning = Tuning { stripes_log2_max: 2, ..common::tiny() };
        let options = Options::new().tuning(tuning).segment_bytes(4096).sync(SyncPolicy::Manual);
        let options = options.disk(Arc::new(PointDisk::default()));
        let dir = common::scratch();
        let path = dir.path().join("store");
        let store = common::open(&options, &path);
        (0..10u8).for_each(|key| drop(store.insert([key], [key; 20]).unwrap()));
        let writers: Vec<_> = [10..14, 20..24]
            .into_iter()
            .map(|keys| {
                let store = store.clone();
                shuttle::thread::spawn(move || write(&store, keys))
            })
            .collect();
        let reader = store.clone();
        let reader = shuttle::thread::spawn(move || {
            let mut refused = 0;
            for key in 0..10 {
                match reader.get([key]) {
                    Ok(found) => assert_eq!(found.expect("it is always there"), [key; 20]),
                    Err(Error::Closed { .. }) => refused += 1,
                    Err(error) => panic!("a read: {error}"),
                }
            }
            refused
        });
        store.close().unwrap();
        // The next opener changes every page that a read under way may be looking at.
        let again = common::open(&options, &path);
        assert!(!again.stats().recovery.was_unclean);
        (0..10u8).for_each(|key| drop(again.insert([key], [key; 20]).unwrap()));
        (30..60u8).for_each(|key| drop(again.insert([key], [key; 20]).unwrap()));
        again.checkpoint().unwrap();
        let written: Vec<u8> = writers.into_iter().flat_map(|writer| writer.join().unwrap()).collect();
        for key in written.iter().copied().chain(0..10).chain(30..60) {
            let found = again.get([key]).unwrap();
            assert_eq!(found.unwrap_or_else(|| panic!("insert {key} was acknowledged, and is lost")), [key; 20]);
        }
        assert_eq!(again.len(), written.len() as u64 + 40);
        again.close().unwrap();
        assert!(tophash::verify::verify(&path).unwrap().is_clean());
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts[0] += written.len() as u64;
        counts[1] += reader.join().unwrap();
    });
    let [acknowledged, refused] = *totals.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "shuttle, close: {} schedules ({} run twice), {} choices, {acknowledged} inserts acknowledged, {refused} reads refused",
        explored.schedules, explored.repeated, explored.choices
    );
    if explored.schedules >= 50 {
        assert!(acknowledged > 0 && acknowledged < 8 * explored.schedules && refused > 0, "too little was tested");
    }
}
