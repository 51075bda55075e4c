//! The background threads: work that can be done before somebody has to wait for it.
//!
//! Two workers do four jobs (jobs.rs), each in turns that end soon, so that a job never waits long for the other one:
//!
//! | thread | job | |
//! |---|---|---|
//! | *tophash-ahead*: what writers would wait for | prepare | the next segment is prepared, and sealed ones are cut to their ends |
//! | | resize | the extent for the next growth is added; growth begins when the load asks for it; pages are evacuated |
//! | *tophash-behind*: what gives space back | checkpoint | when enough log has been written or much memory is dirty |
//! | | compact | segments are evacuated when the log is over its bound; what is quiet is trimmed |
//! | *tophash-sync* (ticker.rs), with `SyncPolicy::Every`, and else from the first call on that asks for it | | the log is synced an interval after the first append that is not durable, and when a call has asked for it |
//!
//! Each job looks once when the store is opened, and then waits for its bell (wake.rs). A thread waits with a deadline only
//! if something is due then: a sync; a look at a log that was written to a moment ago; another try after an error.
//!
//! An error here is not reported: a call that needs what could not be done does it itself, and meets the error. (A failed
//! sync or checkpoint has poisoned the store, which every later change reports.) A panic poisons the store, because what
//! the thread has promised is not kept any more.

mod jobs;
mod retry;
mod ticker;
pub(crate) mod wake;
mod worker;

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;

use crate::engine::Engine;
use crate::error::{IoContext, Result};
use crate::sync::{Builder, JoinHandle, Sleeper};
use crate::tuning::SyncPolicy;

/// How much less of a busy processor the workers get than those who wait for the store.
const NICENESS: i32 = 5;
/// The syncing thread.
const SYNCING: &str = "tophash-sync";

/// Starts the threads of a store. Those that were started are in `threads`, whatever comes of the rest.
pub(crate) fn start(engine: &Arc<Engine>, threads: &mut Vec<JoinHandle<()>>) -> Result<()> {
    if !engine.tuning.background || engine.health.is_read_only() {
        return Ok(());
    }
    let nice = || crate::sys::lower_priority(NICENESS);
    threads.push(spawn(engine, "tophash-ahead", move |engine| {
        nice();
        worker::work(engine, &engine.wake.ahead, jobs::ahead());
    })?);
    threads.push(spawn(engine, "tophash-behind", move |engine| {
        nice();
        worker::work(engine, &engine.wake.behind, jobs::behind(engine));
    })?);
    if matches!(engine.sync, SyncPolicy::Every(_)) {
        start_syncing(engine, threads)?;
    }
    Ok(())
}

/// Starts the syncing thread, if there is none. The caller holds the lock of the threads.
pub(crate) fn start_syncing(engine: &Arc<Engine>, threads: &mut Vec<JoinHandle<()>>) -> Result<()> {
    if !engine.wake.is_syncing() {
        // No less of a busy processor than others: its interval is a promise.
        threads.push(spawn(engine, SYNCING, ticker::sync_when_asked)?);
        engine.wake.set_syncing();
    }
    Ok(())
}

fn spawn(
    engine: &Arc<Engine>,
    name: &'static str,
    work: impl FnOnce(&Engine) + Send + 'static,
) -> Result<JoinHandle<()>> {
    let shared = Arc::clone(engine);
    let thread = Builder::new().name(name.to_string()).spawn(move || {
        // Nothing is looked at afterwards but the poison.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(&shared))) {
            let cause = format!("the background thread {name} has panicked: {}", message(&*panic));
            shared.health.poison_because(cause.clone());
            if name == SYNCING {
                shared.awaited.give_up(&cause);
            }
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

impl Engine {
    /// Times that background threads were woken, and how many wait for nothing but their bells.
    pub(crate) fn rest(&self) -> (u64, usize) {
        let rests = self.wake.sleepers().map(Sleeper::rest);
        (rests.iter().map(|(wakings, _)| wakings).sum(), rests.iter().filter(|(_, rests)| *rests).count())
    }
}
