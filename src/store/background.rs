//! The background threads: whatever can be done before somebody has to wait for it.
//!
//! * *segments* prepares the next segment.
//! * *growth* adds the extent for the next growth, begins it when the load asks for it, and evacuates page after
//!   page. A thread of its own, because a segment can take long on a busy disk, and a table that waits for growth
//!   fills up with overflow pages.
//! * *checkpoint* runs checkpoints when enough log has been written or much memory is dirty.
//! * *compact* evacuates segments when the log is over its bound.
//! * *sync* (with `SyncPolicy::Every`) syncs at the interval.
//! * *warm* (with the same) makes the memory ready that the log's next records go to, which each sync has write-protected.
//!
//! An error here is not reported: whoever needs what could not be done meets it again, in the call that
//! needs it. (A failed sync or checkpoint has poisoned the store, which every later change reports.)

use std::sync::Arc;
use std::time::Duration;

use crate::error::{IoContext, Result};
use crate::options::SyncPolicy;
use crate::store::core::{Core, Woken};
use crate::sync::{Builder, JoinHandle, Ordering};

/// How often the threads look around without being woken.
const PAUSE: Duration = Duration::from_millis(100);
/// How often the checkpoint thread looks at the dirty set without being woken.
const CHECKPOINT_PAUSE: Duration = Duration::from_millis(50);
/// How often the warming thread looks while records are written.
const WARM_PAUSE: Duration = Duration::from_millis(2);
/// The least and the most that it makes ready at a time.
const WARM_BYTES: (u64, u64) = (64 << 10, 2 << 20);
/// After so many syncs of fewer bytes a segment for bulk writing is not wanted any more.
const QUIET_SYNCS: u32 = 20;
const QUIET_BYTES: u64 = 1 << 20;
/// Pages evacuated at a time.
const EVACUATE_PAGES: usize = 8;
/// How long the growth thread lets others have what it needs.
const TURN: Duration = Duration::from_micros(200);

/// How much less of a busy processor the threads get than those who wait for the store. The syncing thread is not among
/// them: its interval is a promise.
const NICENESS: i32 = 5;

/// What a thread does until the store is closed.
type Work = fn(&Core);

/// Starts the threads of a store, that is to say the first of them, which starts the others: an open does not wait for
/// all of them.
pub(crate) fn start(core: &Arc<Core>) -> Result<Option<JoinHandle<()>>> {
    if !core.tuning.background || core.files.is_none() {
        return Ok(None);
    }
    spawn(core, "tophash-segment", first).map(Some)
}

fn spawn(core: &Arc<Core>, name: &str, work: impl FnOnce(&Arc<Core>) + Send + 'static) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(core);
    let modest = name != "tophash-sync";
    let thread = Builder::new().name(name.to_string()).spawn(move || {
        if modest {
            crate::sys::lower_priority(NICENESS);
        }
        work(&shared);
    });
    thread.context("start a thread for", &core.path)
}

/// Starts the other threads, and then prepares segments.
fn first(core: &Arc<Core>) {
    let work: [(&str, Work); 5] = [
        ("tophash-growth", growth),
        ("tophash-ckpt", checkpoints),
        ("tophash-compact", compactions),
        ("tophash-sync", syncs),
        ("tophash-warm", warm),
    ];
    let for_intervals = ["tophash-sync", "tophash-warm"];
    let has_intervals = matches!(core.sync, SyncPolicy::Every(_));
    let mut others = Vec::new();
    for (name, work) in work.into_iter().filter(|(name, _)| has_intervals || !for_intervals.contains(name)) {
        match spawn(core, name, move |core| work(core)) {
            Ok(thread) => others.push(thread),
            // A store without one of its threads would break its promises, if only that of the syncs.
            Err(error) => core.poison(&error),
        }
    }
    segments(core);
    for thread in others {
        // A panic in it has been printed.
        let _ = thread.join();
    }
}

fn segments(core: &Core) {
    while core.wake.wait_segment(PAUSE) != Woken::Stop {
        if core.check_writable().is_err() {
            continue;
        }
        // If the disk is full, the call that needs the room says so.
        let _ = core.provide_meta_room();
        loop {
            let ahead = core.log.appender.lock().as_ref().map_or(0, |appender| appender.segments_ahead());
            // As above.
            if !matches!(core.log.prepare_ahead(ahead), Ok(true)) {
                break;
            }
            core.wake.compaction();
        }
    }
}

fn growth(core: &Core) {
    while core.wake.wait_growth(PAUSE) != Woken::Stop {
        if core.check_writable().is_err() {
            continue;
        }
        // If the disk is full, the calls that need the room say so.
        if core.table.growth_wanted.load(Ordering::Relaxed) {
            let _ = core.retry(|| core.table.prepare_growth());
            let _ = core.retry(|| core.table.start_growth());
            core.prepare_journal();
        }
        let _ = core.retry(|| core.table.prepare_overflow());
        if core.table.shrink_wanted.load(Ordering::Relaxed) {
            // Cannot fail but for a damaged page, which those who need it report.
            let _ = core.table.start_shrink(false);
        }
        if core.table.growth().is_resizing() {
            let _ = core.table.allocate_ahead();
        }
        drive_growth(core);
    }
}

/// Evacuates pages until growth is finished. The pages of one turn are few, because a checkpoint's cut waits for them.
fn drive_growth(core: &Core) {
    while core.table.growth().is_resizing() && !core.wake.is_stopped() {
        // As above.
        let _ = core.retry(|| core.table.prepare_overflow());
        match core.retry(|| core.table.help_growth(EVACUATE_PAGES, core)) {
            // Somebody else is at it, or holds the structure for something longer.
            Ok(0) => _ = core.wake.sleep(TURN),
            Ok(_) => {}
            Err(_) => return,
        }
    }
}

fn checkpoints(core: &Core) {
    loop {
        let woken = core.wake.wait_checkpoint(CHECKPOINT_PAUSE);
        if woken == Woken::Stop {
            return;
        }
        if core.poisoned().is_some() {
            continue;
        }
        let dirty_half = core.table.dirty.len() > core.limit_pages / 2;
        let due = core.log.total() >= core.checkpoint_due.load(Ordering::Relaxed);
        if due || dirty_half || core.log.blobs.is_crowded() || core.frees_space() {
            // An error has poisoned the store; every later change says so.
            let _ = core.run_checkpoint(false);
        }
    }
}

fn compactions(core: &Core) {
    while core.wake.wait_compaction(PAUSE) != Woken::Stop {
        core.compact_in_background(&|| core.wake.is_stopped());
        core.publish_figures();
    }
}

fn syncs(core: &Core) {
    let SyncPolicy::Every(interval) = core.sync else { return };
    let (mut before, mut quiet) = (core.log.total(), 0);
    while core.wake.sleep(interval) != Woken::Stop {
        let (tail, total) = (core.log.tail(), core.log.total());
        let written = total - std::mem::replace(&mut before, total);
        quiet = if written < QUIET_BYTES { quiet + 1 } else { 0 };
        if quiet == QUIET_SYNCS {
            core.log.slow_down();
        }
        if tail > core.log.commit.durable() && core.poisoned().is_none() {
            // As above.
            let _ = core.sync_to(tail);
        }
    }
}

fn warm(core: &Core) {
    let (mut pause, mut before) = (PAUSE, core.log.total());
    while core.wake.sleep(pause) != Woken::Stop {
        let total = core.log.total();
        let written = total - std::mem::replace(&mut before, total);
        if written > 0 && core.poisoned().is_none() {
            // As much as was written since the last time, twice over, if that was a moment ago.
            core.log.warm_ahead((written * 2).clamp(WARM_BYTES.0, WARM_BYTES.1));
        }
        pause = if written > 0 { WARM_PAUSE } else { PAUSE };
    }
}
