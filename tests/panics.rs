//! Code of others that panics in the middle of a call: a disk, and (tests/panics_told.rs) those who are told. What was durable
//! stays, nothing is marked as closed that is not, and nobody waits for ever.

mod common;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::Duration;

use common::futures::{Barrier, Count, pending, poll};
use common::hooked::Hooked;
use common::{eventually, open, scratch};
use tophash::{Error, Options, SyncPolicy, Tuning};

/// A panic ended a checkpoint that a caller ran. Its cut had taken the dirty pages, and nobody remembered them: a later sync
/// returned `Ok`, and a close marked a store as closed cleanly whose index lacked a thousand records. A panic in a background
/// thread poisoned the store, one in a caller did not.
#[test]
fn a_panic_in_a_callers_checkpoint_loses_nothing() {
    for at in ["journal", "index"] {
        let dir = scratch();
        let path = dir.path().join("store");
        let panics = Arc::new(AtomicBool::new(false));
        let armed = Arc::clone(&panics);
        let hook = move |call: &'static str, path: &Path| {
            assert!(!(call == "write" && path.ends_with(at) && armed.swap(false, SeqCst)), "the disk of this test");
            Ok(())
        };
        let tuning = Tuning { background: false, ..Tuning::default() };
        let options = Options::new().sync(SyncPolicy::Manual).tuning(tuning);
        let store = open(&options.clone().disk(Arc::new(Hooked(Arc::new(hook)))), &path);
        (0..1000u64).for_each(|n| store.set(n.to_le_bytes(), "value").unwrap());
        panics.store(true, SeqCst);
        assert!(catch_unwind(AssertUnwindSafe(|| store.checkpoint())).is_err());
        let refused = store.set("later", "1").unwrap_err();
        assert!(matches!(&refused, Error::Poisoned { cause, .. } if cause.contains("a checkpoint")), "{refused}");
        assert_eq!(store.get(7u64.to_le_bytes()).unwrap().unwrap(), "value");
        assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
        let again = open(&options, &path);
        assert!(again.stats().recovery.was_unclean && again.len() == 1000);
        (0..1000u64).for_each(|n| assert_eq!(again.get(n.to_le_bytes()).unwrap().unwrap(), "value", "{at}"));
        again.close().unwrap();
        assert!(tophash::verify::verify(&path).unwrap().is_clean());
    }
}

/// A panic in the last checkpoint left the lock taken and the futures without an end, whatever became of the handles.
#[test]
fn a_close_that_panics_ends_the_waits_and_gives_the_lock_back() {
    let dir = scratch();
    let barrier = Arc::new(Barrier::default());
    let path = dir.path().join("store");
    let passes = Arc::clone(&barrier);
    let hook = move |call: &'static str, _: &Path| match thread::current().name() {
        Some("tophash-sync") if call == "sync" => {
            passes.reached.fetch_add(1, SeqCst);
            while !passes.fails.load(SeqCst) {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        }
        Some("closer") if call == "sync" => panic!("the disk of this test"),
        _ => Ok(()),
    };
    let store = open(&Options::new().sync(SyncPolicy::Manual).disk(Arc::new(Hooked(Arc::new(hook)))), &path);
    let _held = store.set_async("held", "value");
    eventually("a sync", || barrier.reached.load(SeqCst) > 0);
    let waker = Arc::<Count>::default();
    let mut second = store.set_async("second", "value");
    pending(&mut second, &waker);
    let other = store.clone();
    let closer = thread::Builder::new().name("closer".into()).spawn(move || store.close()).unwrap();
    eventually("the gate", || matches!(other.get("a"), Err(Error::Closed { .. })));
    barrier.fails.store(true, SeqCst);
    assert!(closer.join().is_err());
    eventually("the wake-up", || waker.get() == 1);
    assert!(poll(&mut second, &waker).is_ready());
    assert!(matches!(other.close(), Err(Error::Closed { .. })));
    let again = open(&Options::new(), &path);
    assert_eq!(again.get("second").unwrap().unwrap(), "value");
}
