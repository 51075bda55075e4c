//! The syncs of `SyncPolicy::Every`: an interval after the first append that is not durable.
//!
//! Each sync write-protects the memory of the log that it has written back. So the memory that the next records go to is
//! made ready afterwards.

use std::time::Duration;

use super::retry::after;
use super::wake::{Rester, bit};
use crate::engine::Engine;
use crate::sync::Woken;

/// The least and the most memory of the log that is made ready at a time.
const WARM_BYTES: (u64, u64) = (64 << 10, 16 << 20);

/// Syncs until the store is closed.
pub(super) fn sync_each(engine: &Engine, interval: Duration) {
    let sleeper = &engine.wake.ticker;
    let mut before = engine.log.total();
    loop {
        if !has_unsynced(engine) {
            engine.wake.rest(Rester::Sync);
            if !has_unsynced(engine) && sleeper.wait(bit::SYNC, None) == Woken::Stop {
                return;
            }
            continue;
        }
        if sleeper.wait(0, after(interval)) == Woken::Stop {
            return;
        }
        let (tail, total) = (engine.log.tail(), engine.log.total());
        let written = total - std::mem::replace(&mut before, total);
        if tail > engine.log.durable_lsn() && engine.sync_to(tail).is_ok() {
            // As much as was written since the last time, twice over.
            engine.log.warm_ahead(written.saturating_mul(2).clamp(WARM_BYTES.0, WARM_BYTES.1));
        }
    }
}

/// True if there is something that a sync would make durable.
fn has_unsynced(engine: &Engine) -> bool {
    engine.log.tail() > engine.log.durable_lsn() && engine.health.check_writable().is_ok()
}
