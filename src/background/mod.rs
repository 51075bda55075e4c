//! The background threads: whatever can be done before somebody has to wait for it.
//!
//! * *segments* prepares the next segment, and cuts sealed ones to their ends.
//! * *growth* adds the extent for the next growth, begins it when the load asks for it, and evacuates page after
//!   page. A thread of its own, because a segment can take long on a busy disk, and a table that waits for growth
//!   fills up with overflow pages.
//! * *checkpoint* runs checkpoints when enough log has been written or much memory is dirty.
//! * *compact* evacuates segments when the log is over its bound, and cuts sealed ones to their ends as well.
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
use crate::engine::Engine;
use crate::error::{IoContext, Result};
use crate::log::space::Space;
use crate::sync::{Bell, Builder, Instant, JoinHandle, Woken};
use crate::tuning::SyncPolicy;

/// A log is looked at again this long after it was written to: by then it may be quiet.
const PAUSE: Duration = Duration::from_millis(100);
/// The first and the longest pause after an attempt that failed.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));
/// So many looks at a log that change nothing are enough, until something happens.
const VAIN_LOOKS: u32 = 8;
/// The least and the most memory of the log that is made ready at a time.
const WARM_BYTES: (u64, u64) = (64 << 10, 16 << 20);
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
type Work = fn(&Engine);

/// Starts the threads of a store. Those that were started are in `threads`, whatever comes of the rest.
pub(crate) fn start(engine: &Arc<Engine>, threads: &mut Vec<JoinHandle<()>>) -> Result<()> {
    if !engine.tuning.background || engine.health.is_read_only() {
        return Ok(());
    }
    let work: [(&'static str, Work); 5] = [
        ("tophash-segment", segments),
        ("tophash-growth", growth),
        ("tophash-ckpt", checkpoints),
        ("tophash-compact", compactions),
        (SYNC, syncs),
    ];
    let has_interval = matches!(engine.sync, SyncPolicy::Every(_));
    for (name, work) in work.into_iter().filter(|&(name, _)| has_interval || name != SYNC) {
        threads.push(spawn(engine, name, work)?);
    }
    Ok(())
}

/// The syncing thread's name.
const SYNC: &str = "tophash-sync";

fn spawn(engine: &Arc<Engine>, name: &'static str, work: Work) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(engine);
    let thread = Builder::new().name(name.to_string()).spawn(move || {
        if name != SYNC {
            crate::sys::lower_priority(NICENESS);
        }
        // Nothing is looked at afterwards but the poison.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&shared))) {
            shared.health.poison_because(format!("the background thread {name} has panicked: {}", message(&*panic)));
            resume_unwind(panic);
        }
    });
    thread.context("start a thread for", &engine.path)
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

/// Does the work at each ring, and again after an error. A caller who needs what could not be done does not wait for the
/// next try: the call does it, and meets the error.
fn at_each_ring(engine: &Engine, bell: &Bell, work: fn(&Engine) -> Result<()>) {
    let mut retry = Retry::new();
    loop {
        let woken = match retry.after(&work(engine)) {
            None => bell.wait(None),
            until => bell.pause(until),
        };
        if woken == Woken::Stop {
            return;
        }
    }
}

fn segments(engine: &Engine) {
    at_each_ring(engine, &engine.wake.segment, prepare_segments);
}

fn prepare_segments(engine: &Engine) -> Result<()> {
    let prepared = prepare_ahead(engine);
    // Also on a full disk, because it gives space back.
    if engine.health.check_writable().is_ok() {
        engine.log.cut_ends();
    }
    prepared
}

fn prepare_ahead(engine: &Engine) -> Result<()> {
    while engine.health.check_writable().is_ok() {
        engine.checkpointer.provide_meta_room(&engine.table, &engine.log)?;
        if !engine.log.prepare_ahead()? {
            break;
        }
        engine.wake.compaction.ring();
    }
    Ok(())
}

fn growth(engine: &Engine) {
    at_each_ring(engine, &engine.wake.growth, resize);
}

/// Does what the table's size asks for, until it asks for nothing.
fn resize(engine: &Engine) -> Result<()> {
    let table = &engine.table;
    while engine.health.check_writable().is_ok() && !engine.wake.is_stopped() {
        if table.wants_growth() {
            engine.retry(|| table.prepare_growth())?;
            engine.retry(|| table.start_growth())?;
            engine.checkpointer.prepare_journal(&engine.table);
        }
        engine.retry(|| table.prepare_overflow())?;
        if table.wants_shrink() {
            table.start_shrink(false)?;
        }
        if !table.growth().is_resizing() {
            break;
        }
        table.allocate_ahead()?;
        drive_growth(engine)?;
        // Entries that came or went meanwhile asked for nothing, because a resize was under way.
        engine.retry(|| table.start_growth())?;
        table.start_shrink(false)?;
    }
    Ok(())
}

/// Evacuates pages until growth is finished. The pages of one turn are few, because a checkpoint's cut waits for them.
fn drive_growth(engine: &Engine) -> Result<()> {
    while engine.table.growth().is_resizing() && !engine.wake.is_stopped() {
        engine.retry(|| engine.table.prepare_overflow())?;
        if engine.retry(|| engine.table.help_growth(EVACUATE_PAGES, engine))? == 0 {
            // Somebody else is at it, or holds the structure for something longer.
            engine.wake.growth.pause(after(TURN));
        }
    }
    Ok(())
}

fn checkpoints(engine: &Engine) {
    let bell = &engine.wake.checkpoint;
    let mut retry = Retry::new();
    loop {
        let until = if is_checkpoint_due(engine) {
            // An error has poisoned the store, which every later change says, or it is one of the moment.
            let _ = engine.run_checkpoint(false);
            engine.wake.compaction.ring();
            if is_checkpoint_due(engine) { retry.later() } else { None }
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

fn is_checkpoint_due(engine: &Engine) -> bool {
    engine.health.check_writable().is_ok()
        && (engine.checkpointer.is_due(engine.log.total())
            || engine.table.dirty.is_half_full()
            || engine.log.blobs.is_crowded()
            || engine.compactor.frees_space(&engine.log))
}

fn compactions(engine: &Engine) {
    let bell = &engine.wake.compaction;
    let mut watch = Watch::new(engine);
    loop {
        let quiet = watch.is_quiet(engine);
        engine.compact_in_background(quiet, &|| engine.wake.is_stopped());
        if quiet {
            engine.checkpointer.trim_journal(&engine.table, &engine.health, false);
        }
        engine.publish_figures();
        let mut until = watch.next_look(engine, quiet);
        if until.is_none() {
            engine.wake.rest(Rester::Compaction);
            if watch.was_written(engine) {
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
    fn new(engine: &Engine) -> Self {
        let (appended, space) = (engine.compactor.appended_by_others(&engine.log), engine.log.space());
        Watch { appended, since: Instant::now(), space, vain: 0, retry: Retry::new() }
    }

    fn was_written(&self, engine: &Engine) -> bool {
        engine.compactor.appended_by_others(&engine.log) != self.appended
    }

    /// True if nobody has written for a while.
    fn is_quiet(&mut self, engine: &Engine) -> bool {
        if self.was_written(engine) {
            (self.appended, self.since) = (engine.compactor.appended_by_others(&engine.log), Instant::now());
        }
        self.since.elapsed() >= PAUSE
    }

    /// When to look again, should nothing happen before.
    fn next_look(&mut self, engine: &Engine, quiet: bool) -> Option<Instant> {
        let before = std::mem::replace(&mut self.space, engine.log.space());
        self.vain = if before == self.space { self.vain.saturating_add(1) } else { 0 };
        if !quiet || self.vain == 0 {
            self.retry = Retry::new();
        }
        if engine.health.check_writable().is_err() {
            return None;
        }
        match quiet {
            false => after(PAUSE),
            // Nothing tells when a reader lets go of a segment that is freed but for that.
            true if engine.log.has_retired() => self.retry.later(),
            true if self.vain < VAIN_LOOKS && has_work(engine) => self.retry.later(),
            true => None,
        }
    }
}

/// True if another look at the log may do what this one could not.
fn has_work(engine: &Engine) -> bool {
    engine.compactor.is_worth_a_look(&engine.log) || engine.log.has_unwritten_ends()
}

fn syncs(engine: &Engine) {
    let SyncPolicy::Every(interval) = engine.sync else { return };
    let bell = &engine.wake.sync;
    let mut before = engine.log.total();
    loop {
        if !has_unsynced(engine) {
            engine.wake.rest(Rester::Sync);
            if !has_unsynced(engine) && bell.wait(None) == Woken::Stop {
                return;
            }
            continue;
        }
        if bell.pause(after(interval)) == Woken::Stop {
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

impl Engine {
    /// Times that background threads were woken, and how many wait for nothing but their bells.
    pub(crate) fn rest(&self) -> (u64, usize) {
        let rests = self.wake.bells().map(Bell::rest);
        (rests.iter().map(|(wakings, _)| wakings).sum(), rests.iter().filter(|(_, rests)| *rests).count())
    }
}
