//! The fault layer: every call that a script makes fails, in every way that it can fail, once and for ever.
//!
//! Whatever fails:
//!
//! * there is no panic, and the error is of the type that says what happened; a call that was interrupted or did
//!   less than it was asked for is repeated, so that nobody sees an error;
//! * a step that failed has not happened; if its own sync failed (`Always`), it has happened or not. A removal of many
//!   keys keeps the part that it made. That stays so;
//! * if an fsync of a file failed that is still used, the store is poisoned: no change, no checkpoint, not one
//!   call that could write, also not when it is dropped; reads go on;
//! * if the disk is full, reads go on, removals go on for a while, and when there is room again the store goes on
//!   without being opened again.
//!
//! Then the process dies and the machine goes on, whose page cache shows what a failed fsync has not written. The
//! store is opened on a healthy disk, used and synced, and then the power fails: nothing that was acknowledged may
//! be lost. And the power fails at once, and where an fsync had failed at each boundary of that recovery.

use std::path::Path;

use tophash::{Error, Options, Store, SyncPolicy};

use crate::crash::{Depth, Fate, after, caught, choices};
use crate::disk::SimDisk;
use crate::faults::{Fault, FaultPlan};
use crate::image::Image;
use crate::oracle::{Content, History, Model, carry_out, content_of, has_tables};
use crate::random::Random;
use crate::recorder::{Boundary, Bounds};
use crate::run::{STORE, blank, kill};
use crate::script::{Op, Script, Value};
use crate::world::Call;

/// One call that fails.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its number.
    pub at: u64,
    /// What it is.
    pub call: Call,
    /// How it fails.
    pub fault: Fault,
    /// And every later one of its kind.
    pub for_ever: bool,
}

/// What was done.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Calls of the scripts.
    pub calls: u64,
    /// Faults tried.
    pub faults: u64,
    /// Stores opened again.
    pub reopened: u64,
    /// Stores that were poisoned, as they had to be.
    pub poisoned: u64,
    /// Errors that the store returned.
    pub errors: u64,
    /// Removals that went on on a full disk.
    pub removals: u64,
}

impl Tally {
    /// Adds another one.
    pub fn add(&mut self, other: &Tally) {
        self.calls += other.calls;
        self.faults += other.faults;
        self.reopened += other.reopened;
        self.poisoned += other.poisoned;
        self.errors += other.errors;
        self.removals += other.removals;
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "calls {}, faults {}, reopened {}, poisoned {}, typed errors {}, removals on a full disk {}",
            self.calls, self.faults, self.reopened, self.poisoned, self.errors, self.removals
        )
    }
}

/// Steps of the script that follow the fault.
const STEPS_AFTER: u32 = 5;
/// A file system that could not write its names lets nobody write afterwards: there is nothing to go on with.
const GONE: &str = "the file system is gone";
/// Images made of a boundary.
const DEPTH: Depth = Depth { exhaustive: 1, random: 1, each: 1, torn: 1, tears: 2 };

/// Every way in which every call of a script can fail.
///
/// # Errors
/// If the script fails although no call does.
pub fn cases(script: &Script, seed: u64) -> Result<Vec<Case>, String> {
    let mut run = Run::new(script, seed, None);
    run.disk.set_faults(Some(FaultPlan::count()));
    run.script()?;
    let log = run.disk.faults().and_then(|plan| plan.log).unwrap_or_default();
    let fitting = |(at, &call)| {
        let faults = Fault::ALL.into_iter().filter(move |fault| fault.fits(call));
        faults.flat_map(move |fault| [false, true].map(|for_ever| Case { at: at as u64, call, fault, for_ever }))
    };
    Ok(log.iter().enumerate().flat_map(fitting).collect())
}

/// Carries a script out with one call failing, and checks all that must be true then.
///
/// # Errors
/// In words: what was not.
pub fn run(script: &Script, seed: u64, case: Case) -> Result<Tally, String> {
    let mut run = Run::new(script, seed, Some(case));
    run.disk.set_faults(Some(FaultPlan::new(case.at, case.fault, case.for_ever)));
    let result = caught(|| {
        let end = run.script()?;
        run.end(end)
    });
    run.tally.faults = u64::from(run.hit());
    let result = if result.as_ref().is_err_and(|what| what.ends_with(GONE)) { Ok(()) } else { result };
    result.map_err(|what| format!("{}, {case:?}: {what}", script.name))?;
    Ok(run.tally)
}

struct Run<'s> {
    script: &'s Script,
    case: Option<Case>,
    disk: SimDisk,
    options: Options,
    model: Model,
    bounds: Bounds,
    poisoned: bool,
    /// A first error was met, after which nothing is certain to go on.
    failed: bool,
    tally: Tally,
    random: Random,
}

impl<'s> Run<'s> {
    fn new(script: &'s Script, seed: u64, case: Option<Case>) -> Self {
        let disk = SimDisk::new(blank(), seed);
        let options = script.options(&disk);
        let mut keys = History::of(script).keys;
        // Those that are put besides.
        keys.extend([1, 2].map(crate::script::key));
        keys.sort_unstable();
        keys.dedup();
        let (bounds, tally) = (Bounds::default(), Tally::default());
        let (model, random) = (Model::new(Content::new(), keys), Random::new(seed));
        Run { script, case, disk, options, model, bounds, poisoned: false, failed: false, tally, random }
    }

    fn hit(&self) -> bool {
        self.disk.faults().is_none_or(|plan| plan.hit.is_some())
    }

    fn heal(&self) {
        self.disk.set_faults(None);
    }

    /// Does something with no call failing meanwhile.
    fn paused<T>(&self, work: impl FnOnce() -> T) -> T {
        let plan = self.disk.faults();
        self.disk.set_faults(None);
        let result = work();
        self.disk.set_faults(plan);
        result
    }

    /// Whether an error is what the fault should look like.
    fn typed(&mut self, error: &Error) -> Result<(), String> {
        self.failed = true;
        self.tally.errors += 1;
        let Some(case) = self.case.filter(|_| self.hit()) else { return Err(format!("nothing fails, but: {error}")) };
        let is_sync = matches!(case.call, Call::SyncAll | Call::SyncData | Call::SyncDir);
        let fits = match (case.fault, error) {
            (Fault::Io, Error::Io { .. }) | (Fault::Full, Error::DiskFull { .. }) => true,
            // What a failed fsync says is not that there is room to be made.
            (Fault::Full, Error::Io { .. }) => is_sync,
            (Fault::Io | Fault::Full, Error::Poisoned { .. }) => self.poisoned,
            // To the check before an offline compaction, a block that cannot be read is damage.
            (Fault::Io, Error::Corrupt { what: "store", found, .. }) => found.contains("os error 5"),
            _ => false,
        };
        if fits { Ok(()) } else { Err(format!("this fault should not be seen as: {error:?}")) }
    }

    /// Opens the store; on a healthy disk if it cannot be opened on this one.
    fn open(&mut self) -> Result<Store, String> {
        self.stop_if_gone()?;
        let store = match self.options.open(STORE) {
            Ok(store) => store,
            Err(error) => {
                self.typed(&error)?;
                self.stop_if_gone()?;
                if self.case.is_some_and(|case| case.for_ever) {
                    self.heal();
                }
                self.tally.reopened += 1;
                self.options.open(STORE).map_err(|error| format!("open, after a failed open: {error}"))?
            }
        };
        self.bounds.exists = true;
        self.poisoned = false;
        // An fsync that failed while the store was being opened, and was made up for.
        _ = self.disk.failed_sync();
        self.settle(&store, true)?;
        Ok(store)
    }

    /// Where a directory's fsync has failed, only the power failure remains to be judged.
    fn stop_if_gone(&mut self) -> Result<(), String> {
        if !self.disk.has_lying_names() {
            return Ok(());
        }
        let moment = self.disk.moment();
        self.heal();
        self.images(&moment, self.bounds, false, "power failure after a failed fsync of a directory")?;
        Err(GONE.into())
    }

    /// Compares a store that was just opened with what it may be. What it is counts from now on.
    fn settle(&mut self, store: &Store, whole: bool) -> Result<(), String> {
        let (model, bounds) = (&self.model, self.bounds);
        let recovered = self.paused(|| {
            let mut recovered = model.history.read(store)?;
            model.history.look_closer(&mut recovered, store)?;
            Ok::<_, String>(recovered)
        })?;
        self.model.history.check(&recovered, bounds, whole)?;
        let content = self.paused(|| content_of(store))?;
        self.model = Model::new(content, std::mem::take(&mut self.model.history.keys));
        self.bounds = Bounds { exists: true, ..Bounds::default() };
        Ok(())
    }

    /// Carries the script out, up to a few steps after the first error. Returns the store.
    fn script(&mut self) -> Result<Store, String> {
        let mut store = self.open()?;
        let mut after = 0;
        for op in &self.script.ops {
            after += u32::from(self.failed || self.hit() && self.case.is_some());
            if after > STEPS_AFTER || self.poisoned {
                break;
            }
            store = self.step(store, op).map_err(|what| format!("{op:?}: {what}"))?;
        }
        Ok(store)
    }

    fn step(&mut self, store: Store, op: &Op) -> Result<Store, String> {
        let closed = |run: &mut Self, result: tophash::Result<()>| match result {
            Ok(()) => {
                run.bounds.durable = run.bounds.returned;
                Ok(())
            }
            Err(error) => run.typed(&error),
        };
        match op {
            Op::Reopen => {
                closed(self, store.close())?;
                return self.open();
            }
            Op::Die => {
                kill(&self.disk, store);
                return self.open();
            }
            Op::Offline(_, work) => {
                closed(self, store.close())?;
                if let Err(error) = work(Path::new(STORE), &self.options) {
                    self.typed(&error)?;
                }
                return self.open();
            }
            _ => {}
        }
        self.carry_out(&store, op)?;
        Ok(store)
    }

    /// One step on an open store, and everything that must be true after it.
    fn carry_out(&mut self, store: &Store, op: &Op) -> Result<(), String> {
        // The step that was to make its table has met a fault.
        if !has_tables(&self.model.content, op) {
            return Ok(());
        }
        match op.carry_out(store) {
            Ok(()) => {
                self.model.step(op);
                self.bounds.started = self.model.position();
                self.bounds.returned = self.bounds.started;
                if op.acknowledges(self.script.sync) {
                    self.bounds.durable = self.bounds.started;
                }
            }
            Err(error) => self.failed_step(store, op, &error)?,
        }
        let poisoned = store.stats().poisoned.is_some();
        if let Some(name) = self.disk.failed_sync().filter(|_| !poisoned) {
            return Err(format!("an fsync of {name} has failed, and the store goes on"));
        }
        if poisoned && !self.poisoned {
            self.poisoned = true;
            self.check_poisoned(store)?;
        }
        Ok(())
    }

    /// A step that failed has not happened, unless its own sync failed; reads go on.
    fn failed_step(&mut self, store: &Store, op: &Op, error: &Error) -> Result<(), String> {
        let first = !self.failed;
        self.poisoned |= matches!(error, Error::Poisoned { .. }) && store.stats().poisoned.is_some();
        self.typed(error)?;
        let full = matches!(error, Error::DiskFull { .. });
        let found = if full { content_of(store)? } else { self.paused(|| content_of(store))? };
        let mut after = self.model.content.clone();
        carry_out(op, &mut after);
        let half_done = |op: &Op| {
            let missing = self.model.content.iter().filter(|&(key, value)| found.get(key) != Some(value));
            matches!(op, Op::RemoveMany(_))
                && missing.clone().all(|(key, _)| !found.contains_key(key) && !after.contains_key(key))
                && found.len() + missing.count() == self.model.content.len()
        };
        let poisoned = store.stats().poisoned.is_some();
        if found != self.model.content {
            if found != after && !half_done(op) {
                return Err(format!("failed ({error}), and is neither done nor undone"));
            }
            // Only its own sync may fail a change that is made. That is left open by nothing but a sync that failed.
            let own_sync = poisoned && (self.script.sync == SyncPolicy::Always || matches!(op, Op::Awaited(_)));
            // The error was met at a key that is not there, after all that are.
            let absent = |op: &Op| match op {
                Op::RemoveMany(keys) => keys.iter().any(|&k| !self.model.content.contains_key(&crate::script::key(k))),
                _ => false,
            };
            if found == after && !own_sync && !absent(op) {
                return Err(format!("failed ({error}), and is done"));
            }
            self.model.step_to(op, found);
        } else if poisoned {
            self.model.perhaps(op);
        }
        self.bounds.started = self.model.position();
        if full && first && !poisoned {
            self.remove_some(store)?;
        }
        Ok(())
    }

    /// On a full disk: removals go on until the reserve is used up.
    fn remove_some(&mut self, store: &Store) -> Result<(), String> {
        let present: Vec<u32> = (0..200).filter(|&k| self.model.content.contains_key(&crate::script::key(k))).collect();
        for k in present.into_iter().take(3) {
            let errors = self.tally.errors;
            self.carry_out(store, &Op::Remove(k)).map_err(|what| format!("remove on a full disk: {what}"))?;
            self.tally.removals += u64::from(self.tally.errors == errors);
        }
        Ok(())
    }

    /// Nothing is changed any more, and everything can be read.
    fn check_poisoned(&mut self, store: &Store) -> Result<(), String> {
        self.tally.poisoned += 1;
        let before = self.disk.changes();
        let refused = [
            ("insert", store.insert("k", "v").map(|_| ())),
            ("remove", store.remove("").map(|_| ())),
            ("sync", store.sync()),
            ("checkpoint", store.checkpoint()),
            ("clear", store.clear()),
            ("compact", store.compact().map(|_| ())),
        ];
        for (name, result) in refused {
            if !matches!(result, Err(Error::Poisoned { .. })) {
                return Err(format!("{name} of a poisoned store: {result:?}"));
            }
        }
        if self.disk.changes() != before {
            return Err("a poisoned store writes".into());
        }
        let found = self.paused(|| content_of(store))?;
        if found == self.model.content { Ok(()) } else { Err("a poisoned store forgets".into()) }
    }

    /// What follows the script.
    fn end(&mut self, store: Store) -> Result<(), String> {
        let case = self.case.filter(|_| self.hit());
        let was_full = case.is_some_and(|case| case.fault == Fault::Full && case.for_ever);
        if was_full && !self.poisoned {
            self.heal();
            // There is room again.
            let room = "there is room again, but";
            store.compact().map_err(|error| format!("{room} compact: {error}"))?;
            self.carry_out(&store, &Op::Insert(1, Value { len: 300, tag: 77 }))
                .map_err(|what| format!("{room} {what}"))?;
            self.carry_out(&store, &Op::Sync).map_err(|what| format!("{room} {what}"))?;
        }
        let moment = self.disk.moment();
        let whole = !self.disk.has_lies() && !self.disk.has_lying_names();
        let changes = self.disk.changes();
        if self.poisoned {
            drop(store);
            if self.disk.changes() != changes {
                return Err("a poisoned store writes when it is dropped".into());
            }
        } else {
            kill(&self.disk, store);
        }
        self.heal();
        self.images(&moment, self.bounds, whole, "power failure after the fault")?;
        if self.disk.has_lying_names() {
            // A file system does not go on after this.
            return Ok(());
        }

        // The process is dead, the machine is not.
        let recorded = !whole || case.is_some_and(|case| matches!(case.call, Call::SyncAll | Call::SyncData));
        if recorded {
            self.disk.record();
        }
        let (model, bounds) = (self.model.clone(), self.bounds);
        self.tally.reopened += 1;
        let store = self.options.open(STORE).map_err(|error| format!("open on a healthy disk: {error}"))?;
        let (boundaries, _) = if recorded { self.disk.recorded() } else { (Vec::new(), 0) };
        self.settle(&store, true).map_err(|what| format!("on a healthy disk: {what}"))?;
        self.case = None;
        self.carry_out(&store, &Op::Insert(2, Value { len: 30, tag: 99 }))?;
        self.carry_out(&store, &Op::Sync)?;
        let moment = self.disk.moment();
        kill(&self.disk, store);
        self.images(&moment, self.bounds, false, "power failure after the recovery")?;
        self.model = model;
        for boundary in &boundaries {
            self.images(boundary, bounds, false, "power failure during the recovery")?;
        }
        Ok(())
    }

    /// Opens what a power failure can leave.
    fn images(&mut self, moment: &Boundary, bounds: Bounds, whole: bool, when: &str) -> Result<(), String> {
        let mut all: Vec<Vec<Fate>> = Vec::new();
        choices(moment, DEPTH, &mut self.random, &mut |fates| all.push(fates.to_vec()));
        all.sort_unstable_by_key(|fates| format!("{fates:?}"));
        all.dedup();
        for fates in all {
            let image = after(moment, &fates);
            let whole = whole && fates.iter().all(|&fate| fate == Fate::Kept);
            self.image(image, bounds, whole).map_err(|what| format!("{when}, before {:?}: {what}", moment.call))?;
        }
        Ok(())
    }

    fn image(&mut self, image: Image, bounds: Bounds, whole: bool) -> Result<(), String> {
        self.tally.reopened += 1;
        let exists = image.find(&Path::new(STORE).join("index")).is_some();
        if bounds.exists && !exists {
            return Err("the store is gone".into());
        }
        let disk = SimDisk::untracked(image, 5);
        if exists && self.random.one_in(8) {
            let report = tophash::verify::verify_disk(&disk, STORE, tophash::Progress::ignore)
                .map_err(|e| format!("verify: {e}"))?;
            if !report.is_clean() {
                return Err(format!("verify: {:?}", report.findings));
            }
        }
        let store = self.script.options(&disk).open(STORE).map_err(|error| format!("open: {error}"))?;
        let mut recovered = self.model.history.read(&store)?;
        self.model.history.look_closer(&mut recovered, &store)?;
        self.model.history.check(&recovered, bounds, whole)?;
        store.insert("after the fault", "1").map_err(|error| format!("use after the recovery: {error}"))?;
        store.close().map_err(|error| format!("close after the recovery: {error}"))
    }
}
