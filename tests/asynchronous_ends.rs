//! How the futures of changes end.
//!
//! * **every future ends**: by a sync, by its failure, by a panic of the syncing thread, by closing; a wake-up is never lost;
//! * **a future is no handle**: it keeps nobody from closing;
//! * **wakers are code of the caller**: they may poll, write, drop the last handle, close the store, and panic.

mod common;

use std::io;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::futures::{Barrier, Call, Count, each, pending, policies, poll, wait};
use common::{eventually, open, scratch};
use tophash::{Error, Options, Store, SyncPolicy, Tuning};

#[test]
fn a_failed_sync_fails_all_who_wait() {
    each(|store, barrier, path| {
        wait(store.set_async("durable", "before")).unwrap();
        let held = barrier.hold(&store);
        let waker = Arc::<Count>::default();
        let mut futures: Vec<_> = (0..50u64).map(|n| store.set_async(n.to_le_bytes(), "value")).collect();
        futures.iter_mut().for_each(|future| pending(future, &waker));
        barrier.fails.store(true, SeqCst);
        barrier.set(false);
        eventually("the wake-ups", || waker.get() == 50);
        for future in futures.into_iter().chain([held]) {
            match wait(future) {
                Err(Error::Io { action: "sync", path: file, source, .. }) => {
                    assert!(file.extension().is_some_and(|extension| extension == "log"), "{}", file.display());
                    assert_eq!(source.kind(), io::Error::from_raw_os_error(5).kind());
                }
                other => panic!("{other:?}"),
            }
        }
        // The store refuses changes, by future too, and nothing hangs.
        assert!(matches!(store.set("a", "1"), Err(Error::Poisoned { .. })));
        for future in [store.set_async("a", "1"), store.sync_async()] {
            assert!(matches!(wait(future), Err(Error::Poisoned { .. })));
        }
        assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
        assert_eq!(open(&Options::new(), path).get("durable").unwrap().unwrap(), "before");
    });
}

#[test]
fn a_panic_of_the_syncing_thread_fails_all_who_wait() {
    each(|store, barrier, _| {
        let held = barrier.hold(&store);
        let waker = Arc::<Count>::default();
        let mut futures: Vec<_> = (0..50u64).map(|n| store.set_async(n.to_le_bytes(), "value")).collect();
        futures.iter_mut().for_each(|future| pending(future, &waker));
        barrier.panics.store(true, SeqCst);
        barrier.set(false);
        eventually("the wake-ups", || waker.get() == 50);
        for future in futures.into_iter().chain([held]) {
            let Err(Error::Poisoned { cause, .. }) = wait(future) else { panic!("no error") };
            assert!(cause.contains("tophash-sync") && cause.contains("panicked"), "{cause}");
        }
        assert!(matches!(wait(store.set_async("a", "1")), Err(Error::Poisoned { .. })));
        assert!(matches!(store.close(), Err(Error::Poisoned { .. })));
    });
}

/// Begins to close the store while the syncing thread is held, then lets it go.
fn close_beside(store: Store, barrier: &Barrier) -> tophash::Result<()> {
    let other = store.clone();
    let closer = thread::spawn(move || store.close());
    eventually("the gate", || matches!(other.get("a"), Err(Error::Closed { .. })));
    barrier.set(false);
    closer.join().unwrap()
}

#[test]
fn closing_waits_for_no_future_and_completes_all() {
    each(|store, barrier, path| {
        let held = barrier.hold(&store);
        let waker = Arc::<Count>::default();
        // The syncing thread ends before it comes to these: the close makes them durable.
        let mut futures: Vec<_> = (0..50u64).map(|n| store.set_async(n.to_le_bytes(), "value")).collect();
        futures.iter_mut().for_each(|future| pending(future, &waker));
        close_beside(store, &barrier).unwrap();
        assert_eq!(waker.get(), 50, "a future was left without being woken");
        futures.into_iter().chain([held]).for_each(|future| wait(future).unwrap());
        assert_eq!(open(&Options::new(), path).len(), 51);
    });
}

#[test]
fn a_close_that_fails_completes_all_with_an_error() {
    each(|store, barrier, _| {
        let mut held = barrier.hold(&store);
        let waker = Arc::<Count>::default();
        pending(&mut held, &waker);
        let mut futures: Vec<_> = (0..50u64).map(|n| store.set_async(n.to_le_bytes(), "value")).collect();
        futures.iter_mut().for_each(|future| pending(future, &waker));
        barrier.panics.store(true, SeqCst);
        assert!(matches!(close_beside(store, &barrier), Err(Error::Poisoned { .. })));
        assert_eq!(waker.get(), 51, "a future was left without being woken");
        for future in futures.into_iter().chain([held]) {
            assert!(matches!(wait(future), Err(Error::Poisoned { .. })));
        }
    });
}

#[test]
fn a_future_is_no_handle() {
    each(|store, barrier, path| {
        let held = barrier.hold(&store);
        let waker = Arc::<Count>::default();
        let mut future = store.set_async("a", "1");
        pending(&mut future, &waker);
        let dropper = thread::spawn(move || drop(store));
        barrier.set(false);
        dropper.join().unwrap();
        assert_eq!(waker.get(), 1);
        let again = open(&Options::new(), path);
        assert!(!again.stats().recovery.was_unclean);
        again.set("a", "2").unwrap();
        wait(future).unwrap();
        wait(held).unwrap();
    });
}

/// Does something with a handle in a waker, which the syncing thread calls.
fn in_a_waker(act: fn(Store)) {
    each(|store, barrier, path| {
        let mut first = barrier.hold(&store);
        let (seen, others) = (Arc::<Mutex<Option<String>>>::default(), Arc::<Count>::default());
        let handle = Mutex::new(Some(store.clone()));
        let waker = {
            let seen = Arc::clone(&seen);
            Arc::new(Call(move || {
                act(handle.lock().unwrap().take().unwrap());
                *seen.lock().unwrap() = thread::current().name().map(str::to_string);
            }))
        };
        assert!(poll(&mut first, &waker).is_pending());
        let mut second = store.set_async("second", "value");
        pending(&mut second, &others);
        drop(store);
        barrier.set(false);
        eventually("the waker", || seen.lock().unwrap().is_some());
        assert_eq!(seen.lock().unwrap().as_deref(), Some("tophash-sync"));
        // Whatever it did, the other future ends, and the store can be opened.
        wait(first).unwrap();
        wait(second).unwrap();
        drop(waker);
        let again = open(&Options::new(), path);
        assert!(again.contains_key("held").unwrap() && again.contains_key("second").unwrap());
    });
}

#[test]
fn a_waker_may_drop_the_last_handle() {
    in_a_waker(drop);
}

#[test]
fn a_waker_may_close_the_store() {
    in_a_waker(|store| {
        store.close().unwrap();
    });
}

#[test]
fn a_waker_may_write_and_poll() {
    in_a_waker(|store| {
        store.set("by a waker", "value").unwrap();
        let waker = Arc::<Count>::default();
        // It cannot become ready here, because this thread is the one that syncs, unless the policy has synced it.
        _ = poll(&mut store.set_async("by a waker", "awaited"), &waker);
        store.sync().unwrap();
    });
}

#[test]
fn a_waker_that_panics_harms_nobody() {
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    each(|store, barrier, path| {
        let mut first = barrier.hold(&store);
        assert!(poll(&mut first, &Arc::new(Call(|| panic!("a waker")))).is_pending());
        let waker = Arc::<Count>::default();
        let mut second = store.set_async("second", "value");
        pending(&mut second, &waker);
        barrier.set(false);
        eventually("the other wake-up", || waker.get() == 1);
        assert_eq!(store.stats().poisoned, None);
        wait(first).unwrap();
        wait(store.set_async("third", "value")).unwrap();
        store.close().unwrap();
        assert_eq!(open(&Options::new(), path).len(), 3);
    });
    std::panic::set_hook(hook);
}

/// The syncing thread exists from the first call on, sleeps without a deadline, and ends with the store.
#[test]
fn a_store_at_rest_stays_at_rest() {
    for policy in policies() {
        let dir = scratch();
        let store = open(&Options::new().sync(policy), &dir.path().join("store"));
        for n in 0..3u64 {
            wait(store.set_async(n.to_le_bytes(), "value")).unwrap();
            eventually("rest", || store.rest().1);
            let woken = store.rest().0;
            // Everything is durable: nobody is asked.
            wait(store.sync_async()).unwrap();
            assert_eq!(store.rest(), (woken, true));
        }
        store.close().unwrap();
    }
}

/// Many tasks in many threads, each woken by its own syncs, while the store is closed at some moment: every future ends, and
/// what was acknowledged is there.
#[test]
fn closing_beside_awaiting_threads() {
    for round in 0..common::share(100) {
        let dir = scratch();
        let path = dir.path().join("store");
        let background = round % 5 != 4;
        let options = common::tiny_options().tuning(Tuning { background, ..common::tiny() });
        let store = open(&options.sync(policies()[round as usize % 3]), &path);
        let write = |store: &Store, writer: u64| {
            for n in 0u64.. {
                let key = [writer.to_le_bytes(), n.to_le_bytes()].concat();
                match wait(store.set_async(key, n.to_le_bytes())) {
                    Ok(()) => {}
                    Err(Error::Closed { .. }) => return n,
                    Err(error) => panic!("{error}"),
                }
            }
            u64::MAX
        };
        let written: Vec<u64> = thread::scope(|scope| {
            let writers: Vec<_> = (0..3)
                .map(|writer| {
                    let store = store.clone();
                    scope.spawn(move || write(&store, writer))
                })
                .collect();
            thread::sleep(Duration::from_micros(round * 37 % 3000));
            store.close().unwrap();
            writers.into_iter().map(|writer| writer.join().unwrap()).collect()
        });
        let store = open(&Options::new().sync(SyncPolicy::Manual), &path);
        assert!(!store.stats().recovery.was_unclean);
        for (writer, &count) in (0u64..).zip(&written) {
            for n in 0..count {
                let key = [writer.to_le_bytes(), n.to_le_bytes()].concat();
                assert_eq!(store.get(&key).unwrap().unwrap(), &n.to_le_bytes(), "{n} of writer {writer} is lost");
            }
        }
    }
}

/// One thread closed the store and waited for the syncing thread to end. That thread was in a waker, which closed the store as
/// well, and waited for the first closer.
#[test]
fn a_waker_may_close_beside_another_closer() {
    let dir = scratch();
    let barrier = Arc::new(Barrier::default());
    let path = dir.path().join("store");
    let store = open(&barrier.on(Options::new().sync(SyncPolicy::Manual)), &path);
    let mut first = barrier.hold(&store);
    let (handle, other) = (Mutex::new(Some(store.clone())), store.clone());
    let told = Arc::new(Mutex::new(None));
    let outcome = Arc::clone(&told);
    let waker = Arc::new(Call(move || {
        let handle = handle.lock().unwrap().take().unwrap();
        *outcome.lock().unwrap() = Some(handle.close());
    }));
    assert!(poll(&mut first, &waker).is_pending());
    let closer = thread::spawn(move || store.close());
    eventually("the gate", || matches!(other.get("a"), Err(Error::Closed { .. })));
    barrier.set(false);
    eventually("the close", || closer.is_finished());
    closer.join().unwrap().unwrap();
    assert!(matches!(*told.lock().unwrap(), Some(Err(Error::Closed { .. }))));
    assert_eq!(open(&Options::new(), &path).get("held").unwrap().unwrap(), "value");
}
