//! The background threads: whatever can be done before somebody has to wait for it.
//!
//! * *segments* prepares the next segment.
//! * *growth* adds the extent for the next growth, begins it when the load asks for it, and drives it to its
//!   end when no writes do. A thread of its own, because a segment can take long on a busy disk, and a table
//!   that waits for growth fills up with overflow pages.
//! * *checkpoint* runs checkpoints when enough log has been written or much memory is dirty.
//! * *compact* evacuates segments when the log is over its bound.
//! * *sync* (with `SyncPolicy::Every`) syncs at the interval.
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
/// Pages evacuated at a time when no writes help.
const EVACUATE_PAGES: usize = 64;
/// How long the store must have been without inserts before the growth thread evacuates pages itself.
const QUIET: Duration = Duration::from_millis(20);

/// What a thread does until the store is closed.
type Work = fn(&Core);

/// Starts the threads of a store.
pub(crate) fn start(core: &Arc<Core>) -> Result<Vec<JoinHandle<()>>> {
    let mut threads: Vec<JoinHandle<()>> = Vec::new();
    if !core.tuning.background || core.files.is_none() {
        return Ok(threads);
    }
    let work: [(&str, Work); 5] = [
        ("tophash-segment", segments),
        ("tophash-growth", growth),
        ("tophash-ckpt", checkpoints),
        ("tophash-compact", compactions),
        ("tophash-sync", syncs),
    ];
    for (name, work) in work {
        if name == "tophash-sync" && !matches!(core.sync, SyncPolicy::Every(_)) {
            continue;
        }
        let shared = Arc::clone(core);
        let thread = Builder::new().name(name.to_string()).spawn(move || work(&shared));
        match thread.context("start a thread for", &core.path) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                core.wake.stop();
                for thread in threads {
                    let _ = thread.join();
                }
                return Err(error);
            }
        }
    }
    Ok(threads)
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

/// Finishes growth while nobody inserts.
fn drive_growth(core: &Core) {
    while core.table.growth().is_resizing() {
        let before = core.table.inserts();
        if core.wake.sleep(QUIET) == Woken::Stop || core.table.inserts() != before {
            return;
        }
        while core.table.growth().is_resizing() && core.table.inserts() == before {
            let done = core.retry(|| core.table.help_growth(EVACUATE_PAGES, core));
            if !matches!(done, Ok(pages) if pages > 0) {
                return;
            }
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
    while core.wake.sleep(interval) != Woken::Stop {
        let tail = core.log.tail();
        if tail > core.log.commit.durable() && core.poisoned().is_none() {
            // As above.
            let _ = core.sync_to(tail);
        }
    }
}
