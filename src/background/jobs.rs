//! The jobs of the two workers: a turn of each, and when its next one comes.

use std::time::Duration;

use super::retry::{Retry, after};
use super::wake::bit;
use crate::compaction::online::Turn;
use crate::engine::Engine;
use crate::error::Result;
use crate::log::space::Space;
use crate::sync::{Instant, Sleeper};
use crate::table::Table;
use crate::table_id::TableId;

/// A log is looked at again this long after it was written to: by then it may be quiet.
const PAUSE: Duration = Duration::from_millis(100);
/// So many looks at a log that change nothing are enough, until something happens.
const VAIN_LOOKS: u32 = 8;
/// How often the figures are published, if anybody may want them.
const PUBLISHED: Duration = Duration::from_secs(1);
/// Pages evacuated in a turn. They are few, because a checkpoint's cut waits for them.
const EVACUATE_PAGES: usize = 8;
/// How long growth lets others have what it needs.
const ASIDE: Duration = Duration::from_micros(200);

/// When a job's next turn comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// At once: the turn has ended, and not the work.
    Now,
    /// When its bell is rung, or at a time.
    Rung(Option<Instant>),
    /// At a time, and not before. A ring meanwhile is kept.
    At(Option<Instant>),
}

/// What a worker does, and what it has to remember of it.
#[derive(Debug)]
pub(super) enum Job {
    /// Prepares segments.
    Prepare(Retry),
    /// Grows and shrinks the tables.
    Resize(Resize),
    /// Runs checkpoints.
    Checkpoint(Retry),
    /// Evacuates segments.
    Compact(Watch),
}

/// The jobs of the worker that does what writers would wait for.
pub(super) fn ahead() -> [Job; 2] {
    [Job::Prepare(Retry::new()), Job::Resize(Resize::default())]
}

/// The jobs of the worker that gives space back.
pub(super) fn behind(engine: &Engine) -> [Job; 2] {
    [Job::Checkpoint(Retry::new()), Job::Compact(Watch::new(engine))]
}

impl Job {
    /// The bit of its bell.
    pub(super) fn bit(&self) -> u32 {
        match self {
            Job::Prepare(_) => bit::PREPARE,
            Job::Resize(_) => bit::RESIZE,
            Job::Checkpoint(_) => bit::CHECKPOINT,
            Job::Compact(_) => bit::COMPACT,
        }
    }

    /// Does a turn.
    pub(super) fn turn(&mut self, engine: &Engine, sleeper: &Sleeper) -> Next {
        match self {
            Job::Prepare(retry) => prepare(engine, retry),
            Job::Resize(resize) => resize.turn(engine),
            Job::Checkpoint(retry) => checkpoint(engine, retry),
            Job::Compact(watch) => watch.turn(engine, &|| sleeper.is_stopped()),
        }
    }
}

/// After work that is begun at each ring, and again after an error. A caller who needs what could not be done does not wait
/// for the next try: the call does it, and meets the error.
fn after_attempt<T>(attempt: &Result<T>, retry: &mut Retry) -> Next {
    match attempt {
        Ok(_) => {
            *retry = Retry::new();
            Next::Rung(None)
        }
        Err(_) => Next::At(retry.later()),
    }
}

fn prepare(engine: &Engine, retry: &mut Retry) -> Next {
    let prepared = prepare_ahead(engine);
    // Also on a full disk, because it gives space back.
    if engine.health.check_writable().is_ok() {
        engine.log.cut_ends();
    }
    after_attempt(&prepared, retry)
}

fn prepare_ahead(engine: &Engine) -> Result<()> {
    while engine.health.check_writable().is_ok() {
        engine.checkpointer.provide_meta_room(engine.tables.index(), &engine.log)?;
        if !engine.log.prepare_ahead()? {
            break;
        }
        engine.wake.compaction.ring();
    }
    Ok(())
}

/// The sizes of the tables.
#[derive(Debug, Default)]
pub(super) struct Resize {
    /// Of tables that are being resized, and of those that could not be at this moment.
    under_way: Vec<Sizing>,
}

/// What the job remembers of a table.
#[derive(Debug)]
struct Sizing {
    table: TableId,
    /// The resize under way has its blocks.
    begun: bool,
    retry: Retry,
    /// The last attempt has failed: the next one comes at this time.
    pause: Option<Instant>,
}

impl Resize {
    /// Does a part of what each table's size asks for.
    fn turn(&mut self, engine: &Engine) -> Next {
        if engine.health.check_writable().is_err() {
            return Next::Rung(None);
        }
        let all = engine.tables.all();
        let (mut unfinished, mut at) = (false, None::<Instant>);
        // Those of tables that were dropped meanwhile are forgotten.
        let mut before = std::mem::take(&mut self.under_way);
        let mut put_off = |time: Option<Instant>| at = at.into_iter().chain(time).min();
        for table in &all {
            let mut sizing = take(&mut before, table.id());
            if let Some(pause) = sizing.pause.filter(|&pause| Instant::now() < pause) {
                put_off(Some(pause));
                self.under_way.push(sizing);
                continue;
            }
            sizing.pause = None;
            match sizing.turn(engine, table) {
                Ok(Next::Now) => unfinished = true,
                Ok(Next::At(time)) => put_off(time),
                Ok(Next::Rung(_)) => continue,
                Err(_) => {
                    (sizing.begun, sizing.pause) = (false, sizing.retry.later());
                    put_off(sizing.pause);
                }
            }
            self.under_way.push(sizing);
        }
        match at {
            _ if unfinished => Next::Now,
            // A table that fails again and again must not be woken for by each of its writers.
            Some(_) if all.len() == 1 => Next::At(at),
            at => Next::Rung(at),
        }
    }
}

/// What was remembered of a table, if anything was.
fn take(under_way: &mut Vec<Sizing>, table: TableId) -> Sizing {
    match under_way.iter().position(|sizing| sizing.table == table) {
        Some(at) => under_way.swap_remove(at),
        None => Sizing { table, begun: false, retry: Retry::new(), pause: None },
    }
}

impl Sizing {
    fn turn(&mut self, engine: &Engine, table: &Table) -> Result<Next> {
        if self.begun { self.evacuate(engine, table) } else { self.begin(engine, table) }
    }

    fn begin(&mut self, engine: &Engine, table: &Table) -> Result<Next> {
        // First: growth may want space that the disk does not have, and entries have gone because of that.
        if table.wants_shrink() {
            table.start_shrink(false)?;
        }
        // Writers begin the growth of a tiny table themselves.
        if table.wants_growth() && !table.is_tiny() {
            engine.retry(|| table.prepare_growth())?;
            engine.retry(|| table.start_growth())?;
            engine.checkpointer.prepare_journal(table);
        }
        prepare_overflow(engine, table)?;
        if !table.growth().is_resizing() {
            return Ok(Next::Rung(None));
        }
        table.allocate_ahead()?;
        self.begun = true;
        Ok(Next::Now)
    }

    fn evacuate(&mut self, engine: &Engine, table: &Table) -> Result<Next> {
        if table.growth().is_resizing() {
            prepare_overflow(engine, table)?;
            if engine.retry(|| table.help_growth(EVACUATE_PAGES, engine))? == 0 {
                // Somebody else is at it, or holds the structure for something longer.
                return Ok(Next::At(after(ASIDE)));
            }
            return Ok(Next::Now);
        }
        // Entries that came or went meanwhile asked for nothing, because a resize was under way.
        engine.retry(|| table.start_growth())?;
        table.start_shrink(false)?;
        self.begun = false;
        Ok(Next::Now)
    }
}

/// Adds overflow pages ahead. A table that shrinks may well do without.
fn prepare_overflow(engine: &Engine, table: &Table) -> Result<()> {
    match engine.retry(|| table.prepare_overflow()) {
        Err(error) if table.growth().is_shrinking() && error.can_wait() => Ok(()),
        other => other,
    }
}

fn checkpoint(engine: &Engine, retry: &mut Retry) -> Next {
    if !is_checkpoint_due(engine) {
        *retry = Retry::new();
        return Next::Rung(None);
    }
    // An error has poisoned the store, which every later change says, or it is one of the moment.
    let attempt = engine.checkpoint(false);
    engine.wake.compaction.ring();
    after_checkpoint(&attempt, is_checkpoint_due(engine), retry)
}

/// While a checkpoint writes, others can fill the log so far that the next one is due: it follows at once, because writers
/// may wait for it. It is put off only if this one has failed, or could not let go of something.
fn after_checkpoint(attempt: &Result<bool>, due: bool, retry: &mut Retry) -> Next {
    let done = matches!(attempt, Ok(true));
    if done {
        *retry = Retry::new();
    }
    match (due, done) {
        (false, _) => Next::Rung(None),
        (true, true) => Next::Now,
        (true, false) => Next::At(retry.later()),
    }
}

fn is_checkpoint_due(engine: &Engine) -> bool {
    engine.health.check_writable().is_ok()
        && (engine.checkpointer.is_due(engine.log.total())
            || engine.tables.index().is_half_dirty()
            || engine.log.is_crowded_with_blobs()
            || engine.compactor.frees_space(&engine.log))
}

/// What the compacting job has seen of the log.
#[derive(Debug)]
pub(super) struct Watch {
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

    fn turn(&mut self, engine: &Engine, stop: &dyn Fn() -> bool) -> Next {
        let quiet = self.is_quiet(engine);
        if engine.compact_in_background(quiet, stop) == Turn::Unfinished {
            return Next::Now;
        }
        if quiet {
            engine.checkpointer.trim_journal(engine.tables.index(), &engine.health, false);
        }
        engine.publish_figures();
        let mut look = self.next_look(engine, quiet);
        if look.is_none() {
            // Also with a deadline to come: what is written may expire sooner, or the clock jump.
            engine.wake.rest(bit::COMPACT);
            if self.was_written(engine) {
                look = after(PAUSE);
            }
        }
        let mut until = look.into_iter().chain(next_expiry(engine)).min();
        if cfg!(feature = "metrics") {
            // Reads change the figures as well.
            until = until.into_iter().chain(after(PUBLISHED)).min();
        }
        Next::Rung(until)
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

/// When enough will have expired for another look.
fn next_expiry(engine: &Engine) -> Option<Instant> {
    /// The clock can jump, so it is looked at again after this.
    const AGAIN: Duration = Duration::from_secs(600);
    /// When to look again for what should have gone by now.
    const MISSED: Duration = Duration::from_secs(1);
    let records = engine.compactor.next_expiry(&engine.log);
    let moment = records.into_iter().chain(engine.log.next_large_expiry(engine.tuning.expired_large_bytes)).min()?;
    match moment.saturating_sub(engine.log.now()) {
        // This look could not do it.
        0 => after(MISSED),
        left => after(Duration::from_millis(left).min(AGAIN)),
    }
}

/// True if another look at the log may do what this one could not.
fn has_work(engine: &Engine) -> bool {
    engine.compactor.is_worth_a_look(&engine.log) || engine.log.has_unwritten_ends()
}

#[cfg(all(test, not(shuttle)))]
mod tests {
    use super::*;
    use crate::error::Error;

    /// A checkpoint after which the next one was due was taken for one that had failed. The next one was put off by 100 ms,
    /// then by 200 ms, up to ten seconds, while writers waited in steps of 0.2 ms for what it would free: a churn made half
    /// of its steps. No test saw it, because writers at the very bound of the log run the checkpoint themselves.
    #[test]
    fn a_checkpoint_that_is_due_again_is_not_put_off() {
        let mut retry = Retry::new();
        for _ in 0..20 {
            assert_eq!(after_checkpoint(&Ok(true), true, &mut retry), Next::Now);
        }
        assert_eq!(after_checkpoint(&Ok(true), false, &mut retry), Next::Rung(None));
        assert_eq!(after_checkpoint(&Ok(false), false, &mut retry), Next::Rung(None));
    }

    #[test]
    fn a_checkpoint_that_has_failed_is_put_off_longer_and_longer() {
        let failed = || Err(Error::Closed { path: "store".into() });
        let pause = |attempt: &Result<bool>, retry: &mut Retry| match after_checkpoint(attempt, true, retry) {
            Next::At(Some(until)) => until.saturating_duration_since(Instant::now()),
            other => panic!("{other:?}"),
        };
        let mut retry = Retry::new();
        assert!(pause(&failed(), &mut retry) <= Duration::from_millis(100));
        for _ in 0..9 {
            pause(&Ok(false), &mut retry);
        }
        let long = after_checkpoint(&failed(), true, &mut retry);
        assert!(matches!(long, Next::At(Some(until)) if until > Instant::now() + Duration::from_secs(1)), "{long:?}");
        // One that succeeds begins anew.
        assert_eq!(after_checkpoint(&Ok(true), true, &mut retry), Next::Now);
        assert!(pause(&failed(), &mut retry) <= Duration::from_millis(100));
    }
}
