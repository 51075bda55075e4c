//! Changes that are awaited: `insert_async` and the like.
//!
//! What is asked for:
//!
//! * **ready means durable**, under each policy, and the caller's thread does not wait for the sync;
//! * **one sync serves all** who wait for it;
//! * **a future cancels nothing** when it is dropped, and keeps one waker, that of its last poll.
//!
//! How futures end is in asynchronous_ends.rs.

mod common;

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::futures::{Barrier, Count, each, is_durable, pending, policies, poll, wait};
use common::{eventually, open, scratch};
use tophash::{Batch, Durable, Error, Options, SyncPolicy};

#[test]
fn futures_go_anywhere() {
    fn anywhere<T: Send + Sync + Unpin + UnwindSafe + RefUnwindSafe + 'static>() {}
    anywhere::<Durable>();
    anywhere::<Durable<Option<tophash::OwnedValue>>>();
}

#[test]
fn ready_means_durable_and_nobody_waits() {
    each(|store, barrier, _| {
        let waker = Arc::<Count>::default();
        barrier.set(true);
        // With `Always` too, the call returns although its sync does not.
        let mut future = store.insert_async("a", "1");
        assert_eq!(store.get("a").unwrap().unwrap(), "1");
        pending(&mut future, &waker);
        eventually("the sync", || barrier.reached.load(SeqCst) > 0);
        pending(&mut future, &waker);
        assert!(!is_durable(&store));
        assert_eq!(waker.get(), 0);
        barrier.set(false);
        eventually("the wake-up", || waker.get() == 1);
        assert!(is_durable(&store));
        let Poll::Ready(Ok(None)) = poll(&mut future, &waker) else { panic!("not ready after its wake-up") };
        drop(future);
        assert_eq!(Arc::strong_count(&waker), 1, "something keeps the waker");
    });
}

#[test]
fn every_call_has_its_result() {
    let dir = scratch();
    let inline = common::tiny_options().sync(SyncPolicy::Manual);
    let options = policies().map(|policy| Options::new().sync(policy)).into_iter().chain([inline]);
    for (n, options) in options.enumerate() {
        let path = dir.path().join(n.to_string());
        let store = open(&options, &path);
        assert!(wait(store.insert_async("a", "1")).unwrap().is_none());
        assert!(is_durable(&store));
        assert_eq!(wait(store.insert_async("a", "2")).unwrap().unwrap(), "1");
        wait(store.set_async("b", "3")).unwrap();
        assert!(is_durable(&store));
        assert_eq!(wait(store.remove_async("a")).unwrap().unwrap(), "2");
        assert!(is_durable(&store));
        assert!(wait(store.remove_async("a")).unwrap().is_none());
        assert!(wait(store.delete_async("b")).unwrap());
        assert!(!wait(store.delete_async("b")).unwrap());
        assert!(is_durable(&store));
        wait(store.apply_async(&Batch::new())).unwrap();
        let mut batch = Batch::new();
        (0..100u32).for_each(|key| _ = batch.insert(key.to_le_bytes(), "batch"));
        wait(store.apply_async(&batch)).unwrap();
        assert!(is_durable(&store));
        wait(store.set_async("large", vec![7; 1 << 20])).unwrap();
        assert_eq!(wait(store.insert_async("large", "small")).unwrap().unwrap(), vec![7; 1 << 20]);
        assert_eq!(wait(store.update_async("c", |_| Some(b"4".to_vec()))).unwrap().unwrap(), "4");
        assert!(is_durable(&store));
        assert!(wait(store.update_async("c", |_| None)).unwrap().is_none());
        assert!(wait(store.update_async("c", |_| None)).unwrap().is_none());
        assert!(wait(store.compare_exchange_async("c", None, Some(b"5"))).unwrap().is_ok());
        assert!(is_durable(&store));
        let refused = wait(store.compare_exchange_async("c", None, Some(b"6"))).unwrap().unwrap_err();
        assert_eq!(refused.current.unwrap(), "5");
        assert!(wait(store.compare_exchange_async("none", None, None)).unwrap().is_ok());
        store.update("c", |_| Some(b"7".to_vec())).unwrap();
        wait(store.sync_async()).unwrap();
        assert!(is_durable(&store));
        wait(store.sync_async()).unwrap();
        let copy = dir.path().join(format!("copy of {n}"));
        common::copy_store(&path, &copy);
        assert_eq!(open(&Options::new(), &copy).len(), 102);
        store.close().unwrap();
        assert_eq!(open(&Options::new(), &path).len(), 102);
    }
}

#[test]
fn what_the_call_refuses_the_future_says() {
    let dir = scratch();
    let path = dir.path().join("store");
    let store = open(&Options::new().sync(SyncPolicy::Manual), &path);
    let waker = Arc::<Count>::default();
    let Poll::Ready(Err(Error::KeyTooLong { .. })) = poll(&mut store.set_async([0; 70_000], ""), &waker) else {
        panic!("a long key")
    };
    let other = store.clone();
    store.close().unwrap();
    for mut future in [other.set_async("a", "1"), other.sync_async(), other.apply_async(&Batch::new())] {
        let Poll::Ready(Err(Error::Closed { path: told, .. })) = poll(&mut future, &waker) else { panic!("closed") };
        assert_eq!(told, path);
    }
    drop(other);
    let store = open(&Options::new().read_only(true), &path);
    for mut future in [store.set_async("a", "1"), store.sync_async(), store.apply_async(&Batch::new())] {
        let Poll::Ready(Err(Error::ReadOnly { .. })) = poll(&mut future, &waker) else { panic!("read-only") };
    }
}

#[test]
fn one_sync_serves_all() {
    each(|store, barrier, _| {
        let before = store.stats().commit;
        let mut futures = vec![barrier.hold(&store)];
        let waker = Arc::<Count>::default();
        futures.extend((0..1000u64).map(|n| store.set_async(n.to_le_bytes(), "value")));
        futures.iter_mut().for_each(|future| pending(future, &waker));
        barrier.set(false);
        futures.into_iter().for_each(|future| wait(future).unwrap());
        let after = store.stats().commit;
        assert_eq!(after.syncs - before.syncs, 2, "the one that was held, and one for all others");
        assert_eq!(after.waiters - before.waiters, 1001);
        assert!(waker.get() <= 1001);
    });
}

/// Futures and threads wait for the same syncs.
#[test]
fn futures_and_threads_share_syncs() {
    let dir = scratch();
    let store = open(&Options::new().sync(SyncPolicy::Always), &dir.path().join("store"));
    thread::scope(|scope| {
        for writer in 0..8u64 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..50u64 {
                    let key = [writer.to_le_bytes(), n.to_le_bytes()].concat();
                    if writer % 2 == 0 {
                        store.insert(key, "blocking").unwrap();
                    } else {
                        wait(store.insert_async(key, "awaited")).unwrap();
                    }
                }
            });
        }
    });
    assert_eq!(store.len(), 400);
    assert!(is_durable(&store));
    store.close().unwrap();
}

#[test]
fn ten_thousand_futures_are_woken_once() {
    let dir = scratch();
    let barrier = Arc::new(Barrier::default());
    let store = open(&barrier.on(Options::new().sync(SyncPolicy::Manual)), &dir.path().join("store"));
    let first = barrier.hold(&store);
    let wakers: Vec<_> = (0..10_000).map(|_| Arc::<Count>::default()).collect();
    let mut futures: Vec<_> = (0..10_000u64).map(|n| store.set_async((n % 500).to_le_bytes(), "value")).collect();
    futures.iter_mut().zip(&wakers).for_each(|(future, waker)| pending(future, waker));
    barrier.set(false);
    wait(first).unwrap();
    eventually("all wake-ups", || wakers.iter().all(|waker| waker.get() == 1));
    futures.into_iter().for_each(|future| wait(future).unwrap());
    assert!(wakers.iter().all(|waker| waker.get() == 1 && Arc::strong_count(waker) == 1));
}

#[test]
fn a_dropped_future_cancels_nothing() {
    each(|store, barrier, path| {
        let first = barrier.hold(&store);
        let (dropped, kept) = (Arc::<Count>::default(), Arc::<Count>::default());
        let mut futures: Vec<_> = (0..200u64).map(|n| store.set_async(n.to_le_bytes(), "value")).collect();
        for (n, future) in futures.iter_mut().enumerate() {
            pending(future, if n % 2 == 0 { &dropped } else { &kept });
        }
        let mut n = 0;
        futures.retain(|_| {
            n += 1;
            n % 2 == 0
        });
        assert_eq!(Arc::strong_count(&dropped), 1, "a dropped future keeps its waker");
        // One that was never polled.
        drop(store.set_async("never polled", "value"));
        barrier.set(false);
        wait(first).unwrap();
        eventually("the wake-ups", || kept.get() == 100);
        futures.into_iter().for_each(|future| wait(future).unwrap());
        eventually("what was asked for", || is_durable(&store));
        assert_eq!(dropped.get(), 0);
        store.close().unwrap();
        assert_eq!(open(&Options::new(), path).len(), 202);
    });
}

#[test]
fn the_waker_of_the_last_poll_counts() {
    each(|store, barrier, _| {
        let mut future = barrier.hold(&store);
        let [first, second] = [(); 2].map(|()| Arc::<Count>::default());
        (0..3).for_each(|_| pending(&mut future, &first));
        assert_eq!(Arc::strong_count(&first), 2, "one waker, however often it was polled");
        pending(&mut future, &second);
        assert_eq!((Arc::strong_count(&first), Arc::strong_count(&second)), (1, 2));
        barrier.set(false);
        eventually("the wake-up", || second.get() == 1);
        assert_eq!(first.get(), 0);
        // With any waker, or another thread's.
        thread::spawn(move || wait(future).unwrap()).join().unwrap();
    });
}

#[test]
#[should_panic(expected = "polled after it was ready")]
fn a_poll_too_many_panics() {
    let dir = scratch();
    let store = open(&common::tiny_options(), &dir.path().join("store"));
    let mut future = store.set_async("a", "1");
    let waker = Arc::<Count>::default();
    assert!(poll(&mut future, &waker).is_ready());
    _ = poll(&mut future, &waker);
}

/// A call that had nothing to write was ready at once. Awaiting it told of the durability of the calls before, as it should, and a
/// power failure took them. What it answered could also stand on a change of another thread that was not durable yet.
#[test]
fn what_writes_nothing_waits_for_what_was_written_before() {
    let dir = scratch();
    let barrier = Arc::new(Barrier::default());
    let path = dir.path().join("store");
    let store = open(&barrier.on(Options::new().sync(SyncPolicy::Manual)), &path);
    let waker = Arc::<Count>::default();
    let held = barrier.hold(&store);
    let first = store.set_async("session:new", "ada");
    pending(&mut store.delete_async("session:old"), &waker);
    pending(&mut store.remove_async("session:old"), &waker);
    pending(&mut store.expire_async("session:old", Duration::from_secs(1)), &waker);
    pending(&mut store.update_async("session:old", |_| None), &waker);
    pending(&mut store.compare_exchange_async("session:new", None, Some(b"1")), &waker);
    pending(&mut store.compare_exchange_async("session:old", None, None), &waker);
    pending(&mut store.apply_async(&Batch::new()), &waker);
    let last = store.delete_async("session:old");
    barrier.set(false);
    assert!(!wait(last).unwrap());
    wait(held).unwrap();
    wait(first).unwrap();
    // With all of it durable, there is nothing to wait for.
    assert!(poll(&mut store.delete_async("session:old"), &waker).is_ready());
    store.close().unwrap();
}
