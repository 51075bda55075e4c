//! The syncs of `SyncPolicy::Every`, an interval after the first append that is not durable; and, under each policy, the
//! syncs that calls have asked for without waiting themselves (awaited.rs).
//!
//! Each sync write-protects the memory of the log that it has written back. So under `Every` the memory that the next
//! records go to is made ready afterwards.

use std::time::Duration;

use super::retry::after;
use super::wake::bit;
use crate::engine::Engine;
use crate::mutant::{Mutant, broken};
use crate::sync::Woken;
use crate::tuning::SyncPolicy;

/// The least and the most memory of the log that is made ready at a time.
const WARM_BYTES: (u64, u64) = (64 << 10, 16 << 20);

/// Syncs until the store is closed. The closer does what was asked for by then.
pub(super) fn sync_when_asked(engine: &Engine) {
    let interval = match engine.sync {
        SyncPolicy::Every(interval) => Some(interval),
        _ => None,
    };
    let sleeper = &engine.wake.ticker;
    engine.wake.note_syncing_thread();
    let mut before = engine.log.total();
    loop {
        let synced = if engine.awaited.is_asked() {
            sync_for_others(engine)
        } else {
            match wait(engine, interval) {
                Woken::Stop => return,
                Woken::Rung(_) => false,
                Woken::Timeout => sync(engine),
            }
        };
        // A waker may have closed the store.
        if sleeper.is_stopped() {
            return;
        }
        if synced && interval.is_some() {
            let total = engine.log.total();
            let written = total - std::mem::replace(&mut before, total);
            // As much as was written since the last time, twice over.
            engine.log.warm_ahead(written.saturating_mul(2).clamp(WARM_BYTES.0, WARM_BYTES.1));
        }
    }
}

/// Waits until a sync is asked for, or for the end of the interval after the first append that is not durable.
fn wait(engine: &Engine, interval: Option<Duration>) -> Woken {
    let sleeper = &engine.wake.ticker;
    let Some(interval) = interval else { return sleeper.wait(bit::AWAITED, None) };
    if !has_unsynced(engine) {
        engine.wake.rest(bit::SYNC);
        if !has_unsynced(engine) {
            return sleeper.wait(bit::SYNC | bit::AWAITED, None);
        }
    }
    sleeper.wait(bit::AWAITED, after(interval))
}

/// The sync of an interval. True if there was one.
fn sync(engine: &Engine) -> bool {
    let tail = engine.log.tail();
    tail > engine.log.durable_lsn() && engine.sync_to(tail).is_ok()
}

/// Steps 3 to 5 of awaited.rs. True if there was a sync.
fn sync_for_others(engine: &Engine) -> bool {
    let asked = engine.awaited.asked();
    if broken(Mutant::AwaitedTooShort) {
        engine.awaited.settle(asked);
    }
    let result = engine.sync_for_others(asked);
    engine.awaited.settle(engine.log.durable_lsn());
    if let Err(error) = &result {
        engine.awaited.fail(error);
    }
    result.is_ok()
}

/// True if there is something that a sync would make durable.
fn has_unsynced(engine: &Engine) -> bool {
    engine.log.tail() > engine.log.durable_lsn() && engine.health.check_writable().is_ok()
}
