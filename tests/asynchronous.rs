//! Changes that are awaited: `insert_async` and the like.
//!
//! What is asked for:
//!
//! * **ready means durable**, under each policy, and the caller's thread does not wait for the sync;
//! * **one sync serves all** who wait for it;
//! * **every future ends**: by a sync, by its failure, by a panic of the syncing thread, by closing; a wake-up is never lost;
//! * **a future is no handle**: it keeps nobody from closing, and cancels nothing when it is dropped;
//! * **wakers are code of the caller**: they may poll, write, drop the last handle, close the store, and panic.

mod common;

use std::io;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use common::hooked::Hooked;
use common::{eventually, open, scratch};
use tophash::{Batch, Durable, Error, Options, Store, SyncPolicy, Tuning};

/// Counts its calls.
#[derive(Default)]
struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Count {
    fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// Calls a function.
struct Call<F>(F);

impl<F: Fn() + Send + Sync + 'static> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

fn poll<T>(future: &mut Durable<T>, waker: &Arc<impl Wake + Send + Sync + 'static>) -> Poll<tophash::Result<T>> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
}

/// Waits in this thread.
fn wait<T>(mut future: Durable<T>) -> tophash::Result<T> {
    let this = thread::current();
    let waker = Arc::new(Call(move || this.unpark()));
    loop {
        match poll(&mut future, &waker) {
            Poll::Ready(result) => return result,
            Poll::Pending => thread::park(),
        }
    }
}

/// A poll that must say no.
#[track_caller]
fn pending<T>(future: &mut Durable<T>, waker: &Arc<Count>) {
    assert!(poll(future, waker).is_pending(), "ready too early");
}

fn is_durable(store: &Store) -> bool {
    let log = store.stats().log;
    log.durable_lsn >= log.end_lsn
}

/// The syncs of the syncing thread are held while it is shut, and can fail or panic.
#[derive(Default)]
struct Barrier {
    shut: Mutex<bool>,
    changed: Condvar,
    /// Syncs that have come to it.
    reached: AtomicU64,
    fails: AtomicBool,
    panics: AtomicBool,
}

impl Barrier {
    fn set(&self, shut: bool) {
        *self.shut.lock().unwrap() = shut;
        self.changed.notify_all();
    }

    fn pass(&self) -> io::Result<()> {
        self.reached.fetch_add(1, SeqCst);
        let mut shut = self.shut.lock().unwrap();
        while *shut {
            shut = self.changed.wait(shut).unwrap();
        }
        drop(shut);
        assert!(!self.panics.load(SeqCst), "the disk of this test");
        if self.fails.load(SeqCst) { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
    }

    fn on(self: &Arc<Self>, options: Options) -> Options {
        let barrier = Arc::clone(self);
        let hook = move |call: &'static str, _: &Path| {
            if call == "sync" && thread::current().name() == Some("tophash-sync") { barrier.pass() } else { Ok(()) }
        };
        options.disk(Arc::new(Hooked(Arc::new(hook))))
    }

    /// A future whose sync is held, so that what follows is not part of that sync.
    fn hold(&self, store: &Store) -> Durable {
        self.set(true);
        let before = self.reached.load(SeqCst);
        let first = store.set_async("held", "value");
        eventually("a sync", || self.reached.load(SeqCst) > before);
        first
    }
}

fn policies() -> [SyncPolicy; 3] {
    // An hour is no deadline that a test would meet: the future has asked for its sync.
    [SyncPolicy::Always, SyncPolicy::Manual, SyncPolicy::Every(Duration::from_secs(3600))]
}

/// A store of each policy whose syncs can be held.
fn each(test: impl Fn(Store, Arc<Barrier>, &Path)) {
    for policy in policies() {
        let dir = scratch();
        let barrier = Arc::new(Barrier::default());
        let path = dir.path().join("store");
        let store = open(&barrier.on(Options::new().sync(policy)), &path);
        test(store, barrier, &path);
    }
}

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
