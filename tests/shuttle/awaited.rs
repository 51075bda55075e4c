//! Futures of changes: tasks that poll, the syncing thread, and one that closes the store. A wake-up that is lost leaves a
//! task asleep for ever, which the scheduler reports as a deadlock.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use tophash::{Durable, Error, Options, Store, SyncPolicy, Tuning};

use crate::common;
use crate::disk::PointDisk;
use crate::explore::explore;

struct Unpark(shuttle::thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits in this task. Counts the times that it had to.
fn wait<T>(mut future: Durable<T>, waits: &mut u64) -> tophash::Result<T> {
    let waker = Waker::from(Arc::new(Unpark(shuttle::thread::current())));
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(result) => return result,
            Poll::Pending => {
                *waits += 1;
                shuttle::thread::park();
            }
        }
    }
}

fn value(key: u8) -> [u8; 20] {
    [key.wrapping_mul(7) ^ 0xa5; 20]
}

/// Awaits an insert of each key until the store is closed. Returns those that were acknowledged, and the waits.
fn write(store: &Store, disk: &PointDisk, keys: std::ops::Range<u8>) -> (Vec<u8>, u64) {
    let (mut acknowledged, mut waits) = (Vec::new(), 0);
    for key in keys {
        let future = store.set_async([key], value(key));
        if key % 4 == 3 {
            // It cancels nothing, and its place in the list is given back.
            drop(future);
            continue;
        }
        match wait(future, &mut waits) {
            Ok(()) => {
                assert!(disk.is_durable(&value(key)), "insert {key} was acknowledged, and no sync has covered it");
                acknowledged.push(key);
            }
            Err(Error::Closed { .. }) => break,
            Err(error) => panic!("an insert: {error}"),
        }
    }
    (acknowledged, waits)
}

#[test]
fn every_future_is_woken() {
    let schedules = 100 * common::scale() as u64;
    let totals = Arc::new(Mutex::new([0u64; 2]));
    let counts = Arc::clone(&totals);
    let explored = explore("awaited", schedules, move || {
        let tuning = Tuning { stripes_log2_max: 2, background: true, ..common::tiny() };
        let disk = PointDisk::default();
        let options = Options::new().tuning(tuning).segment_bytes(4096).log_ratio(f64::INFINITY);
        let options = options.sync(SyncPolicy::Manual).disk(Arc::new(disk.clone()));
        let dir = common::scratch();
        let path = dir.path().join("store");
        let store = common::open(&options, &path);
        let writers: Vec<_> = [10..16, 20..26]
            .into_iter()
            .map(|keys| {
                let (store, disk) = (store.clone(), disk.clone());
                shuttle::thread::spawn(move || write(&store, &disk, keys))
            })
            .collect();
        // Somebody else's sync covers futures too.
        let other = store.clone();
        let syncs = shuttle::thread::spawn(move || match other.sync() {
            Ok(()) | Err(Error::Closed { .. }) => {}
            Err(error) => panic!("a sync: {error}"),
        });
        syncs.join().unwrap();
        store.close().unwrap();
        let again = common::open(&options.clone().tuning(Tuning { background: false, ..tuning }), &path);
        assert!(!again.stats().recovery.was_unclean);
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        for writer in writers {
            let (acknowledged, waits) = writer.join().unwrap();
            for &key in &acknowledged {
                let found = again.get([key]).unwrap();
                assert_eq!(found.unwrap_or_else(|| panic!("insert {key} was acknowledged, and is lost")), value(key));
            }
            counts[0] += acknowledged.len() as u64;
            counts[1] += waits;
        }
    });
    let [acknowledged, waits] = *totals.lock().unwrap_or_else(PoisonError::into_inner);
    println!(
        "shuttle, awaited: {} schedules ({} run twice), {} choices, {acknowledged} inserts acknowledged, {waits} waits",
        explored.schedules, explored.repeated, explored.choices
    );
    if explored.schedules >= 50 {
        assert!(acknowledged > 0 && acknowledged < 10 * explored.schedules && waits > 0, "too little was tested");
    }
}
