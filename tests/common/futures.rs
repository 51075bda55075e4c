//! Futures of changes: polled by hand, waited for in a thread, and stores whose syncs can be held.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

use tophash::{Durable, Options, Store, SyncPolicy};

use super::hooked::Hooked;
use super::{eventually, open, scratch};

/// Counts its calls.
#[derive(Default)]
pub struct Count(AtomicU64);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, SeqCst);
    }
}

impl Count {
    pub fn get(&self) -> u64 {
        self.0.load(SeqCst)
    }
}

/// Calls a function.
pub struct Call<F>(pub F);

impl<F: Fn() + Send + Sync + 'static> Wake for Call<F> {
    fn wake(self: Arc<Self>) {
        (self.0)();
    }
}

pub fn poll<T>(future: &mut Durable<T>, waker: &Arc<impl Wake + Send + Sync + 'static>) -> Poll<tophash::Result<T>> {
    Pin::new(future).poll(&mut Context::from_waker(&Waker::from(Arc::clone(waker))))
}

/// Waits in this thread.
pub fn wait<T>(mut future: Durable<T>) -> tophash::Result<T> {
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
pub fn pending<T>(future: &mut Durable<T>, waker: &Arc<Count>) {
    assert!(poll(future, waker).is_pending(), "ready too early");
}

pub fn is_durable(store: &Store) -> bool {
    let log = store.stats().log;
    log.durable_lsn >= log.end_lsn
}

/// The syncs of the syncing thread are held while it is shut, and can fail or panic.
#[derive(Default)]
pub struct Barrier {
    shut: Mutex<bool>,
    changed: Condvar,
    /// Syncs that have come to it.
    pub reached: AtomicU64,
    pub fails: AtomicBool,
    pub panics: AtomicBool,
}

impl Barrier {
    pub fn set(&self, shut: bool) {
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

    pub fn on(self: &Arc<Self>, options: Options) -> Options {
        let barrier = Arc::clone(self);
        let hook = move |call: &'static str, _: &Path| {
            if call == "sync" && thread::current().name() == Some("tophash-sync") { barrier.pass() } else { Ok(()) }
        };
        options.disk(Arc::new(Hooked(Arc::new(hook))))
    }

    /// A future whose sync is held, so that what follows is not part of that sync.
    pub fn hold(&self, store: &Store) -> Durable {
        self.set(true);
        let before = self.reached.load(SeqCst);
        let first = store.set_async("held", "value");
        eventually("a sync", || self.reached.load(SeqCst) > before);
        first
    }
}

pub fn policies() -> [SyncPolicy; 3] {
    // An hour is no deadline that a test would meet: the future has asked for its sync.
    [SyncPolicy::Always, SyncPolicy::Manual, SyncPolicy::Every(Duration::from_secs(3600))]
}

/// A store of each policy whose syncs can be held.
pub fn each(test: impl Fn(Store, Arc<Barrier>, &Path)) {
    for policy in policies() {
        let dir = scratch();
        let barrier = Arc::new(Barrier::default());
        let path = dir.path().join("store");
        let store = open(&barrier.on(Options::new().sync(policy)), &path);
        test(store, barrier, &path);
    }
}
