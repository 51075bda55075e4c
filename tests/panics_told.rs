//! Those who are told of a store's events panic (feature `tracing`). They are told in the middle of protocols and with locks
//! held, so their panic ends nothing but themselves.
#![cfg(feature = "tracing")]

mod common;

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Once};

use common::futures::{Barrier, Count, pending, poll};
use common::{eventually, open, scratch};
use tophash::{Error, Options, SyncPolicy};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Events and spans at which it has panicked.
static PANICS: AtomicU64 = AtomicU64::new(0);

/// Panics at whatever it is told.
struct Panicking;

fn panics() {
    PANICS.fetch_add(1, SeqCst);
    panic!("the subscriber of this test");
}

struct Nothing;

impl Visit for Nothing {
    fn record_debug(&mut self, _: &Field, _: &dyn Debug) {}
}

impl Subscriber for Panicking {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tophash")
    }
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Nothing);
        panics();
    }
    fn record(&self, _: &Id, _: &Record<'_>) {}
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {
        panics();
    }
    fn exit(&self, _: &Id) {
        panics();
    }
}

fn subscribe() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::subscriber::set_global_default(Panicking).unwrap();
        // Thousands of them are told on the way.
        std::panic::set_hook(Box::new(|_| ()));
    });
}

/// The panic of a subscriber that was told of a cut ended the checkpoint after it had taken the dirty pages. They were in no
/// later one, and a clean close lost a thousand changes that had been synced.
#[test]
fn a_store_does_its_work_whatever_becomes_of_what_it_tells() {
    subscribe();
    let dir = scratch();
    for background in [false, true] {
        let path = dir.path().join(background.to_string());
        let tuning = tophash::Tuning { background, ..common::tiny() };
        let options = common::tiny_options().tuning(tuning);
        let store = open(&options, &path);
        for round in 0..3u64 {
            (0..600u64).for_each(|n| store.set(n.to_le_bytes(), round.to_le_bytes()).unwrap());
            store.checkpoint().unwrap();
        }
        (0..500u64).for_each(|n| store.delete(n.to_le_bytes()).map(drop).unwrap());
        store.compact().unwrap();
        store.shrink_to_fit().unwrap();
        assert!(store.stats().poisoned.is_none() && store.stats().index.growths > 0);
        store.close().unwrap();
        let again = open(&options, &path);
        assert!(again.len() == 100 && !again.stats().recovery.was_unclean);
        (500..600u64).for_each(|n| assert_eq!(again.get(n.to_le_bytes()).unwrap().unwrap(), 2u64.to_le_bytes()));
        again.close().unwrap();
    }
    assert!(PANICS.load(SeqCst) > 100, "{PANICS:?}");
}

/// A sync failed, and the subscriber was told before the poison was set: its panic ended the syncing thread, nothing was poisoned,
/// and a future waited for ever.
#[test]
fn a_store_is_poisoned_whoever_is_told() {
    subscribe();
    let dir = scratch();
    let path = dir.path().join("store");
    let barrier = Arc::new(Barrier::default());
    let store = open(&barrier.on(Options::new().sync(SyncPolicy::Manual)), &path);
    let waker = Arc::<Count>::default();
    let mut held = barrier.hold(&store);
    pending(&mut held, &waker);
    barrier.fails.store(true, SeqCst);
    barrier.set(false);
    eventually("the wake-up", || waker.get() == 1);
    assert!(poll(&mut held, &waker).is_ready());
    assert!(matches!(store.set("later", "1"), Err(Error::Poisoned { .. })));
}
