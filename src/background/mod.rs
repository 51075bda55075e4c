//! The background threads: whatever can be done before somebody has to wait for it.
//!
//! * *segments* prepares the next segment.
//! * *growth* adds the extent for the next growth, begins it when the load asks for it, and evacuates page after
//!   page. A thread of its own, because a segment can take long on a busy disk, and a table that waits for growth
//!   fills up with overflow pages.
//! * *checkpoint* runs checkpoints when enough log has been written or much memory is dirty.
//! * *compact* evacuates segments when the log is over its bound.
//! * *sync* (with `SyncPolicy::Every`) syncs an interval after the first append that is not durable, and makes the
//!   memory ready that the log's next records go to, which each sync has write-protected.
//!
//! Each looks once when the store is opened, and then waits for its bell (wake.rs). It waits with a deadline only if
//! something is due then: a sync; a look at a log that was written to a moment ago; another try after an error.
//!
//! An error here is not reported: whoever needs what could not be done meets it again, in the call that
//! needs it. (A failed sync or checkpoint has poisoned the store, which every later change reports.) A panic poisons the
//! store, because what the thread has promised is not kept any more.

pub(crate) mod wake;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use crate::background::wake::Rester;
use crate::engine::Core;
use crate::error::{IoContext, Result};
use crate::log::space::Space;
use crate::sync::{Bell, Builder, Instant, JoinHandle, Ordering, Woken};
use crate::tuning::SyncPolicy;

/// A log is looked at again this long after it was written to: by then it may be quiet.
const PAUSE: Duration = Duration::from_millis(100);
/// The first and the longest pause after an attempt that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// So many looks at a log that change nothing are enough, until something happens.
const VAIN_LOOKS: u32 = 8;
/// The least and the most memory of the log that is made ready at a time.
const WARM_BYTES: (u64, u64) = (64 << 10, 16 << 20);
/// After so many syncs of fewer bytes a segment for bulk writing is not wanted any more.
const QUIET_SYNCS: u32 = 20;
const QUIET_BYTES: u64 = 1 << 20;
/// How often the figures are published, if anybody may want them.
const PUBLISHED: Duration = Duration::from_secs(1);
/// Pages evacuated at a time.
const EVACUATE_PAGES: usize = 8;
/// How long the growth thread lets others have what it needs.
const TURN: Duration = Duration::from_micros(200);

/// How much less of a busy processor the threads get than those who wait for the store. The syncing thread is not among
/// them: its interval is a promise.
const NICENESS: i32 = 5;

/// What a thread does until the store is closed.
type Work = fn(&Core);

/// Starts the threads of a store. Those that were started are in `threads`, whatever comes of the rest.
pub(crate) fn start(core: &Arc<Core>, threads: &mut Vec<JoinHandle<()>>) -> Result<()> {
    if !core.tuning.background || core.files.is_none() {
        return Ok(());
    }
    let work: [(&'static str, Work); 5] = [
        ("tophash-segment", segments),
        ("tophash-growth", growth),
        ("tophash-ckpt", checkpoints),
        ("tophash-compact", compactions),
        (SYNC, syncs),
    ];
    let has_interval = matches!(core.sync, SyncPolicy::Every(_));
    for (name, work) in work.into_iter().filter(|&(name, _)| has_interval || name != SYNC) {
        threads.push(spawn(core, name, work)?);
    }
    Ok(())
}

/// The syncing thread's name.
const SYNC: &str = "tophash-sync";

fn spawn(core: &Arc<Core>, name: &'static str, work: Work) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(core);
    let thread = Builder::new().name(name.to_string()).spawn(move || {
        if name != SYNC {
            crate::sys::lower_priority(NICENESS);
        }
        // Nothing is looked at afterwards but the poison.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&shared))) {
            shared.poison_because(format!("the background thread {name} has panicked: {}", message(&*panic)));
            resume_unwind(panic);
        }
    });
    thread.context("start a thread for", &core.path)
}

/// What a panic says.
fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Longer and longer pauses between attempts that fail.
struct Retry {
    next: Duration,
}

impl Retry {
    fn new() -> Self {
        Retry { next: RETRY.0 }
    }

    /// When to try again, if this attempt has failed.
    fn after<T>(&mut self, attempt: &Result<T>) -> Option<Instant> {
        if attempt.is_ok() {
            self.next = RETRY.0;
            return None;
        }
        self.later()
    }

    /// When to try again.
    fn later(&mut self) -> Option<Instant> {
        let pause = self.next;
        self.next = (pause * 2).min(RETRY.1);
        after(pause)
    }
}

/// A moment from now; none if it lies beyond all that a clock can tell.
fn after(pause: Duration) -> Option<Instant> {
    Instant::now().checked_add(pause)
}

fn segments(core: &Core) {
    let bell = &core.wake.segment;
    let mut retry = Retry::new();
    loop {
        // Whoever needs a segment at once does not wait for the next try, but tries by himself, and meets the error.
        let woken = match retry.after(&prepare_segments(core)) {
            None => bell.wait(None),
            until => bell.pause(until),
        };
        if woken == Woken::Stop {
            return;
        }
    }
}

fn prepare_segments(core: &Core) -> Result<()> {
    while core.check_writable().is_ok() {
        core.provide_meta_room()?;
        let ahead = core.log.appender.lock().as_ref().map_or(0, |appender| appender.segments_ahead());
        if !core.log.prepare_ahead(ahead)? {
            break;
        }
        core.wake.compaction.ring();
    }
    Ok(())
}

fn growth(core: &Core) {
    let bell = &core.wake.growth;
    let mut retry = Retry::new();
    loop {
        let woken = match retry.after(&resize(core)) {
            None => bell.wait(None),
            until => bell.pause(until),
        };
        if woken == Woken::Stop {
            return;
        }
    }
}

/// Does what the table's size asks for, until it asks for nothing.
fn resize(core: &Core) -> Result<()> {
    let table = &core.table;
    while core.check_writable().is_ok() && !core.wake.is_stopped() {
        if table.growth_wanted.load(Ordering::Relaxed) {
            core.retry(|| table.prepare_growth())?;
            core.retry(|| table.start_growth())?;
            core.prepare_journal();
        }
        core.retry(|| table.prepare_overflow())?;
        if table.shrink_wanted.load(Ordering::Relaxed) {
            table.start_shrink(false)?;
        }
        if !table.growth().is_resizing() {
            break;
        }
        table.allocate_ahead()?;
        drive_growth(core)?;
        // Entries that came or went meanwhile asked for nothing, because a resize was under way.
        core.retry(|| table.start_growth())?;
        table.start_shrink(false)?;
    }
    Ok(())
}

/// Evacuates pages until growth is finished. The pages of one turn are few, because a checkpoint's cut waits for them.
fn drive_growth(core: &Core) -> Result<()> {
    while core.table.growth().is_resizing() && !core.wake.is_stopped() {
        core.retry(|| core.table.prepare_overflow())?;
        if core.retry(|| core.table.help_growth(EVACUATE_PAGES, core))? == 0 {
            // Somebody else is at it, or holds the structure for something longer.
            core.wake.growth.pause(after(TURN));
        }
    }
    Ok(())
}

fn checkpoints(core: &Core) {
    let bell = &core.wake.checkpoint;
    let mut retry = Retry::new();
    loop {
        let until = if is_checkpoint_due(core) {
            // An error has poisoned the store, which every later change says, or it is one of the moment.
            let _ = core.run_checkpoint(false);
            core.wake.compaction.ring();
            if is_checkpoint_due(core) { retry.later() } else { None }
        } else {
            retry = Retry::new();
            None
        };
        let woken = if until.is_some() { bell.pause(until) } else { bell.wait(None) };
        if woken == Woken::Stop {
            return;
        }
    }
}

fn is_checkpoint_due(core: &Core) -> bool {
    core.check_writable().is_ok()
        && (core.log.total() >= core.checkpoint_due.load(Ordering::Relaxed)
            || core.table.dirty.is_half_full()
            || core.log.blobs.is_crowded()
            || core.frees_space())
}

fn compactions(core: &Core) {
    let bell = &core.wake.compaction;
    let mut watch = Watch::new(core);
    loop {
        let quiet = watch.is_quiet(core);
        core.compact_in_background(quiet, &|| core.wake.is_stopped());
        core.publish_figures();
        let mut until = watch.next_look(core, quiet);
        if until.is_none() {
            core.wake.rest(Rester::Compaction);
            if watch.was_written(core) {
                until = after(PAUSE);
            }
        }
        if cfg!(feature = "metrics") {
            // Reads change the figures as well.
            until = until.into_iter().chain(after(PUBLISHED)).min();
        }
        if bell.wait(until) == Woken::Stop {
            return;
        }
    }
}

/// What the compacting thread has seen of the log.
struct Watch {
    /// What others had appended, and when that was found to have changed.
    appended: u64,
    since: Instant,
    /// The space as it was after the last look, and how many looks in a row have changed nothing.
    space: Space,
    vain: u32,
    retry: Retry,
}

impl Watch {
    fn new(core: &Core) -> Self {
        let (appended, space) = (core.appended_by_others(), core.log.space());
        Watch { appended, since: Instant::now(), space, vain: 0, retry: Retry::new() }
    }

    fn was_written(&self, core: &Core) -> bool {
        core.appended_by_others() != self.appended
    }

    /// True if nobody has written for a while.
    fn is_quiet(&mut self, core: &Core) -> bool {
        if self.was_written(core) {
            (self.appended, self.since) = (core.appended_by_others(), Instant::now());
        }
        self.since.elapsed() >= PAUSE
    }

    /// When to look again, should nothing happen before.
    fn next_look(&mut self, core: &Core, quiet: bool) -> Option<Instant> {
        let before = std::mem::replace(&mut self.space, core.log.space());
        self.vain = if before == self.space { self.vain.saturating_add(1) } else { 0 };
        if !quiet || self.vain == 0 {
            self.retry = Retry::new();
        }
        if core.check_writable().is_err() {
            return None;
        }
        match quiet {
            false => after(PAUSE),
            // Nothing tells when a reader lets go of a segment that is freed but for that.
            true if core.log.has_retired() => self.retry.later(),
            true if self.vain < VAIN_LOOKS && core.is_worth_a_look() => self.retry.later(),
            true => None,
        }
    }
}

fn syncs(core: &Core) {
    let SyncPolicy::Every(interval) = core.sync else { return };
    let bell = &core.wake.sync;
    let (mut before, mut quiet) = (core.log.total(), 0);
    loop {
        if !has_unsynced(core) {
            core.wake.rest(Rester::Sync);
            let began = Instant::now();
            if !has_unsynced(core) && bell.wait(None) == Woken::Stop {
                return;
            }
            let intervals = began.elapsed().as_nanos() / interval.as_nanos().max(1);
            quiet = count_quiet(core, quiet, u32::try_from(intervals).unwrap_or(u32::MAX));
            continue;
        }
        if bell.pause(after(interval)) == Woken::Stop {
            return;
        }
        let (tail, total) = (core.log.tail(), core.log.total());
        let written = total - std::mem::replace(&mut before, total);
        quiet = if written < QUIET_BYTES { count_quiet(core, quiet, 1) } else { 0 };
        if tail > core.log.commit.durable() && core.sync_to(tail).is_ok() {
            // As much as was written since the last time, twice over.
            core.log.warm_ahead(written.saturating_mul(2).clamp(WARM_BYTES.0, WARM_BYTES.1));
        }
    }
}

/// True if there is something that a sync would make durable.
fn has_unsynced(core: &Core) -> bool {
    core.log.tail() > core.log.commit.durable() && core.check_writable().is_ok()
}

/// Counts intervals in which little was written.
fn count_quiet(core: &Core, quiet: u32, more: u32) -> u32 {
    let now = quiet.saturating_add(more);
    if quiet < QUIET_SYNCS && now >= QUIET_SYNCS {
        core.log.slow_down();
        core.wake.compaction.ring();
    }
    now
}

impl Core {
    /// Times that background threads were woken, and how many wait for nothing but their bells.
    pub(crate) fn rest(&self) -> (u64, usize) {
        let rests = self.wake.bells().map(Bell::rest);
        (rests.iter().map(|(wakings, _)| wakings).sum(), rests.iter().filter(|(_, rests)| *rests).count())
    }
}
